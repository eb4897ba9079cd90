//! One session: its machine and the way to its game server; and the table of a client's sessions.

use std::time::Instant;

use super::inbox::Arrival;
use super::keys::{LinkKey, SessionKey};
use super::link_writer::SessionSource;
use super::machine::{Machine, ProtocolError, SessionPhase, Standing};
use super::outbox::Batch;
use super::owner::{AdmittedSession, FrameCounts};
use super::reason::{EndReason, OpenError};
use super::slots::Slots;
use super::upstream::Upstream;
use crate::frame::{HEADER_LEN, PacketId, SessionId};
use crate::game_packet::{GamePacketDecoder, GamePacketError};
use crate::reassembly::ReassemblyBuffer;

/// The result of bytes from a game server.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Framed {
    /// Packets that are on their way to the client now.
    pub packets: u32,
    /// Bytes by which the outbox has grown.
    pub unacked: usize,
    /// Bytes that cannot be a packet came, and have ended the session.
    pub error: Option<GamePacketError>,
}

/// The figures of a session, as they are at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionFigures {
    /// Its phase; a session that waits for its game server is in it whatever its links do.
    pub phase: SessionPhase,
    /// It has no connection to its game server, most often not yet.
    pub connecting: bool,
    /// The reason of its end, once it has ended.
    pub ended: Option<EndReason>,
    /// Bytes kept for replay.
    pub unacked: usize,
    /// Bytes kept ahead of their turn.
    pub reorder: usize,
    /// Bytes that wait for the game server.
    pub pending: usize,
    /// Packets from the client, each once.
    pub packets_in: PacketId,
    /// Packets to the client, each once.
    pub packets_out: PacketId,
    /// Bytes of the packets from the client.
    pub bytes_in: u64,
    /// Bytes of the packets to the client.
    pub bytes_out: u64,
}

/// The part of a session that outlives its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closed {
    /// It goes on, or its client is being told.
    No,
    /// It is there until then to meet joins on their way.
    Until(Instant),
    /// Nothing more is to come.
    Over,
}

#[derive(Debug)]
pub(super) struct Session<S, P> {
    pub owned: S,
    /// The player that opened it.
    pub player: P,
    /// Other addresses from which links have joined it, those that joined last at the end.
    elsewhere: Vec<P>,
    pub machine: Machine,
    /// Links that joined it and are there, those that have told its end included.
    pub links: Vec<LinkKey>,
    /// The time at which a link is closed so that the client joins anew; only while no complete link is there.
    pub rejoin_at: Option<Instant>,
    /// Links that were closed for that since the last complete one.
    pub closes: u32,
    /// Links find it.
    listed: bool,
    closed: Closed,
    upstream: Upstream,
    /// There is a connection to the game server.
    connected: bool,
    decoder: GamePacketDecoder,
    reassembly: ReassemblyBuffer,
    bytes_in: u64,
    bytes_out: u64,
}

/// Addresses from which links may carry one session at once. A client has one, or one on each path; each change of
/// address adds one for as long as the links of the old one are not known to be lost.
pub const MAX_ADDRESSES: usize = 8;

impl<S, P> Session<S, P> {
    pub fn new(id: SessionId, player: P, admitted: AdmittedSession<S>, now: Instant) -> Self {
        let AdmittedSession { session, limits, framing, max_packets_per_second } = admitted;
        Self {
            owned: session,
            player,
            elsewhere: Vec::new(),
            machine: Machine::new(id, limits, now),
            links: Vec::new(),
            rejoin_at: None,
            closes: 0,
            listed: true,
            closed: Closed::No,
            upstream: Upstream::new(max_packets_per_second),
            connected: false,
            decoder: GamePacketDecoder::new(framing),
            reassembly: ReassemblyBuffer::default(),
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    /// Returns whether a link of this player has joined it, among the last ones.
    pub fn knows(&self, player: &P) -> bool
    where
        P: PartialEq,
    {
        self.player == *player || self.elsewhere.contains(player)
    }

    /// Takes note that a link of another player joins. `there` says of which players there are links.
    ///
    /// # Errors
    /// There are links of as many players as there may be.
    pub fn meet(&mut self, player: P, there: impl Fn(&P) -> bool) -> Result<(), OpenError> {
        if self.elsewhere.len() + 1 >= MAX_ADDRESSES {
            let gone = self.elsewhere.iter().position(|known| !there(known)).ok_or(OpenError::SessionAddresses)?;
            self.elsewhere.remove(gone);
        }
        self.elsewhere.push(player);
        Ok(())
    }

    pub fn figures(&self) -> SessionFigures {
        SessionFigures {
            phase: self.machine.phase(),
            connecting: !self.connected,
            ended: self.machine.ended(),
            unacked: self.machine.outbox().unacked(),
            reorder: self.machine.reordering(),
            pending: self.upstream.len(),
            packets_in: self.machine.received(),
            packets_out: self.machine.sent(),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
        }
    }

    /// Takes a data frame. Returns whether its acknowledgement has the game server read again.
    ///
    /// `packets` is raised by the packets that are the game server's now.
    ///
    /// # Errors
    /// The client may not send this: the session must end.
    pub fn take(
        &mut self,
        packet: PacketId,
        ack: PacketId,
        payload: &[u8],
        counts: &mut FrameCounts,
        packets: &mut u32,
    ) -> Result<bool, ProtocolError> {
        let mut resumes = false;
        if self.machine.ended().is_none() {
            let paused = !self.machine.wants_game_data();
            let freed = self.machine.ack(ack)?;
            counts.freed += freed;
            resumes = paused && freed > 0 && self.machine.wants_game_data();
            match self.machine.accept(packet, payload)? {
                Arrival::Duplicate => counts.duplicate += 1,
                Arrival::Held => counts.first += 1,
                Arrival::InOrder => {
                    counts.first += 1;
                    self.deliver(payload, packets);
                    while let Some(held) = self.machine.pop_held() {
                        self.deliver(&held, packets);
                    }
                }
            }
        }
        let (pending, limit) = (self.upstream.cost(), self.machine.limits().pending);
        if pending > limit { Err(ProtocolError::Pending { pending }) } else { Ok(resumes) }
    }

    fn deliver(&mut self, payload: &[u8], packets: &mut u32) {
        self.upstream.push(payload);
        *packets += 1;
        self.bytes_in += payload.len() as u64;
    }

    /// Frames the whole packets of what the game server sent, once for all links.
    pub fn frame(&mut self, bytes: &[u8]) -> Framed {
        let Self { machine, decoder, .. } = self;
        let (batch, used, error) = self.reassembly.feed(bytes, |bytes| {
            // Most reads hold one packet, and then this is exact.
            let mut batch = Batch::with_capacity(bytes.len() + HEADER_LEN);
            let (id, ack, first) = (machine.id(), machine.received(), machine.outbox().next());
            let mut used = 0;
            let error = loop {
                match decoder.next(bytes.get(used..).unwrap_or_default()) {
                    Ok(Some((packet, len))) => {
                        let number = PacketId(first.0.saturating_add(batch.frames()));
                        batch.push(id, number, ack, packet.length, packet.body);
                        used += len;
                    }
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            (used, (batch, used, error))
        });
        let packets = batch.frames();
        let before = machine.outbox().unacked();
        machine.push(batch);
        self.bytes_out += used as u64;
        // The number after the last one means end: no session comes near it, and none goes past it.
        if machine.outbox().next() >= PacketId::LAST {
            machine.end(EndReason::Limit);
        }
        if error.is_some() {
            machine.end(EndReason::ProtocolError);
        }
        Framed { packets, unacked: machine.outbox().unacked() - before, error }
    }

    /// Returns the bytes that it keeps, with something for each piece.
    #[inline]
    pub fn kept(&self) -> usize {
        self.machine.kept() + self.upstream.cost()
    }

    /// Forgets all that it keeps; returns the bytes that were not acknowledged.
    pub fn discard(&mut self) -> usize {
        self.upstream = Upstream::new(None);
        self.reassembly = ReassemblyBuffer::default();
        self.machine.discard()
    }

    pub fn connected(&mut self, header: &[u8]) {
        self.upstream.push_header(header);
        self.connected = true;
    }

    pub fn disconnected(&mut self) {
        self.connected = false;
    }

    /// Returns what may be written to the game server now, and what the owner keeps.
    pub fn writable(&mut self, now: impl FnOnce() -> Instant) -> (&S, &[u8]) {
        (&self.owned, if self.connected { self.upstream.writable(now) } else { &[] })
    }

    pub fn wrote(&mut self, count: usize) {
        self.upstream.wrote(count);
    }

    pub fn paced_until(&self) -> Option<Instant> {
        self.upstream.next_at()
    }

    pub fn close(&mut self, unfinished: EndReason, now: Instant) {
        self.machine.end(unfinished);
        self.links = Vec::new();
        self.closed = match self.machine.ended() {
            // A join that is on its way now must meet the end, rather than open a second game connection that the
            // client would never use and never leave.
            Some(
                EndReason::GameClosed
                | EndReason::ConnectQueue
                | EndReason::Evicted
                | EndReason::ProtocolError
                | EndReason::Limit
                | EndReason::Memory
                | EndReason::Disconnected,
            ) => Closed::Until(now + self.machine.limits().leave_grace),
            _ => Closed::Over,
        };
    }

    pub fn deadline(&self) -> Option<Instant> {
        match self.closed {
            Closed::No => self.machine.deadline().into_iter().chain(self.rejoin_at).min(),
            Closed::Until(at) => Some(at),
            Closed::Over => None,
        }
    }

    pub fn tick(&mut self, now: Instant) {
        match self.closed {
            Closed::No => self.machine.tick(now),
            Closed::Until(at) if now >= at => self.closed = Closed::Over,
            Closed::Until(_) | Closed::Over => {}
        }
    }

    /// Returns whether it goes on and waits for its client to open it on a link.
    pub fn waits_for_open(&self) -> bool {
        self.machine.complete() == 0 && matches!(self.machine.phase(), SessionPhase::Lingering)
    }

    /// Returns whether its client is still to be sent something, or would be if there were something.
    pub fn has_to_tell(&self) -> bool {
        self.closed == Closed::No && !self.machine.is_finished()
    }

    pub fn is_over(&self) -> bool {
        self.closed == Closed::Over
    }
}

/// The sessions of a client.
pub(super) struct Sessions<S, P> {
    slots: Slots<Session<S, P>>,
    /// The sessions that links find, by id: another one may still be telling its links that it has ended.
    listed: Vec<(SessionId, SessionKey)>,
    /// The sessions that their owner must look at again.
    changed: Vec<SessionKey>,
}

impl<S, P> Default for Sessions<S, P> {
    fn default() -> Self {
        Self { slots: Slots::default(), listed: Vec::new(), changed: Vec::new() }
    }
}

impl<S, P> Sessions<S, P> {
    pub fn insert(&mut self, session: Session<S, P>) -> SessionKey {
        let id = session.machine.id();
        let key = SessionKey(self.slots.insert(session));
        let at = self.listed.partition_point(|(other, _)| *other < id);
        self.listed.insert(at, (id, key));
        key
    }

    pub fn get(&self, key: SessionKey) -> Option<&Session<S, P>> {
        self.slots.get(key.0)
    }

    pub fn get_mut(&mut self, key: SessionKey) -> Option<&mut Session<S, P>> {
        self.slots.get_mut(key.0)
    }

    pub fn find(&self, id: SessionId) -> Option<SessionKey> {
        let at = self.listed.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.listed.get(at).map(|(_, key)| *key)
    }

    pub fn listed(&self) -> &[(SessionId, SessionKey)] {
        &self.listed
    }

    /// Has links find it no more. It is gone with the last of them that carries it.
    pub fn remove(&mut self, key: SessionKey) {
        self.listed.retain(|(_, other)| *other != key);
        if let Some(session) = self.get_mut(key) {
            session.listed = false;
            self.drop_unused(key);
        }
    }

    /// Takes note that what the session waits for has changed.
    pub fn change(&mut self, key: SessionKey) {
        self.changed.push(key);
    }

    pub fn pop_changed(&mut self) -> Option<SessionKey> {
        let key = self.changed.pop()?;
        if self.changed.is_empty() {
            // Rare, and so not worth memory for each client.
            self.changed = Vec::new();
        }
        Some(key)
    }

    /// Drops it if no link carries it and none can find it.
    pub fn drop_unused(&mut self, key: SessionKey) {
        if self.get(key).is_some_and(|session| !session.listed && session.machine.links() == 0) {
            self.slots.remove(key.0);
        }
    }

    /// Takes a link that is gone off all sessions.
    pub fn forget(&mut self, link: LinkKey) {
        for session in self.slots.values_mut() {
            session.links.retain(|other| *other != link);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

impl<S, P> SessionSource for Sessions<S, P> {
    fn machine(&mut self, session: SessionKey) -> Option<&mut Machine> {
        Some(&mut self.get_mut(session)?.machine)
    }

    fn end_written(&mut self, session: SessionKey, standing: Standing) {
        if let Some(machine) = self.machine(session) {
            machine.end_written(standing);
            self.change(session);
            self.drop_unused(session);
        }
    }
}

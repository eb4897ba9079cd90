//! One session: its machine and the way to its game server; and the table of a client's sessions.

use std::time::{Duration, Instant};

use super::frozen::{FrozenClosed, FrozenError, FrozenInstant, FrozenSession, FrozenSettled, ThawedSession};
use super::inbox::Arrival;
use super::keys::{LinkKey, SessionKey};
use super::link_writer::SessionSource;
use super::machine::{Machine, ProtocolError, SessionLimits, SessionPhase, Standing};
use super::outbox::{Batch, Cursor};
use super::owner::{AdmittedSession, FrameCounts};
use super::reason::{EndReason, OpenError};
use super::record::SessionRecord;
use super::slots::Slots;
use super::upstream::Upstream;
use crate::frame::{HEADER_LEN, PacketId, SessionId};
use crate::game_packet::{GamePacketDecoder, GamePacketError};
use crate::quota::Quota;
use crate::reassembly::ReassemblyBuffer;

use bytes::Bytes;

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

/// The packets of a client that are its game server's: all that are written to its socket.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settled {
    /// The last of them.
    pub received: PacketId,
    /// The bytes that were written to the game server up to its end.
    pub written: u64,
    /// Bytes of these packets.
    pub bytes_in: u64,
}

/// The part of a session that outlives its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closed {
    /// It goes on, or its client is being told.
    No,
    /// It is there until then, for what its client has not acknowledged and for joins on their way.
    Until(Instant),
    /// Nothing more is to come.
    Over,
}

/// A session in the table of its client. The fields that packets need are first, and side by side: with thousands of players, the
/// memory that a packet touches is what it costs.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Session<S, P> {
    pub owned: S,
    /// Links that carry it.
    pub links: Vec<LinkKey>,
    reassembly: ReassemblyBuffer,
    bytes_in: u64,
    bytes_out: u64,
    upstream: Upstream,
    settled: Settled,
    decoder: GamePacketDecoder,
    /// There is a connection to the game server.
    connected: bool,
    /// Links find it.
    listed: bool,
    /// It is not kept for its client once it has ended.
    hurried: bool,
    /// It was ended while no link was there to hear of it.
    unheard: bool,
    /// The time at which a link is closed so that the client joins anew; only while no complete link is there.
    pub rejoin_at: Option<Instant>,
    closed: Closed,
    pub machine: Machine,
    /// Links that were closed for that since the last complete one.
    pub closes: u32,
    /// The number of the session among all of its client.
    pub born: u64,
    /// The state of the limit of joins.
    joins: Option<Instant>,
    /// The player that opened it.
    pub player: P,
    /// Other addresses from which links have joined it, those that joined last at the end.
    elsewhere: Vec<P>,
}

/// Addresses from which links may carry one session at once. A client has one, or one on each path; each change of
/// address adds one for as long as the links of the old one are not known to be lost.
pub const MAX_ADDRESSES: usize = 8;
/// Joins of one session that may come at once: each may cost a copy of all that is not acknowledged.
pub const MAX_JOINS: u32 = 32;
/// And the time in which one more may come. A client takes a link into use every half second at the most.
pub const JOIN_INTERVAL: Duration = Duration::from_millis(250);
/// The time after which a client gives a session up by itself.
const CLIENT_PATIENCE: Duration = Duration::from_secs(30);

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
            born: 0,
            joins: None,
            listed: true,
            closed: Closed::No,
            hurried: false,
            unheard: false,
            upstream: Upstream::new(max_packets_per_second),
            settled: Settled::default(),
            connected: false,
            decoder: GamePacketDecoder::new(framing),
            reassembly: ReassemblyBuffer::default(),
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    /// Freezes it, with the links that carry it; `lost` says whether one was left out that brought all its packets.
    pub fn freeze(&self, key: SessionKey, links: Vec<u32>, lost: bool, now: Instant) -> FrozenSession {
        let moment = |at| FrozenInstant::new(at, now);
        FrozenSession {
            key: key.0,
            born: self.born,
            listed: self.listed,
            links,
            lost,
            machine: self.machine.freeze(now),
            upstream: self.upstream.freeze(now),
            settled: FrozenSettled {
                received: self.settled.received.0,
                written: self.settled.written,
                bytes_in: self.settled.bytes_in,
            },
            framing: self.decoder.framing(),
            partial: Bytes::copy_from_slice(self.reassembly.kept()),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            connected: self.connected,
            hurried: self.hurried,
            unheard: self.unheard,
            closed: match self.closed {
                Closed::No => FrozenClosed::No,
                Closed::Until(at) => FrozenClosed::Until(moment(at)),
                Closed::Over => FrozenClosed::Over,
            },
            rejoin_at: self.rejoin_at.map(moment),
            closes: self.closes,
            joins: self.joins.map(moment),
        }
    }

    /// Makes the session that was frozen, which no link carries yet.
    ///
    /// # Errors
    /// It is damaged.
    pub fn thaw(frozen: FrozenSession, owned: ThawedSession<S, P>, now: Instant) -> Result<Self, FrozenError> {
        let ThawedSession { session, player, elsewhere, limits, max_packets_per_second } = owned;
        Ok(Self {
            owned: session,
            player,
            elsewhere,
            machine: Machine::thaw(frozen.machine, limits, now)?,
            links: Vec::new(),
            rejoin_at: frozen.rejoin_at.map(|moment| moment.at(now)),
            closes: frozen.closes,
            born: frozen.born,
            joins: frozen.joins.map(|moment| moment.at(now)),
            listed: frozen.listed,
            closed: match frozen.closed {
                FrozenClosed::No => Closed::No,
                FrozenClosed::Until(moment) => Closed::Until(moment.at(now)),
                FrozenClosed::Over => Closed::Over,
            },
            hurried: frozen.hurried,
            unheard: frozen.unheard,
            upstream: Upstream::thaw(frozen.upstream, max_packets_per_second, now),
            settled: Settled {
                received: PacketId(frozen.settled.received),
                written: frozen.settled.written,
                bytes_in: frozen.settled.bytes_in,
            },
            connected: frozen.connected,
            decoder: GamePacketDecoder::new(frozen.framing),
            reassembly: ReassemblyBuffer::of(&frozen.partial),
            bytes_in: frozen.bytes_in,
            bytes_out: frozen.bytes_out,
        })
    }

    /// Returns whether links find it.
    pub fn is_listed(&self) -> bool {
        self.listed
    }

    /// Returns the players from whose addresses links have joined it, that of its opener first.
    pub fn players(&self) -> impl Iterator<Item = &P> {
        std::iter::once(&self.player).chain(&self.elsewhere)
    }

    /// Returns whether a link of this player has joined it, among the last ones.
    pub fn knows(&self, player: &P) -> bool
    where
        P: PartialEq,
    {
        self.player == *player || self.elsewhere.contains(player)
    }

    /// Counts a join.
    ///
    /// # Errors
    /// There were more than those of a client.
    pub fn count_join(&mut self, now: Instant) -> Result<(), OpenError> {
        let place = Quota::new(JOIN_INTERVAL, MAX_JOINS).take(&mut self.joins, now, now);
        place.map(|_| ()).ok_or(OpenError::JoinRate)
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
    /// `packets` is raised by the packets that are the game server's now. Once the session has ended, there are none, and
    /// only the acknowledgement counts.
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
        if self.machine.ended().is_some() {
            let freed = self.machine.ack(ack).unwrap_or_default();
            // What links still write of a session that was removed is accounted for.
            counts.freed += if self.listed { freed } else { 0 };
            return Ok(false);
        }
        let paused = !self.machine.wants_game_data();
        let freed = self.machine.ack(ack)?;
        counts.freed += freed;
        let resumes = paused && freed > 0 && self.machine.wants_game_data();
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
        let (pending, limit) = (self.upstream.cost(), self.machine.limits().pending);
        if pending > limit { Err(ProtocolError::Pending { pending }) } else { Ok(resumes) }
    }

    fn deliver(&mut self, payload: &[u8], packets: &mut u32) {
        self.upstream.push(payload);
        *packets += 1;
        self.bytes_in += payload.len() as u64;
    }

    /// Returns what must outlive the process.
    pub fn record(&self) -> SessionRecord<'_> {
        let Settled { received, written, bytes_in } = self.settled;
        SessionRecord {
            received,
            written,
            bytes_in,
            bytes_out: self.bytes_out,
            framing: self.decoder.framing(),
            partial: self.reassembly.kept(),
            outbox: self.machine.outbox(),
        }
    }

    /// Frames the whole packets of what the game server sent, once for all links.
    ///
    /// They acknowledge what the client sent as far as the game server's socket has all of it: a client sends the rest again
    /// to a process that knows nothing of it.
    pub fn frame(&mut self, bytes: &[u8]) -> Framed {
        let Self { machine, decoder, .. } = self;
        if self.upstream.is_empty() {
            let (received, written) = (machine.received(), self.upstream.position());
            self.settled = Settled { received, written, bytes_in: self.bytes_in };
        }
        let settled = self.settled.received;
        let (batch, used, error) = self.reassembly.feed(bytes, |bytes| {
            // Most reads hold one packet, and then this is exact.
            let mut batch = Batch::with_capacity(bytes.len() + HEADER_LEN);
            let (id, ack, first) = (machine.id(), settled, machine.outbox().next());
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

    /// Has packets for the game server lead nowhere from now on.
    pub fn drop_upstream(&mut self) {
        self.upstream.close();
    }

    pub fn wrote(&mut self, count: usize) {
        self.upstream.wrote(count);
    }

    pub fn paced_until(&self) -> Option<Instant> {
        self.upstream.next_at()
    }

    pub fn close(&mut self, unfinished: EndReason, now: Instant) {
        self.machine.end(unfinished);
        let SessionLimits { linger, leave_grace, .. } = *self.machine.limits();
        // Its client has been away for the whole time already.
        let away = self.machine.deadline().is_some_and(|at| now >= at);
        let time = match self.machine.ended() {
            // The client asked for it, or there is nobody any more to tell it.
            Some(EndReason::ClientLeft | EndReason::Shutdown | EndReason::Panic) | None => None,
            _ if self.hurried => None,
            _ if self.unheard => Some(CLIENT_PATIENCE.max(leave_grace)),
            // A client that comes back now must meet the end, rather than open a second game connection.
            Some(EndReason::LinksLost) => Some(CLIENT_PATIENCE.saturating_sub(linger).max(leave_grace)),
            // A kernel took what was told on a link, and the client may have got none of it.
            Some(_) if !away && self.machine.outbox().unacked() > 0 => Some(linger.max(leave_grace)),
            // A join that is on its way now, likewise.
            Some(_) => Some(leave_grace),
        };
        self.closed = time.map_or(Closed::Over, |time| Closed::Until(now + time));
    }

    /// Ends it now, though no link carries it.
    pub fn give_up(&mut self, reason: EndReason) {
        self.machine.end(reason);
        self.machine.give_up();
        self.unheard = true;
    }

    /// Has it be over as soon as its client is told.
    pub fn hurry(&mut self) {
        self.hurried = true;
        if matches!(self.closed, Closed::Until(_)) {
            self.closed = Closed::Over;
        }
    }

    pub fn is_closed(&self) -> bool {
        self.closed != Closed::No
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
        self.closed != Closed::Over
    }

    pub fn is_over(&self) -> bool {
        self.closed == Closed::Over
    }
}

/// The sessions of a client.
#[repr(C)]
pub(super) struct Sessions<S, P> {
    slots: Slots<Session<S, P>>,
    /// The sessions that their owner must look at again.
    changed: Vec<SessionKey>,
    /// The sessions that links find, by id: another one may still be telling its links that it has ended.
    listed: Vec<(SessionId, SessionKey)>,
    /// Sessions that there were.
    born: u64,
}

impl<S, P> Default for Sessions<S, P> {
    fn default() -> Self {
        Self { slots: Slots::default(), listed: Vec::new(), changed: Vec::new(), born: 0 }
    }
}

impl<S, P> Sessions<S, P> {
    /// Makes an empty table of a client that had so many sessions.
    pub fn after(born: u64) -> Self {
        Self { born, ..Self::default() }
    }

    /// Returns how many sessions there were.
    pub fn born(&self) -> u64 {
        self.born
    }

    /// Returns all sessions, those included that links find no more.
    pub fn all(&self) -> impl Iterator<Item = (SessionKey, &Session<S, P>)> {
        (0..self.slots.end()).filter_map(|key| Some((SessionKey(key), self.slots.get(key)?)))
    }

    /// Puts a session under its key of before, with the links that carried it; returns false if there is one, or one of its
    /// id.
    pub fn put(&mut self, key: SessionKey, mut session: Session<S, P>, links: Vec<LinkKey>, listed: bool) -> bool {
        let id = session.machine.id();
        let at = self.listed.partition_point(|(other, _)| *other < id);
        session.links = links;
        if listed && self.find(id).is_some() || !self.slots.put(key.0, session) {
            return false;
        }
        if listed {
            self.listed.insert(at, (id, key));
        }
        true
    }

    /// Returns the position before a packet in the outbox of the `born`th session.
    pub fn cursor_before(&self, born: u64, packet: PacketId) -> Cursor {
        let session = self.slots.values().find(|session| session.born == born);
        session.map(|session| session.machine.outbox().before(packet)).unwrap_or_default()
    }

    /// Takes those links off sessions of which `carries` says that they do not carry them, and drops the sessions that
    /// nothing needs.
    pub fn keep_carried(&mut self, carries: impl Fn(SessionKey, LinkKey) -> bool) {
        for key in (0..self.slots.end()).map(SessionKey) {
            if let Some(session) = self.get_mut(key) {
                session.links.retain(|link| carries(key, *link));
            }
            self.drop_unused(key);
        }
    }

    pub fn insert(&mut self, mut session: Session<S, P>) -> SessionKey {
        self.born += 1;
        session.born = self.born;
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

    /// Takes a link off the sessions that it does not carry any more, having told their ends.
    pub fn forget_told(&mut self, link: LinkKey, carries: impl Fn(u64) -> bool) {
        for session in self.slots.values_mut().filter(|session| !carries(session.born)) {
            session.links.retain(|other| *other != link);
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

//! A client's machine under any sequence of events, against a model that is as plain as can be.
//!
//! The world here is what sockets are to the machine: it has frames and game packets arrive, cut somewhere, and takes
//! what a link or a game server would take. The model knows all packets, foresees what the machine has its owner do, and
//! judges each frame when it begins.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use arbitrary::{Result, Unstructured};
use otproxy_protocol::core::{
    AckBeyondSent, AdmittedSession, ClientMachine, ClientOwner, Effect, EndReason, FrameCounts, FrozenClient,
    JOIN_INTERVAL, LinkDuty, LinkKey, MAX_JOINS, MAX_LINKS, OpenError, OpenRules, PACKETS_PERIOD, ProtocolError,
    ReorderFull, SessionKey, SessionLimits, Standing, ThawedSession,
};
use otproxy_protocol::frame::{self, ClientId, Frame, FromCore, HEADER_LEN, PacketId, SessionId};
use otproxy_protocol::game_packet::Framing;
use otproxy_protocol::quota::Quota;

/// Links of the one client here.
const LINKS: usize = 3;
/// Sessions that it has open at once.
const SESSIONS: usize = 2;
/// Sessions that a link may carry: one that has ended may still be told.
const MAX_PER_LINK: usize = 3;
/// The cost of a packet ahead of its turn beside its bytes.
const HELD_OVERHEAD: usize = 64;
/// The cost of one read of the game server beside its bytes while it is kept.
const CHUNK_OVERHEAD: usize = 96;
/// Bytes that may wait for the game server.
const PENDING: usize = 4096;
/// Pongs, and ends of strange sessions, that may wait on a link.
const MAX_WAITING: usize = 64;
/// Sessions that a link may not join, and of which it remembers so.
const MAX_KEPT_OFF: usize = 8;
/// Ids of sessions that the core does not know.
const STRANGE: u32 = 1 << 20;
/// The time that a client has to open a session on a link that was lent to it, and the time from one close of such a link
/// to the next.
const OPEN_WITHIN: Duration = Duration::from_millis(1500);
const CLOSE_EVERY: Duration = Duration::from_millis(2500);
/// Links with other sessions that are closed for one.
const MAX_CLOSES: u32 = 4;
/// Sessions of which a link remembers where it stood, and those of which the machine remembers that they are over.
const MAX_STOOD: usize = 32;
const MAX_RECENT: usize = 16;
/// The time after which a client gives a session up by itself.
const CLIENT_PATIENCE: Duration = Duration::from_secs(30);
const CLIENT: ClientId = ClientId(7);
const PORT: u16 = 7172;
/// The bytes to the game server before all packets.
const HEADER: &[u8] = b"player's address";

/// The events, each followed by its arguments.
pub mod event {
    /// LINK SESSION: the client opens the session on the link, or joins it. A SESSION of 2 or more
    /// is joined even where it is over; otherwise a new one takes its place.
    pub const OPEN: u8 = 0;
    /// LINK SESSION: it leaves.
    pub const LEAVE: u8 = 1;
    /// LINK: the connection is gone; the next event on it is on a new one.
    pub const LOSE: u8 = 2;
    /// LINK SESSION DISTANCE BEHIND LENGTH: a packet so far from the one that is due (as an i8),
    /// and an ack so far behind the last packet that was sent.
    pub const DATA: u8 = 3;
    /// LINK SESSION PACKET ACK LENGTH: the same with any u32 numbers.
    pub const ANY_DATA: u8 = 4;
    /// SESSION COUNT LENGTH: packets of the game server, of so many bytes times 3.
    pub const PUSH: u8 = 5;
    /// SESSION: the game server closes.
    pub const CLOSE: u8 = 6;
    /// u16: so many milliseconds pass.
    pub const WAIT: u8 = 7;
    /// LINK u16: the link takes so many bytes.
    pub const WRITE: u8 = 8;
    /// Each link takes all there is.
    pub const WRITE_ALL: u8 = 9;
    /// LINK COUNT: pings, which report a round trip of so many milliseconds.
    pub const PING: u8 = 10;
    /// LINK COUNT: data for so many sessions that the core does not know, of a client that has got packets of them; if
    /// COUNT is 0, for the one that is opened next, of which it has got none.
    pub const STRAY: u8 = 11;
    /// SESSION LENGTH: the game server takes so many bytes.
    pub const GAME_TAKES: u8 = 12;
    /// LINK u8: the link takes so many bytes, and then breaks.
    pub const BREAK: u8 = 13;
    /// SESSION: a link of another player, which asks for the session and sends it data.
    pub const FOREIGN: u8 = 14;
    /// LINK: it falls silent.
    pub const SILENT: u8 = 15;
    /// LINK: it is heard again.
    pub const HEARD: u8 = 16;
    /// u8: another process goes on with all but the links whose bits are set.
    pub const FREEZE: u8 = 17;
    /// The number of kinds.
    pub const COUNT: u8 = 18;
}

/// Takes four bytes of limits, then events.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(mut world) = World::new(&mut input) else { return };
    while !input.is_empty() {
        if world.event(&mut input).is_err() {
            break;
        }
        world.check();
    }
    world.finish();
}

/// The owner of the machine. Its part of a link is the player.
struct Host {
    now: Cell<Instant>,
    limits: SessionLimits,
    rate: Option<u32>,
    /// Sessions that were let in, and not yet seen by the world.
    admitted: RefCell<Vec<SessionId>>,
}

impl ClientOwner for Host {
    type Link = u8;
    type Session = SessionId;
    type Player = u8;

    fn now(&self) -> Instant {
        self.now.get()
    }

    fn rules(&self) -> OpenRules {
        OpenRules { max_per_link: MAX_PER_LINK, bind_to_player: true }
    }

    fn player(&self, link: &u8) -> u8 {
        *link
    }

    fn admit(
        &self,
        _link: &u8,
        session: SessionId,
        port: u32,
    ) -> std::result::Result<AdmittedSession<SessionId>, OpenError> {
        if port != u32::from(PORT) {
            return Err(OpenError::Port);
        }
        self.admitted.borrow_mut().push(session);
        Ok(AdmittedSession { session, limits: self.limits, framing: Framing::Bytes, max_packets_per_second: self.rate })
    }
}

struct Session {
    id: SessionId,
    /// As the machine has it, until nothing of it is there.
    key: Option<SessionKey>,
    /// Links find it.
    listed: bool,
    /// It has told its end, and stays until then where that is given.
    closed: Option<Option<Instant>>,
    /// Payloads for the client: packet 1 is the first.
    packets: Vec<Vec<u8>>,
    /// The last packet of each read of the game server.
    reads: Vec<u32>,
    acked: u32,
    /// Payloads from the client that are ahead of their turn.
    held: BTreeMap<u32, Vec<u8>>,
    due: u32,
    /// The bytes for the game server in all, and how many it was offered and has got.
    expected_up: Vec<u8>,
    offered: usize,
    got_up: usize,
    connected: bool,
    /// The place in it at which each packet ends that is not empty.
    up_ends: Vec<usize>,
    opened: Instant,
    links: BTreeMap<usize, Standing>,
    /// The same links, in the order in which they joined.
    joined: Vec<usize>,
    deadline: Option<(Instant, EndReason)>,
    /// When a link is closed so that the client opens it anew, and how many were.
    rejoin_at: Option<Instant>,
    closes: u32,
    /// The state of the limit of joins.
    joins: Option<Instant>,
    ended: Option<EndReason>,
    end_told: bool,
}

impl Session {
    fn new(id: SessionId, key: SessionKey, now: Instant, linger: Duration) -> Self {
        Self {
            id,
            key: Some(key),
            listed: true,
            closed: None,
            packets: Vec::new(),
            reads: Vec::new(),
            acked: 0,
            held: BTreeMap::new(),
            due: 1,
            expected_up: HEADER.to_vec(),
            offered: HEADER.len(),
            got_up: 0,
            connected: false,
            up_ends: Vec::new(),
            opened: now,
            links: BTreeMap::new(),
            joined: Vec::new(),
            deadline: Some((now + linger, EndReason::LinksLost)),
            rejoin_at: None,
            closes: 0,
            joins: None,
            ended: None,
            end_told: false,
        }
    }

    fn has_complete(&self) -> bool {
        self.links.values().any(|standing| *standing == Standing::Complete)
    }

    fn completed(&mut self, link: usize) {
        self.links.insert(link, Standing::Complete);
        self.deadline = None;
        (self.rejoin_at, self.closes) = (None, 0);
    }

    fn waits_for_open(&self) -> bool {
        let lost = matches!(self.deadline, Some((_, EndReason::LinksLost)));
        lost && !self.has_complete() && self.ended.is_none()
    }

    fn unacked(&self) -> usize {
        self.packets.iter().skip(self.acked as usize).map(|payload| HEADER_LEN + payload.len()).sum()
    }

    /// Returns what is kept for replay, as it counts.
    fn cost(&self) -> usize {
        let kept = self.reads.iter().filter(|last| **last > self.acked).count();
        self.unacked() + kept * CHUNK_OVERHEAD
    }

    fn wants_game_data(&self, limits: &SessionLimits) -> bool {
        self.ended.is_none() && self.cost() < limits.unacked
    }

    fn held_bytes(&self) -> usize {
        self.held.values().map(|payload| payload.len() + HELD_OVERHEAD).sum()
    }

    fn pending(&self) -> usize {
        self.expected_up.len() - self.got_up - if self.connected { 0 } else { HEADER.len() }
    }

    /// Returns what waits for the game server, as it counts.
    fn pending_cost(&self, rate: Option<u32>) -> usize {
        let waiting = self.up_ends.len() - self.up_ends.partition_point(|end| *end <= self.offered);
        self.pending() + if rate.is_some() { waiting * 2 } else { 0 }
    }

    fn end(&mut self, reason: EndReason) {
        self.ended.get_or_insert(reason);
    }

    fn without(&mut self, link: usize, deadline: Instant, reason: EndReason) {
        let standing = self.links.remove(&link).expect("it carried the session");
        let counts = standing == Standing::Complete || reason == EndReason::ClientLeft;
        if counts && !self.has_complete() {
            self.deadline = Some((deadline, reason));
        }
    }

    /// Takes an acknowledgement of what was sent; returns the bytes that count as freed.
    fn ack(&mut self, ack: u32) -> usize {
        let before = self.unacked();
        if ack as usize <= self.packets.len() {
            self.acked = self.acked.max(ack);
        }
        if self.listed { before - self.unacked() } else { 0 }
    }

    /// Counts a join; returns whether it is within the limit.
    fn count_join(&mut self, now: Instant) -> bool {
        Quota::new(JOIN_INTERVAL, MAX_JOINS).take(&mut self.joins, now, now).is_some()
    }

    /// Returns for how long it stays once it has told its end, or has found nobody to tell.
    fn kept_for(&self, now: Instant, limits: &SessionLimits) -> Option<Duration> {
        let away = self.deadline.is_some_and(|(at, _)| now >= at);
        match self.ended {
            Some(EndReason::ClientLeft) => None,
            Some(EndReason::LinksLost) => Some((CLIENT_PATIENCE - limits.linger).max(limits.leave_grace)),
            _ if !away && self.unacked() > 0 => Some(limits.linger.max(limits.leave_grace)),
            _ => Some(limits.leave_grace),
        }
    }

    fn is_over(&self) -> bool {
        self.ended.is_some() && self.end_told
    }

    /// Returns the time at which something changes.
    fn next_change(&self) -> Option<Instant> {
        match self.closed {
            None => self.deadline.map(|(at, _)| at).into_iter().chain(self.rejoin_at).min(),
            Some(until) => until,
        }
    }
}

/// A link's place in one session.
#[derive(Clone, Copy)]
struct Carried {
    /// Its place among all sessions.
    session: usize,
    /// The packet that it writes next, where no more is acknowledged.
    next: u32,
}

struct Link {
    key: LinkKey,
    silent: bool,
    carried: BTreeMap<SessionId, Carried>,
    /// Its places in sessions that it carries no more, and whether it has told their ends.
    stood: VecDeque<(Carried, bool)>,
    /// The part of a frame that the link took, and the world when it began.
    cut: Vec<u8>,
    before_cut: Option<Before>,
    /// Not begun yet, as are the ends of sessions that it does not carry.
    pongs: usize,
    ends: VecDeque<SessionId>,
    /// Sessions that it may not join.
    kept_off: VecDeque<SessionId>,
    /// The last session of which it brought data and which nobody had opened.
    unopened: Option<SessionId>,
    /// Data frames: begun as the machine says, whole as the bytes say.
    begun: u64,
    whole: u64,
    /// Ends of sessions that it carried: begun and whole.
    ends_begun: u64,
    ends_whole: u64,
}

impl Link {
    fn new(key: LinkKey) -> Self {
        Self {
            key,
            silent: false,
            carried: BTreeMap::new(),
            stood: VecDeque::new(),
            cut: Vec::new(),
            before_cut: None,
            pongs: 0,
            ends: VecDeque::new(),
            kept_off: VecDeque::new(),
            unopened: None,
            begun: 0,
            whole: 0,
            ends_begun: 0,
            ends_whole: 0,
        }
    }

    /// Notes a session that it may not join, of which it remembers the last ones.
    fn keep_off(&mut self, id: SessionId) {
        if !self.kept_off.contains(&id) {
            self.kept_off.push_back(id);
            self.kept_off.drain(..self.kept_off.len().saturating_sub(MAX_KEPT_OFF));
        }
    }

    /// Remembers the place at which it stood in a session.
    fn stand(&mut self, carried: Carried, told: bool) {
        self.stood.push_back((carried, told));
        self.stood.drain(..self.stood.len().saturating_sub(MAX_STOOD));
    }

    fn stood_in(&self, session: usize) -> bool {
        self.stood.iter().any(|(carried, _)| carried.session == session)
    }

    fn told(&self, session: usize) -> bool {
        self.stood.iter().any(|(carried, told)| *told && carried.session == session)
    }

    /// Tells it the end of a session that it may not join.
    fn end_kept_off(&mut self, id: SessionId) -> bool {
        let kept_off = self.kept_off.contains(&id);
        if kept_off {
            self.kept_off.retain(|other| *other != id);
            self.end(id);
        }
        kept_off
    }

    /// Tells it that a session which it does not carry is over.
    fn end(&mut self, id: SessionId) {
        if !self.ends.contains(&id) && self.ends.len() < MAX_WAITING {
            self.ends.push_back(id);
        }
    }
}

/// The world when a frame began.
#[derive(Clone)]
struct Before {
    carried: BTreeMap<SessionId, Carried>,
    /// Of each session: what was acknowledged, how many packets there were, whether it had ended.
    sessions: Vec<(u32, usize, bool)>,
    pongs: usize,
    ends: VecDeque<SessionId>,
}

struct World {
    host: Host,
    client: ClientMachine<Host>,
    /// The place at which the next bytes that arrive are cut.
    cut: usize,
    /// All there ever were.
    sessions: Vec<Session>,
    /// The session that the client means by its first, and by its second.
    current: [Option<usize>; SESSIONS],
    links: [Link; LINKS],
    /// The machine looks at what links are lent.
    looks: bool,
    /// A link has come since it last did.
    arrived: bool,
    /// Links that it is to have closed, and to have written.
    closes: Vec<LinkKey>,
    writes: Vec<LinkKey>,
    /// Sessions that were removed lately.
    recent: VecDeque<SessionId>,
}

impl World {
    fn new(input: &mut Unstructured<'_>) -> Result<Self> {
        let [unacked, reorder, times, rate] = input.arbitrary::<[u8; 4]>()?;
        let limits = SessionLimits {
            linger: Duration::from_millis(u64::from(times >> 4) * 500),
            leave_grace: Duration::from_millis(u64::from(times & 15) * 100),
            unacked: 1 + usize::from(unacked) * 64,
            reorder: usize::from(reorder) * 16,
            pending: PENDING,
        };
        let host = Host {
            now: Cell::new(Instant::now() + Duration::from_secs(3600)),
            limits,
            rate: (rate > 0).then_some(u32::from(rate)),
            admitted: RefCell::default(),
        };
        let mut client = ClientMachine::default();
        let links = [(); LINKS].map(|()| Link::new(client.add_link(0)));
        Ok(Self {
            host,
            client,
            cut: 0,
            sessions: Vec::new(),
            current: [None; SESSIONS],
            links,
            looks: true,
            arrived: true,
            closes: Vec::new(),
            writes: Vec::new(),
            recent: VecDeque::new(),
        })
    }

    fn now(&self) -> Instant {
        self.host.now.get()
    }

    fn event(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        match input.arbitrary::<u8>()? % event::COUNT {
            event::OPEN => {
                let (link, session) = (link(input)?, input.arbitrary::<u8>()?);
                self.open(link, usize::from(session) % SESSIONS, usize::from(session) >= SESSIONS);
            }
            event::LEAVE => {
                let (link, slot) = (link(input)?, slot(input)?);
                let Some(index) = self.current[slot] else { return Ok(()) };
                self.leave(link, index);
            }
            event::LOSE => self.lose(link(input)?),
            event::DATA => {
                let (link, slot) = (link(input)?, slot(input)?);
                let [distance, behind, length] = input.arbitrary::<[u8; 3]>()?;
                let Some(index) = self.current[slot] else { return Ok(()) };
                let session = &self.sessions[index];
                let packet = session.due.saturating_add_signed((distance as i8).into()).max(1);
                let ack = (session.packets.len() as u32).saturating_sub(behind.into());
                self.data(link, index, packet, ack, length);
            }
            event::ANY_DATA => {
                let (link, slot) = (link(input)?, slot(input)?);
                let (packet, ack) = (input.arbitrary::<u32>()?, input.arbitrary()?);
                let length = input.arbitrary()?;
                let Some(index) = self.current[slot] else { return Ok(()) };
                // The first and the last number of all mean open and leave.
                self.data(link, index, packet.clamp(1, u32::MAX - 1), ack, length);
            }
            event::PUSH => {
                let slot = slot(input)?;
                let [count, length] = input.arbitrary::<[u8; 2]>()?;
                let Some(index) = self.current[slot] else { return Ok(()) };
                self.push(index, count % 8, usize::from(length) * 3);
            }
            event::CLOSE => {
                if let Some(index) = self.current[slot(input)?]
                    && let Some(key) = self.sessions[index].key
                {
                    self.client.game_closed(key);
                    self.sessions[index].end(EndReason::GameClosed);
                }
            }
            event::WAIT => self.wait(Duration::from_millis(input.arbitrary::<u16>()?.into())),
            event::WRITE => {
                let (link, room) = (link(input)?, input.arbitrary::<u16>()?);
                self.write(link, room.into(), false);
            }
            event::WRITE_ALL => (0..LINKS).for_each(|link| self.write(link, usize::MAX, false)),
            event::PING => {
                let (link, count) = (link(input)?, input.arbitrary::<u8>()?);
                let ping = frame::ping(CLIENT, count.into());
                let told = Effect::RoundTrip(Duration::from_millis(count.into()));
                let told = vec![told; count.into()];
                self.arrives(link, &ping.repeat(count.into()), &told, count > 0, FrameCounts::default());
                self.links[link].pongs = (self.links[link].pongs + usize::from(count)).min(MAX_WAITING);
                if count > 0
                    && let Some(id) = self.links[link].unopened.take()
                    && self.listed(id).is_none()
                    && !self.recent.contains(&id)
                {
                    self.close_link(link);
                }
            }
            event::STRAY => {
                let (link, count) = (link(input)?, input.arbitrary::<u8>()?);
                if count == 0 {
                    self.unopened(link);
                }
                let ids: Vec<_> = (0..u32::from(count)).map(|n| SessionId(STRANGE + n)).collect();
                let frames: Vec<_> = ids.iter().flat_map(|id| data(*id, 1, 1, b"")).collect();
                let refused: Vec<_> = ids.iter().copied().map(unknown).collect();
                self.arrives(link, &frames, &refused, count > 0, FrameCounts::default());
                ids.into_iter().for_each(|id| self.links[link].end(id));
            }
            event::GAME_TAKES => {
                let (slot, room) = (slot(input)?, input.arbitrary::<u8>()?);
                if let Some(index) = self.current[slot] {
                    self.game_takes(index, room.into());
                }
            }
            event::BREAK => {
                let (link, room) = (link(input)?, input.arbitrary::<u8>()?);
                self.write(link, room.into(), true);
                self.lose(link);
            }
            event::SILENT => self.set_silent(link(input)?, true),
            event::HEARD => self.set_silent(link(input)?, false),
            event::FREEZE => self.freeze(input.arbitrary()?),
            _ => {
                if let Some(index) = self.current[slot(input)?] {
                    self.foreign(index);
                }
            }
        }
        Ok(())
    }

    /// Lets bytes arrive on a link, in two pieces, and checks that the machine has its owner do what is foreseen.
    fn arrives(&mut self, link: usize, bytes: &[u8], effects: &[Effect], answers: bool, counts: FrameCounts) {
        let key = self.links[link].key;
        let (done, answered, counted) = self.receive(key, bytes);
        assert_eq!((&done[..], answered, counted), (effects, answers, counts));
    }

    /// Gives what is to be done beside writing on the link, whether to write on it, and what is to be counted.
    fn receive(&mut self, link: LinkKey, bytes: &[u8]) -> (Vec<Effect>, bool, FrameCounts) {
        let (mut effects, mut answered, mut counts) = (Vec::new(), false, FrameCounts::default());
        self.cut += 1;
        let (first, second) = bytes.split_at(self.cut % (bytes.len() + 1));
        for piece in [first, second] {
            let mut turn = self.client.receive(link, piece);
            while let Some(effect) = self.client.next_effect(&mut turn, &self.host) {
                match effect {
                    Effect::WriteLink(to) => {
                        assert_eq!(to, link);
                        answered = true;
                    }
                    effect => effects.push(effect),
                }
            }
            let FrameCounts { first, duplicate, freed } = turn.take_counts();
            counts.first += first;
            counts.duplicate += duplicate;
            counts.freed += freed;
        }
        (effects, answered, counts)
    }

    /// Returns the session that links find by that id.
    fn listed(&self, id: SessionId) -> Option<usize> {
        self.sessions.iter().position(|session| session.listed && session.id == id)
    }

    fn open(&mut self, link_index: usize, slot: usize, late: bool) {
        let id = match self.current[slot] {
            Some(index) if late || !self.sessions[index].is_over() => self.sessions[index].id,
            _ => SessionId(self.sessions.len() as u32 + 1),
        };
        let frame = frame::open(id, PORT);
        let link = &self.links[link_index];
        let listed = self.listed(id);
        let refusal = if let Some(carried) = link.carried.get(&id) {
            let index = carried.session;
            self.arrives(link_index, &frame, &[], true, FrameCounts::default());
            if self.sessions[index].links.get(&link_index) != Some(&Standing::Complete) {
                self.sessions[index].completed(link_index);
                self.looks = true;
            }
            return;
        } else if link.carried.len() >= MAX_PER_LINK {
            Some(OpenError::LinkSessions)
        } else {
            listed.and_then(|index| self.refuses_join(link_index, index))
        };
        if let Some(error) = refusal {
            let refused = Effect::Refused { session: id, error };
            self.arrives(link_index, &frame, &[refused], true, FrameCounts::default());
            self.remember(id);
            return self.refuse(link_index, id);
        }
        let (effects, answered, counts) = self.receive(self.links[link_index].key, &frame);
        assert_eq!((answered, counts), (true, FrameCounts::default()));
        let index = match listed {
            Some(index) => {
                assert_eq!(effects, []);
                index
            }
            None => {
                let [Effect::Connect(key)] = effects[..] else { panic!("{effects:?}") };
                assert_eq!(self.host.admitted.take(), [id]);
                assert_eq!(self.client.session(key), Some(&id));
                self.sessions.push(Session::new(id, key, self.now(), self.host.limits.linger));
                let index = self.sessions.len() - 1;
                self.current[slot] = Some(index);
                assert_eq!(self.refuses_join(link_index, index), None);
                index
            }
        };
        assert!(self.host.admitted.borrow().is_empty());
        self.carry(link_index, index);
        self.sessions[index].completed(link_index);
    }

    /// Counts a join of a link; returns the limit that it is over.
    fn refuses_join(&mut self, link: usize, index: usize) -> Option<OpenError> {
        let now = self.now();
        let session = &mut self.sessions[index];
        if self.links[link].carried.len() >= MAX_PER_LINK {
            Some(OpenError::LinkSessions)
        } else if session.joined.len() >= MAX_LINKS {
            Some(OpenError::SessionLinks)
        } else {
            (!session.count_join(now)).then_some(OpenError::JoinRate)
        }
    }

    /// Has a link carry a session, from where it stood in it, or from its first packet that is not acknowledged.
    fn carry(&mut self, link_index: usize, index: usize) {
        let (session, link) = (&mut self.sessions[index], &mut self.links[link_index]);
        link.kept_off.retain(|other| *other != session.id);
        let stood = link.stood.iter().position(|(carried, _)| carried.session == index);
        let next = stood.and_then(|at| link.stood.remove(at)).map_or(session.acked + 1, |(carried, _)| carried.next);
        link.carried.insert(session.id, Carried { session: index, next });
        session.joined.push(link_index);
        self.looks = true;
    }

    fn set_silent(&mut self, index: usize, silent: bool) {
        let link = &mut self.links[index];
        if silent {
            self.client.silent(link.key)
        } else {
            self.client.heard(link.key)
        }
        link.silent = silent;
        self.looks = true;
    }

    /// Does what is to be done on links unasked, which must be what is foreseen.
    fn serve_links(&mut self) {
        loop {
            let (mut writes, mut waiting) = (std::mem::take(&mut self.writes), Vec::new());
            if std::mem::take(&mut self.looks) {
                let mut listed: Vec<_> =
                    (0..self.sessions.len()).filter(|index| self.sessions[*index].listed).collect();
                listed.sort_by_key(|index| self.sessions[*index].id);
                for index in listed {
                    self.lend(index, &mut writes, &mut waiting);
                }
                self.arrived = false;
                self.looks = false;
            }
            let mut duties: Vec<_> = std::iter::from_fn(|| self.client.poll_link(&self.host)).collect();
            let closes = std::mem::take(&mut self.closes);
            let mut expected: Vec<_> = writes.into_iter().map(|link| (link, LinkDuty::Write)).collect();
            expected.extend(closes.iter().map(|link| (*link, LinkDuty::Close)));
            let order = |(link, duty): &(LinkKey, LinkDuty)| (*link, *duty == LinkDuty::Close);
            duties.sort_by_key(order);
            expected.sort_by_key(order);
            assert_eq!(duties, expected);
            let changed: Vec<_> = std::iter::from_fn(|| self.client.poll_changed()).collect();
            assert!(waiting.iter().all(|key| changed.contains(key)) && changed.len() == waiting.len());
            if closes.is_empty() {
                return;
            }
            for key in closes {
                if let Some(index) = self.links.iter().position(|link| link.key == key) {
                    self.lose(index);
                }
            }
        }
    }

    /// Foresees which links are lent to a session, and which are taken back.
    fn lend(&mut self, index: usize, writes: &mut Vec<LinkKey>, waiting: &mut Vec<SessionKey>) {
        let session = &self.sessions[index];
        if session.closed == Some(None) {
            return;
        }
        let complete = |link: &usize| session.links.get(link) == Some(&Standing::Complete);
        let alive = |link: &usize| !self.links[*link].silent && (complete(link) || self.links[*link].told(index));
        let alive = (0..LINKS).any(|link| alive(&link));
        let left = matches!(session.deadline, Some((_, EndReason::ClientLeft))) && session.ended.is_none();
        let needs = !left && !alive;
        let mut links: Vec<_> = (0..LINKS).collect();
        links.sort_by_key(|link| self.links[*link].key);
        for link in links {
            let session = &mut self.sessions[index];
            let place = &mut self.links[link];
            if alive && session.links.get(&link) == Some(&Standing::Lent) {
                session.links.remove(&link);
                session.joined.retain(|other| *other != link);
                place.carried.remove(&session.id).into_iter().for_each(|carried| place.stand(carried, false));
            }
            let room = place.carried.len() < MAX_PER_LINK && session.joined.len() < MAX_LINKS;
            if needs && !place.silent && room && !place.carried.contains_key(&session.id) {
                writes.push(place.key);
                session.links.insert(link, Standing::Lent);
                self.carry(link, index);
            }
        }
        let now = self.now();
        let session = &mut self.sessions[index];
        if !session.waits_for_open() {
            session.rejoin_at = None;
        } else if session.rejoin_at.is_none() || self.arrived {
            session.rejoin_at = Some(now + OPEN_WITHIN);
            waiting.extend(session.key);
        }
    }

    /// Foresees which link of a session is closed, if its time has come.
    fn rejoin(&mut self, index: usize) {
        let now = self.now();
        let session = &mut self.sessions[index];
        if session.rejoin_at.is_none_or(|at| now < at) {
            return;
        }
        session.rejoin_at = None;
        if !session.waits_for_open() {
            return;
        }
        session.rejoin_at = Some(now + CLOSE_EVERY);
        let others = |link: usize| self.links[link].carried.keys().any(|id| *id != session.id);
        let worth = |link: &usize| (session.links.get(link) != Some(&Standing::Used), others(*link));
        let mut rest: Vec<_> = (0..LINKS).filter(|link| !self.links[*link].kept_off.contains(&session.id)).collect();
        rest.sort_by_key(|link| self.links[*link].key);
        let Some(link) = session.joined.iter().copied().chain(rest).min_by_key(worth) else { return };
        if session.closes < MAX_CLOSES || !others(link) {
            session.closes += 1;
            self.close_link(link);
        }
    }

    /// Foresees that a link is closed, once for all reasons that there are.
    fn close_link(&mut self, link: usize) {
        let key = self.links[link].key;
        if !self.closes.contains(&key) {
            self.closes.push(key);
        }
    }

    /// Has a refused link be told an end, unless the session goes on.
    fn refuse(&mut self, link: usize, id: SessionId) {
        if self.goes_on(id) {
            self.links[link].keep_off(id);
        } else {
            self.links[link].end(id);
        }
    }

    /// Lets data come of the session that is opened next, unless that was refused.
    fn unopened(&mut self, link: usize) {
        let id = SessionId(self.sessions.len() as u32 + 1);
        let late = self.recent.contains(&id);
        let refused = (!late).then(|| unknown(id));
        self.arrives(link, &data(id, 1, 0, b"?"), refused.as_slice(), true, FrameCounts::default());
        if late {
            self.refuse(link, id);
        } else {
            self.links[link].unopened = Some(id);
        }
    }

    /// Remembers a session that is over, or was refused.
    fn remember(&mut self, id: SessionId) {
        self.recent.retain(|other| *other != id);
        self.recent.push_back(id);
        self.recent.drain(..self.recent.len().saturating_sub(MAX_RECENT));
    }

    /// Returns whether a session goes on, or has something left for its client.
    fn goes_on(&self, id: SessionId) -> bool {
        self.listed(id).is_some_and(|index| {
            let session = &self.sessions[index];
            session.ended.is_none() || session.closed != Some(None) && session.unacked() > 0
        })
    }

    fn leave(&mut self, link: usize, index: usize) {
        let id = self.sessions[index].id;
        let carried = self.links[link].carried.remove(&id);
        let changed = carried.and_then(|carried| self.sessions[carried.session].key).map(Effect::Changed);
        self.arrives(link, &frame::end(id), changed.as_slice(), false, FrameCounts::default());
        if let Some(carried) = carried {
            self.links[link].stand(carried, false);
            let deadline = self.now() + self.host.limits.leave_grace;
            let session = &mut self.sessions[carried.session];
            session.without(link, deadline, EndReason::ClientLeft);
            session.joined.retain(|other| *other != link);
            self.looks = true;
        }
    }

    fn lose(&mut self, index: usize) {
        self.disconnect(index);
        self.links[index] = Link::new(self.client.add_link(0));
        (self.looks, self.arrived) = (true, true);
    }

    fn disconnect(&mut self, index: usize) {
        let now = self.now();
        assert_eq!(self.client.lost(self.links[index].key, now), Some(0));
        let mut changed: Vec<_> = std::iter::from_fn(|| self.client.poll_changed()).collect();
        for key in self.without(index) {
            let at = changed.iter().position(|other| *other == key).expect("its task is woken");
            changed.swap_remove(at);
        }
        assert_eq!(changed, []);
    }

    /// Takes a link that is gone off all sessions, and returns the keys of those that it carried.
    fn without(&mut self, index: usize) -> Vec<SessionKey> {
        let lost_at = self.now() + self.host.limits.linger;
        let link = &self.links[index];
        // A frame that it had begun may have been data.
        assert!(link.begun == link.whole || link.begun == link.whole + 1 && !link.cut.is_empty());
        let mut keys = Vec::new();
        for carried in link.carried.values() {
            let session = &mut self.sessions[carried.session];
            session.without(index, lost_at, EndReason::LinksLost);
            keys.extend(session.key);
        }
        self.sessions.iter_mut().for_each(|session| session.joined.retain(|other| *other != index));
        keys
    }

    /// Has the machine go on as another one that was made from its bytes, with all but those links: nothing else changes.
    fn freeze(&mut self, left_out: u8) {
        let (now, limits, rate) = (self.now(), self.host.limits, self.host.rate);
        let is_left_out = |index: usize| left_out >> index & 1 == 1;
        let keys: Vec<_> = self.links.iter().map(|link| link.key).collect();
        let out: Vec<_> = (0..LINKS).filter(|index| is_left_out(*index)).collect();
        // If it is an odd number of links, they are found lost only when the machine is to go on.
        let known = out.len() % 2 == 0;
        let kept = |key: LinkKey| !out.iter().any(|index| keys[*index] == key);
        let before = std::mem::take(&mut self.client);
        let frozen = before.freeze(now, |key| !known || kept(key));
        let bytes = frozen.to_bytes();
        assert!(FrozenClient::from_bytes(&bytes[..bytes.len() - 1]).is_err(), "it is cut");
        let frozen = FrozenClient::from_bytes(&bytes).expect("they are whole");
        let listed: Vec<_> =
            frozen.sessions().filter(|(_, key)| before.sessions().any(|(_, other)| other == *key)).collect();
        assert_eq!(listed.len(), before.sessions().count());
        let (client, over) = ClientMachine::thaw(
            frozen,
            now,
            |link| before.link(link).copied().filter(|_| kept(link)),
            |session| {
                let players: Vec<_> = before.players(session).copied().collect();
                let (player, elsewhere) = players.split_first()?;
                Some(ThawedSession {
                    session: *before.session(session)?,
                    player: *player,
                    elsewhere: elsewhere.to_vec(),
                    limits,
                    max_packets_per_second: rate,
                })
            },
        );
        assert_eq!(over, []);
        self.client = client;
        for index in out {
            self.without(index);
            self.links[index] = Link::new(self.client.add_link(0));
            self.arrived = true;
        }
        self.looks = true;
        // Sessions that nobody finds, and that no link has to tell of, are gone.
        for session in self.sessions.iter_mut().filter(|session| !session.listed && session.links.is_empty()) {
            session.key = None;
        }
    }

    /// Lets a link of another player ask, which gets nothing but ends.
    fn foreign(&mut self, index: usize) {
        let id = self.sessions[index].id;
        if self.listed(id).is_none() {
            return;
        }
        let link = self.client.add_link(1);
        let bytes = [&frame::open(id, PORT)[..], &data(id, 1, 0, b"x"), &frame::end(id)].concat();
        let (effects, answered, counts) = self.receive(link, &bytes);
        // No end while the session goes on, and then nothing of its data counts.
        let (refusals, told) = if self.goes_on(id) { (1, &b""[..]) } else { (2, &frame::end(id)[..]) };
        assert_eq!(effects, vec![Effect::Refused { session: id, error: OpenError::Identity }; refusals]);
        assert_eq!((answered, counts), (true, FrameCounts::default()));
        let mut out = Vec::new();
        let all = |_: &u8, slices: &[IoSlice<'_>]| {
            slices.iter().for_each(|slice| out.extend_from_slice(slice));
            Ok(slices.iter().map(|slice| slice.len()).sum())
        };
        let written = self.client.write_link(link, all).expect("written");
        assert_eq!((written.bytes, written.first, written.blocked), (out.len() as u64, 0, false));
        assert_eq!(out, told, "one end for both");
        assert_eq!(self.client.lost(link, self.now()), Some(1));
        (self.looks, self.arrived) = (true, true);
    }

    fn data(&mut self, link: usize, index: usize, packet: u32, ack: u32, length: u8) {
        let id = self.sessions[index].id;
        let stray = !self.links[link].carried.contains_key(&id);
        if stray {
            // The client counts the link as joined, and so does the machine, if there is such a session.
            let known = self.listed(id);
            let stray = data(id, packet, ack, b"stray");
            let over = known.filter(|index| self.sessions[*index].ended.is_some());
            if let Some(index) = over.filter(|index| self.links[link].stood_in(*index)) {
                // It is late: only what it acknowledges counts.
                let freed = self.sessions[index].ack(ack);
                return self.arrives(link, &stray, &[], true, FrameCounts { freed, ..FrameCounts::default() });
            }
            let error = match known {
                Some(index) => self.refuses_join(link, index),
                None => Some(OpenError::UnknownSession),
            };
            if let Some(error) = error {
                let kept_off = self.goes_on(id) && self.links[link].kept_off.contains(&id);
                let late = known.is_none() && self.recent.contains(&id);
                if known.is_none() && !late && ack == 0 {
                    self.links[link].unopened = Some(id);
                    return self.arrives(link, &stray, &[unknown(id)], true, FrameCounts::default());
                }
                let refused = (!kept_off && !late).then_some(Effect::Refused { session: id, error });
                self.arrives(link, &stray, refused.as_slice(), true, FrameCounts::default());
                if !kept_off {
                    self.refuse(link, id);
                }
                return;
            }
            let index = known.expect("it is not refused");
            self.carry(link, index);
            self.sessions[index].links.insert(link, Standing::Used);
        }
        let carried = self.links[link].carried[&id];
        let (limits, rate) = (self.host.limits, self.host.rate);
        let session = &mut self.sessions[carried.session];
        let key = session.key.expect("a link carries it");
        // Each copy of a packet differs here, so that it shows which was taken.
        let payload = vec![session.expected_up.len() as u8 ^ packet as u8 ^ link as u8; length.into()];
        let (mut counts, mut packets, mut resumes) = (FrameCounts::default(), 0, false);
        let mut error = None;
        let ended = session.ended.is_some();
        if ended {
            counts.freed = session.ack(ack);
        } else {
            let before = session.unacked();
            let sent = session.packets.len() as u32;
            let paused = !session.wants_game_data(&limits);
            if ack > sent {
                error = Some(ProtocolError::Ack(AckBeyondSent { ack: PacketId(ack), sent: PacketId(sent) }));
            } else {
                session.acked = session.acked.max(ack);
                counts.freed = before - session.unacked();
                resumes = paused && session.wants_game_data(&limits);
                let mut deliver = |payload: &[u8]| {
                    packets += 1;
                    session.expected_up.extend_from_slice(payload);
                    if !payload.is_empty() {
                        session.up_ends.push(session.expected_up.len());
                    }
                };
                if packet < session.due || session.held.contains_key(&packet) {
                    counts.duplicate = 1;
                } else if packet == session.due {
                    counts.first = 1;
                    deliver(&payload);
                    session.due += 1;
                    while let Some(held) = session.held.remove(&session.due) {
                        deliver(&held);
                        session.due += 1;
                    }
                } else if session.held_bytes() + payload.len() + HELD_OVERHEAD <= limits.reorder {
                    counts.first = 1;
                    session.held.insert(packet, payload.clone());
                } else {
                    let (limit, missing) = (limits.reorder, PacketId(session.due));
                    error = Some(ProtocolError::Reorder(ReorderFull { limit, missing }));
                }
            }
        }
        let pending = session.pending_cost(rate);
        if !ended && error.is_none() && pending > limits.pending {
            error = Some(ProtocolError::Pending { pending });
        }
        let mut effects = Vec::new();
        match error {
            Some(error) => {
                session.end(error.reason());
                effects.push(Effect::Ended { session: key, error });
            }
            None => {
                if session.links[&link] != Standing::Complete {
                    if packet < session.due {
                        session.completed(link);
                        self.looks = true;
                    } else {
                        session.links.insert(link, Standing::Used);
                    }
                }
                if resumes {
                    effects.push(Effect::Changed(key));
                }
            }
        }
        effects.push(Effect::WriteGame { session: key, packets });
        self.arrives(link, &data(id, packet, ack, &payload), &effects, stray, counts);
    }

    /// Lets the game server answer the connect.
    fn connect(&mut self, index: usize) -> Option<SessionKey> {
        let session = &mut self.sessions[index];
        let key = session.key?;
        if !session.connected {
            self.client.connected(key, HEADER);
            session.connected = true;
        }
        Some(key)
    }

    fn push(&mut self, index: usize, count: u8, length: usize) {
        let Some(key) = self.connect(index) else { return };
        let session = &mut self.sessions[index];
        if !session.wants_game_data(&self.host.limits) {
            return;
        }
        let mut stream = Vec::new();
        let before = session.unacked();
        for _ in 0..count {
            let body = vec![session.packets.len() as u8 + 1; length];
            let packet = [&(length as u16).to_le_bytes()[..], &body].concat();
            stream.extend_from_slice(&packet);
            session.packets.push(packet);
        }
        // Half a length, and then the rest in one read.
        let (first, rest) = stream.split_at(stream.len().min(1));
        let nothing = self.client.game_bytes(key, first);
        assert_eq!((nothing.packets, nothing.unacked, nothing.error), (0, 0, None));
        let framed = self.client.game_bytes(key, rest);
        if count > 0 {
            session.reads.push(session.packets.len() as u32);
        }
        assert_eq!((framed.packets, framed.error), (count.into(), None));
        assert_eq!(framed.unacked, session.unacked() - before);
    }

    fn wait(&mut self, time: Duration) {
        let now = self.now() + time;
        self.host.now.set(now);
        for index in 0..self.sessions.len() {
            let session = &mut self.sessions[index];
            let Some(key) = session.key else { continue };
            self.client.tick(key, now);
            match session.closed {
                None => {
                    if let Some((at, reason)) = session.deadline
                        && now >= at
                    {
                        session.end(reason);
                        session.end_told = true;
                    }
                }
                Some(until) => {
                    if until.is_some_and(|until| now >= until) {
                        session.closed = Some(None);
                    }
                }
            }
            self.rejoin(index);
        }
    }

    fn game_takes(&mut self, index: usize, mut room: usize) {
        let Some(key) = self.connect(index) else { return };
        let (now, rate) = (self.now(), self.host.rate);
        let session = &mut self.sessions[index];
        let (mut got, mut offered) = (Vec::new(), None);
        let full = self.client.write_game(
            key,
            || now,
            |_, bytes| {
                offered.get_or_insert(bytes.len());
                let part = &bytes[..bytes.len().min(room)];
                got.extend_from_slice(part);
                room -= part.len();
                if part.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(part.len()) }
            },
        );
        let offered = offered.unwrap_or_default();
        assert_eq!(full, got.len() < offered);
        let until = session.got_up + offered;
        if let Some(rate) = rate {
            // So many in each period, and whole packets.
            let passed = (now - session.opened).as_nanos() / PACKETS_PERIOD.as_nanos();
            let most = u128::from(rate) * (passed + 1);
            let packets = session.up_ends.partition_point(|end| *end <= until);
            assert!(packets as u128 <= most, "{packets} packets at a rate of {rate}, and {most} are the most by now");
            assert!(until <= HEADER.len() || session.up_ends[packets - 1] == until, "part of a packet");
        } else {
            assert_eq!(until, session.expected_up.len(), "something is held back");
        }
        session.offered = session.offered.max(until);
        assert_eq!(got, session.expected_up[session.got_up..][..got.len()], "what the game server gets");
        session.got_up += got.len();
    }

    fn before(&self, link: usize) -> Before {
        let state = |s: &Session| (s.acked, s.packets.len(), s.ended.is_some());
        Before {
            carried: self.links[link].carried.clone(),
            sessions: self.sessions.iter().map(state).collect(),
            pongs: self.links[link].pongs,
            ends: self.links[link].ends.clone(),
        }
    }

    /// Lets the link take `room` bytes, and then fail if it `breaks`.
    fn write(&mut self, index: usize, room: usize, breaks: bool) {
        let before = self.before(index);
        let carried: Vec<_> = before.carried.iter().map(|(id, carried)| (*id, carried.session)).collect();
        let link = &mut self.links[index];
        let (mut left, mut out) = (room, Vec::new());
        assert_eq!(self.client.poll_changed(), None);
        let written = self.client.write_link(link.key, |_, slices: &[IoSlice<'_>]| {
            let start = out.len();
            for slice in slices {
                let part = &slice[..slice.len().min(left)];
                out.extend_from_slice(part);
                left -= part.len();
            }
            match out.len() - start {
                0 if breaks => Err(io::ErrorKind::BrokenPipe.into()),
                0 => Err(io::ErrorKind::WouldBlock.into()),
                taken => Ok(taken),
            }
        });
        assert!(breaks || written.is_ok());
        let taken = out.len();
        self.judge(index, out, before);
        // An end that has begun takes the session off the link, and its task is woken.
        let told: Vec<_> = std::iter::from_fn(|| self.client.poll_changed()).collect();
        let mut ends = 0;
        for (id, session) in carried {
            let (session, link) = (&mut self.sessions[session], &mut self.links[index]);
            if session.key.is_some_and(|key| told.contains(&key)) {
                assert!(session.links.remove(&index).is_some());
                session.joined.retain(|other| *other != index);
                session.end_told = true;
                link.carried.remove(&id).into_iter().for_each(|carried| link.stand(carried, true));
                link.ends_begun += 1;
                ends += 1;
            }
        }
        assert_eq!(ends, told.len());
        let Ok(written) = written else {
            // The number of frames it had begun is unknown.
            self.links[index].begun = self.links[index].whole;
            return;
        };
        assert_eq!(written.bytes, taken as u64);
        assert!(!written.blocked || left == 0, "it took less than it was given room for");
        self.links[index].begun += u64::from(written.first) + u64::from(written.duplicate);
        if !written.blocked {
            self.check_drained(index);
        }
    }

    /// Judges the frames that became whole with `out`, which was written as the world was `before`.
    fn judge(&mut self, index: usize, out: Vec<u8>, before: Before) {
        let mut bytes = std::mem::take(&mut self.links[index].cut);
        let mut begun = if bytes.is_empty() { None } else { self.links[index].before_cut.take() };
        bytes.extend(out);
        let mut rest = &bytes[..];
        while let Some((frame, next)) = Frame::split(rest).expect("a frame") {
            rest = next;
            let begun = begun.take().unwrap_or_else(|| self.begin(index, &before.sessions));
            self.judge_frame(index, frame.from_core().expect("a meaning"), &begun);
        }
        let cut = rest.to_vec();
        if !cut.is_empty() {
            let begun = begun.unwrap_or_else(|| self.begin(index, &before.sessions));
            self.links[index].before_cut = Some(begun);
        }
        self.links[index].cut = cut;
    }

    /// Begins a frame: pongs first, then ends of sessions that the link does not carry. Returns the world before it.
    fn begin(&mut self, index: usize, sessions: &[(u32, usize, bool)]) -> Before {
        let before = Before { sessions: sessions.to_vec(), ..self.before(index) };
        let link = &mut self.links[index];
        if link.pongs > 0 {
            link.pongs -= 1;
        } else {
            link.ends.pop_front();
        }
        before
    }

    fn judge_frame(&mut self, index: usize, frame: FromCore<'_>, before: &Before) {
        let link = &mut self.links[index];
        assert_eq!(frame == FromCore::Pong, before.pongs > 0, "{frame:?}, and {} pongs wait", before.pongs);
        match frame {
            FromCore::Pong => {}
            FromCore::Data { session: id, packet, ack, payload } => {
                assert!(before.ends.is_empty(), "data ahead of an end that waits");
                link.whole += 1;
                let carried = before.carried.get(&id).expect("data on a link that carries the session");
                let (acked, ..) = before.sessions[carried.session];
                let session = &self.sessions[carried.session];
                // No gap but over what is acknowledged, and that is not sent any more.
                assert_eq!(packet.0, carried.next.max(acked + 1), "of session {id} on link {index}");
                assert_eq!(payload, session.packets[packet.0 as usize - 1], "packet {packet} of {id}");
                assert!(ack.0 < session.due);
                let stood = link.stood.iter_mut().map(|(stood, _)| stood);
                let places = link.carried.values_mut().chain(stood);
                for place in places.filter(|place| place.session == carried.session) {
                    place.next = place.next.max(packet.0 + 1);
                }
            }
            FromCore::End { session: id } if !before.ends.is_empty() => {
                assert_eq!(before.ends.front(), Some(&id), "ends in their order");
            }
            FromCore::End { session: id } => {
                link.ends_whole += 1;
                let carried = before.carried.get(&id).expect("an end on a link that carries the session");
                let (acked, packets, ended) = before.sessions[carried.session];
                assert!(ended, "an end of session {id}, which goes on");
                assert_eq!(carried.next.max(acked + 1) as usize, packets + 1, "an end before all data");
            }
        }
    }

    fn check_drained(&self, index: usize) {
        let link = &self.links[index];
        assert!(link.cut.is_empty() && link.pongs == 0 && link.ends.is_empty(), "something waits");
        assert_eq!((link.begun, link.ends_begun), (link.whole, link.ends_whole));
        for (id, carried) in &link.carried {
            let session = &self.sessions[carried.session];
            assert!(session.ended.is_none(), "no end of {id}");
            assert_eq!(carried.next.max(session.acked + 1) as usize, session.packets.len() + 1, "of {id}");
        }
    }

    /// Closes sessions that have told their end, and removes them in time, as an owner does after each event.
    fn close(&mut self) {
        let (now, limits, mut removed) = (self.now(), self.host.limits, Vec::new());
        for session in &mut self.sessions {
            let Some(key) = session.key else { continue };
            let mut links = self.links.iter_mut();
            let mut end_kept_off = |id| {
                let told = links.by_ref().filter_map(|link| link.end_kept_off(id).then_some(link.key));
                self.writes.extend(told);
            };
            if session.closed.is_none() && session.is_over() {
                assert!(self.client.is_finished(key));
                let figures = self.client.close(key, EndReason::Shutdown, now).expect("it is there");
                assert_eq!(figures.ended, session.ended);
                session.closed = Some(session.kept_for(now, &limits).map(|time| now + time));
                self.looks = true;
                if session.ended == Some(EndReason::LinksLost) {
                    end_kept_off(session.id);
                }
            }
            if session.listed && session.closed == Some(None) {
                assert!(self.client.is_over(key));
                assert_eq!(self.client.remove(key), session.unacked());
                session.listed = false;
                removed.push(session.id);
                end_kept_off(session.id);
            }
            if !session.listed && session.links.is_empty() {
                session.key = None;
            }
        }
        removed.into_iter().for_each(|id| self.remember(id));
    }

    /// Checks what holds after each event.
    fn check(&mut self) {
        self.serve_links();
        self.close();
        self.serve_links();
        for session in &self.sessions {
            let Some(key) = session.key else { continue };
            let figures = self.client.figures(key).expect("it is there");
            assert_eq!((figures.unacked, figures.reorder), (session.unacked(), session.held_bytes()));
            // One read from the game server may go beyond the limit.
            assert_eq!(self.client.wants_game_data(key), session.wants_game_data(&self.host.limits));
            assert!(session.held_bytes() <= self.host.limits.reorder);
            assert_eq!((figures.ended, figures.connecting), (session.ended, !session.connected));
            assert_eq!(self.client.deadline(key), session.next_change());
            assert_eq!(self.client.is_finished(key), session.is_over());
            assert_eq!(
                (figures.packets_in.0, figures.packets_out.0 as usize),
                (session.due - 1, session.packets.len())
            );
            assert_eq!(figures.bytes_in as usize, session.expected_up.len() - HEADER.len());
            assert_eq!(figures.bytes_out as usize, session.packets.iter().map(Vec::len).sum::<usize>());
            assert_eq!(figures.pending, session.pending());
            let joined: Vec<_> = (0..).map_while(|number| self.client.links_of(key, number)).collect();
            let expected: Vec<_> = session.joined.iter().map(|link| self.links[*link].key).collect();
            assert_eq!(joined, expected);
        }
        let listed = self.sessions.iter().filter(|session| session.listed);
        let mut listed: Vec<_> = listed.map(|session| (session.id, session.key.expect("it is there"))).collect();
        listed.sort_by_key(|(id, _)| *id);
        assert_eq!(self.client.sessions().collect::<Vec<_>>(), listed);
        for (index, link) in self.links.iter().enumerate() {
            assert_eq!(self.client.carried_by(link.key), link.carried.len());
            let carries = |session: &&Session| session.links.contains_key(&index);
            assert_eq!(self.sessions.iter().filter(carries).count(), link.carried.len());
        }
    }

    /// Finishes: everything is written, and without links all sessions are over in time.
    fn finish(mut self) {
        (0..LINKS).for_each(|link| self.write(link, usize::MAX, false));
        self.check();
        for index in 0..self.sessions.len() {
            while let Some(key) = self.sessions[index].key
                && self.sessions[index].got_up < self.sessions[index].expected_up.len()
            {
                let got = self.sessions[index].got_up;
                self.game_takes(index, usize::MAX);
                if self.sessions[index].got_up == got {
                    let next = self.client.paced_until(key).expect("a time when more may go");
                    assert!(next > self.now(), "time stands still");
                    self.host.now.set(next);
                }
            }
        }
        (0..LINKS).for_each(|link| self.disconnect(link));
        for link in &mut self.links {
            link.carried.clear();
        }
        let SessionLimits { linger, leave_grace, .. } = self.host.limits;
        self.wait(linger.max(leave_grace));
        self.close();
        self.wait(CLIENT_PATIENCE.max(leave_grace));
        self.close();
        assert!(self.sessions.iter().all(|session| session.is_over() && session.key.is_none()));
        assert!(self.client.is_empty());
    }
}

fn unknown(session: SessionId) -> Effect {
    Effect::Refused { session, error: OpenError::UnknownSession }
}

fn data(id: SessionId, packet: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    [&frame::data_header(id, PacketId(packet), PacketId(ack), payload.len())[..], payload].concat()
}

fn link(input: &mut Unstructured<'_>) -> Result<usize> {
    Ok(usize::from(input.arbitrary::<u8>()?) % LINKS)
}

fn slot(input: &mut Unstructured<'_>) -> Result<usize> {
    Ok(usize::from(input.arbitrary::<u8>()?) % SESSIONS)
}

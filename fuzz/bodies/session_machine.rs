//! Sessions and links under any sequence of events, against a model that is as plain as can be.
//!
//! The world here does what `relay` does, and holds in memory what sockets would: what a link and
//! a game connection took. The model knows all packets and judges each frame when it begins.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::time::{Duration, Instant};

use arbitrary::{Result, Unstructured};
use otproxy_protocol::core::EndReason;
use otproxy_protocol::core::{Arrival, Batch, LinkWriter, Machine, MachineLimits, Upstream};
use otproxy_protocol::frame::{Frame, FromCore, HEADER_LEN, PacketId, SessionId};

/// Links of the one client here.
const LINKS: usize = 3;
/// Sessions that it has open at once.
const SESSIONS: usize = 2;
/// What a packet ahead of its turn counts beside its bytes.
const HELD_OVERHEAD: usize = 64;
/// Pongs, and ends of strange sessions, that may wait on a link.
const MAX_WAITING: usize = 64;
/// Ids of sessions that the core does not know.
const STRANGE: u32 = 1 << 20;
/// What the game server is told before all packets.
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
    /// LINK COUNT: pings.
    pub const PING: u8 = 10;
    /// LINK COUNT: data for sessions that the core does not know.
    pub const STRAY: u8 = 11;
    /// SESSION LENGTH: the game server takes so many bytes.
    pub const GAME_TAKES: u8 = 12;
    /// LINK u8: the link takes so many bytes, and then breaks.
    pub const BREAK: u8 = 13;
    /// How many there are.
    pub const COUNT: u8 = 14;
}

/// Four bytes of limits, then events.
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

struct Session {
    id: SessionId,
    machine: Rc<RefCell<Machine>>,
    upstream: Upstream,
    /// Payloads for the client: packet 1 is the first.
    packets: Vec<Vec<u8>>,
    acked: u32,
    /// Payloads from the client that are ahead of their turn.
    held: BTreeMap<u32, Vec<u8>>,
    due: u32,
    /// What the game server must get, in all, and what it has got.
    expected_up: Vec<u8>,
    got_up: usize,
    header_sent: bool,
    /// Where in it each packet ends that is not empty.
    up_ends: Vec<usize>,
    opened: Instant,
    links: BTreeSet<usize>,
    deadline: Option<(Instant, EndReason)>,
    ended: Option<EndReason>,
    end_told: bool,
}

impl Session {
    fn unacked(&self) -> usize {
        self.packets.iter().skip(self.acked as usize).map(|payload| HEADER_LEN + payload.len()).sum()
    }

    fn held_bytes(&self) -> usize {
        self.held.values().map(|payload| payload.len() + HELD_OVERHEAD).sum()
    }

    fn end(&mut self, reason: EndReason) {
        self.machine.borrow_mut().end(reason);
        self.ended.get_or_insert(reason);
    }

    fn without(&mut self, link: usize, deadline: Instant, reason: EndReason) {
        assert!(self.links.remove(&link));
        if self.links.is_empty() {
            self.deadline = Some((deadline, reason));
        }
    }

    fn is_over(&self) -> bool {
        self.ended.is_some() && self.end_told
    }
}

/// What a link stands before with one session.
#[derive(Clone, Copy)]
struct Carried {
    /// The packet that it writes next, where no more is acknowledged.
    next: u32,
    /// Which join of this link it was.
    join: usize,
}

#[derive(Default)]
struct Link {
    writer: LinkWriter<Rc<RefCell<Machine>>>,
    carried: BTreeMap<SessionId, Carried>,
    joins: usize,
    /// What the link took of a frame that is not whole, and how the world was when it began.
    cut: Vec<u8>,
    before_cut: Option<Before>,
    /// Not begun yet, as are the ends of strange sessions.
    pongs: usize,
    ends: VecDeque<SessionId>,
    /// Data frames: begun as the writer says, whole as the bytes say.
    begun: u64,
    whole: u64,
    /// Ends of sessions that it carried: begun and whole.
    ends_begun: u64,
    ends_whole: u64,
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
    now: Instant,
    limits: MachineLimits,
    rate: Option<u32>,
    /// All there ever were: session n has the id n + 1.
    sessions: Vec<Session>,
    /// Which of them the client means by its first session, and by its second.
    current: [Option<usize>; SESSIONS],
    links: [Link; LINKS],
}

impl World {
    fn new(input: &mut Unstructured<'_>) -> Result<Self> {
        let [unacked, reorder, times, rate] = input.arbitrary::<[u8; 4]>()?;
        let limits = MachineLimits {
            linger: Duration::from_millis(u64::from(times >> 4) * 100),
            leave_grace: Duration::from_millis(u64::from(times & 15) * 100),
            unacked: 1 + usize::from(unacked) * 64,
            reorder: usize::from(reorder) * 16,
        };
        let rate = (rate > 0).then_some(u32::from(rate));
        let now = Instant::now() + Duration::from_secs(3600);
        Ok(Self { now, limits, rate, sessions: Vec::new(), current: [None; SESSIONS], links: Default::default() })
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
                if let Some(index) = self.current[slot(input)?] {
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
                let link = &mut self.links[link];
                (0..count).for_each(|_| link.writer.pong());
                link.pongs = (link.pongs + usize::from(count)).min(MAX_WAITING);
            }
            event::STRAY => {
                let (link, count) = (link(input)?, input.arbitrary::<u8>()?);
                let link = &mut self.links[link];
                for id in (0..u32::from(count)).map(|n| SessionId(STRANGE + n)) {
                    link.writer.end(id);
                    if !link.ends.contains(&id) && link.ends.len() < MAX_WAITING {
                        link.ends.push_back(id);
                    }
                }
            }
            event::GAME_TAKES => {
                let (slot, room) = (slot(input)?, input.arbitrary::<u8>()?);
                if let Some(index) = self.current[slot] {
                    self.game_takes(index, room.into());
                }
            }
            _ => {
                let (link, room) = (link(input)?, input.arbitrary::<u8>()?);
                self.write(link, room.into(), true);
                self.lose(link);
            }
        }
        Ok(())
    }

    fn open(&mut self, link: usize, slot: usize, late: bool) {
        let index = match self.current[slot] {
            Some(index) if late || !self.sessions[index].is_over() => index,
            _ => {
                let id = SessionId(self.sessions.len() as u32 + 1);
                self.sessions.push(Session {
                    id,
                    machine: Rc::new(RefCell::new(Machine::new(id, self.limits, self.now))),
                    upstream: Upstream::new(self.rate),
                    packets: Vec::new(),
                    acked: 0,
                    held: BTreeMap::new(),
                    due: 1,
                    expected_up: HEADER.to_vec(),
                    got_up: 0,
                    header_sent: false,
                    up_ends: Vec::new(),
                    opened: self.now,
                    links: BTreeSet::new(),
                    deadline: Some((self.now + self.limits.linger, EndReason::LinksLost)),
                    ended: None,
                    end_told: false,
                });
                self.current[slot] = Some(self.sessions.len() - 1);
                self.sessions.len() - 1
            }
        };
        let (session, link_index, link) = (&mut self.sessions[index], link, &mut self.links[link]);
        if link.writer.get(session.id).is_some() {
            return;
        }
        link.writer.join(Rc::clone(&session.machine));
        link.joins += 1;
        link.carried.insert(session.id, Carried { next: session.acked + 1, join: link.joins });
        session.links.insert(link_index);
        session.deadline = None;
    }

    fn leave(&mut self, link: usize, index: usize) {
        let session = &mut self.sessions[index];
        let carried = self.links[link].carried.remove(&session.id);
        let removed = self.links[link].writer.remove(session.id);
        assert_eq!(removed.is_some(), carried.is_some());
        if removed.is_some() {
            session.machine.borrow_mut().left(self.now);
            session.without(link, self.now + self.limits.leave_grace, EndReason::ClientLeft);
        }
    }

    fn lose(&mut self, index: usize) {
        let mut link = std::mem::take(&mut self.links[index]);
        let mut machines = link.writer.clear();
        for session in self.sessions.iter_mut().filter(|session| link.carried.contains_key(&session.id)) {
            let machine = machines.next().expect("a machine for each session");
            machine.borrow_mut().lost(self.now);
            session.without(index, self.now + self.limits.linger, EndReason::LinksLost);
        }
        assert!(machines.next().is_none());
        // A frame that it had begun may have been data.
        assert!(link.begun == link.whole || link.begun == link.whole + 1 && !link.cut.is_empty());
    }

    fn data(&mut self, link: usize, index: usize, packet: u32, ack: u32, length: u8) {
        let session = &mut self.sessions[index];
        if !self.links[link].carried.contains_key(&session.id) || session.ended.is_some() {
            return;
        }
        let mut machine = session.machine.borrow_mut();
        let before = session.unacked();
        if ack > session.packets.len() as u32 {
            let refusal = machine.ack(PacketId(ack)).expect_err("an ack of what was never sent");
            drop(machine);
            return session.end(refusal.reason());
        }
        session.acked = session.acked.max(ack);
        assert_eq!(machine.ack(PacketId(ack)), Ok(before - session.unacked()));

        // Each copy of a packet differs here, so that it shows which was taken.
        let payload = vec![session.expected_up.len() as u8 ^ packet as u8 ^ link as u8; length.into()];
        let arrival = machine.accept(PacketId(packet), &payload);
        let mut deliver = |payload: &[u8]| {
            session.upstream.push(payload);
            session.expected_up.extend_from_slice(payload);
            if !payload.is_empty() {
                session.up_ends.push(session.expected_up.len());
            }
        };
        if packet < session.due || session.held.contains_key(&packet) {
            assert_eq!(arrival, Ok(Arrival::Duplicate));
        } else if packet == session.due {
            assert_eq!(arrival, Ok(Arrival::InOrder));
            deliver(&payload);
            session.due += 1;
            while let Some(held) = machine.pop_held() {
                assert_eq!(session.held.remove(&session.due).as_deref(), Some(&held[..]));
                deliver(&held);
                session.due += 1;
            }
            assert!(!session.held.contains_key(&session.due));
        } else if session.held_bytes() + payload.len() + HELD_OVERHEAD <= self.limits.reorder {
            assert_eq!(arrival, Ok(Arrival::Held));
            session.held.insert(packet, payload);
        } else {
            let refusal = arrival.expect_err("there is no room for it");
            assert_eq!(refusal.reason(), EndReason::Limit);
            drop(machine);
            return session.end(EndReason::Limit);
        }
        assert_eq!(machine.received(), PacketId(session.due - 1));
    }

    fn push(&mut self, index: usize, count: u8, length: usize) {
        let session = &mut self.sessions[index];
        let mut machine = session.machine.borrow_mut();
        if !machine.wants_game_data() {
            return;
        }
        let mut batch = Batch::default();
        for _ in 0..count {
            let number = PacketId(machine.outbox().next().0 + batch.frames());
            assert_eq!(number.0 as usize, session.packets.len() + 1);
            let body = vec![number.0 as u8; length];
            batch.push(session.id, number, machine.received(), length as u16, &body);
            session.packets.push([&(length as u16).to_le_bytes()[..], &body].concat());
        }
        machine.push(batch);
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        for session in &mut self.sessions {
            session.machine.borrow_mut().tick(self.now);
            if let Some((at, reason)) = session.deadline
                && self.now >= at
            {
                session.ended.get_or_insert(reason);
                session.end_told = true;
            }
        }
    }

    fn game_takes(&mut self, index: usize, room: usize) {
        let session = &mut self.sessions[index];
        if !session.header_sent {
            session.upstream.push_header(HEADER);
            session.header_sent = true;
        }
        let bytes = session.upstream.writable(|| self.now);
        let offered = session.got_up + bytes.len();
        if let Some(rate) = self.rate {
            // A burst, and then one in each interval: whole packets.
            let interval = Duration::from_secs(1) / rate;
            let passed = (self.now - session.opened).as_nanos() / interval.as_nanos();
            let most = u128::from((rate / 4).max(1)) + passed + 1;
            let packets = session.up_ends.partition_point(|end| *end <= offered);
            assert!(packets as u128 <= most, "{packets} packets at a rate of {rate}, and {most} are the most by now");
            assert!(offered <= HEADER.len() || session.up_ends[packets - 1] == offered, "part of a packet");
        } else {
            assert_eq!(offered, session.expected_up.len(), "something is held back");
        }
        let bytes = &bytes[..bytes.len().min(room)];
        assert_eq!(bytes, &session.expected_up[session.got_up..][..bytes.len()], "what the game server gets");
        let taken = bytes.len();
        session.upstream.wrote(taken);
        session.got_up += taken;
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

    /// The link takes `room` bytes, and then fails where it `breaks`.
    fn write(&mut self, index: usize, room: usize, breaks: bool) {
        let before = self.before(index);
        let carried: Vec<_> = before.carried.keys().copied().collect();
        let link = &mut self.links[index];
        let (mut left, mut out) = (room, Vec::new());
        let written = link.writer.write_to(|slices: &[IoSlice<'_>]| {
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
        // An end that has begun takes the session off the link.
        for id in carried {
            let (session, link) = (&mut self.sessions[id.0 as usize - 1], &mut self.links[index]);
            if link.writer.get(id).is_none() {
                assert!(session.links.remove(&index));
                session.end_told = true;
                link.carried.remove(&id);
                link.ends_begun += 1;
            }
        }
        let Ok(written) = written else {
            // How many frames it had begun is not told.
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

    /// A frame begins: pongs first, then ends of strange sessions. Gives the world before it.
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
                let (acked, ..) = before.sessions[id.0 as usize - 1];
                let session = &self.sessions[id.0 as usize - 1];
                let carried = before.carried.get(&id).expect("data on a link that carries the session");
                // No gap but over what is acknowledged, and that is not sent any more.
                assert_eq!(packet.0, carried.next.max(acked + 1), "of session {id} on link {index}");
                assert_eq!(payload, session.packets[packet.0 as usize - 1], "packet {packet} of {id}");
                assert!(ack.0 < session.due);
                if let Some(now) = link.carried.get_mut(&id)
                    && now.join == carried.join
                {
                    now.next = packet.0 + 1;
                }
            }
            FromCore::End { session: id } if id.0 >= STRANGE => {
                assert_eq!(before.ends.front(), Some(&id), "ends in their order");
            }
            FromCore::End { session: id } => {
                assert!(before.ends.is_empty(), "an end ahead of one that waits");
                link.ends_whole += 1;
                let (acked, packets, ended) = before.sessions[id.0 as usize - 1];
                let carried = before.carried.get(&id).expect("an end on a link that carries the session");
                assert!(ended, "an end of session {id}, which goes on");
                assert_eq!(carried.next.max(acked + 1) as usize, packets + 1, "an end before all data");
                if link.carried.get(&id).is_some_and(|now| now.join == carried.join) {
                    link.carried.remove(&id);
                }
            }
        }
    }

    fn check_drained(&self, index: usize) {
        let link = &self.links[index];
        assert!(link.cut.is_empty() && link.pongs == 0 && link.ends.is_empty(), "something waits");
        assert_eq!((link.begun, link.ends_begun), (link.whole, link.ends_whole));
        for (id, carried) in &link.carried {
            let session = &self.sessions[id.0 as usize - 1];
            assert!(session.ended.is_none(), "no end of {id}");
            assert_eq!(carried.next.max(session.acked + 1) as usize, session.packets.len() + 1, "of {id}");
        }
    }

    /// What holds after each event.
    fn check(&self) {
        for session in &self.sessions {
            let machine = session.machine.borrow();
            assert_eq!(machine.outbox().unacked(), session.unacked());
            // The limit counts the bytes, and a little for each piece in which they are kept.
            let cost = machine.outbox().cost();
            assert!(cost >= session.unacked() && (session.unacked() > 0 || cost == 0), "{cost}");
            // One read from the game server may go beyond it.
            assert_eq!(machine.wants_game_data(), session.ended.is_none() && cost < self.limits.unacked);
            assert!(session.held_bytes() <= self.limits.reorder);
            assert_eq!(machine.ended(), session.ended);
            assert_eq!(machine.deadline(), session.deadline.map(|(at, _)| at));
            assert_eq!(machine.is_finished(), session.is_over());
            assert_eq!(machine.sent(), PacketId(session.packets.len() as u32));
            let waits = session.expected_up.len() - session.got_up;
            assert_eq!(session.upstream.len(), waits - if session.header_sent { 0 } else { HEADER.len() });
        }
        for (index, link) in self.links.iter().enumerate() {
            assert_eq!(link.writer.sessions(), link.carried.len());
            let carries = |session: &&Session| session.links.contains(&index);
            assert_eq!(self.sessions.iter().filter(carries).count(), link.carried.len());
        }
    }

    /// Whatever came before: all is written, and without links all sessions are over in time.
    fn finish(mut self) {
        (0..LINKS).for_each(|link| self.write(link, usize::MAX, false));
        self.check();
        for index in 0..self.sessions.len() {
            while self.sessions[index].got_up < self.sessions[index].expected_up.len() {
                let got = self.sessions[index].got_up;
                self.game_takes(index, usize::MAX);
                let session = &self.sessions[index];
                if session.got_up == got {
                    let next = session.upstream.next_at().expect("a time when more may go");
                    assert!(next > self.now, "time stands still");
                    self.now = next;
                }
            }
        }
        (0..LINKS).for_each(|link| self.lose(link));
        self.wait(self.limits.linger.max(self.limits.leave_grace));
        self.check();
        assert!(self.sessions.iter().all(Session::is_over));
    }
}

fn link(input: &mut Unstructured<'_>) -> Result<usize> {
    Ok(usize::from(input.arbitrary::<u8>()?) % LINKS)
}

fn slot(input: &mut Unstructured<'_>) -> Result<usize> {
    Ok(usize::from(input.arbitrary::<u8>()?) % SESSIONS)
}

//! One client: all its links and sessions, driven by bytes and time. Pure: no I/O, no clock.
//!
//! Its owner tells it what happens to the connections ([`PlayerCore::connected`],
//! [`PlayerCore::lost`], [`PlayerCore::bytes`]), calls [`PlayerCore::tick`] at
//! [`PlayerCore::deadline`], writes [`PlayerCore::output`], and after each call does the
//! [`PlayerCore::poll_action`]s and takes the [`PlayerCore::poll_event`]s.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};

use crate::frame::{self, ClientId, Frame, FrameError, FromCore, SessionId};

use super::choice::{LinkCandidate, LinkChange, choose};
use super::clocks::ClientClocks;
use super::end::ClientEndReason;
use super::link::{LinkId, LinkNeed, LinkPhase, LinkState};
use super::session::{PlayerSession, ReceivedData, SendError};
use super::stats::{PathStats, SessionStats};

/// Bytes that may wait on one link; a link that is further behind is dropped. More than what one
/// session may replay, so that a join alone never drops a link.
pub const MAX_OUTPUT: usize = 4 << 20;

/// An action that the owner must carry out on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkAction {
    /// Connect, then say [`PlayerCore::connected`] or [`PlayerCore::lost`].
    Connect(LinkId),
    /// Close, or stop connecting. The link counts as lost already.
    Close(LinkId),
}

/// An event of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvent {
    /// A packet for the game, in order.
    Packet(SessionId, Bytes),
    /// The session is over, and forgotten; these are its last numbers.
    Ended(SessionId, SessionStats),
}

#[derive(Debug)]
struct Link {
    state: LinkState,
    priority: Duration,
    /// The beginning of a frame that is not whole yet: less than one frame.
    input: BytesMut,
    output: BytesMut,
    stats: PathStats,
}

#[derive(Debug)]
struct Session {
    state: PlayerSession,
    /// The links that it counts as joined. One that was lost stays until the session looks at its links: if it is ready
    /// again by then, it counts as joined for ever, though it was not opened anew.
    links: Vec<LinkId>,
    joins: u64,
    next_check: Instant,
    /// The time of the last new packet, or of the session's opening.
    last_new: Instant,
}

/// The state of one client.
#[derive(Debug)]
pub struct PlayerCore {
    client: ClientId,
    clocks: ClientClocks,
    links_per_session: usize,
    links: Vec<Link>,
    sessions: BTreeMap<SessionId, Session>,
    actions: VecDeque<LinkAction>,
    events: VecDeque<SessionEvent>,
}

impl PlayerCore {
    /// Makes a client with one link for each of `priorities`, all to be connected at the first tick. From then on it looks
    /// after its links by one clock; each session has a clock of its own, which starts as the session is opened.
    pub fn new(
        client: ClientId,
        priorities: impl IntoIterator<Item = Duration>,
        links_per_session: usize,
        clocks: ClientClocks,
        now: Instant,
    ) -> Self {
        let link = |priority| Link {
            state: LinkState::new(now),
            priority,
            input: BytesMut::new(),
            output: BytesMut::new(),
            stats: PathStats::default(),
        };
        Self {
            client,
            clocks,
            links_per_session,
            links: priorities.into_iter().map(link).collect(),
            sessions: BTreeMap::new(),
            actions: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Opens a session on the best link there is, or as soon as there is one. `false` where `id` is
    /// 0 or open already.
    pub fn open(&mut self, id: SessionId, port: u16, now: Instant) -> bool {
        if id.0 == 0 || self.sessions.contains_key(&id) {
            return false;
        }
        let state = PlayerSession::new(id, port);
        self.sessions.insert(id, Session { state, links: Vec::new(), joins: 0, next_check: now, last_new: now });
        self.check_session(id, now);
        true
    }

    /// Sends a packet on every link of the session, and on those that join later until it is
    /// acknowledged.
    ///
    /// # Errors
    /// [`SendError`]; nothing is sent then.
    pub fn send(&mut self, id: SessionId, packet: &[u8]) -> Result<(), SendError> {
        let session = self.sessions.get_mut(&id).ok_or(SendError::Ended)?;
        let frame = session.state.send(packet)?;
        for link in session.links.clone() {
            self.write(link, &frame);
        }
        Ok(())
    }

    /// Returns whether the session would take a packet now.
    pub fn has_room(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.state.has_room())
    }

    /// Leaves a session on all its links.
    pub fn leave(&mut self, id: SessionId) {
        self.end(id, ClientEndReason::Left);
    }

    /// Leaves all sessions. The owner writes what waits and closes the connections.
    pub fn close(&mut self) {
        while let Some(&id) = self.sessions.keys().next() {
            self.end(id, ClientEndReason::Closed);
        }
    }

    /// Records that the requested connection stands.
    pub fn connected(&mut self, id: LinkId, now: Instant) {
        let Some(link) = self.links.get_mut(id.0) else { return };
        let Some(report) = link.state.connected(now) else { return };
        link.stats.connected = true;
        link.stats.connects += 1;
        self.write(id, &frame::ping(self.client, report));
    }

    /// Records that the connection is gone, or could not be made. Sessions find out when they look at their links.
    pub fn lost(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(id.0) else { return };
        if link.state.phase() == LinkPhase::Down {
            return;
        }
        link.state.lost();
        link.input.clear();
        link.output.clear();
        link.stats =
            PathStats { connected: false, ready: false, rtt: None, losses: link.stats.losses + 1, ..link.stats };
    }

    /// Takes bytes that arrived on a link. Bytes that cannot be frames drop it.
    pub fn bytes(&mut self, id: LinkId, bytes: &[u8], now: Instant) {
        let Some(link) = self.links.get_mut(id.0) else { return };
        if !link.stats.connected {
            return;
        }
        link.stats.bytes_received += bytes.len() as u64;
        if link.input.is_empty() {
            // The usual case: whole frames, read where they are.
            match self.frames(id, bytes, now) {
                Ok(rest) => self.keep(id, rest),
                Err(_) => self.drop_link(id),
            }
            return;
        }
        let mut input = std::mem::take(&mut link.input);
        input.extend_from_slice(bytes);
        match self.frames(id, &input, now) {
            Ok(rest) => {
                let used = input.len() - rest.len();
                input.advance(used);
                if let Some(link) = self.links.get_mut(id.0) {
                    link.input = input;
                }
            }
            Err(_) => self.drop_link(id),
        }
    }

    /// Does what is due at `now`.
    pub fn tick(&mut self, now: Instant) {
        for index in 0..self.links.len() {
            self.check_link(LinkId(index), now);
        }
        let due = self.sessions.iter().filter(|(_, session)| now >= session.next_check);
        for id in due.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.check_session(id, now);
        }
    }

    /// Returns the time at which [`PlayerCore::tick`] has something to do next; `None` without links and sessions.
    pub fn deadline(&self) -> Option<Instant> {
        let links = self.links.iter().map(|link| link.state.next_check());
        links.chain(self.sessions.values().map(|session| session.next_check)).min()
    }

    /// Returns the bytes that wait to be written on a link; call [`PlayerCore::wrote`] afterwards.
    pub fn output(&self, id: LinkId) -> &[u8] {
        self.links.get(id.0).map_or(&[], |link| &link.output)
    }

    /// Records that the first `count` bytes of a link's output have been written.
    pub fn wrote(&mut self, id: LinkId, count: usize) {
        let Some(link) = self.links.get_mut(id.0) else { return };
        let count = count.min(link.output.len());
        link.output.advance(count);
        link.stats.bytes_sent += count as u64;
    }

    /// Takes all that waits on a link, as written.
    pub fn take_output(&mut self, id: LinkId) -> Vec<u8> {
        let output = self.output(id).to_vec();
        self.wrote(id, output.len());
        output
    }

    /// Returns the next action on a connection.
    pub fn poll_action(&mut self) -> Option<LinkAction> {
        self.actions.pop_front()
    }

    /// Returns the next event of a session.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }

    /// Returns the numbers of each path.
    pub fn path_stats(&self) -> impl Iterator<Item = PathStats> + '_ {
        self.links.iter().map(|link| link.stats)
    }

    /// Returns the numbers of an open session.
    pub fn session_stats(&self, id: SessionId) -> Option<SessionStats> {
        self.sessions.get(&id).map(|session| self.stats_of(session))
    }

    fn stats_of(&self, session: &Session) -> SessionStats {
        let ready = session.links.iter().filter(|link| self.is_ready(**link)).count();
        SessionStats { links: ready, joins: session.joins, ..session.state.stats() }
    }

    fn is_ready(&self, link: LinkId) -> bool {
        self.links.get(link.0).is_some_and(|link| link.state.phase() == LinkPhase::Ready)
    }

    /// Returns the links that a session counts as joined, in the order in which they joined.
    pub fn session_links(&self, id: SessionId) -> &[LinkId] {
        self.sessions.get(&id).map_or(&[], |session| &session.links)
    }

    /// Handles the whole frames at the front of `bytes`; returns the rest.
    fn frames<'a>(&mut self, link: LinkId, mut bytes: &'a [u8], now: Instant) -> Result<&'a [u8], FrameError> {
        while let Some((frame, rest)) = Frame::split(bytes)? {
            self.frame(link, frame, now);
            bytes = rest;
        }
        Ok(bytes)
    }

    fn frame(&mut self, id: LinkId, frame: Frame<'_>, now: Instant) {
        let Some(link) = self.links.get_mut(id.0) else { return };
        match frame.from_core() {
            Some(FromCore::Pong) => {
                link.state.pong(now);
                link.stats.ready = link.state.phase() == LinkPhase::Ready;
                link.stats.rtt = link.state.rtt();
            }
            Some(FromCore::Data { session: name, packet, ack, payload }) => {
                let Some(session) = self.sessions.get_mut(&name) else { return };
                match session.state.on_data(packet, ack, payload) {
                    ReceivedData::New => {
                        link.stats.first += 1;
                        session.last_new = now;
                        self.events.push_back(SessionEvent::Packet(name, Bytes::copy_from_slice(payload)));
                    }
                    ReceivedData::Duplicate => link.stats.duplicates += 1,
                    ReceivedData::Gap => link.stats.gaps += 1,
                }
            }
            Some(FromCore::End { session }) => self.end(session, ClientEndReason::Core),
            None => {}
        }
    }

    fn keep(&mut self, id: LinkId, rest: &[u8]) {
        if let Some(link) = self.links.get_mut(id.0) {
            link.input.extend_from_slice(rest);
        }
    }

    fn check_link(&mut self, id: LinkId, now: Instant) {
        let Some(link) = self.links.get_mut(id.0) else { return };
        match link.state.check(&self.clocks, now) {
            LinkNeed::Nothing => {}
            LinkNeed::Connect => self.actions.push_back(LinkAction::Connect(id)),
            LinkNeed::Ping(report) => self.write(id, &frame::ping(self.client, report)),
            LinkNeed::Drop => self.drop_link(id),
        }
    }

    fn check_session(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.next_check = now + self.clocks.session_check;
        if now >= session.last_new + self.clocks.session_silence {
            return self.end(id, ClientEndReason::Silence);
        }
        let ready = self.links.iter().enumerate().filter_map(|(index, link)| {
            let usable = link.state.phase() == LinkPhase::Ready;
            let cost = link.state.rtt()? + link.priority;
            usable.then_some(LinkCandidate { link: LinkId(index), cost })
        });
        let ready: Vec<_> = ready.collect();
        session.links.retain(|link| ready.iter().any(|candidate| candidate.link == *link));
        match choose(self.links_per_session, &session.links, &ready) {
            LinkChange::Keep => {}
            LinkChange::Join(link) => self.join(id, link),
            LinkChange::Swap { join, leave } => {
                self.join(id, join);
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.links.retain(|&other| other != leave);
                }
                self.write(leave, &frame::end(id));
            }
        }
    }

    fn join(&mut self, id: SessionId, link: LinkId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.links.push(link);
        session.joins += 1;
        for frame in session.state.join().collect::<Vec<_>>() {
            self.write(link, &frame);
        }
    }

    fn end(&mut self, id: SessionId, reason: ClientEndReason) {
        let Some(mut session) = self.sessions.remove(&id) else { return };
        session.state.end(reason);
        if reason != ClientEndReason::Core {
            for &link in &session.links {
                self.write(link, &frame::end(id));
            }
        }
        session.links.clear();
        self.events.push_back(SessionEvent::Ended(id, self.stats_of(&session)));
    }

    fn write(&mut self, id: LinkId, bytes: &[u8]) {
        let Some(link) = self.links.get_mut(id.0) else { return };
        if link.output.len() + bytes.len() > MAX_OUTPUT {
            self.drop_link(id);
        } else if link.stats.connected {
            link.output.extend_from_slice(bytes);
        }
    }

    fn drop_link(&mut self, id: LinkId) {
        self.lost(id);
        self.actions.push_back(LinkAction::Close(id));
    }
}

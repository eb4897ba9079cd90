//! One client: its links and sessions, and every decision about them.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use super::keys::{LinkKey, SessionKey};
use super::lend::Lending;
use super::link_writer::{LinkWriter, WriteOutcome};
use super::owner::ClientOwner;
use super::reason::{EndReason, OpenError};
use super::record::SessionRecord;
use super::session::{Framed, Session, SessionFigures, Sessions};
use super::slots::Slots;
use super::turn::ReceivedBytes;
use crate::frame::SessionId;
use crate::reassembly::ReassemblyBuffer;

/// Links that may carry one session. A client has two or three, and for ten seconds at the most
/// those that it lost; each costs a copy of all packets.
pub const MAX_LINKS: usize = 16;

/// Sessions of which it is remembered that they are over: more than a client has at once.
const MAX_RECENT: usize = 16;
/// The time after the loss of its last link in which a session must end, if its client is to hear of it on a link that
/// may not join: a link may have been dead for ten seconds before it was lost, and a client waits for thirty.
const TELL_WITHIN: Duration = Duration::from_secs(18);

#[repr(C)]
pub(super) struct Link<L> {
    pub owned: L,
    pub writer: LinkWriter,
    /// The start of a frame that is not whole yet: never more than one frame and one read.
    pub input: ReassemblyBuffer,
    /// Its client has said nothing on it for longer than one ever does.
    pub silent: bool,
}

/// The links and sessions of one client, which has proved by its first frame on each link that it is this one
/// ([`first_ping`](super::first_ping)).
///
/// Its owner tells it what happened, and does what it says:
///
/// | what happened | call | and then |
/// |---|---|---|
/// | a link sent bytes | [`receive`](Self::receive) | all that [`next`](Self::next_effect) returns |
/// | a link may take more | [`write_link`](Self::write_link) | |
/// | a link is gone | [`lost`](Self::lost) | |
/// | a link has been silent for longer than a client ever is, or no longer is | [`silent`](Self::silent), [`heard`](Self::heard) | |
/// | the game server is reached, or is not | [`connected`](Self::connected), [`connect_failed`](Self::connect_failed) | [`write_game`](Self::write_game), or tell the links |
/// | the game server sent bytes | [`game_bytes`](Self::game_bytes) | tell the links |
/// | the game server may take more | [`write_game`](Self::write_game) | |
/// | the game server closed | [`game_closed`](Self::game_closed) | tell the links |
/// | a session's [`deadline`](Self::deadline) passed | [`tick`](Self::tick) | |
///
/// To tell the links is to call [`write_link`](Self::write_link) for each of [`links_of`](Self::links_of) that is not
/// known to be full. After each call [`poll_changed`](Self::poll_changed) names the sessions to look at again, and
/// [`poll_link`](Self::poll_link) the links on which something is to be done.
///
/// A session that is [finished](Self::is_finished) is accounted for by [`close`](Self::close), and once it
/// [is over](Self::is_over), [`remove`](Self::remove) makes its id free.
#[repr(C)]
pub struct ClientMachine<O: ClientOwner> {
    pub(super) links: Slots<Link<O::Link>>,
    pub(super) sessions: Sessions<O::Session, O::Player>,
    pub(super) lending: Lending,
    /// Sessions that were removed, or whose opens were refused, the last ones: what is late for them is no breach of a
    /// rule, and there is nothing to open.
    pub(super) recent: VecDeque<SessionId>,
}

impl<O: ClientOwner> Default for ClientMachine<O> {
    /// Makes a client that has nothing yet.
    fn default() -> Self {
        Self {
            links: Slots::default(),
            sessions: Sessions::default(),
            lending: Lending::default(),
            recent: VecDeque::new(),
        }
    }
}

impl<O: ClientOwner> ClientMachine<O> {
    /// Returns whether it has neither links nor sessions, so that nothing of it need be kept.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty() && self.sessions.is_empty()
    }

    /// Adds a link. Its bytes, from the first frame on, go to [`ClientMachine::receive`].
    pub fn add_link(&mut self, owned: O::Link) -> LinkKey {
        let (writer, input) = (LinkWriter::default(), ReassemblyBuffer::default());
        self.lending.came();
        LinkKey(self.links.insert(Link { owned, writer, input, silent: false }))
    }

    /// Returns the owner's part of a link.
    pub fn link(&self, link: LinkKey) -> Option<&O::Link> {
        Some(&self.links.get(link.0)?.owned)
    }

    /// Returns the owner's part of each link.
    pub fn links(&self) -> impl Iterator<Item = &O::Link> {
        self.links.values().map(|link| &link.owned)
    }

    /// Returns the owner's part of each link, with its key.
    pub fn links_by_key(&self) -> impl Iterator<Item = (LinkKey, &O::Link)> {
        let keys = (0..self.links.end()).map(LinkKey);
        keys.filter_map(|key| Some((key, self.link(key)?)))
    }

    /// Returns the owner's part of a session.
    pub fn session(&self, session: SessionKey) -> Option<&O::Session> {
        Some(&self.sessions.get(session)?.owned)
    }

    /// Returns the players from whose addresses links have joined a session, that of its opener first.
    pub fn players(&self, session: SessionKey) -> impl Iterator<Item = &O::Player> {
        self.sessions.get(session).into_iter().flat_map(Session::players)
    }

    /// Returns the sessions that links find, those included that have ended and are there to meet late joins.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, SessionKey)> {
        self.sessions.listed().iter().copied()
    }

    /// Returns the links of a session, by number from 0; `None` behind the last.
    pub fn links_of(&self, session: SessionKey, number: usize) -> Option<LinkKey> {
        self.sessions.get(session)?.links.get(number).copied()
    }

    /// Returns how many sessions a link carries.
    pub fn carried_by(&self, link: LinkKey) -> usize {
        self.links.get(link.0).map_or(0, |link| link.writer.sessions())
    }

    /// Returns a session whose owner is to look again at what it waits for: its deadline, its end, and whether its game
    /// server is to be read. To be called until `None`.
    pub fn poll_changed(&mut self) -> Option<SessionKey> {
        self.sessions.pop_changed()
    }

    /// Begins with bytes that came over a link; [`ClientMachine::next_effect`] does the rest.
    pub fn receive<'a>(&mut self, link: LinkKey, bytes: &'a [u8]) -> ReceivedBytes<'a> {
        let input = self.links.get_mut(link.0).map(|link| link.input.join(bytes));
        ReceivedBytes::new(link, input.unwrap_or_default())
    }

    /// Writes what waits on a link, through `write`, until nothing is left or the link takes no more: `write` takes
    /// fewer bytes than it was given, or fails with `WouldBlock`.
    ///
    /// # Errors
    /// Any other error of `write`; the link is then of no more use.
    pub fn write_link(
        &mut self,
        link: LinkKey,
        mut write: impl FnMut(&O::Link, &[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<WriteOutcome> {
        let Some(Link { owned, writer, .. }) = self.links.get_mut(link.0) else { return Ok(WriteOutcome::default()) };
        let carried = writer.sessions();
        let written = writer.write_to(&mut self.sessions, |slices| write(owned, slices));
        if writer.sessions() < carried {
            self.sessions.forget_told(link, |born| writer.carries(born));
        }
        written
    }

    /// Takes a link that is gone off all its sessions, and returns the owner's part of it. A session without links
    /// waits for one to come back for `sessions.linger`.
    pub fn lost(&mut self, link: LinkKey, now: Instant) -> Option<O::Link> {
        let Link { owned, writer, .. } = self.links.remove(link.0)?;
        for joined in writer.carried() {
            if let Some(session) = self.sessions.get_mut(joined.session) {
                session.machine.lost(joined.standing, now);
                self.sessions.change(joined.session);
            }
        }
        self.sessions.forget(link);
        for joined in writer.carried() {
            self.sessions.drop_unused(joined.session);
        }
        for joined in writer.carried() {
            self.hasten(joined.session);
        }
        self.lending.look();
        Some(owned)
    }

    /// Takes note that the game server is reached. `header`, which tells it the player's address, goes before all
    /// packets.
    pub fn connected(&mut self, session: SessionKey, header: &[u8]) {
        if let Some(session) = self.sessions.get_mut(session) {
            session.connected(header);
        }
    }

    /// Ends a session whose game server cannot be reached.
    pub fn connect_failed(&mut self, session: SessionKey) {
        self.end(session, EndReason::GameUnreachable);
    }

    /// Returns whether the game server is to be read: the session goes on, and there is room for what it sends.
    pub fn wants_game_data(&self, session: SessionKey) -> bool {
        self.sessions.get(session).is_some_and(|session| session.machine.wants_game_data())
    }

    /// Takes bytes of the game server, and frames the whole packets among them once for all links.
    pub fn game_bytes(&mut self, session: SessionKey, bytes: &[u8]) -> Framed {
        self.sessions.get_mut(session).map(|session| session.frame(bytes)).unwrap_or_default()
    }

    /// Returns what of a session must outlive this process, if others are to go on with it though this one was killed: to be
    /// recorded after each [`ClientMachine::game_bytes`], before anything that it framed goes out on a link.
    pub fn record(&self, session: SessionKey) -> Option<SessionRecord<'_>> {
        Some(self.sessions.get(session)?.record())
    }

    /// Writes what waits for the game server, through `write`, as far as it may go now: `write` takes fewer bytes than
    /// it was given, or fails with `WouldBlock`. Returns whether the game server takes no more for now. Asks for the
    /// time only if packets to the game server are smoothed.
    ///
    /// After any other error nothing is written any more, and packets for the game server are dropped. The session goes
    /// on all the same: what the game server sent before its end is still the client's.
    pub fn write_game(
        &mut self,
        session: SessionKey,
        now: impl Fn() -> Instant,
        mut write: impl FnMut(&O::Session, &[u8]) -> io::Result<usize>,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(session) else { return false };
        loop {
            let (owned, bytes) = session.writable(&now);
            if bytes.is_empty() {
                return false;
            }
            let wanted = bytes.len();
            let taken = match write(owned, bytes) {
                Ok(taken) => taken,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                Err(_) => {
                    session.drop_upstream();
                    return false;
                }
            };
            session.wrote(taken);
            if taken < wanted {
                return true;
            }
        }
    }

    /// Returns when more may be written to the game server than now; `None` if time alone changes nothing.
    pub fn paced_until(&self, session: SessionKey) -> Option<Instant> {
        self.sessions.get(session)?.paced_until()
    }

    /// Ends a session whose game server has closed the connection, or whose connection failed.
    pub fn game_closed(&mut self, session: SessionKey) {
        self.end(session, EndReason::GameClosed);
    }

    /// Takes note that the connection to the game server is closed: nothing more is written to it.
    pub fn disconnected(&mut self, session: SessionKey) {
        if let Some(session) = self.sessions.get_mut(session) {
            session.disconnected();
        }
    }

    /// Ends a session: what it has for the client still goes out, and the end after it. The first reason counts.
    pub fn end(&mut self, session: SessionKey, reason: EndReason) {
        if let Some(session) = self.sessions.get_mut(session) {
            session.machine.end(reason);
        }
    }

    /// Returns the bytes that a session keeps: not acknowledged, ahead of their turn, and for its game server, with
    /// something for each piece.
    #[inline]
    pub fn kept(&self, session: SessionKey) -> usize {
        self.sessions.get(session).map_or(0, Session::kept)
    }

    /// Forgets what a session that has ended keeps: only the end still goes out. Returns the bytes that were not
    /// acknowledged.
    pub fn discard(&mut self, session: SessionKey) -> usize {
        self.sessions.get_mut(session).map_or(0, Session::discard)
    }

    /// Returns the reason of a session's end, once it has ended.
    pub fn ended(&self, session: SessionKey) -> Option<EndReason> {
        self.sessions.get(session)?.machine.ended()
    }

    /// Returns when [`ClientMachine::tick`] must be called for a session; `None` if time alone changes nothing.
    pub fn deadline(&self, session: SessionKey) -> Option<Instant> {
        self.sessions.get(session)?.deadline()
    }

    /// Lets time pass for a session: ends it if nobody came back to it, or has a link of it closed.
    pub fn tick(&mut self, session: SessionKey, now: Instant) {
        if let Some(session) = self.sessions.get_mut(session) {
            session.tick(now);
        }
        self.rejoin(session, now);
    }

    /// Returns whether a session has ended and has nothing more to tell: a link has told the client, or there was none
    /// to tell within its time.
    pub fn is_finished(&self, session: SessionKey) -> bool {
        self.sessions.get(session).is_none_or(|session| session.machine.is_finished())
    }

    /// Returns the figures of a session.
    pub fn figures(&self, session: SessionKey) -> Option<SessionFigures> {
        Some(self.sessions.get(session)?.figures())
    }

    /// Closes the account of a session and returns its last figures. `unfinished` is the reason of its end if it has
    /// not ended before: then its links, to be asked for before this call, have yet to tell the client.
    ///
    /// After an end that the client may not know of yet, the session stays for `sessions.leave_grace`, so that a join
    /// on its way meets the end; for `sessions.linger` if not all was acknowledged. Links of the client that come up
    /// meanwhile bring it the rest.
    pub fn close(&mut self, session: SessionKey, unfinished: EndReason, now: Instant) -> Option<SessionFigures> {
        let session = self.sessions.get_mut(session)?;
        session.close(unfinished, now);
        let (id, figures) = (session.machine.id(), session.figures());
        if figures.ended == Some(EndReason::LinksLost) {
            self.end_kept_off(id);
        }
        // Links that were lost meanwhile, or new ones, are for it now.
        self.lending.look();
        Some(figures)
    }

    /// Returns whether a session that was closed has met all joins that it had to, so that it can be removed.
    pub fn is_over(&self, session: SessionKey) -> bool {
        self.sessions.get(session).is_none_or(Session::is_over)
    }

    /// Hides a session from links that look for it, and returns the bytes that were not acknowledged. Links that carry
    /// it still write the rest.
    pub fn remove(&mut self, session: SessionKey) -> usize {
        let Some(there) = self.sessions.get(session) else { return 0 };
        let (id, unacked) = (there.machine.id(), there.machine.outbox().unacked());
        self.end_kept_off(id);
        self.remember(id);
        self.sessions.remove(session);
        unacked
    }

    /// Remembers that a session is over, or was not let in.
    pub(super) fn remember(&mut self, id: SessionId) {
        self.recent.retain(|other| *other != id);
        if self.recent.len() >= MAX_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(id);
    }

    /// Returns whether a session was closed, so that it is there for what its client has not heard.
    pub fn is_closed(&self, session: SessionKey) -> bool {
        self.sessions.get(session).is_none_or(Session::is_closed)
    }

    /// Ends a session that no link carries, without waiting for one that could tell its client: that meets the end if it
    /// comes back. Does nothing if there is a link. The reason of one that has ended stays.
    pub fn give_up(&mut self, session: SessionKey, reason: EndReason) {
        let forsaken = |there: &&mut Session<_, _>| there.machine.links() == 0;
        if let Some(there) = self.sessions.get_mut(session).filter(forsaken) {
            there.give_up(reason);
            self.sessions.change(session);
        }
    }

    /// Keeps a session for its client no longer than until its end is told.
    pub fn keep_no_longer(&mut self, session: SessionKey) {
        if let Some(there) = self.sessions.get_mut(session) {
            there.hurry();
            self.sessions.change(session);
        }
    }

    /// Has a session that waits for links end while its client can still hear of it, if there is a link that may not join
    /// it: no end was told on that.
    pub(super) fn hasten(&mut self, session: SessionKey) {
        let Some(there) = self.sessions.get_mut(session) else { return };
        let id = there.machine.id();
        let kept_off = self.links.values().any(|link| link.writer.is_kept_off(id));
        if kept_off && there.machine.ended().is_none() && there.machine.hasten(TELL_WITHIN) {
            self.sessions.change(session);
        }
    }

    /// Has links that may not join a session told that it is over.
    fn end_kept_off(&mut self, id: SessionId) {
        for link in (0..self.links.end()).map(LinkKey) {
            if self.links.get_mut(link.0).is_some_and(|link| link.writer.end_kept_off(id)) {
                self.lending.write(link);
            }
        }
    }

    /// Returns the session of that id, if there is one and the link may join it.
    pub(super) fn find(&self, link: &O::Link, id: SessionId, owner: &O) -> Result<Option<SessionKey>, OpenError> {
        let Some(key) = self.sessions.find(id) else { return Ok(None) };
        let Some(session) = self.sessions.get(key) else { return Ok(None) };
        let same = !owner.rules().bind_to_player || owner.player(link) == session.player;
        if same { Ok(Some(key)) } else { Err(OpenError::Identity) }
    }

    /// Takes note of the player whose link joins a session. Returns whether it is one that the session did not know.
    pub(super) fn meet(&mut self, session: SessionKey, link: LinkKey, owner: &O) -> Result<bool, OpenError> {
        let Self { links, sessions, .. } = self;
        let player = |link: LinkKey| links.get(link.0).map(|link| owner.player(&link.owned));
        let (Some(session), Some(joining)) = (sessions.get_mut(session), player(link)) else { return Ok(false) };
        if session.knows(&joining) {
            return Ok(false);
        }
        let there: Vec<_> = session.links.iter().filter_map(|link| player(*link)).collect();
        session.meet(joining, |known| there.contains(known)).map(|()| true)
    }

    /// Returns whether a session of that id goes on, or has something for its client, whoever may join it.
    pub(super) fn goes_on(&self, id: SessionId) -> bool {
        let session = self.sessions.find(id).and_then(|key| self.sessions.get(key));
        session.is_some_and(|session| {
            session.machine.ended().is_none() || session.has_to_tell() && session.machine.outbox().unacked() > 0
        })
    }

    /// Returns a new session, unless the owner does not let it in.
    pub(super) fn create(
        &mut self,
        link: LinkKey,
        id: SessionId,
        port: u32,
        owner: &O,
    ) -> Result<Option<SessionKey>, OpenError> {
        let Some(link) = self.link(link) else { return Ok(None) };
        let (player, admitted) = (owner.player(link), owner.admit(link, id, port)?);
        Ok(Some(self.sessions.insert(Session::new(id, player, admitted, owner.now()))))
    }
}

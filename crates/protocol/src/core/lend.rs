//! Links that are lent: for a session whose own links bring nothing, the core sends over others of the same client.
//!
//! Clients look after their links by one clock and after a session's by another. A link that is lost and back between
//! two looks counts as joined there: it is never opened again. And while a client waits for its dead links to be so late
//! that it gives them up, others of it may be in the best of health. Clients take a session's packets over any link, so
//! neither is a reason for a standstill.
//!
//! - A session none of whose complete links is alive is sent over all other links of the same player.
//! - Packets that come over such a link make it [`Standing::Complete`], if none before them is missing.
//! - So is a session that has ended, until a link has told the end that is alive: what kernels took may be lost.
//! - If no link is, then one of the client's is closed after [`OPEN_WITHIN`]: the client notices that, and opens the
//!   session anew on that link or another, with all packets that were not acknowledged.
//! - So is a link over which packets come of a session that nobody has opened and whose client has got none of it: the open
//!   was lost with the link before.

use std::time::{Duration, Instant};

use super::client::{ClientMachine, Link};
use super::keys::{LinkKey, SessionKey};
use super::machine::{SessionPhase, Standing};
use super::owner::ClientOwner;
use crate::frame::{PacketId, SessionId};

/// The time in which a client opens its sessions on a link that is back, if it ever does: it looks at them every half
/// second, and needs two round trips to have the first answer on the link. By then it is still a second until it looks
/// after its links again, so a link that is closed now is missed before it is back.
pub const OPEN_WITHIN: Duration = Duration::from_millis(1500);
/// The time from one such close to the next: a client makes lost links anew every 2.5 seconds.
pub const CLOSE_EVERY: Duration = Duration::from_millis(2500);
/// Links with other sessions that are closed for one, until it has a complete one. A client that opens those and never
/// this one has forgotten it.
pub const MAX_CLOSES: u32 = 4;

/// An action that the owner must carry out on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkDuty {
    /// Call [`ClientMachine::write_link`].
    Write,
    /// Close it, so that the client opens its sessions anew.
    Close,
}

/// The state of lending: nothing most of the time.
#[derive(Debug, Default)]
pub(super) struct Lending {
    /// Something has changed that it depends on.
    due: bool,
    /// That is a new link.
    arrived: bool,
    duties: Vec<(LinkKey, LinkDuty)>,
}

impl Lending {
    /// Has the owner write on a link.
    pub fn write(&mut self, link: LinkKey) {
        self.duties.push((link, LinkDuty::Write));
    }

    /// Has the owner close a link.
    fn close(&mut self, link: LinkKey) {
        let duty = (link, LinkDuty::Close);
        if !self.duties.contains(&duty) {
            self.duties.push(duty);
        }
    }

    /// Takes note that links are to be looked at.
    pub fn look(&mut self) {
        self.due = true;
    }

    /// Takes note of a new link.
    pub fn came(&mut self) {
        (self.due, self.arrived) = (true, true);
    }
}

impl<O: ClientOwner> ClientMachine<O> {
    /// Takes note that a link has been silent for longer than a client ever is: it may be dead.
    pub fn silent(&mut self, link: LinkKey) {
        self.set_silent(link, true);
    }

    /// Takes note that a silent link has been heard again.
    pub fn heard(&mut self, link: LinkKey) {
        self.set_silent(link, false);
    }

    fn set_silent(&mut self, link: LinkKey, silent: bool) {
        if let Some(link) = self.links.get_mut(link.0) {
            link.silent = silent;
            self.lending.look();
        }
    }

    /// Returns a link on which something is to be done without its having asked. To be called until `None` after each
    /// other call but [`ClientMachine::write_link`] and [`ClientMachine::write_game`].
    #[inline]
    pub fn poll_link(&mut self, owner: &O) -> Option<(LinkKey, LinkDuty)> {
        if self.lending.due {
            self.look_after_links(owner);
        }
        let duty = self.lending.duties.pop()?;
        if self.lending.duties.is_empty() {
            // Rare, and so not worth memory for each client.
            self.lending.duties = Vec::new();
        }
        Some(duty)
    }

    /// Looks at the links of all sessions, after something has changed that lending depends on.
    #[cold]
    fn look_after_links(&mut self, owner: &O) {
        let mut number = 0;
        while let Some(&(_, session)) = self.sessions.listed().get(number) {
            self.lend(session, owner);
            number += 1;
        }
        // What was done needs no further look.
        (self.lending.due, self.lending.arrived) = (false, false);
    }

    /// Lends a session the other links of its client, or takes them back: one that its client has not left is sent over
    /// all of them while no link is alive that brings its packets.
    fn lend(&mut self, key: SessionKey, owner: &O) {
        let Some(session) = self.sessions.get(key).filter(|session| session.has_to_tell()) else { return };
        let left = session.machine.phase() == SessionPhase::Grace;
        let alive = self.has_live_link(key);
        for link in (0..self.links.end()).map(LinkKey) {
            match self.standing(link, key) {
                None if !alive && !left => self.lend_one(link, key, owner),
                Some(Standing::Lent) if alive => self.take_back(link, key),
                _ => {}
            }
        }
        let Some(session) = self.sessions.get_mut(key) else { return };
        if !session.waits_for_open() || self.links.is_empty() {
            session.rejoin_at = None;
        } else if session.rejoin_at.is_none() || self.lending.arrived {
            session.rejoin_at = Some(owner.now() + OPEN_WITHIN);
            self.sessions.change(key);
        }
    }

    /// Returns whether a link is alive on which all comes that the client sends, or on which the end was told.
    fn has_live_link(&self, key: SessionKey) -> bool {
        let Some(session) = self.sessions.get(key) else { return false };
        self.links.values().filter(|link| !link.silent).any(|Link { writer, .. }| {
            let mut complete = writer.carried().iter().filter(|joined| joined.standing == Standing::Complete);
            writer.told(session.born) || complete.any(|joined| joined.session == key)
        })
    }

    fn lend_one(&mut self, link: LinkKey, key: SessionKey, owner: &O) {
        if self.may_lend(link, key, owner) && self.join(link, key, Standing::Lent, owner).is_ok() {
            self.lending.duties.push((link, LinkDuty::Write));
        }
    }

    /// Returns whether a link may be lent to a session: only one of a player that the session is known to have. A link
    /// says by its first frame whose it is, and that alone is no proof.
    fn may_lend(&self, link: LinkKey, key: SessionKey, owner: &O) -> bool {
        let (Some(link), Some(session)) = (self.links.get(link.0), self.sessions.get(key)) else { return false };
        let player = owner.player(&link.owned);
        let known = session.player == player || session.knows(&player) && !owner.rules().bind_to_player;
        known && !link.silent && link.writer.get(session.machine.id()).is_none()
    }

    /// Returns the standing of a link in a session that it carries.
    fn standing(&self, link: LinkKey, key: SessionKey) -> Option<Standing> {
        let joined = self.links.get(link.0)?.writer.carried().iter().find(|joined| joined.session == key)?;
        Some(joined.standing)
    }

    fn take_back(&mut self, link: LinkKey, key: SessionKey) {
        let (Some(carrier), Some(session)) = (self.links.get_mut(link.0), self.sessions.get_mut(key)) else { return };
        carrier.writer.remove(session.machine.id());
        session.links.retain(|other| *other != link);
        session.machine.without(Standing::Lent);
    }

    /// Takes note that a packet of the session has come over a link that is not complete in it.
    pub(super) fn used(&mut self, link: LinkKey, key: SessionKey, packet: PacketId) {
        let Some(session) = self.sessions.get(key) else { return };
        if packet <= session.machine.received() {
            return self.complete(link, key);
        }
        let id = session.machine.id();
        if let Some(joined) = self.links.get_mut(link.0).and_then(|link| link.writer.get_mut(id)) {
            joined.standing = Standing::Used;
        }
    }

    /// Takes note that all packets of the session come over a link that carries it.
    pub(super) fn complete(&mut self, link: LinkKey, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(carrier) = self.links.get_mut(link.0) else { return };
        if let Some(joined) = carrier.writer.get_mut(session.machine.id())
            && joined.standing != Standing::Complete
        {
            joined.standing = Standing::Complete;
            session.machine.completed();
            (session.rejoin_at, session.closes) = (None, 0);
            self.lending.look();
        }
    }

    /// Has a link of the client closed, if a session has waited long enough for being opened anew: one that the client
    /// counts as joined, as far as is known; and one on which it has opened others only if there is none without. One that
    /// is not lent may be it too: clients come back from other addresses.
    pub(super) fn rejoin(&mut self, key: SessionKey, now: Instant) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.rejoin_at.is_none_or(|at| now < at) {
            return;
        }
        session.rejoin_at = None;
        if !session.waits_for_open() {
            return;
        }
        session.rejoin_at = Some(now + CLOSE_EVERY);
        let Some(session) = self.sessions.get(key) else { return };
        // An older one of the same id is none: the client knows it by its id alone.
        let id = session.machine.id();
        let writer = |link: LinkKey| self.links.get(link.0).map(|link| &link.writer);
        let carries_others = |link: LinkKey| {
            writer(link).is_some_and(|writer| writer.sessions() > usize::from(writer.get(id).is_some()))
        };
        let unused = |link: LinkKey| self.standing(link, key) != Some(Standing::Used);
        // Of equal ones the first: a link that was closed before comes back as the last that is lent.
        // Opening it on a link that may not join it would be in vain.
        let may_join = |link: &LinkKey| self.links.get(link.0).is_some_and(|link| !link.writer.is_kept_off(id));
        let others = (0..self.links.end()).map(LinkKey).filter(may_join);
        let links = session.links.iter().copied().chain(others);
        let link = links.min_by_key(|link| (unused(*link), carries_others(*link)));
        let Some(link) = link.filter(|link| session.closes < MAX_CLOSES || !carries_others(*link)) else { return };
        if let Some(session) = self.sessions.get_mut(key) {
            session.closes = session.closes.saturating_add(1);
        }
        self.lending.close(link);
    }

    /// Has a link closed over which packets of a session came, unless it was opened or refused in the meantime. To be
    /// called as the client pings: it has just looked after its links, so it misses this one before it is back.
    pub(super) fn close_unopened(&mut self, link: LinkKey, id: SessionId) {
        if self.sessions.find(id).is_none() && !self.recent.contains(&id) {
            self.lending.close(link);
        }
    }
}

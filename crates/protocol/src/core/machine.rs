//! One session: its inbox, its outbox, and when it ends.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::frozen::{FrozenError, FrozenInstant, FrozenMachine, FrozenReason};
use super::inbox::{Arrival, Inbox, ReorderFull};
use super::outbox::{AckBeyondSent, Batch, Outbox};
use super::reason::EndReason;
use crate::frame::{PacketId, SessionId};

/// Limits and times of a session, as the configuration has them. The fields that packets need are first.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct SessionLimits {
    /// `sessions.unacked`, bytes.
    pub unacked: usize,
    /// `sessions.pending`, bytes that may wait for the game server.
    pub pending: usize,
    /// `sessions.reorder`, bytes.
    pub reorder: usize,
    /// `sessions.linger`
    pub linger: Duration,
    /// `sessions.leave_grace`
    pub leave_grace: Duration,
}

/// The phase of a session, apart from the connection to its game server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionPhase {
    /// Links carry it.
    Carried,
    /// Its last link left on purpose.
    Grace,
    /// Its last link was lost, or none has joined yet.
    Lingering,
    /// It has ended, and its client is being told.
    Ending,
}

/// The standing of a link that carries a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// The core sends the session's frames over it without having been asked: see
    /// [`ClientMachine::poll_link`](super::ClientMachine::poll_link).
    Lent,
    /// The client sends packets over it, though it never opened the session there: some before them may be missing.
    Used,
    /// All packets come over it that the client sends and that have not come: it was opened there, or the packets that
    /// it brought were due.
    Complete,
}

/// A breach of the protocol by a client, which ends its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// Too much ahead of its turn.
    #[error(transparent)]
    Reorder(#[from] ReorderFull),
    /// An acknowledgement of what was never sent: most often a client that goes on with a session
    /// which this core, started since, does not know.
    #[error(transparent)]
    Ack(#[from] AckBeyondSent),
    /// More than the game server takes.
    #[error("{pending} bytes wait for the game server, more than sessions.pending")]
    Pending {
        /// Bytes that wait, with something for each packet.
        pending: usize,
    },
}

impl ProtocolError {
    /// Returns the reason that is logged and counted.
    pub fn reason(self) -> EndReason {
        match self {
            Self::Reorder(_) | Self::Pending { .. } => EndReason::Limit,
            Self::Ack(_) => EndReason::ProtocolError,
        }
    }
}

/// The state of one session. See the module's documentation for what it does not do. The fields that packets need are first.
#[derive(Debug)]
#[repr(C)]
pub struct Machine {
    id: SessionId,
    /// The first packet that no link has begun to write.
    unsent: PacketId,
    outbox: Outbox,
    inbox: Inbox,
    /// The time and the reason of its end if nothing else comes; none while a complete link carries it.
    deadline: Option<(Instant, EndReason)>,
    ended: Option<EndReason>,
    /// A link has written all data and the end after it.
    end_sent: bool,
    limits: SessionLimits,
    /// Links that carry the session now, whatever their standing.
    links: usize,
    /// The links among them on which all comes that the client sends.
    complete: usize,
}

impl Machine {
    /// Has the next packet to the client be this one.
    #[cfg(test)]
    pub(super) fn skip_to(&mut self, next: PacketId) {
        self.outbox.skip_to(next);
    }

    /// Makes a new session, which no link carries yet: it ends after the linger time if none joins.
    pub fn new(id: SessionId, limits: SessionLimits, now: Instant) -> Self {
        Self {
            id,
            inbox: Inbox::new(limits.reorder),
            outbox: Outbox::default(),
            limits,
            links: 0,
            complete: 0,
            deadline: Some((now + limits.linger, EndReason::LinksLost)),
            ended: None,
            end_sent: false,
            unsent: PacketId::FIRST,
        }
    }

    pub(super) fn freeze(&self, now: Instant) -> FrozenMachine {
        FrozenMachine {
            id: self.id.0,
            unsent: self.unsent.0,
            inbox: self.inbox.freeze(),
            outbox: self.outbox.freeze(),
            deadline: self.deadline.map(|(at, reason)| (FrozenInstant::new(at, now), FrozenReason(reason))),
            ended: self.ended.map(FrozenReason),
            end_sent: self.end_sent,
        }
    }

    /// Makes the machine that was frozen, which no link carries yet.
    pub(super) fn thaw(frozen: FrozenMachine, limits: SessionLimits, now: Instant) -> Result<Self, FrozenError> {
        let outbox = Outbox::thaw(frozen.outbox)?;
        let unsent = PacketId(frozen.unsent);
        if unsent > outbox.next() {
            return Err(FrozenError::Damaged);
        }
        Ok(Self {
            id: SessionId(frozen.id),
            unsent,
            outbox,
            inbox: Inbox::thaw(frozen.inbox, limits.reorder)?,
            deadline: frozen.deadline.map(|(at, FrozenReason(reason))| (at.at(now), reason)),
            ended: frozen.ended.map(|FrozenReason(reason)| reason),
            end_sent: frozen.end_sent,
            limits,
            links: 0,
            complete: 0,
        })
    }

    /// Records that a link as which the session was complete is gone since it was frozen.
    pub(super) fn lost_before(&mut self, now: Instant) {
        if self.complete == 0 && self.deadline.is_none() {
            self.deadline = Some((now + self.limits.linger, EndReason::LinksLost));
        }
    }

    /// Records that a link carries the session which carried it when it was frozen: its deadline stays.
    pub(super) fn rejoined(&mut self, standing: Standing) {
        self.links += 1;
        self.complete += usize::from(standing == Standing::Complete);
    }

    /// Returns the session's id.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Returns its limits and times.
    pub fn limits(&self) -> &SessionLimits {
        &self.limits
    }

    /// Returns how many links carry it.
    pub fn links(&self) -> usize {
        self.links
    }

    /// Returns the frames that the client has not acknowledged.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Returns the bytes that it keeps in both directions, with something for each piece.
    #[inline]
    pub fn kept(&self) -> usize {
        self.outbox.cost() + self.inbox.held_bytes()
    }

    /// Forgets all that it keeps, as no more than the end is to go out; returns the bytes that were not acknowledged.
    pub fn discard(&mut self) -> usize {
        self.inbox = Inbox::new(0);
        self.outbox.discard()
    }

    /// Returns the session's phase.
    pub fn phase(&self) -> SessionPhase {
        match (self.ended, self.deadline) {
            (Some(_), _) => SessionPhase::Ending,
            (None, None) => SessionPhase::Carried,
            (None, Some((_, EndReason::ClientLeft))) => SessionPhase::Grace,
            (None, Some(_)) => SessionPhase::Lingering,
        }
    }

    /// Returns the bytes kept ahead of their turn.
    pub fn reordering(&self) -> usize {
        self.inbox.held_bytes()
    }

    /// Returns the highest packet received in order from the client.
    pub fn received(&self) -> PacketId {
        self.inbox.received()
    }

    /// Returns the packets sent to the client so far.
    pub fn sent(&self) -> PacketId {
        self.outbox.next().previous()
    }

    /// Returns how many of its links bring all that the client sends.
    pub fn complete(&self) -> usize {
        self.complete
    }

    /// Has the session end so soon after its last link was lost, if it is to end for that.
    /// Returns whether that is earlier than before.
    pub fn hasten(&mut self, after: Duration) -> bool {
        if let Some((at, EndReason::LinksLost)) = self.deadline
            && let Some(lost) = at.checked_sub(self.limits.linger)
            && lost + after < at
        {
            self.deadline = Some((lost + after, EndReason::LinksLost));
            return true;
        }
        false
    }

    /// Records that one more link carries the session.
    pub fn joined(&mut self, standing: Standing) {
        self.links += 1;
        if standing == Standing::Complete {
            self.completed();
        }
    }

    /// Records that a link which carries the session has become complete.
    pub fn completed(&mut self) {
        self.complete += 1;
        self.deadline = None;
    }

    /// Records that a link left the session on purpose: without another complete one its client means the session.
    pub fn left(&mut self, standing: Standing, now: Instant) {
        self.without(standing);
        if self.complete == 0 {
            self.deadline = Some((now + self.limits.leave_grace, EndReason::ClientLeft));
        }
    }

    /// Records that a link that carried the session is gone.
    pub fn lost(&mut self, standing: Standing, now: Instant) {
        self.without(standing);
        if self.complete == 0 && standing == Standing::Complete {
            self.deadline = Some((now + self.limits.linger, EndReason::LinksLost));
        }
    }

    /// Records that a link no longer carries the session, which changes nothing for its client.
    pub fn without(&mut self, standing: Standing) {
        self.links = self.links.saturating_sub(1);
        if standing == Standing::Complete {
            self.complete = self.complete.saturating_sub(1);
        }
    }

    /// Records that a link has written all data and the end after it; it no longer carries the session.
    pub fn end_written(&mut self, standing: Standing) {
        self.without(standing);
        self.end_sent = true;
    }

    /// Takes an acknowledgement; returns the bytes it freed. One on a duplicate counts too.
    ///
    /// # Errors
    /// Fails if the packet was never sent: the session must end.
    pub fn ack(&mut self, ack: PacketId) -> Result<usize, ProtocolError> {
        Ok(self.outbox.ack(ack)?)
    }

    /// Takes a packet of the client; see [`Inbox::accept`].
    ///
    /// # Errors
    /// It does not fit: the session must end.
    pub fn accept(&mut self, packet: PacketId, payload: &[u8]) -> Result<Arrival, ProtocolError> {
        Ok(self.inbox.accept(packet, payload)?)
    }

    /// Returns the next packet for the game server that was held ahead of its turn.
    pub fn pop_held(&mut self) -> Option<Box<[u8]>> {
        self.inbox.pop_held()
    }

    /// Returns whether the game server is to be read: the session goes on, and there is room for more.
    pub fn wants_game_data(&self) -> bool {
        self.ended.is_none() && self.outbox.cost() < self.limits.unacked
    }

    /// Appends packets of the game server, framed with numbers from `outbox().next()` on.
    pub fn push(&mut self, batch: Batch) {
        self.outbox.push(batch);
    }

    /// Counts `frames` from `first` on as written; returns how many no link had written before.
    pub(super) fn note_written(&mut self, first: PacketId, frames: u32) -> u32 {
        let after = PacketId(first.0.saturating_add(frames));
        let fresh = after.0.saturating_sub(self.unsent.0.max(first.0));
        self.unsent = self.unsent.max(after);
        fresh
    }

    /// Ends the session: what is in the outbox still goes out, then the end. The first reason
    /// counts.
    pub fn end(&mut self, reason: EndReason) {
        self.ended.get_or_insert(reason);
    }

    /// Has the end be told to nobody now: no link carries the session.
    pub fn give_up(&mut self) {
        self.end_sent = true;
    }

    /// Returns the reason for which the session ended, if it did.
    pub fn ended(&self) -> Option<EndReason> {
        self.ended
    }

    /// Returns the time at which [`Machine::tick`] must be called next; `None` if time alone changes nothing.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline.map(|(at, _)| at)
    }

    /// Lets time pass: ends the session where nobody came back to it.
    pub fn tick(&mut self, now: Instant) {
        if let Some((at, reason)) = self.deadline
            && now >= at
        {
            self.end(reason);
            // There is no link to tell.
            self.end_sent = true;
        }
    }

    /// Returns whether nothing remains to be done: it ended, and a link has told the client or there was
    /// none to tell within its time.
    pub fn is_finished(&self) -> bool {
        self.ended.is_some() && self.end_sent
    }
}

#[cfg(test)]
mod tests {
    use super::Standing::Complete;
    use super::*;

    const LIMITS: SessionLimits = SessionLimits {
        linger: Duration::from_secs(30),
        leave_grace: Duration::from_secs(2),
        unacked: 100,
        reorder: 1000,
        pending: 1000,
    };

    fn machine(now: Instant) -> Machine {
        Machine::new(SessionId(1), LIMITS, now)
    }

    #[test]
    fn grace_after_leaving_and_linger_after_losing_the_last_link() {
        let now = Instant::now();
        for (lose, wait, reason) in
            [(false, LIMITS.leave_grace, EndReason::ClientLeft), (true, LIMITS.linger, EndReason::LinksLost)]
        {
            let mut m = machine(now);
            m.joined(Complete);
            m.joined(Complete);
            m.left(Complete, now);
            assert_eq!(m.deadline(), None, "one link still carries it");
            if lose {
                m.lost(Complete, now)
            } else {
                m.left(Complete, now)
            }
            assert_eq!(m.deadline(), Some(now + wait));
            m.tick(now + wait - Duration::from_millis(1));
            assert!(m.ended().is_none());
            m.tick(now + wait);
            assert_eq!(m.ended(), Some(reason));
            assert!(m.is_finished());
        }
    }

    #[test]
    fn a_join_before_the_deadline_goes_on() {
        let now = Instant::now();
        let mut m = machine(now);
        m.joined(Complete);
        m.left(Complete, now);
        m.joined(Complete);
        m.tick(now + Duration::from_secs(60));
        assert!(m.ended().is_none() && m.deadline().is_none());
    }

    #[test]
    fn after_the_game_closed_the_session_waits_for_a_link_to_take_the_end() {
        let now = Instant::now();
        let mut m = machine(now);
        m.joined(Complete);
        m.end(EndReason::GameClosed);
        assert!(!m.is_finished());
        m.lost(Complete, now);
        m.tick(now + Duration::from_secs(29));
        assert!(!m.is_finished(), "a link may come back for the rest");
        m.joined(Complete);
        m.end_written(Complete);
        assert!(m.is_finished());
        assert_eq!(m.ended(), Some(EndReason::GameClosed));
    }

    #[test]
    fn unacked_bytes_stop_reading_from_the_game() {
        let mut m = machine(Instant::now());
        let mut batch = Batch::default();
        batch.push(SessionId(1), PacketId(1), PacketId::NONE, 100, &[0; 100]);
        assert!(m.wants_game_data());
        m.push(batch);
        assert!(!m.wants_game_data());
        assert_eq!(m.ack(PacketId(1)), Ok(116));
        assert!(m.wants_game_data());
        assert_eq!(m.ack(PacketId(2)).unwrap_err().reason(), EndReason::ProtocolError);
    }

    #[test]
    fn small_packets_are_not_kept_for_free() {
        let mut m = machine(Instant::now());
        m.limits.unacked = 10_000;
        let mut pieces = 0;
        while m.wants_game_data() {
            let mut batch = Batch::with_capacity(64 * 1024);
            batch.push(SessionId(1), m.outbox().next(), PacketId::NONE, 0, &[]);
            m.push(batch);
            pieces += 1;
        }
        assert!((50..=100).contains(&pieces), "{pieces} pieces of 16 bytes");
        assert!(m.outbox().unacked() < 2_000, "what is shown are bytes");
    }

    #[test]
    fn its_phase_says_what_it_waits_for() {
        let now = Instant::now();
        let mut machine = machine(now);
        assert_eq!(machine.phase(), SessionPhase::Lingering);
        machine.joined(Complete);
        assert_eq!(machine.phase(), SessionPhase::Carried);
        machine.left(Complete, now);
        assert_eq!(machine.phase(), SessionPhase::Grace);
        machine.joined(Complete);
        machine.lost(Complete, now);
        assert_eq!(machine.phase(), SessionPhase::Lingering);
        machine.tick(now + LIMITS.linger);
        assert_eq!(machine.phase(), SessionPhase::Ending);
    }
}

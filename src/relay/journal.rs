//! The record of each session, from which another process goes on if this one is killed.

mod recover;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Instant;

use otproxy_journal::{Contents, Journal, Progress, Record};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::Relay;
use super::client::RelayMachine;
use super::frozen::{FrozenSession, monotonic};
use super::session::RelaySession;
use crate::handover::{Held, Lifeline};
use otproxy_net::Stream;
use otproxy_protocol::Word;
use otproxy_protocol::core::{self, SessionKey};
use otproxy_protocol::frame::{ClientId, PacketId};

pub use recover::{OldRecord, RecoveredSessions};

/// The number of the format of identities. Nothing reads those of other formats.
const FORMAT: u8 = 1;
/// The bit of a record's stage that says that its session has ended. The others are the unit of the game server's packets.
const ENDED: u8 = 0x80;

/// The journal of one worker.
pub struct RelayJournal {
    journal: RefCell<Journal>,
    lifeline: Arc<Lifeline>,
}

/// The record of one session, and its connection to the game server where others keep it.
#[derive(Debug)]
pub(super) struct LiveRecord {
    record: Record,
    /// None once the session has ended.
    held: Option<Held>,
    /// The frames that are in it: from and up to these positions in the stream of all frames to the client.
    frames: (u64, u64),
}

impl LiveRecord {
    /// Returns what holds the connection to the game server.
    pub(super) fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }
}

/// The words of a record about its session.
#[derive(Debug, Serialize, Deserialize)]
struct Identity {
    format: u8,
    client: u32,
    id: u32,
    session: FrozenSession,
    /// Milliseconds of the kernel's monotonic clock at which this was written.
    at: u64,
}

impl RelayJournal {
    /// Returns a worker's journal, whose sessions' connections are held by `lifeline`.
    pub fn new(journal: Journal, lifeline: Arc<Lifeline>) -> Self {
        Self { journal: RefCell::new(journal), lifeline }
    }
}

impl Relay {
    /// Begins the record of a session whose game server was reached: before anything is written to that, and before anything is read
    /// of it by this process.
    pub(super) fn begin_record(&self, client: ClientId, machine: &RelayMachine, key: SessionKey, game: &Stream) {
        let Some(session) = machine.session(key) else { return };
        let Some(RelayJournal { journal, lifeline }) = &self.journal else { return };
        let begun = game.duplicate().and_then(|socket| {
            let held = lifeline.hold(socket);
            let identity = identity(client, machine, key, session);
            let now = machine.record(key);
            let pieces: Vec<_> = now.iter().flat_map(|now| now.frames(now.base().1)).collect();
            let contents = Contents {
                identity: &identity,
                progress: now.as_ref().map(progress).unwrap_or_default(),
                base: now.as_ref().map_or(PacketId::FIRST, |now| now.base().0).0,
                frames: &pieces,
                partial: now.as_ref().map_or(&[][..], |now| now.partial),
            };
            let record = journal.borrow_mut().open_with(held.serial(), &contents).map_err(io::Error::other)?;
            let frames = now.map_or((0, 0), |now| (now.base().1, now.end()));
            Ok(LiveRecord { record, held: Some(held), frames })
        });
        match begun {
            Ok(record) => *session.record.borrow_mut() = Some(record),
            Err(error) => self.warn_of_record(session, &error),
        }
    }

    /// Records what a session has read of its game server, before links tell the client.
    pub(super) fn record(&self, machine: &RelayMachine, key: SessionKey) {
        self.change_record(machine, key, false);
    }

    /// Records that a session has ended: another process tells its client the rest, and has no game server.
    pub(super) fn record_end(&self, machine: &RelayMachine, key: SessionKey) {
        self.change_record(machine, key, true);
        let held = machine.session(key).and_then(|session| session.record.borrow_mut().as_mut()?.held.take());
        drop(held);
    }

    fn change_record(&self, machine: &RelayMachine, key: SessionKey, ended: bool) {
        let Some(RelayJournal { journal, .. }) = &self.journal else { return };
        let (Some(session), Some(now)) = (machine.session(key), machine.record(key)) else { return };
        let mut there = session.record.borrow_mut();
        let Some(LiveRecord { record, frames, .. }) = &mut *there else { return };
        let (base, start) = now.base();
        let mut progress = progress(&now);
        progress.stage |= if ended { ENDED } else { 0 };
        let mut journal = journal.borrow_mut();
        let mut change = journal.change(record);
        // Frames that were acknowledged since. Others that came and were acknowledged between two records were never in it.
        change.progress(&progress).acked(base.0, usize::try_from(start.min(frames.1) - frames.0).unwrap_or(usize::MAX));
        for piece in now.frames(start.max(frames.1)) {
            change.append(base.0, piece);
        }
        match change.partial(now.partial).commit() {
            Ok(()) => *frames = (start, now.end()),
            Err(error) => {
                drop(change);
                drop(journal);
                // A record that is behind is worse than none.
                let record = there.take();
                drop(there);
                self.warn_of_record(session, &error);
                self.close(record);
            }
        }
    }

    /// Takes note in the record of a session that a link of another address has joined it.
    pub(super) fn record_joined(&self, client: ClientId, machine: &RelayMachine, key: SessionKey) {
        let Some(RelayJournal { journal, .. }) = &self.journal else { return };
        let Some(session) = machine.session(key) else { return };
        if let Some(LiveRecord { record, .. }) = &mut *session.record.borrow_mut() {
            let identity = identity(client, machine, key, session);
            if let Err(error) = journal.borrow_mut().identify(record, &identity) {
                self.warn_of_record(session, &error);
            }
        }
    }

    /// Closes the record of a session that is over. It is called as tasks are dropped, perhaps by a panic.
    pub(super) fn close_record(&self, session: &RelaySession) {
        if let Ok(mut record) = session.record.try_borrow_mut() {
            self.close(record.take());
        }
    }

    fn close(&self, record: Option<LiveRecord>) {
        if let (Some(RelayJournal { journal, .. }), Some(LiveRecord { record, .. })) = (&self.journal, record)
            && let Ok(mut journal) = journal.try_borrow_mut()
        {
            journal.close(record);
        }
    }

    /// Reads the game server of a session through `read`, and returns what `take` makes of the bytes; `None` at the end of
    /// the stream. They are in memory that outlives this process, if the session has a record.
    pub(super) fn read_game<T>(
        &self,
        session: &RelaySession,
        read: impl FnOnce(&mut [u8]) -> Poll<io::Result<usize>>,
        take: impl FnOnce(&[u8]) -> T,
    ) -> Poll<io::Result<Option<T>>> {
        if let (Some(RelayJournal { journal, .. }), Some(LiveRecord { record, .. })) =
            (&self.journal, &*session.record.borrow())
        {
            let came = ready!(read(journal.borrow_mut().buffer_for(record)))?;
            return Poll::Ready(Ok((came > 0).then(|| take(journal.borrow().read(came)))));
        }
        let mut scratch = self.scratch.borrow_mut();
        let came = ready!(read(&mut scratch))?;
        Poll::Ready(Ok((came > 0).then(|| take(scratch.get(..came).unwrap_or_default()))))
    }

    fn warn_of_record(&self, session: &RelaySession, error: &dyn std::fmt::Display) {
        if let Some(suppressed) = self.shared.log.allow(Instant::now()) {
            let (player, session, suppressed) = (session.player, session.id, (suppressed > 0).then_some(suppressed));
            warn!(%player, %session, suppressed, "it would not outlive this process if that were killed: {error}");
        }
    }
}

/// Returns the words of a session's record.
fn identity(client: ClientId, machine: &RelayMachine, key: SessionKey, session: &RelaySession) -> Vec<u8> {
    let frozen = session.freeze(machine, key, None, Instant::now());
    let identity = Identity { format: FORMAT, client: client.0, id: session.id.0, session: frozen, at: monotonic() };
    // Serializing to a vector fails for nothing that is in it.
    postcard::to_allocvec(&identity).unwrap_or_default()
}

/// Returns the numbers of a session.
fn progress(now: &core::SessionRecord<'_>) -> Progress {
    Progress {
        received: now.received.0,
        written: now.written,
        read: now.read(),
        bytes_in: now.bytes_in,
        bytes_out: now.bytes_out,
        stage: u8::try_from(now.framing.index()).unwrap_or_default(),
    }
}

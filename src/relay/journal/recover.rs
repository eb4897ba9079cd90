//! The sessions of a process that was killed, brought to where the kernel says that they stand.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use otproxy_journal::{Place, Recovered, RecoveredRecord, StreamPosition, forget, recover};
use thiserror::Error;
use tracing::{error, warn};

use super::{ENDED, FORMAT, Identity};
use crate::handover::{Survivors, Tail};
use crate::relay::frozen::{FrozenRelayClient, FrozenState, monotonic};
use otproxy_protocol::core::{EndReason, FrozenClient, RecordedSession};
use otproxy_protocol::frame::{PacketId, SessionId};
use otproxy_protocol::game_packet::Framing;

/// The sessions of a process that was killed.
#[derive(Debug, Default)]
pub struct RecoveredSessions {
    pub(in crate::relay) state: FrozenState,
    pub(in crate::relay) sockets: Vec<OwnedFd>,
    /// Sessions that cannot go on.
    pub(in crate::relay) lost: usize,
}

/// The record of a session in the journal of a process that was killed.
#[derive(Debug, Clone)]
pub struct OldRecord {
    file: Arc<File>,
    place: Place,
}

impl OldRecord {
    /// Has it be there no more: the session is in the journal of this process, or over.
    pub fn forget(&self) {
        if let Err(error) = forget(&self.file, self.place) {
            warn!(%error, "a record of the process before cannot be closed");
        }
    }
}

/// The reason why a session cannot go on.
#[derive(Debug, Error)]
enum Lost {
    #[error("nobody has kept its connection to the game server")]
    Socket,
    #[error("the kernel cannot tell where its connection stands: {0}")]
    Kernel(#[from] std::io::Error),
    #[error("{written} bytes were written to the game server by its record, and {taken} by the kernel's count")]
    Written { written: u64, taken: u64 },
    #[error("{read} bytes were read of the game server by its record, and {gone} by the kernel's count")]
    Read { read: u64, gone: u64 },
}

/// A session with the words of its record.
struct Found {
    identity: Identity,
    serial: u64,
    record: RecoveredRecord,
    old: OldRecord,
}

impl RecoveredSessions {
    /// Returns the sessions that a process had which was killed, and the place where they are kept further on.
    pub fn of(survivors: Survivors) -> (Self, Option<Tail>) {
        let Survivors { files, mut sockets, tail } = survivors;
        let mut all = Self { state: FrozenState { at: monotonic(), ..FrozenState::default() }, ..Self::default() };
        // By client and session: of two records the one of the process that came later counts.
        let mut found: HashMap<(u32, u32), Found> = HashMap::new();
        for file in files.into_iter().map(Arc::new) {
            let records = recover(&file).unwrap_or_else(|error| {
                error!(%error, "sessions of a process that was killed are lost");
                Vec::new()
            });
            for Recovered { serial, record, place } in records {
                let old = OldRecord { file: Arc::clone(&file), place };
                let whole = record.map_err(|error| error.to_string()).and_then(|record| {
                    let identity: Identity =
                        postcard::from_bytes(&record.identity).map_err(|error| error.to_string())?;
                    if identity.format != FORMAT {
                        return Err(format!(
                            "its identity is of format {}, and this program reads {FORMAT}",
                            identity.format
                        ));
                    }
                    Ok(Found { identity, serial, record, old })
                });
                match whole {
                    Ok(whole) => {
                        let id = (whole.identity.client, whole.identity.id);
                        if found.get(&id).is_none_or(|other| other.serial < serial) {
                            found.insert(id, whole);
                        }
                    }
                    Err(error) => {
                        all.lost += 1;
                        warn!(error, "a session of the process before is over");
                    }
                }
            }
        }
        let mut clients: HashMap<u32, (Vec<RecordedSession>, FrozenRelayClient)> = HashMap::new();
        for ((id, _), Found { identity, serial, record, old }) in found {
            let none =
                || FrozenRelayClient { client: id, machine: Bytes::new(), sessions: Vec::new(), links: Vec::new() };
            let (sessions, client) = clients.entry(id).or_insert_with(|| (Vec::new(), none()));
            let Identity { id, mut session, at, .. } = identity;
            session.age += all.state.at.saturating_sub(at);
            session.old = Some(old);
            let had_ended = record.progress.stage & ENDED != 0;
            let (recorded, socket) = bring(SessionId(id), record, session.header.clone(), sockets.remove(&serial));
            all.lost += usize::from(socket.is_none() && !had_ended);
            session.connecting = false;
            session.game = socket.map(|socket| {
                all.sockets.push(socket);
                u32::try_from(all.sockets.len() - 1).unwrap_or(u32::MAX)
            });
            sessions.push(recorded);
            client.sessions.push(session);
        }
        all.state.clients = clients
            .into_values()
            .map(|(sessions, mut client)| {
                client.machine = FrozenClient::recorded(sessions).to_bytes().into();
                client
            })
            .collect();
        (all, tail)
    }
}

/// Brings a session to where the kernel says that its connection stands. One that has ended, or of which that cannot be proved, tells
/// its client what is left for it, and has no connection.
pub(super) fn bring(
    id: SessionId,
    record: RecoveredRecord,
    header: Bytes,
    socket: Option<OwnedFd>,
) -> (RecordedSession, Option<OwnedFd>) {
    let RecoveredRecord { progress, base, frames, mut partial, unread, .. } = record;
    let framing = Framing::ALL.get(usize::from(progress.stage & !ENDED)).copied().unwrap_or(Framing::Auto);
    let stands = if progress.stage & ENDED != 0 {
        None
    } else {
        let stands = socket.ok_or(Lost::Socket).and_then(|socket| {
            let StreamPosition { written: taken, read: gone } = StreamPosition::of(&socket)?;
            if taken < progress.written {
                return Err(Lost::Written { written: progress.written, taken });
            }
            // The process may have read what it did not come to record.
            let more = gone.checked_sub(progress.read).and_then(|more| usize::try_from(more).ok());
            let more = more.and_then(|more| unread.as_deref().unwrap_or_default().get(..more));
            partial.extend_from_slice(more.ok_or(Lost::Read { read: progress.read, gone })?);
            Ok((socket, taken))
        });
        stands.inspect_err(|error| warn!(session = %id, %error, "a session of the process before ends")).ok()
    };
    let (socket, taken) = stands.unzip();
    let recorded = RecordedSession {
        id,
        received: PacketId(progress.received),
        written: progress.written,
        taken: taken.unwrap_or(progress.written),
        bytes_in: progress.bytes_in,
        bytes_out: progress.bytes_out,
        framing,
        header,
        base: PacketId(base),
        frames: frames.into(),
        partial: partial.into(),
        connected: socket.is_some(),
        ended: if socket.is_some() { None } else { Some(EndReason::Restart) },
    };
    (recorded, socket)
}

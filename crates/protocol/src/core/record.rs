//! The record of a session that outlives a process which is killed, so that another one can go on.
//!
//! Of a client's packets nothing but a number is in it: a client keeps each until it is acknowledged, and
//! sends the others again. The core acknowledges those that the game server's socket has, and the kernel counts the bytes of that
//! socket. So the packets that come again say which of their bytes are written already. The bytes of a game server are in it until the client
//! acknowledges them, in the very frames that links may have told the client.

use bytes::Bytes;

use super::frozen::{
    FrozenClient, FrozenClosed, FrozenInbox, FrozenMachine, FrozenOutbox, FrozenReason, FrozenSession, FrozenSettled,
    FrozenUpstream,
};
use super::outbox::Outbox;
use super::reason::EndReason;
use crate::frame::{Frame, PacketId, SessionId};
use crate::game_packet::Framing;

/// The view of a session that is to be recorded. See [`ClientMachine::record`](super::ClientMachine::record).
#[derive(Debug, Clone, Copy)]
pub struct SessionRecord<'a> {
    /// The last packet of the client that frames acknowledge.
    pub received: PacketId,
    /// The bytes that were written to the game server up to the end of that packet.
    pub written: u64,
    /// Bytes of the packets up to that one.
    pub bytes_in: u64,
    /// Bytes of the packets to the client.
    pub bytes_out: u64,
    /// The unit in which the game server's packets are counted, once that is known.
    pub framing: Framing,
    /// The start of a game packet that is not whole yet.
    pub partial: &'a [u8],
    pub(super) outbox: &'a Outbox,
}

impl SessionRecord<'_> {
    /// Returns the bytes of the game server that are in it, as packets or as the start of one.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.bytes_out + self.partial.len() as u64
    }

    /// Returns the first packet that the client has not acknowledged, and its position in the stream of all frames to the
    /// client.
    #[must_use]
    pub fn base(&self) -> (PacketId, u64) {
        self.outbox.base()
    }

    /// Returns the position in the stream of all frames at which the next one will begin.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.outbox.end()
    }

    /// Returns the frames from a position on, in pieces.
    pub fn frames(&self, from: u64) -> impl Iterator<Item = &[u8]> {
        self.outbox.pieces(from)
    }
}

/// A session as its record has it, and what the kernel says of its connection to the game server.
#[derive(Debug, Clone)]
pub struct RecordedSession {
    /// Its id.
    pub id: SessionId,
    /// The last packet of the client that was acknowledged, or may have been.
    pub received: PacketId,
    /// The bytes that were written to the game server up to the end of that packet.
    pub written: u64,
    /// The bytes that were written to the game server in all.
    pub taken: u64,
    /// Bytes of the client's packets.
    pub bytes_in: u64,
    /// Bytes of the packets to the client.
    pub bytes_out: u64,
    /// The unit in which the game server's packets are counted.
    pub framing: Framing,
    /// The bytes that tell the game server the player's address, before all packets.
    pub header: Bytes,
    /// The first frame's packet.
    pub base: PacketId,
    /// The frames that the client has not acknowledged.
    pub frames: Bytes,
    /// The start of a game packet, and all that was read of the game server since.
    pub partial: Bytes,
    /// There is a connection to the game server.
    pub connected: bool,
    /// The reason of its end, if it has ended.
    pub ended: Option<EndReason>,
}

impl FrozenClient {
    /// Returns a client whose process was killed, with these sessions and no links. Once it is thawed,
    /// [`game_bytes`](super::ClientMachine::game_bytes) is to be called for each session, with no bytes.
    pub fn recorded(sessions: impl IntoIterator<Item = RecordedSession>) -> Self {
        let sessions: Vec<_> = (0..).zip(sessions).map(|(key, session)| session.freeze(key)).collect();
        Self { links: Vec::new(), born: sessions.len() as u64, sessions, recent: Vec::new() }
    }
}

impl RecordedSession {
    fn freeze(self, key: u32) -> FrozenSession {
        let Self { received, written, bytes_in, .. } = self;
        // Of the header, and of packets behind the last one that was acknowledged.
        let had = self.taken.saturating_sub(written);
        let header = if written == 0 && self.connected { self.header } else { Bytes::new() };
        let of_header = header.len().min(usize::try_from(had).unwrap_or(usize::MAX));
        FrozenSession {
            key,
            born: u64::from(key) + 1,
            listed: true,
            links: Vec::new(),
            lost: true,
            machine: FrozenMachine {
                id: self.id.0,
                // Links may have told the client all of them.
                unsent: self.base.0.saturating_add(count(&self.frames)),
                inbox: FrozenInbox { next: received.next().0, held: Vec::new() },
                outbox: FrozenOutbox {
                    base: self.base.0,
                    chunks: if self.frames.is_empty() { Vec::new() } else { vec![self.frames] },
                },
                deadline: None,
                ended: self.ended.map(FrozenReason),
                end_sent: false,
            },
            upstream: FrozenUpstream {
                bytes: header.slice(of_header..),
                position: written + of_header as u64,
                skip: had - of_header as u64,
                closed: false,
                spent: true,
                pacer: None,
            },
            settled: FrozenSettled { received: received.0, written, bytes_in },
            framing: self.framing,
            partial: self.partial,
            bytes_in,
            bytes_out: self.bytes_out,
            connected: self.connected,
            hurried: false,
            unheard: false,
            closed: FrozenClosed::No,
            rejoin_at: None,
            closes: 0,
            joins: None,
        }
    }
}

/// Returns the number of whole frames.
fn count(mut frames: &[u8]) -> u32 {
    let mut count = 0;
    while let Ok(Some((_, rest))) = Frame::split(frames) {
        (count, frames) = (count + 1, rest);
    }
    count
}

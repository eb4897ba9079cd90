//! The owner of client machines: the questions that it answers, and the effects that it carries out.

use std::time::{Duration, Instant};

use super::keys::{LinkKey, SessionKey};
use super::machine::{ProtocolError, SessionLimits};
use super::reason::OpenError;
use crate::frame::{FrameError, SessionId};
use crate::game_packet::Framing;

/// The owner of client machines, as they see it: it has the clock, the configuration, and the limits that all clients
/// share. It is asked in the middle of a decision and must answer from memory.
pub trait ClientOwner {
    /// The owner's part of a link, most often its connection.
    type Link;
    /// The owner's part of a session, most often its game connection and its place within limits. It is dropped once no
    /// link carries the session and [`ClientMachine::remove`](super::ClientMachine::remove) was called.
    type Session;
    /// The mark by which players differ: two links of one player have the same.
    type Player: PartialEq;

    /// Returns the time. A machine asks for it only if a decision depends on it, and never for a packet.
    fn now(&self) -> Instant;

    /// Returns the rules for opens.
    fn rules(&self) -> OpenRules;

    /// Returns the player of a link.
    fn player(&self, link: &Self::Link) -> Self::Player;

    /// Admits a new session to the game server on `port`, or refuses it: which ports there are and how many sessions
    /// may be open is the owner's to say.
    ///
    /// # Errors
    /// The reason of the refusal. The client is told that the session is over.
    fn admit(
        &self,
        link: &Self::Link,
        session: SessionId,
        port: u32,
    ) -> Result<AdmittedSession<Self::Session>, OpenError>;
}

/// Rules for opens, as the configuration has them at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenRules {
    /// Sessions that one link may carry: `sessions.max_per_link`.
    pub max_per_link: usize,
    /// True if only links of the player that opened a session may join it: `sessions.bind_sessions`.
    pub bind_to_player: bool,
}

/// A session that was let in.
#[derive(Debug)]
pub struct AdmittedSession<S> {
    /// The owner's part of it.
    pub session: S,
    /// Limits and times.
    pub limits: SessionLimits,
    /// The unit in which its game server counts the length of a packet.
    pub framing: Framing,
    /// Packets a second to the game server at the most; bursts beyond are smoothed.
    pub max_packets_per_second: Option<u32>,
}

/// A task of the owner, to be done at once and in the order in which they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Connect the session to its game server, and say [`ClientMachine::connected`](super::ClientMachine::connected) or
    /// [`ClientMachine::connect_failed`](super::ClientMachine::connect_failed).
    Connect(SessionKey),
    /// Call [`ClientMachine::write_game`](super::ClientMachine::write_game).
    WriteGame {
        /// The session.
        session: SessionKey,
        /// Packets of the client that have become the game server's since the last time, to be counted.
        packets: u32,
    },
    /// Call [`ClientMachine::write_link`](super::ClientMachine::write_link).
    WriteLink(LinkKey),
    /// The session ended for what its client sent: log it, and call
    /// [`ClientMachine::write_link`](super::ClientMachine::write_link) for each of
    /// [`ClientMachine::links_of`](super::ClientMachine::links_of), so that the client is told.
    Ended {
        /// The session.
        session: SessionKey,
        /// The breach of the protocol.
        error: ProtocolError,
    },
    /// Look again at what the session waits for: its deadline, its end, and whether its game server is to be read.
    Changed(SessionKey),
    /// The link on which this came joined a session from an address from which no link had joined it lately: count and
    /// log it.
    JoinedElsewhere(SessionKey),
    /// A request for this session was refused: count and log it.
    Refused {
        /// The session, as the client names it.
        session: SessionId,
        /// The reason.
        error: OpenError,
    },
    /// The client told the last round trip that it measured on the link.
    RoundTrip(Duration),
    /// Close the link: its peer does not speak the protocol.
    Close(FrameError),
}

/// The effects of frames from a link on counters.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct FrameCounts {
    /// Data frames whose packet had not come before.
    pub first: u32,
    /// Data frames whose packet had come before, on this link or another.
    pub duplicate: u32,
    /// Bytes that acknowledgements freed of what was kept for replay.
    pub freed: usize,
}

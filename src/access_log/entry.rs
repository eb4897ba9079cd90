//! An entry: the facts about a connection or session at its end.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use crate::connection::{AdmissionError, CloseReason};
use otproxy_net::ConnectResult;
use otproxy_protocol::core::EndReason;
use otproxy_protocol::frame::{ClientId, SessionId};

/// An entry of the access log, which becomes one line.
#[derive(Debug, Clone)]
pub struct AccessLogEntry {
    /// The time at which it ended.
    pub ended: SystemTime,
    /// The time that it had lasted by then.
    pub lasted: Duration,
    /// The listener that accepted it.
    pub listener: String,
    /// The player, or the peer if nothing else is known.
    pub player: SocketAddr,
    /// The edge that it came through, if known.
    pub edge: Option<String>,
    /// Bytes from the player.
    pub bytes_in: u64,
    /// Bytes to the player.
    pub bytes_out: u64,
    /// Connections that were open at that time.
    pub open: OpenCounts,
    /// The kind of thing that ended.
    pub what: Ended,
}

/// The counts of connections that were open when something ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenCounts {
    /// Connections of the process, including the one that ended.
    pub process: usize,
    /// Connections of the listener, including the one that ended.
    pub listener: usize,
    /// Other connections of the listener that were connected to their target.
    pub carried: usize,
}

impl OpenCounts {
    /// Returns the counts with one more connection, which has no target.
    pub fn and_one(self) -> Self {
        Self { process: self.process + 1, listener: self.listener + 1, ..self }
    }
}

/// The kind of thing that ended, and the reason.
#[derive(Debug, Clone)]
pub enum Ended {
    /// A connection that was refused.
    Rejected(AdmissionError),
    /// A connection of a forward.
    Forwarded(Forwarded),
    /// A link of the relay.
    Link(LinkEnd),
    /// A session of the relay.
    Session(SessionEnd),
}

/// The end of a forwarded connection.
#[derive(Debug, Clone)]
pub struct Forwarded {
    /// The target that it was forwarded to or last tried, as logs may call it.
    pub target: Option<String>,
    /// The time that the connect took; `None` if it never succeeded.
    pub connected: Option<Duration>,
    /// Targets that could not be reached before this one.
    pub retries: usize,
    /// The result of the last attempt to connect.
    pub connect: ConnectResult,
    /// The reason of the end.
    pub reason: CloseReason,
}

/// The end of a link.
#[derive(Debug, Clone)]
pub struct LinkEnd {
    /// The client that it belonged to.
    pub client: ClientId,
    /// The reason of the end.
    pub reason: CloseReason,
}

/// The end of a session.
#[derive(Debug, Clone)]
pub struct SessionEnd {
    /// The client that it belonged to.
    pub client: ClientId,
    /// The session's number.
    pub session: SessionId,
    /// The port that the client asked for.
    pub port: u16,
    /// The game server.
    pub target: String,
    /// Packets from the player.
    pub packets_in: u32,
    /// Packets to the player.
    pub packets_out: u32,
    /// The reason of the end.
    pub reason: EndReason,
}

impl AccessLogEntry {
    /// Makes the entry of something that began at `began` and ends now.
    pub fn new(listener: &str, player: SocketAddr, began: Instant, what: Ended) -> Self {
        Self {
            ended: SystemTime::now(),
            lasted: began.elapsed(),
            listener: listener.to_owned(),
            player,
            edge: None,
            bytes_in: 0,
            bytes_out: 0,
            open: OpenCounts::default(),
            what,
        }
    }

    /// Returns the time at which it began, reckoned back from its end.
    pub(super) fn began(&self) -> SystemTime {
        self.ended.checked_sub(self.lasted).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

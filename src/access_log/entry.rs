//! What is known of a connection or session at its end.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use crate::reason::{CloseReason, ConnectResult, EndReason, RejectReason};
use crate::wire::frame::{ClientId, SessionId};

/// What becomes one line.
#[derive(Debug, Clone)]
pub struct Entry {
    /// When it ended.
    pub ended: SystemTime,
    /// How long it had lasted by then.
    pub lasted: Duration,
    /// The listener that it came to.
    pub listener: String,
    /// The player, or whoever connected where that is all that is known.
    pub player: SocketAddr,
    /// The edge that it came through, where that is known.
    pub edge: Option<String>,
    /// Bytes from the player.
    pub bytes_in: u64,
    /// Bytes to the player.
    pub bytes_out: u64,
    /// Connections that were open then.
    pub open: Open,
    /// What it was.
    pub what: What,
}

/// How many connections were open when something ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Open {
    /// In the process, the one that ended included.
    pub process: usize,
    /// On the listener, likewise.
    pub listener: usize,
    /// Of those, others that had their target.
    pub carried: usize,
}

impl Open {
    /// With one more, which has no target.
    pub fn and_one(self) -> Self {
        Self { process: self.process + 1, listener: self.listener + 1, ..self }
    }
}

/// What ended, and why.
#[derive(Debug, Clone)]
pub enum What {
    /// A connection that was refused.
    Rejected(RejectReason),
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
    /// Where it led, or was last tried to lead, as logs may call it.
    pub target: Option<String>,
    /// How long the connect to it took; `None` where it was never connected.
    pub connected: Option<Duration>,
    /// Targets that could not be reached before it.
    pub retries: usize,
    /// How the last attempt to connect ended.
    pub connect: ConnectResult,
    /// Why it ended.
    pub reason: CloseReason,
}

/// The end of a link.
#[derive(Debug, Clone)]
pub struct LinkEnd {
    /// Whose it was.
    pub client: ClientId,
    /// Why it ended.
    pub reason: CloseReason,
}

/// The end of a session.
#[derive(Debug, Clone)]
pub struct SessionEnd {
    /// Whose it was.
    pub client: ClientId,
    /// Its number.
    pub session: SessionId,
    /// The port that the client asked for.
    pub port: u16,
    /// The game server.
    pub target: String,
    /// Packets from the player.
    pub packets_in: u32,
    /// Packets to the player.
    pub packets_out: u32,
    /// Why it ended.
    pub reason: EndReason,
}

impl Entry {
    /// What began at `began` and ends now.
    pub fn new(listener: &str, player: SocketAddr, began: Instant, what: What) -> Self {
        Self {
            ended: SystemTime::now(),
            lasted: began.elapsed(),
            listener: listener.to_owned(),
            player,
            edge: None,
            bytes_in: 0,
            bytes_out: 0,
            open: Open::default(),
            what,
        }
    }

    /// When it began, by the clock of now.
    pub(super) fn began(&self) -> SystemTime {
        self.ended.checked_sub(self.lasted).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

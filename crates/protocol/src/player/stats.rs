//! Snapshots of a player's counters.

use std::time::Duration;

use super::end::ClientEndReason;

/// One path of a player.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PathStats {
    /// A connection stands.
    pub connected: bool,
    /// Its first ping is answered: sessions can use it.
    pub ready: bool,
    /// Returns the last round trip measured on this connection.
    pub rtt: Option<Duration>,
    /// Connections made so far.
    pub connects: u64,
    /// Connections lost so far, and connects that failed.
    pub losses: u64,
    /// Packets that this path delivered first.
    pub first: u64,
    /// Packets that another path had delivered before.
    pub duplicates: u64,
    /// Packets ahead of their turn: see [`SessionStats::gaps`].
    pub gaps: u64,
    /// Bytes read from it.
    pub bytes_received: u64,
    /// Bytes written to it.
    pub bytes_sent: u64,
}

/// All paths of a player, in the order of its options.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlayerStats {
    /// The paths.
    pub paths: Vec<PathStats>,
    /// Sessions that are open.
    pub sessions: usize,
}

impl PlayerStats {
    /// Returns the number of paths that sessions can use.
    pub fn ready(&self) -> usize {
        self.paths.iter().filter(|path| path.ready).count()
    }
}

/// One session of a player.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionStats {
    /// Packets sent, each counted once however many links carried it.
    pub sent: u64,
    /// Packets sent that the core has not acknowledged.
    pub unacked: usize,
    /// Packets received, each counted once.
    pub received: u64,
    /// Packets received again.
    pub duplicates: u64,
    /// Packets that came ahead of their turn on a link. A violation by the core: known clients lose
    /// such a packet and deliver the one before it twice.
    pub gaps: u64,
    /// New packets whose leading u16 is not the count of bytes that follow it. A violation by the
    /// core: known clients cut such a packet short or read past it.
    pub miscut: u64,
    /// Acks for packets that were never sent. A violation by the core.
    pub bad_acks: u64,
    /// Links that it counts as joined, and that are ready.
    pub links: usize,
    /// Joins of a link so far, the first included.
    pub joins: u64,
    /// The reason for which it is over.
    pub ended: Option<ClientEndReason>,
}

//! The counts of the packets of one direction, over all players.

use crate::delivery::Delivery;

/// The counts of the packets of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Direction {
    /// Packets sent.
    pub sent: u64,
    /// Packets that arrived, each counted once.
    pub delivered: u64,
    /// Packets that did not arrive although later ones did; at the end all that did not arrive.
    pub lost: u64,
    /// Arrivals of a packet that had arrived before.
    pub duplicated: u64,
    /// Packets that arrived after a later one.
    pub reordered: u64,
    /// Arrivals of packets that nobody sent, and numbers that are not exact.
    pub alien: u64,
}

impl Direction {
    /// Returns the number of packets on their way.
    pub fn under_way(&self) -> u64 {
        self.sent.saturating_sub(self.delivered).saturating_sub(self.lost)
    }

    /// Adds one player's part.
    pub fn add(&mut self, sent: u64, proof: Delivery) {
        self.sent += sent;
        self.delivered += proof.delivered;
        self.lost += proof.lost;
        self.duplicated += proof.duplicated;
        self.reordered += proof.reordered;
        self.alien += proof.alien + u64::from(!proof.exact);
    }

    /// Returns whether everything arrived, once and in order.
    pub fn perfect(&self) -> bool {
        self.sent == self.delivered && (self.lost, self.duplicated, self.reordered, self.alien) == (0, 0, 0, 0)
    }
}

//! The way up: puts the packets of a session in order and drops what came before.

use std::collections::BTreeMap;

use bytes::Bytes;
use thiserror::Error;

use super::frozen::{FrozenError, FrozenInbox};
use crate::frame::PacketId;

/// The cost of a packet held ahead of its turn beside its bytes, for the limit: a tree entry and an allocation.
const HELD_OVERHEAD: usize = 64;

/// The outcome for a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It is next: deliver it, then the packets of [`Inbox::pop_held`].
    InOrder,
    /// It came before, on this link or another.
    Duplicate,
    /// It is ahead of its turn and kept.
    Held,
}

/// Keeping a packet ahead of its turn would exceed the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("more than {limit} bytes came ahead of packet {missing}, which is missing")]
pub struct ReorderFull {
    /// `sessions.reorder`, bytes.
    pub limit: usize,
    /// The packet that all others wait for.
    pub missing: PacketId,
}

/// Order and duplicates of the packets that a client sends.
#[derive(Debug)]
pub struct Inbox {
    next: PacketId,
    held: BTreeMap<PacketId, Box<[u8]>>,
    held_bytes: usize,
    limit: usize,
}

impl Inbox {
    /// Makes an inbox that keeps at most `limit` bytes ahead of their turn.
    pub fn new(limit: usize) -> Self {
        Self { next: PacketId::FIRST, held: BTreeMap::new(), held_bytes: 0, limit }
    }

    /// Takes in one packet.
    ///
    /// # Errors
    /// [`ReorderFull`] where it would have to be kept and there is no room; nothing changed then.
    pub fn accept(&mut self, packet: PacketId, payload: &[u8]) -> Result<Arrival, ReorderFull> {
        if packet == self.next {
            self.next = self.next.next();
            return Ok(Arrival::InOrder);
        }
        if packet < self.next || self.held.contains_key(&packet) {
            return Ok(Arrival::Duplicate);
        }
        let cost = payload.len() + HELD_OVERHEAD;
        if self.held_bytes + cost > self.limit {
            return Err(ReorderFull { limit: self.limit, missing: self.next });
        }
        self.held_bytes += cost;
        self.held.insert(packet, payload.into());
        Ok(Arrival::Held)
    }

    /// Returns the next packet, if it was kept ahead of its turn. To be called until `None` after each
    /// [`Arrival::InOrder`].
    pub fn pop_held(&mut self) -> Option<Box<[u8]>> {
        let payload = self.held.remove(&self.next)?;
        self.held_bytes -= payload.len() + HELD_OVERHEAD;
        self.next = self.next.next();
        Some(payload)
    }

    pub(super) fn freeze(&self) -> FrozenInbox {
        let held = self.held.iter().map(|(packet, payload)| (packet.0, Bytes::copy_from_slice(payload)));
        FrozenInbox { next: self.next.0, held: held.collect() }
    }

    pub(super) fn thaw(frozen: FrozenInbox, limit: usize) -> Result<Self, FrozenError> {
        let mut inbox = Self { next: PacketId(frozen.next), ..Self::new(limit) };
        for (packet, payload) in frozen.held {
            if packet <= frozen.next {
                return Err(FrozenError::Damaged);
            }
            inbox.held_bytes += payload.len() + HELD_OVERHEAD;
            inbox.held.insert(PacketId(packet), payload.as_ref().into());
        }
        Ok(inbox)
    }

    /// Returns the bytes that are kept ahead of their turn, with an overhead for each packet.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Returns the highest packet received in order, which is acknowledged to the client.
    pub fn received(&self) -> PacketId {
        self.next.previous()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_drops_duplicates() {
        let mut inbox = Inbox::new(1000);
        assert_eq!(inbox.received(), PacketId::NONE);
        assert_eq!(inbox.accept(PacketId(2), b"two"), Ok(Arrival::Held));
        assert_eq!(inbox.accept(PacketId(2), b"two"), Ok(Arrival::Duplicate));
        assert_eq!(inbox.pop_held(), None);
        assert_eq!(inbox.accept(PacketId(1), b"one"), Ok(Arrival::InOrder));
        assert_eq!(inbox.pop_held().as_deref(), Some(&b"two"[..]));
        assert_eq!(inbox.pop_held(), None);
        assert_eq!(inbox.accept(PacketId(1), b"one"), Ok(Arrival::Duplicate));
        assert_eq!((inbox.received(), inbox.held_bytes), (PacketId(2), 0));
    }

    #[test]
    fn the_reorder_limit_counts_bytes_and_entries() {
        let mut inbox = Inbox::new(2 * HELD_OVERHEAD + 10);
        assert_eq!(inbox.accept(PacketId(2), &[0; 10]), Ok(Arrival::Held));
        assert_eq!(inbox.accept(PacketId(3), &[0; 0]), Ok(Arrival::Held));
        let full = ReorderFull { limit: 2 * HELD_OVERHEAD + 10, missing: PacketId(1) };
        assert_eq!(inbox.accept(PacketId(4), &[0; 0]), Err(full));
        assert_eq!(inbox.accept(PacketId(1), &[0; 10]), Ok(Arrival::InOrder), "what is next needs no room");
    }
}

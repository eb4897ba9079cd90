//! The registry of open connections, for operators and limits.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Presence;
use crate::sharded::Sharded;

/// The open connections of the process, over all workers and listeners. It is locked when one begins and when it ends,
/// and is as large as their number.
#[derive(Debug, Default)]
pub struct Roster {
    next: AtomicU64,
    open: Sharded<HashMap<u64, Arc<Presence>>>,
}

impl Roster {
    /// Registers a connection, until the registration is dropped.
    pub fn enter(self: &Arc<Self>, listener: &Arc<str>, peer: SocketAddr) -> Present {
        // From 1 on: a number to type should not be 0.
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let presence = Arc::new(Presence::new(id, Arc::clone(listener), peer));
        self.open.lock(id).insert(id, Arc::clone(&presence));
        Present { presence, roster: Arc::clone(self) }
    }

    /// Returns the connection of this number.
    pub fn get(&self, id: u64) -> Option<Arc<Presence>> {
        self.open.lock(id).get(&id).cloned()
    }

    /// Returns the open connections that `wanted` picks, in no order.
    pub fn select(&self, mut wanted: impl FnMut(&Presence) -> bool) -> Vec<Arc<Presence>> {
        let mut selected = Vec::new();
        for shard in self.open.iter() {
            selected.extend(shard.values().filter(|presence| wanted(presence)).cloned());
        }
        selected
    }
}

/// The registration of a connection, which lasts while it lives.
#[derive(Debug)]
pub struct Present {
    presence: Arc<Presence>,
    roster: Arc<Roster>,
}

impl Present {
    /// Returns the connection's handle.
    pub fn presence(&self) -> &Arc<Presence> {
        &self.presence
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let gone = self.roster.open.lock(self.presence.id()).remove(&self.presence.id());
        // Freed after the lock is released.
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_on_it_while_it_lives() {
        let (roster, listener) = (Arc::new(Roster::default()), Arc::from("login"));
        let peer = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let all: Vec<_> = (1..=100).map(|port| roster.enter(&listener, peer(port))).collect();
        assert_eq!(roster.select(|_| true).len(), 100);
        let one = roster.select(|presence| presence.peer() == peer(50));
        assert_eq!(one.len(), 1);
        let id = one[0].id();
        assert!(roster.get(id).is_some_and(|found| Arc::ptr_eq(&found, &one[0])));
        drop(all);
        assert!(roster.get(id).is_none() && roster.select(|_| true).is_empty());
        let again = roster.enter(&listener, peer(1));
        assert_eq!(again.presence().id(), 101, "a number is used once");
    }
}

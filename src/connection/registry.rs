//! The registry of open connections, for operators and limits.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ConnectionHandle;
use crate::sharded::Sharded;

/// The open connections of the process, over all workers and listeners. It is locked when one begins and when it ends,
/// and is as large as their number.
#[derive(Debug, Default)]
pub struct ConnectionRegistry {
    next: AtomicU64,
    open: Sharded<HashMap<u64, Arc<ConnectionHandle>>>,
}

impl ConnectionRegistry {
    /// Registers a connection, until the registration is dropped.
    pub fn enter(self: &Arc<Self>, listener: &Arc<str>, peer: SocketAddr) -> Registration {
        // From 1 on: a number to type should not be 0.
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let handle = Arc::new(ConnectionHandle::new(id, Arc::clone(listener), peer));
        self.open.lock(id).insert(id, Arc::clone(&handle));
        Registration { handle, registry: Arc::clone(self) }
    }

    /// Returns the connection of this number.
    pub fn get(&self, id: u64) -> Option<Arc<ConnectionHandle>> {
        self.open.lock(id).get(&id).cloned()
    }

    /// Returns the open connections that `wanted` picks, in no order.
    pub fn select(&self, mut wanted: impl FnMut(&ConnectionHandle) -> bool) -> Vec<Arc<ConnectionHandle>> {
        let mut selected = Vec::new();
        for shard in self.open.iter() {
            selected.extend(shard.values().filter(|handle| wanted(handle)).cloned());
        }
        selected
    }
}

/// The registration of a connection, which lasts while it lives.
#[derive(Debug)]
pub struct Registration {
    handle: Arc<ConnectionHandle>,
    registry: Arc<ConnectionRegistry>,
}

impl Registration {
    /// Returns the connection's handle.
    pub fn handle(&self) -> &Arc<ConnectionHandle> {
        &self.handle
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let gone = self.registry.open.lock(self.handle.id()).remove(&self.handle.id());
        // Freed after the lock is released.
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_on_it_while_it_lives() {
        let (registry, listener) = (Arc::new(ConnectionRegistry::default()), Arc::from("login"));
        let peer = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let all: Vec<_> = (1..=100).map(|port| registry.enter(&listener, peer(port))).collect();
        assert_eq!(registry.select(|_| true).len(), 100);
        let one = registry.select(|handle| handle.peer() == peer(50));
        assert_eq!(one.len(), 1);
        let id = one[0].id();
        assert!(registry.get(id).is_some_and(|found| Arc::ptr_eq(&found, &one[0])));
        drop(all);
        assert!(registry.get(id).is_none() && registry.select(|_| true).is_empty());
        let again = registry.enter(&listener, peer(1));
        assert_eq!(again.handle().id(), 101, "a number is used once");
    }
}

//! The edges of the configuration, and what is known of each.

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::RwLock;

use otproxy_config::EdgePeer;

/// The edges of the configuration; an edge itself knows none. It is locked for a look by each new connection.
#[derive(Debug, Default)]
pub struct EdgeRegistry {
    edges: RwLock<Vec<KnownEdge>>,
}

/// An edge of the configuration.
#[derive(Debug)]
struct KnownEdge {
    name: Arc<str>,
    peer: EdgePeer,
}

impl EdgeRegistry {
    /// Knows exactly these edges from now on.
    pub fn set(&self, peers: &[EdgePeer]) {
        let known = |peer: &EdgePeer| KnownEdge { name: peer.name.as_str().into(), peer: peer.clone() };
        *self.edges.write() = peers.iter().map(known).collect();
    }

    /// Returns the name of the edge that connects from this address, as `edges[].address` says.
    pub fn at(&self, peer: IpAddr) -> Option<Arc<str>> {
        let peer = peer.to_canonical();
        let edges = self.edges.read();
        let at = |edge: &&KnownEdge| edge.peer.addresses.iter().any(|network| network.contains(&peer));
        edges.iter().find(at).map(|edge| Arc::clone(&edge.name))
    }
}

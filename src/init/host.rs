//! The hosts of a topology.

use otproxy_config::name::Name;
use otproxy_config::{CORE_NAME, RoleKind, Topology, TopologyEdge};

/// The prefix of an edge's folder.
pub(super) const EDGE_PREFIX: &str = "edge-";

/// A host that otproxy runs on.
pub(super) enum Host<'t> {
    Core,
    Edge(&'t TopologyEdge),
}

impl<'t> Host<'t> {
    /// Returns the core and the edges that are not revoked.
    pub fn all(topology: &'t Topology) -> Vec<Self> {
        let edges = topology.edges.iter().filter(|edge| !edge.revoked).map(Host::Edge);
        std::iter::once(Host::Core).chain(edges).collect()
    }

    pub fn role(&self) -> RoleKind {
        match self {
            Host::Core => RoleKind::Core,
            Host::Edge(_) => RoleKind::Edge,
        }
    }

    /// Returns the name in its certificate.
    pub fn name(&self) -> Name {
        match self {
            Host::Core => Name::core(),
            Host::Edge(edge) => edge.name.clone(),
        }
    }

    pub fn folder(&self) -> String {
        match self {
            Host::Core => CORE_NAME.to_owned(),
            Host::Edge(edge) => format!("{EDGE_PREFIX}{}", edge.name),
        }
    }

    /// Returns the address that files are copied to; `None` if the topology does not have it.
    pub fn address(&self, topology: &'t Topology) -> Option<&'t str> {
        match self {
            Host::Core => topology.core.address.as_deref(),
            Host::Edge(edge) => Some(&edge.address),
        }
    }
}

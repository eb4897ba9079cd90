//! The hosts of a topology.

use otproxy_config::name::Name;
use otproxy_config::{CORE_NAME, CoreMode, RoleKind, SshTarget, Topology, TopologyEdge};

/// The prefix of an edge's folder.
pub(super) const EDGE_PREFIX: &str = "edge-";
/// The user that installs a host's files.
pub(super) const ROOT: &str = "root";

/// A host that otproxy runs on.
#[derive(Debug, Clone, Copy)]
pub enum Host<'t> {
    /// The game server's host.
    Core,
    /// A host that players connect to.
    Edge(&'t TopologyEdge),
}

impl<'t> Host<'t> {
    /// Returns the core and the edges that are not revoked.
    #[must_use]
    pub fn all(topology: &'t Topology) -> Vec<Self> {
        let edges = topology.live().map(Host::Edge);
        std::iter::once(Host::Core).chain(edges).collect()
    }

    /// Returns the same in the order of setting them up: the side that connects comes last, and finds the others.
    #[must_use]
    pub fn in_order(topology: &'t Topology) -> Vec<Self> {
        let mut hosts = Self::all(topology);
        if topology.core.mode == CoreMode::Dial {
            hosts.rotate_left(1);
        }
        hosts
    }

    /// Returns its role.
    #[must_use]
    pub fn role(&self) -> RoleKind {
        match self {
            Host::Core => RoleKind::Core,
            Host::Edge(_) => RoleKind::Edge,
        }
    }

    /// Returns the name in its certificate.
    #[must_use]
    pub fn name(&self) -> Name {
        match self {
            Host::Core => Name::core(),
            Host::Edge(edge) => edge.name.clone(),
        }
    }

    /// Returns the name of its folder.
    #[must_use]
    pub fn folder(&self) -> String {
        match self {
            Host::Core => CORE_NAME.to_owned(),
            Host::Edge(edge) => format!("{EDGE_PREFIX}{}", edge.name),
        }
    }

    /// Returns the address that files are copied to; `None` if the topology does not have it.
    pub(super) fn address(&self, topology: &'t Topology) -> Option<&'t str> {
        match self {
            Host::Core => topology.core.address.as_deref(),
            Host::Edge(edge) => Some(&edge.address),
        }
    }

    /// Returns where ssh reaches it, as its `ssh` says; without that it is `user` at its address. `None` if the topology has neither.
    #[must_use]
    pub fn target(&self, topology: &Topology, user: Option<&str>) -> Option<SshTarget> {
        match self.ssh(topology) {
            // Without a user in it, that is for ssh's own configuration to say.
            Some(target) => Some(user.map_or_else(|| target.clone(), |user| target.clone().or_user(user))),
            None => self.address(topology).map(|host| SshTarget::of_host(host).or_user(user.unwrap_or(ROOT))),
        }
    }

    /// Returns the port of its ssh, if the topology has it.
    pub(super) fn ssh_port(&self, topology: &Topology) -> Option<u16> {
        self.ssh(topology).and_then(|target| target.port)
    }

    fn ssh<'a>(&'a self, topology: &'a Topology) -> Option<&'a SshTarget> {
        match self {
            Host::Core => topology.core.ssh.as_ref(),
            Host::Edge(edge) => edge.ssh.as_ref(),
        }
    }
}

//! The edges that an operator has thrown out while the service runs.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::admin::api::RevokedBy;
use otproxy_config::{Config, EdgePeer};

/// The edges that the operator has refused, whatever the file says: until that is undone, or until a restart. One that a
/// reload takes out of the file stays here, so that it is not back with a later reload.
#[derive(Debug, Default)]
pub(super) struct RevokedEdges(HashSet<String>);

/// The names of the edges, and who has them refused.
#[derive(Debug)]
pub(super) struct EdgeTrust {
    edges: Vec<(String, Option<RevokedBy>)>,
}

impl RevokedEdges {
    /// Refuses an edge, or goes by the file again.
    pub fn set(&mut self, edge: &str, revoked: bool) {
        if revoked {
            self.0.insert(edge.to_owned());
        } else {
            self.0.remove(edge);
        }
    }

    /// Returns the configuration in which these edges are refused.
    pub fn applied<'c>(&self, config: &'c Config) -> Cow<'c, Config> {
        match config {
            Config::Core(core) if !self.0.is_empty() => {
                let mut core = core.clone();
                core.revoke(|name| self.0.contains(name));
                Cow::Owned(Config::Core(core))
            }
            config => Cow::Borrowed(config),
        }
    }

    /// Returns who refuses which of these edges.
    pub fn trust(&self, edges: &[EdgePeer]) -> EdgeTrust {
        let by = |edge: &EdgePeer| {
            let operator = self.0.contains(&edge.name).then_some(RevokedBy::Operator);
            if edge.revoked { Some(RevokedBy::File) } else { operator }
        };
        EdgeTrust { edges: edges.iter().map(|edge| (edge.name.clone(), by(edge))).collect() }
    }
}

impl EdgeTrust {
    /// Returns all names, in the order of the file.
    pub fn names(&self) -> Vec<&str> {
        self.edges.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// Returns whether there is an edge of this name.
    pub fn knows(&self, edge: &str) -> bool {
        self.edges.iter().any(|(name, _)| name == edge)
    }

    /// Returns who has an edge refused.
    pub fn revoked_by(&self, edge: &str) -> Option<RevokedBy> {
        self.edges.iter().find(|(name, _)| name == edge).and_then(|(_, by)| *by)
    }
}

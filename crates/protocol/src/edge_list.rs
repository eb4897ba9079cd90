//! The list of edges that clients are told: what all ways of telling it have in common.

use std::sync::Arc;

mod json;
mod ranking;
mod web_object;

pub use ranking::SET_BACK;
pub use web_object::{MAX_WEB_OBJECT, WebObject, WebObjectError};

/// The edges that clients are to use now, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EdgeList(pub Vec<ListedEdge>);

/// An edge as clients are told of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ListedEdge {
    /// Its name, or its IPv4 address. Clients split `host:port` at the last colon, so it is no IPv6 address.
    pub host: String,
    /// The port of links, not 0.
    pub port: u16,
    /// Milliseconds that clients add to the round trip that they measure.
    pub priority: u16,
    /// The place that it shares with others which fail together.
    pub datacenter: Option<Arc<str>>,
}

impl EdgeList {
    /// Returns the edge that a client without links is told: the one of the least priority, the first of several.
    #[must_use]
    pub fn first(&self) -> Option<&ListedEdge> {
        self.0.iter().min_by_key(|edge| edge.priority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_the_one_that_clients_would_like_best() {
        let edge = |host: &str, priority| ListedEdge { host: host.to_owned(), port: 7162, priority, datacenter: None };
        let list = EdgeList(vec![edge("a", 20), edge("b", 0), edge("c", 0)]);
        assert_eq!(list.first().map(|edge| edge.host.as_str()), Some("b"));
        assert_eq!(EdgeList::default().first(), None);
    }
}

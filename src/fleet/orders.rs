//! The words of operators on edges, which hold over restarts.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::admin::api::{EdgeOrder, Time};

/// The word of an operator on one edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenOrder {
    /// The word: out or in.
    pub order: EdgeOrder,
    /// The time at which it was given.
    pub since: Time,
    /// Its last moment; `None` if it holds until another one.
    pub until: Option<Time>,
    /// The reason that was given.
    pub why: Option<String>,
}

/// The words on all edges, by name. A word on an edge that a reload took out of the file stays: a later one may bring it back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EdgeOrders(BTreeMap<String, GivenOrder>);

impl EdgeOrders {
    /// Takes a word on an edge in place of the one before; `auto` ends it.
    pub fn give(&mut self, edge: &str, given: GivenOrder) {
        if given.order == EdgeOrder::Auto {
            self.0.remove(edge);
        } else {
            self.0.insert(edge.to_owned(), given);
        }
    }

    /// Drops what holds no more at `now`; returns whether there was any.
    pub fn expire(&mut self, now: SystemTime) -> bool {
        let before = self.0.len();
        self.0.retain(|_, given| given.until.is_none_or(|until| until.0 > now) && given.order != EdgeOrder::Auto);
        self.0.len() < before
    }

    /// Returns the word on an edge.
    pub fn on(&self, edge: &str) -> Option<&GivenOrder> {
        self.0.get(edge)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(second: u64) -> Time {
        Time(SystemTime::UNIX_EPOCH + Duration::from_secs(second))
    }

    fn given(order: EdgeOrder, until: Option<u64>) -> GivenOrder {
        GivenOrder { order, since: at(100), until: until.map(at), why: Some("a trial".to_owned()) }
    }

    #[test]
    fn the_last_word_holds_until_its_time() {
        let mut orders = EdgeOrders::default();
        orders.give("waw1", given(EdgeOrder::Out, None));
        orders.give("waw1", given(EdgeOrder::In, Some(200)));
        orders.give("fra1", given(EdgeOrder::Out, None));
        assert_eq!(orders.on("waw1").map(|given| given.order), Some(EdgeOrder::In));
        assert!(!orders.expire(at(199).0) && orders.expire(at(200).0) && !orders.expire(at(201).0));
        assert_eq!(orders.on("waw1"), None);
        assert_eq!(orders.on("fra1").map(|given| given.order), Some(EdgeOrder::Out));
        orders.give("fra1", given(EdgeOrder::Auto, None));
        assert_eq!(orders, EdgeOrders::default());
    }

    #[test]
    fn what_is_kept_is_read_again() {
        let mut orders = EdgeOrders::default();
        orders.give("waw1", given(EdgeOrder::Out, Some(200)));
        let text = serde_json::to_string(&orders).unwrap();
        assert_eq!(
            text,
            r#"{"waw1":{"order":"out","since":"1970-01-01T00:01:40Z","until":"1970-01-01T00:03:20Z","why":"a trial"}}"#
        );
        assert_eq!(serde_json::from_str::<EdgeOrders>(&text).unwrap(), orders);
    }
}

//! The list as clients fetch it over HTTP: `{"proxies":[{"host":"p1.example:7162","priority":0}]}`.
//!
//! A list may have a member `web` beside it, for clients that run in a browser, and entries of theirs, as
//! `wss://p1.example/links`.

use serde_json::value::RawValue;
use serde_json::{Value, json};
use thiserror::Error;

use super::{EdgeList, ListedEdge};

/// The longest list that is read, in bytes.
pub const MAX_LIST: usize = 64 << 10;
/// The most edges in a list that is read. The module for players' clients takes as many.
pub const MAX_EDGES: usize = 32;
/// The longest name in DNS.
const MAX_HOST: usize = 253;

/// The reason for which a list is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ListError {
    /// It has more bytes than [`MAX_LIST`].
    #[error("the list is longer than {MAX_LIST} bytes")]
    TooLong,
    /// It is something else, as an error page.
    #[error("the list is no JSON")]
    NotJson,
    /// There is no array `proxies` at its top.
    #[error("the list has no array `proxies`")]
    NoProxies,
    /// It has more edges than [`MAX_EDGES`].
    #[error("the list has more than {MAX_EDGES} edges")]
    TooMany,
    /// An entry has no host that a client can take; the first entry is 1.
    #[error("`host` of entry {0} is not as `p1.example:7162`")]
    Host(usize),
    /// An entry has a priority that a client cannot take; the first entry is 1.
    #[error("`priority` of entry {0} is not a number from 0 to 65535")]
    Priority(usize),
}

impl EdgeList {
    /// Returns the list as JSON, with `web` as it is beside it.
    #[must_use]
    pub fn to_json(&self, web: Option<&RawValue>) -> String {
        let entry =
            |edge: &ListedEdge| json!({ "host": format!("{}:{}", edge.host, edge.port), "priority": edge.priority });
        let proxies: Value = self.0.iter().map(entry).collect();
        let web = web.map(|web| format!(r#","web":{web}"#)).unwrap_or_default();
        format!(r#"{{"proxies":{proxies}{web}}}"#)
    }

    /// Reads a list, without the entries for clients in a browser.
    ///
    /// # Errors
    /// Fails if it is none, is beyond a limit, or has an entry that clients cannot take.
    pub fn from_json(json: &[u8]) -> Result<Self, ListError> {
        if json.len() > MAX_LIST {
            return Err(ListError::TooLong);
        }
        let list: Value = serde_json::from_slice(json).map_err(|_| ListError::NotJson)?;
        let proxies = list.get("proxies").and_then(Value::as_array).ok_or(ListError::NoProxies)?;
        if proxies.len() > MAX_EDGES {
            return Err(ListError::TooMany);
        }
        let edges = proxies.iter().zip(1..).filter_map(|(entry, number)| edge(entry, number).transpose());
        Ok(Self(edges.collect::<Result<_, _>>()?))
    }
}

/// Reads an entry; `None` if it is for clients in a browser.
fn edge(entry: &Value, number: usize) -> Result<Option<ListedEdge>, ListError> {
    let host = entry.get("host").and_then(Value::as_str).ok_or(ListError::Host(number))?;
    if host.starts_with("wss://") || host.starts_with("ws://") {
        return Ok(None);
    }
    let (host, port) = host.rsplit_once(':').ok_or(ListError::Host(number))?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let is_host = (1..=MAX_HOST).contains(&host.len()) && host.bytes().all(is_name);
    let port = port.parse().ok().filter(|port| is_host && *port != 0).ok_or(ListError::Host(number))?;
    let priority = entry.get("priority").map_or(Some(0), Value::as_u64);
    let priority = priority.and_then(|priority| priority.try_into().ok()).ok_or(ListError::Priority(number))?;
    Ok(Some(ListedEdge { host: host.to_owned(), port, priority }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(edges: &[(&str, u16, u16)]) -> EdgeList {
        let edge = |&(host, port, priority): &(&str, u16, u16)| ListedEdge { host: host.to_owned(), port, priority };
        EdgeList(edges.iter().map(edge).collect())
    }

    #[test]
    fn a_list_is_written_byte_for_byte() {
        let one = list(&[("p1.example", 7162, 0)]);
        assert_eq!(one.to_json(None), r#"{"proxies":[{"host":"p1.example:7162","priority":0}]}"#);
        assert_eq!(EdgeList::default().to_json(None), r#"{"proxies":[]}"#);
        let web: Box<RawValue> =
            serde_json::from_str(r#"{"name": "Example", "clientVersion":1.10, "a":"\u0061"}"#).unwrap();
        assert_eq!(
            list(&[("p1.example", 443, 0), ("198.51.100.7", 7162, 50)]).to_json(Some(&web)),
            r#"{"proxies":[{"host":"p1.example:443","priority":0},{"host":"198.51.100.7:7162","priority":50}],"web":{"name": "Example", "clientVersion":1.10, "a":"\u0061"}}"#
        );
    }

    #[test]
    fn entries_for_browsers_are_left_out() {
        let json =
            r#"{"proxies":[{"host":"wss://p1.example/links","priority":0},{"host":"p1.example:7162"}],"web":{}}"#;
        assert_eq!(EdgeList::from_json(json.as_bytes()), Ok(list(&[("p1.example", 7162, 0)])));
        assert_eq!(EdgeList::from_json(br#"{"proxies":[]}"#), Ok(EdgeList::default()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let entries = |entries: &str| format!(r#"{{"proxies":[{entries}]}}"#);
        let host = |host: &str| entries(&format!(r#"{{"host":"p1.example:1"}},{{"host":"{host}"}}"#));
        let longest = "a".repeat(MAX_HOST);
        assert!(EdgeList::from_json(host(&format!("{longest}:65535")).as_bytes()).is_ok());
        let many = |count| entries(&vec![r#"{"host":"p1.example:1"}"#; count].join(","));
        assert!(EdgeList::from_json(many(MAX_EDGES).as_bytes()).is_ok());
        for (json, error) in [
            (" ".repeat(MAX_LIST + 1), ListError::TooLong),
            ("<html>".to_owned(), ListError::NotJson),
            ("[".repeat(MAX_LIST), ListError::NotJson),
            ("[]".to_owned(), ListError::NoProxies),
            (r#"{"proxies":{}}"#.to_owned(), ListError::NoProxies),
            (many(MAX_EDGES + 1), ListError::TooMany),
            (entries("7162"), ListError::Host(1)),
            (entries(r#"{"host":7162}"#), ListError::Host(1)),
            (host("p1.example"), ListError::Host(2)),
            (host("p1.example:0"), ListError::Host(2)),
            (host("p1.example:65536"), ListError::Host(2)),
            (host("[2001:db8::7]:7162"), ListError::Host(2)),
            (host(":7162"), ListError::Host(2)),
            (host(r"p1\n:7162"), ListError::Host(2)),
            (host(&format!("{longest}a:1")), ListError::Host(2)),
            (entries(r#"{"host":"p1.example:1","priority":65536}"#), ListError::Priority(1)),
            (entries(r#"{"host":"p1.example:1","priority":-1}"#), ListError::Priority(1)),
            (entries(r#"{"host":"p1.example:1","priority":"0"}"#), ListError::Priority(1)),
        ] {
            assert_eq!(EdgeList::from_json(json.as_bytes()), Err(error), "{:.60}", json);
        }
    }

    proptest! {
        #[test]
        fn a_list_is_read_back(edges in prop::collection::vec(("[a-z0-9.-]{1,40}", 1u16.., 0u16..), 0..=MAX_EDGES)) {
            let list = EdgeList(edges.into_iter().map(|(host, port, priority)| ListedEdge { host, port, priority }).collect());
            prop_assert_eq!(EdgeList::from_json(list.to_json(None).as_bytes()), Ok(list));
        }

        #[test]
        fn nothing_panics(json in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = EdgeList::from_json(&json);
        }
    }
}

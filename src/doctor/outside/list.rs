//! The list of edges that clients fetch: `{"proxies":[{"host":"p1.example:7162","priority":0}]}`.

use std::net::IpAddr;

use serde_json::Value;
use thiserror::Error;

use super::ListedEdge;
use otproxy_config::{HostPort, MAX_CLIENT_EDGES};

/// Bytes of a file with a list.
pub const MAX_LIST: usize = 64 << 10;
/// Characters of a name.
const MAX_NAME: usize = 253;
/// Characters of an entry that are shown.
const SHOWN: usize = 60;

/// The edges of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EdgeList {
    /// The ones that clients take.
    pub edges: Vec<ListedEdge>,
    /// Entries that clients leave out.
    pub left_out: Vec<String>,
}

/// The reason why clients take nothing of a list.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ListError {
    /// It is no JSON.
    #[error("is no JSON: {0}; see docs/clients.md for its form")]
    Json(String),
    /// It has other keys.
    #[error("has no list `proxies`; write it as {{\"proxies\":[{{\"host\":\"p1.example:7162\",\"priority\":0}}]}}")]
    NoProxies,
    /// It has too many entries.
    #[error("has {0} edges, and clients take no list with more than {MAX_CLIENT_EDGES}; leave some out")]
    TooMany(usize),
    /// No entry can be used.
    #[error("has no edge that clients can use; write each as {{\"host\":\"p1.example:7162\",\"priority\":0}}")]
    Empty,
}

/// Reads a list as clients do.
///
/// # Errors
/// Returns the reason why clients would take nothing of it.
pub fn read_list(text: &[u8]) -> Result<EdgeList, ListError> {
    let list: Value = serde_json::from_slice(text).map_err(|error| ListError::Json(error.to_string()))?;
    let entries = list.get("proxies").and_then(Value::as_array).ok_or(ListError::NoProxies)?;
    if entries.len() > MAX_CLIENT_EDGES {
        return Err(ListError::TooMany(entries.len()));
    }
    let mut read = EdgeList::default();
    for entry in entries {
        match edge_of(entry) {
            Some(edge) if read.edges.iter().all(|other| other.at != edge.at) => read.edges.push(edge),
            _ if is_of_web_clients(entry) => {}
            _ => read.left_out.push(shown(entry)),
        }
    }
    if read.edges.is_empty() { Err(ListError::Empty) } else { Ok(read) }
}

fn edge_of(entry: &Value) -> Option<ListedEdge> {
    let (host, port) = entry.get("host")?.as_str()?.rsplit_once(':')?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if host.is_empty() || host.len() > MAX_NAME || !host.chars().all(fits) || !port.bytes().all(|b| b.is_ascii_digit())
    {
        return None;
    }
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let priority = match entry.get("priority") {
        None => 0.0,
        Some(priority) => priority.as_f64().or_else(|| priority.as_str()?.parse().ok())?,
    };
    let priority = (0.0..=f64::from(u16::MAX)).contains(&priority).then_some(priority as u32)?;
    Some(ListedEdge { at: HostPort { host: host.to_ascii_lowercase(), port }, priority })
}

/// Returns whether it is for clients in a browser, which others leave out in silence.
fn is_of_web_clients(entry: &Value) -> bool {
    let host = entry.get("host").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
    host.starts_with("wss://") || host.starts_with("ws://")
}

fn shown(entry: &Value) -> String {
    let text = entry.get("host").and_then(Value::as_str).map_or_else(|| entry.to_string(), str::to_owned);
    text.chars().take(SHOWN).collect()
}

impl EdgeList {
    /// Makes the list of these edges; each stands in it once.
    #[must_use]
    pub fn of(edges: impl IntoIterator<Item = HostPort>) -> Self {
        let mut list = Self::default();
        for at in edges {
            let name = if at.host.parse::<IpAddr>().is_ok() { at.host } else { at.host.to_ascii_lowercase() };
            let edge = ListedEdge { at: HostPort { host: name, port: at.port }, priority: 0 };
            if !list.edges.contains(&edge) {
                list.edges.push(edge);
            }
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<String>, ListError> {
        let list = read_list(text.as_bytes())?;
        Ok(list.edges.iter().map(|edge| format!("{}/{}", edge.at, edge.priority)).collect())
    }

    #[test]
    fn a_list_is_read_as_clients_read_it() {
        let list = read_list(
            br#"{"proxies":[{"host":"P1.example:7162","priority":0},{"host":"p1.example:7162","priority":9},{"host":"198.51.100.7:7000"},
                {"host":"wss://p1.example/links","priority":0},{"host":"[2001:db8::7]:7162"},{"host":"p2.example"},{"host":"p2.example:0"},
                {"host":"p2.example:+1"},{"host":"a b:1"},{"host":"p2.example:1","priority":-1},{"host":"p2.example:1","priority":70000},
                {"host":"p2.example:1","priority":"30"},{"host":"p3.example:1","priority":10.5},7,{"host":7}],"web":{}}"#,
        )
        .unwrap();
        let edges: Vec<_> = list.edges.iter().map(|edge| format!("{}/{}", edge.at, edge.priority)).collect();
        assert_eq!(edges, ["p1.example:7162/0", "198.51.100.7:7000/0", "p2.example:1/30", "p3.example:1/10"]);
        assert_eq!(list.left_out.len(), 10, "{:?}", list.left_out);
        assert_eq!((list.left_out[0].as_str(), list.left_out[9].as_str()), ("p1.example:7162", "{\"host\":7}"));
    }

    #[test]
    fn what_a_core_writes_is_read() {
        use otproxy_protocol::edge_list;
        let edge = |host: &str, port, priority| edge_list::ListedEdge {
            host: host.to_owned(),
            port,
            priority,
            datacenter: None,
        };
        let list = edge_list::EdgeList(vec![edge("p1.example", 7162, 0), edge("198.51.100.7", 443, 65535)]);
        let expected = ["p1.example:7162/0", "198.51.100.7:443/65535"].map(str::to_owned);
        assert_eq!(read(&list.to_json(None)), Ok(expected.to_vec()));
    }

    #[test]
    fn what_is_no_list_says_so() {
        assert!(matches!(read("<html>"), Err(ListError::Json(_))));
        for text in ["{}", "[]", "{\"proxies\":{}}", "{\"proxies\":\"p1.example:7162\"}"] {
            assert_eq!(read(text), Err(ListError::NoProxies), "{text}");
        }
        for text in ["{\"proxies\":[]}", "{\"proxies\":[{\"host\":\"wss://a/\"}]}"] {
            assert_eq!(read(text), Err(ListError::Empty), "{text}");
        }
        let many = |count: usize| {
            let entries: Vec<_> = (0..count).map(|n| format!("{{\"host\":\"p{n}.example:7162\"}}")).collect();
            read(&format!("{{\"proxies\":[{}]}}", entries.join(",")))
        };
        assert_eq!(many(MAX_CLIENT_EDGES).map(|edges| edges.len()), Ok(MAX_CLIENT_EDGES));
        assert_eq!(many(MAX_CLIENT_EDGES + 1), Err(ListError::TooMany(MAX_CLIENT_EDGES + 1)));
    }

    #[test]
    fn named_edges_stand_in_it_once() {
        let at = |host: &str| HostPort { host: host.to_owned(), port: 7162 };
        let list = EdgeList::of([at("p1.example"), at("P1.example"), at("2001:db8::7")]);
        assert_eq!(list.edges.len(), 2);
        assert!(list.left_out.is_empty());
    }
}

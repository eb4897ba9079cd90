//! The list as clients fetch it over HTTP: `{"proxies":[{"host":"p1.example:7162","priority":0}]}`.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{EdgeList, ListedEdge};

impl EdgeList {
    /// Returns the list as JSON. `web` is what clients in a browser need beside it; it stands there as it is.
    #[must_use]
    pub fn to_json(&self, web: Option<&RawValue>) -> String {
        let entry =
            |edge: &ListedEdge| json!({ "host": format!("{}:{}", edge.host, edge.port), "priority": edge.priority });
        let proxies: Value = self.0.iter().map(entry).collect();
        let web = web.map(|web| format!(r#","web":{web}"#)).unwrap_or_default();
        format!(r#"{{"proxies":{proxies}{web}}}"#)
    }
}

#[cfg(test)]
mod tests {
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
}

//! The list as clients fetch it over HTTP: `{"proxies":[{"host":"p1.example:7162","priority":0}]}`.

use std::collections::HashMap;
use std::sync::Arc;

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

    /// Reads what [`EdgeList::to_json`] has written, and the object beside it. `datacenters` are those of the edges, as
    /// [`EdgeList::datacenters`] has them. `None` if the one or the other is something else, or has more in it.
    #[must_use]
    pub fn from_json<'a>(text: &'a [u8], datacenters: &str) -> Option<(Self, Option<&'a RawValue>)> {
        let written: HashMap<&str, &RawValue> = serde_json::from_slice(text).ok()?;
        if written.len() > 1 + usize::from(written.contains_key("web")) {
            return None;
        }
        let proxies: Vec<HashMap<&str, Value>> = serde_json::from_str(written.get("proxies")?.get()).ok()?;
        let mut datacenters = datacenters.split(',').map(str::trim);
        let mut edges = Vec::with_capacity(proxies.len());
        for edge in proxies {
            if edge.len() > 2 {
                return None;
            }
            let (host, port) = edge.get("host")?.as_str()?.rsplit_once(':')?;
            let priority = u16::try_from(edge.get("priority")?.as_u64()?).ok()?;
            let datacenter = Some(datacenters.next()?).filter(|name| !name.is_empty()).map(Into::into);
            edges.push(ListedEdge { host: host.to_owned(), port: port.parse().ok()?, priority, datacenter });
        }
        datacenters.next().is_none().then(|| (Self(edges), written.get("web").copied()))
    }

    /// Returns the datacenters of its edges, with a comma between two: as numbers, and an edge without one has an empty word.
    #[must_use]
    pub fn datacenters(&self) -> String {
        let mut known = Vec::new();
        let number = |edge: &ListedEdge| {
            let Some(datacenter) = &edge.datacenter else { return String::new() };
            let number = known.iter().position(|name| name == datacenter).unwrap_or_else(|| {
                known.push(Arc::clone(datacenter));
                known.len() - 1
            });
            number.to_string()
        };
        self.0.iter().map(number).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(edges: &[(&str, u16, u16, Option<&str>)]) -> EdgeList {
        let edge = |&(host, port, priority, datacenter): &(&str, u16, u16, Option<&str>)| ListedEdge {
            host: host.to_owned(),
            port,
            priority,
            datacenter: datacenter.map(Into::into),
        };
        EdgeList(edges.iter().map(edge).collect())
    }

    #[test]
    fn a_list_is_written_byte_for_byte() {
        let one = list(&[("p1.example", 7162, 0, None)]);
        assert_eq!(one.to_json(None), r#"{"proxies":[{"host":"p1.example:7162","priority":0}]}"#);
        assert_eq!(EdgeList::default().to_json(None), r#"{"proxies":[]}"#);
        let web: Box<RawValue> =
            serde_json::from_str(r#"{"name": "Example", "clientVersion":1.10, "a":"\u0061"}"#).unwrap();
        assert_eq!(
            list(&[("p1.example", 443, 0, Some("waw")), ("198.51.100.7", 7162, 50, None)]).to_json(Some(&web)),
            r#"{"proxies":[{"host":"p1.example:443","priority":0},{"host":"198.51.100.7:7162","priority":50}],"web":{"name": "Example", "clientVersion":1.10, "a":"\u0061"}}"#
        );
    }

    #[test]
    fn what_was_written_is_read_again_and_nothing_else() {
        let all = list(&[("p1.example", 443, 0, Some("0")), ("198.51.100.7", 7162, 50, None), ("p3", 1, 2, Some("0"))]);
        assert_eq!(all.datacenters(), "0,,0");
        let named = list(&[("a", 1, 0, Some("waw")), ("b", 1, 0, Some("fra")), ("c", 1, 0, Some("waw"))]);
        assert_eq!(named.datacenters(), "0,1,0");
        let web: Box<RawValue> = serde_json::from_str(r#"{"a": 1.10}"#).unwrap();
        for web in [None, Some(&*web)] {
            let text = all.to_json(web);
            let (read, beside) = EdgeList::from_json(text.as_bytes(), &all.datacenters()).unwrap();
            assert_eq!((read, beside.map(RawValue::get)), (all.clone(), web.map(RawValue::get)));
            for wrong in ["", "0", "0,", "0,,0,", "0,,0,x"] {
                assert!(EdgeList::from_json(text.as_bytes(), wrong).is_none(), "{wrong}");
            }
        }
        for wrong in [
            "",
            "{}",
            "[]",
            r#"{"proxies":[{"host":"p1","priority":0}]}"#,
            r#"{"proxies":[{"host":"p1:x","priority":0}]}"#,
            r#"{"proxies":[{"host":"p1:1","priority":0,"more":1}]}"#,
            r#"{"proxies":[{"host":"p1:1","priority":0}],"more":1}"#,
        ] {
            assert!(EdgeList::from_json(wrong.as_bytes(), "").is_none(), "{wrong}");
        }
    }
}

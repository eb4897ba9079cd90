//! The answer of a login service, with edges put into it.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::text::{Edits, elements, members};
use crate::edge_list::{EdgeList, ListedEdge};

/// The longest answer that is changed, in bytes. One of a hundred characters is a fifth of that.
pub const MAX_ANSWER: usize = 256 << 10;
/// The most bytes by which a change makes an answer longer.
pub const MAX_GROWTH: usize = 64 << 10;

/// The address at which a client with links finds the worlds: it goes over its links to reach it.
const OVER_LINKS: &str = "127.0.0.1";
/// The keys of a world's address. Clients differ in which of them they read.
const ADDRESSES: [&str; 3] = ["externaladdress", "externaladdressprotected", "externaladdressunprotected"];
/// The key of the list of edges.
const LIST: &str = "proxies";

/// The address of all worlds that a client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorldAddress<'a> {
    /// The one that leads over the client's links.
    Links,
    /// An edge's name or IPv4 address, at which a client without links can connect to the worlds' ports.
    Edge(&'a str),
}

crate::words! {
    /// The reason for which an answer passes unchanged.
    pub enum Unchanged {
        /// It is not JSON, as an error page is not.
        NotJson = "not_json",
        /// It tells the client an error.
        Error = "error",
        /// It answers something else than a login.
        NoLogin = "no_login",
        /// It has a list of edges already.
        Listed = "listed",
        /// It has no world with an address.
        NoWorlds = "no_worlds",
        /// There is no edge to be told of.
        NoEdges = "no_edges",
        /// It is longer than [`MAX_ANSWER`], or would grow by more than [`MAX_GROWTH`].
        TooLong = "too_long",
    }
}

/// Returns the answer of a login service with the edges in it, and with `address` as the address of all worlds. Every other
/// byte stays; ports are the worlds' own.
///
/// The list stands where OTCv8 and OTAcademy look for it: as `playdata.proxies` in an answer with `session` and `playdata`.
/// It is at the top as well, where they look in answers of other forms.
///
/// # Errors
/// Fails with the reason for which the answer is to pass as it is.
pub fn rewrite(body: &[u8], edges: &EdgeList, address: WorldAddress<'_>) -> Result<Vec<u8>, Unchanged> {
    if edges.0.is_empty() {
        return Err(Unchanged::NoEdges);
    }
    if body.len() > MAX_ANSWER {
        return Err(Unchanged::TooLong);
    }
    let text = std::str::from_utf8(body).map_err(|_| Unchanged::NotJson)?;
    let answer: &RawValue = serde_json::from_str(text).map_err(|_| Unchanged::NotJson)?;
    let top = members(answer.get()).ok_or(Unchanged::NoLogin)?;
    if ["errorCode", "errorMessage", "error"].iter().any(|key| top.get(*key).is_some_and(|value| tells(value))) {
        return Err(Unchanged::Error);
    }
    let object = |key: &str| top.get(key).and_then(|value| Some((value.get(), members(value.get())?)));
    let (Some(_), Some((playdata, parts))) = (object("session"), object("playdata")) else {
        return Err(Unchanged::NoLogin);
    };
    if top.contains_key(LIST) || parts.contains_key(LIST) {
        return Err(Unchanged::Listed);
    }
    let worlds = parts.get("worlds").and_then(|worlds| elements(worlds.get())).ok_or(Unchanged::NoWorlds)?;
    let address = Value::from(match address {
        WorldAddress::Links => OVER_LINKS,
        WorldAddress::Edge(host) => host,
    });
    let (address, list) = (address.to_string(), list(edges));
    let mut edits = Edits::of(text);
    let mut found = false;
    for world in worlds {
        let world = members(world.get()).ok_or(Unchanged::NoWorlds)?;
        for old in ADDRESSES.iter().filter_map(|key| world.get(*key)).filter(|old| old.get().starts_with('"')) {
            edits.replace(old, &address);
            found = true;
        }
    }
    if !found {
        return Err(Unchanged::NoWorlds);
    }
    edits.add(playdata, &list);
    edits.add(answer.get(), &list);
    if edits.grows_by() > MAX_GROWTH {
        return Err(Unchanged::TooLong);
    }
    edits.apply().map(String::into_bytes).ok_or(Unchanged::NotJson)
}

/// Returns whether a member that is there for errors has one.
fn tells(value: &RawValue) -> bool {
    !matches!(value.get(), "0" | "null" | "false" | r#""""#)
}

/// Returns the member with the list of edges, as it stands behind others.
fn list(edges: &EdgeList) -> String {
    let entry = |edge: &ListedEdge| json!({ "host": edge.host, "port": edge.port, "priority": edge.priority });
    let edges: Value = edges.0.iter().map(entry).collect();
    format!(r#","{LIST}":{edges}"#)
}

#[cfg(test)]
mod tests;

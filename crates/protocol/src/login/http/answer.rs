//! The answer of a login service, with edges put into it.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::text::{Edits, Object, elements};
use crate::edge_list::{EdgeList, ListedEdge};

/// The longest answer that is changed, in bytes. One of a hundred characters is a fifth of that.
pub const MAX_ANSWER: usize = 256 << 10;
/// The most bytes by which a change makes an answer longer.
pub const MAX_GROWTH: usize = 64 << 10;

/// The address at which a client with links finds the worlds: it goes over its links to reach it.
const OVER_LINKS: &str = "127.0.0.1";
/// The keys of a world's address. Clients differ in which of them they read.
const WORLD: [&str; 3] = ["externaladdress", "externaladdressprotected", "externaladdressunprotected"];
/// The key of its world's address in a character, in the form that OTCv8 has of its own.
const CHARACTER: [&str; 1] = ["worldIp"];
/// The key of the list of edges.
const LIST: &str = "proxies";

/// The address of all worlds that a client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorldAddress<'a> {
    /// The one that leads over the client's links. The client is told the edges as well.
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

/// Returns the answer of a login service with `address` as the address of all worlds. Every other byte stays; ports are the
/// worlds' own.
///
/// With [`WorldAddress::Links`] it also has the list of edges: a client opens links to all of them, so no other is told. The list
/// stands where OTCv8 and OTAcademy look for it: in an answer with `session` and `playdata`, as `playdata.proxies`;
/// at the top in the form that OTCv8 has of its own, with `characters` there. It is at the top of the other form as well.
///
/// # Errors
/// Fails with the reason for which the answer is to pass as it is.
pub fn rewrite(body: &[u8], edges: &EdgeList, address: WorldAddress<'_>) -> Result<Vec<u8>, Unchanged> {
    if body.len() > MAX_ANSWER {
        return Err(Unchanged::TooLong);
    }
    let text = std::str::from_utf8(body).map_err(|_| Unchanged::NotJson)?;
    serde_json::from_str::<&RawValue>(text).map_err(|_| Unchanged::NotJson)?;
    let login = Login::read(text)?;
    let old = login.addresses()?;
    let (address, list) = match address {
        WorldAddress::Links if edges.0.is_empty() => return Err(Unchanged::NoEdges),
        WorldAddress::Links => (OVER_LINKS, Some(proxies(edges).to_string())),
        WorldAddress::Edge(host) => (host, None),
    };
    let address = Value::from(address).to_string();
    let mut edits = Edits::of(text);
    old.into_iter().for_each(|old| edits.replace(old, &address));
    if let Some(list) = &list {
        login.listing.iter().for_each(|object| edits.set(object, LIST, list));
    }
    if edits.grows_by() > MAX_GROWTH {
        return Err(Unchanged::TooLong);
    }
    edits.apply().map(String::into_bytes).ok_or(Unchanged::NotJson)
}

/// An answer that tells a client of worlds.
struct Login<'t> {
    /// The objects that may have a list of edges. All have members.
    listing: Vec<Object<'t>>,
    /// The objects that have addresses, in an array.
    addressed: Option<&'t RawValue>,
    /// The keys of addresses in these.
    keys: &'static [&'static str],
}

impl<'t> Login<'t> {
    fn read(text: &'t str) -> Result<Self, Unchanged> {
        let top = Object::read(text).ok_or(Unchanged::NoLogin)?;
        if ["errorCode", "errorMessage", "error"].iter().any(|key| top.get(key).is_some_and(tells)) {
            return Err(Unchanged::Error);
        }
        let object = |key: &str| Object::read(top.get(key)?.get());
        let login = match (object("session"), object("playdata"), top.get("characters")) {
            (Some(_), Some(playdata), _) => {
                let addressed = playdata.get("worlds");
                Self { listing: vec![playdata, top], addressed, keys: &WORLD }
            }
            (_, None, Some(characters)) => Self { listing: vec![top], addressed: Some(characters), keys: &CHARACTER },
            _ => return Err(Unchanged::NoLogin),
        };
        let lists = login.listing.iter().filter_map(|object| object.get(LIST));
        if lists.into_iter().any(names_edges) { Err(Unchanged::Listed) } else { Ok(login) }
    }

    /// Returns all addresses of worlds.
    fn addresses(&self) -> Result<Vec<&'t RawValue>, Unchanged> {
        let objects = self.addressed.and_then(|array| elements(array.get())).ok_or(Unchanged::NoWorlds)?;
        let mut addresses = Vec::new();
        for object in objects {
            let object = Object::read(object.get()).ok_or(Unchanged::NoWorlds)?;
            let values = self.keys.iter().filter_map(|key| object.get(key));
            addresses.extend(values.filter(|value| value.get().starts_with('"')));
        }
        if addresses.is_empty() { Err(Unchanged::NoWorlds) } else { Ok(addresses) }
    }
}

/// Returns whether a list that a service gives has anything in it.
fn names_edges(list: &RawValue) -> bool {
    list.get() != "null" && elements(list.get()).is_none_or(|edges| !edges.is_empty())
}

/// Returns whether a member that is there for errors has one.
fn tells(value: &RawValue) -> bool {
    !matches!(value.get(), "0" | "null" | "false" | r#""""#)
}

/// Returns the list of edges as these clients read it.
pub(super) fn proxies(edges: &EdgeList) -> Value {
    let entry = |edge: &ListedEdge| json!({ "host": edge.host, "port": edge.port, "priority": edge.priority });
    edges.0.iter().map(entry).collect()
}

#[cfg(test)]
mod tests;

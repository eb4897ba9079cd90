//! `edges[]`: the edges that the core knows.

use ipnet::IpNet;

use super::address::{HostPort, NETWORK, TARGET};
use super::declare::{Read, section};
use super::formats::{self, FLAG};
use super::name::Name;
use super::scope::Scope;
use super::takes::{Takes, some, value};

/// The `edge` label of links that come from no edge.
const OTHER: &str = "other";

section! {
    /// `edges[]`: an edge that may connect to the core, and the label of its links.
    #[derive(Debug, Clone, PartialEq)]
    pub struct EdgePeer from EdgeKeys {
        /// the `edge` label in metrics, and the name in the edge's certificate; unique
        name: String = name(has_tunnel).required("waw1"),
        /// where this edge connects from, and nobody else with its certificate; may be left out with a `tunnel`
        addresses as "address": Vec<IpNet> = some(NETWORK).required_unless(has_tunnel, "198.51.100.7"),
        /// the edge's `core.accept`, which the core connects to
        dial: Option<HostPort> = value(TARGET).optional("the edge dials").example("198.51.100.7:7100"),
        /// refuses this edge: its address, and its certificate
        revoked: bool = value(FLAG).or("false"),
    }
}

impl Read for EdgePeer {
    fn read(item: &Scope<'_>) -> Option<Self> {
        let keys = EdgeKeys::read(item);
        for (spot, network) in item.spots("address").iter().zip(keys.addresses.iter().flatten()) {
            item.claim("edges[].address", spot, network.to_string());
        }
        if item.has("dial") && !has_tunnel(item) {
            item.wrong("dial", "needs the core's end of the tunnel; give `tunnel` with `tls`");
        }
        keys.complete()
    }
}

/// Returns whether edges have certificates, which identify them.
fn has_tunnel(item: &Scope<'_>) -> bool {
    item.file_has("tunnel")
}

/// Declares the name of an edge; if `certified` says so it is the name in a certificate too.
pub(super) fn name(certified: fn(&Scope<'_>) -> bool) -> Takes<String> {
    Takes::new("name", move |item, key| {
        let name = item.value(key, formats::label)?;
        if name == OTHER {
            item.wrong(key, "`other` is the label of peers that are no edge; choose another name");
        } else if !certified(item) {
            item.claim_own(key, name.clone());
        } else if let Err(error) = Name::edge(&name) {
            item.wrong(key, error.to_string());
        } else {
            // TLS does not tell letters' cases apart.
            item.claim_own(key, name.to_ascii_lowercase());
        }
        Some(name)
    })
}

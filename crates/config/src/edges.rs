//! `edges[]`: the edges that the core knows.

use std::net::IpAddr;

use ipnet::IpNet;

use super::address::{self, HostPort, NETWORK, TARGET};
use super::declare::{Read, section};
use super::fleet::EdgeTraffic;
use super::formats::{self, FLAG, LABEL, MILLISECONDS};
use super::mapping::mapping;
use super::name::Name;
use super::scope::Scope;
use super::takes::{Format, Takes, some, value};
use super::tree::{Node, Value};

/// The port at which clients connect to an edge with links, also in the table `proxies`.
pub const LINKS_PORT: u16 = 7162;

/// The form of an edge's address for clients.
const PUBLIC: Format<HostPort> = Format::new("host, or host with port", public);

/// Milliseconds that clients add beyond `priority` while an edge is hit and its `priority_under_attack` is not given.
pub const MORE_WHEN_HIT: u16 = 100;

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
        /// what clients are told of this edge: its name or IPv4 address, with the port of links where that is not 7162
        public: Option<HostPort> =
            value(PUBLIC).optional("clients are not told of it").example("p1.example"),
        /// what clients add to the round trip over this edge before they choose, in ms
        priority: u16 = value(MILLISECONDS).or("0"),
        /// the same while the edge loses links as under an attack, in ms
        priority_under_attack: Option<u16> =
            value(MILLISECONDS).optional("100 more than `priority`").example("500"),
        /// has clients told of this edge only while others are out or hit, one for each
        reserve: bool = value(FLAG).or("false"),
        /// the place that edges share which fail together: each player is told to use them one after the other
        datacenter: Option<String> = value(LABEL).optional("a place of its own").example("waw"),
        /// `traffic`: what its provider allows in a month
        traffic: Option<EdgeTraffic> = mapping().optional(),
        /// takes this edge out of what clients are told; links that it has, and new ones, go on
        disabled: bool = value(FLAG).or("false"),
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
        let of_clients = ["priority_under_attack", "datacenter"].into_iter().filter(|key| item.has(key));
        let reserve = (keys.reserve == Some(true)).then_some("reserve");
        for key in of_clients.chain(reserve).filter(|_| !item.has("public")) {
            item.wrong(key, "is about what clients are told of this edge; give its `public` too");
        }
        keys.complete()
    }
}

impl EdgePeer {
    /// Returns what clients add to the round trip over this edge while it is hit, in ms.
    #[must_use]
    pub fn priority_when_hit(&self) -> u16 {
        self.priority_under_attack.unwrap_or_else(|| self.priority.saturating_add(MORE_WHEN_HIT))
    }
}

/// Parses a host that clients can look up, and the port of links there.
fn public(node: &Node) -> Result<HostPort, String> {
    // An IPv6 address without brackets has colons of its own.
    let has_port =
        |text: &str| text.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
    let public = match &node.value {
        Value::Text(text) if has_port(text.trim()) => address::target(node)?,
        _ => HostPort { host: address::host(node)?, port: LINKS_PORT },
    };
    match public.host.parse() {
        Ok(IpAddr::V6(ip)) => Err(format!(
            "`{ip}` is an IPv6 address, which clients cannot take: they look for the port behind its last colon; give a name that \
             has it, as `p1.example`"
        )),
        _ => Ok(public),
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

#[cfg(test)]
mod tests {
    use super::super::tree::fragment;
    use super::*;

    #[test]
    fn what_clients_are_told_is_a_host_that_they_can_look_up() {
        for (text, host, port) in [
            ("p1.example", "p1.example", 7162),
            ("p1.example:443", "p1.example", 443),
            ("198.51.100.7", "198.51.100.7", 7162),
            ("198.51.100.7:7163", "198.51.100.7", 7163),
        ] {
            assert_eq!(public(&fragment(text)), Ok(HostPort { host: host.to_owned(), port }), "{text}");
        }
        for (wrong, says) in [
            ("'2001:db8::7'", "`2001:db8::7` is an IPv6 address, which clients cannot take"),
            ("'[2001:db8::7]:7162'", "`2001:db8::7` is an IPv6 address, which clients cannot take"),
            ("p1.example:0", "has port 0"),
            ("p 1", "is not a host"),
            ("7162", "is not a host"),
        ] {
            let message = public(&fragment(wrong)).unwrap_err();
            assert!(message.contains(says), "{wrong}: {message}");
        }
    }
}

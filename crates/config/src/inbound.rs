//! The keys of all listeners, of whatever kind.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use otproxy_protocol::sniff::ProtocolSniffer;
use otproxy_protocol::words;

use super::AddressSet;
use super::access::{allowed, denied};
use super::address::{NETWORK, claim, listen_range};
use super::declare::section;
use super::formats::{LABEL, TIMEOUT};
use super::key::{ListenerType, RoleKind};
use super::limits::ListenerLimits;
use super::mapping::mapping;
use super::scope::Scope;
use super::takes::{Takes, list, value, word};
use super::web::RealIpConfig;

section! {
    /// The keys that every listener has.
    #[derive(Debug, Clone, PartialEq)]
    pub struct InboundConfig from InboundKeys {
        /// the label in metrics and logs; unique
        name: String = value(LABEL).unique().required("login"),
        /// `forward` carries TCP to a target, `relay` (core only) takes links of the multi-path protocol, `web` takes HTTP
        kind: ListenerType = word().or("forward").read_before(),
        /// where to listen; port 0 lets the system choose; a core with a `tunnel` may leave it out
        listen: Vec<SocketAddr> = addresses().required_unless(through_tunnel, "0.0.0.0:7171"),
        /// whether the peer announces the player's address in a PROXY header
        accept_proxy: AcceptProxy = word().or_by_role("none", "required").example("required"),
        /// whose PROXY header is believed; with `accept_proxy: required` nobody else may connect
        trusted_peers: Vec<IpNet> = list(NETWORK)
            .or_else("on an edge none, on the core the addresses of `edges`", Vec::new)
            .example("10.0.0.0/8"),
        /// `real_ip`: the proxy for web sites that tells players' addresses.
        real_ip: Option<RealIpConfig> = mapping().optional(),
        /// how connections begin; nothing is connected to before they do
        expect: ProtocolSniffer = word().or("any").only_forward(),
        /// who is refused by this listener, whatever `allow` says; the peer, and the player that its PROXY header announces
        deny: Arc<AddressSet> = denied().or("[]").example("[198.51.100.0/24, { file: deny.txt }]"),
        /// which players alone are let in by this listener
        allow: Option<Arc<AddressSet>> =
            allowed().optional("everybody").example("[192.0.2.0/24, { file: allow.txt }]"),
        /// `limits`
        limits: ListenerLimits = mapping(),
        /// `timeouts`
        timeouts: Timeouts = mapping(),
    }
}

section! {
    /// `listeners[].timeouts`
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Timeouts {
        /// to reach a target or a game server; with `status` also for the target's answer
        connect: Duration = value(TIMEOUT).or("4s"),
        /// for a PROXY header to arrive whole; with `status` also for the first packet, as far as it takes to know it; with `web` for
        /// the whole request
        header: Duration = value(TIMEOUT).or("5s"),
        /// for what `expect` says to arrive whole
        first_bytes: Duration = value(TIMEOUT).or("5s").only_forward(),
        /// without a byte in either direction (`forward`, `web`), or without a whole frame (`relay`)
        idle: Duration = value(TIMEOUT).or_by_kind("50s", "10s").example("50s"),
    }
}

words! {
    /// `listeners[].accept_proxy`: the PROXY header expected from the peer.
    pub enum AcceptProxy {
        /// A header from a trusted peer, or the connection is refused.
        Required = "required",
        /// A header where a trusted peer sends one.
        Optional = "optional",
        /// No header: the first byte is the player's.
        None = "none",
    }
}

impl InboundConfig {
    /// Returns the keys that all listeners have. `edges` are the addresses of the core's edges, `None` if those were wrong.
    pub(super) fn read(item: &Scope<'_>, kind: Option<ListenerType>, edges: Option<&[IpNet]>) -> Option<Self> {
        let mut keys = InboundKeys::read(item);
        keys.kind = kind;
        keys.trusted_peers = trusted_peers(item, keys.accept_proxy, keys.trusted_peers.take(), edges);
        keys.complete()
    }
}

/// Declares addresses to listen on, each of which no other listener has.
fn addresses() -> Takes<Vec<SocketAddr>> {
    let read = |item: &Scope<'_>, key: &str| {
        let list = item.some(key, listen_range)?;
        let all = list
            .into_iter()
            .flat_map(|(spot, addresses)| addresses.into_iter().inspect(move |address| claim(item, &spot, *address)));
        Some(all.collect())
    };
    Takes::new("address with port, or with ports as in `0.0.0.0:7171-7175`, or a list", read)
}

/// Returns whether connections come through the core's tunnel, which may be the only ones.
fn through_tunnel(item: &Scope<'_>) -> bool {
    item.role() == RoleKind::Core && item.file_has("tunnel") && !item.has("listen")
}

/// Returns the peers whose PROXY header is believed: somebody, exactly if one is expected. `own` are those that the listener has.
fn trusted_peers(
    item: &Scope<'_>,
    accept_proxy: Option<AcceptProxy>,
    own: Option<Vec<IpNet>>,
    edges: Option<&[IpNet]>,
) -> Option<Vec<IpNet>> {
    let (accept_proxy, own) = (accept_proxy?, own?);
    if accept_proxy == AcceptProxy::None {
        if !own.is_empty() {
            item.wrong(
                "trusted_peers",
                "has no effect with `accept_proxy: none`; set that to `required`, or leave this out",
            );
        }
        return Some(Vec::new());
    }
    let peers = if item.has("trusted_peers") { own } else { edges?.to_vec() };
    if peers.is_empty() && !through_tunnel(item) {
        let remedy = match item.role() {
            RoleKind::Edge => "give `trusted_peers`",
            RoleKind::Core => "give `edges` with an `address`, or `trusted_peers`",
        };
        let message = format!(
            "is `{accept_proxy}`, but there is nobody whose PROXY header is believed; {remedy}, or set `accept_proxy: none`"
        );
        item.wrong("accept_proxy", message);
    }
    Some(peers)
}

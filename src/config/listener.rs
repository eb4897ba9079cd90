//! Reading `listeners[]`.

use std::net::SocketAddr;

use ipnet::IpNet;

use super::keys::{Kind, Role};
use super::scope::{Scope, Spot};
use super::tree::Node;
use super::{
    AcceptProxy, Check, CheckKind, Destination, Forward, ForwardTarget, Inbound, Relay, SendProxy, Status, address,
    formats, gate,
};

/// A listener of either kind.
pub(super) enum Listener {
    Forward(Forward),
    Relay(Relay),
}

/// Reads `listeners`. `edges` are the addresses of the core's edges, `None` if those were wrong; `taken` is what
/// other parts of the file have.
pub(super) fn read(root: &Scope<'_>, edges: Option<&[IpNet]>, mut taken: Taken) -> Option<Vec<Listener>> {
    let items = root.items("listeners")?;
    if items.is_empty() && root.has("listeners") {
        root.wrong("listeners", "has no listener in it; give at least one");
    }
    let tunnel = root.has(match root.role() {
        Role::Edge => "core",
        Role::Core => "tunnel",
    });
    let listeners: Vec<_> = items.into_iter().map(|item| listener(item, edges, tunnel, &mut taken)).collect();
    listeners.into_iter().collect()
}

fn listener(item: Scope<'_>, edges: Option<&[IpNet]>, tunnel: bool, taken: &mut Taken) -> Option<Listener> {
    let kind = kind(&item);
    let item = item.of_kind(kind);
    item.check_keys();
    let inbound = inbound(&item, edges, tunnel, taken);
    match kind? {
        Kind::Relay => Some(Listener::Relay(Relay { inbound: inbound? })),
        Kind::Forward => {
            let forward_to = forward_to(&item, tunnel);
            let choice = item.value("choice", formats::word);
            let check = check(&item);
            let resolve = item.value("resolve", formats::duration);
            let send_proxy = item.value("send_proxy", formats::word);
            if let (Some(CheckKind::Proxy), Some(SendProxy::V1 | SendProxy::None)) =
                (check.map(|check| check.kind), send_proxy)
            {
                item.wrong("check", "`proxy` sends a header of version 2, and `send_proxy` is another; use `tcp`");
            }
            let status = if item.has("status") { status(&item.section("status")).map(Some) } else { Some(None) };
            Some(Listener::Forward(Forward {
                inbound: inbound?,
                forward_to: forward_to?,
                choice: choice?,
                check: check?,
                resolve: resolve?,
                send_proxy: send_proxy?,
                status: status?,
            }))
        }
    }
}

/// Reads `forward_to`.
fn forward_to(item: &Scope<'_>, tunnel: bool) -> Option<Vec<ForwardTarget>> {
    let bare = |node: &Node| Ok((None, address::destination(node)?, false));
    let keys = |keys: &Scope<'_>| {
        let address = keys.value("address", address::destination);
        let name = keys.optional("name", formats::label);
        let backup = keys.value("backup", formats::flag);
        Some((name?, address?, backup?))
    };
    let list = item.some_or_keys("forward_to", bare, keys)?;
    let (mut names, mut targets) = (Unique::default(), Vec::new());
    for (index, (spot, (name, destination, backup))) in list.into_iter().enumerate() {
        if matches!(destination, Destination::Core(_)) && item.role() == Role::Core {
            item.wrong_at(&spot, "`core/..` is for an edge; the core connects to a host with a port");
        } else if matches!(destination, Destination::Core(_)) && !tunnel {
            item.wrong_at(
                &spot,
                "needs the tunnel to the core; give `core` with `dial` and `tls`, or a host with a port here",
            );
        }
        let name = name.unwrap_or_else(|| (index + 1).to_string());
        names.claim(item, spot, name.clone());
        targets.push(ForwardTarget { name, destination, backup });
    }
    if targets.iter().all(|target| target.backup) {
        item.wrong("forward_to", "has backups and nothing that they are for; one must be without `backup`");
    }
    Some(targets)
}

fn check(item: &Scope<'_>) -> Option<Check> {
    let kind = item.value("check", formats::word);
    let inter = item.value("inter", formats::period);
    let fall = item.value("fall", formats::count);
    let rise = item.value("rise", formats::count);
    Some(Check { kind: kind?, inter: inter?, fall: fall?, rise: rise? })
}

fn kind(item: &Scope<'_>) -> Option<Kind> {
    let kind = item.value("kind", formats::word)?;
    if kind == Kind::Relay && item.role() == Role::Edge {
        item.wrong("kind", "`relay` is only in `role: core`; an edge forwards links with `kind: forward`");
        return None;
    }
    Some(kind)
}

fn inbound(item: &Scope<'_>, edges: Option<&[IpNet]>, tunnel: bool, taken: &mut Taken) -> Option<Inbound> {
    let name = item.value("name", formats::label);
    if let Some(name) = &name {
        taken.names.claim(item, item.spot("name"), name.clone());
    }
    // At a core with a tunnel, its streams may be all that comes in.
    let through_tunnel = tunnel && item.role() == Role::Core && !item.has("listen");
    let listen = if through_tunnel { Some(Vec::new()) } else { item.some("listen", address::listen) };
    for (spot, address) in listen.iter().flatten() {
        // Port 0 is another one each time.
        if address.port() != 0 {
            taken.addresses.claim(item, spot.clone(), address.to_string());
        }
    }
    let trust = trust(item, edges, through_tunnel);
    let access = gate::access(item);
    let section = item.section("limits");
    let limits = gate::limits(&section, formats::or_none(formats::quantity));
    let reset = section.value("reset", formats::flag);
    let expect = item.value("expect", formats::word);
    let timeouts = item.section("timeouts");
    let connect_timeout = timeouts.value("connect", formats::timeout);
    let header_timeout = timeouts.value("header", formats::timeout);
    let first_bytes_timeout = timeouts.value("first_bytes", formats::timeout);
    let idle_timeout = timeouts.value("idle", formats::timeout);
    let (accept_proxy, trusted_peers) = trust?;
    Some(Inbound {
        name: name?,
        listen: values(listen?),
        accept_proxy,
        trusted_peers,
        access: access?.into(),
        limits: limits?,
        reset: reset?,
        expect: expect?,
        first_bytes_timeout: first_bytes_timeout?,
        header_timeout: header_timeout?,
        idle_timeout: idle_timeout?,
        connect_timeout: connect_timeout?,
    })
}

fn status(section: &Scope<'_>) -> Option<Status> {
    let cache = section.value("cache", formats::timeout);
    let stale = section.value("stale", formats::duration);
    let address = section.value("address", address::host);
    let port = section.optional("port", formats::port);
    Some(Status { cache: cache?, stale: stale?, address: address?, port: port? })
}

/// Whether a PROXY header is expected, and from whom: somebody, exactly if it is.
fn trust(item: &Scope<'_>, edges: Option<&[IpNet]>, through_tunnel: bool) -> Option<(AcceptProxy, Vec<IpNet>)> {
    let accept_proxy = item.value("accept_proxy", formats::word);
    let own = if item.has("trusted_peers") {
        item.list("trusted_peers", address::network).map(|peers| Some(values(peers)))
    } else {
        Some(None)
    };
    let (accept_proxy, own) = (accept_proxy?, own?);
    if accept_proxy == AcceptProxy::None {
        if own.is_some_and(|peers| !peers.is_empty()) {
            item.wrong(
                "trusted_peers",
                "has no effect with `accept_proxy: none`; set that to `required`, or leave this out",
            );
        }
        return Some((accept_proxy, Vec::new()));
    }
    let peers = match own {
        Some(peers) => peers,
        None => edges?.to_vec(),
    };
    if peers.is_empty() && !through_tunnel {
        let word = if accept_proxy == AcceptProxy::Required { "required" } else { "optional" };
        let remedy = match item.role() {
            Role::Edge => "give `trusted_peers`",
            Role::Core => "give `edges` with an `address`, or `trusted_peers`",
        };
        let message = format!(
            "is `{word}`, but there is nobody whose PROXY header is believed; {remedy}, or set `accept_proxy: none`"
        );
        item.wrong("accept_proxy", message);
    }
    Some((accept_proxy, peers))
}

/// What only one listener may have.
#[derive(Default)]
pub(super) struct Taken {
    names: Unique,
    addresses: Unique,
}

impl Taken {
    /// Keeps `addresses` for the key of this path. Port 0 is another one each time.
    pub fn reserve(&mut self, path: &str, addresses: impl Iterator<Item = SocketAddr>) {
        for address in addresses.filter(|address| address.port() != 0) {
            self.addresses.reserve(path, address.to_string());
        }
    }
}

/// Values that must differ, with the path where each is.
#[derive(Default)]
pub(super) struct Unique(Vec<(String, String)>);

impl Unique {
    /// Takes `value` for the key of this path, before all others.
    fn reserve(&mut self, path: &str, value: String) {
        self.0.push((value, path.to_owned()));
    }

    /// Takes `value` for `spot`; an error if it is taken.
    pub fn claim(&mut self, scope: &Scope<'_>, spot: Spot, value: String) {
        match self.0.iter().find(|(taken, _)| *taken == value) {
            Some((_, path)) => {
                scope.wrong_at(&spot, format!("`{value}` is already used by {path}; each must be its own"))
            }
            None => self.0.push((value, spot.path)),
        }
    }
}

/// The values without their places.
pub(super) fn values<T>(list: Vec<(Spot, T)>) -> Vec<T> {
    list.into_iter().map(|(_, value)| value).collect()
}

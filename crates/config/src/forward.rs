//! The keys of a listener of `kind: forward` beside those of all listeners.

use std::time::Duration;

use otproxy_protocol::quota::Quota;
use otproxy_protocol::words;

use super::address::{DESTINATION, Destination, HOST, HostPort, destination};
use super::declare::{Read as _, Section as _, section};
use super::formats::{COUNT, DURATION, FLAG, LABEL, PERIOD, PORT, QUANTITY_OR_NONE, RATE_OR_NONE, TIMEOUT};
use super::inbound::InboundConfig;
use super::key::{ListenerType, RoleKind};
use super::login::LoginConfig;
use super::mapping::{elsewhere, flat, mapping};
use super::scope::Scope;
use super::source::{BY_DEFAULT, SOURCE, SourceAddress, for_targets};
use super::takes::{Takes, value, word};
use super::tree::Node;

section! {
    /// A listener of kind `forward`.
    #[derive(Debug, Clone, PartialEq)]
    pub struct ForwardConfig from ForwardKeys {
        /// The keys that every listener has.
        inbound: InboundConfig = elsewhere(),
        /// where connections lead; `core/NAME` (edge only) is the core's listener NAME, through the tunnel; a target with a name of its
        /// own, or a backup, is a mapping with the keys below
        forward_to: Vec<ForwardTarget> = targets().required_unless(answers_itself, "203.0.113.9:7171"),
        /// which target of several: the first that is up, the one with the fewest connections now, or one and the same for a player's
        /// address (IPv6 by /64)
        choice: TargetChoice = word().or("first"),
        /// `check`, with the keys beside it
        check: CheckConfig = flat(),
        /// how often the names of targets are looked up, beside the connections; `0s` looks them up for each connection
        resolve: Duration = value(DURATION).or("30s"),
        /// the PROXY header that tells the target the player's address; a login service over HTTP gets none
        send_proxy: SendProxy = word().or("v2"),
        /// the local address of connections to targets without the tunnel; `loopback_per_player` takes one in 127.0.0.0/8 for each
        /// player, so that a server on this host tells players apart; `player` takes the player's own, which needs a privilege and a route
        source: SourceAddress = value(SOURCE).or_else(BY_DEFAULT, SourceAddress::default).example("default"),
        /// connects to the host of each target without the tunnel, over all that leads there; for servers that block an address which
        /// connects too often
        connects: Option<Quota> = value(RATE_OR_NONE).or("none").example("1/600ms"),
        /// `status`: answers to requests for the status, kept and refreshed from the target
        status: Option<StatusConfig> = mapping().optional(),
        /// `login`: answers to classic logins that tell players of the edges
        login: Option<LoginConfig> = mapping().optional().only_in(RoleKind::Core),
    }
}

section! {
    /// `listeners[].forward_to[]`: one target of a listener.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ForwardTarget {
        /// the target
        destination as "address": Destination = value(DESTINATION).required("203.0.113.9:7171"),
        /// the `target` label in metrics and logs; unique in its listener
        name: String = value(LABEL).or_else("its place in the list: `1`, `2`, ..", String::new).example("waw"),
        /// whether it has connections only while no other is up
        backup: bool = value(FLAG).or("false"),
        /// connections at once to it, over this listener; beyond that the next target is tried
        max_connections: Option<usize> = value(QUANTITY_OR_NONE).or("none").example("500"),
    }
}

section! {
    /// `listeners[].check`, with the keys beside it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct CheckConfig {
        /// how the targets are checked: `tcp` connects, `proxy` also sends a PROXY v2 header that means a check, `ping` has a relay answer
        kind as "check": CheckKind = word().or("off"),
        /// with `check`, from one check of a target to the next
        inter: Duration = value(PERIOD).or("5s"),
        /// with `check`, failures one after the other until a target is down
        fall: u32 = value(COUNT).or("3"),
        /// with `check`, checks that it must pass one after the other to be up again
        rise: u32 = value(COUNT).or("2"),
    }
}

section! {
    /// `listeners[].status`: answers to requests for the status, kept and refreshed from the target.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct StatusConfig {
        /// how long an answer to a status request is given again before the target is asked anew
        cache: Duration = value(TIMEOUT).or("5s"),
        /// how much longer it is given while the target has no answer
        stale: Duration = value(DURATION).or("60s"),
        /// where players connect to, for the answer to show in place of what the game server says; with `status` the listener
        /// answers status requests by itself
        address: String = value(HOST).required("play.example"),
        /// the port in the answer, likewise
        port: Option<u16> = value(PORT).optional("as the game server says").example("7171"),
        /// the number of players online in the answer: what the game server says (`told`), or the sessions of this process, at most 4 of
        /// one address (`counted`)
        players: StatusPlayers = word().or("told"),
    }
}

words! {
    /// `listeners[].status.players`: the number of players in the answer.
    pub enum StatusPlayers {
        /// That which the game server says.
        Told = "told",
        /// The sessions of this process, as lists of servers count players.
        Counted = "counted",
    }
}

words! {
    /// `listeners[].choice`: the target of several that a connection leads to.
    pub enum TargetChoice {
        /// The first that is up.
        First = "first",
        /// The one with the fewest connections now.
        Least = "least",
        /// One for each player's address.
        Source = "source",
    }
}

words! {
    /// `listeners[].check`: the way in which targets are checked.
    pub enum CheckKind {
        /// They are not.
        Off = "off",
        /// By a connect.
        Tcp = "tcp",
        /// By a connect, and a PROXY v2 header that means a check.
        Proxy = "proxy",
        /// By a ping of the multi-path protocol.
        Ping = "ping",
    }
}

words! {
    /// `listeners[].send_proxy`: the PROXY header sent to the target.
    pub enum SendProxy {
        /// The binary header.
        V2 = "v2",
        /// The binary header with the player's IPv4 address backwards, for servers that read it so.
        V2Reversed = "v2_reversed",
        /// The text line.
        V1 = "v1",
        /// No header.
        None = "none",
    }
}

impl CheckConfig {
    /// None, and a target that failed is tried last for a while.
    pub const OFF: Self = Self { kind: CheckKind::Off, inter: Duration::ZERO, fall: 1, rise: 1 };
}

impl ForwardConfig {
    /// Returns the targets that are connected to without the tunnel.
    pub fn hosts(&self) -> impl Iterator<Item = &HostPort> + Clone {
        hosts(&self.forward_to)
    }

    /// Returns the keys that it has beside those of all listeners.
    pub(super) fn read(item: &Scope<'_>, inbound: Option<InboundConfig>) -> Option<Self> {
        let mut keys = ForwardKeys::read(item);
        if let (Some(CheckKind::Proxy), Some(SendProxy::V1 | SendProxy::None)) =
            (keys.check.map(|check| check.kind), keys.send_proxy)
        {
            item.wrong("check", "`proxy` sends a header of version 2, and `send_proxy` is another; use `tcp`");
        }
        if item.role() == RoleKind::Edge && keys.send_proxy == Some(SendProxy::V2Reversed) {
            item.wrong("send_proxy", "`v2_reversed` is what some game servers read, and a core does not; use `v2`");
        }
        if leads_to_http(item) {
            if item.has("send_proxy") {
                item.wrong("send_proxy", "is not for a login service, which reads headers of HTTP; leave it out");
            }
            if keys.source == Some(SourceAddress::Player) {
                item.wrong("source", "`player` is not for a login service, which reads headers of HTTP; leave it out");
                keys.source = None;
            }
            if item.has("connects") {
                item.wrong("connects", "is for game servers, and a login service over HTTP is none; leave it out");
            }
            keys.send_proxy = Some(SendProxy::None);
        }
        keys.inbound = inbound;
        if let Some(targets) = &keys.forward_to {
            let told = ("send_proxy", keys.send_proxy != Some(SendProxy::None) || leads_to_http(item));
            keys.source = for_targets(item, keys.source, hosts(targets), told);
        }
        keys.complete()
    }
}

/// Returns whether the listener answers requests by itself, and leads to a login service if anywhere.
fn answers_itself(item: &Scope<'_>) -> bool {
    item.kind() == Some(ListenerType::Web) && item.role() == RoleKind::Core
}

/// Returns whether the listener leads to a login service over HTTP, if anywhere.
fn leads_to_http(item: &Scope<'_>) -> bool {
    answers_itself(item) && !item.has_in("routes", "classic")
}

/// Returns those of `targets` that are connected to without the tunnel.
fn hosts(targets: &[ForwardTarget]) -> impl Iterator<Item = &HostPort> + Clone {
    targets.iter().filter_map(|target| match &target.destination {
        Destination::Target(host) => Some(host),
        Destination::Core(_) => None,
    })
}

/// Declares the targets of a listener: each with a name, and at least one that is no backup.
fn targets() -> Takes<Vec<ForwardTarget>> {
    let bare = |node: &Node| {
        let (name, backup, max_connections) = (String::new(), false, None);
        destination(node).map(|destination| ForwardTarget { destination, name, backup, max_connections })
    };
    let read = move |item: &Scope<'_>, key: &str| {
        let list = item.some_or_keys(key, bare, ForwardTarget::read)?;
        let (mut targets, names) = (Vec::new(), item.path_of(key));
        for (index, (spot, mut target)) in list.into_iter().enumerate() {
            if matches!(target.destination, Destination::Core(_)) && item.role() == RoleKind::Core {
                item.wrong_at(&spot, "`core/..` is for an edge; the core connects to a host with a port");
            } else if matches!(target.destination, Destination::Core(_)) && !item.file_has("core") {
                item.wrong_at(
                    &spot,
                    "needs the tunnel to the core; give `core` with `dial` and `tls`, or a host with a port here",
                );
            }
            if target.name.is_empty() {
                target.name = (index + 1).to_string();
            }
            item.claim(&names, &spot, target.name.clone());
            targets.push(target);
        }
        if targets.iter().all(|target: &ForwardTarget| target.backup) {
            item.wrong(key, "has backups and nothing that they are for; one must be without `backup`");
        }
        Some(targets)
    };
    Takes::new("host with port or `core/NAME`, or a list", read).with_items(ForwardTarget::keys())
}

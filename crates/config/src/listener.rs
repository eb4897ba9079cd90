//! `listeners[]`: a listener of any kind.

use ipnet::IpNet;

use super::declare::{Field as _, Section as _};
use super::forward::{ForwardConfig, StatusPlayers};
use super::inbound::InboundConfig;
use super::key::{Key, ListenerType, RoleKind};
use super::scope::Scope;
use super::takes::Takes;
use super::web::{WebConfig, WebRoutes};
use super::word::word;

/// A listener of kind `relay`: links of the multi-path protocol.
#[derive(Debug, Clone, PartialEq)]
pub struct RelayConfig {
    /// The keys that every listener has.
    pub inbound: InboundConfig,
}

/// A listener, by its kind.
#[expect(clippy::large_enum_variant, reason = "a file has a few, and they are read once")]
#[derive(Debug, Clone, PartialEq)]
pub enum ListenerConfig {
    /// `kind: forward`
    Forward(ForwardConfig),
    /// `kind: web`
    Web(WebConfig),
    /// `kind: relay`
    Relay(RelayConfig),
}

impl ListenerConfig {
    /// Returns what every listener has.
    #[must_use]
    pub fn inbound(&self) -> &InboundConfig {
        match self {
            Self::Forward(forward) => &forward.inbound,
            Self::Web(web) => &web.forward.inbound,
            Self::Relay(relay) => &relay.inbound,
        }
    }

    pub(super) fn inbound_mut(&mut self) -> &mut InboundConfig {
        match self {
            Self::Forward(forward) => &mut forward.inbound,
            Self::Web(web) => &mut web.forward.inbound,
            Self::Relay(relay) => &mut relay.inbound,
        }
    }

    /// Returns the listener if it carries TCP to targets.
    #[must_use]
    pub fn forward(&self) -> Option<&ForwardConfig> {
        if let Self::Forward(forward) = self { Some(forward) } else { None }
    }

    /// Returns what a listener of any kind has that leads to targets.
    #[must_use]
    pub fn leading(&self) -> Option<&ForwardConfig> {
        match self {
            Self::Forward(forward) => Some(forward),
            Self::Web(web) => Some(&web.forward),
            Self::Relay(_) => None,
        }
    }
}

/// Returns `listeners`, and all keys of its items.
pub(super) fn keys() -> Vec<Key> {
    let of_web = |key: Key| if key.path.starts_with("real_ip.") { key.only_with(&[ListenerType::Web]) } else { key };
    let mut keys: Vec<_> = InboundConfig::keys().into_iter().map(of_web).collect();
    // The keys of a kind stand between those of its addresses and those of its access.
    let behind_listen = keys.iter().position(|key| key.path == "listen").map_or(keys.len(), |place| place + 1);
    let of_forwards = |key: &Key| ["status", "login"].iter().any(|own| key.path.split('.').next() == Some(own));
    let of_relays = |key: Key| if key.path == "status.players" { key.only_in(RoleKind::Core) } else { key };
    let forward = ForwardConfig::keys().into_iter().map(of_relays).map(|key| match of_forwards(&key) {
        true => key.only_with(&[ListenerType::Forward]),
        false => key.only_with(&[ListenerType::Forward, ListenerType::Web]),
    });
    let web = WebConfig::keys().into_iter().map(|key| match key.path.starts_with("routes.") {
        true => key.only_in(RoleKind::Core).only_with(&[ListenerType::Web]),
        false => key.only_with(&[ListenerType::Web]),
    });
    keys.splice(behind_listen..behind_listen, forward.chain(web));
    Takes::<()>::new("list", |_, _| None)
        .with_items(keys)
        .required("[{ name: login, .. }]")
        .keys("listeners", "where connections are accepted; at least one")
}

/// Reads `listeners`. `edges` are the addresses of the core's edges, `None` if those were wrong.
pub(super) fn read(root: &Scope<'_>, edges: Option<&[IpNet]>) -> Option<Vec<ListenerConfig>> {
    let items = root.items("listeners")?;
    if items.is_empty() && root.has("listeners") {
        root.wrong("listeners", "has no listener in it; give at least one");
    }
    let (spots, listeners): (Vec<_>, Vec<_>) =
        items.into_iter().map(|item| ((item.spot("routes"), item.spot("status")), listener(item, edges))).unzip();
    let listeners: Vec<_> = listeners.into_iter().collect::<Option<_>>()?;
    let relays = listeners.iter().any(|listener| matches!(listener, ListenerConfig::Relay(_)));
    for ((spot, of_status), listener) in spots.iter().zip(&listeners) {
        let status = listener.forward().and_then(|forward| forward.status.as_ref());
        if !relays && status.is_some_and(|status| status.players == StatusPlayers::Counted) {
            let message =
                "`players: counted` counts sessions, and there is no listener of `kind: relay`; leave `players` out";
            root.wrong_at(of_status, message);
        }
        let ListenerConfig::Web(WebConfig { routes: WebRoutes { status: Some(name), .. }, .. }) = listener else {
            continue;
        };
        let knows = |other: &&ListenerConfig| other.forward().is_some_and(|forward| forward.status.is_some());
        if !listeners.iter().filter(knows).any(|other| other.inbound().name == *name) {
            let message = format!(
                "`status: {name}` is no listener of `kind: forward` with `status`; give it that, or name another"
            );
            root.wrong_at(spot, message);
        }
    }
    Some(listeners)
}

fn listener(item: Scope<'_>, edges: Option<&[IpNet]>) -> Option<ListenerConfig> {
    let kind = kind(&item);
    let item = item.of_kind(kind);
    item.check_keys();
    let inbound = InboundConfig::read(&item, kind, edges);
    match kind? {
        ListenerType::Relay => Some(ListenerConfig::Relay(RelayConfig { inbound: inbound? })),
        ListenerType::Forward => ForwardConfig::read(&item, inbound).map(ListenerConfig::Forward),
        ListenerType::Web => WebConfig::read(&item, ForwardConfig::read(&item, inbound)).map(ListenerConfig::Web),
    }
}

fn kind(item: &Scope<'_>) -> Option<ListenerType> {
    let kind = item.value("kind", word)?;
    if kind == ListenerType::Relay && item.role() == RoleKind::Edge {
        item.wrong("kind", "`relay` is only in `role: core`; an edge forwards links with `kind: forward`");
        return None;
    }
    Some(kind)
}

//! `listeners[]`: a listener of any kind.

use ipnet::IpNet;

use super::declare::{Field as _, Section as _};
use super::forward::ForwardConfig;
use super::inbound::InboundConfig;
use super::key::{Key, ListenerType, RoleKind};
use super::scope::Scope;
use super::takes::Takes;
use super::word::word;

/// A listener of kind `relay`: links of the multi-path protocol.
#[derive(Debug, Clone, PartialEq)]
pub struct RelayConfig {
    /// The keys that every listener has.
    pub inbound: InboundConfig,
}

/// A listener, by its kind.
#[derive(Debug, Clone, PartialEq)]
pub enum ListenerConfig {
    /// `kind: forward`
    Forward(ForwardConfig),
    /// `kind: relay`
    Relay(RelayConfig),
}

impl ListenerConfig {
    /// Returns what every listener has.
    #[must_use]
    pub fn inbound(&self) -> &InboundConfig {
        match self {
            Self::Forward(forward) => &forward.inbound,
            Self::Relay(relay) => &relay.inbound,
        }
    }

    pub(super) fn inbound_mut(&mut self) -> &mut InboundConfig {
        match self {
            Self::Forward(forward) => &mut forward.inbound,
            Self::Relay(relay) => &mut relay.inbound,
        }
    }

    /// Returns the listener if it has targets.
    #[must_use]
    pub fn forward(&self) -> Option<&ForwardConfig> {
        if let Self::Forward(forward) = self { Some(forward) } else { None }
    }
}

/// Returns `listeners`, and all keys of its items.
pub(super) fn keys() -> Vec<Key> {
    let mut keys = InboundConfig::keys();
    // The keys of a kind stand between those of its addresses and those of its access.
    let behind_listen = keys.iter().position(|key| key.path == "listen").map_or(keys.len(), |place| place + 1);
    let forward = ForwardConfig::keys().into_iter().map(|key| key.only_with(ListenerType::Forward));
    keys.splice(behind_listen..behind_listen, forward);
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
    let listeners: Vec<_> = items.into_iter().map(|item| listener(item, edges)).collect();
    listeners.into_iter().collect()
}

fn listener(item: Scope<'_>, edges: Option<&[IpNet]>) -> Option<ListenerConfig> {
    let kind = kind(&item);
    let item = item.of_kind(kind);
    item.check_keys();
    let inbound = InboundConfig::read(&item, kind, edges);
    match kind? {
        ListenerType::Relay => Some(ListenerConfig::Relay(RelayConfig { inbound: inbound? })),
        ListenerType::Forward => ForwardConfig::read(&item, inbound).map(ListenerConfig::Forward),
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

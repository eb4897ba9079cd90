//! `listeners[]`: a listener of any kind.

use ipnet::IpNet;

use super::declare::{Field as _, Section as _};
use super::forward::Forward;
use super::inbound::Inbound;
use super::key::{Key, Kind, Role};
use super::scope::Scope;
use super::takes::Takes;
use super::word::word;

/// A listener of kind `relay`: links of the multi-path protocol.
#[derive(Debug, Clone, PartialEq)]
pub struct Relay {
    /// What every listener has.
    pub inbound: Inbound,
}

/// A listener, by its kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Listener {
    /// `kind: forward`
    Forward(Forward),
    /// `kind: relay`
    Relay(Relay),
}

impl Listener {
    /// Returns what every listener has.
    #[must_use]
    pub fn inbound(&self) -> &Inbound {
        match self {
            Self::Forward(forward) => &forward.inbound,
            Self::Relay(relay) => &relay.inbound,
        }
    }

    /// Returns the listener if it has targets.
    #[must_use]
    pub fn forward(&self) -> Option<&Forward> {
        if let Self::Forward(forward) = self { Some(forward) } else { None }
    }
}

/// Returns `listeners`, and all keys of its items.
pub(super) fn keys() -> Vec<Key> {
    let mut keys = Inbound::keys();
    // The keys of a kind stand between those of its addresses and those of its access.
    let behind_listen = keys.iter().position(|key| key.path == "listen").map_or(keys.len(), |place| place + 1);
    let forward = Forward::keys().into_iter().map(|key| key.only_with(Kind::Forward));
    keys.splice(behind_listen..behind_listen, forward);
    Takes::<()>::new("list", |_, _| None)
        .with_items(keys)
        .required("[{ name: login, .. }]")
        .keys("listeners", "where connections are accepted; at least one")
}

/// Reads `listeners`. `edges` are the addresses of the core's edges, `None` if those were wrong.
pub(super) fn read(root: &Scope<'_>, edges: Option<&[IpNet]>) -> Option<Vec<Listener>> {
    let items = root.items("listeners")?;
    if items.is_empty() && root.has("listeners") {
        root.wrong("listeners", "has no listener in it; give at least one");
    }
    let listeners: Vec<_> = items.into_iter().map(|item| listener(item, edges)).collect();
    listeners.into_iter().collect()
}

fn listener(item: Scope<'_>, edges: Option<&[IpNet]>) -> Option<Listener> {
    let kind = kind(&item);
    let item = item.of_kind(kind);
    item.check_keys();
    let inbound = Inbound::read(&item, kind, edges);
    match kind? {
        Kind::Relay => Some(Listener::Relay(Relay { inbound: inbound? })),
        Kind::Forward => Forward::read(&item, inbound).map(Listener::Forward),
    }
}

fn kind(item: &Scope<'_>) -> Option<Kind> {
    let kind = item.value("kind", word)?;
    if kind == Kind::Relay && item.role() == Role::Edge {
        item.wrong("kind", "`relay` is only in `role: core`; an edge forwards links with `kind: forward`");
        return None;
    }
    Some(kind)
}

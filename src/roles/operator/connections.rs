//! The registry for an operator: open connections, top talkers, and the closing of connections.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;

use super::no_listener;
use crate::admin::api::{
    AddressesQuestion, AddressesView, ApiError, ConnectionState, ConnectionView, ConnectionsQuestion, ConnectionsView,
    Network, TalkerView, Top,
};
use crate::admission::AddressKey;
use crate::connection::{Closing, ConnectionHandle, ConnectionRegistry, Route};

/// Returns whether a connection or a session of `player` belongs to a network.
pub(super) fn is_in(network: Network, player: SocketAddr) -> bool {
    network.0.contains(&player.ip().to_canonical())
}

/// Returns open connections, newest first. A listener may be one of `listeners`, or one that was removed and has
/// connections left.
///
/// # Errors
/// Fails if the listener that is asked for is neither.
pub(super) fn connections(
    registry: &ConnectionRegistry,
    listeners: &[String],
    asked: &ConnectionsQuestion,
    now: Instant,
) -> Result<ConnectionsView, ApiError> {
    let mut picked = registry.select(|handle| {
        asked.listener.as_ref().is_none_or(|name| handle.listener() == name)
            && asked.address.is_none_or(|network| is_in(network, handle.player_or_peer()))
    });
    if let Some(name) = &asked.listener
        && picked.is_empty()
        && !listeners.contains(name)
    {
        return Err(no_listener(name, listeners));
    }
    let total = picked.len() as u64;
    // Numbers are given out in order.
    picked.sort_unstable_by_key(|handle| Reverse(handle.id()));
    picked.truncate(asked.limit.get());
    Ok(ConnectionsView { total, connections: picked.iter().map(|handle| connection(handle, now)).collect() })
}

fn connection(handle: &ConnectionHandle, now: Instant) -> ConnectionView {
    let (state, target, client) = match handle.route() {
        None => (ConnectionState::Opening, None, None),
        Some(Route::Target(target)) => (ConnectionState::Forwarding, Some(target.to_string()), None),
        Some(Route::Client(client)) => (ConnectionState::Link, None, Some(*client)),
    };
    ConnectionView {
        id: handle.id(),
        listener: handle.listener().to_owned(),
        player: handle.player(),
        peer: handle.peer(),
        edge: handle.edge().map(ToString::to_string),
        state,
        target,
        client,
        age_seconds: now.saturating_duration_since(handle.began()).as_secs_f64(),
        bytes_in: handle.bytes_in(),
        bytes_out: handle.bytes_out(),
    }
}

/// Returns the top talkers, the first first; `banned` tells whether an address is banned.
pub(super) fn addresses(
    registry: &ConnectionRegistry,
    asked: &AddressesQuestion,
    banned: impl Fn(IpNet) -> bool,
) -> AddressesView {
    let mut talkers: HashMap<AddressKey, TalkerView> = HashMap::new();
    registry.select(|handle| {
        let key = AddressKey::from(handle.player_or_peer().ip());
        let talker = talkers.entry(key).or_insert_with(|| TalkerView {
            address: Network(key.network()),
            connections: 0,
            bytes_in: 0,
            bytes_out: 0,
            banned: false,
        });
        talker.connections += 1;
        talker.bytes_in += handle.bytes_in();
        talker.bytes_out += handle.bytes_out();
        false
    });
    let total = talkers.len() as u64;
    let mut addresses: Vec<_> = talkers.into_values().collect();
    addresses.sort_unstable_by_key(|talker| {
        let bytes = talker.bytes_in + talker.bytes_out;
        let (first, second) = match asked.by {
            Top::Connections => (talker.connections, bytes),
            Top::Bytes => (bytes, talker.connections),
        };
        (Reverse(first), Reverse(second), talker.address.0)
    });
    addresses.truncate(asked.limit.get());
    addresses.iter_mut().for_each(|talker| talker.banned = banned(talker.address.0));
    AddressesView { total, addresses }
}

/// Closes the connections that `wanted` picks; returns how many.
pub(super) fn close(
    registry: &ConnectionRegistry,
    closing: Closing,
    wanted: impl FnMut(&ConnectionHandle) -> bool,
) -> u64 {
    let picked: Vec<Arc<ConnectionHandle>> = registry.select(wanted);
    picked.iter().filter(|handle| handle.close(closing)).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Registration;

    /// Registers a connection of a player, to one of two listeners.
    fn enter(registry: &Arc<ConnectionRegistry>, listener: &str, player: &str) -> Registration {
        let present = registry.enter(&Arc::from(listener), SocketAddr::from(([127, 0, 0, 1], 9)));
        present.handle().set_player(player.parse().unwrap());
        present
    }

    fn ids(connections: &ConnectionsView) -> Vec<u64> {
        connections.connections.iter().map(|connection| connection.id).collect()
    }

    fn listeners() -> [String; 2] {
        ["links", "login"].map(str::to_owned)
    }

    #[test]
    fn connections_are_picked_by_listener_and_network_and_the_newest_come_first() {
        let registry = Arc::default();
        let _all = [
            enter(&registry, "links", "192.0.2.1:1"),
            enter(&registry, "login", "192.0.2.1:2"),
            enter(&registry, "login", "192.0.2.200:3"),
            enter(&registry, "login", "[2001:db8::1]:4"),
            enter(&registry, "login", "[::ffff:192.0.2.1]:5"),
        ];
        let ask = |listener: Option<&str>, address: Option<&str>| {
            let asked = ConnectionsQuestion {
                listener: listener.map(str::to_owned),
                address: address.map(|address| address.parse().unwrap()),
                ..ConnectionsQuestion::default()
            };
            connections(&registry, &listeners(), &asked, Instant::now()).map(|found| ids(&found))
        };
        assert_eq!(ask(None, None).unwrap(), [5, 4, 3, 2, 1]);
        assert_eq!(ask(Some("links"), None).unwrap(), [1]);
        assert_eq!(ask(None, Some("192.0.2.1")).unwrap(), [5, 2, 1], "a v4-mapped address is the IPv4 address");
        assert_eq!(ask(Some("login"), Some("192.0.2.128/25")).unwrap(), [3]);
        assert_eq!(ask(None, Some("2001:db8::/32")).unwrap(), [4]);
        assert_eq!(ask(Some("links"), Some("2001:db8::/32")).unwrap(), [0; 0]);
        let error = ask(Some("lonks"), None).unwrap_err();
        let expected = ("there is no listener `lonks`", "the listeners are: links, login");
        assert_eq!((error.error.as_str(), error.remedy.as_str()), expected);
        let left = enter(&registry, "removed", "192.0.2.1:6");
        assert_eq!(ask(Some("removed"), None).unwrap(), [6]);
        drop(left);
        let two = ConnectionsQuestion { limit: crate::admin::api::PageSize::new(2).unwrap(), ..Default::default() };
        let two = connections(&registry, &listeners(), &two, Instant::now()).unwrap();
        assert_eq!((two.total, ids(&two)), (5, vec![5, 4]));
    }

    #[test]
    fn a_connection_shows_how_far_it_has_come() {
        let registry = Arc::default();
        let all = ["links", "login", "login"].map(|listener| enter(&registry, listener, "192.0.2.1:1"));
        let unknown = registry.enter(&Arc::from("login"), "198.51.100.7:40000".parse().unwrap());
        all[0].handle().set_route(Route::Client(77));
        all[0].handle().set_edge("waw1".into());
        all[1].handle().set_route(Route::Target("203.0.113.9:7170".into()));
        all[1].handle().add_in(10);
        all[1].handle().add_out(20);
        let now = unknown.handle().began() + std::time::Duration::from_millis(1500);
        let seen = connections(&registry, &listeners(), &ConnectionsQuestion::default(), now).unwrap().connections;
        let [last, opening, forwarding, link] = &seen[..] else { panic!("{seen:?}") };
        assert_eq!((last.player, last.peer, last.age_seconds), (None, "198.51.100.7:40000".parse().unwrap(), 1.5));
        assert_eq!((opening.state, &opening.target), (ConnectionState::Opening, &None));
        assert_eq!(
            (forwarding.state, forwarding.target.as_deref()),
            (ConnectionState::Forwarding, Some("203.0.113.9:7170"))
        );
        assert_eq!((forwarding.bytes_in, forwarding.bytes_out), (10, 20));
        assert_eq!((link.state, link.client, link.edge.as_deref()), (ConnectionState::Link, Some(77), Some("waw1")));
    }

    #[test]
    fn top_talkers_are_counted_by_address_and_ipv6_by_its_64() {
        let registry = Arc::default();
        let all =
            ["192.0.2.1:1", "192.0.2.2:1", "192.0.2.2:2", "[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8::3]:1"]
                .map(|player| enter(&registry, "login", player));
        all[0].handle().add_out(1000);
        all[1].handle().add_in(10);
        let ask = |by| {
            let asked = AddressesQuestion { by, ..AddressesQuestion::default() };
            let found = addresses(&registry, &asked, |network| network == "192.0.2.2/32".parse::<IpNet>().unwrap());
            assert_eq!(found.total, 3);
            let show = |talker: &TalkerView| {
                format!(
                    "{} {} {}{}",
                    talker.address,
                    talker.connections,
                    talker.bytes_in + talker.bytes_out,
                    if talker.banned { " banned" } else { "" }
                )
            };
            found.addresses.iter().map(show).collect::<Vec<_>>()
        };
        assert_eq!(ask(Top::Connections), ["2001:db8::/64 3 0", "192.0.2.2 2 10 banned", "192.0.2.1 1 1000"]);
        assert_eq!(ask(Top::Bytes), ["192.0.2.1 1 1000", "192.0.2.2 2 10 banned", "2001:db8::/64 3 0"]);
    }

    #[test]
    fn what_is_closed_is_told_why_and_counts_once() {
        let registry = Arc::default();
        let all = ["192.0.2.1:1", "192.0.2.2:1"].map(|player| enter(&registry, "login", player));
        let one: Network = "192.0.2.1".parse().unwrap();
        assert_eq!(close(&registry, Closing::Disconnected, |handle| is_in(one, handle.player_or_peer())), 1);
        assert_eq!(close(&registry, Closing::Drained, |_| true), 1, "the first reason holds");
        let reasons = all.each_ref().map(|present| present.handle().closing());
        assert_eq!(reasons, [Some(Closing::Disconnected), Some(Closing::Drained)]);
    }
}

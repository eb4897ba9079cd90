//! Reading what only the core has: `edges[]`, `game_servers[]` and `sessions`.

use super::listener::{Unique, values};
use super::name::Name;
use super::scope::Scope;
use super::{EdgePeer, GameServer, Sessions, Source, address, formats};

/// The `edge` label of links that come from no edge.
const OTHER: &str = "other";

/// Reads `edges`. With a tunnel, certificates tell who they are.
pub(super) fn edges(root: &Scope<'_>) -> Option<Vec<EdgePeer>> {
    let tunnel = root.has("tunnel");
    let (mut names, mut networks) = (Unique::default(), Unique::default());
    let read = |item: Scope<'_>| {
        item.check_keys();
        let name = edge_name(&item, tunnel, &mut names);
        let addresses =
            if tunnel && !item.has("address") { Some(Vec::new()) } else { item.some("address", address::network) };
        for (spot, network) in addresses.iter().flatten() {
            networks.claim(&item, spot.clone(), network.to_string());
        }
        if item.has("dial") && !tunnel {
            item.wrong("dial", "needs the core's end of the tunnel; give `tunnel` with `tls`");
        }
        let dial = item.optional("dial", address::target);
        let revoked = item.value("revoked", formats::flag);
        Some(EdgePeer { name: name?, addresses: values(addresses?), dial: dial?, revoked: revoked? })
    };
    let edges: Vec<_> = root.items("edges")?.into_iter().map(read).collect();
    edges.into_iter().collect()
}

/// Reads the name of an edge. With a tunnel it is the name in a certificate too.
pub(super) fn edge_name(item: &Scope<'_>, tunnel: bool, names: &mut Unique) -> Option<String> {
    let name = item.value("name", formats::label);
    match name.as_deref() {
        Some(OTHER) => item.wrong("name", "`other` is the label of peers that are no edge; choose another name"),
        Some(name) if tunnel => match Name::edge(name) {
            // TLS does not tell letters' cases apart.
            Ok(_) => names.claim(item, item.spot("name"), name.to_ascii_lowercase()),
            Err(error) => item.wrong("name", error.to_string()),
        },
        Some(name) => names.claim(item, item.spot("name"), name.to_owned()),
        None => {}
    }
    name
}

/// Reads `game_servers`. With a listener of kind `relay` there must be one.
pub(super) fn game_servers(root: &Scope<'_>, relay: bool) -> Option<Vec<GameServer>> {
    let mut ports = Unique::default();
    let items = root.items("game_servers")?;
    if items.is_empty() && relay {
        root.wrong(
            "game_servers",
            "is missing: a listener of `kind: relay` needs it; as in `- { port: 7172, address: \"127.0.0.1:7172\" }`",
        );
    }
    let read = |item: Scope<'_>| {
        item.check_keys();
        let port = item.value("port", formats::port);
        if let Some(port) = port {
            ports.claim(&item, item.spot("port"), port.to_string());
        }
        let address = item.value("address", address::target);
        let player_address = item.value("player_address", formats::word);
        let framing = item.value("framing", formats::word);
        let max_packets_per_second = item.value("max_packets_per_second", formats::or_none(formats::count));
        let connects_per_second = item.value("connects_per_second", formats::or_none(formats::count));
        let source = item.value("source", formats::word);
        let ipv6_players = item.value("ipv6_players", formats::word);
        if let (Some(Source::LoopbackPerPlayer), Some(address)) = (source, &address)
            && !address::is_ipv4_loopback(address)
        {
            let message = format!(
                "`loopback_per_player` needs a game server on this host, and `{address}` is not on 127.0.0.0/8; write \
                 the address as `127.0.0.1:{}`, or leave this out",
                address.port
            );
            item.wrong("source", message);
        }
        Some(GameServer {
            port: port?,
            address: address?,
            player_address: player_address?,
            framing: framing?,
            max_packets_per_second: max_packets_per_second?,
            connects_per_second: connects_per_second?,
            source: source?,
            ipv6_players: ipv6_players?,
        })
    };
    let servers: Vec<_> = items.into_iter().map(read).collect();
    servers.into_iter().collect()
}

/// Reads `sessions`.
pub(super) fn sessions(root: &Scope<'_>) -> Option<Sessions> {
    let sessions = root.section("sessions");
    let bind_sessions = sessions.value("bind_sessions", formats::word);
    let linger = sessions.value("linger", formats::duration);
    let leave_grace = sessions.value("leave_grace", formats::duration);
    let max_per_address = sessions.value("max_per_address", formats::quantity);
    let max = sessions.value("max", formats::quantity);
    let max_per_link = sessions.value("max_per_link", formats::quantity);
    let opens_per_address = sessions.value("opens_per_address", formats::or_none(formats::rate));
    let unacked = sessions.value("unacked", formats::size);
    let reorder = sessions.value("reorder", formats::size);
    let pending = sessions.value("pending", formats::size);
    Some(Sessions {
        bind_sessions: bind_sessions?,
        linger: linger?,
        leave_grace: leave_grace?,
        max_per_address: max_per_address?,
        max: max?,
        max_per_link: max_per_link?,
        opens_per_address: opens_per_address?,
        unacked: unacked?,
        reorder: reorder?,
        pending: pending?,
    })
}

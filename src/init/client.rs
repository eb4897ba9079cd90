//! The module for players' clients: it tells a client the edges, and again after each login.

use std::net::Ipv6Addr;

use otproxy_config::{LINKS_PORT, Topology, TopologyEdge};

/// Its folder, as it goes into the client's `mods`.
pub(super) const FOLDER: &str = "client/otproxy";
/// The file of earlier versions, in whose place it is.
pub(super) const LINES: &str = "client.lua";
/// The places in its Lua that the topology fills.
const EDGES: &str = "--[[EDGES]]";
const LIST_URLS: &str = "--[[LIST_URLS]]";

/// Returns its `.otmod`, which tells clients what to load.
pub(super) fn description() -> &'static str {
    include_str!("otproxy.otmod")
}

/// Returns its Lua. Every player gets it, so it has nothing of an edge but what clients are told. Hosts and URLs have no character
/// that would need escaping.
pub(super) fn module(topology: &Topology) -> String {
    let mut edges = Vec::new();
    // Attackers read it too, and a reserve is one that they do not know.
    for edge in topology.told() {
        let host = &edge.public;
        edges.push(if is_left_out(edge) {
            format!("  -- {host} is left out: a list has names and IPv4 addresses alone")
        } else {
            format!("  {{ host = \"{host}:{LINKS_PORT}\", priority = {} }},", edge.priority)
        });
    }
    let ahead = topology.spare_names();
    edges.extend(ahead.iter().map(|host| format!("  {{ host = \"{host}:{LINKS_PORT}\", priority = 0 }},  -- ahead")));
    let urls: Vec<_> = topology.newer_lists().iter().map(|url| format!("  \"{url}\",")).collect();
    let filled = [(EDGES, edges), (LIST_URLS, urls)];
    let mut text = String::new();
    for line in include_str!("otproxy.lua").lines() {
        match filled.iter().find(|(place, _)| *place == line) {
            Some((_, lines)) => lines.iter().for_each(|line| text.extend([line, "\n"])),
            None => text.extend([line, "\n"]),
        }
    }
    text
}

/// Returns whether a client would read the edge's address as another one: it splits `host:port` at a colon.
pub(super) fn is_left_out(edge: &TopologyEdge) -> bool {
    edge.public.parse::<Ipv6Addr>().is_ok()
}

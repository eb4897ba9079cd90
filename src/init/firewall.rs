//! nftables rules, which close everything but ssh and the ports that the role needs.

use std::fmt::Write;
use std::net::IpAddr;

use super::host::Host;
use otproxy_config::{CoreMode, LINKS_PORT, LOGIN_PORT, Topology};

/// Returns `nftables.conf`.
pub(super) fn of_host(topology: &Topology, host: &Host<'_>) -> String {
    let port = topology.tunnel_port;
    let (sets, rules) = match (host, topology.core.mode) {
        (Host::Edge(_), CoreMode::Accept) => (banned(), players(topology)),
        // A rule that names the core would tell an intruder where it is. The core proves itself with its certificate.
        (Host::Edge(_), CoreMode::Dial) => (
            banned(),
            players(topology)
                + &format!(
                    "        tcp dport {port} accept comment \"the tunnel: open to all, as where the core is stands in no file here\"\n"
                ),
        ),
        (Host::Core, CoreMode::Dial) => {
            (String::new(), "        # Nothing else: the core connects to the edges.\n".to_owned())
        }
        (Host::Core, CoreMode::Accept) => edges_alone(topology),
    };
    format!(
        "\
#!/usr/sbin/nft -f
# The firewall of {who}. Made by `otproxy init`. It replaces all rules of this host: add what else the host serves, and
# mind programs that make rules of their own, such as Docker.
flush ruleset

table inet otproxy {{
{sets}    chain input {{
        type filter hook input priority filter; policy drop;
        iif \"lo\" accept
        ct state established,related accept
        ct state invalid drop
        meta l4proto {{ icmp, icmpv6 }} accept
        {ssh}
{rules}    }}
}}
",
        ssh = match host.ssh_port(topology) {
            Some(port) => format!("tcp dport {port} accept comment \"ssh\""),
            None => "tcp dport 22 accept comment \"ssh: your port, if it is another\"".to_owned(),
        },
        who = match host {
            Host::Core => "the core".to_owned(),
            Host::Edge(edge) => format!("the edge {}", edge.name),
        },
    )
}

/// Returns the rules that let players in, except banned ones: those keep ssh and everything else of the host.
fn players(topology: &Topology) -> String {
    let status = topology.status.as_ref().map(|status| status.port);
    let games: Vec<_> = topology.forwarded_worlds().map(|world| world.port).collect();
    let mut what = vec!["links", "login"];
    what.extend(status.map(|_| "status"));
    what.extend(games.first().map(|_| "game"));
    what.extend(topology.web.as_ref().map(|_| "HTTP"));
    let web = topology.web.as_ref().map(|web| web.port);
    let what = what.join(", ");
    let ports = [LINKS_PORT, LOGIN_PORT].into_iter().chain(status).chain(games).chain(web);
    let ports: Vec<_> = ports.map(|port| port.to_string()).collect();
    let ports = format!("tcp dport {{ {} }}", ports.join(", "));
    let rules = [
        format!("ip saddr @banned4 {ports} drop"),
        format!("ip6 saddr @banned6 {ports} drop"),
        format!("{ports} accept comment \"players: {what}\""),
    ];
    rules.map(|rule| format!("        {rule}\n")).concat()
}

/// Returns the sets of `bans.nftables`.
fn banned() -> String {
    let set =
        |name, kind| format!("    set {name} {{\n        type {kind}\n        flags interval, timeout\n    }}\n\n");
    let sets = [("banned4", "ipv4_addr"), ("banned6", "ipv6_addr")].map(|(name, kind)| set(name, kind)).concat();
    format!("    # otproxy fills them where edge.yaml says `nftables: inet otproxy`; else they stay empty.\n{sets}")
}

/// Returns the sets of the edges' addresses, and the rules that let them to the tunnel's port.
fn edges_alone(topology: &Topology) -> (String, String) {
    // The reader of the topology has checked that they are addresses.
    let addresses: Vec<IpAddr> = topology.live().filter_map(|edge| edge.address.parse().ok()).collect();
    let (mut sets, mut rules) = (String::new(), String::new());
    for (family, set, kind) in [("ip", "edges4", "ipv4_addr"), ("ip6", "edges6", "ipv6_addr")] {
        let own = addresses.iter().filter(|address| address.is_ipv4() == (family == "ip"));
        let own: Vec<_> = own.map(IpAddr::to_string).collect();
        if own.is_empty() {
            continue;
        }
        let elements = own.join(", ");
        let _ = write!(sets, "    set {set} {{\n        type {kind}\n        elements = {{ {elements} }}\n    }}\n\n");
        let _ = writeln!(
            rules,
            "        {family} saddr @{set} tcp dport {} accept comment \"the tunnel: the edges alone\"",
            topology.tunnel_port
        );
    }
    (sets, rules)
}

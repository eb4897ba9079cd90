//! The dashboard of edges: connections and refusals, what they forward, the tunnel, and the process.

use super::dashboard::{Dashboard, Panel, graph, number, row, states};

/// Returns the dashboard.
pub fn dashboard() -> Dashboard {
    Dashboard {
        uid: "otproxy-edge",
        title: "otproxy: edges",
        about: "Connections of players and of others, what is refused and why, the way to the core, and the process of each edge.",
        of_edges: true,
        rows: vec![
            row("Now", now()),
            row("Connections", connections()),
            row("Limits and bans", limits()),
            row("Forwarding", forwarding()),
            row("Tunnel", tunnel()),
            row("Process", process()),
        ],
    }
}

fn now() -> Vec<Panel> {
    vec![
        number("Connections", "Open now.").of("sum(otproxy_connections_active{EDGE})", "connections"),
        number("Accepted", "All that come, those refused afterwards included.")
            .of("sum(rate(otproxy_connections_accepted_total{EDGE}[$__rate_interval]))", "accepted")
            .unit("cps"),
        number("Refused", "Some are normal: scanners.")
            .of("sum(rate(otproxy_connections_rejected_total{EDGE}[$__rate_interval]))", "refused")
            .unit("cps")
            .from(20.0, "orange")
            .see("otproxyrefusalshigh"),
        number("Places taken", "Of the listener that is the fullest.")
            .of("max(otproxy_pressure_ratio{EDGE})", "taken")
            .unit("percentunit")
            .from(0.75, "orange")
            .from(1.0, "red")
            .see("otproxypressure"),
        number("Banned", "Networks and addresses.").of("sum(otproxy_bans_active{EDGE})", "banned").see("under-attack"),
        number("Trunks", "Connections to the core. Without one nobody plays over that edge.")
            .of("min(sum by (edge) (otproxy_tunnel_trunks{EDGE}))", "trunks")
            .from(0.0, "red")
            .from(1.0, "green")
            .see("otproxytunneldown"),
        number("Players' bytes", "Both ways.")
            .of("sum(rate(otproxy_bytes_total{EDGE}[$__rate_interval]))", "bytes")
            .unit("Bps"),
        number("Running for", "The process that started last.")
            .of("min(time() - process_start_time_seconds{EDGE})", "seconds")
            .unit("dtdurations")
            .see("otproxyrestartsoften"),
    ]
}

fn connections() -> Vec<Panel> {
    vec![
        graph("Connections by listener", "Open now.")
            .of("sum by (edge, listener) (otproxy_connections_active{EDGE})", "{{edge}} {{listener}}"),
        graph("Accepted, by listener", "All that come, those refused afterwards included.")
            .of("sum by (edge, listener) (rate(otproxy_connections_accepted_total{EDGE}[$__rate_interval]))", "{{edge}} {{listener}}")
            .unit("cps"),
        graph("Ended, by reason", "Connections that were of use. `client` and `target` are ends of either side; `tunnel` is a trunk that ended.")
            .of("sum by (edge, reason) (rate(otproxy_connections_closed_total{EDGE}[$__rate_interval]))", "{{edge}} {{reason}}")
            .unit("cps"),
        graph("Traffic", "Bytes of players: `in` from them, `out` to them.")
            .of("sum by (edge, direction) (rate(otproxy_bytes_total{EDGE}[$__rate_interval]))", "{{edge}} {{direction}}")
            .unit("Bps"),
        graph("Traffic by listener", "Both ways.")
            .of("sum by (edge, listener) (rate(otproxy_bytes_total{EDGE}[$__rate_interval]))", "{{edge}} {{listener}}")
            .unit("Bps"),
        graph("Traffic of this month", "Of the whole host, as its bill counts, with `traffic` in the core's file.")
            .of("max by (edge) (otproxy_edge_traffic_month_bytes{CORE,edge=~\"$edge\"})", "{{edge}}")
            .unit("decbytes")
            .see("fleet.md#states"),
    ]
}

fn limits() -> Vec<Panel> {
    vec![
        graph("Refused, by reason", "`silent` and `unexpected` are scanners. `rate` and reasons with `limit` are peers who want too much, or limits that are too tight.")
            .of("sum by (edge, reason) (rate(otproxy_connections_rejected_total{EDGE}[$__rate_interval]))", "{{edge}} {{reason}}")
            .unit("cps")
            .see("the-kinds-of-attack"),
        graph("Refused, by listener", "The listeners that are attacked.")
            .of("sum by (edge, listener) (rate(otproxy_connections_rejected_total{EDGE}[$__rate_interval]))", "{{edge}} {{listener}}")
            .unit("cps")
            .see("otproxyrefusalshigh"),
        graph("Places taken, by listener", "From 75 % on unauthenticated peers have less time; at 100 % slots change hands. Without a listener it is the whole process.")
            .of("max by (edge, listener) (otproxy_pressure_ratio{EDGE})", "{{edge}} {{listener}}")
            .unit("percentunit")
            .up_to(1.0)
            .from(0.75, "orange")
            .see("otproxypressure"),
        graph("Bans that hold", "Networks and addresses.")
            .of("max by (edge) (otproxy_bans_active{EDGE})", "{{edge}}")
            .see("under-attack"),
        graph("Bans made, by reason", "By the rules of `bans`, and by the operator.")
            .of("sum by (edge, reason) (rate(otproxy_bans_total{EDGE}[$__rate_interval]))", "{{edge}} {{reason}}")
            .unit("ops"),
        graph("Failures", "Accepts that failed, as for want of files, and bans that did not get into the kernel.")
            .of("sum by (edge) (rate(otproxy_accept_errors_total{EDGE}[$__rate_interval]))", "{{edge}} accepts")
            .of("sum by (edge) (rate(otproxy_bans_nftables_errors_total{EDGE}[$__rate_interval]))", "{{edge}} nftables")
            .unit("ops")
            .see("otproxydescriptorsshort"),
    ]
}

fn forwarding() -> Vec<Panel> {
    vec![
        states("Targets", "Without a check, down is that the last connect failed.")
            .of("min by (edge, listener, target) (otproxy_target_up{EDGE})", "{{edge}} {{listener}} {{target}}")
            .word(0, "down", "red")
            .word(1, "up", "green")
            .see("otproxytargetdown"),
        graph("Connects, by result", "Attempts to reach a target.")
            .of("sum by (edge, listener, result) (rate(otproxy_target_connects_total{EDGE}[$__rate_interval]))", "{{edge}} {{listener}} {{result}}")
            .unit("cps")
            .see("otproxytargetunreachable"),
        graph("Checks, by result", "On listeners with `check`.")
            .of("sum by (edge, listener, result) (rate(otproxy_target_checks_total{EDGE}[$__rate_interval]))", "{{edge}} {{listener}} {{result}}")
            .unit("ops")
            .see("otproxytargetdown"),
        graph("Round trip to the core", "Of checks with `check: ping`, on edges without a tunnel: no player's line is in it.")
            .of(
                "sum by (edge, listener) (rate(otproxy_target_check_rtt_seconds_sum{EDGE}[$__rate_interval])) \
                 / (sum by (edge, listener) (rate(otproxy_target_check_rtt_seconds_count{EDGE}[$__rate_interval])) > 0)",
                "{{edge}} {{listener}}",
            )
            .unit("s"),
        graph("Status requests, by result", "`cached` in thousands is a flood that the game server does not hear of. `failed`: server lists show the server as down.")
            .of("sum by (edge, result) (rate(otproxy_status_requests_total{EDGE}[$__rate_interval]))", "{{edge}} {{result}}")
            .unit("reqps")
            .see("otproxystatusunknown"),
        graph("Requests over HTTP", "`kept` are answers that the edge had.")
            .of("sum by (edge, route, result) (rate(otproxy_web_requests_total{EDGE}[$__rate_interval]))", "{{edge}} {{route}} {{result}}")
            .unit("reqps"),
    ]
}

fn tunnel() -> Vec<Panel> {
    vec![
        graph("Trunks by edge", "Connections to the core.")
            .of("sum by (edge) (otproxy_tunnel_trunks{EDGE})", "{{edge}}")
            .see("otproxytunneldown"),
        graph("Streams by edge", "Links and forwarded connections in the trunks.")
            .of("sum by (edge) (otproxy_tunnel_streams{EDGE})", "{{edge}}"),
        graph("Handshakes, by result", "All results but `ok` are scanners, or certificates that do not fit.")
            .of(
                "sum by (edge, result) (rate(otproxy_tunnel_handshakes_total{EDGE}[$__rate_interval]))",
                "{{edge}} {{result}}",
            )
            .unit("ops")
            .see("otproxystrangersatthetunnel"),
    ]
}

fn process() -> Vec<Panel> {
    vec![
        graph("Processor", "In cores. As many as there are workers is all that an edge can use.")
            .of("sum by (edge) (rate(process_cpu_seconds_total{EDGE}[$__rate_interval]))", "{{edge}}")
            .unit("none"),
        graph("Memory", "Of the process.")
            .of("max by (edge) (process_resident_memory_bytes{EDGE})", "{{edge}}")
            .unit("bytes"),
        graph("Open files", "The share of files that the process may open.")
            .of("max by (edge) (process_open_fds{EDGE} / process_max_fds{EDGE})", "{{edge}}")
            .unit("percentunit")
            .up_to(1.0)
            .from(0.8, "orange")
            .see("otproxydescriptorsshort"),
    ]
}

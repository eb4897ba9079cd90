//! The dashboard of a core: sessions, packets, game servers, the tunnel, and the process.

use super::dashboard::{Dashboard, Panel, graph, row, states};
use super::overview::edge_states;

/// Returns the dashboard.
pub fn dashboard() -> Dashboard {
    Dashboard {
        uid: "otproxy-core",
        title: "otproxy: core",
        about: "Sessions and their packets, the game servers, the edges and the tunnel as the core sees them, and its process.",
        of_edges: false,
        rows: vec![
            row("Sessions", sessions()),
            row("Packets", packets()),
            row("Game servers", game_servers()),
            row("Edges and tunnel", edges()),
            row("Logins and the web", logins()),
            row("Process", process()),
        ],
    }
}

fn sessions() -> Vec<Panel> {
    vec![
        graph("Players by world", "Sessions that are alive, those without links at the moment included.")
            .of("sum by (port) (otproxy_relay_sessions_active{CORE})", "{{port}}")
            .stacked(),
        graph("Sessions opened", "Players who enter a world.")
            .of("sum by (port) (rate(otproxy_relay_sessions_opened_total{CORE}[$__rate_interval]))", "{{port}}")
            .unit("ops"),
        graph("Sessions ended, by reason", "`client_left` and `game_closed` are players who leave. All other reasons have a row in docs/haproxy.md.")
            .of("sum by (port, reason) (rate(otproxy_relay_sessions_ended_total{CORE}[$__rate_interval]))", "{{port}} {{reason}}")
            .unit("ops")
            .see("otproxysessionslost"),
        graph("Sessions refused, by reason", "`port`: clients ask for a world that is not in `game_servers`. `open_rate` and `session_limit`: too many, in all or of one address.")
            .of("sum by (reason) (rate(otproxy_relay_refused_total{CORE}[$__rate_interval]))", "{{reason}}")
            .unit("ops")
            .see("otproxyopensrefused"),
        graph("Links by edge", "Links that are open. `other` are peers that `edges` does not name.")
            .of("sum by (edge) (otproxy_relay_links_active{CORE})", "{{edge}}")
            .see("otproxylinksdropped"),
        graph("Joined from elsewhere", "Players whose address changes, or differs by path. They play on.")
            .of("sum(rate(otproxy_relay_joined_elsewhere_total{CORE}[$__rate_interval]))", "links")
            .unit("ops"),
    ]
}

fn packets() -> Vec<Panel> {
    vec![
        graph("Packets by world", "Each counted once, whatever the number of paths.")
            .of("sum by (port, direction) (rate(otproxy_relay_packets_total{CORE}[$__rate_interval]))", "{{port}} {{direction}}")
            .unit("pps"),
        graph("From players, by edge", "Frames that came: `first` delivered its packet, `duplicate` came when another had.")
            .of(
                "sum by (edge, outcome) (rate(otproxy_relay_frames_total{CORE,direction=\"in\"}[$__rate_interval]))",
                "{{edge}} {{outcome}}",
            )
            .unit("pps"),
        graph("To players, by edge", "Frames that were written. `first` says which link the core began with, and not which copy arrived first.")
            .of(
                "sum by (edge, outcome) (rate(otproxy_relay_frames_total{CORE,direction=\"out\"}[$__rate_interval]))",
                "{{edge}} {{outcome}}",
            )
            .unit("pps"),
        graph("Round trip by edge", "Half of all round trips of players take longer than the first of the two lines of an edge, and one in twenty longer than the second.")
            .of(
                "histogram_quantile(0.5, sum by (edge, le) (rate(otproxy_relay_link_rtt_seconds_bucket{CORE}[$__rate_interval])))",
                "{{edge}} median",
            )
            .of(
                "histogram_quantile(0.95, sum by (edge, le) (rate(otproxy_relay_link_rtt_seconds_bucket{CORE}[$__rate_interval])))",
                "{{edge}} slowest twentieth",
            )
            .unit("s")
            .see("otproxyslowpath"),
        graph("Unacknowledged", "Bytes that are kept for replay until clients acknowledge them.")
            .of("sum by (instance) (otproxy_relay_unacked_bytes{CORE})", "{{instance}}")
            .unit("bytes"),
        graph("Memory of sessions", "Kept for replay, ahead of its turn and for game servers, beside its limit, `sessions.memory`.")
            .of("max by (instance) (otproxy_relay_memory_bytes{CORE})", "{{instance}}")
            .of("max by (instance) (otproxy_relay_memory_limit_bytes{CORE})", "{{instance}} limit")
            .unit("bytes")
            .see("otproxymemoryhigh"),
    ]
}

fn game_servers() -> Vec<Panel> {
    vec![
        states("Worlds", "Game servers that the core reaches. Without a check that is as the last session found it.")
            .of("min by (instance, port) (otproxy_game_server_up{CORE})", "{{port}}")
            .word(0, "down", "red")
            .word(1, "up", "green")
            .see("otproxygameserverdown"),
        graph("Sessions without a game server", "Sessions that ended as the game server could not be reached, or as there were too many to connect.")
            .of(
                "sum by (port, reason) \
                 (rate(otproxy_relay_sessions_ended_total{CORE,reason=~\"game_unreachable|connect_queue\"}[$__rate_interval]))",
                "{{port}} {{reason}}",
            )
            .unit("ops")
            .see("otproxygameserverunreachable"),
        graph("Connects of listeners, by result", "Logins, status and games of players without links, on their way to the game server.")
            .of(
                "sum by (listener, result) (rate(otproxy_target_connects_total{CORE}[$__rate_interval]))",
                "{{listener}} {{result}}",
            )
            .unit("cps")
            .see("otproxytargetunreachable"),
    ]
}

fn edges() -> Vec<Panel> {
    vec![
        edge_states(),
        states("Told to clients", "Edges that are in the list for clients.")
            .of("max by (instance, edge) (otproxy_edge_listed{CORE})", "{{edge}}")
            .word(0, "not told", "orange")
            .word(1, "told", "green")
            .see("fleet.md#states"),
        graph("Visits of other edges", "At the address of an edge for clients. One that fails for all visitors cannot be reached from outside.")
            .of("sum by (edge, result) (rate(otproxy_edge_probes_total{CORE}[$__rate_interval]))", "{{edge}} {{result}}")
            .unit("ops")
            .see("fleet.md#states"),
        graph("Trunks", "Connections between the core and each edge. Without one nobody plays over that edge.")
            .of("sum by (edge) (otproxy_tunnel_trunks{CORE})", "{{edge}}")
            .see("otproxytunneldown"),
        graph("Streams", "Links and forwarded connections in the trunks.")
            .of("sum by (edge) (otproxy_tunnel_streams{CORE})", "{{edge}}"),
        graph("Handshakes, by result", "All results but `ok` are peers that are no host of yours, or certificates that do not fit.")
            .of("sum by (result) (rate(otproxy_tunnel_handshakes_total{CORE}[$__rate_interval]))", "{{result}}")
            .unit("ops")
            .see("otproxystrangersatthetunnel"),
        graph("Dials, by result", "Attempts of the core to connect to edges. None, where edges connect to the core.")
            .of("sum by (edge, result) (rate(otproxy_tunnel_dials_total{CORE}[$__rate_interval]))", "{{edge}} {{result}}")
            .unit("ops")
            .see("otproxytunneldown"),
        graph("Streams refused", "`unknown_listener`: an edge leads to a listener that the core does not have. `too_many`: more than one edge may have.")
            .of("sum by (edge, reason) (rate(otproxy_tunnel_streams_refused_total{CORE}[$__rate_interval]))", "{{edge}} {{reason}}")
            .unit("ops"),
        graph("Traffic of this month", "Of the hosts of edges with `traffic`, as their bills count.")
            .of("max by (edge) (otproxy_edge_traffic_month_bytes{CORE})", "{{edge}}")
            .unit("decbytes")
            .see("fleet.md#states"),
    ]
}

fn logins() -> Vec<Panel> {
    vec![
        graph(
            "Logins, by result",
            "Answers into which the edges were put (`rewritten`), and those that passed as they were.",
        )
        .of("sum by (way, result) (rate(otproxy_logins_total{CORE}[$__rate_interval]))", "{{way}} {{result}}")
        .unit("ops"),
        graph("Requests over HTTP", "Lists, status and logins.")
            .of(
                "sum by (route, result) (rate(otproxy_web_requests_total{CORE}[$__rate_interval]))",
                "{{route}} {{result}}",
            )
            .unit("reqps"),
        graph("Table proxies", "The web site's table: 1 while it is in step with the edges, and changes in it.")
            .of("max by (table) (otproxy_proxies_table_up{CORE})", "{{table}} in step")
            .of(
                "sum by (table) (increase(otproxy_proxies_table_changes_total{CORE}[$__rate_interval]))",
                "{{table}} changes",
            )
            .see("otproxyproxiestable"),
    ]
}

fn process() -> Vec<Panel> {
    vec![
        graph("Processor", "In cores. As many as there are workers is all that the core can use.")
            .of("sum by (instance) (rate(process_cpu_seconds_total{CORE}[$__rate_interval]))", "{{instance}}")
            .unit("none"),
        graph("Memory", "Of the process: resident, and what the kernel has promised.")
            .of("max by (instance) (process_resident_memory_bytes{CORE})", "{{instance}} resident")
            .of("max by (instance) (process_virtual_memory_bytes{CORE})", "{{instance}} virtual")
            .unit("bytes"),
        graph("Threads", "One for each worker, and a few more.").of("max by (instance) (process_threads{CORE})", "{{instance}}"),
        graph("Open files", "Beside their limit.")
            .of("max by (instance) (process_open_fds{CORE})", "{{instance}}")
            .of("max by (instance) (process_max_fds{CORE})", "{{instance}} limit")
            .see("otproxydescriptorsshort"),
        graph("Sessions over the last restart", "Sessions that go on in this process, and those that could not.")
            .of("sum by (instance, outcome) (otproxy_relay_restart_sessions_total{CORE})", "{{instance}} {{outcome}}")
            .see("otproxyrestartendedsessions"),
        graph("Time of the last restart", "Players stood still for this time, and for as long as their links took to be back. 0 if nothing was left to this process.")
            .of("max by (instance) (otproxy_relay_restart_seconds{CORE})", "{{instance}}")
            .unit("s")
            .see("a-restart-of-the-core"),
        graph("Lines lost", "Of the log, and of the access log.")
            .of("sum by (instance) (rate(otproxy_log_dropped_total{CORE}[$__rate_interval]))", "{{instance}} log")
            .of("sum by (instance) (rate(otproxy_access_log_dropped_total{CORE}[$__rate_interval]))", "{{instance}} access log")
            .unit("ops")
            .see("otproxyloglineslost"),
        graph("Defects", "Tasks that failed, each with one connection or session.")
            .of("sum by (instance) (increase(otproxy_panics_total{CORE}[$__rate_interval]))", "{{instance}}")
            .see("otproxydefect"),
        graph("Age of the configuration", "The time since the file that is used was read.")
            .of("max by (instance) (time() - otproxy_config_last_reload_success_timestamp_seconds{CORE})", "{{instance}}")
            .unit("s")
            .see("otproxyconfignotreloaded"),
    ]
}

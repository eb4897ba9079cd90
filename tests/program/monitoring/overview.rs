//! The dashboard for an evening: do people play, over which paths, is the lag ours, and does anybody attack.

use super::dashboard::{Dashboard, Panel, graph, number, row, states, table};

/// Seconds of a day.
const DAY: f64 = 86_400.0;

/// Returns the dashboard.
pub fn dashboard() -> Dashboard {
    Dashboard {
        uid: "otproxy-overview",
        title: "otproxy: overview",
        about: "Does it work, which paths do players have, is the lag ours, and does anybody attack?",
        of_edges: false,
        rows: vec![
            row("Now", now()),
            row("Players and their paths", players()),
            row("Is the lag ours?", lag()),
            row("Attacks", attacks()),
            row("Hosts", hosts()),
        ],
    }
}

fn now() -> Vec<Panel> {
    vec![
        number("Players", "Sessions that are alive.").of("sum(otproxy_relay_sessions_active{CORE})", "players"),
        number("Links of a player", "Below 2 most players have one path alone, and notice when it breaks. Clients that are not in the game have links too.")
            .of("sum(otproxy_relay_links_active{CORE}) / (sum(otproxy_relay_sessions_active{CORE}) > 0)", "links")
            .from(0.0, "orange")
            .from(1.9, "green")
            .see("otproxyedgesshort"),
        number("Edges told to clients", "With less than two, all players notice the next fault.")
            .of("sum(otproxy_edge_listed{CORE})", "edges")
            .from(0.0, "red")
            .from(2.0, "green")
            .see("otproxyedgesshort"),
        number("Edges hit or out", "Edges that are attacked, or that cannot be used.")
            .of("sum(otproxy_edge_state{CORE,state=~\"hit|out\"})", "edges")
            .from(1.0, "orange")
            .see("otproxyedgeout"),
        number("Worlds down", "Game servers that the core does not reach.")
            .of("count(otproxy_game_server_up{CORE} == 0) or vector(0)", "worlds")
            .from(1.0, "red")
            .see("otproxygameserverdown"),
        number("Alerts", "Alerts that fire now, those for information aside. Without the rules in Prometheus it is always 0.")
            .of("count(ALERTS{job=~\"$job\",alertname=~\"Otproxy.*\",alertstate=\"firing\",severity!=\"info\"}) or vector(0)", "alerts")
            .from(1.0, "red")
            .see("dashboards-and-alerts"),
        number("Refused", "Connections that are refused, at all hosts. Some are normal: scanners.")
            .of("sum(rate(otproxy_connections_rejected_total{BOTH}[$__rate_interval]))", "refused")
            .unit("cps")
            .from(20.0, "orange")
            .see("otproxyrefusalshigh"),
        number("Next certificate ends", "The time left to the certificate that ends first, of all hosts.")
            .of("min(otproxy_certificate_expiry_timestamp_seconds{BOTH} - time())", "left")
            .unit("dtdurations")
            .from(0.0, "red")
            .from(14.0 * DAY, "orange")
            .from(30.0 * DAY, "green")
            .see("otproxycertificateexpires"),
    ]
}

fn players() -> Vec<Panel> {
    vec![
        graph("Players by world", "Sessions that are alive, those without links at the moment included.")
            .of("sum by (port) (otproxy_relay_sessions_active{CORE})", "{{port}}")
            .stacked(),
        graph("Links by edge", "A line that falls to 0 is a path that nobody can take; one that is at 0 while others are not is an edge that clients do not reach.")
            .of("sum by (edge) (otproxy_relay_links_active{CORE})", "{{edge}}")
            .see("otproxypathlost"),
        graph("First by edge", "The share of packets from players that came over this edge before any other. An edge that is first for nobody adds resilience, and no speed.")
            .of(
                "sum by (edge) (rate(otproxy_relay_frames_total{CORE,direction=\"in\",outcome=\"first\"}[$__rate_interval])) \
                 / (sum by (edge) (rate(otproxy_relay_frames_total{CORE,direction=\"in\"}[$__rate_interval])) > 0)",
                "{{edge}}",
            )
            .unit("percentunit")
            .up_to(1.0),
        graph("Sessions opened", "Players who enter a world.")
            .of("sum by (port) (rate(otproxy_relay_sessions_opened_total{CORE}[$__rate_interval]))", "{{port}}")
            .unit("ops"),
        graph("Sessions ended, by reason", "`client_left` and `game_closed` are players who leave. `links_lost` are players whose links were all gone for too long.")
            .of("sum by (reason) (rate(otproxy_relay_sessions_ended_total{CORE}[$__rate_interval]))", "{{reason}}")
            .unit("ops")
            .see("otproxysessionslost"),
        graph("Sessions refused, by reason", "Players who ask for a session and are told no.")
            .of("sum by (reason) (rate(otproxy_relay_refused_total{CORE}[$__rate_interval]))", "{{reason}}")
            .unit("ops")
            .see("otproxyopensrefused"),
    ]
}

fn lag() -> Vec<Panel> {
    vec![
        graph("Round trip by edge, median", "The way from players over an edge to the core and back, as their clients measure it. One edge alone that rises is that edge, or its provider.")
            .of(
                "histogram_quantile(0.5, sum by (edge, le) (rate(otproxy_relay_link_rtt_seconds_bucket{CORE}[$__rate_interval])))",
                "{{edge}}",
            )
            .unit("s")
            .from(0.3, "orange")
            .see("otproxyslowpath"),
        graph("Round trip by edge, slowest twentieth", "The same for one round trip in twenty, which is longer. All edges that rise at once are what they have in common: the core's line, or the core.")
            .of(
                "histogram_quantile(0.95, sum by (edge, le) (rate(otproxy_relay_link_rtt_seconds_bucket{CORE}[$__rate_interval])))",
                "{{edge}}",
            )
            .unit("s")
            .from(0.3, "orange")
            .see("otproxyslowpath"),
        graph("Worlds that stood still", "Time for which a game server sent nothing to anybody while people played, for each second: the lag is its own, or its host's.")
            .of("sum by (port) (rate(otproxy_game_stall_seconds_sum{CORE}[$__rate_interval]))", "{{port}}")
            .unit("s")
            .see("otproxyworldstoodstill"),
        graph("Edges slower than usual", "By how much round trips over an edge are longer than those of the last 10 minutes.")
            .of("otproxy_edge_jitter_seconds{CORE}", "{{edge}}")
            .unit("s")
            .from(0.05, "orange")
            .see("otproxyedgejitter"),
        graph("Host held up", "Time by which threads of otproxy had their turn late, for each second: too much to do, or a host that is sold too often.")
            .of("sum by (instance, edge, worker) (rate(otproxy_worker_delay_seconds_sum{BOTH}[$__rate_interval]))", "{{instance}} {{edge}} {{worker}}")
            .unit("s")
            .see("otproxyhostheldup"),
        graph("Between edges", "Visits of edges at each other, without a player's own line in them.")
            .of("max by (from, edge) (otproxy_edge_probe_rtt_seconds{CORE})", "{{from}} to {{edge}}")
            .unit("s")
            .see("fleet.md#states"),
        graph("Unacknowledged", "Bytes that players have not acknowledged yet: they rise while players' own lines, or all edges, are slow.")
            .of("sum by (instance) (otproxy_relay_unacked_bytes{CORE})", "{{instance}}")
            .unit("bytes"),
        graph("Processor", "Of each process, in cores. A core that has as much as it has workers is late for everybody.")
            .of("sum by (instance, edge) (rate(process_cpu_seconds_total{BOTH}[$__rate_interval]))", "{{instance}} {{edge}}")
            .unit("none"),
        graph("Traffic by edge", "Bytes of players, both ways. An edge whose line is full is late.")
            .of("sum by (edge) (rate(otproxy_bytes_total{BOTH,role=\"edge\"}[$__rate_interval]))", "{{edge}}")
            .unit("Bps"),
    ]
}

fn attacks() -> Vec<Panel> {
    vec![
        edge_states(),
        graph("Refused, by reason", "`silent` and `unexpected` are scanners. `rate` and reasons with `limit` are peers who want too much, or limits that are too tight.")
            .of("sum by (reason) (rate(otproxy_connections_rejected_total{BOTH}[$__rate_interval]))", "{{reason}}")
            .unit("cps")
            .see("the-kinds-of-attack"),
        graph("Refused, by host", "The hosts that are attacked.")
            .of("sum by (instance, edge) (rate(otproxy_connections_rejected_total{BOTH}[$__rate_interval]))", "{{instance}} {{edge}}")
            .unit("cps")
            .see("otproxyrefusalshigh"),
        graph("Places taken", "The share of places for connections. From 75 % on unauthenticated peers have less time; at 100 % slots change hands.")
            .of("max by (instance, edge, listener) (otproxy_pressure_ratio{BOTH})", "{{instance}} {{edge}} {{listener}}")
            .unit("percentunit")
            .up_to(1.0)
            .from(0.75, "orange")
            .see("otproxypressure"),
        graph("Banned", "Networks and addresses.")
            .of("max by (instance, edge) (otproxy_bans_active{BOTH})", "{{instance}} {{edge}}")
            .see("under-attack"),
        graph("Connections accepted", "All that come, those refused afterwards included.")
            .of("sum by (instance, edge) (rate(otproxy_connections_accepted_total{BOTH}[$__rate_interval]))", "{{instance}} {{edge}}")
            .unit("cps"),
    ]
}

/// Returns the panel of the states of all edges.
pub fn edge_states() -> Panel {
    states("States of edges", "As the core judges them.")
        .of(
            "max by (instance, edge) (otproxy_edge_state{CORE,state=\"slow\"}) \
             + 2 * max by (instance, edge) (otproxy_edge_state{CORE,state=\"hit\"}) \
             + 3 * max by (instance, edge) (otproxy_edge_state{CORE,state=\"out\"})",
            "{{edge}}",
        )
        .word(0, "up", "green")
        .word(1, "slow", "yellow")
        .word(2, "hit", "orange")
        .word(3, "out", "red")
        .see("fleet.md#states")
}

fn hosts() -> Vec<Panel> {
    vec![
        table("Versions", "Which version runs, at each host.")
            .of("max by (instance, role, edge, version) (otproxy_build_info{BOTH})", "")
            .unit("none")
            .see("upgrading"),
        table("Certificates", "The time left to the end of each.")
            .of("min by (instance, edge, certificate) (otproxy_certificate_expiry_timestamp_seconds{BOTH} - time())", "")
            .unit("dtdurations")
            .from(0.0, "red")
            .from(14.0 * DAY, "orange")
            .from(30.0 * DAY, "green")
            .see("certificates"),
        graph("Running for", "The time since each process started: a line that falls to 0 is a restart.")
            .of("max by (instance, edge) (time() - process_start_time_seconds{BOTH})", "{{instance}} {{edge}}")
            .unit("s")
            .see("otproxyrestartsoften"),
        graph("Memory", "Of each process.")
            .of("max by (instance, edge) (process_resident_memory_bytes{BOTH})", "{{instance}} {{edge}}")
            .unit("bytes"),
        graph("Open files", "The share of files that each process may open.")
            .of("max by (instance, edge) (process_open_fds{BOTH} / process_max_fds{BOTH})", "{{instance}} {{edge}}")
            .unit("percentunit")
            .up_to(1.0)
            .from(0.8, "orange")
            .see("otproxydescriptorsshort"),
        graph("Wrong files, defects, lost lines", "Processes whose file was refused at the last reload; tasks that failed by a defect, and lines of logs that were lost, in the last hour.")
            .of("count(otproxy_config_last_reload_successful{BOTH} == 0) or vector(0)", "wrong files")
            .of("sum(increase(otproxy_panics_total{BOTH}[1h]))", "defects")
            .of("sum(increase(otproxy_log_dropped_total{BOTH}[1h])) + sum(increase(otproxy_access_log_dropped_total{BOTH}[1h]))", "lost lines")
            .from(1.0, "red")
            .see("otproxyconfignotreloaded"),
    ]
}

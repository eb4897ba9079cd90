use std::collections::BTreeSet;
use std::fmt::Write;

use std::time::Duration;

use otproxy_net::ConnectResult;
use otproxy_protocol::core::{EndReason, OpenError};
use otproxy_protocol::login::LoginResult;
use otproxy_protocol::login::http::Unchanged;

use super::*;
use crate::admission::{BanMetrics, ListenerMetrics};
use crate::alerts::AlertFailure;
use crate::certs::HandshakeResult;
use crate::connection::{AdmissionError, CloseReason};
use crate::forward::{CheckResult, StatusResult, TargetChecks, TargetState, show_state};
use crate::relay::{EdgeMetrics, PortMetrics};
use crate::tunnel::{TunnelError, TunnelMetrics};
use crate::web::{Route, WebResult};

const BUILD: BuildInfo = BuildInfo { version: "1.2.3", role: "core" };

/// A worker's metrics with every handle resolved.
fn worker() -> (Arc<Metrics>, ListenerMetrics, EdgeMetrics, PortMetrics) {
    let metrics = Arc::new(Metrics::new());
    let listener = ListenerMetrics::new(&metrics, "links");
    let (edge, port) = (EdgeMetrics::new(&metrics, "waw1"), PortMetrics::new(&metrics, 7172));
    ByReason::<StatusResult>::new(&metrics.status_requests, &["links"]);
    ByReason::<Unchanged>::new(&metrics.logins, &["links", "http"]);
    ByReason::<WebResult>::new(&metrics.web_requests, &["links", Route::Login.as_str()]);
    ByReason::<OpenError>::new(&metrics.relay_refused, &[]);
    ByReason::<HandshakeResult>::new(&metrics.tunnel_handshakes, &[]);
    ByReason::<AlertFailure>::new(&metrics.alerts_failed, &[]);
    BanMetrics::new(&metrics);
    TargetChecks::new(&metrics, "links", "1", true);
    TunnelMetrics::new(&metrics, "waw1");
    metrics.target_up.with_label_values(&["links", "1"]);
    metrics.game_server_up.with_label_values(&["7172"]);
    metrics.edge_state.with_label_values(&["waw1", "up"]);
    metrics.edge_listed.with_label_values(&["waw1"]);
    metrics.edge_jitter.with_label_values(&["waw1"]);
    metrics.game_stall.with_label_values(&["7172"]);
    metrics.worker_delay.with_label_values(&["worker-0"]);
    metrics.edge_probes.with_label_values(&["waw1", "ok"]);
    metrics.edge_probe_rtt.with_label_values(&["waw1", "fra1"]);
    metrics.edge_traffic_month_bytes.with_label_values(&["waw1"]);
    metrics.proxies_table_up.with_label_values(&["proxies"]);
    metrics.proxies_table_changes.with_label_values(&["proxies"]);
    show_state(&metrics, "links", "1", TargetState::Ready);
    metrics.restart_sessions.with_label_values(&["kept"]);
    metrics.pressure_ratio.with_label_values(&["links"]);
    metrics.certificate_expiry_timestamp.with_label_values(&["own"]);
    (metrics, listener, edge, port)
}

fn has(text: &str, line: &str) {
    assert!(text.lines().any(|l| l == line), "no line {line} in\n{text}");
}

#[test]
fn the_text_has_exactly_the_catalogue() {
    let text = render(&[worker().0, worker().0], BUILD);
    let types: BTreeSet<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).map(str::to_owned).collect();
    let expected: BTreeSet<_> = CATALOGUE.iter().map(|f| format!("{} {}", f.name, f.kind.as_str())).collect();
    assert_eq!(types, expected);
    assert_eq!(text.matches("# TYPE ").count(), CATALOGUE.len(), "each family once");
    for family in CATALOGUE {
        has(&text, &format!("# HELP {} {}", family.name, family.meaning));
        let series = text.lines().find(|line| {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            name == family.name || name == format!("{}_sum", family.name)
        });
        for label in family.labels {
            assert!(series.unwrap().contains(&format!("{label}=\"")), "{series:?} has no {label}");
        }
        assert_eq!(series.unwrap().matches("=\"").count(), family.labels.len());
    }
}

#[test]
fn every_reason_is_there_at_zero() {
    let text = render(&[worker().0], BUILD);
    for reason in AdmissionError::ALL {
        has(&text, &format!("otproxy_connections_rejected_total{{listener=\"links\",reason=\"{reason}\"}} 0"));
    }
    for reason in CloseReason::ALL {
        has(&text, &format!("otproxy_connections_closed_total{{listener=\"links\",reason=\"{reason}\"}} 0"));
    }
    for result in ConnectResult::ALL {
        has(&text, &format!("otproxy_target_connects_total{{listener=\"links\",result=\"{result}\"}} 0"));
    }
    for result in CheckResult::ALL {
        let labels = format!("listener=\"links\",result=\"{result}\",target=\"1\"");
        has(&text, &format!("otproxy_target_checks_total{{{labels}}} 0"));
    }
    for result in StatusResult::ALL {
        has(&text, &format!("otproxy_status_requests_total{{listener=\"links\",result=\"{result}\"}} 0"));
    }
    for reason in EndReason::ALL {
        has(&text, &format!("otproxy_relay_sessions_ended_total{{port=\"7172\",reason=\"{reason}\"}} 0"));
    }
    for result in HandshakeResult::ALL {
        has(&text, &format!("otproxy_tunnel_handshakes_total{{result=\"{result}\"}} 0"));
    }
    for refusal in TunnelError::ALL {
        has(&text, &format!("otproxy_tunnel_streams_refused_total{{edge=\"waw1\",reason=\"{refusal}\"}} 0"));
    }
    for reason in OpenError::ALL {
        has(&text, &format!("otproxy_relay_refused_total{{reason=\"{reason}\"}} 0"));
    }
}

#[test]
fn reasons_count_under_their_own_words() {
    let (metrics, listener, _, port) = worker();
    AdmissionError::ALL.iter().for_each(|&reason| (0..=reason as usize).for_each(|_| listener.rejected(reason)));
    CloseReason::ALL.iter().for_each(|&reason| (0..=reason as usize).for_each(|_| listener.closed(reason)));
    EndReason::ALL.iter().for_each(|&reason| (0..=reason as usize).for_each(|_| port.ended(reason)));
    let status = ByReason::new(&metrics.status_requests, &["links"]);
    let handshakes = ByReason::new(&metrics.tunnel_handshakes, &[]);
    StatusResult::ALL.iter().for_each(|&result| (0..=result as usize).for_each(|_| status.inc(result)));
    HandshakeResult::ALL.iter().for_each(|&result| (0..=result as usize).for_each(|_| handshakes.inc(result)));
    let checks = TargetChecks::new(&metrics, "links", "1", true);
    CheckResult::ALL.iter().for_each(|&result| (0..=result as usize).for_each(|_| checks.checked(result, None)));
    checks.checked(CheckResult::ALL[0], Some(Duration::from_millis(42)));
    listener.connect(ConnectResult::Timeout);
    let tunnel = TunnelMetrics::new(&metrics, "waw1");
    tunnel.dialled(None);
    (0..2).for_each(|_| tunnel.dialled(Some(ConnectResult::Handshake)));
    tunnel.refused(TunnelError::UnknownListener);
    let (held, dropped) = (tunnel.trunk(), tunnel.trunk());
    drop(dropped);
    ByReason::new(&metrics.relay_refused, &[]).inc(OpenError::Identity);
    let text = render(&[metrics], BUILD);
    for (n, reason) in AdmissionError::ALL.iter().enumerate() {
        has(&text, &format!("otproxy_connections_rejected_total{{listener=\"links\",reason=\"{reason}\"}} {}", n + 1));
    }
    for (n, reason) in CloseReason::ALL.iter().enumerate() {
        has(&text, &format!("otproxy_connections_closed_total{{listener=\"links\",reason=\"{reason}\"}} {}", n + 1));
    }
    for (n, reason) in EndReason::ALL.iter().enumerate() {
        has(&text, &format!("otproxy_relay_sessions_ended_total{{port=\"7172\",reason=\"{reason}\"}} {}", n + 1));
    }
    for (n, result) in StatusResult::ALL.iter().enumerate() {
        has(&text, &format!("otproxy_status_requests_total{{listener=\"links\",result=\"{result}\"}} {}", n + 1));
    }
    for (n, result) in CheckResult::ALL.iter().enumerate() {
        let labels = format!("listener=\"links\",result=\"{result}\",target=\"1\"");
        // The one with a round trip is a further `ok`.
        let count = if n == 0 { 2 } else { n + 1 };
        has(&text, &format!("otproxy_target_checks_total{{{labels}}} {count}"));
    }
    has(&text, "otproxy_target_check_rtt_seconds_sum{listener=\"links\",target=\"1\"} 0.042");
    for (n, result) in HandshakeResult::ALL.iter().enumerate() {
        has(&text, &format!("otproxy_tunnel_handshakes_total{{result=\"{result}\"}} {}", n + 1));
    }
    has(&text, "otproxy_tunnel_dials_total{edge=\"waw1\",result=\"ok\"} 1");
    has(&text, "otproxy_tunnel_dials_total{edge=\"waw1\",result=\"handshake\"} 2");
    has(&text, "otproxy_tunnel_streams_refused_total{edge=\"waw1\",reason=\"unknown_listener\"} 1");
    has(&text, "otproxy_tunnel_trunks{edge=\"waw1\"} 1");
    drop(held);
    has(&text, "otproxy_target_connects_total{listener=\"links\",result=\"timeout\"} 1");
    has(&text, "otproxy_relay_refused_total{reason=\"identity\"} 1");
}

#[test]
fn workers_are_summed() {
    let workers = [worker(), worker(), worker()];
    for (n, (metrics, listener, edge, port)) in workers.iter().enumerate() {
        listener.accepted.inc_by(n as u64 + 1);
        listener.bytes_in.inc_by(100);
        edge.rtt.observe(0.045);
        edge.rtt.observe(n as f64);
        edge.in_duplicate.inc();
        port.sessions_active.inc();
        metrics.relay_unacked_bytes.add(10);
        metrics.panics.inc();
    }
    // A gauge may come down on another worker than it went up on.
    workers[0].1.active.inc();
    workers[1].1.active.dec();
    ListenerMetrics::new(&workers[2].0, "login").accepted.inc();
    let text = render(&workers.map(|worker| worker.0), BUILD);
    for line in [
        "otproxy_connections_accepted_total{listener=\"links\"} 6",
        "otproxy_connections_accepted_total{listener=\"login\"} 1",
        "otproxy_connections_active{listener=\"links\"} 0",
        "otproxy_bytes_total{direction=\"in\",listener=\"links\"} 300",
        "otproxy_relay_frames_total{direction=\"in\",edge=\"waw1\",outcome=\"duplicate\"} 3",
        "otproxy_relay_sessions_active{port=\"7172\"} 3",
        "otproxy_relay_link_rtt_seconds_bucket{edge=\"waw1\",le=\"0.04\"} 1",
        "otproxy_relay_link_rtt_seconds_bucket{edge=\"waw1\",le=\"0.05\"} 4",
        "otproxy_relay_link_rtt_seconds_bucket{edge=\"waw1\",le=\"1\"} 5",
        "otproxy_relay_link_rtt_seconds_bucket{edge=\"waw1\",le=\"+Inf\"} 6",
        "otproxy_relay_link_rtt_seconds_count{edge=\"waw1\"} 6",
        "otproxy_relay_unacked_bytes 30",
        "otproxy_panics_total 3",
        "otproxy_build_info{role=\"core\",version=\"1.2.3\"} 1",
    ] {
        has(&text, line);
    }
}

#[test]
fn names_from_the_configuration_are_escaped() {
    let metrics = Arc::new(Metrics::new());
    ListenerMetrics::new(&metrics, "a\"b\\c\nd");
    has(&render(&[metrics], BUILD), r#"otproxy_connections_active{listener="a\"b\\c\nd"} 0"#);
}

/// The table of `docs/metrics.md`. `OTPROXY_BLESS=1 cargo test` writes it anew.
#[test]
fn the_documented_table_is_the_catalogue() {
    const BEGIN: &str = "<!-- the catalogue: generated, do not edit -->\n";
    const END: &str = "<!-- end of the catalogue -->\n";
    let mut table = "\n| name | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for MetricFamily { name, kind, labels, meaning } in CATALOGUE {
        let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        let labels = if labels.is_empty() { "none" } else { &labels };
        writeln!(table, "| `{name}` | {} | {labels} | {meaning} |", kind.as_str()).unwrap();
    }
    table.push_str("\n| label | values |\n|---|---|\n");
    for (label, words) in [
        ("`reason` of `otproxy_connections_rejected_total`", words(AdmissionError::ALL)),
        ("`reason` of `otproxy_connections_closed_total`", words(CloseReason::ALL)),
        ("`result` of `otproxy_target_connects_total`", words(ConnectResult::ALL)),
        ("`state` of `otproxy_target_state`", words(TargetState::ALL)),
        ("`result` of `otproxy_target_checks_total`", words(CheckResult::ALL)),
        ("`result` of `otproxy_status_requests_total`", words(StatusResult::ALL)),
        (
            "`result` of `otproxy_logins_total`, with the way `http`",
            format!("`rewritten`, `unanswered`, {}", words(Unchanged::ALL)),
        ),
        ("`route` of `otproxy_web_requests_total`", words(Route::ALL)),
        ("`result` of `otproxy_web_requests_total`", words(WebResult::ALL)),
        ("`result` of `otproxy_logins_total`, with the way `classic`", words(LoginResult::ALL)),
        ("`reason` of `otproxy_relay_sessions_ended_total`", words(EndReason::ALL)),
        ("`reason` of `otproxy_relay_refused_total`", words(OpenError::ALL)),
        ("`result` of `otproxy_tunnel_handshakes_total`", words(HandshakeResult::ALL)),
        ("`result` of `otproxy_tunnel_dials_total`", words(ConnectResult::ALL)),
        ("`reason` of `otproxy_tunnel_streams_refused_total`", words(TunnelError::ALL)),
        (
            "`certificate` of `otproxy_certificate_expiry_timestamp_seconds`",
            "`own`, `ca`, `admin`, `admin_ca`, `listener:NAME`".to_owned(),
        ),
    ] {
        writeln!(table, "| {label} | {words} |").unwrap();
    }
    table.push('\n');

    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the mark where the table begins");
    let (_, after) = rest.split_once(END).expect("the mark where the table ends");
    let expected = [before, BEGIN, &table, END, after].concat();
    if std::env::var_os("OTPROXY_BLESS").is_some() {
        std::fs::write(path, expected).unwrap();
    } else {
        assert_eq!(text, expected, "OTPROXY_BLESS=1 cargo test documented_table writes it anew");
    }
}

fn words<R: std::fmt::Display>(all: &[R]) -> String {
    all.iter().map(|reason| format!("`{reason}`")).collect::<Vec<_>>().join(", ")
}

#[test]
fn a_panic_is_counted_and_a_task_that_just_ends_is_not() {
    let metrics = Metrics::new();
    drop(metrics.panic_count());
    assert_eq!(metrics.panics.get(), 0);
    let held = metrics.panic_count();
    let task = std::panic::AssertUnwindSafe(move || {
        let _held = held;
        panic!("on purpose");
    });
    assert!(std::panic::catch_unwind(task).is_err());
    assert_eq!(metrics.panics.get(), 1);
}

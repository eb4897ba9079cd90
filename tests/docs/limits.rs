//! `docs/limits.md` says what the code does: every number in it is compared with a key's default or
//! with a constant, every reason with those that are counted.

use std::collections::{BTreeMap, BTreeSet};

use otproxy::connection::{AdmissionError, CloseReason};
use otproxy::metrics::CATALOGUE;
use otproxy::{
    access_log, admin, admission, alerts, connection, events, fleet, forward, handover, history, lag, proxies_table,
    pull, relay, report, roles, state, stderr, tunnel, web,
};
use otproxy_config as config;
use otproxy_config::{KEYS, Key, WhenAbsent};
use otproxy_net as net;
use otproxy_protocol as protocol;
use otproxy_protocol::core::{EndReason, OpenError};
use otproxy_protocol::edge_list;
use otproxy_protocol::frame::PacketId;

fn document() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/limits.md")).expect("docs/limits.md")
}

/// The rows of all tables, by cells.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let lines = text.lines().filter(|line| line.starts_with("| "));
    let rows: Vec<Vec<_>> = lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect();
    assert!(rows.iter().all(|row| row.len() == 6), "{rows:?}");
    let (heads, rows): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row[0] == "what");
    assert_eq!(heads.len(), 5, "tables");
    rows
}

fn is_limit(key: &Key) -> bool {
    let parts = [
        "sessions.",
        "limits.",
        ".timeouts.",
        ".status.",
        "_per_second",
        ".connects",
        ".max_connections",
        "shutdown_timeout",
        "bans.after",
        "bans.for",
    ];
    let others = ["sessions.bind_sessions", "limits.reset", "limits.fair_share", "limits.pressure"];
    let of_status = ["status.address", "status.port", "status.players", "routes.status"];
    let is_other = others.iter().chain(&of_status).any(|other| key.path.ends_with(other));
    parts.iter().any(|part| key.path.contains(part)) && !is_other
}

/// What the document must say, each once.
fn expected() -> BTreeSet<String> {
    let keys = KEYS.iter().filter(|key| is_limit(key)).map(|key| match key.default {
        WhenAbsent::Text(text) => format!("`{}`, `{text}`", key.path),
        WhenAbsent::ByRole { edge, core } => format!("`{}`, edge `{edge}`, core `{core}`", key.path),
        WhenAbsent::ByKind { forward, others } => format!("`{}`, forward `{forward}`, others `{others}`", key.path),
        other => panic!("{}: {other:?}", key.path),
    });
    let fixed = [
        ("protocol::proxy_header::MAX_LEN", format!("{} bytes", protocol::proxy_header::MAX_LEN)),
        ("protocol::proxy_header::V1_MAX_LEN", format!("{} bytes", protocol::proxy_header::V1_MAX_LEN)),
        ("protocol::core::ROUND_TRIP_SPACING", format!("{:?}", protocol::core::ROUND_TRIP_SPACING)),
        ("protocol::frame::MAX_PAYLOAD", format!("{} bytes", protocol::frame::MAX_PAYLOAD)),
        ("protocol::frame::PacketId::LAST", PacketId::LAST.to_string()),
        ("protocol::status::MAX_REQUEST", format!("{} bytes", protocol::status::MAX_REQUEST)),
        ("protocol::status::MAX_ANSWER", format!("{} bytes", protocol::status::MAX_ANSWER)),
        ("protocol::login::http::MAX_REQUEST", format!("{} bytes", protocol::login::http::MAX_REQUEST)),
        ("protocol::login::http::MAX_ANSWER", format!("{} bytes", protocol::login::http::MAX_ANSWER)),
        ("protocol::login::http::MAX_GROWTH", format!("{} bytes", protocol::login::http::MAX_GROWTH)),
        ("protocol::login::MAX_REQUEST", format!("{} bytes", protocol::login::MAX_REQUEST)),
        ("protocol::login::MAX_ANSWER", format!("{} bytes", protocol::login::MAX_ANSWER)),
        ("config::MAX_KEY_LEN", format!("{} bytes", config::MAX_KEY_LEN)),
        ("forward::TRIES", forward::TRIES.to_string()),
        ("forward::FIRST_WAIT", format!("{:?}", forward::FIRST_WAIT)),
        ("forward::LONGEST_WAIT", format!("{:?}", forward::LONGEST_WAIT)),
        ("forward::ANSWER_WITHIN", format!("{:?}", forward::ANSWER_WITHIN)),
        ("forward::MAX_REQUESTS", forward::MAX_REQUESTS.to_string()),
        ("protocol::game_packet::MAX_BODY", format!("{} bytes", protocol::game_packet::MAX_BODY)),
        ("protocol::frame::MAX_FIRST_PAYLOAD", format!("{} bytes", protocol::frame::MAX_FIRST_PAYLOAD)),
        ("config::MAX_FILE_LEN", format!("{} bytes", config::MAX_FILE_LEN)),
        ("config::MAX_NODES", config::MAX_NODES.to_string()),
        ("config::MAX_LIST_LEN", format!("{} bytes", config::MAX_LIST_LEN)),
        ("protocol::sniff::MAX_FIRST", format!("{} bytes", protocol::sniff::MAX_FIRST)),
        ("relay::MAX_LINKS", relay::MAX_LINKS.to_string()),
        ("relay::MAX_JOINS", relay::MAX_JOINS.to_string()),
        ("relay::JOIN_INTERVAL", format!("{:?}", relay::JOIN_INTERVAL)),
        ("relay::MAX_ADDRESSES", relay::MAX_ADDRESSES.to_string()),
        ("relay::MAX_CLIENT_LINKS", relay::MAX_CLIENT_LINKS.to_string()),
        ("relay::FRAMES_PER_TURN", relay::FRAMES_PER_TURN.to_string()),
        ("relay::MAX_REFUSALS", relay::MAX_REFUSALS.to_string()),
        ("relay::REFUSALS_PERIOD", format!("{:?}", relay::REFUSALS_PERIOD)),
        ("admission::CONNECT_BURST", admission::CONNECT_BURST.to_string()),
        ("admission::CONNECT_INTERVAL", format!("{:?}", admission::CONNECT_INTERVAL)),
        ("relay::CONNECT_WAIT", format!("{:?}", relay::CONNECT_WAIT)),
        ("relay::CHECK_WITHIN", format!("{:?}", relay::CHECK_WITHIN)),
        ("relay::SILENCE", format!("{:?}", relay::SILENCE)),
        ("protocol::core::OPEN_WITHIN", format!("{:?}", protocol::core::OPEN_WITHIN)),
        ("protocol::core::CLOSE_EVERY", format!("{:?}", protocol::core::CLOSE_EVERY)),
        ("protocol::core::MAX_CLOSES", protocol::core::MAX_CLOSES.to_string()),
        ("protocol::core::PACKETS_PERIOD", format!("{:?}", protocol::core::PACKETS_PERIOD)),
        ("protocol::core::MAX_PONGS", protocol::core::MAX_PONGS.to_string()),
        ("protocol::core::MAX_ENDS", protocol::core::MAX_ENDS.to_string()),
        ("net::worker::SCRATCH", format!("{} bytes", net::worker::SCRATCH)),
        ("net::pump::READ", format!("{} bytes", net::pump::READ)),
        ("net::tls::MAX_RECORD", format!("{} bytes", net::tls::MAX_RECORD)),
        ("net::tls::MAX_PLAIN", format!("{} bytes", net::tls::MAX_PLAIN)),
        ("net::worker::LOOKUP_THREADS", net::worker::LOOKUP_THREADS.to_string()),
        ("tunnel::MAX_STREAMS", tunnel::MAX_STREAMS.to_string()),
        ("tunnel::WAITING", tunnel::WAITING.to_string()),
        ("lag::WAITING", lag::WAITING.to_string()),
        ("events::EVENTS_KEPT", events::EVENTS_KEPT.to_string()),
        ("events::LONGEST_WORDS", events::LONGEST_WORDS.to_string()),
        ("history::MAX_EDGES", history::MAX_EDGES.to_string()),
        ("history::MAX_WORLDS", history::MAX_WORLDS.to_string()),
        ("history::MAX_BYTES", format!("{} bytes", history::MAX_BYTES)),
        ("admin::MAX_STREAMS", admin::MAX_STREAMS.to_string()),
        ("admin::MAX_ERRAND", format!("{} bytes", admin::MAX_ERRAND)),
        ("net::descriptors::HELD_BACK", net::descriptors::HELD_BACK.to_string()),
        ("tunnel::UNAUTHENTICATED", tunnel::UNAUTHENTICATED.to_string()),
        ("tunnel::UNAUTHENTICATED_PER_ADDRESS", tunnel::UNAUTHENTICATED_PER_ADDRESS.to_string()),
        ("tunnel::KNOWN_PER_ADDRESS", tunnel::KNOWN_PER_ADDRESS.to_string()),
        ("tunnel::HANDSHAKE", format!("{:?}", tunnel::HANDSHAKE)),
        ("net::trunk::SILENCE", format!("{:?}", net::trunk::SILENCE)),
        ("protocol::trunk::CREDIT", format!("{} bytes", protocol::trunk::CREDIT)),
        ("protocol::trunk::MAX_QUEUED", format!("{} bytes", protocol::trunk::MAX_QUEUED)),
        ("tunnel::MAX_TRUNKS", tunnel::MAX_TRUNKS.to_string()),
        ("tunnel::KNOWN", tunnel::KNOWN.to_string()),
        ("admission::HEADERLESS", admission::HEADERLESS.to_string()),
        ("admission::ADDRESSES", admission::ADDRESSES.to_string()),
        ("admission::PRESSURE_FROM", admission::PRESSURE_FROM.to_string()),
        ("admission::PRESSURE_LEAST", admission::PRESSURE_LEAST.to_string()),
        ("admission::PRESSURE_IDLE", format!("{:?}", admission::PRESSURE_IDLE)),
        ("admission::BANS", admission::BANS.to_string()),
        ("admission::LONGEST_BAN", format!("{:?}", admission::LONGEST_BAN)),
        ("admission::REFUSED_LINES", admission::REFUSED_LINES.to_string()),
        ("admission::ENDED_LINES", admission::ENDED_LINES.to_string()),
        ("connection::EDGE_LINES", connection::EDGE_LINES.to_string()),
        ("net::LOG_WINDOW", format!("{:?}", net::LOG_WINDOW)),
        (
            "net::OUTAGE_AGAIN",
            format!("the first at once, and then one in each {}", humantime::format_duration(net::OUTAGE_AGAIN)),
        ),
        ("net::OUTAGES", net::OUTAGES.to_string()),
        ("net::CLOSES_PER_TURN", net::CLOSES_PER_TURN.to_string()),
        ("access_log::QUEUE", access_log::QUEUE.to_string()),
        ("stderr::QUEUE", format!("{} bytes", stderr::QUEUE)),
        ("stderr::LAST_WAIT", format!("{:?}", stderr::LAST_WAIT)),
        ("access_log::LAST_WAIT", format!("{:?}", access_log::LAST_WAIT)),
        ("roles::SPREAD", format!("{:?}", roles::SPREAD)),
        ("roles::LAST_SPREAD", format!("{:?}", roles::LAST_SPREAD)),
        ("admin::MAX_CONNECTIONS", admin::MAX_CONNECTIONS.to_string()),
        ("admin::CONNECTION_TIMEOUT", format!("{:?}", admin::CONNECTION_TIMEOUT)),
        ("admin::SOCKET_TIMEOUT", format!("{:?}", admin::SOCKET_TIMEOUT)),
        ("admin::MAX_ANSWERS", admin::MAX_ANSWERS.to_string()),
        ("admin::MAX_REQUEST", format!("{} bytes", admin::MAX_REQUEST)),
        ("web::MAX_HEAD", format!("{} bytes", web::MAX_HEAD)),
        ("web::MAX_BODY", format!("{} bytes", web::MAX_BODY)),
        ("web::MAX_ANSWER", format!("{} bytes", web::MAX_ANSWER)),
        ("web::MAX_KEPT", web::MAX_KEPT.to_string()),
        ("web::FRESHEST", format!("{:?}", web::FRESHEST)),
        ("web::ASK_AGAIN", format!("{:?}", web::ASK_AGAIN)),
        ("web::STALE", format!("{}h", web::STALE.as_secs() / 3600)),
        ("web::LINGER", format!("{:?}", web::LINGER)),
        ("protocol::edge_list::MAX_WEB_OBJECT", format!("{} bytes", edge_list::MAX_WEB_OBJECT)),
        ("config::MAX_LISTS", config::MAX_LISTS.to_string()),
        ("admin::api::MOST", admin::api::MOST.to_string()),
        ("admin::api::LONGEST_ORDER", format!("{}s", admin::api::LONGEST_ORDER)),
        ("admin::api::LONGEST_WHY", admin::api::LONGEST_WHY.to_string()),
        ("admin::api::MAX_VISITS", admin::api::MAX_VISITS.to_string()),
        ("admin::api::LONGEST_VISIT", format!("{} ms", admin::api::LONGEST_VISIT)),
        ("fleet::VISIT_WITHIN", format!("{} ms", fleet::VISIT_WITHIN.as_millis())),
        ("fleet::ROUND_WITHIN", format!("{} ms", fleet::ROUND_WITHIN.as_millis())),
        ("alerts::MAX_WAITING", alerts::MAX_WAITING.to_string()),
        ("alerts::LONGEST_MESSAGE", alerts::LONGEST_MESSAGE.to_string()),
        ("alerts::LONGEST_SENTENCE", alerts::LONGEST_SENTENCE.to_string()),
        ("alerts::MAX_URL", format!("{} bytes", alerts::MAX_URL)),
        ("alerts::MAX_ANSWER", format!("{} bytes", alerts::MAX_ANSWER)),
        ("alerts::MAX_TOLD", alerts::MAX_TOLD.to_string()),
        ("alerts::GATHERED", format!("{:?}", alerts::GATHERED)),
        ("alerts::EVERY", format!("{:?}", alerts::EVERY)),
        ("alerts::WITHIN", format!("{:?}", alerts::WITHIN)),
        ("alerts::FIRST_AGAIN", format!("{:?}", alerts::FIRST_AGAIN)),
        ("alerts::LONGEST_AGAIN", format!("{:?}", alerts::LONGEST_AGAIN)),
        ("proxies_table::MAX_ROWS", proxies_table::MAX_ROWS.to_string()),
        ("proxies_table::MAX_SECRET", format!("{} bytes", proxies_table::MAX_SECRET)),
        ("proxies_table::WITHIN", format!("{:?}", proxies_table::WITHIN)),
        ("report::MAX_FILE", format!("{} bytes", report::MAX_FILE)),
        ("pull::MAX_AT_ONCE", pull::MAX_AT_ONCE.to_string()),
        ("pull::HOST_TIMEOUT", format!("{:?}", pull::HOST_TIMEOUT)),
        ("pull::AGAIN", format!("{:?}", pull::AGAIN)),
        ("web::MAX_REPORTS", web::MAX_REPORTS.to_string()),
        ("report::MAX_PLAYERS", format!("{} bytes", report::MAX_PLAYERS)),
        ("report::MAX_REMEMBERED", report::MAX_REMEMBERED.to_string()),
        ("relay::KEPT_TRIPS", relay::KEPT_TRIPS.to_string()),
        ("relay::MAX_SUSPECTS", relay::MAX_SUSPECTS.to_string()),
        ("state::MAX_STATE", format!("{} bytes", state::MAX_STATE)),
        ("handover::MAX_STATE", format!("{} bytes", handover::MAX_STATE)),
        ("handover::MOST_TRIES", handover::MOST_TRIES.to_string()),
        ("journal::MAX_IDENTITY", format!("{} bytes", otproxy_journal::MAX_IDENTITY)),
        (
            "journal::MAX_SEGMENTS",
            format!("{} bytes", otproxy_journal::MAX_SEGMENTS as u64 * otproxy_journal::SEGMENT as u64),
        ),
        ("handover::MAX_DESCRIPTORS", handover::MAX_DESCRIPTORS.to_string()),
        ("handover::WITHIN", format!("{:?}", handover::WITHIN)),
        ("admin::api::LONGEST_DRAIN", format!("{}s", admin::api::LONGEST_DRAIN)),
    ];
    keys.chain(fixed.map(|(name, value)| format!("{value}, `{name}`"))).collect()
}

#[test]
fn every_limit_is_there_once_as_the_code_has_it() {
    let text = document();
    let mut found = BTreeSet::new();
    for row in rows(&text) {
        // The one limit that is the system's.
        if row[0] == "file descriptors" {
            continue;
        }
        for limit in row[1].split("; ") {
            assert!(found.insert(limit.to_owned()), "{limit} is there twice");
        }
    }
    let expected = expected();
    let (wrong, missing): (Vec<_>, Vec<_>) =
        (found.difference(&expected).collect(), expected.difference(&found).collect());
    assert!(wrong.is_empty() && missing.is_empty(), "wrong: {wrong:#?}\nmissing: {missing:#?}");
}

#[test]
fn every_reason_is_one_that_is_counted() {
    fn words<R: std::fmt::Display>(all: &[R]) -> BTreeSet<String> {
        all.iter().map(ToString::to_string).collect()
    }
    let reasons = BTreeMap::from([
        ("rejected", words(AdmissionError::ALL)),
        ("closed", words(CloseReason::ALL)),
        ("refused", words(OpenError::ALL)),
        ("ended", words(EndReason::ALL)),
    ]);
    let metrics: BTreeSet<_> = CATALOGUE.iter().map(|family| family.name).collect();
    let (text, mut count) = (document(), 0);
    for row in rows(&text) {
        for counted in row[4].split(", ").filter(|counted| !counted.is_empty()) {
            let (kind, word) = counted.split_once(' ').unwrap_or(("", counted));
            let word = word.trim_matches('`');
            let known = reasons.get(kind).map_or(metrics.contains(word), |words| words.contains(word));
            assert!(known, "{counted}");
            count += 1;
        }
    }
    assert!(count >= 20, "only {count} reasons: does the test still read the table?");
    for reason in ["otproxy_connections_rejected_total", "otproxy_relay_refused_total"] {
        assert!(metrics.contains(reason) && text.contains(&format!("`{reason}`")), "{reason}");
    }
}

/// What refuses a peer for going beyond a limit is in the document.
#[test]
fn no_reason_of_a_limit_is_left_out() {
    let text = document();
    let refused = [
        OpenError::SessionLimit,
        OpenError::LinkSessions,
        OpenError::SessionLinks,
        OpenError::SessionAddresses,
        OpenError::JoinRate,
        OpenError::OpenRate,
        OpenError::ConnectQueue,
    ];
    // All others refuse what is wrong however little of it comes.
    assert_eq!(OpenError::ALL.len(), refused.len() + 4, "is the new reason a limit?");
    for reason in refused {
        assert!(text.contains(&format!("refused `{reason}`")), "{reason}");
    }
}

#[test]
fn no_number_in_the_text_is_unchecked() {
    let text = document();
    let size = |path: &str| {
        let Some(Key { default: WhenAbsent::Text(text), .. }) = KEYS.iter().find(|key| key.path == path) else {
            panic!("{path}")
        };
        text.parse::<bytesize::ByteSize>().expect(text).as_u64() as f64 / f64::from(1 << 20)
    };
    let one = size("sessions.unacked") + size("sessions.reorder") + size("sessions.pending");
    let most = KEYS.iter().find(|key| key.path == "sessions.max_per_address").expect("a key").default;
    let WhenAbsent::Text(most) = most else { panic!("{most:?}") };
    let most = one * most.parse::<f64>().expect("a number");
    let computed = [format!(": {one} MiB with the defaults"), format!("can hold {most} MiB,")];
    // What is no limit: names with a number in them.
    let mut rest =
        text.replace("IPv4", "").replace("IPv6", "").replace("/64", "").replace("/48", "").replace("/24", "");
    // What a test beside the code checks.
    rest = rest.replace("for each 32 KiB of", "");
    for checked in expected().into_iter().chain(computed) {
        assert!(rest.contains(&checked), "{checked}");
        rest = rest.replacen(&checked, "", 1);
    }
    let unchecked: Vec<_> = rest.lines().filter(|line| line.contains(|c: char| c.is_ascii_digit())).collect();
    assert!(unchecked.is_empty(), "{unchecked:#?}");
}

/// Which reasons count for `bans.after` stands in the reference of the configuration. `OTPROXY_BLESS=1` writes it anew.
#[test]
fn what_breaks_a_rule_is_what_the_code_counts() {
    const BEGIN: &str = "<!-- breaks: generated, do not edit -->\n";
    const END: &str = "<!-- end of breaks -->\n";
    let words = |counts: bool| {
        let rejected = AdmissionError::ALL.iter().filter(|reason| reason.breaks_rule() == counts);
        let closed = CloseReason::ALL.iter().filter(|reason| reason.breaks_rule() == counts);
        let list = |words: Vec<String>| words.join(", ");
        let rejected = list(rejected.map(|reason| format!("`{reason}`")).collect());
        format!("{rejected} | {}", list(closed.map(|reason| format!("`{reason}`")).collect()))
    };
    let (yes, no) = (words(true), words(false));
    let table = format!(
        "| | connections rejected | connections closed |\n|---|---|---|\n| counted | {yes} |\n| not counted | {no} |\n"
    );
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    let text = std::fs::read_to_string(path).expect("docs/configuration.md");
    let (before, rest) = text.split_once(BEGIN).expect("the mark where the table begins");
    let (_, after) = rest.split_once(END).expect("the mark where the table ends");
    let expected = [before, BEGIN, &table, END, after].concat();
    if std::env::var_os("OTPROXY_BLESS").is_some() {
        std::fs::write(path, &expected).expect("writable");
    } else {
        assert_eq!(text, expected, "OTPROXY_BLESS=1 cargo test --test docs limits writes it anew");
    }
}

/// The tunnel's own document: each value with a constant's name is that constant's.
#[test]
fn the_clocks_of_the_tunnel_are_those_of_the_code() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tunnel.md")).expect("docs/tunnel.md");
    let values = [
        ("CONNECT", format!("{:?}", tunnel::CONNECT)),
        ("HANDSHAKE", format!("{:?}", tunnel::HANDSHAKE)),
        ("LOOKUP", format!("{:?}", tunnel::LOOKUP)),
        ("FIRST_WAIT", format!("{:?}", tunnel::FIRST_WAIT)),
        ("LONGEST_WAIT", format!("{:?}", tunnel::LONGEST_WAIT)),
        ("AT_ONCE", tunnel::AT_ONCE.to_string()),
        ("LOSS_SPREAD", format!("{:?}", tunnel::LOSS_SPREAD)),
        ("TRUNKS", tunnel::TRUNKS.to_string()),
        ("MAX_TRUNKS", tunnel::MAX_TRUNKS.to_string()),
        ("MAX_STREAMS", tunnel::MAX_STREAMS.to_string()),
        ("LEAST_STREAMS", tunnel::LEAST_STREAMS.to_string()),
        ("GREATEST_AGE", format!("{:?}", tunnel::GREATEST_AGE)),
        ("LEFT_FOR", format!("{:?}", tunnel::LEFT_FOR)),
        ("REREAD", format!("{:?}", tunnel::REREAD)),
        ("DAYS_LEFT", format!("{} days before", tunnel::DAYS_LEFT)),
    ];
    for (name, value) in &values {
        assert!(text.contains(&format!("| {value}, `tunnel::{name}`")), "{name}: {value}");
    }
    assert_eq!(text.matches("`tunnel::").count(), values.len(), "a constant that is not checked");
    let of_trunks = [
        ("HEARTBEAT", format!("{:?}", net::trunk::HEARTBEAT)),
        ("SILENCE", format!("{:?}", net::trunk::SILENCE)),
        ("STALLED", format!("{:?}", net::trunk::STALLED)),
        ("CREDIT", protocol::trunk::CREDIT.to_string()),
        ("QUANTUM", protocol::trunk::QUANTUM.to_string()),
        ("MAX_UNSENT", protocol::trunk::MAX_UNSENT.to_string()),
        ("MAX_QUEUED", protocol::trunk::MAX_QUEUED.to_string()),
        ("MAX_DATA", protocol::trunk::MAX_DATA.to_string()),
        ("MAX_CONTROL", protocol::trunk::MAX_CONTROL.to_string()),
    ];
    for (name, value) in &of_trunks {
        assert!(text.contains(&format!("| {value}, `trunk::{name}`")), "{name}: {value}");
    }
    assert_eq!(text.matches("`trunk::").count(), of_trunks.len(), "a constant that is not checked");
}

//! A set-up that runs, with players in it, and the real Prometheus, which evaluates each panel and each rule over it.

use std::time::Duration;

use serde_json::Value;

use super::dashboards;
use super::rules::{RULES, alerts, repository, rules};
use crate::common::crew::{Crew, pushing};
use crate::common::metrics::Metered;
use crate::common::prometheus::{Prometheus, is_here};
use crate::common::run;
use crate::common::tunnel::*;

/// Panels that show nothing here, with the reason.
const EMPTY: [(&str, &str, &str); 2] = [
    ("otproxy-core", "Table proxies", "there is no web site with a database"),
    ("otproxy-core", "Sessions over the last restart", "no core has run before this one"),
];
/// Panels that show something in time, with the reason: here they are only asked.
const LATER: [(&str, &str, &str); 1] =
    [("otproxy-overview", "Edges slower than usual", "what is usual is known after a minute")];
/// Between two looks at what is still missing.
const LOOK: Duration = Duration::from_millis(200);

/// A core and two edges with a tunnel, with most of what `otproxy init` can write into their files, and an edge without one.
struct SetUp {
    _certificates: Certificates,
    core: Role,
    edges: [Role; 2],
    /// An edge without the tunnel, which is scraped by itself.
    plain: Role,
}

impl SetUp {
    fn start(game_server: std::net::SocketAddr) -> Self {
        let certificates = Certificates::new();
        // Clients know no other port of an edge for links, so that each edge has an address of its own.
        let hosts = [free_address().ip(), free_address().ip()];
        let of_edges = ["waw1", "fra1"]
            .iter()
            .zip(&hosts)
            .map(|(name, host)| format!("{{ name: {name}, public: \"{host}\", traffic: {{ month: 1TB }} }}"));
        let of_edges = format!("[{}, {{ name: lon1, address: 127.0.0.1 }}]", of_edges.collect::<Vec<_>>().join(", "));
        let more = format!(
            "game_servers: [{{ port: 7172, address: \"{game_server}\", check: tcp }}]\n\
             admin: {{ listen: \"127.0.0.1:0\", socket: off, edges_metrics: true }}\n"
        );
        let listeners = format!(
            "[{{ name: links, kind: relay, listen: \"127.0.0.1:0\" }}, \
             {{ name: login, forward_to: \"{game_server}\", login: {{ worlds: auto }} }}, \
             {{ name: web, kind: web, routes: {{ proxies: [{{ name: list }}] }} }}]"
        );
        let core = Role::start(&core(&certificates, &of_edges, &listeners, &more));
        let start = |(name, host): (&str, std::net::IpAddr)| {
            let listeners = format!(
                "[{{ name: links, listen: \"{host}:7162\", forward_to: core/links, expect: links, check: ping }}, \
                 {{ name: login, listen: \"{host}:7171\", forward_to: core/login, expect: login, status: {{ address: \"{host}\" }} }}, \
                 {{ name: web, kind: web, listen: \"{host}:8080\", forward_to: core/web }}]"
            );
            Role::start(&edge(&certificates, name, core.addr("tunnel"), &listeners))
        };
        let edges = [("waw1", hosts[0]), ("fra1", hosts[1])].map(start);
        let listeners = format!(
            "[{{ name: links, listen: \"127.0.0.1:0\", forward_to: \"{}\", send_proxy: v2, expect: links, check: ping }}]",
            core.addr("links")
        );
        Self { _certificates: certificates, core, edges, plain: Role::edge(&listeners) }
    }
}

/// Returns an expression as Grafana asks it: with all there is chosen.
fn asked(expression: &str) -> String {
    let words = [("$__rate_interval", "1m"), ("$job", "otproxy"), ("$instance", ".+"), ("$edge", ".+")];
    words.iter().fold(expression.to_owned(), |text, (word, value)| text.replace(word, value))
}

/// Asks each of the expressions until it gives something. Only a test that hangs ends it.
async fn all_give_something(prometheus: &Prometheus, mut left: Vec<(String, String)>) {
    loop {
        let before = left.len();
        let mut empty = Vec::new();
        for (place, expression) in left {
            match prometheus.query(&expression).await {
                // A graph shows no point for what is no number.
                Ok(series) if series.iter().all(|each| each["value"][1] == "NaN") => empty.push((place, expression)),
                Ok(_) => {}
                Err(error) => panic!("{place}: {expression}: {error}"),
            }
        }
        left = empty;
        if left.is_empty() {
            return;
        }
        // So that a failure names them.
        if left.len() < before {
            eprintln!("nothing yet: {:?}", left.iter().map(|(place, _)| place).collect::<Vec<_>>());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Returns all rules with what became of them.
async fn evaluated(prometheus: &Prometheus) -> Vec<Value> {
    let data = prometheus.api("/api/v1/rules").await.expect("rules");
    let groups = data["groups"].as_array().expect("groups").clone();
    groups.iter().flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect()
}

/// Waits until each rule has been evaluated, without an error, and no alert fires or is about to.
async fn rules_are_evaluated(prometheus: &Prometheus) {
    let mut seen = Vec::new();
    loop {
        let all = evaluated(prometheus).await;
        assert_eq!(all.len(), rules().len());
        for rule in &all {
            assert_ne!(rule["health"], "err", "{rule}");
        }
        let alarmed = all.iter().filter(|rule| rule["type"] == "alerting" && rule["state"] != "inactive");
        let alarmed: Vec<_> = alarmed.map(|rule| rule["name"].clone()).collect();
        if all.iter().all(|rule| rule["health"] == "ok") && alarmed.is_empty() {
            return;
        }
        // So that a failure names them.
        if alarmed != seen {
            eprintln!("not well: {alarmed:?}");
            seen = alarmed;
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[test]
fn each_panel_and_each_rule_is_evaluated_over_players() {
    if !is_here("prometheus") {
        return;
    }
    run(async {
        let game_server = pushing().await;
        let set_up = SetUp::start(game_server.addr());
        for edge in ["waw1", "fra1"] {
            // Both ends of each of them are counted there.
            set_up.core.trunks(edge, 2 * 4).await;
        }
        let paths: Vec<_> = set_up.edges.iter().map(|edge| edge.addr("links")).collect();
        let mut crew = Crew::start(3, &paths).await;
        let config = format!(
            "global: {{ scrape_interval: 2s, evaluation_interval: 2s }}\nrule_files: [\"{}\"]\n\
             scrape_configs: [{{ job_name: otproxy, static_configs: [{{ targets: [\"{}\"] }}, \
             {{ targets: [\"{}\"], labels: {{ role: edge, edge: lon1 }} }}] }}]\n",
            repository(RULES).display(),
            set_up.core.admin(),
            set_up.plain.admin(),
        );
        let prometheus = Prometheus::start(&config).await;
        let looking = async {
            let is_in = |all: &[(&str, &str, &str)], uid: &str, title: &str| {
                all.iter().any(|(of, panel, _)| (*of, *panel) == (uid, title))
            };
            let (mut full, mut empty, mut marks) = (Vec::new(), Vec::new(), Vec::new());
            for dashboard in dashboards() {
                for panel in dashboard.panels() {
                    if is_in(&LATER, dashboard.uid, panel.title) {
                        marks.extend(panel.expressions().map(asked));
                        continue;
                    }
                    let list = if is_in(&EMPTY, dashboard.uid, panel.title) { &mut empty } else { &mut full };
                    let place = format!("{}: {}", dashboard.uid, panel.title);
                    list.extend(panel.expressions().map(|expression| (place.clone(), asked(expression))));
                }
                marks.extend(dashboard.other_expressions().iter().map(|expression| asked(expression)));
            }
            let recorded = rules().into_iter().filter_map(|rule| rule.record);
            full.extend(recorded.map(|name| (format!("rule {name}"), name)));
            assert!(full.len() > 110 && alerts().len() > 30, "{}", full.len());
            all_give_something(&prometheus, full).await;
            for mark in marks {
                prometheus.query(&mark).await.unwrap_or_else(|error| panic!("{mark}: {error}"));
            }
            rules_are_evaluated(&prometheus).await;
            // The list of empty panels is no longer than it has to be.
            for (uid, title, reason) in EMPTY {
                let place = format!("{uid}: {title}");
                let of_panel: Vec<_> = empty.iter().filter(|(of, _)| *of == place).collect();
                assert!(!of_panel.is_empty(), "there is no panel {place}");
                for (_, expression) in of_panel {
                    assert_eq!(
                        prometheus.query(expression).await,
                        Ok(Vec::new()),
                        "{place} is not empty, though {reason}"
                    );
                }
            }
        };
        let playing = async {
            loop {
                crew.play().await;
            }
        };
        tokio::select! {
            () = looking => {}
            () = playing => {}
        }
        drop(set_up);
    });
}

//! Dashboards for Grafana and rules for Prometheus, in `configs/monitoring`: made from the catalogue of metrics, held against it and
//! against the documents, and evaluated by the real Prometheus over a set-up that runs.
//!
//! `OTPROXY_BLESS=1 cargo test --test program monitoring::` writes the dashboards, and the table of alerts in docs/operations.md. A new
//! panel is a line in `overview`, `core` or `edge`; a new alert is a rule, its tests in tests/monitoring/alerts.yml and a
//! section in docs/operations.md.

mod core;
mod dashboard;
mod edge;
mod live;
mod overview;
mod promql;
mod rules;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use crate::common::folder::assert_golden;
use crate::common::prometheus::{is_here, promtool};

use dashboard::Dashboard;
use promql::{Names, OtherNames};
pub use rules::RULES;
use rules::{TESTS, alerts, read, repository, tested};

/// The folder of the dashboards.
const DASHBOARDS: &str = "configs/monitoring/grafana/dashboards";
const OPERATIONS: &str = "docs/operations.md";

fn dashboards() -> [Dashboard; 3] {
    [overview::dashboard(), core::dashboard(), edge::dashboard()]
}

/// Returns the names that are none of the catalogue.
fn others() -> OtherNames {
    let mut others = OtherNames::new();
    rules::rules().iter().filter_map(|rule| rule.record.as_ref()).for_each(|name| others.record(name));
    others
}

/// Returns the anchors of all headings of a document.
fn anchors(document: &str) -> BTreeSet<String> {
    let text = read(&format!("docs/{document}"));
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let anchor = |heading: &str| {
        let kept = heading.to_lowercase().replace(' ', "-");
        kept.chars().filter(|letter| letter.is_alphanumeric() || ['-', '_'].contains(letter)).collect()
    };
    headings.map(anchor).collect()
}

/// Fails unless a link of the form `DOCUMENT.md#HEADING` leads to a heading.
#[track_caller]
fn leads_somewhere(link: &str) {
    let (document, heading) = link.split_once('#').unwrap_or_else(|| panic!("{link} names no heading"));
    assert!(anchors(document).contains(heading), "docs/{link}: there is no such heading");
}

#[test]
fn dashboards_are_as_generated() {
    for dashboard in dashboards() {
        assert_golden(&repository(DASHBOARDS).join(format!("{}.json", dashboard.uid)), &dashboard.json());
    }
    let files: BTreeSet<_> = fs::read_dir(repository(DASHBOARDS))
        .expect("a folder")
        .map(|file| file.expect("readable").file_name().into_string().expect("UTF-8"))
        .collect();
    let made: BTreeSet<_> = dashboards().iter().map(|dashboard| format!("{}.json", dashboard.uid)).collect();
    assert_eq!(files, made);
}

#[test]
fn every_metric_and_label_is_in_the_catalogue() {
    let others = others();
    let mut count = 0;
    let mut holds = |place: &str, expression: &str| {
        assert_eq!(Names::of(expression).faults(&others), [""; 0], "{place}: {expression}");
        count += 1;
    };
    for dashboard in dashboards() {
        for panel in dashboard.panels() {
            panel.expressions().for_each(|expression| holds(panel.title, expression));
        }
        dashboard.other_expressions().iter().for_each(|expression| holds(dashboard.title, expression));
    }
    for rule in rules::rules() {
        holds(rule.alert.as_deref().or(rule.record.as_deref()).expect("a name"), &rule.expr);
    }
    assert!(count > 130, "{count}");
}

#[test]
fn panels_are_whole() {
    for dashboard in dashboards() {
        let mut titles = BTreeSet::new();
        for panel in dashboard.panels() {
            assert!(titles.insert(panel.title), "{}: {} is there twice", dashboard.uid, panel.title);
            assert!(panel.expressions().next().is_some(), "{}: nothing is in {}", dashboard.uid, panel.title);
            panel.document().iter().for_each(|document| leads_somewhere(document));
        }
    }
    leads_somewhere("operations.md#dashboards-and-alerts");
}

#[test]
fn each_alert_is_whole_tested_and_explained() {
    let (tests, anchors, alerts) = (tested(), anchors("operations.md"), alerts());
    for (name, rule) in &alerts {
        assert!(rule.hold.is_some(), "{name} has no `for`");
        let severity = rule.labels.get("severity").map(String::as_str);
        assert!(matches!(severity, Some("critical" | "warning" | "info")), "{name}: severity {severity:?}");
        for word in ["summary", "description"] {
            assert!(rule.annotations.get(word).is_some_and(|text| !text.is_empty()), "{name} has no {word}");
        }
        let heading = name.to_lowercase();
        assert_eq!(rule.annotations.get("runbook"), Some(&format!("{OPERATIONS}#{heading}")), "{name}");
        assert!(anchors.contains(&heading), "{OPERATIONS} has no section on {name}");
        let (fires, quiet) = tests.get(name).copied().unwrap_or_default();
        assert!(fires >= 1 && quiet >= 2, "{TESTS}: {name} fires in {fires} tests, and does not in {quiet}");
    }
    let names: BTreeSet<_> = alerts.iter().map(|(name, _)| name.to_lowercase()).collect();
    assert_eq!(names.len(), alerts.len(), "a name is there twice");
    let explained = anchors.iter().filter(|anchor| anchor.starts_with("otproxy"));
    explained.for_each(|anchor| assert!(names.contains(anchor), "{OPERATIONS}: there is no alert {anchor}"));
    assert!(tests.keys().all(|name| names.contains(&name.to_lowercase())), "{TESTS} tests alerts that are not there");
}

/// The table of alerts. `OTPROXY_BLESS=1 cargo test --test program monitoring::` writes it anew.
#[test]
fn the_documented_table_is_that_of_the_rules() {
    const BEGIN: &str = "<!-- the alerts: generated, do not edit -->\n";
    const END: &str = "<!-- end of the alerts -->\n";
    let mut table = "\n| alert | severity | after | fires if |\n|---|---|---|---|\n".to_owned();
    for (name, rule) in alerts() {
        let expression = rule.expr.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
        let (severity, hold) = (&rule.labels["severity"], rule.hold.unwrap_or_default());
        writeln!(table, "| [{name}](#{}) | {severity} | {hold} | `{expression}` |", name.to_lowercase())
            .expect("a text");
    }
    table.push('\n');
    let text = read(OPERATIONS);
    let (before, rest) = text.split_once(BEGIN).expect("the mark where the table begins");
    let (_, after) = rest.split_once(END).expect("the mark where the table ends");
    assert_golden(&repository(OPERATIONS), &[before, BEGIN, &table, END, after].concat());
}

/// Returns what follows `start` in a text, up to the end of a word, each time.
fn words_behind<'a>(text: &'a str, start: &'a str) -> impl Iterator<Item = &'a str> {
    let ends = |letter: char| !letter.is_ascii_alphanumeric() && !['/', '.', '-', '_'].contains(&letter);
    text.split(start).skip(1).map(move |rest| rest.split(ends).next().unwrap_or_default().trim_end_matches(['.', '/']))
}

#[test]
fn places_and_times_fit_each_other() {
    const PACKAGE: &str = "/usr/share/otproxy/monitoring";
    let provisioning = "configs/monitoring/grafana/provisioning";
    let (of_dashboards, of_sources) =
        (format!("{provisioning}/dashboards/otproxy.yaml"), format!("{provisioning}/datasources/otproxy.yaml"));
    // The documents and Grafana look for files where a package puts them.
    let mut count = 0;
    for text in [read(OPERATIONS), read(&of_dashboards)] {
        for path in words_behind(&text, PACKAGE) {
            assert!(repository(&format!("configs/monitoring{path}")).exists(), "{PACKAGE}{path} is in no package");
            count += 1;
        }
    }
    assert!(count >= 4, "{count}");
    assert!(read("packaging/stage.sh").contains("find configs/monitoring -type f"));
    // Steps of graphs begin at the time between two scrapes.
    let value = |path: &str| -> serde_yaml::Value { serde_yaml::from_str(&read(path)).expect("YAML") };
    let prometheus = value("configs/monitoring/prometheus/prometheus.yml");
    let source = &value(&of_sources)["datasources"][0];
    assert_eq!(source["jsonData"]["timeInterval"], prometheus["global"]["scrape_interval"]);
    let file = prometheus["rule_files"][0].as_str().expect("a file");
    assert!(RULES.ends_with(&format!("/{file}")), "{file}");
    // Rules and dashboards go by the job's name, and by an address that the core has unless it is told otherwise.
    let job = &prometheus["scrape_configs"][0];
    assert_eq!(job["job_name"], "otproxy");
    let target = job["static_configs"][0]["targets"][0].as_str().expect("a target");
    let admin = otproxy_config::load(&repository("configs/core-minimal.yaml")).expect("valid");
    assert_eq!(admin.process().admin.listen.map(|address| address.to_string()).as_deref(), Some(target));
}

#[test]
fn the_tool_of_prometheus_finds_nothing_wrong() {
    if !is_here("promtool") {
        return;
    }
    promtool(&["check", "rules"], &repository(RULES));
    promtool(&["check", "config"], &repository("configs/monitoring/prometheus/prometheus.yml"));
    promtool(&["test", "rules"], &repository(TESTS));
}

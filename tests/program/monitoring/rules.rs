//! The rules for Prometheus, and the tests of its own tool, as they are written.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The file of the rules.
pub const RULES: &str = "configs/monitoring/prometheus/otproxy.rules.yml";
/// The file of the tests of alerts.
pub const TESTS: &str = "tests/monitoring/alerts.yml";

/// Returns a path of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Returns the text of a file of the repository.
#[track_caller]
pub fn read(path: &str) -> String {
    fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[derive(Deserialize)]
struct RuleFile {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

/// A rule.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The name of what it records.
    pub record: Option<String>,
    /// The name of its alert.
    pub alert: Option<String>,
    /// The expression.
    pub expr: String,
    /// The time for which the expression has to hold.
    #[serde(rename = "for")]
    pub hold: Option<String>,
    /// The labels of the alert.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The words of the alert.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// Returns all rules, in order.
pub fn rules() -> Vec<Rule> {
    let file: RuleFile = serde_yaml::from_str(&read(RULES)).expect("rules");
    file.groups.into_iter().flat_map(|group| group.rules).collect()
}

/// Returns all alerts, in order, by their names.
pub fn alerts() -> Vec<(String, Rule)> {
    rules().into_iter().filter_map(|rule| Some((rule.alert.clone()?, rule))).collect()
}

#[derive(Deserialize)]
struct TestFile {
    tests: Vec<Test>,
}

#[derive(Deserialize)]
struct Test {
    alert_rule_test: Vec<AlertTest>,
}

#[derive(Deserialize)]
struct AlertTest {
    alertname: String,
    exp_alerts: Vec<serde_yaml::Value>,
}

/// Returns how often each alert is tested to fire, and not to fire.
pub fn tested() -> BTreeMap<String, (usize, usize)> {
    let file: TestFile = serde_yaml::from_str(&read(TESTS)).expect("tests");
    let mut counts: BTreeMap<_, (usize, usize)> = BTreeMap::new();
    for test in file.tests.into_iter().flat_map(|test| test.alert_rule_test) {
        let (fires, quiet) = counts.entry(test.alertname).or_default();
        *(if test.exp_alerts.is_empty() { quiet } else { fires }) += 1;
    }
    counts
}

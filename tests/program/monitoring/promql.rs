//! The names in an expression of Prometheus, held against the catalogue.

use std::collections::{BTreeMap, BTreeSet};

use otproxy::metrics::{CATALOGUE, MetricFamily, MetricKind};

/// Words that are no metrics.
const WORDS: [&str; 7] = ["and", "or", "unless", "offset", "bool", "inf", "nan"];
/// Words behind which labels stand in parentheses.
const GROUPING: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
/// Functions of what only grows.
const OF_COUNTERS: [&str; 3] = ["rate", "irate", "increase"];
/// The labels that a scrape adds, and those that a core adds for its edges.
const ADDED: [&str; 4] = ["job", "instance", "role", "edge"];
/// The parts of a histogram.
const PARTS: [&str; 3] = ["_bucket", "_sum", "_count"];

/// Names that are none of the catalogue: Prometheus' own, and those that rules record.
#[derive(Debug, Default)]
pub struct OtherNames(BTreeMap<String, Vec<String>>);

impl OtherNames {
    /// Returns Prometheus' own, with their labels.
    pub fn new() -> Self {
        let own = [("up", vec![]), ("ALERTS", vec!["alertname", "alertstate", "severity"])];
        Self(
            own.into_iter()
                .map(|(name, labels)| (name.to_owned(), labels.into_iter().map(str::to_owned).collect()))
                .collect(),
        )
    }

    /// Adds what a rule records, with the labels that its name begins with: `instance_edge:metric:operation`.
    pub fn record(&mut self, name: &str) {
        let (level, _) = name.split_once(':').unwrap_or_else(|| panic!("{name} has no level"));
        self.0.insert(name.to_owned(), level.split('_').map(str::to_owned).collect());
    }
}

/// Returns the family of a name, which for a histogram is that of one of its parts.
pub fn family(name: &str) -> Option<&'static MetricFamily> {
    CATALOGUE.iter().find(|family| match family.kind {
        MetricKind::Histogram => name.strip_prefix(family.name).is_some_and(|part| PARTS.contains(&part)),
        MetricKind::Counter | MetricKind::Gauge => family.name == name,
    })
}

/// The names that an expression has.
#[derive(Debug, Default)]
pub struct Names {
    /// The metrics, each with the function that it stands in and the labels that it is chosen by.
    pub metrics: Vec<NamedMetric>,
    /// The labels in `by (..)` and the like.
    pub grouping: BTreeSet<String>,
}

/// A metric in an expression.
#[derive(Debug)]
pub struct NamedMetric {
    /// Its name.
    pub name: String,
    function: String,
    labels: Vec<String>,
}

impl Names {
    /// Reads an expression.
    pub fn of(expression: &str) -> Self {
        let mut names = Self::default();
        let mut rest = expression;
        // The functions whose parentheses are open.
        let mut open: Vec<String> = Vec::new();
        while let Some(letter) = rest.chars().next() {
            let behind = &rest[letter.len_utf8()..];
            rest = match letter {
                '"' => end_of_text(behind),
                '[' => behind.split_once(']').expect("a range ends").1,
                '(' => {
                    open.push(String::new());
                    behind
                }
                ')' => {
                    open.pop();
                    behind
                }
                '$' | '0'..='9' => behind.trim_start_matches(|letter: char| letter.is_alphanumeric() || letter == '_'),
                _ if is_of_name(letter) => {
                    let end = rest.find(|letter| !is_of_name(letter)).unwrap_or(rest.len());
                    let (word, behind) = (&rest[..end], &rest[end..]);
                    let after = behind.trim_start();
                    if GROUPING.contains(&word) {
                        let list = after.strip_prefix('(').expect("labels in parentheses");
                        let (labels, behind) = list.split_once(')').expect("labels end");
                        let labels = labels.split(',').map(|label| label.trim().to_owned());
                        names.grouping.extend(labels.filter(|label| !label.is_empty()));
                        behind
                    } else if let Some(behind) = after.strip_prefix('(').filter(|_| !WORDS.contains(&word)) {
                        open.push(word.to_owned());
                        behind
                    } else if WORDS.contains(&word) || after.starts_with("by ") || after.starts_with("without ") {
                        behind
                    } else {
                        let (labels, behind) = after.strip_prefix('{').map_or((Vec::new(), behind), selectors);
                        let function = open.last().cloned().unwrap_or_default();
                        names.metrics.push(NamedMetric { name: word.to_owned(), function, labels });
                        behind
                    }
                }
                _ => behind,
            };
        }
        names
    }

    /// Returns all that is wrong with the names, a line each.
    pub fn faults(&self, others: &OtherNames) -> Vec<String> {
        let mut faults = Vec::new();
        let mut all: BTreeSet<&str> = ADDED.into_iter().collect();
        for NamedMetric { name, function, labels } in &self.metrics {
            let mut own: BTreeSet<&str> = ADDED.into_iter().collect();
            if let Some(family) = family(name) {
                own.extend(family.labels);
                if name.ends_with("_bucket") {
                    own.insert("le");
                }
                if OF_COUNTERS.contains(&function.as_str()) && family.kind == MetricKind::Gauge {
                    faults.push(format!("{function}() of {name}, which also falls"));
                }
            } else if let Some(labels) = others.0.get(name) {
                own.extend(labels.iter().map(String::as_str));
            } else {
                faults.push(format!("there is no metric {name}"));
            }
            let wrong = labels.iter().filter(|label| !own.contains(label.as_str()));
            faults.extend(wrong.map(|label| format!("{name} has no label {label}")));
            all.extend(own);
        }
        if self.metrics.is_empty() {
            faults.push("there is no metric in it".to_owned());
        }
        let wrong = self.grouping.iter().filter(|label| !all.contains(label.as_str()));
        faults.extend(wrong.map(|label| format!("no metric in it has a label {label}")));
        faults
    }
}

fn is_of_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_' || letter == ':'
}

/// Returns what follows a text in quotation marks, whose first one has been read.
fn end_of_text(text: &str) -> &str {
    let mut escaped = false;
    let end = text.find(|letter| {
        let ends = letter == '"' && !escaped;
        escaped = letter == '\\' && !escaped;
        ends
    });
    &text[end.expect("a text ends") + 1..]
}

/// Returns the labels of a selector whose brace has been read, and what follows it.
fn selectors(mut text: &str) -> (Vec<String>, &str) {
    let mut labels = Vec::new();
    loop {
        text = text.trim_start_matches([',', ' ']);
        if let Some(behind) = text.strip_prefix('}') {
            return (labels, behind);
        }
        let end = text.find(|letter| !is_of_name(letter)).expect("a label ends");
        labels.push(text[..end].to_owned());
        text = end_of_text(text[end..].split_once('"').expect("a value").1);
    }
}

#[test]
fn names_are_found_and_held_against_the_catalogue() {
    let faults = |expression: &str| {
        let mut others = OtherNames::new();
        others.record("instance_edge:links:sum");
        Names::of(expression).faults(&others)
    };
    for right in [
        "sum by (edge) (otproxy_relay_links_active{edge=~\"a}\\\"b\"} offset 1h) > 5",
        "histogram_quantile(0.5, sum by (edge, le) (rate(otproxy_relay_link_rtt_seconds_bucket{job=\"x\"}[$__rate_interval])))",
        "up{job=\"otproxy\"} == 0 or instance_edge:links:sum{edge=\"waw1\"} > bool 5m",
        "count(ALERTS{alertstate=\"firing\"}) or vector(otproxy_panics_total)",
        "a_share / on (job) group_left () 2".replace("a_share", "otproxy_pressure_ratio{listener=\"\"}").as_str(),
    ] {
        assert_eq!(faults(right), [""; 0], "{right}");
    }
    for (wrong, fault) in [
        ("otproxy_relay_links", "there is no metric otproxy_relay_links"),
        ("otproxy_relay_link_rtt_seconds", "there is no metric otproxy_relay_link_rtt_seconds"),
        ("otproxy_panics_total_sum", "there is no metric otproxy_panics_total_sum"),
        ("rate(otproxy_relay_links_active[5m])", "rate() of otproxy_relay_links_active, which also falls"),
        ("otproxy_panics_total{edge=\"x\", port = \"1\"}", "otproxy_panics_total has no label port"),
        ("sum by (port) (otproxy_panics_total)", "no metric in it has a label port"),
        ("instance_edge:links:sum{port=\"1\"}", "instance_edge:links:sum has no label port"),
        ("vector(1)", "there is no metric in it"),
    ] {
        assert_eq!(faults(wrong), [fault], "{wrong}");
    }
}

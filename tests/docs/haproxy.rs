//! `docs/haproxy.md`: every name on our side is one that the code has, and every reason has its code there.

use std::collections::BTreeSet;

use otproxy::access_log::haproxy::{closed, ended, rejected, unreached};
use otproxy::connection::{AdmissionError, CloseReason};
use otproxy::metrics::CATALOGUE;
use otproxy_net::ConnectResult;
use otproxy_protocol::core::EndReason;

fn document() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/haproxy.md")).expect("docs/haproxy.md")
}

/// The rows of the table behind `heading`, by cells.
fn table<'t>(text: &'t str, heading: &str) -> Vec<Vec<&'t str>> {
    let (_, behind) = text.split_once(heading).unwrap_or_else(|| panic!("no {heading:?}"));
    let lines = behind.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let rows = lines.skip(2).map(|line| line.trim_matches('|').split('|').map(str::trim).collect());
    rows.collect()
}

/// What stands between backquotes.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_metric_is_one_that_there_is() {
    let text = document();
    let names: BTreeSet<_> = CATALOGUE.iter().map(|family| family.name).collect();
    let reasons: BTreeSet<_> =
        AdmissionError::ALL.iter().map(|r| r.as_str()).chain(CloseReason::ALL.iter().map(|r| r.as_str())).collect();
    let rows = table(&text, "\n## Metrics\n");
    assert!(rows.len() >= 20, "{}", rows.len());
    for row in &rows {
        let mut ours = words(row[1]);
        let metric = ours.next().unwrap_or_else(|| panic!("{row:?}"));
        assert!(names.contains(metric), "{metric}");
        for word in ours {
            let known = names.contains(word) || reasons.contains(word) || ["in", "out", "ok"].contains(&word);
            assert!(known, "{word} in {row:?}");
        }
    }
    for word in words(&text.replace("```", "")).filter(|word| word.starts_with("otproxy_")) {
        let name = word.split(['{', '[']).next().unwrap_or_default();
        assert!(names.contains(name), "{word}");
    }
}

#[test]
fn every_reason_has_its_code_there() {
    let text = document();
    let is = |heading: &str, expected: Vec<(&str, &str)>| {
        let rows = table(&text, heading);
        let found: Vec<_> = rows.iter().map(|row| (row[0].trim_matches('`'), row[1].trim_matches('`'))).collect();
        assert_eq!(found, expected, "{heading}");
        rows.iter().map(|row| row[2].to_owned()).collect::<Vec<_>>()
    };
    is("\nConnections that were refused", AdmissionError::ALL.iter().map(|r| (r.as_str(), rejected(*r))).collect());
    let notes = is(
        "\nConnections and links that ended",
        CloseReason::ALL.iter().map(|r| (r.as_str(), closed(*r, true))).collect(),
    );
    for (reason, note) in CloseReason::ALL.iter().zip(notes) {
        let connecting = closed(*reason, false);
        let says = note.contains("while connecting").then(|| words(&note).next()).flatten();
        assert_eq!(says.unwrap_or(closed(*reason, true)), connecting, "{reason}");
    }
    let failed = ConnectResult::ALL.iter().filter(|result| **result != ConnectResult::Ok);
    is("\nConnections whose target could not", failed.map(|r| (r.as_str(), unreached(*r))).collect());
    is("\nSessions (", EndReason::ALL.iter().map(|r| (r.as_str(), ended(*r))).collect());
}

#[test]
fn codes_are_letters_that_haproxy_has() {
    let all = AdmissionError::ALL.iter().map(|r| rejected(*r));
    let all = all.chain(CloseReason::ALL.iter().flat_map(|r| [closed(*r, true), closed(*r, false)]));
    let all = all.chain(ConnectResult::ALL.iter().map(|r| unreached(*r)));
    for code in all.chain(EndReason::ALL.iter().map(|r| ended(*r))) {
        let (first, second) = code.split_at(1);
        assert!("CSPLRIDUKcs-".contains(first) && "RQCHDLT-".contains(second), "{code}");
        assert_eq!(first == "-", second == "-", "{code}");
    }
}

//! The numbers of an upgrade without systemd, of a core that is killed, and of alerts, in docs/operations.md, are those of the code.

use std::fs;

use otproxy::alerts::{EVERY, FIRST_AGAIN, GATHERED, LONGEST_AGAIN, MAX_WAITING};
use otproxy::handover::{MOST_TRIES, WITHIN};
use otproxy::roles::{GOES_ON, SPREAD};
use otproxy_protocol::core::PACKETS_PERIOD;

/// Returns the seconds after which the core's unit starts it again.
fn restart_sec() -> f64 {
    let unit = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/otproxy-core.service")).unwrap();
    let millis = unit.lines().find_map(|line| line.strip_prefix("RestartSec=")?.strip_suffix("ms")).expect("in ms");
    millis.parse::<f64>().unwrap() / 1000.0
}

#[test]
fn the_numbers_are_those_of_the_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let text = fs::read_to_string(path).unwrap();
    for says in [
        format!("or says nothing for {} seconds", WITHIN.as_secs()),
        format!("within {} seconds and half of `shutdown_timeout`", SPREAD.as_secs()),
        format!("`{GOES_ON}`"),
        format!("After {MOST_TRIES} processes in a row that did not last a second"),
        format!("for up to {} s more", PACKETS_PERIOD.as_secs_f64()),
        format!("takes {} KiB of memory for each session", otproxy_journal::BLOCK / 1024),
        format!("starts the next one after {} s", restart_sec()),
    ] {
        assert!(text.contains(&says), "docs/operations.md does not say: {says}");
    }
}

#[test]
fn the_numbers_of_alerts_are_those_of_the_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let text = fs::read_to_string(path).unwrap().replace('\n', " ");
    for says in [
        format!("happens within {} s is one message", GATHERED.as_secs()),
        format!("there are {} s at least", EVERY.as_secs()),
        format!("after {} s, then {} s, and so on", FIRST_AGAIN.as_secs(), 2 * FIRST_AGAIN.as_secs()),
        format!(
            "so on up to {0} s, and after as long as an answer asks for (`Retry-After`), up to {0} s",
            LONGEST_AGAIN.as_secs()
        ),
        format!("At most {MAX_WAITING} events wait"),
    ] {
        assert!(text.contains(&says), "docs/operations.md does not say: {says}");
    }
}

//! The numbers of an upgrade without systemd, and of a core that is killed, in docs/operations.md, are those of the code.

use std::fs;

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

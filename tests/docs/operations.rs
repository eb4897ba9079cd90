//! The numbers of an upgrade without systemd, in docs/operations.md, are those of the code.

use std::fs;

use otproxy::handover::WITHIN;
use otproxy::roles::{GOES_ON, SPREAD};

#[test]
fn the_times_of_an_upgrade_are_those_of_the_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let text = fs::read_to_string(path).unwrap();
    for says in [
        format!("or says nothing for {} seconds", WITHIN.as_secs()),
        format!("within {} seconds and half of `shutdown_timeout`", SPREAD.as_secs()),
        format!("`{GOES_ON}`"),
    ] {
        assert!(text.contains(&says), "docs/operations.md does not say: {says}");
    }
}

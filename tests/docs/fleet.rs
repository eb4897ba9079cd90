//! docs/fleet.md says the numbers of the code, and knows every state and cause.

use std::time::Duration;

use otproxy::fleet::{
    EdgeCause, EdgeState, GRACE, LEAST_EXCESS, LOST_LEAST, LOST_SHARE, NORMAL_WITHIN, PRIORITY_CHANGE, PRIORITY_STEP,
    QUIET, ROUND_WITHIN, SLOW_ROUNDS, SOFT_TRAFFIC, STATE_CHANGE, WINDOW,
};
use otproxy::proxies_table::{PACE, create_table, create_user, grant};
use otproxy_config::{Config, MORE_WHEN_HIT, parse};
use otproxy_protocol::edge_list::SET_BACK;

const DOCUMENT: &str = include_str!("../../docs/fleet.md");

#[test]
fn the_numbers_of_the_fleet_are_those_of_the_code() {
    let minutes = |time: std::time::Duration| time.as_secs() / 60;
    for says in [
        format!(
            "at least {} ms longer than they are over it at other times, for {SLOW_ROUNDS} looks",
            LEAST_EXCESS.as_millis()
        ),
        format!(
            "within {} s players lost links over it, {LOST_LEAST} at least and one in {LOST_SHARE},",
            WINDOW.as_secs()
        ),
        format!("as normal after {} minutes", minutes(NORMAL_WITHIN)),
        format!("over after {} s of quiet", QUIET.as_secs()),
        format!("once in {} s at the most", STATE_CHANGE.as_secs()),
        format!("is waited for {} s", GRACE.as_secs()),
        format!("in steps of {PRIORITY_STEP} ms and every {} minutes at the most", minutes(PRIORITY_CHANGE)),
        format!("{MORE_WHEN_HIT} more than `priority` without it"),
        format!("of the next one {SET_BACK} ms more, of the third {} ms more", 2 * SET_BACK),
        format!("from `soft` on {SOFT_TRAFFIC} ms more"),
    ] {
        assert!(DOCUMENT.contains(&says), "docs/fleet.md does not say: {says}");
    }
    let text = "role: core\nedges: [{ name: waw1, address: 192.0.2.1 }]\nlisteners: [{ name: links, kind: relay, listen: '127.0.0.1:1' }]\n\
                game_servers: [{ port: 7172, address: '127.0.0.1:2' }]\n";
    let Ok(Config::Core(core)) = parse("core.yaml", text) else { panic!("a core") };
    let (every, fall, rise) = (core.fleet.every.as_secs(), u64::from(core.fleet.fall), u64::from(core.fleet.rise));
    // Players may have been heard in a round until it was cut, and the last round and the table take their time.
    let latest = Duration::from_secs(every * (fall + 1)) + ROUND_WITHIN + PACE;
    let says = format!(
        "out after {} to {} s, in the table of proxies too, and back after {} s",
        every * fall,
        latest.as_secs_f64().ceil(),
        every * rise
    );
    assert!(DOCUMENT.contains(&says), "docs/fleet.md does not say: {says}");
}

#[test]
fn every_state_and_cause_is_explained() {
    let states = EdgeState::ALL.iter().map(|state| state.as_str());
    for word in states.chain(EdgeCause::ALL.iter().map(|cause| cause.as_str())) {
        let row = |line: &str| {
            line.starts_with("| `") && line.split(" | ").next().is_some_and(|cell| cell.contains(&format!("`{word}`")))
        };
        assert!(DOCUMENT.lines().any(row), "docs/fleet.md has no row of {word}");
    }
}

#[test]
fn the_statements_for_the_table_of_proxies_are_those_that_the_doctor_names() {
    let document = include_str!("../../docs/proxies-table.md");
    for statement in [create_table("proxies"), create_user("otproxy"), grant("otproxy", "myot", "proxies")] {
        assert!(document.contains(&format!("{statement};\n")), "docs/proxies-table.md has no {statement}");
    }
}

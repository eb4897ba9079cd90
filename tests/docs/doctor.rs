//! `docs/doctor.md`, `docs/probe.md`: each check, and the times. `docs/ping.md`: each error.

use otproxy::doctor::{ANSWER, CHECKS, CONNECT, MAX_LIST, OUTSIDE_CHECKS, OUTSIDE_TIMES, WITHIN};
use otproxy::probe::PROBE_ERRORS;
use otproxy::tunnel::DAYS_LEFT;

#[test]
fn the_document_has_each_check_and_the_times() {
    let document = include_str!("../../docs/doctor.md");
    let rows: Vec<_> =
        document.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(name, _)| name).collect();
    assert_eq!(rows, CHECKS);
    let (connect, answer, within) = (CONNECT.as_secs(), ANSWER.as_secs(), WITHIN.as_secs());
    let times =
        format!("connects wait for {connect} s, answers for {answer} s, and all that\nruns at once for {within} s");
    assert!(document.contains(&times), "{times}");
    assert!(document.contains(&format!("valid for {DAYS_LEFT} more days at least")));
}

#[test]
fn the_document_of_looks_from_outside_has_each_check_and_the_times() {
    let document = include_str!("../../docs/probe.md");
    let (_, table) = document.split_once("| check | ok if |").expect("the table");
    let rows: Vec<_> =
        table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(name, _)| name).collect();
    assert_eq!(rows, OUTSIDE_CHECKS);
    let (pings, [interval, step, edge]) = OUTSIDE_TIMES;
    let times = format!(
        "{pings} pings over one link, {} ms apart; each step waits for {} s, and all of an edge for {} s",
        interval.as_millis(),
        step.as_secs(),
        edge.as_secs()
    );
    assert!(document.contains(&times), "{times}");
    assert!(document.contains(&format!("up to {} KiB", MAX_LIST / 1024)));
}

#[test]
fn the_document_of_pings_has_each_error() {
    let document = include_str!("../../docs/ping.md");
    let (_, table) = document.split_once("| error | meaning |").expect("the table");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" |")).map(|(words, _)| words);
    let words: Vec<_> = rows.flat_map(|words| words.split(", ")).map(|word| word.trim_matches('`')).collect();
    assert_eq!(words, PROBE_ERRORS);
}

#[test]
fn the_commands_for_players_own_addresses_are_those_of_the_unit() {
    let document = include_str!("../../docs/configuration.md");
    let unit = include_str!("../../systemd/source-player.conf");
    let (_, section) = document.split_once("### Players' own addresses\n").expect("a section");
    let commands: Vec<_> = section.lines().take(30).filter(|line| line.starts_with("ip ")).collect();
    assert_eq!(commands.len(), 2, "{commands:?}");
    for command in commands {
        assert!(unit.contains(&format!("ExecStartPre=+-{command}\n")), "{command}");
    }
}

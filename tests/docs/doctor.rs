//! `docs/doctor.md`: each check, and the times.

use otproxy::doctor::{ANSWER, CHECKS, CONNECT, WITHIN};
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

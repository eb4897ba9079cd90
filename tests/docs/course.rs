//! Events and figures in `docs/admin.md` are those of the code.

use std::fmt::Write as _;
use std::time::Duration;

use otproxy::admin;
use otproxy::admission;
use otproxy::events::{EVENTS_KEPT, EVENTS_PER_WINDOW, EventKind};
use otproxy::history::{EdgeFigure, Figure, Fold, MAX_EDGES, MAX_WORLDS, WorldFigure};
use otproxy::lag;
use otproxy::metrics::CATALOGUE;

fn document() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/admin.md")).expect("docs/admin.md")
}

/// Returns a text without its line breaks.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_kind_of_event_has_a_row() {
    let text = document();
    let (_, events) = text.split_once("### Events").expect("the section of events");
    let (events, _) = events.split_once("### History").expect("its end");
    let rows: Vec<_> = events.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(rows, EventKind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>());
    for number in [
        format!("last {EVENTS_KEPT} events"),
        format!("{EVENTS_PER_WINDOW} of one kind in ten seconds"),
        format!("{} streams", admin::MAX_STREAMS),
        format!("{} seconds nothing", admin::KEEP_ALIVE.as_secs()),
        format!("{} connections a second for {} seconds", admission::ATTACK_REFUSALS, admission::ATTACK_SECONDS),
        format!("{} seconds without", admission::ATTACK_QUIET),
        format!("from {:.0} % on", admission::PRESSURE_FROM * 100.0),
        format!("below {:.0} %", admission::PRESSURE_OVER * 100.0),
    ] {
        assert!(flat(events).contains(&number), "{number}");
    }
}

/// The section on lag has the numbers of the code.
#[test]
fn lag_is_judged_as_the_document_says() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).expect("a document");
    let (_, lag) = text.split_once("## Whose lag was it").expect("the section");
    let (lag, _) = lag.split_once("\n## ").expect("its end");
    let minutes = |time: Duration| format!("{} minutes", time.as_secs() / 60);
    assert_eq!((lag::RESUMED_SHARE, lag::EXCESS_SHARE, lag::NORMAL_FROM.as_secs()), (4, 2, 60), "words for numbers");
    for number in [
        format!("looked at {} times a second", 1000 / lag::LOOK.as_millis()),
        format!("counts from {:?} on", lag::LEAST_STALL),
        format!("longer than {} times what is usual", lag::TIMES_USUAL),
        format!("({} % of its last {} gaps", lag::USUAL, lag::GAPS),
        format!("within the {:?} before", lag::PLAYED_WITHIN).replace("10s", "10 s"),
        format!("sent {} packets or more", lag::LEAST_ACTS),
        format!("told of after {} s", lag::ONGOING.as_secs()),
        format!("of the last {} s, of which there must be {}", lag::PRESENT.as_secs(), lag::LEAST_TRIPS),
        format!("over {}", minutes(lag::NORMAL_OVER)),
        format!("A jump is {} ms and half", lag::LEAST_EXCESS.as_millis()),
        format!("for {} s; it is over", lag::BEGINS_AFTER),
        format!("is left for {} s", lag::OVER_AFTER),
        format!("After {} it counts as normal", minutes(lag::GIVES_UP_AFTER)),
        format!("a turn each {} ms", lag::TICK.as_millis()),
        format!("A delay of {} ms and more is noted", lag::HELD_UP.as_millis()),
        format!("one of {} ms and more is told of", lag::LEAST_DELAY.as_millis()),
    ] {
        assert!(flat(lag).contains(&number.replace("200ms", "200 ms")), "{number}");
    }
    for metric in ["otproxy_game_stall_seconds", "otproxy_edge_jitter_seconds", "otproxy_worker_delay_seconds"] {
        assert!(CATALOGUE.iter().any(|family| family.name == metric), "{metric}");
    }
}

/// The table of figures. `OTPROXY_BLESS=1` writes it anew.
#[test]
fn every_figure_has_a_row() {
    const BEGIN: &str = "<!-- figures: generated, do not edit -->\n";
    const END: &str = "<!-- end of figures -->\n";
    let mut table = "| of | figure | meaning | of a minute |\n|---|---|---|---|\n".to_owned();
    let mut row = |of: &str, name: &str, meaning: &str, fold: Fold| {
        let meaning = meaning.trim_end_matches('.');
        writeln!(table, "| {of} | `{name}` | {meaning} | {} |", fold.as_str()).expect("into a string");
    };
    Figure::ALL.iter().for_each(|figure| row("the process", figure.as_str(), figure.meaning(), figure.fold()));
    EdgeFigure::ALL.iter().for_each(|figure| row("an edge", figure.as_str(), figure.meaning(), figure.fold()));
    WorldFigure::ALL.iter().for_each(|figure| row("a world", figure.as_str(), figure.meaning(), figure.fold()));
    let text = document();
    let (before, rest) = text.split_once(BEGIN).expect("the mark where the table begins");
    let (_, after) = rest.split_once(END).expect("the mark where the table ends");
    let expected = [before, BEGIN, &table, END, after].concat();
    if std::env::var_os("OTPROXY_BLESS").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/admin.md"), &expected).expect("writable");
    } else {
        assert_eq!(text, expected, "OTPROXY_BLESS=1 cargo test --test docs course writes it anew");
    }
    assert!(flat(&text).contains(&format!("first {MAX_EDGES} edges and {MAX_WORLDS} worlds")));
}

//! Events and figures in `docs/admin.md` are those of the code.

use std::fmt::Write as _;

use otproxy::admin;
use otproxy::admission;
use otproxy::events::{EVENTS_KEPT, EVENTS_PER_WINDOW, EventKind};
use otproxy::history::{EdgeFigure, Figure, Fold, MAX_EDGES, MAX_WORLDS, WorldFigure};

fn document() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/admin.md")).expect("docs/admin.md")
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
        assert!(events.contains(&number), "{number}");
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
    assert!(text.contains(&format!("first {MAX_EDGES} edges and {MAX_WORLDS} worlds")));
}

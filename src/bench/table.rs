//! What a load test shows: progress on a terminal, then a table or JSON.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json as value};

use crate::standin::Direction;
use crate::text_table::{TextTable, counted};

use super::crew::Crew;
use super::figures::PathFigures;
use super::{BenchOptions, Figures, Histogram};

/// The quantiles that are shown, with their names in JSON.
const QUANTILES: [(f64, &str); 4] = [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99_9")];

/// One line on stderr, written over and over; nothing where that is no terminal.
pub(super) struct Progress {
    terminal: bool,
}

impl Progress {
    pub fn new() -> Self {
        Self { terminal: io::stderr().is_terminal() }
    }

    pub fn entering(&mut self, inside: usize, players: usize) {
        self.line(|| format!("{inside} of {players} players are in the game"));
    }

    pub fn playing(&mut self, elapsed: Duration, whole: Duration, crew: &Crew) {
        self.line(|| {
            let meter = crew.meter();
            let trip = &meter.round_trip;
            format!(
                "{} of {} s: {} packets sent, {} received; round trip {} ms, 1 % over {} ms",
                elapsed.min(whole).as_secs(),
                whole.as_secs(),
                meter.sent,
                meter.received,
                millis(trip.quantile(0.5)),
                millis(trip.quantile(0.99)),
            )
        });
    }

    /// Clears the line.
    pub fn end(&mut self) {
        self.line(String::new);
    }

    fn line(&self, text: impl FnOnce() -> String) {
        if self.terminal {
            // Nobody misses a line that cannot be written.
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[K{}", text()).and_then(|()| stderr.flush());
        }
    }
}

/// Says that the stand-in runs alone.
pub(super) fn serving(address: SocketAddr) {
    // The same on a terminal and in a file: scripts wait for it.
    let _ = writeln!(io::stderr(), "A stand-in game server listens on {address}, until Ctrl-C.");
}

pub(super) fn text(options: &BenchOptions, figures: &Figures) -> String {
    let BenchOptions { up, down, size_up, size_down, .. } = options;
    let mut text = format!("{} over {}", counted(figures.players, "player"), options.edges.join(", "));
    match options.port {
        Some(port) => drop(write!(text, ", {} each, port {port}", counted(options.links as u64, "link"))),
        None => text.push_str(", plain connections"),
    }
    let _ = writeln!(
        text,
        "\n{up} packets/s of {size_up} bytes from each, {down} of {size_down} to each; measured for {:.1} s\n",
        figures.measured.as_secs_f64()
    );
    text.push_str(&counts(figures));
    text.push('\n');
    text.push_str(&quantiles(figures));
    if !figures.paths.is_empty() {
        text.push('\n');
        text.push_str(&paths(options, figures));
    }
    text.push_str(&verdict(figures));
    text
}

fn counts(figures: &Figures) -> String {
    let mut table = TextTable::with_widths([
        ("", 15),
        (">sent", 10),
        (">delivered", 10),
        (">lost", 6),
        (">duplicated", 10),
        (">reordered", 9),
    ]);
    for (name, Direction { sent, delivered, lost, duplicated, reordered, .. }) in directions(figures) {
        let [sent, delivered, lost] = [sent, delivered, lost].map(|count| count.to_string());
        table.row([name.to_owned(), sent, delivered, lost, duplicated.to_string(), reordered.to_string()]);
    }
    table.text(None)
}

fn quantiles(figures: &Figures) -> String {
    let mut table =
        TextTable::with_widths([("ms", 15), (">p50", 9), (">p90", 9), (">p99", 9), (">p99.9", 9), (">max", 9)]);
    for (name, _, histogram) in latencies(figures).into_iter().filter(|(.., histogram)| histogram.total() > 0) {
        let [p50, p90, p99, p99_9] = QUANTILES.map(|(share, _)| millis(histogram.quantile(share)));
        table.row([name.to_owned(), p50, p90, p99, p99_9, millis(histogram.highest())]);
    }
    table.text(None)
}

fn paths(options: &BenchOptions, figures: &Figures) -> String {
    let mut table = TextTable::with_widths([
        ("", 25),
        (">links", 6),
        (">was first", 9),
        (">was second", 10),
        (">connects failed", 15),
        (">links lost", 10),
    ]);
    let all: u64 = figures.paths.iter().map(|path| path.first).sum();
    for (edge, path) in options.edges.iter().zip(&figures.paths) {
        let PathFigures { links, first, second, connects_failed, links_lost } = path;
        let first = format!("{:.1} %", share(*first, all));
        let [second, failed, lost] = [second, connects_failed, links_lost].map(|count| count.to_string());
        table.row([edge.to_string(), links.to_string(), first, second, failed, lost]);
    }
    table.text(None)
}

fn verdict(figures: &Figures) -> String {
    let mut text = "\n".to_owned();
    if figures.early {
        text.push_str("Ended early; this is the verdict so far.\n");
    }
    let sum = |part: fn(&Direction) -> u64| part(&figures.to_game) + part(&figures.to_players);
    let (sent, delivered, alien) = (sum(|d| d.sent), sum(|d| d.delivered), sum(|d| d.alien));
    let word = if figures.passed() { "PASSED" } else { "FAILED" };
    let _ = writeln!(
        text,
        "{word}: {delivered} of {sent} packets arrived; {} lost, {} duplicated, {} reordered.",
        sum(|d| d.lost),
        sum(|d| d.duplicated),
        sum(|d| d.reordered)
    );
    let findings = [
        (figures.ended, "session ended early", "sessions ended early"),
        (
            figures.unanswered,
            "session has no account of the game server",
            "sessions have no account of the game server",
        ),
        (figures.violations, "frame against the protocol", "frames against the protocol"),
        (alien, "packet arrived that nobody sent", "packets arrived that nobody sent"),
    ];
    for (count, one, many) in findings.into_iter().filter(|(count, ..)| *count > 0) {
        let _ = writeln!(text, "{count} {}.", if count == 1 { one } else { many });
    }
    if figures.passed() {
        text.push_str("All sessions lasted until the players left.\n");
    }
    let _ = writeln!(text, "This process used {:.2} of a CPU for it.", cpus(figures));
    text
}

pub(super) fn json(options: &BenchOptions, figures: &Figures) -> String {
    let path = |(edge, path): (&String, &PathFigures)| {
        let all: u64 = figures.paths.iter().map(|path| path.first).sum();
        value!({
            "edge": edge, "links": path.links, "first": path.first, "second": path.second,
            "first_share": share(path.first, all) / 100.0,
            "connects_failed": path.connects_failed, "links_lost": path.links_lost,
        })
    };
    let directions: Vec<_> = directions(figures).into_iter().map(|(_, d)| direction(&d)).collect();
    let latencies: serde_json::Map<_, _> =
        latencies(figures).into_iter().map(|(_, key, histogram)| (key.to_owned(), latency(histogram))).collect();
    let object = value!({
        "passed": figures.passed(),
        "early": figures.early,
        "players": figures.players,
        "links_per_session": options.port.map(|_| options.links),
        "port": options.port,
        "packets_per_second": { "up": options.up, "down": options.down },
        "bytes": { "up": options.size_up, "down": options.size_down },
        "measured_seconds": figures.measured.as_secs_f64(),
        "cpus": cpus(figures),
        "to_game": directions.first(),
        "to_players": directions.get(1),
        "seconds": latencies,
        "sessions_ended": figures.ended,
        "sessions_unanswered": figures.unanswered,
        "violations": figures.violations,
        "paths": options.edges.iter().zip(&figures.paths).map(path).collect::<Vec<_>>(),
    });
    format!("{object}\n")
}

fn directions(figures: &Figures) -> [(&'static str, Direction); 2] {
    [("to game server", figures.to_game), ("to players", figures.to_players)]
}

/// Each latency, as people and as programs call it.
fn latencies(figures: &Figures) -> [(&'static str, &'static str, &Histogram); 4] {
    [
        ("round trip", "round_trip", &figures.round_trip),
        ("to game server", "to_game", &figures.up),
        ("to players", "to_players", &figures.down),
        ("sent late", "sent_late", &figures.late),
    ]
}

fn direction(direction: &Direction) -> Value {
    let Direction { sent, delivered, lost, duplicated, reordered, alien } = direction;
    value!({
        "sent": sent, "delivered": delivered, "lost": lost,
        "duplicated": duplicated, "reordered": reordered, "alien": alien,
    })
}

/// `null` where nothing was measured.
fn latency(histogram: &Histogram) -> Value {
    if histogram.total() == 0 {
        return Value::Null;
    }
    let seconds = |nanos: u64| Value::from(nanos as f64 / 1e9);
    let mut object: serde_json::Map<_, _> =
        QUANTILES.into_iter().map(|(share, name)| (name.to_owned(), seconds(histogram.quantile(share)))).collect();
    object.insert("max".to_owned(), seconds(histogram.highest()));
    object.insert("count".to_owned(), histogram.total().into());
    Value::Object(object)
}

fn share(part: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { 100.0 * part as f64 / all as f64 }
}

fn cpus(figures: &Figures) -> f64 {
    let measured = figures.measured.as_secs_f64();
    if measured > 0.0 { figures.cpu.as_secs_f64() / measured } else { 0.0 }
}

fn millis(nanos: u64) -> String {
    format!("{:.3}", nanos as f64 / 1e6)
}

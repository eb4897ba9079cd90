//! `otproxy demo`: a table on stdout, drawn over and over on a terminal, now and then elsewhere.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use otproxy_testkit::Direction;
use otproxy_testkit::demo::{self, DemoOptions, DemoOutcome, DemoReport, Display, EdgeNow, Moment, Resources};

use super::text_table::{TextTable, counted};
use super::{raise_file_limit, runtime};
use crate::roles;

#[derive(Debug, clap::Args)]
pub(super) struct Demo {
    /// Players, each with a link to every edge
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=2000))]
    players: u16,
    /// Edges
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    edges: u8,
    /// How long they play
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=86400))]
    seconds: u32,
}

impl Demo {
    /// Plays the demo, and exits with 1 unless nothing was lost.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let options = DemoOptions {
            players: usize::from(self.players),
            edges: usize::from(self.edges),
            duration: Duration::from_secs(self.seconds.into()),
            file_limit: raise_file_limit(),
        };
        let (runtime, signals) = runtime()?;
        let mut table = Table::new();
        let outcome = runtime.block_on(demo::run(options, roles::start, &mut table, signals.caught()))?;
        table.verdict(&outcome);
        Ok(if outcome.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Between two tables: on a terminal, and elsewhere.
const REDRAW: Duration = Duration::from_millis(500);
const BLOCK: Duration = Duration::from_secs(5);

/// The table.
struct Table {
    admin: Option<SocketAddr>,
    terminal: bool,
    /// Lines of the table that stands on the terminal.
    lines: usize,
}

impl Table {
    fn new() -> Self {
        Self { admin: None, terminal: io::stdout().is_terminal(), lines: 0 }
    }

    /// Prints what was shown.
    fn verdict(&self, outcome: &DemoOutcome) {
        let mut text = verdict(outcome);
        if let Some(admin) = self.admin {
            let _ = writeln!(text, "The core's status was at http://{admin}/metrics while it ran.");
        }
        print(&text);
    }
}

impl Display for Table {
    fn begin(&mut self, options: DemoOptions, admin: Option<SocketAddr>) {
        self.admin = admin;
        let DemoOptions { players, edges, duration, .. } = options;
        let mut text = format!(
            "{} play for {} over {}, which are cut one after another.\n",
            counted(players as u64, "player"),
            seconds(duration),
            counted(edges as u64, "edge")
        );
        if let Some(admin) = admin {
            let _ = writeln!(text, "The core's status meanwhile: http://{admin}/metrics, /live, /ready");
        }
        print(&text);
    }

    fn every(&self) -> Duration {
        if self.terminal { REDRAW } else { BLOCK }
    }

    /// Draws the table, on a terminal over the one before.
    fn show(&mut self, options: DemoOptions, moment: &Moment) {
        let table = render(options.duration, moment);
        if self.terminal {
            let up = if self.lines > 0 { format!("\x1b[{}A\x1b[J", self.lines) } else { String::new() };
            self.lines = table.lines().count();
            print(&format!("{up}{table}"));
        } else {
            print(&table);
        }
    }
}

fn render(duration: Duration, moment: &Moment) -> String {
    let Moment { elapsed, cuts, edges, figures } = moment;
    let all: u64 = edges.iter().map(|edge| edge.first).sum();
    let mut text =
        format!("\n{} of {}, {} of an edge\n\n", seconds(*elapsed), seconds(duration), counted(*cuts, "cut"));
    let mut table = TextTable::with_widths([
        ("", 8),
        (">state", 6),
        (">links", 6),
        (">was first", 10),
        (">was second", 11),
        (">round trip", 11),
    ]);
    for EdgeNow { name, up, links, first, duplicates, rtt } in edges {
        let share = if all == 0 { 0.0 } else { 100.0 * *first as f64 / all as f64 };
        table.row([
            name.clone(),
            if *up { "up" } else { "cut" }.to_owned(),
            links.to_string(),
            format!("{share:.1} %"),
            duplicates.to_string(),
            rtt.map_or_else(|| "-".to_owned(), |rtt| format!("{:.1} ms", rtt.as_secs_f64() * 1e3)),
        ]);
    }
    text.push_str(&table.text(None));
    let mut table = TextTable::with_widths([
        ("", 15),
        (">sent", 9),
        (">delivered", 9),
        (">underway", 8),
        (">lost", 6),
        (">duplicated", 10),
        (">reordered", 9),
    ]);
    for (name, direction) in [("to game server", &figures.to_game), ("to players", &figures.to_players)] {
        let Direction { sent, delivered, lost, duplicated, reordered, .. } = *direction;
        let counts =
            [sent, delivered, direction.under_way(), lost, duplicated, reordered].map(|count| count.to_string());
        let [sent, delivered, underway, lost, duplicated, reordered] = counts;
        table.row([name.to_owned(), sent, delivered, underway, lost, duplicated, reordered]);
    }
    text.push('\n');
    text.push_str(&table.text(None));
    text
}

fn verdict(outcome: &DemoOutcome) -> String {
    let DemoOutcome { figures, cuts, highest, files_left, in_time } = outcome;
    let DemoReport { players, to_game, to_players, ended, extra, violations } = figures;
    let sum = |part: fn(&Direction) -> u64| part(to_game) + part(to_players);
    let (sent, alien) = (sum(|d| d.sent), sum(|d| d.alien));
    let (lost, duplicated, reordered) = (sum(|d| d.lost), sum(|d| d.duplicated), sum(|d| d.reordered));
    let mut text = "\n".to_owned();
    if !*in_time {
        text.push_str("Ended early; this is the verdict so far.\n");
    }
    if sent == 0 {
        text.push_str("Nothing was sent, so nothing is proved.\n");
        return text;
    }
    let _ = writeln!(
        text,
        "{}: {} and the game server sent {}, {} to it and {} to them, while an edge was cut {}.",
        if outcome.passed() { "PROVED" } else { "FAILED" },
        counted(*players, "player"),
        counted(sent, "packet"),
        to_game.sent,
        to_players.sent,
        counted(*cuts, "time"),
    );
    let _ = writeln!(
        text,
        "{} of {sent} arrived: {lost} lost, {duplicated} duplicated, {reordered} reordered.",
        sum(|d| d.delivered)
    );
    let findings = [
        (*ended, "session ended early", "sessions ended early"),
        (*extra, "connection to the game server too many", "connections to the game server too many"),
        (*violations, "frame against the protocol", "frames against the protocol"),
        (alien, "packet arrived that nobody sent", "packets arrived that nobody sent"),
        (*files_left, "file left open", "files left open"),
    ];
    for (count, one, many) in findings.into_iter().filter(|(count, ..)| *count > 0) {
        let _ = writeln!(text, "{count} {}.", if count == 1 { one } else { many });
    }
    if figures.perfect() {
        text.push_str("All sessions lasted until the players left.\n");
    }
    let parts = |figure: fn(Resources) -> String| highest.parts().map(figure).collect::<Vec<_>>().join(", ");
    let _ = writeln!(
        text,
        "The most in each quarter of the time: memory {} MB; open files {}. Left open at the end: {files_left}.",
        parts(|r| format!("{:.1}", r.memory as f64 / 1e6)),
        parts(|r| r.files.to_string()),
    );
    text
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs())
}

/// Prints a text. A reader that is gone misses the table; the exit code still counts.
fn print(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

#[cfg(test)]
mod tests {
    use otproxy_testkit::demo::HighWater;

    use super::*;

    fn outcome() -> DemoOutcome {
        let to_game = Direction { sent: 10, delivered: 10, ..Direction::default() };
        let to_players = Direction { sent: 20, delivered: 20, ..Direction::default() };
        let figures = DemoReport { players: 2, to_game, to_players, ..DemoReport::default() };
        let mut highest = HighWater::default();
        for (second, memory, files) in [(0, 44_649_999, 310), (1, 45_000_000, 308)] {
            highest.see(Resources { memory, files }, Duration::from_secs(second), Duration::from_secs(4));
        }
        DemoOutcome { figures, cuts: 1, highest, files_left: 0, in_time: true }
    }

    #[test]
    fn says_what_was_proved() {
        let text = verdict(&outcome());
        assert_eq!(
            text,
            "\nPROVED: 2 players and the game server sent 30 packets, 10 to it and 20 to them, while an edge was cut \
             1 time.\n30 of 30 arrived: 0 lost, 0 duplicated, 0 reordered.\nAll sessions lasted until the players left.\n\
             The most in each quarter of the time: memory 44.6, 45.0 MB; open files 310, 308. Left open at the end: 0.\n"
        );
    }

    #[test]
    fn says_what_failed() {
        let mut failed = outcome();
        failed.figures.to_game.delivered = 9;
        failed.figures.to_game.lost = 1;
        failed.figures.ended = 1;
        failed.in_time = false;
        let text = verdict(&failed);
        assert!(text.starts_with("\nEnded early; this is the verdict so far.\nFAILED: "), "{text}");
        let findings = "29 of 30 arrived: 1 lost, 0 duplicated, 0 reordered.\n1 session ended early.\nThe most in ";
        assert!(text.contains(findings), "{text}");
    }

    #[test]
    fn a_file_left_open_is_a_failure() {
        let failed = DemoOutcome { files_left: 2, ..outcome() };
        let text = verdict(&failed);
        assert!(
            !failed.passed() && text.starts_with("\nFAILED: ") && text.contains("\n2 files left open.\n"),
            "{text}"
        );
    }

    #[test]
    fn a_table_fits_a_terminal() {
        let edge = |name: &str, up| EdgeNow {
            name: name.to_owned(),
            up,
            links: 2000,
            first: 750_000,
            duplicates: 1_000_000,
            rtt: up.then_some(Duration::from_micros(12_345)),
        };
        let edges = vec![edge("edge 1", true), edge("edge 16", false)];
        let moment = Moment { elapsed: Duration::from_secs(7), cuts: 3, edges, figures: outcome().figures };
        let text = render(Duration::from_secs(20), &moment);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        assert!(text.contains("\nedge 1       up   2000     50.0 %     1000000     12.3 ms\n"), "{text}");
        assert!(text.contains("\nedge 16     cut   2000     50.0 %     1000000           -\n"), "{text}");
    }
}

//! `otproxy bench`: progress on a terminal, then a table or JSON.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use otproxy_protocol::player::clocks::LINKS_PER_SESSION;
use otproxy_testkit::Direction;
use otproxy_testkit::bench::{self, BenchOptions, Histogram, LoadReport, Meter, PathReport, Progress};
use serde_json::{Value, json as value};

use super::text_table::{TextTable, counted};
use super::{print, raise_file_limit, runtime, wrong_together};

#[derive(Debug, clap::Args)]
pub(super) struct Bench {
    /// Where players connect; each has a link to every one, and one may be named several times
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', required_unless_present = "serve")]
    edges: Vec<String>,
    /// The port to ask the core for: one that leads to the stand-in game server, never to a real one
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Plain connections instead of links: for an edge or a forward without the core's relay
    #[arg(long, conflicts_with_all = ["port", "links"])]
    raw: bool,
    /// Players, who come at 500 a second
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    players: u32,
    /// Links that carry a session, of those that a player has [default: 2, or as many as there are edges]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=32))]
    links: Option<u8>,
    /// Packets a second from each player
    #[arg(long, value_name = "RATE", default_value_t = 5.0, value_parser = rate)]
    up: f64,
    /// Packets a second to each player, an answer to each of its own among them
    #[arg(long, value_name = "RATE", default_value_t = 10.0, value_parser = rate)]
    down: f64,
    /// Bytes of a packet from a player
    #[arg(long, value_name = "BYTES", default_value_t = 24, value_parser = |text: &str| size(text, bench::UP_SIZES))]
    size_up: usize,
    /// Bytes of a packet to a player
    #[arg(long, value_name = "BYTES", default_value_t = 120, value_parser = |text: &str| size(text, bench::DOWN_SIZES))]
    size_down: usize,
    /// How long it is measured
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86400))]
    seconds: u32,
    /// How long they play before that
    #[arg(long, value_name = "S", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=3600))]
    warmup: u32,
    /// Play the game server at this address: in the same process, or alone where no edges are named
    #[arg(long, value_name = "ADDR")]
    serve: Option<SocketAddr>,
    /// Announce an address of its own for each player in a PROXY v2 header, as an edge does
    #[arg(long)]
    send_proxy: bool,
    /// Threads that players run on; the game server has one more
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: u8,
    /// One JSON object on stdout instead of the table
    #[arg(long)]
    json: bool,
}

/// Parses a number of packets a second.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.0..=1000.0).contains(&rate) => Ok(rate),
        _ => Err("a rate is a number from 0 to 1000".to_owned()),
    }
}

fn size(text: &str, sizes: RangeInclusive<usize>) -> Result<usize, String> {
    match text.parse() {
        Ok(size) if sizes.contains(&size) => Ok(size),
        _ => Err(format!("a packet has {} to {} bytes here", sizes.start(), sizes.end())),
    }
}

impl Bench {
    /// Runs the load test, or the mock game server alone, and exits with 1 if anything was lost.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let (runtime, signals) = runtime()?;
        if let (Some(address), []) = (self.serve, &self.edges[..]) {
            raise_file_limit();
            runtime.block_on(bench::serve(address, serving, signals.caught()))?;
            return Ok(ExitCode::SUCCESS);
        }
        let options =
            self.options().map_err(|message| wrong_together("bench", ErrorKind::ArgumentConflict, message))?;
        let figures = runtime.block_on(bench::run(&options, &mut Line::new(), signals.caught()))?;
        let show = if self.json { json } else { text };
        print(show(&options, &figures).as_bytes())?;
        Ok(if figures.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Checks the flags that can only be wrong together.
    fn options(&self) -> Result<BenchOptions, &'static str> {
        let edges = self.edges.len();
        let links = self.links.map_or(LINKS_PER_SESSION.min(edges), usize::from);
        if self.port.is_none() && !self.raw {
            return Err("`--edges` needs a `--port` to ask the core for, or `--raw`");
        }
        if links > edges {
            return Err("more `--links` than addresses in `--edges`: name one several times");
        }
        if self.up > self.down {
            return Err("`--up` is more than `--down`: each packet of a player is answered");
        }
        // Clients give up a session after 30 s without a packet.
        if self.down < 0.1 {
            return Err("`--down` is less than 0.1, and clients give up a session that is silent for 30 s");
        }
        Ok(BenchOptions {
            edges: self.edges.clone(),
            port: self.port,
            players: self.players as usize,
            links,
            up: self.up,
            down: self.down,
            size_up: self.size_up,
            size_down: self.size_down,
            duration: Duration::from_secs(self.seconds.into()),
            warmup: Duration::from_secs(self.warmup.into()),
            serve: self.serve,
            send_proxy: self.send_proxy,
            threads: self.threads.into(),
            file_limit: raise_file_limit(),
        })
    }
}

/// The quantiles that are shown, with their names in JSON.
const QUANTILES: [(f64, &str); 4] = [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99_9")];

/// One line on stderr, written over and over; nothing if that is no terminal.
struct Line {
    terminal: bool,
}

impl Line {
    fn new() -> Self {
        Self { terminal: io::stderr().is_terminal() }
    }

    fn line(&self, text: impl FnOnce() -> String) {
        if self.terminal {
            // Nobody misses a line that cannot be written.
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[K{}", text()).and_then(|()| stderr.flush());
        }
    }
}

impl Progress for Line {
    fn entering(&mut self, inside: usize, players: usize) {
        self.line(|| format!("{inside} of {players} players are in the game"));
    }

    fn playing(&mut self, elapsed: Duration, whole: Duration, meter: &dyn Fn() -> Meter) {
        self.line(|| {
            let meter = meter();
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
    fn end(&mut self) {
        self.line(String::new);
    }
}

/// Says that the mock game server runs alone.
fn serving(address: SocketAddr) {
    // The same on a terminal and in a file: scripts wait for it.
    let _ = writeln!(io::stderr(), "A stand-in game server listens on {address}, until Ctrl-C.");
}

/// Returns a table for people.
fn text(options: &BenchOptions, figures: &LoadReport) -> String {
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

fn counts(figures: &LoadReport) -> String {
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

fn quantiles(figures: &LoadReport) -> String {
    let mut table =
        TextTable::with_widths([("ms", 15), (">p50", 9), (">p90", 9), (">p99", 9), (">p99.9", 9), (">max", 9)]);
    for (name, _, histogram) in latencies(figures).into_iter().filter(|(.., histogram)| histogram.total() > 0) {
        let [p50, p90, p99, p99_9] = QUANTILES.map(|(share, _)| millis(histogram.quantile(share)));
        table.row([name.to_owned(), p50, p90, p99, p99_9, millis(histogram.highest())]);
    }
    table.text(None)
}

fn paths(options: &BenchOptions, figures: &LoadReport) -> String {
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
        let PathReport { links, first, second, connects_failed, links_lost } = path;
        let first = format!("{:.1} %", share(*first, all));
        let [second, failed, lost] = [second, connects_failed, links_lost].map(|count| count.to_string());
        table.row([edge.to_string(), links.to_string(), first, second, failed, lost]);
    }
    table.text(None)
}

fn verdict(figures: &LoadReport) -> String {
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

/// Returns one JSON object for programs.
fn json(options: &BenchOptions, figures: &LoadReport) -> String {
    let path = |(edge, path): (&String, &PathReport)| {
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

fn directions(figures: &LoadReport) -> [(&'static str, Direction); 2] {
    [("to game server", figures.to_game), ("to players", figures.to_players)]
}

/// Returns each latency, as people and as programs call it.
fn latencies(figures: &LoadReport) -> [(&'static str, &'static str, &Histogram); 4] {
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

/// Returns `null` if nothing was measured.
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

fn cpus(figures: &LoadReport) -> f64 {
    let measured = figures.measured.as_secs_f64();
    if measured > 0.0 { figures.cpu.as_secs_f64() / measured } else { 0.0 }
}

fn millis(nanos: u64) -> String {
    format!("{:.3}", nanos as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};

    #[test]
    fn the_load_tests_of_the_document_can_be_typed() {
        let document = include_str!("../../docs/bench.md");
        let in_text = document.split('`').filter(|text| text.starts_with("otproxy bench --"));
        let lines = document.lines().filter(|line| line.starts_with("otproxy bench --")).chain(in_text);
        let mut count = 0;
        for line in lines {
            let cli = Cli::try_parse_from(line.split_whitespace()).unwrap_or_else(|error| panic!("{line}: {error}"));
            let Command::Bench(bench) = cli.command else { panic!("{line}") };
            assert!(bench.edges.is_empty() || bench.options().is_ok(), "{line}: {:?}", bench.options());
            count += 1;
        }
        assert!(count >= 6, "only {count}");
    }
}

//! `otproxy ping`: a line for each ping, then the figures; or JSON.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json as value};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{print, runtime};
use crate::probe::{self, PingFigures, PingSeries, Pinged, ProbeError, Probing};
use otproxy_config::{HostPort, LINKS_PORT};

/// Addresses of one name that are pinged at most.
const MAX_ADDRESSES: usize = 16;
/// The shortest and the longest time between pings. A core closes a link that is silent for longer than
/// `timeouts.idle`, 10 s by default.
const INTERVALS: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(8)];
/// The shortest and the longest time for a connect or a pong.
const TIMEOUTS: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(60)];

#[derive(Debug, clap::Args)]
pub(super) struct Ping {
    /// Edges, as clients are told them; port 7162 unless given
    #[arg(value_name = "HOST[:PORT]", required = true, value_parser = edge)]
    edges: Vec<HostPort>,
    /// Pings to each address; 0 goes on until Ctrl-C
    #[arg(long, value_name = "N", default_value_t = 5)]
    count: u32,
    /// The time from one ping to the next
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = |text: &str| time(text, INTERVALS))]
    interval: Duration,
    /// How long a connect or a pong may take
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = |text: &str| time(text, TIMEOUTS))]
    timeout: Duration,
    /// Only IPv4 addresses
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    ipv4: bool,
    /// Only IPv6 addresses
    #[arg(short = '6', long)]
    ipv6: bool,
    /// Send a PROXY header first, as an edge does: for a core's own listener, from an edge's host
    #[arg(long)]
    send_proxy: bool,
    /// One JSON object on stdout at the end, instead of lines
    #[arg(long)]
    json: bool,
}

/// Parses an edge, as `p1.example`, `198.51.100.7:7162`, `2001:db8::7` or `[2001:db8::7]:7162`.
pub(super) fn edge(text: &str) -> Result<HostPort, String> {
    let wrong = || "write it as `p1.example`, `198.51.100.7:7162` or `[2001:db8::7]:7162`".to_owned();
    if let Ok(address) = text.parse::<SocketAddr>() {
        return if address.port() == 0 { Err(wrong()) } else { Ok(address.into()) };
    }
    if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, LINKS_PORT).into());
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?),
        None => (text, LINKS_PORT),
    };
    let of_a_name = |c: char| c.is_alphanumeric() || "-._".contains(c);
    if host.is_empty() || !host.chars().all(of_a_name) {
        return Err(wrong());
    }
    Ok(HostPort { host: host.to_owned(), port })
}

fn time(text: &str, [least, most]: [Duration; 2]) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|_| "write it as `500ms` or `2s`".to_owned())?;
    let [from, to] = [least, most].map(humantime::format_duration);
    if (least..=most).contains(&time) { Ok(time) } else { Err(format!("from {from} to {to}")) }
}

/// The pings of one address of an edge, or those of none, if its name does not resolve.
struct Path {
    edge: HostPort,
    address: Option<SocketAddr>,
    figures: PingFigures,
}

impl Ping {
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let (runtime, signals) = runtime()?;
        let mut paths = Vec::new();
        let ended = runtime.block_on(async {
            tokio::select! {
                ended = self.ping(&mut paths) => ended,
                () = signals.caught() => Ok(()),
            }
        });
        // A name look-up that hangs would delay the end.
        runtime.shutdown_background();
        ended?;
        let passed = passed(&paths);
        print(if self.json { json(&paths, passed) } else { summary(&paths) }.as_bytes())?;
        Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Pings all addresses of all edges at once, and says what comes of each ping.
    async fn ping(&self, paths: &mut Vec<Path>) -> anyhow::Result<()> {
        for edge in &self.edges {
            self.resolve(edge, paths).await?;
        }
        let probing = Probing { client: probe::client_id(), within: self.timeout, send_proxy: self.send_proxy };
        let count = (self.count > 0).then_some(self.count);
        let (sender, mut results) = mpsc::unbounded_channel();
        let mut running = JoinSet::new();
        for (index, path) in paths.iter().enumerate() {
            let (Some(address), sender) = (path.address, sender.clone()) else { continue };
            let series = PingSeries { address, probing, count, interval: self.interval };
            running.spawn(series.run(move |pinged| {
                // It may have ended early.
                let _ = sender.send((index, pinged));
            }));
        }
        drop(sender);
        while let Some((index, pinged)) = results.recv().await {
            let Some(path) = paths.get_mut(index) else { continue };
            path.figures.count(&pinged);
            if let (Some(address), false) = (path.address, self.json) {
                print(line(address, &pinged).as_bytes())?;
            }
        }
        Ok(())
    }

    async fn resolve(&self, edge: &HostPort, paths: &mut Vec<Path>) -> anyhow::Result<()> {
        let found = otproxy_net::resolve((&edge.host, edge.port), self.timeout).await;
        let mut addresses = found.unwrap_or_default();
        addresses.retain(|address| !(self.ipv4 && address.is_ipv6() || self.ipv6 && address.is_ipv4()));
        let mut known = BTreeSet::new();
        addresses.retain(|address| known.insert(*address));
        addresses.truncate(MAX_ADDRESSES);
        let of = |address| Path { edge: edge.clone(), address, figures: PingFigures::default() };
        if addresses.is_empty() {
            let mut unresolved = of(None);
            unresolved.figures.fail(ProbeError::Connect(otproxy_net::ConnectResult::Resolve));
            paths.push(unresolved);
        } else if !self.json && edge.literal().is_none() {
            let list: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
            let mut text = format!("{edge} is {}", list.join(", "));
            if addresses.len() > 1 {
                text += "; clients try the first that they are told, and no other";
            }
            print(format!("{text}\n").as_bytes())?;
        }
        paths.extend(addresses.into_iter().map(|address| of(Some(address))));
        Ok(())
    }
}

/// Returns whether all pings were answered. An address that this host cannot try does not count, if another one of its edge can.
fn passed(paths: &[Path]) -> bool {
    let tried = |path: &Path| !path.figures.untried();
    let counts = |path: &&Path| tried(path) || !paths.iter().any(|other| other.edge == path.edge && tried(other));
    paths.iter().filter(counts).all(|path| path.figures.passed())
}

fn line(address: SocketAddr, pinged: &Pinged) -> String {
    let number = pinged.number;
    match &pinged.result {
        Ok(round_trip) => {
            let connect = pinged.connect.map(|took| format!(", link opened in {}", millis(took))).unwrap_or_default();
            format!("{address}: pong {number} after {}{connect}\n", millis(*round_trip))
        }
        Err(error) => format!("{address}: no pong {number}: {}\n", error.finding()),
    }
}

/// Returns the figures of each address, with the remedies of what went wrong.
fn summary(paths: &[Path]) -> String {
    let mut text = String::new();
    for Path { edge, address, figures } in paths {
        let at = address.filter(|_| edge.literal().is_none()).map(|a| format!(" at {}", a.ip())).unwrap_or_default();
        let _ = writeln!(text, "\n--- {edge}{at} ---");
        if figures.pings > 0 {
            let lost = figures.lost() * 100.0;
            let _ = write!(text, "{} pings, {} pongs, {lost:.0} % lost", figures.pings, figures.pongs);
            if let Some(round_trips) = figures.round_trips() {
                let [least, average, most] = round_trips.map(|time| format!("{:.3}", time.as_secs_f64() * 1000.0));
                let _ = write!(text, "; round trip min/avg/max {least}/{average}/{most} ms");
            }
            text.push('\n');
        }
        for (error, count) in figures.errors.values() {
            let times = if *count > 1 { format!(" ({count} times)") } else { String::new() };
            let _ = writeln!(text, "{}{times}; remedy: {}", error.finding(), error.remedy("the edge"));
        }
    }
    text
}

fn json(paths: &[Path], passed: bool) -> String {
    let seconds = |time: Duration| time.as_secs_f64();
    let edges: Vec<Value> = paths
        .iter()
        .map(|Path { edge, address, figures }| {
            let errors = figures.errors.values().map(|(error, count)| {
                value!({
                    "error": error.as_str(), "count": count,
                    "message": error.finding(), "remedy": error.remedy("the edge"),
                })
            });
            value!({
                "edge": edge.to_string(),
                "address": address.map(|address| address.to_string()),
                "pings": figures.pings,
                "pongs": figures.pongs,
                "lost": figures.lost(),
                "connect_seconds": figures.connect.map(seconds),
                "round_trip_seconds": figures.round_trips().map(|[min, avg, max]| {
                    value!({ "min": seconds(min), "avg": seconds(avg), "max": seconds(max) })
                }),
                "errors": errors.collect::<Vec<_>>(),
            })
        })
        .collect();
    format!("{}\n", value!({ "ok": passed, "edges": edges }))
}

fn millis(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_written_as_clients_are_told_them() {
        let edge = |text: &str| edge(text).map(|edge| edge.to_string());
        for (text, is) in [
            ("p1.example", "p1.example:7162"),
            ("p1.example:7000", "p1.example:7000"),
            ("198.51.100.7", "198.51.100.7:7162"),
            ("198.51.100.7:1", "198.51.100.7:1"),
            ("2001:db8::7", "[2001:db8::7]:7162"),
            ("[2001:db8::7]", "[2001:db8::7]:7162"),
            ("[2001:db8::7]:1", "[2001:db8::7]:1"),
        ] {
            assert_eq!(edge(text).as_deref(), Ok(is));
        }
        for wrong in ["", ":7162", "p1:", "p1:0", "p1:70000", "1.2.3.4:0", "a:b:c", "http://p1", "p1.example/x", "a b"]
        {
            assert!(edge(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_have_bounds() {
        assert_eq!(time("500ms", INTERVALS), Ok(Duration::from_millis(500)));
        assert_eq!(time("9s", INTERVALS), Err("from 10ms to 8s".to_owned()));
        assert!(time("0s", INTERVALS).is_err() && time("1", INTERVALS).is_err());
    }

    fn path(edge: &str, result: Result<Duration, ProbeError>) -> Path {
        let mut figures = PingFigures::default();
        figures.count(&Pinged { number: 1, connect: None, result });
        Path { edge: super::edge(edge).unwrap(), address: None, figures }
    }

    #[test]
    fn an_address_that_cannot_be_tried_from_here_is_no_failure_beside_one_that_can() {
        let (pong, lost) = (Ok(Duration::from_millis(1)), Err(ProbeError::Closed { first: true }));
        assert!(passed(&[path("a", pong.clone()), path("a", Err(ProbeError::NoFamily)), path("b", pong.clone())]));
        assert!(!passed(&[path("a", pong.clone()), path("b", Err(ProbeError::NoFamily))]));
        assert!(!passed(&[path("a", pong.clone()), path("a", lost)]));
        let mut unresolved = path("a", pong);
        unresolved.figures = PingFigures::default();
        assert!(!passed(&[unresolved]));
    }
}

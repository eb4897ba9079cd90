//! The traffic of this host, in days: what its interfaces to the world carry, whatever program it is of.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv6Addr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use crate::state::{StateDir, StateError};

/// Days that are kept.
pub const KEPT_DAYS: usize = 62;
/// The name under which it is kept.
const FILE: &str = "edge-traffic.json";
/// The time between looks at the counters, after each of which they are kept.
pub const LOOK_EVERY: Duration = Duration::from_secs(60);
const DAY: u64 = 24 * 60 * 60;
/// Interfaces whose counters are remembered.
const MAX_INTERFACES: usize = 256;

/// Bytes in both directions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficBytes {
    /// Received by this host.
    #[serde(rename = "in")]
    pub received: u64,
    /// Sent by this host.
    #[serde(rename = "out")]
    pub sent: u64,
}

impl TrafficBytes {
    fn add(&mut self, other: Self) {
        self.received = self.received.saturating_add(other.received);
        self.sent = self.sent.saturating_add(other.sent);
    }

    /// Returns what came since counters stood at `before`. Counters that went back have begun anew.
    fn since(self, before: Self) -> Self {
        if self.received < before.received || self.sent < before.sent {
            return self;
        }
        Self { received: self.received - before.received, sent: self.sent - before.sent }
    }
}

/// The counters of the interfaces at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfaceCounters {
    /// The start of the host that they count from.
    boot: String,
    counters: BTreeMap<String, TrafficBytes>,
    /// The interfaces to the world.
    outward: BTreeSet<String>,
}

impl InterfaceCounters {
    /// Reads them below `proc`; `None` if there are none to read.
    fn read(proc: &Path) -> Option<Self> {
        let text = |file: &str| fs::read_to_string(proc.join(file)).unwrap_or_default();
        let counters = counters(&text("net/dev"));
        let mut outward = default_routes(&text("net/route"));
        outward.extend(default_routes_ipv6(&text("net/ipv6_route")));
        outward.retain(|name| counters.contains_key(name));
        if outward.is_empty() {
            outward = counters.keys().cloned().collect();
        }
        let boot = text("sys/kernel/random/boot_id").trim().to_owned();
        (!counters.is_empty()).then_some(Self { boot, counters, outward })
    }
}

/// Parses the kernel's table of interfaces, but for the one to itself.
fn counters(text: &str) -> BTreeMap<String, TrafficBytes> {
    let rows = text.lines().filter_map(|line| {
        let (name, fields) = line.split_once(':')?;
        let mut fields = fields.split_whitespace().map(str::parse);
        let (received, sent) = (fields.next()?.ok()?, fields.nth(7)?.ok()?);
        Some((name.trim().to_owned(), TrafficBytes { received, sent }))
    });
    rows.filter(|(name, _)| name != "lo").take(MAX_INTERFACES).collect()
}

/// Returns the interfaces of the routes to everywhere, in the kernel's table of IPv4.
fn default_routes(text: &str) -> BTreeSet<String> {
    let rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.get(1) == Some(&"00000000") && row.get(7) == Some(&"00000000"))
        .filter_map(|row| row.first().map(|name| (*name).to_owned()))
        .collect()
}

/// The same of IPv6.
fn default_routes_ipv6(text: &str) -> BTreeSet<String> {
    let rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let all = format!("{:032x}", u128::from(Ipv6Addr::UNSPECIFIED));
    rows.filter(|row| row.first() == Some(&all.as_str()) && row.get(1) == Some(&"00"))
        .filter_map(|row| row.get(9).map(|name| (*name).to_owned()))
        .filter(|name| name != "lo")
        .collect()
}

/// The counts, as they are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrafficDays {
    boot: String,
    /// The counters at the last look.
    counters: BTreeMap<String, TrafficBytes>,
    /// By day in UTC, as in `2026-11-05`.
    days: BTreeMap<String, TrafficBytes>,
}

impl TrafficDays {
    /// Counts what the interfaces carried since the last look.
    fn look(&mut self, found: InterfaceCounters, now: SystemTime) {
        let InterfaceCounters { boot, counters, outward } = found;
        let first = self.counters.is_empty();
        let same = self.boot == boot;
        let mut carried = TrafficBytes::default();
        for (name, counted) in counters.iter().filter(|(name, _)| outward.contains(*name)) {
            match self.counters.get(name) {
                Some(before) if same => carried.add(counted.since(*before)),
                // It was made since, or the host was started anew.
                _ if !first => carried.add(*counted),
                _ => {}
            }
        }
        self.days.entry(day(now)).or_default().add(carried);
        while self.days.len() > KEPT_DAYS {
            self.days.pop_first();
        }
        (self.boot, self.counters) = (boot, counters);
    }

    /// Returns the sum from a day on.
    #[must_use]
    pub fn since(&self, day: &str) -> TrafficBytes {
        let mut sum = TrafficBytes::default();
        self.days.range(day.to_owned()..).for_each(|(_, bytes)| sum.add(*bytes));
        sum
    }
}

/// Returns the day of a time in UTC, as in `2026-11-05`.
#[must_use]
pub fn day(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / DAY * DAY;
    // Four digits of a year are enough: later times are none that a clock has.
    let day = UNIX_EPOCH + Duration::from_secs(seconds.min(250_000_000_000));
    humantime::format_rfc3339_seconds(day).to_string().chars().take(10).collect()
}

/// Returns whether this is a day, as [`day`] writes it.
#[must_use]
pub fn is_day(text: &str) -> bool {
    text.len() == 10 && humantime::parse_rfc3339(&format!("{text}T00:00:00Z")).is_ok()
}

/// The meter of this host's traffic.
#[derive(Debug)]
pub struct TrafficMeter {
    state: StateDir,
    days: Mutex<TrafficDays>,
}

impl TrafficMeter {
    /// Returns one that goes on with what was kept.
    #[must_use]
    pub fn new(state: StateDir) -> Self {
        if state.folder().is_none() {
            info!("without `state_dir` the host's traffic is counted from now on, and forgotten with this process");
        }
        let days = Mutex::new(state.read(FILE).unwrap_or_default());
        Self { state, days }
    }

    /// Looks at the counters of the kernel.
    pub fn look(&self) {
        if let Some(found) = InterfaceCounters::read(Path::new("/proc")) {
            self.days.lock().look(found, SystemTime::now());
        }
    }

    /// Returns the sum from a day on.
    #[must_use]
    pub fn since(&self, day: &str) -> TrafficBytes {
        self.look();
        self.days.lock().since(day)
    }

    /// Keeps what was counted.
    ///
    /// # Errors
    /// Returns the reason why it could not.
    pub fn keep(&self) -> Result<(), StateError> {
        self.look();
        let days = self.days.lock().clone();
        self.state.write(FILE, &days)
    }

    /// Looks and keeps for ever.
    pub async fn run(self: std::sync::Arc<Self>) {
        let mut failing = false;
        loop {
            let meter = std::sync::Arc::clone(&self);
            let kept = spawn_blocking(move || meter.keep()).await;
            if let Ok(Err(error)) = &kept
                && !failing
            {
                warn!(%error, "the host's traffic is not kept");
            }
            failing = !matches!(kept, Ok(Ok(())));
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: u64 = 1_793_836_800; // 2026-11-05

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn found(boot: &str, interfaces: &[(&str, u64, u64)]) -> InterfaceCounters {
        let counters: BTreeMap<_, _> = interfaces
            .iter()
            .map(|(name, received, sent)| ((*name).to_owned(), TrafficBytes { received: *received, sent: *sent }))
            .collect();
        InterfaceCounters { boot: boot.to_owned(), outward: ["eth0".to_owned()].into(), counters }
    }

    #[test]
    fn tables_of_the_kernel_are_read() {
        let dev = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
            lo: 7 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n  \
            eth0:123 4 0 0 0 0 0 0 456 5 0 0 0 0 0 0\n";
        assert_eq!(counters(dev), [("eth0".to_owned(), TrafficBytes { received: 123, sent: 456 })].into());
        let route = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            eth1\t0002A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(default_routes(route), ["eth0".to_owned()].into());
        let zero = "0".repeat(32);
        let route = format!(
            "{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth2\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n\
             fe80000000000000{zero} 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001     eth1\n"
        );
        assert_eq!(default_routes_ipv6(&route), ["eth2".to_owned()].into());
        assert!(counters("").is_empty() && default_routes("").is_empty() && default_routes_ipv6("").is_empty());
    }

    #[test]
    fn days_are_in_utc() {
        assert_eq!(day(at(START)), "2026-11-05");
        assert_eq!(day(at(START + DAY - 1)), "2026-11-05");
        assert_eq!(day(at(START + DAY)), "2026-11-06");
        assert!(is_day("2026-11-05"));
        for wrong in ["", "2026-11-5", "2026-13-01", "yesterday!", "2026-11-05T"] {
            assert!(!is_day(wrong), "{wrong}");
        }
    }

    #[test]
    fn traffic_goes_on_over_restarts_of_the_process_and_of_the_host() {
        let mut days = TrafficDays::default();
        // Before the first look nobody knows on which days it was.
        days.look(found("a", &[("eth0", 1000, 1000), ("eth1", 50, 50)]), at(START));
        assert_eq!(days.since("2026-11-05"), TrafficBytes::default());
        days.look(found("a", &[("eth0", 1100, 1010), ("eth1", 5000, 5000)]), at(START + 60));
        // The process is started anew.
        let mut days: TrafficDays = serde_json::from_str(&serde_json::to_string(&days).unwrap()).unwrap();
        days.look(found("a", &[("eth0", 1200, 1020)]), at(START + DAY));
        assert_eq!(days.since("2026-11-05"), TrafficBytes { received: 200, sent: 20 });
        assert_eq!(days.since("2026-11-06"), TrafficBytes { received: 100, sent: 10 });
        // The host is, and its counters are soon beyond where they were.
        days.look(found("b", &[("eth0", 5000, 5000)]), at(START + DAY + 60));
        assert_eq!(days.since("2026-11-06"), TrafficBytes { received: 5100, sent: 5010 });
        // The driver begins to count anew.
        days.look(found("b", &[("eth0", 7, 5001)]), at(START + DAY + 120));
        assert_eq!(days.since("2026-11-06"), TrafficBytes { received: 5107, sent: 10_011 });
    }

    #[test]
    fn old_days_are_forgotten() {
        let mut days = TrafficDays::default();
        for number in 0..200 {
            days.look(found("a", &[("eth0", number, 0)]), at(START + number * DAY));
        }
        assert_eq!(days.days.len(), KEPT_DAYS);
        assert_eq!(days.since("").received, KEPT_DAYS as u64);
    }

    #[test]
    fn the_counters_of_this_host_can_be_read() {
        let meter = TrafficMeter::new(StateDir::new(None));
        meter.look();
        meter.keep().unwrap();
        let _ = meter.since("2026-11-05");
    }

    proptest! {
        #[test]
        fn any_text_is_a_table(text in ".{0,200}", number in any::<u64>()) {
            counters(&text);
            default_routes(&text);
            default_routes_ipv6(&text);
            let _ = is_day(&text);
            let _ = day(at(number / 4));
        }
    }
}

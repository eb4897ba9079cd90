//! Metrics: what is counted, and the handles to count it with.
//!
//! Each worker thread has a [`Metrics`] of its own, so that no counter is ever contended; [`render()`]
//! sums them. Handles are resolved once, when a listener, an edge or a port is set up: the data path
//! only adds to them.

use std::sync::Arc;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
};
use prometheus::{Registry, Result};

use crate::admission::BanReason;
use crate::certs::HandshakeResult;
use crate::connection::{CloseReason, RejectReason};
use crate::forward::{CheckResult, StatusResult, TargetState};
use crate::tunnel::StreamRefusal;
use otproxy_net::ConnectResult;
use otproxy_protocol::core::{EndReason, RefuseReason};

mod catalogue;
mod render;

pub use catalogue::{CATALOGUE, Family, Kind};
pub use render::{BuildInfo, CONTENT_TYPE, render};

/// Upper bounds of round trips, in seconds. Close together where a player feels the difference;
/// beyond half a second a path is merely bad. Clients tell no round trip of 5 s or more.
const RTT_BUCKETS: &[f64] =
    &[0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0];

/// The metrics of one worker.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    accepted: IntCounterVec,
    active: IntGaugeVec,
    pressure: GaugeVec,
    rejected: IntCounterVec,
    closed: IntCounterVec,
    bans_active: IntGauge,
    bans: ByReason,
    bans_nftables_errors: IntCounter,
    bytes: IntCounterVec,
    connects: IntCounterVec,
    target_up: IntGaugeVec,
    target_state: IntGaugeVec,
    target_checks: IntCounterVec,
    target_rtt: HistogramVec,
    status: IntCounterVec,
    accept_errors: IntCounterVec,
    links: IntGaugeVec,
    rtt: HistogramVec,
    frames: IntCounterVec,
    sessions: IntGaugeVec,
    opened: IntCounterVec,
    ended: IntCounterVec,
    packets: IntCounterVec,
    refused: ByReason,
    tunnel_connections: IntGaugeVec,
    handshakes: ByReason,
    dials: IntCounterVec,
    streams_refused: IntCounterVec,
    certificate_expiry: IntGaugeVec,
    config_reloaded: IntGauge,
    config_time: IntGauge,
    /// Bytes kept for replay, over all sessions of this worker.
    pub unacked_bytes: IntGauge,
    /// Tasks that failed by a defect.
    pub panics: IntCounter,
    /// Lines that the access log lost.
    pub access_log_dropped: IntCounter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics at zero.
    ///
    /// # Panics
    /// Where the catalogue is wrong, which every test would show.
    pub fn new() -> Self {
        Self::build().expect("the catalogue has valid and different names")
    }

    fn build() -> Result<Self> {
        use catalogue::*;

        let registry = Registry::new();
        let refused = counters(&registry, REFUSED)?;
        let handshakes = counters(&registry, TUNNEL_HANDSHAKES)?;
        let bans = counters(&registry, BANS)?;
        Ok(Self {
            accepted: counters(&registry, ACCEPTED)?,
            active: gauges(&registry, ACTIVE)?,
            pressure: register(&registry, GaugeVec::new(opts(PRESSURE), PRESSURE.labels)?)?,
            rejected: counters(&registry, REJECTED)?,
            closed: counters(&registry, CLOSED)?,
            bans_active: register(&registry, IntGauge::with_opts(opts(BANS_ACTIVE))?)?,
            bans: ByReason::new(BanReason::ALL, |reason| bans.with_label_values(&[reason.as_str()])),
            bans_nftables_errors: register(&registry, IntCounter::with_opts(opts(BANS_NFTABLES_ERRORS))?)?,
            bytes: counters(&registry, BYTES)?,
            connects: counters(&registry, CONNECTS)?,
            target_up: gauges(&registry, TARGET_UP)?,
            target_state: gauges(&registry, TARGET_STATE)?,
            target_checks: counters(&registry, TARGET_CHECKS)?,
            target_rtt: register(&registry, rtt_histogram(TARGET_RTT)?)?,
            status: counters(&registry, STATUS)?,
            accept_errors: counters(&registry, ACCEPT_ERRORS)?,
            links: gauges(&registry, LINKS)?,
            rtt: register(&registry, rtt_histogram(RTT)?)?,
            frames: counters(&registry, FRAMES)?,
            sessions: gauges(&registry, SESSIONS)?,
            opened: counters(&registry, OPENED)?,
            ended: counters(&registry, ENDED)?,
            packets: counters(&registry, PACKETS)?,
            refused: ByReason::new(RefuseReason::ALL, |reason| refused.with_label_values(&[reason.as_str()])),
            tunnel_connections: gauges(&registry, TUNNEL_CONNECTIONS)?,
            handshakes: ByReason::new(HandshakeResult::ALL, |result| handshakes.with_label_values(&[result.as_str()])),
            dials: counters(&registry, TUNNEL_DIALS)?,
            streams_refused: counters(&registry, TUNNEL_REFUSED)?,
            certificate_expiry: gauges(&registry, CERTIFICATE_EXPIRY)?,
            config_reloaded: register(&registry, IntGauge::with_opts(opts(CONFIG_RELOADED))?)?,
            config_time: register(&registry, IntGauge::with_opts(opts(CONFIG_TIME))?)?,
            unacked_bytes: register(&registry, IntGauge::with_opts(opts(UNACKED))?)?,
            panics: register(&registry, IntCounter::with_opts(opts(PANICS))?)?,
            access_log_dropped: register(&registry, IntCounter::with_opts(opts(ACCESS_LOG_DROPPED))?)?,
            registry,
        })
    }

    /// Handles of a listener, by its name.
    pub fn listener(&self, name: &str) -> ListenerMetrics {
        ListenerMetrics {
            accepted: self.accepted.with_label_values(&[name]),
            active: self.active.with_label_values(&[name]),
            bytes_in: self.bytes.with_label_values(&[name, "in"]),
            bytes_out: self.bytes.with_label_values(&[name, "out"]),
            accept_errors: self.accept_errors.with_label_values(&[name]),
            rejected: ByReason::new(RejectReason::ALL, |r| self.rejected.with_label_values(&[name, r.as_str()])),
            closed: ByReason::new(CloseReason::ALL, |r| self.closed.with_label_values(&[name, r.as_str()])),
            connects: ByReason::new(ConnectResult::ALL, |r| self.connects.with_label_values(&[name, r.as_str()])),
        }
    }

    /// The share of its connections that a listener has, by its name; that of the process without one.
    pub fn pressure(&self, listener: Option<&str>) -> Gauge {
        self.pressure.with_label_values(&[listener.unwrap_or_default()])
    }

    /// Handles of the bans.
    pub fn bans(&self) -> BanMetrics {
        BanMetrics {
            active: self.bans_active.clone(),
            nftables_errors: self.bans_nftables_errors.clone(),
            made: self.bans.clone(),
        }
    }

    /// Whether a target is up, by the names of its listener and its own.
    pub fn target_up(&self, listener: &str, target: &str) -> IntGauge {
        self.target_up.with_label_values(&[listener, target])
    }

    /// Shows what the operator wants of a target.
    pub fn target_state(&self, listener: &str, target: &str, state: TargetState) {
        for other in TargetState::ALL {
            let gauge = self.target_state.with_label_values(&[listener, target, other.as_str()]);
            gauge.set(i64::from(*other == state));
        }
    }

    /// A target is none any more: what showed that it is up, or down for ever, is gone.
    pub fn forget_target(&self, listener: &str, target: &str) {
        // These fail where there was none.
        let _ = self.target_up.remove_label_values(&[listener, target]);
        for state in TargetState::ALL {
            let _ = self.target_state.remove_label_values(&[listener, target, state.as_str()]);
        }
    }

    /// Handles of a target that is checked, and pinged if `ping`.
    pub fn target_checks(&self, listener: &str, target: &str, ping: bool) -> TargetChecks {
        let counter = |r: CheckResult| self.target_checks.with_label_values(&[listener, target, r.as_str()]);
        let rtt = ping.then(|| self.target_rtt.with_label_values(&[listener, target]));
        TargetChecks { results: ByReason::new(CheckResult::ALL, counter), rtt }
    }

    /// Handles of a listener that answers status requests, by its name.
    pub fn status(&self, listener: &str) -> StatusMetrics {
        StatusMetrics(ByReason::new(StatusResult::ALL, |r| self.status.with_label_values(&[listener, r.as_str()])))
    }

    /// Handles of an edge, by its name, or `other`.
    pub fn edge(&self, name: &str) -> EdgeMetrics {
        let frames = |direction, outcome| self.frames.with_label_values(&[name, direction, outcome]);
        EdgeMetrics {
            name: name.into(),
            links: self.links.with_label_values(&[name]),
            rtt: self.rtt.with_label_values(&[name]),
            in_first: frames("in", "first"),
            in_duplicate: frames("in", "duplicate"),
            out_first: frames("out", "first"),
            out_duplicate: frames("out", "duplicate"),
        }
    }

    /// Handles of a port of `game_servers`.
    pub fn port(&self, port: u16) -> PortMetrics {
        let port = port.to_string();
        PortMetrics {
            sessions_active: self.sessions.with_label_values(&[&port]),
            opened: self.opened.with_label_values(&[&port]),
            ended: ByReason::new(EndReason::ALL, |r| self.ended.with_label_values(&[port.as_str(), r.as_str()])),
            packets_in: self.packets.with_label_values(&[port.as_str(), "in"]),
            packets_out: self.packets.with_label_values(&[port.as_str(), "out"]),
        }
    }

    /// Handles of the tunnel with one edge, by its name.
    pub fn tunnel(&self, edge: &str) -> TunnelMetrics {
        TunnelMetrics {
            spare: self.tunnel_connections.with_label_values(&[edge, "spare"]),
            in_use: self.tunnel_connections.with_label_values(&[edge, "in_use"]),
            dials: ByReason::new(ConnectResult::ALL, |r| self.dials.with_label_values(&[edge, r.as_str()])),
            refused: ByReason::new(StreamRefusal::ALL, |r| self.streams_refused.with_label_values(&[edge, r.as_str()])),
        }
    }

    /// Counts a handshake of the tunnel.
    pub fn handshake(&self, result: HandshakeResult) {
        self.handshakes.inc(result as usize);
    }

    /// When a certificate expires, in seconds since unix epoch.
    pub fn certificate_expiry(&self, certificate: &str) -> IntGauge {
        self.certificate_expiry.with_label_values(&[certificate])
    }

    /// The configuration was read, so long after unix epoch; or it could not be.
    pub fn config_reloaded(&self, at: Option<Duration>) {
        self.config_reloaded.set(at.is_some().into());
        if let Some(at) = at {
            self.config_time.set(i64::try_from(at.as_secs()).unwrap_or(i64::MAX));
        }
    }

    /// Counts a refused request on a link.
    pub fn refused(&self, reason: RefuseReason) {
        self.refused.inc(reason as usize);
    }

    /// Returns what counts one panic each time that it is called.
    pub fn on_panic(&self) -> impl Fn() + Send + Sync + 'static {
        let panics = self.panics.clone();
        move || panics.inc()
    }

    /// For a task to hold: counts the panic that ends it, if one does.
    pub fn panic_count(&self) -> PanicCount {
        PanicCount(self.panics.clone())
    }
}

/// Counts a panic that unwinds through its holder.
#[derive(Debug)]
pub struct PanicCount(IntCounter);

impl Drop for PanicCount {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.inc();
        }
    }
}

/// What is counted of one listener.
#[derive(Debug, Clone)]
pub struct ListenerMetrics {
    /// Connections accepted.
    pub accepted: IntCounter,
    /// Connections open.
    pub active: IntGauge,
    /// Payload bytes from players.
    pub bytes_in: IntCounter,
    /// Payload bytes to players.
    pub bytes_out: IntCounter,
    /// Accepts that failed.
    pub accept_errors: IntCounter,
    rejected: ByReason,
    closed: ByReason,
    connects: ByReason,
}

impl ListenerMetrics {
    /// Counts a connection that was refused.
    pub fn rejected(&self, reason: RejectReason) {
        self.rejected.inc(reason as usize);
    }

    /// Counts a connection that has ended.
    pub fn closed(&self, reason: CloseReason) {
        self.closed.inc(reason as usize);
    }

    /// Counts an attempt to reach a target.
    pub fn connect(&self, result: ConnectResult) {
        self.connects.inc(result as usize);
    }

    /// Connections that were refused for this reason.
    pub fn rejections(&self, reason: RejectReason) -> u64 {
        self.rejected.get(reason as usize)
    }

    /// Connections that have ended for this reason.
    pub fn closes(&self, reason: CloseReason) -> u64 {
        self.closed.get(reason as usize)
    }
}

/// What is counted of the bans.
#[derive(Debug, Clone)]
pub struct BanMetrics {
    /// Networks banned now.
    pub active: IntGauge,
    /// Calls of nft that failed.
    pub nftables_errors: IntCounter,
    made: ByReason,
}

impl BanMetrics {
    /// Counts a ban.
    pub fn banned(&self, reason: BanReason) {
        self.made.inc(reason as usize);
    }

    /// Bans made for this reason.
    #[cfg(test)]
    pub fn made(&self, reason: BanReason) -> u64 {
        self.made.0.get(reason as usize).map_or(0, IntCounter::get)
    }
}

/// What is counted of the checks of one target.
#[derive(Debug, Clone)]
pub struct TargetChecks {
    results: ByReason,
    rtt: Option<Histogram>,
}

impl TargetChecks {
    /// Counts a check, and the round trip of its ping.
    pub fn checked(&self, result: CheckResult, rtt: Option<Duration>) {
        self.results.inc(result as usize);
        if let (Some(histogram), Some(rtt)) = (&self.rtt, rtt) {
            histogram.observe(rtt.as_secs_f64());
        }
    }
}

/// What is counted of the status requests of one listener.
#[derive(Debug, Clone)]
pub struct StatusMetrics(ByReason);

impl StatusMetrics {
    /// Counts a request.
    pub fn request(&self, result: StatusResult) {
        self.0.inc(result as usize);
    }
}

/// What is counted of the links of one edge.
#[derive(Debug, Clone)]
pub struct EdgeMetrics {
    /// The label.
    pub name: Arc<str>,
    /// Links open.
    pub links: IntGauge,
    /// Round trips in seconds.
    pub rtt: Histogram,
    /// Data frames from players whose packet had not come before.
    pub in_first: IntCounter,
    /// Data frames from players whose packet had.
    pub in_duplicate: IntCounter,
    /// Data frames to players whose packet was not sent elsewhere before.
    pub out_first: IntCounter,
    /// Data frames to players whose packet was.
    pub out_duplicate: IntCounter,
}

/// What is counted of the sessions of one port.
#[derive(Debug, Clone)]
pub struct PortMetrics {
    /// Sessions alive.
    pub sessions_active: IntGauge,
    /// Sessions opened.
    pub opened: IntCounter,
    /// Packets to the game server.
    pub packets_in: IntCounter,
    /// Packets to the player.
    pub packets_out: IntCounter,
    ended: ByReason,
}

impl PortMetrics {
    /// Counts a session that has ended.
    pub fn ended(&self, reason: EndReason) {
        self.ended.inc(reason as usize);
    }
}

/// What is counted of the tunnel with one edge.
#[derive(Debug, Clone)]
pub struct TunnelMetrics {
    spare: IntGauge,
    /// Connections that carry a player.
    pub in_use: IntGauge,
    dials: ByReason,
    refused: ByReason,
}

impl TunnelMetrics {
    /// Counts a spare connection while what this gives is held.
    pub fn spare(&self) -> Held {
        Held::new(self.spare.clone())
    }

    /// Counts an attempt to connect, and how it failed, if it did.
    pub fn dialled(&self, failed: Option<ConnectResult>) {
        self.dials.inc(failed.unwrap_or(ConnectResult::Ok) as usize);
    }

    /// Counts a stream that was refused.
    pub fn refused(&self, refusal: StreamRefusal) {
        self.refused.inc(refusal as usize);
    }
}

/// Counts one in a gauge while it is held.
#[derive(Debug)]
pub struct Held(IntGauge);

impl Held {
    /// Counts one in `gauge`.
    pub fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// One counter for each reason of an enum, all there from the start: a rate needs the zero before
/// the first event.
#[derive(Debug, Clone)]
struct ByReason(Arc<[IntCounter]>);

impl ByReason {
    /// `all` is the enum's `ALL`: in the order of declaration, so that a variant is its index.
    fn new<R: Copy>(all: &[R], counter: impl Fn(R) -> IntCounter) -> Self {
        Self(all.iter().copied().map(counter).collect())
    }

    fn inc(&self, index: usize) {
        if let Some(counter) = self.0.get(index) {
            counter.inc();
        }
    }

    fn get(&self, index: usize) -> u64 {
        self.0.get(index).map_or(0, IntCounter::get)
    }
}

fn opts(family: Family) -> Opts {
    Opts::new(family.name, family.meaning)
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn counters(registry: &Registry, family: Family) -> Result<IntCounterVec> {
    register(registry, IntCounterVec::new(opts(family), family.labels)?)
}

fn gauges(registry: &Registry, family: Family) -> Result<IntGaugeVec> {
    register(registry, IntGaugeVec::new(opts(family), family.labels)?)
}

fn rtt_histogram(family: Family) -> Result<HistogramVec> {
    HistogramVec::new(HistogramOpts::from(opts(family)).buckets(RTT_BUCKETS.to_vec()), family.labels)
}

#[cfg(test)]
mod tests;

//! Every metric there is, each declared once: its name, type, labels and meaning. `docs/metrics.md` has its table from here.

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    Result,
};

/// Upper bounds of round trips, in seconds. Close together where a player feels the difference;
/// beyond half a second a path is merely bad. Clients tell no round trip of 5 s or more.
const RTT_BUCKETS: &[f64] =
    &[0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0];

/// The type of a metric, in Prometheus' words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows, until the process restarts.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts of observations by upper bound.
    Histogram,
}

impl MetricKind {
    /// The word of the text format.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric, with all its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricFamily {
    /// The full name.
    pub name: &'static str,
    /// The type.
    pub kind: MetricKind,
    /// The names of its labels, in the order in which handles give their values.
    pub labels: &'static [&'static str],
    /// Its meaning, in one sentence, which is also the help text of the exposition.
    pub meaning: &'static str,
}

/// A type in which the catalogue declares metrics.
trait Declared: Collector + Clone + Sized + 'static {
    const KIND: MetricKind;

    fn new(family: &MetricFamily) -> Result<Self>;

    fn register(registry: &Registry, family: &MetricFamily) -> Result<Self> {
        let metric = Self::new(family)?;
        registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}

macro_rules! declared {
    ($($type:ty: $kind:ident, $family:ident => $new:expr;)+) => {$(
        impl Declared for $type {
            const KIND: MetricKind = MetricKind::$kind;

            fn new($family: &MetricFamily) -> Result<Self> {
                $new
            }
        }
    )+};
}

declared! {
    IntCounter: Counter, family => Self::with_opts(family.opts());
    IntCounterVec: Counter, family => Self::new(family.opts(), family.labels);
    Gauge: Gauge, family => Self::with_opts(family.opts());
    IntGauge: Gauge, family => Self::with_opts(family.opts());
    IntGaugeVec: Gauge, family => Self::new(family.opts(), family.labels);
    GaugeVec: Gauge, family => Self::new(family.opts(), family.labels);
    HistogramVec: Histogram, family => {
        Self::new(HistogramOpts::from(family.opts()).buckets(RTT_BUCKETS.to_vec()), family.labels)
    };
}

impl MetricFamily {
    fn opts(&self) -> Opts {
        Opts::new(self.name, self.meaning)
    }
}

macro_rules! catalogue {
    (
        counted { $($id:ident: $type:ty = $name:literal [$($label:literal),*] $meaning:literal;)+ }
        of_the_process { $($process:literal $kind:ident $process_meaning:literal;)+ }
    ) => {
        /// The metrics of one worker, at zero until something is counted in them.
        #[derive(Debug)]
        pub struct Metrics {
            pub(super) registry: Registry,
            $(#[doc = $meaning] pub $id: $type,)+
        }

        impl Metrics {
            pub(super) fn build() -> Result<Self> {
                let registry = Registry::new();
                $(let $id = <$type>::register(
                    &registry,
                    &MetricFamily { name: $name, kind: <$type>::KIND, labels: &[$($label),*], meaning: $meaning },
                )?;)+
                Ok(Self { registry, $($id),+ })
            }
        }

        /// Every metric that [`render`](super::render()) can give.
        pub const CATALOGUE: &[MetricFamily] = &[
            $(MetricFamily { name: $name, kind: <$type>::KIND, labels: &[$($label),*], meaning: $meaning },)+
            $(MetricFamily { name: $process, kind: MetricKind::$kind, labels: &[], meaning: $process_meaning },)+
        ];
    };
}

catalogue! {
    counted {
        build_info: IntGaugeVec = "otproxy_build_info" ["version", "role"]
            "Always 1: which version runs, and as what.";
        connections_accepted: IntCounterVec = "otproxy_connections_accepted_total" ["listener"]
            "Connections accepted, those refused afterwards included.";
        connections_active: IntGaugeVec = "otproxy_connections_active" ["listener"]
            "Connections open now.";
        pressure_ratio: GaugeVec = "otproxy_pressure_ratio" ["listener"]
            "The share of `limits.connections` that is taken, of the process where `listener` is empty; 0 without a limit.";
        connections_rejected: IntCounterVec = "otproxy_connections_rejected_total" ["listener", "reason"]
            "Connections refused before they were of any use.";
        connections_closed: IntCounterVec = "otproxy_connections_closed_total" ["listener", "reason"]
            "Connections that were of use and have ended, by what ended them.";
        bans_active: IntGauge = "otproxy_bans_active" []
            "Networks and addresses that are banned now.";
        bans: IntCounterVec = "otproxy_bans_total" ["reason"]
            "Bans made, by what for.";
        bans_nftables_errors: IntCounter = "otproxy_bans_nftables_errors_total" []
            "Calls of nft that failed, with `bans.nftables`: the kernel lets through what this process refuses.";
        bytes: IntCounterVec = "otproxy_bytes_total" ["listener", "direction"]
            "Payload bytes carried: `in` from players, `out` to them.";
        target_connects: IntCounterVec = "otproxy_target_connects_total" ["listener", "result"]
            "Attempts to reach a target.";
        target_up: IntGaugeVec = "otproxy_target_up" ["listener", "target"]
            "Whether a target is up: 1 or 0. Without a check, 0 is that the last connect failed.";
        target_state: IntGaugeVec = "otproxy_target_state" ["listener", "target", "state"]
            "What the operator wants of a target: 1 for that state, and 0 for the others.";
        target_checks: IntCounterVec = "otproxy_target_checks_total" ["listener", "target", "result"]
            "Checks of targets, on listeners with `check`.";
        target_check_rtt: HistogramVec = "otproxy_target_check_rtt_seconds" ["listener", "target"]
            "From the ping of a check to the answer, with `check: ping`.";
        game_server_up: IntGaugeVec = "otproxy_game_server_up" ["port"]
            "Whether the game server that clients ask for by this port is up: 1 or 0. Without a check, 0 is that the last session could not connect.";
        game_stall: HistogramVec = "otproxy_game_stall_seconds" ["port"]
            "On a core, times for which a world sent nothing to anybody while people played, of 0.2 s and more, without those for which this host was held up.";
        status_requests: IntCounterVec = "otproxy_status_requests_total" ["listener", "result"]
            "Status requests on listeners with `status`, by what became of them.";
        logins: IntCounterVec = "otproxy_logins_total" ["listener", "way", "result"]
            "Logins whose answers are to tell players of the edges, by what became of the answer: `rewritten`, or the reason for which it passed as it was.";
        web_requests: IntCounterVec = "otproxy_web_requests_total" ["listener", "route", "result"]
            "Requests on listeners of `kind: web`, by what was asked for and what became of it.";
        accept_errors: IntCounterVec = "otproxy_accept_errors_total" ["listener"]
            "Failed accepts, such as for want of file descriptors.";
        worker_delay: HistogramVec = "otproxy_worker_delay_seconds" ["worker"]
            "By how much a thread's turn came late, asked for each 100 ms.";
        panics: IntCounter = "otproxy_panics_total" []
            "Tasks that failed by a defect of this program; each cost one connection or session.";
        access_log_dropped: IntCounter = "otproxy_access_log_dropped_total" []
            "Lines that the access log lost: too many waited, or they could not be written.";
        log_dropped: IntCounter = "otproxy_log_dropped_total" []
            "Lines for stderr that were lost, because nobody read them there.";
        relay_links_active: IntGaugeVec = "otproxy_relay_links_active" ["edge"]
            "Links open now.";
        relay_sessions_active: IntGaugeVec = "otproxy_relay_sessions_active" ["port"]
            "Sessions alive now, those without links at the moment included.";
        relay_sessions_opened: IntCounterVec = "otproxy_relay_sessions_opened_total" ["port"]
            "Sessions opened.";
        relay_sessions_ended: IntCounterVec = "otproxy_relay_sessions_ended_total" ["port", "reason"]
            "Sessions ended, by what ended them.";
        relay_frames: IntCounterVec = "otproxy_relay_frames_total" ["edge", "direction", "outcome"]
            "Data frames by path. `in`: `first` where this path delivered the packet, `duplicate` where another had. `out`: `first` where the packet was written to this path before any other, which does not say where it arrived first.";
        relay_packets: IntCounterVec = "otproxy_relay_packets_total" ["port", "direction"]
            "Game packets carried, each counted once whatever the number of paths.";
        relay_joined_elsewhere: IntCounter = "otproxy_relay_joined_elsewhere_total" []
            "Links that joined a session from an address from which none had joined it lately: players whose address changes, or differs by path.";
        restart_sessions: IntCounterVec = "otproxy_relay_restart_sessions_total" ["outcome"]
            "Sessions that the process before had left to this one: `kept` go on, `ended` could not, and the log says why.";
        restart_seconds: Gauge = "otproxy_relay_restart_seconds" []
            "Time from the moment at which the process before stood still until this one went on with its sessions; 0 if there was none.";
        relay_refused: IntCounterVec = "otproxy_relay_refused_total" ["reason"]
            "Requests on links that were refused.";
        relay_link_rtt: HistogramVec = "otproxy_relay_link_rtt_seconds" ["edge"]
            "Round trips that players measured on their links and told in their pings: of each link one in 2 s at most, and none that the times of its pings contradict.";
        relay_unacked_bytes: IntGauge = "otproxy_relay_unacked_bytes" []
            "Bytes kept for replay until clients acknowledge them, over all sessions.";
        relay_memory_bytes: IntGauge = "otproxy_relay_memory_bytes" []
            "Memory of all sessions, in steps: what they keep for replay, ahead of its turn, and for game servers. See `sessions.memory`.";
        relay_memory_limit_bytes: IntGauge = "otproxy_relay_memory_limit_bytes" []
            "The limit of that memory, `sessions.memory`; 0 without one.";
        edge_state: IntGaugeVec = "otproxy_edge_state" ["edge", "state"]
            "The state of an edge, as the core judges it: 1 for that state, and 0 for the others.";
        edge_listed: IntGaugeVec = "otproxy_edge_listed" ["edge"]
            "Whether clients are told of an edge: 1 or 0.";
        edge_jitter: GaugeVec = "otproxy_edge_jitter_seconds" ["edge"]
            "On a core, by how much the round trips that players told in the last 5 s are longer than those of the last 10 min; missing while that is not known.";
        edge_probes: IntCounterVec = "otproxy_edge_probes_total" ["edge", "result"]
            "On a core, visits of other edges at this one's public address: `ok` where the ping was answered, `failed` where not.";
        edge_probe_rtt: GaugeVec = "otproxy_edge_probe_rtt_seconds" ["edge", "from"]
            "On a core, the round trip of the last visit of another edge, `from`, at this one's public address; missing while there is no answer.";
        edge_traffic_month_bytes: IntGaugeVec = "otproxy_edge_traffic_month_bytes" ["edge"]
            "On a core, bytes of an edge's host in this month of its bill, as they count there.";
        proxies_table_up: IntGaugeVec = "otproxy_proxies_table_up" ["table"]
            "Whether the table of the database was in step with the edges at the last look: 1 or 0. Only with `proxies_table`.";
        proxies_table_changes: IntCounterVec = "otproxy_proxies_table_changes_total" ["table"]
            "Changes that were made in the table of the database, of one or several rows with the same values.";
        alerts_sent: IntCounter = "otproxy_alerts_sent_total" []
            "Messages about events that the webhook of `alerts` has taken.";
        alerts_failed: IntCounterVec = "otproxy_alerts_failed_total" ["reason"]
            "Tries to send one that failed: at a `file`, to `connect`, at `tls`, by a `timeout`, at an `answer` that is none, as it was `busy` or its `server` had a fault; `refused` ones are given up.";
        tunnel_trunks: IntGaugeVec = "otproxy_tunnel_trunks" ["edge"]
            "Trunks of the tunnel open now: connections between an edge and the core that carry streams.";
        tunnel_streams: IntGaugeVec = "otproxy_tunnel_streams" ["edge"]
            "Streams in those trunks open now: links and forwarded connections.";
        tunnel_handshakes: IntCounterVec = "otproxy_tunnel_handshakes_total" ["result"]
            "Handshakes of the tunnel, made and taken.";
        tunnel_dials: IntCounterVec = "otproxy_tunnel_dials_total" ["edge", "result"]
            "Attempts to connect to the other side of the tunnel.";
        tunnel_streams_refused: IntCounterVec = "otproxy_tunnel_streams_refused_total" ["edge", "reason"]
            "Streams that an edge opened and the core did not take, and trunks.";
        certificate_expiry_timestamp: IntGaugeVec = "otproxy_certificate_expiry_timestamp_seconds" ["certificate"]
            "When a certificate expires, since unix epoch: this process' `own` of the tunnel and its `ca`, that of `admin.tls`, and its operators' `admin_ca`.";
        config_last_reload_successful: IntGauge = "otproxy_config_last_reload_successful" []
            "Whether the last reload of the configuration, or the start, succeeded: 1 or 0.";
        config_last_reload_success_timestamp: IntGauge = "otproxy_config_last_reload_success_timestamp_seconds" []
            "When the configuration that is used was read, since unix epoch.";
    }
    of_the_process {
        "process_cpu_seconds_total" Counter
            "Total user and system CPU time spent in seconds.";
        "process_max_fds" Gauge
            "Maximum number of open file descriptors.";
        "process_open_fds" Gauge
            "Number of open file descriptors.";
        "process_resident_memory_bytes" Gauge
            "Resident memory size in bytes.";
        "process_start_time_seconds" Gauge
            "Start time of the process since unix epoch in seconds.";
        "process_threads" Gauge
            "Number of OS threads in the process.";
        "process_virtual_memory_bytes" Gauge
            "Virtual memory size in bytes.";
    }
}

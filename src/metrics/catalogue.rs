//! Every metric there is: its name, labels and meaning. `docs/metrics.md` has its table from here.

/// The type of a metric, in Prometheus' words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the process restarts.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts of observations by upper bound.
    Histogram,
}

impl Kind {
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
pub struct Family {
    /// The full name.
    pub name: &'static str,
    /// The type.
    pub kind: Kind,
    /// The names of its labels, in the order in which handles give their values.
    pub labels: &'static [&'static str],
    /// What it says, in one sentence: the help text of the exposition too.
    pub meaning: &'static str,
}

macro_rules! catalogue {
    ($($id:ident = $name:literal $kind:ident [$($label:literal),*] $meaning:literal;)+) => {
        $(pub(super) const $id: Family =
            Family { name: $name, kind: Kind::$kind, labels: &[$($label),*], meaning: $meaning };)+

        /// Every metric that [`render`](super::render()) can give.
        pub const CATALOGUE: &[Family] = &[$($id),+];
    };
}

catalogue! {
    BUILD_INFO = "otproxy_build_info" Gauge ["version", "role"]
        "Always 1: which version runs, and as what.";
    ACCEPTED = "otproxy_connections_accepted_total" Counter ["listener"]
        "Connections accepted, those refused afterwards included.";
    ACTIVE = "otproxy_connections_active" Gauge ["listener"]
        "Connections open now.";
    PRESSURE = "otproxy_pressure_ratio" Gauge ["listener"]
        "The share of `limits.connections` that is taken, of the process where `listener` is empty; 0 without a limit.";
    REJECTED = "otproxy_connections_rejected_total" Counter ["listener", "reason"]
        "Connections refused before they were of any use.";
    CLOSED = "otproxy_connections_closed_total" Counter ["listener", "reason"]
        "Connections that were of use and have ended, by what ended them.";
    BANS_ACTIVE = "otproxy_bans_active" Gauge []
        "Networks and addresses that are banned now.";
    BANS = "otproxy_bans_total" Counter ["reason"]
        "Bans made, by what for.";
    BANS_NFTABLES_ERRORS = "otproxy_bans_nftables_errors_total" Counter []
        "Calls of nft that failed, with `bans.nftables`: the kernel lets through what this process refuses.";
    BYTES = "otproxy_bytes_total" Counter ["listener", "direction"]
        "Payload bytes carried: `in` from players, `out` to them.";
    CONNECTS = "otproxy_target_connects_total" Counter ["listener", "result"]
        "Attempts to reach a target.";
    TARGET_UP = "otproxy_target_up" Gauge ["listener", "target"]
        "Whether a target is up: 1 or 0. Where nothing checks it, 0 is that the last connect failed.";
    TARGET_STATE = "otproxy_target_state" Gauge ["listener", "target", "state"]
        "What the operator wants of a target: 1 for that state, and 0 for the others.";
    TARGET_CHECKS = "otproxy_target_checks_total" Counter ["listener", "target", "result"]
        "Checks of targets, on listeners with `check`.";
    TARGET_RTT = "otproxy_target_check_rtt_seconds" Histogram ["listener", "target"]
        "From the ping of a check to the answer, with `check: ping`.";
    STATUS = "otproxy_status_requests_total" Counter ["listener", "result"]
        "Status requests on listeners with `status`, by what became of them.";
    ACCEPT_ERRORS = "otproxy_accept_errors_total" Counter ["listener"]
        "Failed accepts, such as for want of file descriptors.";
    PANICS = "otproxy_panics_total" Counter []
        "Tasks that failed by a defect of this program; each cost one connection or session.";
    ACCESS_LOG_DROPPED = "otproxy_access_log_dropped_total" Counter []
        "Lines that the access log lost: too many waited, or they could not be written.";
    LINKS = "otproxy_relay_links_active" Gauge ["edge"]
        "Links open now.";
    SESSIONS = "otproxy_relay_sessions_active" Gauge ["port"]
        "Sessions alive now, those without links at the moment included.";
    OPENED = "otproxy_relay_sessions_opened_total" Counter ["port"]
        "Sessions opened.";
    ENDED = "otproxy_relay_sessions_ended_total" Counter ["port", "reason"]
        "Sessions ended, by what ended them.";
    FRAMES = "otproxy_relay_frames_total" Counter ["edge", "direction", "outcome"]
        "Data frames by path: `first` where this path delivered the packet, `duplicate` where another had.";
    PACKETS = "otproxy_relay_packets_total" Counter ["port", "direction"]
        "Game packets carried, each counted once whatever the number of paths.";
    REFUSED = "otproxy_relay_refused_total" Counter ["reason"]
        "Requests on links that were refused.";
    RTT = "otproxy_relay_link_rtt_seconds" Histogram ["edge"]
        "Round trips that players measured on their links and told in their pings.";
    UNACKED = "otproxy_relay_unacked_bytes" Gauge []
        "Bytes kept for replay until clients acknowledge them, over all sessions.";
    TUNNEL_CONNECTIONS = "otproxy_tunnel_connections" Gauge ["edge", "state"]
        "Connections of the tunnel open now: `spare` ones are ready for new players, those `in_use` carry one.";
    TUNNEL_HANDSHAKES = "otproxy_tunnel_handshakes_total" Counter ["result"]
        "Handshakes of the tunnel, made and taken.";
    TUNNEL_DIALS = "otproxy_tunnel_dials_total" Counter ["edge", "result"]
        "Attempts to connect to the other side of the tunnel.";
    TUNNEL_REFUSED = "otproxy_tunnel_streams_refused_total" Counter ["edge", "reason"]
        "Streams that an edge began and the core did not take.";
    CERTIFICATE_EXPIRY = "otproxy_certificate_expiry_timestamp_seconds" Gauge ["certificate"]
        "When a certificate expires, since unix epoch: this process' `own`, and the first to expire of its `ca`.";
    CONFIG_RELOADED = "otproxy_config_last_reload_successful" Gauge []
        "Whether the last reload of the configuration, or the start, succeeded: 1 or 0.";
    CONFIG_TIME = "otproxy_config_last_reload_success_timestamp_seconds" Gauge []
        "When the configuration that is used was read, since unix epoch.";
    PROCESS_CPU = "process_cpu_seconds_total" Counter []
        "Total user and system CPU time spent in seconds.";
    PROCESS_MAX_FDS = "process_max_fds" Gauge []
        "Maximum number of open file descriptors.";
    PROCESS_OPEN_FDS = "process_open_fds" Gauge []
        "Number of open file descriptors.";
    PROCESS_RSS = "process_resident_memory_bytes" Gauge []
        "Resident memory size in bytes.";
    PROCESS_START = "process_start_time_seconds" Gauge []
        "Start time of the process since unix epoch in seconds.";
    PROCESS_THREADS = "process_threads" Gauge []
        "Number of OS threads in the process.";
    PROCESS_VSIZE = "process_virtual_memory_bytes" Gauge []
        "Virtual memory size in bytes.";
}

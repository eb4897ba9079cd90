//! The keys of both roles.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::AddressSet;
use super::access::{allowed, denied};
use super::admin::AdminConfig;
use super::bans::BansConfig;
use super::declare::section;
use super::formats::{DURATION, PROCESS_NAME, WORKERS, default_workers, host_name};
use super::limits::ProcessLimits;
use super::log::{AccessLogConfig, LogConfig};
use super::mapping::mapping;
use super::report::ReportConfig;
use super::takes::value;

section! {
    /// The keys that both roles have.
    #[derive(Debug, Clone, PartialEq)]
    pub struct ProcessConfig {
        /// how this process calls itself in logs, metrics and pages
        name: String = value(PROCESS_NAME).or_else("the host name", host_name).example("edge-1").restart(),
        /// threads that carry traffic
        workers: NonZeroUsize =
            value(WORKERS).or_else("the number of CPUs", default_workers).example("4").restart(),
        /// `admin`
        admin: AdminConfig = mapping(),
        /// `log`
        log: LogConfig = mapping(),
        /// `access_log`
        access_log: AccessLogConfig = mapping().restart(),
        /// who is refused by all listeners, whatever `allow` says; the peer, and the player that its PROXY header announces
        deny: Arc<AddressSet> = denied().or("[]").example("[198.51.100.0/24, { file: deny.txt }]"),
        /// which players alone are let in by all listeners
        allow: Option<Arc<AddressSet>> =
            allowed().optional("everybody").example("[192.0.2.0/24, { file: allow.txt }]"),
        /// `limits`
        limits: ProcessLimits = mapping(),
        /// `bans`
        bans: BansConfig = mapping(),
        /// `report`
        report: Option<ReportConfig> = mapping().optional(),
        /// how long connections may go on after SIGTERM; `0s` cuts them
        shutdown_timeout: Duration = value(DURATION).or("10s"),
    }
}

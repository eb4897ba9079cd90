//! The keys of both roles.

use std::env;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use otproxy_protocol::words;

use super::AddressSet;
use super::access::{allowed, denied};
use super::admin::AdminConfig;
use super::alerts::AlertsConfig;
use super::bans::BansConfig;
use super::declare::section;
use super::formats::{self, DURATION, PROCESS_NAME, WORKERS, default_workers, host_name};
use super::limits::ProcessLimits;
use super::log::{AccessLogConfig, LogConfig};
use super::mapping::mapping;
use super::report::ReportConfig;
use super::takes::{Format, value, word};
use super::tree::Node;

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
        /// `alerts`
        alerts: Option<AlertsConfig> = mapping().optional(),
        /// how long connections may go on after SIGTERM; `0s` cuts them
        shutdown_timeout: Duration = value(DURATION).or("10s"),
        /// `keep` leaves listening sockets, and a core's sessions, to the next process, so that a restart by systemd and `otproxy upgrade` refuse nobody and end no game, nor does a core that is killed; `end` closes them
        restart: RestartMode = word().or("keep"),
        /// the folder of what is kept over restarts; `off` keeps nothing
        state_dir: Option<PathBuf> = value(FOLDER_OR_OFF)
            .or_else("systemd's STATE_DIRECTORY, elsewhere `off`", default_state_dir)
            .example("/var/lib/otproxy")
            .restart(),
    }
}

words! {
    /// `restart`: what becomes of what a process has, when it ends and another follows it.
    pub enum RestartMode {
        /// The next process takes it over.
        Keep = "keep",
        /// It is closed.
        End = "end",
    }
}

const FOLDER_OR_OFF: Format<Option<PathBuf>> =
    Format::new("path, or `off`", folder).seen_from(|path, folder| path.map(|path| folder.join(path)));

/// Reads the path of a folder, or the word `off`.
fn folder(node: &Node) -> Result<Option<PathBuf>, String> {
    let path = formats::path(node).map_err(|message| format!("{message}; write one, or `off` for none"))?;
    Ok((path.as_os_str() != "off").then_some(path))
}

/// Returns the folder that systemd makes for what the service keeps, where it does.
fn default_state_dir() -> Option<PathBuf> {
    let directories = env::var_os("STATE_DIRECTORY")?;
    // As systemd lists several: the first is the unit's own.
    env::split_paths(&directories).next().filter(|first| first.is_absolute())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::parse;

    #[test]
    fn what_is_kept_has_a_folder_or_none() {
        let folder = |line: &str| {
            let text =
                format!("role: edge\n{line}\nlisteners: [{{ name: a, listen: 127.0.0.1:0, forward_to: a:1 }}]\n");
            parse("edge.yaml", &text).map(|config| config.process().state_dir.clone())
        };
        assert_eq!(folder("state_dir: off").unwrap(), None);
        assert_eq!(folder("state_dir: /var/lib/x").unwrap().as_deref(), Some(Path::new("/var/lib/x")));
        assert!(folder("state_dir: ''").unwrap_err().to_string().contains("write one, or `off` for none"));
    }
}

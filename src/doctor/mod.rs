//! `otproxy doctor`: tries the real thing from where it runs, and gives the remedy of each failure.
//!
//! Every check has a time limit, and independent checks run at once: the whole takes little longer than [`WITHIN`],
//! whatever the network does.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout_at};

use crate::unit::{self, UnreadableFile};
use otproxy_config::{Config, Destination, ForwardConfig, HostPort, ListenerConfig, RoleKind, StockServerWarning};

mod admin;
mod certificates;
mod clock;
mod holder;
mod ports;
mod reach;
mod report;
mod tunnel;

pub use report::{json, text};

/// The time limit of the checks that run at once.
pub const WITHIN: Duration = Duration::from_secs(15);
/// The time limit of a connect, which is that of roles by default.
pub const CONNECT: Duration = Duration::from_secs(4);
/// The time limit of each later step of the other side.
pub const ANSWER: Duration = Duration::from_secs(5);

/// The kinds of checks, in the order of the report: from the host outwards.
pub const CHECKS: [&str; 11] =
    ["file", "files", "clock", "admin", "listener", "certificate", "key", "edges", "tunnel", "target", "game_server"];

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckStatus {
    /// As it should be.
    Ok,
    /// It works, or cannot be tested from here, and there is something to know.
    Warn,
    /// It does not work.
    Fail,
}

impl CheckStatus {
    /// Returns its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// A check and its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoctorCheck {
    /// The kind of check: one of [`CHECKS`].
    pub check: &'static str,
    /// The subject: a name of the configuration, or nothing if there is only one.
    pub subject: String,
    /// The result.
    pub status: CheckStatus,
    /// The finding.
    pub message: String,
    /// The remedy, which a failed check always has.
    pub remedy: Option<String>,
}

impl DoctorCheck {
    fn ok(check: &'static str, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { check, subject: subject.into(), status: CheckStatus::Ok, message: message.into(), remedy: None }
    }

    fn bad(
        status: CheckStatus,
        (check, subject): (&'static str, &str),
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (subject, message, remedy) = (subject.to_owned(), message.into(), Some(remedy.into()));
        Self { check, subject, status, message, remedy }
    }

    fn warn(what: (&'static str, &str), message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::bad(CheckStatus::Warn, what, message, remedy)
    }

    fn fail(what: (&'static str, &str), message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::bad(CheckStatus::Fail, what, message, remedy)
    }

    /// Makes the check of an invalid configuration file.
    #[must_use]
    pub fn wrong_file(file: &str, error: &str) -> Self {
        Self::fail(("file", ""), error, format!("correct it; `otproxy check -c {file}` says the same"))
    }
}

/// Returns whether no check failed.
#[must_use]
pub fn passed(checks: &[DoctorCheck]) -> bool {
    checks.iter().all(|check| check.status != CheckStatus::Fail)
}

/// Open files: the limit, and the number that the configured limits can lead to.
#[derive(Debug, Clone, Copy)]
pub struct OpenFiles {
    /// The limit.
    pub limit: u64,
    /// The number that may be needed.
    pub needed: u64,
}

/// Checks everything that the configuration of this file needs.
pub async fn examine(config: Config, file: &Path, files: OpenFiles) -> Vec<DoctorCheck> {
    let mut checks = vec![DoctorCheck::ok("file", "", config.summary()), file_limit(files)];
    let role = config.role();
    // An otproxy that runs already decides what the other results mean.
    let (running, admin) = admin::examine(role, &config.process().admin).await;
    checks.push(admin);
    let running = Arc::new(running);

    let mut pending: Vec<(&'static str, JoinHandle<Vec<DoctorCheck>>)> = Vec::new();
    let (listening, own) = (ports::of(&config), Arc::clone(&running));
    pending.push(("listener", spawn_blocking(move || ports::examine(&listening, own.is_some()))));
    for (check, subject, target) in targets(&config) {
        pending.push((check, tokio::spawn(async move { vec![reach::examine(check, subject, role, &target).await] })));
    }
    let unreadable = unit::unreadable(&config, file);
    let identity = certificates::examine(&config, &unreadable, &mut checks);
    certificates::admin(&config, &mut checks);
    checks.extend(unreadable.into_iter().map(|UnreadableFile { file, problem, remedy }| {
        DoctorCheck::fail(("file", &file.display().to_string()), problem, remedy)
    }));
    for trial in tunnel::of(&config) {
        let (identity, running) = (identity.clone(), Arc::clone(&running));
        pending.push(("tunnel", tokio::spawn(async move { vec![trial.examine(identity, &running).await] })));
    }
    checks.extend(edges(&config));
    checks.extend(config.stock_server_warnings().into_iter().map(stock_server));
    pending.push(("clock", tokio::spawn(async { vec![clock::examine().await] })));

    let end = Instant::now() + WITHIN;
    for (check, task) in pending {
        match timeout_at(end, task).await {
            Ok(Ok(found)) => checks.extend(found),
            Ok(Err(error)) => {
                checks.push(DoctorCheck::fail((check, ""), error.to_string(), "a defect of this program"))
            }
            Err(_) => {
                let message = format!("was not through in {} s", WITHIN.as_secs());
                checks.push(DoctorCheck::fail(
                    (check, ""),
                    message,
                    "see whether this host or its network is overloaded",
                ));
            }
        }
    }
    checks.sort_by_key(|check| CHECKS.iter().position(|kind| *kind == check.check));
    checks
}

fn file_limit(OpenFiles { limit, needed }: OpenFiles) -> DoctorCheck {
    let allowed = if limit == u64::MAX { "any number of".to_owned() } else { limit.to_string() };
    if limit >= needed {
        return DoctorCheck::ok("files", "", format!("{allowed} open files are allowed here, {needed} can be needed"));
    }
    DoctorCheck::warn(
        ("files", ""),
        format!("{allowed} open files are allowed here, and the configured limits can need {needed}"),
        "raise LimitNOFILE in the unit, or `ulimit -Hn` in this shell",
    )
}

/// Returns the targets that are connected to without the tunnel.
fn targets(config: &Config) -> Vec<(&'static str, String, HostPort)> {
    let of = |forward: &ForwardConfig| {
        let name = forward.inbound.name.clone();
        let targets = forward.forward_to.iter().filter_map(|to| match &to.destination {
            Destination::Target(target) => Some(target.clone()),
            Destination::Core(_) => None,
        });
        targets.map(|target| ("target", name.clone(), target)).collect::<Vec<_>>()
    };
    let mut targets: Vec<_> = config.listeners().iter().filter_map(ListenerConfig::forward).flat_map(of).collect();
    if let Config::Core(core) = config {
        let games = core.game_servers.iter();
        targets.extend(games.map(|game| ("game_server", game.port.to_string(), game.address.clone())));
    }
    targets
}

/// Returns the check of the edges that the core admits.
fn edges(config: &Config) -> Option<DoctorCheck> {
    let Config::Core(core) = config else { return None };
    let (revoked, known): (Vec<_>, Vec<_>) = core.edges.iter().partition(|edge| edge.revoked);
    let list = |edges: &[&otproxy_config::EdgePeer]| {
        edges.iter().map(|edge| edge.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let mut message = format!("{} known: {}", known.len(), list(&known));
    if known.is_empty() {
        message = "none is known, so none is let in".to_owned();
    }
    if !revoked.is_empty() {
        message += &format!("; revoked: {}", list(&revoked));
    }
    Some(if known.is_empty() {
        DoctorCheck::warn(("edges", ""), message, "give `edges` in the file")
    } else {
        DoctorCheck::ok("edges", "", message)
    })
}

fn stock_server(warning: StockServerWarning) -> DoctorCheck {
    let check = if warning.is_game_server { "game_server" } else { "target" };
    DoctorCheck::warn((check, &warning.subject), warning.message, warning.remedy)
}

fn unit_name(role: RoleKind) -> String {
    format!("otproxy-{role}")
}

//! `otproxy doctor`: tries the real thing from where it runs, and gives the remedy of each failure.
//!
//! Every check has a time limit, and independent checks run at once: the whole takes little longer than [`WITHIN`],
//! whatever the network does.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout, timeout_at};

use crate::state::StateDir;
use crate::unit::{UnreadableFile, unreadable};
use otproxy_config::{BindSessions, Config, CoreConfig, EdgePeer, HostPort, RoleKind, StockServerWarning, TargetHost};

mod admin;
mod alerts;
mod bans;
mod certificates;
mod clock;
mod holder;
mod links;
mod opening;
mod outside;
mod ports;
mod proxies_table;
mod reach;
mod report;
mod server;
mod source;
mod systemd;
mod throttle;
mod tool;
mod tunnel;

pub use outside::{
    EdgeList, EdgePorts, GameError, HiddenCore, ListError, ListedEdge, MAX_LIST, OUTSIDE_CHECKS, OUTSIDE_TIMES,
    Outside, OutsideReport, SeenEdge, SeenGame, examine_outside, json as outside_json, read_list,
};
pub use report::{json, text};

use admin::RunningProcess;
use systemd::Unit;

/// The time limit of the checks that run at once.
pub const WITHIN: Duration = Duration::from_secs(15);
/// The time limit of a connect, which is that of roles by default.
pub const CONNECT: Duration = Duration::from_secs(4);
/// The time limit of each later step of the other side.
pub const ANSWER: Duration = Duration::from_secs(5);

/// The kinds of checks, in the order of the report: from the host outwards.
pub const CHECKS: [&str; 19] = [
    "file",
    "files",
    "clock",
    "unit",
    "admin",
    "bans",
    "listener",
    "certificate",
    "key",
    "edges",
    "tunnel",
    "target",
    "game_server",
    "source",
    "proxies_table",
    "alerts",
    "player_address",
    "connects",
    "links",
];

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
        Self::told(("file", ""), error, &format!("correct it; `otproxy check -c {file}` says the same"))
    }

    /// Makes a failure from an error that says, behind its first semicolon, what to do about it; `otherwise` if it does not.
    fn told(what: (&'static str, &str), error: &str, otherwise: &str) -> Self {
        let (message, remedy) = report::parted(error).unwrap_or((error, otherwise));
        Self::fail(what, message, remedy)
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

/// Checks everything that the configuration of this file needs. `try_connects` also finds out which game servers block who connects
/// too often, at the price that new players may be refused for some seconds.
pub async fn examine(config: Config, file: &Path, files: OpenFiles, try_connects: bool) -> Vec<DoctorCheck> {
    let mut checks = vec![DoctorCheck::ok("file", "", config.summary()), file_limit(files)];
    let role = config.role();
    // An otproxy that runs already decides what the other results mean.
    let listening = ports::of(&config);
    let of_held = listening.clone();
    let held = spawn_blocking(move || ports::held(&of_held)).await.unwrap_or_default();
    let (running, admin) = admin::examine(role, &config.process().admin, held).await;
    checks.extend(admin);
    let runs = running.is_some() || held == Some(true);
    let unit = Unit::ask(&unit_name(role)).await;
    checks.extend(unit.as_ref().map(|unit| unit.examine(runs)));
    checks.extend(running.iter().flat_map(RunningProcess::of_targets));
    checks.extend(edges(&config));
    let running = Arc::new(running);

    let mut pending: Vec<(&'static str, JoinHandle<Vec<DoctorCheck>>)> = Vec::new();
    let own = Arc::clone(&running);
    pending.push(("listener", spawn_blocking(move || ports::examine(&listening, own.is_some()))));
    for trial in reach::of(&config) {
        pending.push((trial.check, tokio::spawn(async move { vec![trial.examine().await] })));
    }
    let mut hosts: BTreeMap<TargetHost, Vec<_>> = BTreeMap::new();
    for trial in server::of(&config) {
        hosts.entry(trial.host()).or_default().push(trial);
    }
    for trials in hosts.into_values() {
        pending.push(("player_address", tokio::spawn(server::examine(trials))));
    }
    let closed = unreadable(&config, file);
    let identity = certificates::examine(&config, &closed, &mut checks);
    certificates::admin(&config, &mut checks);
    checks.extend(closed.into_iter().map(|UnreadableFile { file, problem, remedy }| {
        DoctorCheck::fail(("file", &file.display().to_string()), problem, remedy)
    }));
    if let Err(error) = StateDir::new(config.process().state_dir.as_deref()).check() {
        checks.push(DoctorCheck::told(("file", "state_dir"), &error.to_string(), ""));
    }
    for trial in tunnel::of(&config) {
        let (identity, running) = (identity.clone(), Arc::clone(&running));
        pending.push(("tunnel", tokio::spawn(async move { vec![trial.examine(identity, &running).await] })));
    }
    for trial in links::of(&config).into_iter().filter(|_| runs) {
        pending.push(("links", tokio::spawn(async move { vec![trial.examine().await] })));
    }
    let unit = Arc::new(unit);
    if let Some(table) = config.process().bans.nftables.clone() {
        let unit = Arc::clone(&unit);
        pending.push(("bans", tokio::spawn(async move { vec![bans::examine(&table, (*unit).as_ref()).await] })));
    }
    if let Config::Core(CoreConfig { proxies_table: Some(table), .. }) = &config {
        let table = table.clone();
        pending.push(("proxies_table", tokio::spawn(async move { vec![proxies_table::examine(table).await] })));
    }
    if let Some(alerts) = config.process().alerts.clone() {
        pending.push(("alerts", spawn_blocking(move || alerts::examine(&alerts))));
    }
    for loopback in config.loopbacks_of_players() {
        let unit = Arc::clone(&unit);
        pending.push(("source", tokio::spawn(async move { source::examine(loopback, (*unit).as_ref(), runs).await })));
    }
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
    // Last, when nothing else connects any more.
    for trial in throttle::of(&config).into_iter().filter(|_| try_connects) {
        checks.extend(timeout(WITHIN, trial.examine()).await.ok().flatten());
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

/// Returns the checks of the edges that the core admits.
fn edges(config: &Config) -> Vec<DoctorCheck> {
    let Config::Core(core) = config else { return Vec::new() };
    let (revoked, known): (Vec<_>, Vec<_>) = core.edges.iter().partition(|edge| edge.revoked);
    let list = |edges: &[&EdgePeer]| edges.iter().map(|edge| edge.name.as_str()).collect::<Vec<_>>().join(", ");
    let mut message = format!("{} known: {}", known.len(), list(&known));
    if known.is_empty() {
        message = "none is known, so none is let in".to_owned();
    }
    if !revoked.is_empty() {
        message += &format!("; revoked: {}", list(&revoked));
    }
    let of_list = if known.is_empty() {
        DoctorCheck::warn(("edges", ""), message, "give `edges` in the file")
    } else {
        DoctorCheck::ok("edges", "", message)
    };
    [of_list].into_iter().chain(mixed_families(core, &known)).collect()
}

/// Returns the check of sessions that are bound to one address, where edges have addresses of both families.
fn mixed_families(core: &CoreConfig, known: &[&EdgePeer]) -> Option<DoctorCheck> {
    if core.sessions.bind_sessions != BindSessions::Address {
        return None;
    }
    // An edge with addresses of both has links of both.
    let all = |edge: &EdgePeer, is_ipv6: bool| {
        let dialled = edge.dial.as_ref().and_then(HostPort::literal).map(|address| address.is_ipv6());
        let mut families = edge.addresses.iter().map(|network| network.addr().is_ipv6()).chain(dialled).peekable();
        families.peek().is_some() && families.all(|family| family == is_ipv6)
    };
    [false, true].into_iter().all(|is_ipv6| known.iter().any(|edge| all(edge, is_ipv6))).then(|| {
        DoctorCheck::fail(
            ("edges", ""),
            "some have IPv4 addresses and some IPv6, and `bind_sessions: address` joins no links of both: a player who has both \
             plays over one of them alone",
            "set `sessions.bind_sessions: client`, the default, or give all edges one family",
        )
    })
}

fn stock_server(warning: StockServerWarning) -> DoctorCheck {
    let check = if warning.is_game_server { "game_server" } else { "target" };
    DoctorCheck::warn((check, &warning.subject), warning.message, warning.remedy)
}

/// Returns the name of a role's unit, without `.service`.
fn unit_name(role: RoleKind) -> String {
    format!("otproxy-{role}")
}

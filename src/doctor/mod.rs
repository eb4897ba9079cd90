//! `otproxy doctor`: tries the real thing from where it runs, and says what to do about what fails.
//!
//! Every check has a time limit, and those that do not need each other run at once: the whole takes little longer than
//! [`WITHIN`], whatever the network does.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout_at};

use crate::config::{Config, Destination, Forward, Role, Target};

mod admin;
mod certificates;
mod clock;
mod holder;
mod ports;
mod reach;
mod report;
mod tunnel;

pub use report::{json, text};

/// How long the checks may take that run at once.
pub const WITHIN: Duration = Duration::from_secs(15);
/// How long a connect may take: as long as roles wait by default.
pub const CONNECT: Duration = Duration::from_secs(4);
/// How long the other side may take for each step after that.
pub const ANSWER: Duration = Duration::from_secs(5);

/// The kinds of checks, in the order in which they are told: from the host outwards.
pub const CHECKS: [&str; 11] =
    ["file", "files", "clock", "admin", "listener", "certificate", "key", "edges", "tunnel", "target", "game_server"];

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// As it should be.
    Ok,
    /// It works, or cannot be told from here, and there is something to know.
    Warn,
    /// It does not work.
    Fail,
}

impl Status {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What kind of thing: one of [`CHECKS`].
    pub check: &'static str,
    /// Which one: a name of the configuration, or nothing where there is only one.
    pub subject: String,
    /// How it ended.
    pub status: Status,
    /// What was found.
    pub message: String,
    /// What to do; always there where it failed.
    pub remedy: Option<String>,
}

impl Check {
    fn ok(check: &'static str, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { check, subject: subject.into(), status: Status::Ok, message: message.into(), remedy: None }
    }

    fn bad(
        status: Status,
        (check, subject): (&'static str, &str),
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (subject, message, remedy) = (subject.to_owned(), message.into(), Some(remedy.into()));
        Self { check, subject, status, message, remedy }
    }

    fn warn(what: (&'static str, &str), message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::bad(Status::Warn, what, message, remedy)
    }

    fn fail(what: (&'static str, &str), message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::bad(Status::Fail, what, message, remedy)
    }

    /// A file that is no configuration.
    #[must_use]
    pub fn wrong_file(file: &str, error: &str) -> Self {
        Self::fail(("file", ""), error, format!("correct it; `otproxy check -c {file}` says the same"))
    }
}

/// Whether nothing failed.
#[must_use]
pub fn passed(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.status != Status::Fail)
}

/// Open files: how many may be, and how many the configured limits can lead to.
#[derive(Debug, Clone, Copy)]
pub struct Files {
    /// How many may be.
    pub limit: u64,
    /// How many there can be.
    pub needed: u64,
}

/// Looks at all that a configuration needs.
pub async fn examine(config: Config, files: Files) -> Vec<Check> {
    let mut checks = vec![Check::ok("file", "", config.summary()), file_limit(files)];
    let role = config.role();
    // What runs already decides what the rest means.
    let (running, admin) = admin::examine(role, &config.process().admin).await;
    checks.push(admin);
    let running = Arc::new(running);

    let mut pending: Vec<(&'static str, JoinHandle<Vec<Check>>)> = Vec::new();
    let (listening, own) = (ports::of(&config), Arc::clone(&running));
    pending.push(("listener", spawn_blocking(move || ports::examine(&listening, own.is_some()))));
    for (check, subject, target) in targets(&config) {
        pending.push((check, tokio::spawn(async move { vec![reach::examine(check, subject, role, &target).await] })));
    }
    let identity = certificates::examine(&config, &mut checks);
    for trial in tunnel::of(&config) {
        let (identity, running) = (identity.clone(), Arc::clone(&running));
        pending.push(("tunnel", tokio::spawn(async move { vec![trial.examine(identity, &running).await] })));
    }
    checks.extend(edges(&config));
    pending.push(("clock", tokio::spawn(async { vec![clock::examine().await] })));

    let end = Instant::now() + WITHIN;
    for (check, task) in pending {
        match timeout_at(end, task).await {
            Ok(Ok(found)) => checks.extend(found),
            Ok(Err(error)) => checks.push(Check::fail((check, ""), error.to_string(), "a defect of this program")),
            Err(_) => {
                let message = format!("was not through in {} s", WITHIN.as_secs());
                checks.push(Check::fail((check, ""), message, "see whether this host or its network is overloaded"));
            }
        }
    }
    checks.sort_by_key(|check| CHECKS.iter().position(|kind| *kind == check.check));
    checks
}

fn file_limit(Files { limit, needed }: Files) -> Check {
    let allowed = if limit == u64::MAX { "any number of".to_owned() } else { limit.to_string() };
    if limit >= needed {
        return Check::ok("files", "", format!("{allowed} open files are allowed here, {needed} can be needed"));
    }
    Check::warn(
        ("files", ""),
        format!("{allowed} open files are allowed here, and the configured limits can need {needed}"),
        "raise LimitNOFILE in the unit, or `ulimit -Hn` in this shell",
    )
}

/// What is connected to without the tunnel.
fn targets(config: &Config) -> Vec<(&'static str, String, Target)> {
    let forwards = |forwards: &[Forward]| -> Vec<_> {
        let of = |forward: &Forward| {
            let name = forward.inbound.name.clone();
            let targets = forward.forward_to.iter().filter_map(|to| match &to.destination {
                Destination::Target(target) => Some(target.clone()),
                Destination::Core(_) => None,
            });
            targets.map(|target| ("target", name.clone(), target)).collect::<Vec<_>>()
        };
        forwards.iter().flat_map(of).collect()
    };
    match config {
        Config::Edge(edge) => forwards(&edge.listeners),
        Config::Core(core) => {
            let games = core.game_servers.iter();
            let games = games.map(|game| ("game_server", game.port.to_string(), game.address.clone()));
            forwards(&core.forwards).into_iter().chain(games).collect()
        }
    }
}

/// Whom the core lets in.
fn edges(config: &Config) -> Option<Check> {
    let Config::Core(core) = config else { return None };
    let (revoked, known): (Vec<_>, Vec<_>) = core.edges.iter().partition(|edge| edge.revoked);
    let list =
        |edges: &[&crate::config::EdgePeer]| edges.iter().map(|edge| edge.name.as_str()).collect::<Vec<_>>().join(", ");
    let mut message = format!("{} known: {}", known.len(), list(&known));
    if known.is_empty() {
        message = "none is known, so none is let in".to_owned();
    }
    if !revoked.is_empty() {
        message += &format!("; revoked: {}", list(&revoked));
    }
    Some(if known.is_empty() {
        Check::warn(("edges", ""), message, "give `edges` in the file")
    } else {
        Check::ok("edges", "", message)
    })
}

fn unit(role: Role) -> String {
    format!("otproxy-{role}")
}

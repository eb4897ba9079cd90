//! The reachability of targets: name resolution and connect.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::{CONNECT, DoctorCheck};
use otproxy_config::{HostPort, RoleKind};
use otproxy_net::ConnectResult;

/// A connection that succeeded.
pub(super) struct ConnectSuccess {
    pub stream: TcpStream,
    /// The address behind a name, as ` (198.51.100.7)`; empty for an address.
    pub address: String,
    pub took: Duration,
}

/// A connection that failed.
pub(super) struct ConnectFailure {
    pub message: String,
    pub result: ConnectResult,
}

/// Connects, trying each address of a name.
pub(super) async fn connect(target: &HostPort) -> Result<ConnectSuccess, ConnectFailure> {
    let name = target.host.parse::<IpAddr>().is_err();
    let found = timeout(CONNECT, lookup_host((target.host.as_str(), target.port))).await;
    let addresses: Vec<_> = found.ok().and_then(Result::ok).into_iter().flatten().collect();
    let mut last =
        ConnectFailure { message: format!("`{}` does not resolve", target.host), result: ConnectResult::Resolve };
    for address in addresses {
        let shown = if name { format!(" ({})", address.ip()) } else { String::new() };
        let start = Instant::now();
        let result = match timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(ConnectSuccess { stream, address: shown, took: start.elapsed() }),
            Ok(Err(error)) => ConnectResult::of(&error),
            Err(_) => ConnectResult::Timeout,
        };
        let how = match result {
            ConnectResult::Refused => "refuses connections",
            ConnectResult::Timeout => "does not answer",
            _ => "cannot be reached",
        };
        last = ConnectFailure { message: format!("{target}{shown} {how}"), result };
    }
    Err(last)
}

/// Returns the remedy if `who`, a program on another host, cannot be connected to.
pub(super) fn remedy(result: ConnectResult, who: &str) -> String {
    match result {
        ConnectResult::Resolve => {
            "correct the name, or see why this host cannot look it up: `getent hosts NAME`".to_owned()
        }
        ConnectResult::Refused => format!("see that {who} runs, and listens there: `ss -ltnp` on its host"),
        ConnectResult::Timeout => format!("see that {who}'s host is up, and that its firewall lets this host in"),
        _ => "see this host's routes and firewall: `ip route get ADDRESS`".to_owned(),
    }
}

/// Checks a target that a role forwards to, or a game server.
pub(super) async fn examine(check: &'static str, subject: String, role: RoleKind, target: &HostPort) -> DoctorCheck {
    match connect(target).await {
        Ok(ConnectSuccess { address, took, .. }) => {
            DoctorCheck::ok(check, subject, format!("{target}{address} answers, in {} ms", took.as_millis()))
        }
        Err(ConnectFailure { message, result }) => {
            let who = match (role, check) {
                (RoleKind::Edge, _) => "the core",
                (RoleKind::Core, "game_server") => "the game server",
                (RoleKind::Core, _) => "the login server",
            };
            DoctorCheck::fail((check, &subject), message, remedy(result, who))
        }
    }
}

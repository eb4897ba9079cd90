//! The reachability of targets: name resolution, connect, and on an edge whether the core talks to this host.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::{CONNECT, DoctorCheck};
use crate::probe::{self, ProbeError, ProbeLink, Probing};
use otproxy_config::{CheckKind, Config, Destination, ForwardConfig, HostPort, LINKS_PORT, ListenerConfig, RoleKind};
use otproxy_config::{ProtocolSniffer, SendProxy};
use otproxy_net::ConnectResult;

/// The time that a peer has to close a connection that it does not want.
const UNWANTED: Duration = Duration::from_millis(700);

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
    pub error: ProbeError,
}

impl ConnectFailure {
    fn new(target: &HostPort, shown: &str, error: ProbeError) -> Self {
        Self { message: format!("{target}{shown} {}", error.finding()), error }
    }
}

/// Looks up the addresses of a target, each with how it is shown behind the name.
async fn resolve(target: &HostPort) -> Result<Vec<(SocketAddr, String)>, ConnectFailure> {
    let name = target.host.parse::<IpAddr>().is_err();
    let found = timeout(CONNECT, lookup_host((target.host.as_str(), target.port))).await;
    let addresses: Vec<_> = found.ok().and_then(Result::ok).into_iter().flatten().collect();
    if addresses.is_empty() {
        let error = ProbeError::Connect(ConnectResult::Resolve);
        return Err(ConnectFailure { message: format!("`{}` {}", target.host, error.finding()), error });
    }
    let shown = |address: SocketAddr| if name { format!(" ({})", address.ip()) } else { String::new() };
    Ok(addresses.into_iter().map(|address| (address, shown(address))).collect())
}

/// Connects, trying each address of a name.
pub(super) async fn connect(target: &HostPort) -> Result<ConnectSuccess, ConnectFailure> {
    let mut last = None;
    for (address, shown) in resolve(target).await? {
        let start = Instant::now();
        let error = match timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(ConnectSuccess { stream, address: shown, took: start.elapsed() }),
            Ok(Err(error)) => ProbeError::of_connect(&error, address.is_ipv6()),
            Err(_) => ProbeError::Connect(ConnectResult::Timeout),
        };
        last = Some(ConnectFailure::new(target, &shown, error));
    }
    let unresolved = ProbeError::Connect(ConnectResult::Resolve);
    Err(last.unwrap_or_else(|| ConnectFailure::new(target, "", unresolved)))
}

/// A target that is connected to without the tunnel.
pub(super) struct TargetTrial {
    /// The kind of check.
    pub check: &'static str,
    subject: String,
    role: RoleKind,
    target: HostPort,
    asks: Asks,
}

/// What is asked of a target.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asks {
    /// That it takes connections.
    Connect,
    /// That it keeps them: a core closes those of hosts that it does not trust at once.
    Keep,
    /// That it answers a ping, as a core's listener for links does.
    Pong { send_proxy: bool },
}

/// Returns the targets of a configuration that are connected to without the tunnel.
pub(super) fn of(config: &Config) -> Vec<TargetTrial> {
    let role = config.role();
    let mut trials = Vec::new();
    for listener in config.listeners() {
        let Some(forward) = listener.leading() else { continue };
        let is_web = matches!(listener, ListenerConfig::Web(_));
        let asks = match role {
            RoleKind::Core => Asks::Connect,
            RoleKind::Edge if !is_web && carries_links(forward) => {
                Asks::Pong { send_proxy: forward.send_proxy != SendProxy::None }
            }
            RoleKind::Edge => Asks::Keep,
        };
        for to in &forward.forward_to {
            if let Destination::Target(target) = &to.destination {
                let subject = forward.inbound.name.clone();
                trials.push(TargetTrial { check: "target", subject, role, target: target.clone(), asks });
            }
        }
    }
    if let Config::Core(core) = config {
        trials.extend(core.game_servers.iter().map(|game| TargetTrial {
            check: "game_server",
            subject: game.port.to_string(),
            role,
            target: game.address.clone(),
            asks: Asks::Connect,
        }));
    }
    trials
}

/// Returns whether links are what a forward is for.
pub(super) fn carries_links(forward: &ForwardConfig) -> bool {
    let inbound = &forward.inbound;
    inbound.expect == ProtocolSniffer::Links
        || forward.check.kind == CheckKind::Ping
        || (inbound.expect == ProtocolSniffer::Any && inbound.listen.iter().any(|address| address.port() == LINKS_PORT))
}

impl TargetTrial {
    pub async fn examine(self) -> DoctorCheck {
        let (check, subject, target) = (self.check, self.subject.as_str(), &self.target);
        let found = match self.asks {
            Asks::Pong { send_proxy } => ping(target, send_proxy).await,
            Asks::Connect | Asks::Keep => self.reach().await,
        };
        match found {
            Ok(message) => DoctorCheck::ok(check, subject, message),
            Err((ConnectFailure { message, error: ProbeError::Closed { first: true } }, local)) => {
                DoctorCheck::fail((check, subject), message, trust(local))
            }
            Err((ConnectFailure { message, error }, _)) => {
                DoctorCheck::fail((check, subject), message, error.remedy(self.who()))
            }
        }
    }

    /// Connects, and on an edge sees that the connection stays.
    async fn reach(&self) -> Result<String, (ConnectFailure, Option<IpAddr>)> {
        let ConnectSuccess { mut stream, address, took } =
            connect(&self.target).await.map_err(|error| (error, None))?;
        let (target, took) = (&self.target, took.as_millis());
        if self.asks == Asks::Keep {
            let local = stream.local_addr().ok().map(|local| local.ip());
            // Bytes are as good as silence: a server may speak first.
            if let Ok(Ok(0) | Err(_)) = timeout(UNWANTED, stream.read(&mut [0; 1])).await {
                let message = format!("{target}{address} takes connections of this host, and closes them at once");
                return Err((ConnectFailure { message, error: ProbeError::Closed { first: true } }, local));
            }
        }
        Ok(format!("{target}{address} answers, in {took} ms"))
    }

    /// Returns what listens at the target.
    fn who(&self) -> &'static str {
        match (self.role, self.check) {
            (RoleKind::Edge, _) => "the core",
            (RoleKind::Core, "game_server") => "the game server",
            (RoleKind::Core, _) => "the server",
        }
    }
}

/// Opens a link to a target, as an edge does for a player, and pings over it.
async fn ping(target: &HostPort, send_proxy: bool) -> Result<String, (ConnectFailure, Option<IpAddr>)> {
    let probing = Probing { client: probe::client_id(), within: CONNECT, send_proxy };
    let mut last = None;
    for (address, shown) in resolve(target).await.map_err(|error| (error, None))? {
        let (mut link, _) = match ProbeLink::open(address, probing).await {
            Ok(opened) => opened,
            Err(error) => {
                last = Some((ConnectFailure::new(target, &shown, error), None));
                continue;
            }
        };
        let local = link.local();
        match link.ping().await {
            Ok(round_trip) => {
                return Ok(format!("{target}{shown} answers a ping over a link, in {} ms", round_trip.as_millis()));
            }
            Err(error) => last = Some((ConnectFailure::new(target, &shown, error), local)),
        }
    }
    let unresolved = ProbeError::Connect(ConnectResult::Resolve);
    Err(last.unwrap_or_else(|| (ConnectFailure::new(target, "", unresolved), None)))
}

/// Returns the remedy where a core closes connections of this host, which has this address on the way there.
fn trust(local: Option<IpAddr>) -> String {
    let address = local.map_or_else(|| "ADDRESS".to_owned(), |local| local.to_string());
    format!(
        "see that the core trusts this host: `edges` in core.yaml needs `address: {address}` for it, or the address that the core's log \
         names with `untrusted`; then `systemctl reload otproxy-core`"
    )
}

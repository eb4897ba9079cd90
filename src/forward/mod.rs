//! Forwarding: one connection in, one connection to a target, bytes in both directions.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout, timeout_at};
use tracing::{info, warn};

use crate::access_log::{AccessLogEntry, Ended, Forwarded};
use crate::admission::{
    AddressKey, AdmittedConnection, AuthenticatedEdge, CarriedGuard, Carrier, ENDED_LINES, FirstPingError, Inbound,
    InboundShared, TunnelledStream, lost, read_first_ping, unfinished,
};
use crate::connection::{CloseReason, ConnectionHandle, Route};
use crate::metrics::{ByReason, GaugeGuard, Metrics};
use crate::report::PlayerCounter;
use crate::tunnel::{EdgeTrunks, LOSS_SPREAD};
use otproxy_config as config;
use otproxy_config::SendProxy;
use otproxy_net::pump::{Observer, pump};
use otproxy_net::worker::Tasks;
use otproxy_net::{CloseQueue, ConnectResult, OutageLog, RateLimitedLog, Stream, random_part};
use otproxy_protocol::frame::ClientId;
use otproxy_protocol::login::LoginResult;
use otproxy_protocol::player_address::{PseudoIpv4, backwards, ipv4_of};
use otproxy_protocol::proxy_header;
use otproxy_protocol::status::StatusRequest;

mod login;
mod moved;
mod status;
mod status_cache;
mod targets;

use login::Login;
use moved::ForwardObserver;
use status::StatusShared;
use targets::{ChosenTarget, TargetStream};

pub use login::ANSWER_WITHIN;
pub use status_cache::{MAX_REQUESTS, StatusResult};
#[cfg(test)]
pub use targets::metrics::{TargetChecks, show_state};
pub use targets::{
    CheckResult, ConnectFor, FIRST_WAIT, LONGEST_WAIT, LastCheck, OnBehalf, TargetSnapshot, TargetState, TargetWays,
    Targets, TunnelWay,
};

/// How many times `timeouts.connect` one connection spends on targets, however many targets and addresses there are.
/// Clients give up after 12.5 s.
pub const TRIES: u32 = 3;

/// The kind of target that a PROXY header is for.
#[derive(Debug, Clone)]
pub enum HeaderFor {
    /// A proxy: any address family.
    Proxy,
    /// A game server: it reads exactly the 28 bytes of an IPv4 header, so an IPv6 player is represented by the
    /// pseudo-IPv4 address.
    GameServer(PseudoIpv4),
}

/// The part of a forward listener that all workers share, from one reload to the next. A connection keeps the
/// configuration that it began with, except for its targets.
#[derive(Debug)]
pub struct ForwardShared {
    inbound: Arc<InboundShared>,
    send_proxy: SendProxy,
    header_for: HeaderFor,
    targets: Arc<Targets>,
    /// The shared part of status answers, if they are enabled.
    status: Option<StatusShared>,
    /// The changes of answers to logins, if that is enabled.
    login: Option<config::LoginConfig>,
    logs: Arc<Logs>,
    /// The count of players, where somebody knows them.
    players: Option<PlayerCounter>,
}

/// The limits that keep a listener from filling the disk with log lines.
#[derive(Debug)]
struct Logs {
    /// Of connects to the targets, which fail for a reason, or as none is ready.
    reach: OutageLog<Option<ConnectResult>>,
    /// Of status answers.
    status: OutageLog<io::ErrorKind>,
    ended: RateLimitedLog,
}

impl ForwardShared {
    /// Makes it from the listener's configuration, whose `inbound` part was made before; `ways` are those to its targets, and `players`
    /// counts those of this process. Events outside of the workers are counted in `metrics`.
    pub fn new(
        config: &config::ForwardConfig,
        inbound: Arc<InboundShared>,
        header_for: HeaderFor,
        (ways, players): (TargetWays, Option<PlayerCounter>),
        metrics: &Arc<Metrics>,
    ) -> Arc<Self> {
        let targets = Targets::new(config, ways, metrics);
        let status = config.status.clone().map(StatusShared::new);
        let ended = RateLimitedLog::new(ENDED_LINES);
        let logs = Logs { reach: OutageLog::new(), status: OutageLog::new(), ended };
        let (send_proxy, login) = (config.send_proxy, config.login.clone());
        Arc::new(Self { inbound, send_proxy, header_for, targets, status, login, logs: Arc::new(logs), players })
    }

    /// Returns the same listener with a new `config` in place of `before`: counts and knowledge about targets stay.
    #[must_use]
    pub fn reloaded(self: &Arc<Self>, config: config::ForwardConfig, before: &config::ForwardConfig) -> Arc<Self> {
        if config == *before {
            return Arc::clone(self);
        }
        let targets = |config: &config::ForwardConfig| {
            let config::ForwardConfig { forward_to, choice, check, resolve, send_proxy, source, inbound, .. } = config;
            (forward_to.clone(), *choice, *check, *resolve, (*send_proxy, *source), inbound.timeouts.connect)
        };
        // Unchanged targets keep the rhythm of their checks.
        if targets(&config) != targets(before) {
            self.targets.set(&config);
        }
        Arc::new(Self {
            inbound: self.inbound.reloaded(config.inbound),
            send_proxy: config.send_proxy,
            header_for: self.header_for.clone(),
            targets: Arc::clone(&self.targets),
            status: config.status.map(|status| match &self.status {
                Some(before) => before.reloaded(status),
                None => StatusShared::new(status),
            }),
            login: config.login,
            logs: Arc::clone(&self.logs),
            players: self.players.clone(),
        })
    }

    /// Removes the listener's metrics; its connections go on.
    pub fn forget(&self) {
        self.targets.forget();
    }

    /// Returns its targets.
    pub fn targets(&self) -> &Arc<Targets> {
        &self.targets
    }

    /// Resolves and checks its targets, until dropped. To be run once for all workers.
    pub fn watch_targets(&self) -> impl Future<Output = ()> + Send + use<> {
        Arc::clone(&self.targets).watch()
    }

    /// Returns one worker's metrics of status requests, if they are enabled.
    pub fn status_metrics(&self, metrics: &Metrics) -> Option<ByReason<StatusResult>> {
        self.status.as_ref().map(|_| ByReason::new(&metrics.status_requests, &[&self.inbound.config().name]))
    }

    /// Returns one worker's metrics of logins, if their answers are changed.
    fn login_metrics(&self, metrics: &Metrics) -> Option<ByReason<LoginResult>> {
        self.login.as_ref().map(|_| login::metrics(metrics, &self.inbound.config().name))
    }

    /// Returns the part that admits connections.
    pub fn inbound(&self) -> &Arc<InboundShared> {
        &self.inbound
    }
}

/// One worker's part of a forward listener.
#[derive(Debug)]
pub struct Forward {
    shared: Arc<ForwardShared>,
    inbound: Inbound,
    status: Option<ByReason<StatusResult>>,
    logins: Option<ByReason<LoginResult>>,
    /// This worker's trunks, at an edge with a tunnel.
    trunks: Option<Rc<EdgeTrunks>>,
}

/// A destination to which a connection was made.
#[derive(Debug)]
pub struct Connected {
    /// The connection.
    pub stream: Stream,
    /// The destination's name in logs.
    pub name: String,
    /// The bytes to send first: the PROXY header.
    pub header: Vec<u8>,
    /// Targets that could not be reached before it.
    pub retries: usize,
    /// The target, of which it counts as a connection.
    chosen: Rc<ChosenTarget>,
    /// The guard that counts it as a stream of the tunnel.
    _counted: Option<GaugeGuard>,
}

/// A target that was connected to and has yet to show what it is worth, as a server may accept and never answer.
pub struct TargetOnTrial(Rc<ChosenTarget>);

impl TargetOnTrial {
    /// Records that it answered.
    pub fn answered(&self) {
        self.0.connected();
    }

    /// Records that it gave no answer that can be used.
    pub fn unanswered(&self) {
        self.0.unanswered();
    }
}

impl Connected {
    /// Returns the target, to be told of its answer.
    pub fn on_trial(&self) -> TargetOnTrial {
        TargetOnTrial(Rc::clone(&self.chosen))
    }
}

/// The last target that could not be reached.
#[derive(Debug)]
pub struct ConnectFailure {
    /// The target's name in logs; `None` if none was ready.
    pub name: Option<String>,
    /// Targets that could not be reached before it.
    pub retries: usize,
    /// The reason.
    pub result: ConnectResult,
}

impl Carrier for Forward {
    fn inbound(&self) -> &Inbound {
        &self.inbound
    }

    fn spawn(self: Rc<Self>, tasks: &Tasks, stream: TcpStream, peer: SocketAddr) {
        tasks.spawn(self.carry(stream, peer, Rc::clone(tasks.closes())));
    }

    fn spawn_tunnelled(self: Rc<Self>, tasks: &Tasks, tunnelled: TunnelledStream) {
        tasks.spawn(self.carry_tunnelled(tunnelled, Rc::clone(tasks.closes())));
    }
}

impl Forward {
    /// Makes one worker's part, which counts in `metrics`; `trunks` are that worker's.
    pub fn new(
        shared: Arc<ForwardShared>,
        inbound: Inbound,
        trunks: Option<Rc<EdgeTrunks>>,
        metrics: &Metrics,
    ) -> Self {
        let (status, logins) = (shared.status_metrics(metrics), shared.login_metrics(metrics));
        Self { shared, inbound, status, logins, trunks }
    }

    /// Carries one accepted connection to its end.
    async fn carry(self: Rc<Self>, stream: TcpStream, peer: SocketAddr, closes: Rc<CloseQueue>) {
        if let Some(admitted) = self.inbound.admit(stream, peer, &closes).await {
            self.carry_admitted(admitted, &closes).await;
        }
    }

    /// Carries a stream of the tunnel to its end.
    async fn carry_tunnelled(self: Rc<Self>, tunnelled: TunnelledStream, closes: Rc<CloseQueue>) {
        if let Some(admitted) = self.inbound.admit_tunnelled(tunnelled).await {
            self.carry_admitted(admitted, &closes).await;
        }
    }

    async fn carry_admitted(&self, mut admitted: AdmittedConnection, closes: &Rc<CloseQueue>) {
        if let (Some(shared), Some(metrics)) = (&self.shared.status, &self.status)
            && Box::pin(status::serve(self, shared, metrics, &mut admitted)).await.is_break()
        {
            return;
        }
        let handle = Arc::clone(admitted.guard.handle());
        let mut record = ConnectionLogGuard::new(self, &admitted);
        if let Ok(reason) = handle.run_until_closed(self.carry_to_target(&mut admitted, &mut record, closes)).await {
            record.end(reason);
        }
    }

    /// Connects to a target and moves bytes; returns the reason of the end. The caller keeps the connection, which
    /// counts as open until its end is recorded.
    async fn carry_to_target(
        &self,
        admitted: &mut AdmittedConnection,
        record: &mut ConnectionLogGuard<'_>,
        closes: &Rc<CloseQueue>,
    ) -> CloseReason {
        let began = Instant::now();
        let tunnel = match self.tunnel_way(admitted).await {
            Ok(tunnel) => tunnel,
            Err(reason) => return reason,
        };
        let login = match (&self.shared.login, &self.logins) {
            (Some(config), Some(metrics)) => Box::pin(Login::read(self, config, metrics, admitted)).await,
            _ => None,
        };
        let behalf = OnBehalf { player: admitted.player, local: admitted.destination, tunnel };
        let reached = match Box::pin(self.reach(ConnectFor::Player(admitted.key), behalf)).await {
            Ok(reached) => reached,
            Err(missed) => {
                record.missed(missed);
                return CloseReason::ConnectFailed;
            }
        };
        let Connected { stream: target, name, header: mut first, retries, chosen: _chosen, _counted } = reached;
        record.reached(name, retries, began.elapsed());
        // Taken, so that it is not kept for as long as the connection lasts.
        let early = std::mem::take(&mut admitted.early);
        record.early(&early);
        first.extend_from_slice(&early);
        let moved = ForwardObserver {
            client: &admitted.stream,
            target: &target,
            handle: &record.handle,
            metrics: self.inbound.metrics(),
        };
        moved.begins(&early);
        drop(early);
        let idle = self.inbound.idle_timeout();
        if let Some(login) = login {
            let exchange = login.exchange((&admitted.stream, &target), &mut first, self.inbound.scratch(), &moved);
            // One that takes longer ends below, as any idle connection does.
            let _ = idle.within(Box::pin(exchange)).await;
        }
        let end = pump(&admitted.stream, &target, first, idle, self.inbound.scratch(), &moved).await;
        let lost = lost(&target, None).or_else(|| lost(&admitted.stream, admitted.origin.as_ref()));
        if target.lost_trunk() {
            // So that the clients of a trunk do not all come back in one moment.
            sleep(LOSS_SPREAD.mul_f64(random_part())).await;
        }
        closes.turn().await;
        lost.unwrap_or_else(|| end.into())
    }

    /// Returns the number of its targets.
    pub fn targets(&self) -> usize {
        self.shared.targets.destinations().len()
    }

    /// Returns the status of the server behind it, in XML; `None` if it is not known, or the listener does not ask for it.
    pub async fn status(&self) -> Option<Bytes> {
        let answer = status::ask(self, self.shared.status.as_ref()?, (0, 0), &StatusRequest::Xml).await.answer;
        (!answer.is_empty()).then_some(answer)
    }

    /// Begins to count and log a connection that is carried.
    pub fn record<'a>(&'a self, admitted: &AdmittedConnection) -> ConnectionLogGuard<'a> {
        ConnectionLogGuard::new(self, admitted)
    }

    /// Returns the way through the tunnel for a connection that is no link.
    pub fn tunnel(&self) -> TunnelWay<'_> {
        TunnelWay { trunks: self.trunks.as_deref().ok_or(ConnectResult::Error), client: None }
    }

    /// Returns the way of a connection through the tunnel. Waits until a link has told its client, if its way depends on that;
    /// only a core can say so, and that of the first trunk does.
    ///
    /// # Errors
    /// Returns the reason for which the connection has ended.
    async fn tunnel_way(&self, admitted: &mut AdmittedConnection) -> Result<TunnelWay<'_>, CloseReason> {
        let mut way = self.tunnel();
        let (Ok(trunks), true) = (way.trunks, self.shared.targets.go_by_tunnel()) else { return Ok(way) };
        if let Err(missing) = trunks.any(self.inbound.config().timeouts.connect).await {
            way.trunks = Err(missing);
        } else if self.shared.targets.go_by_client(trunks) {
            way.client = self.client_of(admitted).await?;
        }
        Ok(way)
    }

    /// Reads the first ping of a link, which tells its client. `None` if the connection begins otherwise: the core refuses it,
    /// as it would without the tunnel.
    ///
    /// # Errors
    /// Returns the reason for which the connection has ended.
    async fn client_of(&self, admitted: &mut AdmittedConnection) -> Result<Option<ClientId>, CloseReason> {
        let AdmittedConnection { stream, early, .. } = admitted;
        let telling = read_first_ping(stream, early, self.inbound.scratch());
        match timeout(self.inbound.config().timeouts.idle, telling).await {
            Ok(Ok(client)) => Ok(Some(client)),
            Ok(Err(FirstPingError::NoPing)) => Ok(None),
            Ok(Err(FirstPingError::Ended)) => Err(CloseReason::Client),
            Ok(Err(FirstPingError::Failed)) => Err(CloseReason::ClientError),
            Err(_) => Err(CloseReason::Idle),
        }
    }

    /// Connects to the first target that answers, on behalf of a player.
    async fn reach(&self, connect_for: ConnectFor, behalf: OnBehalf<'_>) -> Result<Connected, ConnectFailure> {
        let within = self.inbound.config().timeouts.connect;
        let deadline = tokio::time::Instant::now() + within * TRIES;
        let reached = self.reach_next(connect_for, behalf, &mut Vec::new(), (within, deadline)).await?;
        reached.chosen.connected();
        Ok(reached)
    }

    /// Connects to the first target that answers until `deadline`, of those that are not in `tried`; each has `within`. It counts as
    /// well only when it is told so: see [`Connected::on_trial`].
    ///
    /// # Errors
    /// Returns the last target that did not answer.
    pub async fn reach_next(
        &self,
        connect_for: ConnectFor,
        behalf: OnBehalf<'_>,
        tried: &mut Vec<usize>,
        (within, deadline): (Duration, tokio::time::Instant),
    ) -> Result<Connected, ConnectFailure> {
        let OnBehalf { player, local, .. } = behalf;
        let metrics = self.inbound.metrics();
        let mut last = ConnectFailure { name: None, retries: 0, result: ConnectResult::Error };
        while tokio::time::Instant::now() < deadline
            && let Some(attempt) = self.shared.targets.choose(player.ip(), tried)
        {
            let retries = tried.len().saturating_sub(1);
            let until = deadline.checked_sub(within).unwrap_or(deadline);
            let turn = attempt.turn(connect_for, until).await;
            let began = Instant::now();
            let connected = match turn {
                Ok(()) => {
                    let until = deadline.min(tokio::time::Instant::now() + within);
                    timeout_at(until, attempt.connect(behalf)).await.unwrap_or(Err(ConnectResult::Timeout))
                }
                Err(full) => Err(full),
            };
            match connected {
                Ok(connected) => {
                    metrics.connect(ConnectResult::Ok);
                    if let Some(seconds) = self.shared.logs.reach.worked(Instant::now()) {
                        info!(
                            listener = self.inbound.config().name,
                            target = attempt.destination(),
                            seconds,
                            "a target can be reached again"
                        );
                    }
                    return Ok(self.reached(connected, player, local, (retries, attempt)));
                }
                Err(result) => {
                    metrics.connect(result);
                    // A connect that the deadline cut short is not the target's fault.
                    if result != ConnectResult::Timeout || began.elapsed() >= within {
                        attempt.failed(result);
                    }
                    last = ConnectFailure { name: Some(attempt.destination()), retries, result };
                }
            }
        }
        let reason = last.name.as_ref().map(|_| last.result);
        if let Some(suppressed) = self.shared.logs.reach.failed(reason, Instant::now()) {
            let (listener, targets) = (&self.inbound.config().name, self.shared.targets.destinations().join(", "));
            match last.name {
                Some(_) => warn!(listener, targets, result = %last.result, suppressed, "no target can be reached"),
                None => warn!(
                    listener,
                    targets, suppressed, "no target is ready: they are drained, in maintenance, or full"
                ),
            }
        }
        Err(last)
    }

    fn reached(
        &self,
        connected: TargetStream,
        player: SocketAddr,
        local: SocketAddr,
        (retries, attempt): (usize, ChosenTarget),
    ) -> Connected {
        let (stream, name, header, counted) = match connected {
            TargetStream::Direct(stream, address) => {
                (stream, address.to_string(), self.header(player, local, address), None)
            }
            // Its opening has said what a header would.
            TargetStream::Tunnel(stream, listener, counted) => {
                (stream, config::Destination::Core(listener).to_string(), Vec::new(), Some(counted))
            }
        };
        Connected { stream, name, header, retries, chosen: Rc::new(attempt), _counted: counted }
    }

    fn header(&self, mut player: SocketAddr, mut destination: SocketAddr, target: SocketAddr) -> Vec<u8> {
        let mut out = Vec::new();
        if let HeaderFor::GameServer(pseudo) = &self.shared.header_for {
            // The status is asked for like this. The server sees the very address that a header would tell it, and some
            // read that backwards: then they answer one request in some seconds.
            if player.ip().to_canonical() == Ipv4Addr::LOCALHOST && target.ip().to_canonical().is_loopback() {
                return out;
            }
            player.set_ip(ipv4_of(player.ip(), pseudo).into());
            if destination.is_ipv6() {
                destination = if target.is_ipv4() { target } else { SocketAddr::from(([127, 0, 0, 1], target.port())) };
            }
        }
        match self.shared.send_proxy {
            SendProxy::V2 => proxy_header::write_v2(&mut out, player, destination),
            SendProxy::V2Reversed => {
                if let IpAddr::V4(address) = player.ip() {
                    player.set_ip(backwards(address).into());
                }
                proxy_header::write_v2(&mut out, player, destination);
            }
            SendProxy::V1 => proxy_header::write_v1(&mut out, player, destination),
            SendProxy::None => {}
        }
        out
    }
}

/// The log guard of one connection: it counts and logs the end, in whatever way it comes.
#[derive(Debug)]
pub struct ConnectionLogGuard<'a> {
    forward: &'a Forward,
    player: SocketAddr,
    /// The key by which what the player does is counted.
    key: AddressKey,
    /// The edge, if it came through the tunnel.
    tunnel: Option<Arc<AuthenticatedEdge>>,
    /// The target that was reached or last tried. Through the tunnel that is a listener of the core, and no address.
    target: Option<String>,
    /// The time until the target was connected.
    connected: Option<Duration>,
    /// Targets that could not be reached before it.
    retries: usize,
    connect: ConnectResult,
    carried: Option<CarriedGuard>,
    started: Instant,
    /// The handle that counts its bytes.
    handle: Arc<ConnectionHandle>,
    reason: Option<CloseReason>,
}

impl<'a> ConnectionLogGuard<'a> {
    fn new(forward: &'a Forward, admitted: &AdmittedConnection) -> Self {
        forward.inbound.metrics().active.inc();
        Self {
            forward,
            player: admitted.player,
            key: admitted.key,
            tunnel: admitted.origin.as_ref().map(|origin| Arc::clone(&origin.edge)),
            target: None,
            connected: None,
            retries: 0,
            connect: ConnectResult::Ok,
            carried: None,
            started: admitted.accepted,
            handle: Arc::clone(admitted.guard.handle()),
            reason: None,
        }
    }

    /// Sets the player, and the key by which is counted what the player does.
    pub fn set_player(&mut self, player: SocketAddr, key: AddressKey) {
        (self.player, self.key) = (player, key);
    }

    /// Counts bytes that were read before the target was connected.
    fn early(&self, bytes: &[u8]) {
        self.handle.add_in(bytes.len() as u64);
        self.forward.inbound.metrics().bytes_in.inc_by(bytes.len() as u64);
    }

    /// Records that the target was connected after this time.
    pub fn reached(&mut self, target: String, retries: usize, after: Duration) {
        self.handle.set_route(Route::Target(target.as_str().into()));
        (self.target, self.retries, self.connected) = (Some(target), retries, Some(after));
        self.carried = Some(self.forward.inbound.carried_guard());
    }

    /// Records that no target could be reached.
    pub fn missed(&mut self, ConnectFailure { name, retries, result }: ConnectFailure) {
        (self.target, self.retries, self.connect) = (name, retries, result);
    }

    /// Records the reason of the end.
    pub fn end(mut self, reason: CloseReason) {
        self.reason = Some(reason);
    }

    /// Returns its entry of the access log.
    fn entry(&self, reason: CloseReason) -> AccessLogEntry {
        let inbound = &self.forward.inbound;
        let forwarded = Forwarded {
            target: self.target.clone(),
            connected: self.connected,
            retries: self.retries,
            connect: self.connect,
            reason,
        };
        AccessLogEntry {
            edge: self.handle.edge().map(ToString::to_string),
            bytes_in: self.handle.bytes_in(),
            bytes_out: self.handle.bytes_out(),
            open: inbound.open_counts(),
            ..AccessLogEntry::new(&inbound.config().name, self.player, self.started, Ended::Forwarded(forwarded))
        }
    }
}

impl Drop for ConnectionLogGuard<'_> {
    fn drop(&mut self) {
        let reason = self.reason.unwrap_or_else(|| unfinished(&self.handle, self.tunnel.as_deref()));
        let inbound = &self.forward.inbound;
        inbound.metrics().active.dec();
        inbound.count_closed(reason, &self.handle, self.key);
        // The entry counts the other connections with a target, so this one is counted off first.
        self.carried = None;
        inbound.access_log(|| self.entry(reason));
        let Some(suppressed) = self.forward.shared.logs.ended.allow(Instant::now()) else { return };
        info!(
            listener = inbound.config().name,
            player = %self.player,
            edge = self.handle.edge().map(|edge| &**edge),
            target = self.target,
            seconds = self.started.elapsed().as_secs_f64(),
            bytes_in = self.handle.bytes_in(),
            bytes_out = self.handle.bytes_out(),
            %reason,
            suppressed = (suppressed > 0).then_some(suppressed),
            "connection ended",
        );
    }
}

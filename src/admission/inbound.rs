//! From an accepted connection to a known player: trust, limits, the PROXY header.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::TcpStream;
use tracing::warn;

use super::{
    AccessList, AdaptiveTimeout, AddressKey, AdmissionControl, AdmissionGuard, HostKey, ListenerAdmission,
    ListenerMetrics, PRESSURE_IDLE, ProcessAdmission, REFUSED_LINES, Reporter, TunnelOrigin, TunnelledStream,
};
use crate::access_log::{AccessLog, AccessLogEntry, Ended, OpenCounts};
use crate::connection::{AdmissionError, CloseReason, ConnectionHandle, EdgeRegistry};
use crate::metrics::Metrics;
use otproxy_config as config;
use otproxy_config::{AcceptProxy, ProtocolSniffer};
use otproxy_net::worker::Scratch;
use otproxy_net::{CloseQueue, RateLimitedLog, Stream};
use otproxy_protocol::proxy_header::{self, ProxyHeader};
use otproxy_protocol::sniff::{MAX_FIRST, Sniffed};

/// Bytes that the first read of a connection takes at once: a PROXY header, and the data that an eager client sends
/// after it.
const FIRST_READ: usize = 1024;

/// The part of a listener that all workers share, from one reload to the next. A connection keeps the configuration
/// that it began with.
#[derive(Debug)]
pub struct InboundShared {
    /// The configuration without its lists, which admission has: a long list must not live as long as the last
    /// connection.
    config: config::InboundConfig,
    state: Arc<ListenerState>,
}

/// The part of a listener that stays over reloads.
#[derive(Debug)]
struct ListenerState {
    admission: ListenerAdmission,
    log: RateLimitedLog,
    access_log: Option<AccessLog>,
    /// Connections that have their target now, over all workers: the access log tells it.
    carried: AtomicUsize,
}

/// Takes the lists out of the configuration: they are replaced as a whole, and may be long.
fn access_of(config: &mut config::InboundConfig) -> Arc<AccessList> {
    Arc::new(AccessList { deny: std::mem::take(&mut config.deny), allow: config.allow.take() })
}

impl InboundShared {
    /// Makes it from the listener's configuration; `process` is shared by all listeners, and `access_log`, if any, gets
    /// an entry for each connection.
    pub fn new(
        mut config: config::InboundConfig,
        process: Arc<ProcessAdmission>,
        access_log: Option<AccessLog>,
    ) -> Arc<Self> {
        let gate = AdmissionControl::new((&config.limits).into(), access_of(&mut config));
        let admission = ListenerAdmission::new(&config.name, gate, process);
        let (log, carried) = (RateLimitedLog::new(REFUSED_LINES), AtomicUsize::new(0));
        Arc::new(Self { config, state: Arc::new(ListenerState { admission, log, access_log, carried }) })
    }

    /// Returns the same listener with a new `config`: counts stay, and its limits and lists hold at once.
    #[must_use]
    pub fn reloaded(self: &Arc<Self>, mut config: config::InboundConfig) -> Arc<Self> {
        self.state.admission.set((&config.limits).into(), access_of(&mut config));
        if config == self.config { Arc::clone(self) } else { Arc::new(Self { config, state: Arc::clone(&self.state) }) }
    }

    /// Returns the listener's configuration.
    pub fn config(&self) -> &config::InboundConfig {
        &self.config
    }

    /// Returns the number of open connections.
    pub fn connections(&self) -> usize {
        self.state.admission.open_counts().1
    }

    /// Shows from now on in `metrics`, which are no worker's, which share of its connections is taken.
    pub fn set_gauge(&self, metrics: &Metrics) {
        self.state.admission.set_gauge(metrics.pressure_ratio.with_label_values(&[&*self.config.name]));
    }
}

/// One worker's part of a listener: it admits connections.
#[derive(Debug, Clone)]
pub struct Inbound {
    shared: Arc<InboundShared>,
    metrics: ListenerMetrics,
    scratch: Rc<Scratch>,
}

/// A connection whose player is known and which is within the limits.
#[derive(Debug)]
pub struct AdmittedConnection {
    /// The connection.
    pub stream: Stream,
    /// The peer: an edge, or the player.
    pub peer: SocketAddr,
    /// The player, as the PROXY header says or else the peer.
    pub player: SocketAddr,
    /// The key by which all that it does is counted.
    pub key: AddressKey,
    /// The address that the player connected to.
    pub destination: SocketAddr,
    /// Bytes that were read after the PROXY header, or for the listener's `expect`.
    pub early: Vec<u8>,
    /// Counts the connection while it lives.
    pub guard: AdmissionGuard,
    /// The edge whose stream of the tunnel it is, if it is one.
    pub origin: Option<TunnelOrigin>,
    /// The time of its accept.
    pub accepted: Instant,
}

impl AdmittedConnection {
    /// Returns its peer for the logs.
    pub fn peer_info(&self) -> PeerInfo<'_> {
        PeerInfo {
            address: self.player,
            reporter: self.key.reporter,
            edge: self.guard.handle().edge(),
            accepted: self.accepted,
        }
    }
}

/// A peer for the logs.
#[derive(Debug, Clone, Copy)]
pub struct PeerInfo<'a> {
    /// The player, or the peer if no player is known.
    pub address: SocketAddr,
    /// The one on whose word that rests.
    pub reporter: Reporter,
    /// The edge that it came through, if known.
    pub edge: Option<&'a Arc<str>>,
    /// The time of its accept.
    pub accepted: Instant,
}

impl PeerInfo<'_> {
    /// Returns the key by which all that it does is counted.
    fn key(&self) -> AddressKey {
        AddressKey::reported(self.reporter, self.address.ip())
    }
}

/// The guard that counts a connection with a target.
#[derive(Debug)]
pub struct CarriedGuard(Arc<ListenerState>);

impl Drop for CarriedGuard {
    fn drop(&mut self) {
        self.0.carried.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Inbound {
    /// Makes one worker's part; `scratch` is the worker's read buffer.
    pub fn new(shared: Arc<InboundShared>, metrics: ListenerMetrics, scratch: Rc<Scratch>) -> Self {
        Self { shared, metrics, scratch }
    }

    /// Returns the listener's configuration.
    pub fn config(&self) -> &config::InboundConfig {
        &self.shared.config
    }

    /// Returns the part that all workers share.
    pub fn shared(&self) -> &Arc<InboundShared> {
        &self.shared
    }

    /// Returns the worker's read buffer.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Returns the listener's counters on this worker.
    pub fn metrics(&self) -> &ListenerMetrics {
        &self.metrics
    }

    /// Returns the time limit of an unauthenticated peer, of up to `limit`.
    pub fn timeout(&self, limit: Duration) -> AdaptiveTimeout<'_> {
        AdaptiveTimeout::new(&self.shared.state.admission, limit, Duration::ZERO)
    }

    /// Returns the time limit of an idle connection.
    pub fn idle_timeout(&self) -> AdaptiveTimeout<'_> {
        AdaptiveTimeout::new(&self.shared.state.admission, self.config().timeouts.idle, PRESSURE_IDLE)
    }

    /// Admits a connection, or counts and logs its refusal, once it has its turn in `closes`.
    pub async fn admit(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        closes: &Rc<CloseQueue>,
    ) -> Option<AdmittedConnection> {
        let (peer, accepted) = (proxy_header::unmap_socket(peer), Instant::now());
        let edge = self.shared.state.admission.edges().at(peer.ip());
        let mut who = PeerInfo { address: peer, reporter: Reporter::Socket, edge: edge.as_ref(), accepted };
        self.metrics.accepted.inc();
        // This comes first, so that a refused connection costs next to nothing.
        let (guard, expected) = match self.enter(peer, accepted) {
            Ok(entered) => entered,
            Err(reason) => {
                if self.config().limits.reset {
                    // A socket that is gone already needs no reset.
                    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                }
                self.count_refused(reason, who, false);
                return None;
            }
        };
        let Ok(stream) = Stream::new(stream) else {
            self.count_refused(AdmissionError::Closed, who, true);
            return None;
        };
        let mut early = Vec::new();
        let handle = Arc::clone(guard.handle());
        edge.iter().for_each(|edge| handle.set_edge(Arc::clone(edge)));
        let opening = async {
            let destination = self.identify(&stream, &mut who, expected, &guard, &mut early).await?;
            self.first_bytes(&stream, &mut early).await.map(|()| destination)
        };
        match handle.run_until_closed(opening).await.unwrap_or_else(|closing| Err(closing.into())) {
            Ok(destination) => {
                let (player, key) = (who.address, who.key());
                let origin = None;
                Some(AdmittedConnection { stream, peer, player, key, destination, early, guard, origin, accepted })
            }
            Err(reason) => {
                closes.turn().await;
                self.refuse(&stream, reason, who);
                None
            }
        }
    }

    /// Admits a connection that the process before had admitted, with the player that its peer had told then. Or counts and
    /// logs its refusal: the configuration may be another one.
    pub fn admit_again(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        told: Option<SocketAddr>,
    ) -> Option<AdmittedConnection> {
        let accepted = Instant::now();
        let edge = self.shared.state.admission.edges().at(peer.ip());
        let (player, reporter) = match told {
            Some(player) => (player, Reporter::Peer(HostKey::from(peer.ip()))),
            None => (peer, Reporter::Socket),
        };
        let who = PeerInfo { address: player, reporter, edge: edge.as_ref(), accepted };
        self.metrics.accepted.inc();
        let admitting = || {
            let (guard, expected) = self.enter(peer, accepted)?;
            if expected != AcceptProxy::None {
                self.shared.state.admission.admit_player(&guard, (player, reporter), accepted)?;
            }
            let stream = Stream::new(stream).map_err(|_| AdmissionError::Closed)?;
            let destination = stream.local_addr().map_err(|_| AdmissionError::Closed)?;
            Ok((guard, stream, proxy_header::unmap_socket(destination)))
        };
        let admitted: Result<_, AdmissionError> = admitting();
        let (guard, stream, destination) =
            admitted.inspect_err(|reason| self.count_refused(*reason, who, false)).ok()?;
        edge.iter().for_each(|edge| guard.handle().set_edge(Arc::clone(edge)));
        let key = who.key();
        Some(AdmittedConnection {
            stream,
            peer,
            player,
            key,
            destination,
            early: Vec::new(),
            guard,
            origin: None,
            accepted,
        })
    }

    /// Refuses a connection, which the caller then drops. It still counts as open.
    pub fn refuse(&self, stream: &Stream, reason: AdmissionError, who: PeerInfo<'_>) {
        if self.config().limits.reset {
            stream.reset_at_close();
        }
        self.count_refused(reason, who, true);
    }

    /// Admits a stream of the tunnel, whose sender is authenticated. Or counts and logs its refusal.
    pub async fn admit_tunnelled(&self, tunnelled: TunnelledStream) -> Option<AdmittedConnection> {
        self.metrics.accepted.inc();
        let accepted = Instant::now();
        let TunnelledStream { stream, player, destination, origin } = tunnelled;
        let mut early = Vec::new();
        let (reporter, edge) = (origin.edge.reporter(), Some(origin.edge.name()));
        let who = PeerInfo { address: player, reporter, edge, accepted };
        let guard = match self.shared.state.admission.admit_reported(player, reporter, accepted) {
            Ok(guard) => guard,
            Err(reason) => {
                self.count_refused(reason, who, false);
                return None;
            }
        };
        guard.handle().set_edge(Arc::clone(origin.edge.name()));
        let opening = guard.handle().run_until_closed(self.first_bytes(&stream, &mut early)).await;
        if let Err(reason) = opening.unwrap_or_else(|closing| Err(closing.into())) {
            self.refuse(&stream, reason, who);
            return None;
        }
        Some(AdmittedConnection {
            stream,
            peer: player,
            player,
            key: AddressKey::reported(reporter, player.ip()),
            destination,
            early,
            guard,
            origin: Some(origin),
            accepted,
        })
    }

    /// Counts a refused connection, and logs it up to the log's limit. A peer that just closed, as health checks do, is
    /// no news.
    fn count_refused(&self, reason: AdmissionError, who: PeerInfo<'_>, counts: bool) {
        if reason.breaks_rule() {
            self.count_violation(who);
        }
        self.metrics.rejected(reason);
        self.access_log(|| AccessLogEntry {
            edge: who.edge.map(ToString::to_string),
            open: if counts { self.open_counts() } else { self.open_counts().and_one() },
            ..AccessLogEntry::new(&self.config().name, who.address, who.accepted, Ended::Rejected(reason))
        });
        if reason != AdmissionError::Closed
            && let Some(suppressed) = self.shared.state.log.allow(Instant::now())
        {
            let (listener, peer, edge) = (&self.config().name, who.address.ip(), who.edge.map(|edge| &**edge));
            warn!(listener, %peer, edge, %reason, suppressed, "connection refused");
        }
    }

    /// Counts an admitted connection that has ended, whose deeds count by `key`.
    pub fn count_closed(&self, reason: CloseReason, handle: &ConnectionHandle, key: AddressKey) {
        if reason.breaks_rule() {
            let (address, reporter, edge) = (handle.player_or_peer(), key.reporter, handle.edge());
            self.count_violation(PeerInfo { address, reporter, edge, accepted: handle.began() });
        }
        self.metrics.closed(reason);
    }

    fn count_violation(&self, who: PeerInfo<'_>) {
        let name = match who.reporter {
            Reporter::Socket => None,
            Reporter::Edge(_) => who.edge.cloned(),
            Reporter::Peer(peer) => who.edge.cloned().or_else(|| Some(peer.network().addr().to_string().into())),
        };
        let bans = self.shared.state.admission.bans();
        bans.count_reported((who.reporter, name), who.address.ip(), Instant::now());
    }

    /// Writes an entry to the access log, if there is one.
    pub fn access_log(&self, entry: impl FnOnce() -> AccessLogEntry) {
        if let Some(log) = &self.shared.state.access_log {
            log.write(entry());
        }
    }

    /// Returns the numbers of open connections. Others may begin and end at the same time: the counts are of this
    /// moment.
    pub fn open_counts(&self) -> OpenCounts {
        let (process, listener) = self.shared.state.admission.open_counts();
        OpenCounts { process, listener, carried: self.shared.state.carried.load(Ordering::Relaxed) }
    }

    /// Counts a connection that has its target, until the guard is dropped.
    pub fn carried_guard(&self) -> CarriedGuard {
        self.shared.state.carried.fetch_add(1, Ordering::Relaxed);
        CarriedGuard(Arc::clone(&self.shared.state))
    }

    /// Decides everything that needs no read; returns the header to be expected too. Without one, the peer is the
    /// player.
    fn enter(&self, peer: SocketAddr, now: Instant) -> Result<(AdmissionGuard, AcceptProxy), AdmissionError> {
        self.shared.state.admission.check_peer(peer.ip(), now)?;
        let expected = self.header_from(peer.ip())?;
        let guard = match expected {
            // The player is known once the proxy for web sites has told it.
            AcceptProxy::None if self.tells_players(peer.ip()) => self.shared.state.admission.admit_peer(peer)?,
            AcceptProxy::None => self.shared.state.admission.admit(peer, now)?,
            AcceptProxy::Optional | AcceptProxy::Required => self.shared.state.admission.admit_peer(peer)?,
        };
        Ok((guard, expected))
    }

    /// Returns whether a peer is a proxy for web sites, whose word for a player's address is believed.
    pub fn tells_players(&self, peer: IpAddr) -> bool {
        self.config().real_ip.as_ref().is_some_and(|real_ip| real_ip.believes(peer))
    }

    /// Admits the player of a connection whose peer [tells players](Inbound::tells_players), or counts and logs the refusal. Without
    /// a word of the peer's it is the player. Returns the player, and the key by which all that it does is counted.
    ///
    /// # Errors
    /// Returns the ban, the list or the limit that refuses it.
    pub fn admit_told(
        &self,
        guard: &AdmissionGuard,
        (peer, accepted): (SocketAddr, Instant),
        told: Option<SocketAddr>,
    ) -> Result<(SocketAddr, AddressKey), AdmissionError> {
        let (address, reporter) = match told {
            Some(player) => (player, Reporter::Peer(HostKey::from(peer.ip()))),
            None => (peer, Reporter::Socket),
        };
        let who = PeerInfo { address, reporter, edge: None, accepted };
        self.shared.state.admission.admit_player(guard, (address, reporter), Instant::now()).inspect_err(|reason| {
            self.count_refused(*reason, who, true);
        })?;
        Ok((address, who.key()))
    }

    /// Returns the edges that the core knows; an edge itself knows none.
    pub fn edges(&self) -> &EdgeRegistry {
        self.shared.state.admission.edges()
    }

    /// Returns the header that `peer` must send.
    fn header_from(&self, peer: IpAddr) -> Result<AcceptProxy, AdmissionError> {
        let config = self.config();
        let trusted = || config.trusted_peers.iter().any(|net| net.contains(&peer));
        match config.accept_proxy {
            AcceptProxy::None => Ok(AcceptProxy::None),
            AcceptProxy::Required if !trusted() => Err(AdmissionError::Untrusted),
            AcceptProxy::Optional if !trusted() => Ok(AcceptProxy::None),
            other => Ok(other),
        }
    }

    /// Finds out who the player is, which is the peer until then, and returns the address that it connected to. Reads the
    /// header if one is expected.
    async fn identify(
        &self,
        stream: &Stream,
        who: &mut PeerInfo<'_>,
        expected: AcceptProxy,
        guard: &AdmissionGuard,
        early: &mut Vec<u8>,
    ) -> Result<SocketAddr, AdmissionError> {
        let mut header = None;
        if expected != AcceptProxy::None {
            let reading = read_header(stream, early, expected, &self.scratch);
            header = match self.timeout(self.config().timeouts.header).within(reading).await {
                Some(result) => result?,
                // A peer that may leave the header out, and waits for the server to speak.
                None if expected == AcceptProxy::Optional && early.is_empty() => None,
                None => return Err(AdmissionError::HeaderTimeout),
            };
        }
        let header = header.unwrap_or(ProxyHeader { source: None, destination: None });
        if let Some(player) = header.source {
            who.reporter = Reporter::Peer(HostKey::from(who.address.ip()));
            who.address = player;
        }
        if expected != AcceptProxy::None {
            self.shared.state.admission.admit_player(guard, (who.address, who.reporter), Instant::now())?;
        }
        let destination = match header.destination {
            Some(destination) => destination,
            None => proxy_header::unmap_socket(stream.local_addr().map_err(|_| AdmissionError::Closed)?),
        };
        Ok(destination)
    }

    /// Waits until the connection has begun as the listener expects; the bytes stay in `early`.
    async fn first_bytes(&self, stream: &Stream, early: &mut Vec<u8>) -> Result<(), AdmissionError> {
        let config = self.config();
        // Not even a look at the socket: the server may be the one to speak first.
        if config.expect == ProtocolSniffer::Any {
            return Ok(());
        }
        let reading = read_expected(stream, early, config.expect, &self.scratch);
        self.timeout(config.timeouts.first_bytes).within(reading).await.unwrap_or(Err(AdmissionError::Silent))
    }
}

/// Reads until `early` has the expected beginning.
async fn read_expected(
    stream: &Stream,
    early: &mut Vec<u8>,
    expect: ProtocolSniffer,
    scratch: &Scratch,
) -> Result<(), AdmissionError> {
    loop {
        // An incomplete beginning is short, as `sniff` decides on every length.
        match expect.sniff(early) {
            Sniffed::Right => return Ok(()),
            Sniffed::Wrong => return Err(AdmissionError::Unexpected),
            Sniffed::Incomplete => {}
        }
        match stream.read_onto(early, MAX_FIRST, scratch).await {
            Ok(0) | Err(_) => return Err(AdmissionError::Closed),
            Ok(_) => {}
        }
    }
}

/// Reads until the header is whole; leaves the bytes after it in `early`.
async fn read_header(
    stream: &Stream,
    early: &mut Vec<u8>,
    expected: AcceptProxy,
    scratch: &Scratch,
) -> Result<Option<ProxyHeader>, AdmissionError> {
    loop {
        if expected == AcceptProxy::Optional && !early.is_empty() && !proxy_header::may_be_header(early) {
            return Ok(None);
        }
        if !early.is_empty() {
            match proxy_header::parse(early) {
                Ok(Some((header, len))) => {
                    early.drain(..len);
                    return Ok(Some(header));
                }
                Ok(None) => {}
                Err(_) => return Err(AdmissionError::BadHeader),
            }
        }
        // `parse` decides on every length, so an incomplete header is short.
        match stream.read_onto(early, FIRST_READ, scratch).await {
            Ok(0) if early.is_empty() => return Err(AdmissionError::Closed),
            Ok(0) => return Err(AdmissionError::BadHeader),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Err(AdmissionError::Closed),
            Err(_) => return Err(AdmissionError::Closed),
        }
    }
}

#[cfg(test)]
mod tests;

//! From an accepted connection to a known player: trust, limits, the PROXY header.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::warn;

use super::worker::Scratch;
use super::{Stream, Tunnelled, Via};
use crate::config::{self, AcceptProxy};
use crate::limits::{AddressKey, ConnectionGuard, ConnectionLimit, REFUSED_LINES, RateLimitedLog};
use crate::metrics::ListenerMetrics;
use crate::reason::RejectReason;
use crate::wire::proxy_header::{self, ProxyHeader};

/// What the first read of a connection takes at once: a PROXY header, and what an eager client
/// sends behind it.
const FIRST_READ: usize = 1024;

/// What all workers share of one listener.
#[derive(Debug)]
pub struct InboundShared {
    config: config::Inbound,
    limit: Arc<ConnectionLimit>,
    log: RateLimitedLog,
}

impl InboundShared {
    /// From the listener's configuration.
    pub fn new(config: config::Inbound) -> Arc<Self> {
        let limit = ConnectionLimit::new(config.max_connections, config.max_connections_per_address);
        Arc::new(Self { config, limit, log: RateLimitedLog::new(REFUSED_LINES) })
    }

    /// The listener's configuration.
    pub fn config(&self) -> &config::Inbound {
        &self.config
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
pub struct Admitted {
    /// The connection.
    pub stream: Stream,
    /// Who connected: an edge, or the player.
    pub peer: SocketAddr,
    /// The player, as the PROXY header says or else the peer.
    pub player: SocketAddr,
    /// Where the player connected to.
    pub destination: SocketAddr,
    /// What was read behind the PROXY header.
    pub early: Vec<u8>,
    /// Counts the connection while it lives.
    pub guard: ConnectionGuard,
    /// The edge whose stream of the tunnel it is, if it is one.
    pub via: Option<Via>,
}

impl Inbound {
    /// One worker's part; `scratch` is the worker's read buffer.
    pub fn new(shared: Arc<InboundShared>, metrics: ListenerMetrics, scratch: Rc<Scratch>) -> Self {
        Self { shared, metrics, scratch }
    }

    /// The listener's configuration.
    pub fn config(&self) -> &config::Inbound {
        &self.shared.config
    }

    /// The worker's read buffer.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The listener's counters on this worker.
    pub fn metrics(&self) -> &ListenerMetrics {
        &self.metrics
    }

    /// Admits a connection, or counts and logs why not.
    pub async fn admit(&self, stream: TcpStream, peer: SocketAddr) -> Option<Admitted> {
        let peer = proxy_header::unmap_socket(peer);
        self.metrics.accepted.inc();
        match self.try_admit(stream, peer).await {
            Ok(admitted) => Some(admitted),
            Err(reason) => {
                self.reject(reason, peer.ip());
                None
            }
        }
    }

    /// Admits a stream that came through the tunnel: who sent it has proved himself. Or counts and logs why not.
    pub fn admit_tunnelled(&self, tunnelled: Tunnelled) -> Option<Admitted> {
        self.metrics.accepted.inc();
        let Tunnelled { stream, player, destination, early, via } = tunnelled;
        let guard = self.shared.limit.try_acquire(AddressKey::from(player.ip())).map_err(RejectReason::from);
        let admitted = guard.and_then(|guard| {
            let stream = stream.attach().map_err(|_| RejectReason::Closed)?;
            Ok(Admitted { stream, peer: player, player, destination, early, guard, via: Some(via) })
        });
        admitted.map_err(|reason| self.reject(reason, player.ip())).ok()
    }

    /// Counts a refused connection, and logs it as far as the log's limit goes. A peer that just
    /// closed, as health checks do, is no news.
    pub fn reject(&self, reason: RejectReason, who: IpAddr) {
        self.metrics.rejected(reason);
        if reason != RejectReason::Closed
            && let Some(suppressed) = self.shared.log.allow(Instant::now())
        {
            warn!(listener = self.config().name, peer = %who, %reason, suppressed, "connection refused");
        }
    }

    async fn try_admit(&self, stream: TcpStream, peer: SocketAddr) -> Result<Admitted, RejectReason> {
        let config = self.config();
        let mut guard = self.shared.limit.try_accept()?;
        let trusted = config.trusted_peers.iter().any(|net| net.contains(&peer.ip()));
        let expected = match config.accept_proxy {
            AcceptProxy::Required if !trusted => return Err(RejectReason::Untrusted),
            AcceptProxy::Optional if !trusted => AcceptProxy::None,
            other => other,
        };
        let stream = Stream::new(stream).map_err(|_| RejectReason::Closed)?;
        let mut early = Vec::new();
        let mut header = None;
        if expected != AcceptProxy::None {
            let read = timeout(config.header_timeout, read_header(&stream, &mut early, expected, &self.scratch)).await;
            header = match read {
                Ok(result) => result?,
                // A peer that may leave the header out, and waits for the server to speak.
                Err(_) if expected == AcceptProxy::Optional && early.is_empty() => None,
                Err(_) => return Err(RejectReason::HeaderTimeout),
            };
        }
        let header = header.unwrap_or(ProxyHeader { source: None, destination: None });
        let player = header.source.unwrap_or(peer);
        let destination = match header.destination {
            Some(destination) => destination,
            None => proxy_header::unmap_socket(stream.local_addr().map_err(|_| RejectReason::Closed)?),
        };
        guard.try_claim(AddressKey::from(player.ip()))?;
        Ok(Admitted { stream, peer, player, destination, early, guard, via: None })
    }
}

/// Reads until the header is whole; leaves in `early` what came behind it.
async fn read_header(
    stream: &Stream,
    early: &mut Vec<u8>,
    expected: AcceptProxy,
    scratch: &Scratch,
) -> Result<Option<ProxyHeader>, RejectReason> {
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
                Err(_) => return Err(RejectReason::BadHeader),
            }
        }
        // `parse` has a last word on every length: what it still calls incomplete is short.
        match stream.read_onto(early, FIRST_READ, scratch).await {
            Ok(0) if early.is_empty() => return Err(RejectReason::Closed),
            Ok(0) => return Err(RejectReason::BadHeader),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Err(RejectReason::Closed),
            Err(_) => return Err(RejectReason::Closed),
        }
    }
}

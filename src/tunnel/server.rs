//! The core's end of tunnels.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::acceptor::accept;
use super::handshake::{DialFailure, DialTarget, Handshakes};
use super::maintainer::{SpareMaintainer, SpareSlot};
use super::metrics::TunnelMetrics;
use super::refusal::TunnelError;
use super::{REREAD, SILENCE};
use crate::admission::{AuthenticatedEdge, TunnelOrigin, TunnelledStream};
use crate::certs::HandshakeResult;
use crate::certs::watch::IdentityWatch;
use crate::connection::{EdgeCertificate, EdgePresence, EdgeRegistry};
use crate::metrics::{GaugeGuard, Metrics};
use otproxy_config::{CoreTunnel, EdgePeer, HostPort};
use otproxy_net::worker::{Scratch, Tasks};
use otproxy_net::{ConnectResult, OutageLog, Stream};
use otproxy_protocol::proxy_header::{self, LOCAL};

/// Bytes that are read at once from a connection that is not in use yet.
const READ: usize = 1024;
/// The time over which taken connections are counted: an edge gets as many ready ones beyond `tunnel.spare`.
pub const RECENT: Duration = Duration::from_secs(2);
/// The most connections that are kept ready for one edge.
pub const MOST_READY: usize = 256;

/// The edges and listeners that the core's end knows, until a reload changes them.
#[derive(Debug)]
pub struct TunnelPeers {
    /// The edges of the configuration.
    pub edges: Vec<EdgePeer>,
    /// The listeners that streams may lead to, by name.
    pub listeners: HashSet<String>,
}

/// The streams for one worker, each with the name of its listener.
pub type TunnelStreams = mpsc::UnboundedReceiver<(String, TunnelledStream)>;

/// The core's end, which accepts the streams of edges and gives them to workers.
pub struct TunnelServer {
    handshakes: Handshakes,
    spare: usize,
    edges: RefCell<HashMap<String, Rc<Edge>>>,
    /// The edges of the configuration, and what is known of them.
    registry: Arc<EdgeRegistry>,
    /// Edges of the configuration that are no longer trusted.
    revoked: RefCell<HashSet<String>>,
    listeners: RefCell<HashSet<String>>,
    /// Unbounded channels, as each queued stream is an open connection of an edge.
    workers: Vec<mpsc::UnboundedSender<(String, TunnelledStream)>>,
    next_worker: Cell<usize>,
    metrics: Arc<Metrics>,
    scratch: Rc<Scratch>,
    tasks: Tasks,
}

/// A trusted edge.
struct Edge {
    proven: Arc<AuthenticatedEdge>,
    dial: Option<HostPort>,
    /// The only addresses that it may connect from; none for all.
    addresses: Vec<IpNet>,
    metrics: TunnelMetrics,
    /// Notifies the maintainer of connections to this edge to look again.
    changed: Arc<Notify>,
    demand: RefCell<Demand>,
    /// The limits of the lines about connections that cannot be made, and about streams that are refused.
    outage: OutageLog<DialFailure>,
    refusals: OutageLog<TunnelError>,
    /// Cancelled when the way of dialling it changes.
    replaced: CancellationToken,
}

impl TunnelServer {
    /// Accepts on `sockets`, dials edges, and gives streams to the `workers` in turn, each of which can carry any of
    /// them. `certificates` and `known` may change. Runs forever, on the runtime that it is called in.
    pub async fn run(
        config: CoreTunnel,
        mut certificates: watch::Receiver<IdentityWatch>,
        (mut known, registry): (watch::Receiver<TunnelPeers>, Arc<EdgeRegistry>),
        workers: Vec<mpsc::UnboundedSender<(String, TunnelledStream)>>,
        sockets: Vec<TcpListener>,
        metrics: Arc<Metrics>,
        (scratch, tasks): (Rc<Scratch>, Tasks),
    ) {
        let end = Rc::new(Self {
            handshakes: Handshakes::new(certificates.borrow_and_update().clone(), Arc::clone(&metrics), true),
            spare: config.spare,
            edges: RefCell::default(),
            registry,
            revoked: RefCell::default(),
            listeners: RefCell::default(),
            workers,
            next_worker: Cell::new(0),
            metrics: Arc::clone(&metrics),
            scratch,
            tasks,
        });
        end.go_by(&known.borrow_and_update());
        let accepting = Rc::clone(&end);
        accept(sockets, &metrics, &end.tasks, move |stream, peer| Rc::clone(&accepting).take(stream, peer));
        let mut ticks = interval(REREAD);
        loop {
            tokio::select! {
                _ = ticks.tick() => end.handshakes.reread(),
                Ok(()) = known.changed() => end.go_by(&known.borrow_and_update()),
                Ok(()) = certificates.changed() => end.handshakes.replace(certificates.borrow_and_update().clone()),
            }
        }
    }

    fn go_by(self: &Rc<Self>, known: &TunnelPeers) {
        self.listeners.borrow_mut().clone_from(&known.listeners);
        self.trust(&known.edges);
    }

    /// Trusts exactly these edges from now on.
    fn trust(self: &Rc<Self>, trusted: &[EdgePeer]) {
        *self.revoked.borrow_mut() = trusted.iter().filter(|edge| edge.revoked).map(|edge| edge.name.clone()).collect();
        let trusted: HashMap<&str, &EdgePeer> =
            trusted.iter().filter(|edge| !edge.revoked).map(|edge| (edge.name.as_str(), edge)).collect();
        self.edges.borrow_mut().retain(|name, edge| {
            let stays = trusted.contains_key(name.as_str());
            if !stays {
                info!(edge = name, "trusted no more: its connections are closed");
                edge.replaced.cancel();
                edge.proven.revoke();
                TunnelMetrics::forget(&self.metrics, name);
            }
            stays
        });
        for peer in trusted.into_values() {
            let before = self.edges.borrow().get(&peer.name).map(Rc::clone);
            if before.as_ref().is_some_and(|edge| edge.dial == peer.dial && edge.addresses == peer.addresses) {
                continue;
            }
            let proven = match &before {
                Some(edge) => {
                    edge.replaced.cancel();
                    self.still_trusted(edge, peer)
                }
                None => AuthenticatedEdge::new(&peer.name),
            };
            let edge = Rc::new(Edge {
                proven,
                dial: peer.dial.clone(),
                addresses: peer.addresses.clone(),
                metrics: TunnelMetrics::new(&self.metrics, &peer.name),
                changed: Arc::default(),
                demand: RefCell::default(),
                outage: OutageLog::new(),
                refusals: OutageLog::new(),
                replaced: CancellationToken::new(),
            });
            self.edges.borrow_mut().insert(peer.name.clone(), Rc::clone(&edge));
            if peer.dial.is_some() {
                tokio::task::spawn_local(Rc::clone(self).dial(edge));
            }
        }
    }

    /// Returns the edge with its connections if all of them come from where it may be now. Otherwise they are closed, and
    /// it begins anew.
    fn still_trusted(&self, edge: &Edge, peer: &EdgePeer) -> Arc<AuthenticatedEdge> {
        let (name, now) = (edge.proven.name(), self.registry.snapshot());
        let comes_from = now.iter().filter(|known| known.name == *name && known.since.is_some());
        let elsewhere = |address| !may_come_from(&peer.addresses, address);
        if peer.dial.is_some() || !comes_from.flat_map(|known| &known.addresses).copied().any(elsewhere) {
            return Arc::clone(&edge.proven);
        }
        info!(edge = %name, "comes from elsewhere than `address` says now: its connections are closed");
        edge.proven.revoke();
        AuthenticatedEdge::new(name)
    }

    /// Keeps connections ready at `edge`, as long as it is dialled in this way.
    async fn dial(self: Rc<Self>, edge: Rc<Edge>) {
        let wanted = || {
            let recent = edge.demand.borrow_mut().recent(Instant::now());
            self.spare.max(recent.min(MOST_READY))
        };
        let make = |slot| {
            let (end, edge) = (Rc::clone(&self), Rc::clone(&edge));
            self.tasks.spawn(async move {
                let Some(target) = &edge.dial else { return };
                let way = DialTarget { target, name: edge.proven.name(), outage: &edge.outage };
                match end.handshakes.connect(&way).await {
                    Ok((stream, address, certificate)) => {
                        let (from, edge) = ((address.ip(), certificate), Rc::clone(&edge));
                        Rc::clone(&end).carry(stream, from, edge, Some((slot, &way))).await;
                    }
                    Err(result) => {
                        edge.metrics.dialled(Some(result));
                        end.registry.failed(way.name, result.as_str(), None);
                    }
                }
            });
        };
        let keeping = SpareMaintainer::new(Arc::clone(&edge.changed)).run(wanted, make);
        edge.replaced.run_until_cancelled(keeping).await;
    }

    async fn take(self: Rc<Self>, stream: TcpStream, peer: SocketAddr) {
        let known = |name: &str| {
            let refused = match self.edges.borrow().get(name) {
                Some(edge) if may_come_from(&edge.addresses, peer.ip()) => return Ok(Rc::clone(edge)),
                Some(_) => HandshakeResult::WrongAddress,
                None if self.revoked.borrow().contains(name) => HandshakeResult::Revoked,
                None => HandshakeResult::UnknownEdge,
            };
            self.registry.failed(name, refused.as_str(), Some(peer.ip()));
            Err(refused)
        };
        if let Some((stream, edge, certificate)) = self.handshakes.accept(stream, peer, known).await {
            Rc::clone(&self).carry(stream, (peer.ip(), certificate), edge, None).await;
        }
    }

    /// Carries a connection of `edge` until it is in use, as long as the edge is trusted. If the core made it, it has a
    /// place and a way.
    async fn carry(
        self: Rc<Self>,
        stream: Stream,
        from: (IpAddr, EdgeCertificate),
        edge: Rc<Edge>,
        made: Option<(SpareSlot, &DialTarget<'_>)>,
    ) {
        let proven = Arc::clone(&edge.proven);
        proven.carry(Box::pin(self.await_begin(stream, from, &edge, made))).await;
    }

    async fn await_begin(
        &self,
        stream: Stream,
        (address, certificate): (IpAddr, EdgeCertificate),
        edge: &Edge,
        made: Option<(SpareSlot, &DialTarget<'_>)>,
    ) {
        let (mut slot, way) = made.unzip();
        let count = || -> (GaugeGuard, EdgePresence) {
            (edge.metrics.spare(), self.registry.connected(edge.proven.name(), address, certificate.clone()))
        };
        let mut spare = way.is_none().then(count);
        let heard = || {
            slot.iter_mut().for_each(SpareSlot::keep);
            if spare.is_none() {
                way.iter().for_each(|way| self.handshakes.proven(way));
                edge.metrics.dialled(None);
                spare = Some(count());
            }
        };
        let beginning = begin(&stream, &self.scratch, heard).await;
        if let (None, Some(way)) = (&spare, way) {
            self.handshakes.not_proven(way);
            self.registry.failed(way.name, HandshakeResult::Refused.as_str(), Some(address));
            return edge.metrics.dialled(Some(ConnectResult::Handshake));
        }
        let (begin, early) = match beginning {
            Ok(Some(begun)) => begun,
            Ok(None) => return,
            Err(refusal) => return self.refuse(edge, refusal),
        };
        // A stream begins with a message of the edge, which counted it as a spare.
        let Some((spare, mut presence)) = spare else { return };
        drop(spare);
        presence.take();
        if !self.listeners.borrow().contains(&begin.listener) {
            return self.refuse(edge, TunnelError::UnknownListener);
        }
        if let Some(slot) = slot {
            edge.demand.borrow_mut().take(Instant::now());
            slot.take();
        }
        let Ok(stream) = stream.detach() else { return };
        let in_use = GaugeGuard::new(edge.metrics.in_use.clone());
        let origin = TunnelOrigin { edge: Arc::clone(&edge.proven), in_use, presence };
        let StreamHeader { listener, player, destination } = begin;
        let next = self.next_worker.get();
        self.next_worker.set(next.wrapping_add(1));
        if let Some(worker) = self.workers.get(next % self.workers.len().max(1)) {
            // This fails only if the worker is gone, during a shutdown.
            let _ = worker.send((listener, TunnelledStream { stream, player, destination, early, origin }));
        }
    }

    fn refuse(&self, edge: &Edge, refusal: TunnelError) {
        edge.metrics.refused(refusal);
        self.registry.failed(edge.proven.name(), refusal.as_str(), None);
        if let Some(suppressed) = edge.refusals.failed(refusal, Instant::now()) {
            warn!(edge = %edge.proven.name(), reason = %refusal, suppressed, "stream refused");
        }
    }
}

fn may_come_from(addresses: &[IpNet], peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    addresses.is_empty() || addresses.iter().any(|network| network.contains(&peer))
}

/// The contents of a stream's header.
struct StreamHeader {
    listener: String,
    player: SocketAddr,
    destination: SocketAddr,
}

/// Answers until the stream begins; returns its header, and the bytes that were read after it. `None` if the edge has
/// ended it before. `heard` is called for each valid message of the edge.
async fn begin(
    stream: &Stream,
    scratch: &Scratch,
    mut heard: impl FnMut(),
) -> Result<Option<(StreamHeader, Vec<u8>)>, TunnelError> {
    let mut bytes = Vec::new();
    loop {
        if !bytes.is_empty()
            && let Some((header, len)) = proxy_header::parse(&bytes).map_err(|_| TunnelError::BadHeader)?
        {
            if bytes.starts_with(LOCAL) {
                heard();
                match timeout(SILENCE, stream.write_all(LOCAL)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Ok(None),
                    // The edge asks again and again, and does not read the answers.
                    Err(_) => return Err(TunnelError::Silent),
                }
                bytes.drain(..len);
                continue;
            }
            let listener = proxy_header::authority(&bytes).ok_or(TunnelError::BadHeader)?.to_owned();
            let (Some(player), Some(destination)) = (header.source, header.destination) else {
                return Err(TunnelError::BadHeader);
            };
            heard();
            bytes.drain(..len);
            return Ok(Some((StreamHeader { listener, player, destination }, bytes)));
        }
        // Spares are many, and wait long.
        if bytes.is_empty() {
            bytes = Vec::new();
        }
        match timeout(SILENCE, stream.read_onto(&mut bytes, READ, scratch)).await {
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => return Err(TunnelError::BadHeader),
            Ok(Ok(0) | Err(_)) if bytes.is_empty() => return Ok(None),
            Ok(Ok(0) | Err(_)) => return Err(TunnelError::BadHeader),
            Ok(Ok(_)) => {}
            Err(_) => return Err(TunnelError::Silent),
        }
    }
}

/// The number of connections that an edge took lately. As many are kept ready for it, so that a sudden crowd of players
/// finds twice as many each round.
#[derive(Debug, Default)]
struct Demand {
    taken: usize,
    since: Option<Instant>,
    before: usize,
}

impl Demand {
    fn take(&mut self, now: Instant) {
        self.turn(now);
        self.taken += 1;
    }

    /// Returns the number taken in the present period and the one before.
    fn recent(&mut self, now: Instant) -> usize {
        self.turn(now);
        self.taken + self.before
    }

    fn turn(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let passed = now.saturating_duration_since(since);
        if passed >= RECENT {
            self.before = if passed < 2 * RECENT { self.taken } else { 0 };
            (self.taken, self.since) = (0, Some(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use otproxy_net::worker::scratch;

    /// Returns the end of a connection on which an edge talks like this, and then does nothing.
    fn begun(talk: impl AsyncFnOnce(&mut TcpStream)) -> Result<bool, TunnelError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut edge = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let stream = Stream::new(listener.accept().await.unwrap().0).unwrap();
            let talking = async {
                talk(&mut edge).await;
                // From here on nothing arrives, and the clock jumps.
                tokio::time::pause();
                std::future::pending::<()>().await;
            };
            let scratch = scratch();
            let begun = async { begin(&stream, &scratch, || {}).await.map(|begun| begun.is_some()) };
            tokio::select! {
                begun = timeout(10 * SILENCE, begun) => begun.expect("it has an end"),
                () = talking => unreachable!(),
            }
        })
    }

    #[test]
    fn an_edge_that_says_nothing_for_long_is_gone() {
        assert_eq!(begun(async |_| {}), Err(TunnelError::Silent));
        assert_eq!(begun(async |edge| edge.write_all(LOCAL).await.unwrap()), Err(TunnelError::Silent));
        assert_eq!(begun(async |edge| edge.write_all(&LOCAL[..9]).await.unwrap()), Err(TunnelError::Silent));
        assert_eq!(begun(async |edge| edge.shutdown().await.unwrap()), Ok(false));
    }

    #[test]
    fn an_edge_that_asks_and_takes_no_answer_is_read_no_further_and_gone() {
        /// Bytes far beyond what both kernels buffer.
        const MOST: usize = 64 << 20;
        let mut sent = 0;
        let flood = LOCAL.repeat(4096);
        let refused = begun(async |edge| {
            // It writes until the core reads no further, without a limit of time: nothing more is sent only once it is
            // stuck.
            let stuck = async {
                while sent < MOST {
                    sent += edge.write(&flood[sent % LOCAL.len()..]).await.unwrap();
                }
            };
            let _ = timeout(Duration::from_secs(2), stuck).await;
        });
        assert_eq!(refused, Err(TunnelError::Silent));
        assert!(sent < MOST);
    }

    #[test]
    fn demand_is_that_of_the_last_moments() {
        let (mut demand, start) = (Demand::default(), Instant::now());
        assert_eq!(demand.recent(start), 0);
        (0..5).for_each(|_| demand.take(start));
        assert_eq!(demand.recent(start + RECENT / 2), 5);
        demand.take(start + RECENT);
        assert_eq!(demand.recent(start + RECENT), 6);
        assert_eq!(demand.recent(start + 2 * RECENT), 1);
        assert_eq!(demand.recent(start + 3 * RECENT), 0);
        (0..3).for_each(|_| demand.take(start + 3 * RECENT));
        assert_eq!(demand.recent(start + 9 * RECENT), 0, "long ago");
    }
}

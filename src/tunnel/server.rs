//! The core's end of tunnels.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use rustix::process::{Resource, getrlimit};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::acceptor::accept;
use super::core_trunks::NewCoreTrunk;
use super::greeting::{hear, hello as hello_of, say};
use super::handshake::{DialPast, DialTarget, Handshakes};
use super::maintainer::{TrunkMaintainer, TrunkSlot};
use super::metrics::TunnelMetrics;
use super::refusal::TunnelError;
use super::tether::HeldTrunks;
use super::{FILES_PER_TRUNK, LEAST_STREAMS, MAX_STREAMS, MAX_TRUNKS, REREAD, TRUNKS, trunks_wanted};
use crate::admission::AuthenticatedEdge;
use crate::certs::HandshakeResult;
use crate::certs::watch::IdentityWatch;
use crate::connection::{EdgeCertificate, EdgeRegistry};
use crate::metrics::Metrics;
use otproxy_config::{EdgePeer, HostPort, memory};
use otproxy_net::worker::{Scratch, Tasks};
use otproxy_net::{ConnectResult, OutageLog, Stream};
use otproxy_protocol::trunk::{CREDIT, CoreWorkers, Hello};

/// The edges and listeners that the core's end knows, until a reload changes them.
#[derive(Debug)]
pub struct TunnelPeers {
    /// The edges of the configuration.
    pub edges: Vec<EdgePeer>,
    /// The listeners whose streams are links, by name.
    pub links: Vec<String>,
}

/// The core's end, which makes trunks with edges and gives them to workers.
pub struct TunnelServer {
    handshakes: Handshakes,
    held: HeldTrunks,
    edges: RefCell<HashMap<String, Rc<Edge>>>,
    /// The edges of the configuration, and what is known of them.
    registry: Arc<EdgeRegistry>,
    /// Edges of the configuration that are no longer trusted.
    revoked: RefCell<HashSet<String>>,
    links: RefCell<Vec<String>>,
    /// Unbounded channels, as each queued trunk is an open connection of an edge.
    workers: Vec<mpsc::UnboundedSender<NewCoreTrunk>>,
    /// The key by which workers own clients.
    owner_key: [u8; 16],
    /// The most trunks of one edge.
    max_trunks: usize,
    max_streams: usize,
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
    /// Notifies the maintainer of trunks to this edge to look again.
    changed: Arc<Notify>,
    /// The number of its trunks on each worker.
    trunks: RefCell<Vec<usize>>,
    /// The number of its workers, as it has told.
    workers: Cell<u16>,
    past: DialPast,
    /// The limit of the lines about what is refused.
    refusals: Arc<OutageLog<TunnelError>>,
    /// Cancelled when the way of dialling it changes.
    replaced: CancellationToken,
}

impl TunnelServer {
    /// Accepts on `sockets`, dials edges, and gives trunks to the `workers`, which own clients by `owner_key`. `certificates` and
    /// `known` may change. Runs forever, on the runtime that it is called in.
    pub async fn run(
        mut certificates: watch::Receiver<IdentityWatch>,
        (mut known, registry): (watch::Receiver<TunnelPeers>, Arc<EdgeRegistry>),
        (workers, owner_key): (Vec<mpsc::UnboundedSender<NewCoreTrunk>>, [u8; 16]),
        sockets: Vec<TcpListener>,
        metrics: Arc<Metrics>,
        (scratch, tasks): (Rc<Scratch>, Tasks),
    ) {
        let end = Rc::new(Self {
            handshakes: Handshakes::new(certificates.borrow_and_update().clone(), Arc::clone(&metrics), true),
            held: HeldTrunks::default(),
            edges: RefCell::default(),
            registry,
            revoked: RefCell::default(),
            links: RefCell::default(),
            workers,
            owner_key,
            max_trunks: max_trunks(getrlimit(Resource::Nofile).maximum),
            max_streams: max_streams(memory()),
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
                _ = ticks.tick() => end.handshakes.reread(&end.held),
                Ok(()) = known.changed() => end.go_by(&known.borrow_and_update()),
                Ok(()) = certificates.changed() => end.handshakes.replace(certificates.borrow_and_update().clone(), &end.held),
            }
        }
    }

    fn go_by(self: &Rc<Self>, known: &TunnelPeers) {
        let before = self.links.replace(known.links.clone());
        if before != known.links && self.workers.len() > 1 {
            // Edges know them from the hello.
            self.held.leave(None);
        }
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
                None => AuthenticatedEdge::new(&peer.name, self.max_streams),
            };
            let edge = Rc::new(Edge {
                proven,
                dial: peer.dial.clone(),
                addresses: peer.addresses.clone(),
                metrics: TunnelMetrics::new(&self.metrics, &peer.name),
                changed: Arc::default(),
                trunks: RefCell::new(vec![0; self.workers.len()]),
                workers: Cell::new(1),
                past: DialPast::default(),
                refusals: Arc::new(OutageLog::new()),
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
        AuthenticatedEdge::new(name, self.max_streams)
    }

    /// Keeps trunks to `edge`, as long as it is dialled in this way.
    async fn dial(self: Rc<Self>, edge: Rc<Edge>) {
        let wanted = || trunks_wanted(self.workers.len(), edge.workers.get().into());
        let make = |slot| {
            let (end, edge) = (Rc::clone(&self), Rc::clone(&edge));
            self.tasks.spawn(async move {
                let Some(target) = &edge.dial else { return };
                let way = DialTarget { target, name: edge.proven.name(), past: &edge.past };
                match end.handshakes.connect(&way).await {
                    Ok((stream, address, certificate)) => {
                        end.welcome(stream, (address.ip(), certificate), &edge, Some((slot, &way))).await;
                    }
                    Err(result) => {
                        edge.metrics.dialled(Some(result));
                        end.registry.failed(way.name, result.as_str(), None);
                    }
                }
            });
        };
        let keeping = TrunkMaintainer::new(Arc::clone(&edge.changed)).run(wanted, make);
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
            self.welcome(stream, (peer.ip(), certificate), &edge, None).await;
        }
    }

    /// Exchanges hellos with `edge`, gives the trunk to a worker, and waits until that has it no more. If the core made the
    /// connection, it has a place and a way.
    async fn welcome(
        &self,
        stream: Stream,
        (address, certificate): (IpAddr, EdgeCertificate),
        edge: &Rc<Edge>,
        made: Option<(TrunkSlot, &DialTarget<'_>)>,
    ) {
        let (slot, way) = made.unzip();
        let failed = |result: HandshakeResult| {
            self.registry.failed(edge.proven.name(), result.as_str(), Some(address));
            match way {
                Some(way) => {
                    self.handshakes.not_proven(way);
                    edge.metrics.dialled(Some(ConnectResult::Handshake));
                }
                None => self.handshakes.no_hello((address, edge.proven.name()), result),
            }
        };
        let (hello, early) = match hear(&stream, &self.scratch).await {
            Ok(heard) => heard,
            Err(result) => return failed(result),
        };
        let Some((worker, sender)) = self.wished(&hello).or_else(|| self.least_used(edge)) else { return };
        if edge.trunks.borrow().iter().sum::<usize>() >= self.max_trunks {
            return self.refuse(edge, TunnelError::TooMany);
        }
        edge.workers.set(hello.workers);
        // It counts from now on, and so does what is made beside it.
        let place = TrunkPlace::take(edge, worker);
        let owner = CoreWorkers { worker: worker as u16, key: self.owner_key };
        let links = self.links.borrow().clone();
        let welcome = Hello { owner: Some(owner), links, ..hello_of(self.workers.len()) };
        if let Err(result) = say(&stream, &welcome).await {
            return failed(result);
        }
        if let Some(way) = way {
            self.handshakes.proven(way);
            edge.metrics.dialled(None);
        }
        let mut slot = slot;
        slot.iter_mut().for_each(TrunkSlot::keep);
        let chain = stream.peer_certificates();
        let Ok(stream) = stream.detach() else { return };
        let presence = self.registry.connected(edge.proven.name(), address, certificate, &hello.software);
        let (held, tether, end) = self.held.hold(edge.proven.name(), chain);
        let new = NewCoreTrunk {
            stream,
            early,
            peer: hello,
            edge: Arc::clone(&edge.proven),
            presence,
            refusals: Arc::clone(&edge.refusals),
            tether,
        };
        // This fails only if the worker is gone, during a shutdown.
        let _ = sender.send(new);
        held.keep(slot, place, end).await;
    }

    /// Returns the worker that an edge wishes for, if there is such a one.
    fn wished(&self, hello: &Hello) -> Option<(usize, &mpsc::UnboundedSender<NewCoreTrunk>)> {
        let wish = usize::from(hello.wish?);
        Some((wish, self.workers.get(wish)?))
    }

    /// Returns the worker that has the fewest trunks of this edge.
    fn least_used(&self, edge: &Edge) -> Option<(usize, &mpsc::UnboundedSender<NewCoreTrunk>)> {
        let trunks = edge.trunks.borrow();
        self.workers.iter().enumerate().min_by_key(|(worker, _)| trunks.get(*worker).copied().unwrap_or(0))
    }

    fn refuse(&self, edge: &Edge, refusal: TunnelError) {
        edge.metrics.refused(refusal);
        self.registry.failed(edge.proven.name(), refusal.as_str(), None);
        if let Some(suppressed) = edge.refusals.failed(refusal, Instant::now()) {
            warn!(edge = %edge.proven.name(), reason = %refusal, suppressed, "refused in the tunnel");
        }
    }
}

/// The place of a trunk among those of its edge on a worker.
struct TrunkPlace<'a> {
    edge: &'a Edge,
    worker: usize,
}

impl<'a> TrunkPlace<'a> {
    fn take(edge: &'a Edge, worker: usize) -> Self {
        edge.trunks.borrow_mut().get_mut(worker).into_iter().for_each(|count| *count += 1);
        Self { edge, worker }
    }
}

impl Drop for TrunkPlace<'_> {
    fn drop(&mut self) {
        self.edge.trunks.borrow_mut().get_mut(self.worker).into_iter().for_each(|count| *count -= 1);
    }
}

/// Returns the most trunks of one edge for a process that may open so many files: an edge that makes as many as it can leaves
/// enough for all others, and for the operator who revokes it.
fn max_trunks(files: Option<u64>) -> usize {
    let share = files.map_or(usize::MAX, |files| usize::try_from(files / FILES_PER_TRUNK).unwrap_or(usize::MAX));
    share.clamp(TRUNKS, MAX_TRUNKS)
}

/// Returns the most streams of one edge in a process that may use so much memory: with the credit of each used up and not read, they
/// hold no more than half of it.
fn max_streams(memory: u64) -> usize {
    let streams = memory / 2 / u64::from(CREDIT);
    usize::try_from(streams).unwrap_or(usize::MAX).clamp(LEAST_STREAMS, MAX_STREAMS)
}

fn may_come_from(addresses: &[IpNet], peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    addresses.is_empty() || addresses.iter().any(|network| network.contains(&peer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_cannot_have_all_files() {
        for (files, trunks) in [(None, 512), (Some(1 << 20), 512), (Some(1024), 64), (Some(256), 16), (Some(20), 4)] {
            assert_eq!(max_trunks(files), trunks, "{files:?}");
        }
    }

    #[test]
    fn an_edge_cannot_have_all_memory() {
        const GIB: u64 = 1 << 30;
        for (memory, streams) in [(0, 1024), (GIB / 2, 8192), (GIB, 16384), (4 * GIB, 65536), (u64::MAX, 65536)] {
            assert_eq!(max_streams(memory), streams, "{memory}");
        }
    }
}

//! The edge's end of the tunnel.

use std::cell::Cell;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::interval;

use super::acceptor::accept;
use super::edge_trunks::{TrunkPlace, TrunkPool};
use super::greeting::{hear, hello, say};
use super::handshake::{DialPast, DialTarget, Handshakes};
use super::maintainer::{TrunkMaintainer, TrunkSlot};
use super::metrics::TunnelMetrics;
use super::tether::HeldTrunks;
use super::{REREAD, trunks_wanted};
use crate::certs::HandshakeResult;
use crate::certs::watch::IdentityWatch;
use crate::metrics::Metrics;
use otproxy_config::{CORE_NAME, EdgeTunnel, HostPort, Reach};
use otproxy_net::worker::{Scratch, Tasks};
use otproxy_net::{ConnectResult, Stream};
use otproxy_protocol::trunk::Hello;

/// The edge's end, which makes trunks with the core and gives them to workers.
pub struct TunnelClient {
    handshakes: Handshakes,
    held: HeldTrunks,
    pool: Arc<TrunkPool>,
    /// The number of the core's workers, as it has told.
    core_workers: Cell<u16>,
    metrics: TunnelMetrics,
    scratch: Rc<Scratch>,
    tasks: Tasks,
}

/// A connection on which the core has said its hello.
struct Greeted {
    core: Hello,
    /// Bytes that came behind the hello.
    early: Vec<u8>,
    /// The place that it was made for.
    wished: Option<TrunkPlace>,
}

impl TunnelClient {
    /// Keeps trunks, as `config` says, on the runtime that it is called in; `sockets` are those to accept on.
    /// `certificates` may change. Runs forever.
    pub async fn run(
        (config, log_core_address): (EdgeTunnel, bool),
        mut certificates: watch::Receiver<IdentityWatch>,
        pool: Arc<TrunkPool>,
        sockets: Vec<TcpListener>,
        metrics: Arc<Metrics>,
        (scratch, tasks): (Rc<Scratch>, Tasks),
    ) {
        let loaded = certificates.borrow_and_update().clone();
        let tunnel = TunnelMetrics::new(&metrics, loaded.identity().name());
        let handshakes = Handshakes::new(loaded, Arc::clone(&metrics), log_core_address);
        let core_workers = Cell::new(1);
        let end = Rc::new(Self {
            handshakes,
            held: HeldTrunks::default(),
            pool,
            core_workers,
            metrics: tunnel,
            scratch,
            tasks,
        });
        let accepting = Rc::clone(&end);
        accept(sockets, &metrics, &end.tasks, move |stream, peer| Rc::clone(&accepting).take(stream, peer));
        let keeping = async {
            match config.reach() {
                Reach::Dial(core) => Rc::clone(&end).dial(core.clone()).await,
                Reach::Accept(_) => std::future::pending().await,
            }
        };
        let rereading = async {
            let mut ticks = interval(REREAD);
            loop {
                tokio::select! {
                    _ = ticks.tick() => end.handshakes.reread(&end.held),
                    Ok(()) = certificates.changed() => end.handshakes.replace(certificates.borrow_and_update().clone(), &end.held),
                }
            }
        };
        tokio::join!(keeping, rereading);
    }

    async fn dial(self: Rc<Self>, core: HostPort) {
        let (core, past) = (Rc::new(core), Rc::new(DialPast::default()));
        let wanted = || trunks_wanted(self.pool.workers(), self.core_workers.get().into());
        let make = |slot| {
            let (end, core, past) = (Rc::clone(&self), Rc::clone(&core), Rc::clone(&past));
            self.tasks.spawn(async move {
                let way = DialTarget { target: &core, name: CORE_NAME, past: &past };
                let result = end.connect(&way).await;
                end.metrics.dialled(result.as_ref().err().copied());
                match result {
                    Ok((stream, greeted)) => end.carry(stream, greeted, Some(slot)).await,
                    Err(result) => end.pool.failed(result),
                }
            });
        };
        TrunkMaintainer::new(Arc::default()).run(wanted, make).await;
    }

    /// Makes a connection to the core, on which it has said its hello.
    async fn connect(&self, way: &DialTarget<'_>) -> Result<(Stream, Greeted), ConnectResult> {
        let (stream, ..) = self.handshakes.connect(way).await?;
        match self.greet(&stream).await {
            Ok(greeted) => {
                self.handshakes.proven(way);
                Ok((stream, greeted))
            }
            Err(_) => {
                self.handshakes.not_proven(way);
                Err(ConnectResult::Handshake)
            }
        }
    }

    async fn take(self: Rc<Self>, stream: TcpStream, peer: SocketAddr) {
        let core_only = |name: &str| if name == CORE_NAME { Ok(()) } else { Err(HandshakeResult::WrongName) };
        if let Some((stream, (), _)) = self.handshakes.accept(stream, peer, core_only).await {
            match self.greet(&stream).await {
                Ok(greeted) => self.carry(stream, greeted, None).await,
                Err(result) => self.handshakes.no_hello((peer.ip(), CORE_NAME), result),
            }
        }
    }

    /// Exchanges hellos: the first answer tells that the core knows this edge, as its part of the handshake came after this
    /// side's own.
    async fn greet(&self, stream: &Stream) -> Result<Greeted, HandshakeResult> {
        let owners = self.core_workers.get();
        // Before the first answer it is not known how many the core has: it chooses.
        let wished = (owners > 1).then(|| self.pool.place(0..owners));
        let wish = wished.as_ref().map(TrunkPlace::owner);
        say(stream, &Hello { wish, ..hello(self.pool.workers()) }).await?;
        let (core, early) = hear(stream, &self.scratch).await?;
        Ok(Greeted { core, early, wished })
    }

    /// Gives the trunk to a worker, and waits for its end.
    async fn carry(&self, stream: Stream, Greeted { core, early, wished }: Greeted, mut slot: Option<TrunkSlot>) {
        self.core_workers.set(core.workers);
        slot.iter_mut().for_each(TrunkSlot::keep);
        let chain = stream.peer_certificates();
        let Ok(stream) = stream.detach() else { return };
        let (held, tether, end) = self.held.hold(CORE_NAME, chain);
        self.pool.give((stream, early), core, (wished, tether));
        held.keep(slot, (), end).await;
    }
}

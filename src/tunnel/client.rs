//! The edge's end of the tunnel.

use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::interval;

use super::acceptor::accept;
use super::handshake::{DialTarget, Handshakes};
use super::maintainer::{SpareMaintainer, SpareSlot};
use super::metrics::TunnelMetrics;
use super::pool::SparePool;
use super::{REREAD, spare};
use crate::certs::HandshakeResult;
use crate::certs::watch::IdentityWatch;
use crate::metrics::Metrics;
use otproxy_config::{CORE_NAME, EdgeTunnel, HostPort, Reach};
use otproxy_net::worker::{Scratch, Tasks};
use otproxy_net::{ConnectResult, OutageLog, Stream};

/// The edge's end, which keeps connections to the core and offers them in a pool.
pub struct TunnelClient {
    handshakes: Handshakes,
    pool: Arc<SparePool>,
    metrics: TunnelMetrics,
    scratch: Rc<Scratch>,
    tasks: Tasks,
}

impl TunnelClient {
    /// Keeps connections, as `config` says, on the runtime that it is called in; `sockets` are those to accept on.
    /// `certificates` may change. Runs forever.
    pub async fn run(
        (config, log_core_address): (EdgeTunnel, bool),
        mut certificates: watch::Receiver<IdentityWatch>,
        (pool, wanted): (Arc<SparePool>, Arc<Notify>),
        sockets: Vec<TcpListener>,
        metrics: Arc<Metrics>,
        (scratch, tasks): (Rc<Scratch>, Tasks),
    ) {
        let loaded = certificates.borrow_and_update().clone();
        let tunnel = TunnelMetrics::new(&metrics, loaded.identity().name());
        let handshakes = Handshakes::new(loaded, Arc::clone(&metrics), log_core_address);
        let end = Rc::new(Self { handshakes, pool, metrics: tunnel, scratch, tasks });
        let accepting = Rc::clone(&end);
        accept(sockets, &metrics, &end.tasks, move |stream, peer| Rc::clone(&accepting).take(stream, peer));
        let keeping = async {
            match config.reach() {
                Reach::Dial { core, spare } => Rc::clone(&end).dial(core.clone(), spare, wanted).await,
                Reach::Accept(_) => std::future::pending().await,
            }
        };
        let rereading = async {
            let mut ticks = interval(REREAD);
            loop {
                tokio::select! {
                    _ = ticks.tick() => end.handshakes.reread(),
                    Ok(()) = certificates.changed() => end.handshakes.replace(certificates.borrow_and_update().clone()),
                }
            }
        };
        tokio::join!(keeping, rereading);
    }

    async fn dial(self: Rc<Self>, core: HostPort, spare: usize, wanted: Arc<Notify>) {
        let (core, outage) = (Rc::new(core), Rc::new(OutageLog::new()));
        let count = || spare + self.pool.waiting();
        let make = |slot| {
            let (end, core, outage) = (Rc::clone(&self), Rc::clone(&core), Rc::clone(&outage));
            self.tasks.spawn(async move {
                let way = DialTarget { target: &core, name: CORE_NAME, outage: &outage };
                let result = end.connect(&way).await;
                end.metrics.dialled(result.as_ref().err().copied());
                match result {
                    Ok(stream) => end.keep(stream, Some(slot)).await,
                    Err(result) => end.pool.failed(result),
                }
            });
        };
        SpareMaintainer::new(wanted).run(count, make).await;
    }

    /// Makes a connection to the core, on which it has answered.
    async fn connect(&self, way: &DialTarget<'_>) -> Result<Stream, ConnectResult> {
        let (stream, ..) = self.handshakes.connect(way).await?;
        stream.towards_target();
        if spare::core_answers(&stream, &self.scratch).await {
            self.handshakes.proven(way);
            Ok(stream)
        } else {
            self.handshakes.not_proven(way);
            Err(ConnectResult::Handshake)
        }
    }

    async fn take(self: Rc<Self>, stream: TcpStream, peer: SocketAddr) {
        let core_only = |name: &str| if name == CORE_NAME { Ok(()) } else { Err(HandshakeResult::WrongName) };
        if let Some((stream, (), _)) = self.handshakes.accept(stream, peer, core_only).await {
            stream.towards_target();
            if spare::core_answers(&stream, &self.scratch).await {
                self.keep(stream, None).await;
            }
        }
    }

    async fn keep(&self, stream: Stream, slot: Option<SpareSlot>) {
        let _spare = self.metrics.spare();
        spare::maintain(stream, &self.pool, slot, &self.scratch).await;
    }
}

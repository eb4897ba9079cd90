//! A role that is bound and can run: worker threads, admin, shutdown.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use crate::access_log::{AccessLog, Written};
use crate::admin;
use crate::certs::CertError;
use crate::config::{self, Config};
use crate::forward::{Forward, ForwardShared, HeaderFor};
use crate::limits::{Gate, ProcessGate};
use crate::metrics::{BuildInfo, ListenerMetrics, Metrics};
use crate::net::worker::{self, Scratch, Stop, Tasks};
use crate::net::{BindError, Inbound, accept_loop, bind};
use crate::tunnel::{self, Pool, Trusted};

/// Why a role cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The certificates for the tunnel cannot be used.
    #[error(transparent)]
    Certificates(#[from] CertError),
    /// There is no thread for the access log.
    #[error("cannot start the access log: {0}")]
    AccessLog(io::Error),
}

type WorkerFuture = Pin<Box<dyn Future<Output = io::Result<()>>>>;
/// What a worker thread runs.
pub(super) type WorkerMain = Box<dyn FnOnce(Stop) -> WorkerFuture + Send>;

/// A role whose sockets are bound. Connections wait in the kernel until [`Service::run`].
pub struct Service {
    role: &'static str,
    shutdown_timeout: Duration,
    addresses: Vec<(String, Vec<SocketAddr>)>,
    admin: Option<TcpListener>,
    /// What connections to any listener pass.
    gate: Arc<ProcessGate>,
    metrics: Vec<Arc<Metrics>>,
    /// What is counted on no worker.
    own_metrics: Arc<Metrics>,
    forwards: Vec<Arc<ForwardShared>>,
    workers: Vec<WorkerMain>,
    tunnel: Option<(Arc<Metrics>, WorkerMain)>,
    access_log: Option<(AccessLog, Written)>,
    trusted: Option<watch::Sender<Trusted>>,
}

impl Service {
    pub(super) fn bind(role: &'static str, process: &config::Process) -> Result<Self, StartError> {
        let admin = match process.admin {
            Some(address) => bind("admin", &[address], 1)?.sockets.pop().and_then(|mut sockets| sockets.pop()),
            None => None,
        };
        let metrics: Vec<_> = (0..process.workers.get()).map(|_| Arc::new(Metrics::new())).collect();
        let access_log = match (&process.access_log, metrics.first()) {
            (Some(config), Some(metrics)) => {
                let log = AccessLog::start(config.clone(), &process.name, metrics.access_log_dropped.clone());
                Some(log.map_err(StartError::AccessLog)?)
            }
            _ => None,
        };
        let gate = ProcessGate::new(Gate::new(process.limits, Arc::clone(&process.access)));
        let own_metrics = Arc::new(Metrics::new());
        gate.show(own_metrics.pressure(None));
        Ok(Self {
            role,
            shutdown_timeout: process.shutdown_timeout,
            addresses: Vec::new(),
            admin,
            gate,
            metrics,
            own_metrics,
            forwards: Vec::new(),
            workers: Vec::new(),
            tunnel: None,
            access_log,
            trusted: None,
        })
    }

    /// Binds a listener; gives its sockets for each worker.
    pub(super) fn listen(&mut self, inbound: &config::Inbound) -> Result<Vec<Vec<TcpListener>>, StartError> {
        let bound = bind(&inbound.name, &inbound.listen, self.metrics.len())?;
        self.addresses.push((inbound.name.clone(), bound.addresses));
        // Workers make these again when they start. A scrape before that must find the zeros as well.
        for metrics in &self.metrics {
            metrics.listener(&inbound.name);
        }
        Ok(bound.sockets)
    }

    /// Binds forward listeners; gives for each worker what it accepts on.
    pub(super) fn listen_forwards(
        &mut self,
        forwards: Vec<config::Forward>,
        header_for: &HeaderFor,
        pool: Option<&Arc<Pool>>,
    ) -> Result<Vec<Vec<ForwardSockets>>, StartError> {
        let mut per_worker: Vec<Vec<ForwardSockets>> = self.metrics.iter().map(|_| Vec::new()).collect();
        for forward in forwards {
            let sockets = self.listen(&forward.inbound)?;
            let (gate, log) = (Arc::clone(&self.gate), self.access_log().cloned());
            let shared = ForwardShared::new(forward, header_for.clone(), gate, pool.cloned(), log, &self.own_metrics);
            self.forwards.push(Arc::clone(&shared));
            // As in `listen`: the zeros are there before the workers are.
            self.metrics.iter().for_each(|metrics| drop(shared.status_metrics(metrics)));
            for (worker, sockets) in per_worker.iter_mut().zip(sockets) {
                worker.push((Arc::clone(&shared), sockets));
            }
        }
        Ok(per_worker)
    }

    /// What connections to any listener pass.
    pub(super) fn gate(&self) -> &Arc<ProcessGate> {
        &self.gate
    }

    /// Each worker's counters.
    pub(super) fn metrics(&self) -> &[Arc<Metrics>] {
        &self.metrics
    }

    /// What is counted on no worker.
    pub(super) fn own_metrics(&self) -> &Metrics {
        &self.own_metrics
    }

    /// The access log, where there is one.
    pub(super) fn access_log(&self) -> Option<&AccessLog> {
        self.access_log.as_ref().map(|(log, _)| log)
    }

    /// Adds a worker thread.
    pub(super) fn add_worker(&mut self, main: WorkerMain) {
        self.workers.push(main);
    }

    /// Binds the sockets of the tunnel, all of which one thread has.
    pub(super) fn listen_tunnel(&mut self, addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, StartError> {
        let mut bound = bind(tunnel::NAME, addresses, 1)?;
        self.addresses.push((tunnel::NAME.to_owned(), bound.addresses));
        Ok(bound.sockets.pop().unwrap_or_default())
    }

    /// Trusts `edges` in the tunnel, until a reload says otherwise.
    pub(super) fn trust(&mut self, edges: Trusted) -> watch::Receiver<Trusted> {
        let (sender, trusted) = watch::channel(edges);
        self.trusted = Some(sender);
        trusted
    }

    /// What can be changed while the service runs.
    pub fn reloader(&self) -> Reloader {
        Reloader { trusted: self.trusted.clone() }
    }

    /// Has the tunnel run on a thread of its own, until the drain.
    pub(super) fn run_tunnel<F>(&mut self, run: impl FnOnce(Arc<Metrics>, Rc<Scratch>, Tasks) -> F + Send + 'static)
    where
        F: Future<Output = ()> + 'static,
    {
        let metrics = Arc::new(Metrics::new());
        let counted = Arc::clone(&metrics);
        let main = move |stop| -> WorkerFuture {
            Box::pin(async move {
                let worker = WorkerContext::new(Arc::clone(&metrics), stop);
                // Spare connections end with it; those in use are the workers'.
                worker.stop.drain.run_until_cancelled(run(metrics, worker.scratch, worker.tasks)).await;
                Ok(())
            })
        };
        self.tunnel = Some((counted, Box::new(main)));
    }

    /// The addresses of a listener, with the ports that the kernel chose; none where there is no
    /// such listener.
    pub fn addresses(&self, listener: &str) -> &[SocketAddr] {
        self.addresses.iter().find(|(name, _)| name == listener).map_or(&[], |(_, addresses)| addresses)
    }

    /// All listeners with their addresses.
    pub fn listeners(&self) -> impl Iterator<Item = (&str, &[SocketAddr])> {
        self.addresses.iter().map(|(name, addresses)| (name.as_str(), addresses.as_slice()))
    }

    /// Where metrics and health are served.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().and_then(|admin| admin.local_addr().ok())
    }

    /// Runs until `shutdown`, then lets connections go on for `shutdown_timeout` at the most.
    ///
    /// # Errors
    /// Where threads or the admin socket cannot be had, or a worker ended on its own.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let ready = Arc::new(AtomicBool::new(true));
        let (tunnel_metrics, tunnel) = self.tunnel.unzip();
        // The log itself is the listeners' alone from here on: when they have ended, it ends.
        let written = self.access_log.map(|(_, written)| written);
        let stop = Stop::default();
        let admin = match self.admin {
            Some(listener) => {
                let state = admin::State {
                    metrics: self.metrics.into_iter().chain(tunnel_metrics).chain([self.own_metrics]).collect(),
                    ready: Arc::clone(&ready),
                    build: BuildInfo { version: env!("CARGO_PKG_VERSION"), role: self.role },
                };
                let listener = tokio::net::TcpListener::from_std(listener)?;
                Some(AbortOnDropHandle::new(tokio::spawn(admin::serve(listener, state, std::future::pending()))))
            }
            None => None,
        };
        // However this ends, dropped halfway included, so do the workers.
        let _ended = (stop.drain.clone().drop_guard(), stop.kill.clone().drop_guard());
        let mut threads = Vec::new();
        let workers = self.workers.into_iter().enumerate().map(|(index, main)| (format!("worker-{index}"), main));
        for (name, main) in workers.chain(tunnel.map(|main| (tunnel::NAME.to_owned(), main))) {
            let stop = stop.clone();
            // One that ends on its own, or cannot start, ends all: a part of the players would be lost in silence.
            let ends_all = stop.drain.clone().drop_guard();
            let main = move || async move {
                let _ends_all = ends_all;
                main(stop).await
            };
            threads.push(worker::spawn(name, main)?);
        }
        let mut watching = JoinSet::new();
        for forward in self.forwards {
            watching.spawn(forward.watch_targets());
        }
        let mut ended = spawn_blocking(move || {
            let results: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
            results
                .into_iter()
                .try_for_each(|r| r.unwrap_or_else(|_| Err(io::Error::other("a worker thread panicked"))))
        });
        tokio::select! {
            () = stop.drain.cancelled() => error!("a worker has ended"),
            () = shutdown => stop.drain.cancel(),
        }
        ready.store(false, Ordering::Relaxed);
        drop(watching);
        info!(timeout_seconds = self.shutdown_timeout.as_secs_f64(), "shutting down");
        let result = match timeout(self.shutdown_timeout, &mut ended).await {
            Ok(result) => result,
            Err(_) => {
                warn!("connections still open after shutdown_timeout; closing them");
                stop.kill.cancel();
                ended.await
            }
        };
        // A slow reader of metrics does not hold up the end.
        drop(admin);
        if let Some(written) = written {
            written.wait().await;
        }
        result.unwrap_or_else(|e| Err(io::Error::other(e)))
    }
}

/// Changes a service while it runs.
#[derive(Debug, Clone)]
pub struct Reloader {
    trusted: Option<watch::Sender<Trusted>>,
}

impl Reloader {
    /// Uses of `new` what can be changed now: the edges that are trusted in the tunnel. Gives whether anything else differs
    /// from the configuration that it `started` with, which is used only after a restart.
    pub fn reload(&self, started: &Config, new: &Config) -> bool {
        let (Config::Core(before), Config::Core(core), Some(trusted)) = (started, new, &self.trusted) else {
            return started != new;
        };
        trusted.send_replace(core.edges.clone());
        let elsewhere = *new != Config::Core(config::Core { edges: core.edges.clone(), ..before.clone() });
        elsewhere || !known_by_address(before).eq(known_by_address(core))
    }
}

/// The edges that listeners know by their address: those are read once.
fn known_by_address(core: &config::Core) -> impl Iterator<Item = (&str, &[IpNet], bool)> {
    let edges = core.edges.iter().filter(|edge| !edge.addresses.is_empty());
    edges.map(|edge| (edge.name.as_str(), edge.addresses.as_slice(), edge.revoked))
}

/// A forward listener's sockets on one worker.
pub(super) type ForwardSockets = (Arc<ForwardShared>, Vec<TcpListener>);

/// What a worker needs to run its listeners.
pub(super) struct WorkerContext {
    pub metrics: Arc<Metrics>,
    pub scratch: Rc<Scratch>,
    pub tasks: Tasks,
    pub stop: Stop,
}

impl WorkerContext {
    pub fn new(metrics: Arc<Metrics>, stop: Stop) -> Self {
        Self { tasks: Tasks::new(Arc::clone(&metrics)), metrics, scratch: Rc::new(worker::scratch()), stop }
    }

    /// Accepts on `sockets` until the drain, and runs each connection as a task of its own.
    pub fn accept<F>(
        &self,
        name: &str,
        sockets: Vec<TcpListener>,
        metrics: &ListenerMetrics,
        carry: impl Fn(TcpStream, SocketAddr) -> F + Clone + 'static,
    ) where
        F: Future<Output = ()> + 'static,
    {
        for socket in sockets {
            let (name, drain) = (name.to_owned(), self.stop.drain.clone());
            let (tasks, carry, errors) = (self.tasks.clone(), carry.clone(), metrics.accept_errors.clone());
            tokio::task::spawn_local(async move {
                let accepted = |stream, peer| tasks.spawn(carry(stream, peer));
                let accepting = accept_loop(&name, socket, accepted, || errors.inc());
                tokio::select! {
                    () = drain.cancelled() => {}
                    Err(error) = accepting => error!(listener = name, %error, "cannot accept any more"),
                }
            });
        }
    }

    /// Starts this worker's forward listeners; gives them.
    pub fn start_forwards(&self, forwards: Vec<ForwardSockets>) -> Vec<Rc<Forward>> {
        let start = |(shared, sockets): ForwardSockets| {
            let metrics = self.metrics.listener(&shared.inbound().config().name);
            let inbound = Inbound::new(Arc::clone(shared.inbound()), metrics.clone(), Rc::clone(&self.scratch));
            let name = inbound.config().name.clone();
            let forward = Rc::new(Forward::new(shared, inbound, &self.metrics));
            let accepting = Rc::clone(&forward);
            self.accept(&name, sockets, &metrics, move |stream, peer| Rc::clone(&accepting).carry(stream, peer));
            forward
        };
        forwards.into_iter().map(start).collect()
    }

    /// Runs until the stop. `on_kill` is called where connections are left at its deadline; they
    /// are dropped after it.
    pub async fn serve(self, on_kill: impl FnOnce()) {
        let Stop { drain, kill } = self.stop;
        drain.cancelled().await;
        tokio::select! {
            () = self.tasks.ended() => {}
            () = kill.cancelled() => on_kill(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::task::Poll;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::config::{LogFormat, LogLevel, Process};
    use crate::limits::GateLimits;

    /// Bytes that make the handler of the test below panic.
    const POISON: u8 = 13;

    #[test]
    fn a_panic_closes_its_connection_and_is_counted_and_no_other_notices() {
        let metrics = Arc::new(Metrics::new());
        let stop = Stop::default();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build_local(tokio::runtime::LocalOptions::default()).unwrap();
        let test = async {
            let worker = WorkerContext::new(Arc::clone(&metrics), stop.clone());
            let socket = TcpListener::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            let address = socket.local_addr().unwrap();
            let scratch = Rc::clone(&worker.scratch);
            worker.accept("test", vec![socket], &metrics.listener("test"), move |stream, _| {
                echo(stream, Rc::clone(&scratch))
            });
            let mut good = TcpStream::connect(address).await.unwrap();
            assert_eq!(exchange(&mut good, 1).await, Some(1));
            for panics in 1..=3 {
                let mut bad = TcpStream::connect(address).await.unwrap();
                assert_eq!(exchange(&mut bad, 2).await, Some(2));
                assert_eq!(exchange(&mut bad, POISON).await, None);
                assert_eq!(exchange(&mut good, 3).await, Some(3));
                assert_eq!(metrics.panics.get(), panics);
            }
            // Those that come later are served as well, and the worker can end: no task is left.
            let mut later = TcpStream::connect(address).await.unwrap();
            assert_eq!(exchange(&mut later, 4).await, Some(4));
            drop((good, later));
            stop.drain.cancel();
            worker.serve(|| panic!("nobody kills it")).await;
        };
        runtime.block_on(async { timeout(Duration::from_secs(60), test).await.expect("it hangs") });
    }

    /// Echoes byte by byte through the worker's scratch buffer.
    async fn echo(stream: TcpStream, scratch: Rc<Scratch>) {
        let stream = crate::net::Stream::new(stream).unwrap();
        std::future::poll_fn(|cx| {
            loop {
                let mut scratch = scratch.borrow_mut();
                let Ok(n) = std::task::ready!(stream.poll_read(cx, &mut scratch)) else { return Poll::Ready(()) };
                assert!(!scratch[..n].contains(&POISON), "on purpose");
                if n == 0 || stream.try_write(&[io::IoSlice::new(&scratch[..n])]).is_err() {
                    return Poll::Ready(());
                }
            }
        })
        .await;
    }

    /// Sends one byte; gives the answer, and `None` where the connection is closed.
    async fn exchange(stream: &mut TcpStream, byte: u8) -> Option<u8> {
        stream.write_all(&[byte]).await.unwrap();
        stream.read_u8().await.ok()
    }

    #[test]
    fn a_worker_that_ends_on_its_own_ends_all() {
        let process = Process {
            name: "test".to_owned(),
            workers: NonZeroUsize::MIN,
            admin: None,
            access: Arc::default(),
            limits: GateLimits::default(),
            shutdown_timeout: Duration::from_secs(60),
            log_format: LogFormat::Auto,
            log_level: LogLevel::Error,
            access_log: None,
        };
        let mut service = Service::bind("edge", &process).unwrap();
        service.add_worker(Box::new(|stop| {
            Box::pin(async move {
                stop.drain.cancelled().await;
                Ok(())
            })
        }));
        service.add_worker(Box::new(|_| Box::pin(async { Err(io::Error::other("no more")) })));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let run = async { timeout(Duration::from_secs(60), service.run(std::future::pending())).await };
        let result = runtime.block_on(run);
        assert_eq!(result.expect("it ends").unwrap_err().to_string(), "no more");
    }
}

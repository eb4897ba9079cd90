//! A worker's listeners, and the carrying of their connections under the present configuration.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

use super::running::{Running, WorkerParts};
use crate::admission::{Carrier, TunnelledStream};
use crate::lag::{self, Host};
use crate::metrics::Metrics;
use crate::relay::Relay;
use crate::tunnel::{
    EdgeErrands, EdgeTrunks, ErrandsTo, NewCoreTrunks, NewEdgeTrunks, carry_core_trunks, take_errands,
};
use otproxy_net::worker::{self, Scratch, StopSignals, Tasks};
use otproxy_net::{accept_until, warn_of_accept};

/// A sender that never sends, and is dropped once the plan is carried out.
pub(super) type DoneSignal = mpsc::Sender<Infallible>;

/// The listeners that a worker has from now on.
#[derive(Debug)]
pub(super) struct ListenerPlan {
    /// All listeners, each with the addresses that it listens on.
    pub listeners: Vec<(Running, Vec<SocketAddr>)>,
    /// Those of them that take nothing, also not through the tunnel.
    pub closed: HashSet<String>,
    /// The sockets of the addresses that are new to the worker.
    pub sockets: Vec<(SocketAddr, TcpListener)>,
    /// More sockets of these addresses, which are closed once nobody waits there.
    pub beyond: Vec<(SocketAddr, TcpListener)>,
    /// Dropped when the plan is carried out and unused sockets are closed.
    pub done: DoneSignal,
}

/// The plans for one worker.
pub(super) type ListenerPlans = mpsc::UnboundedReceiver<ListenerPlan>;

/// Returns the name of a worker's thread.
pub(super) fn worker_name(index: usize) -> String {
    format!("worker-{index}")
}

/// A worker and its listeners.
pub(super) struct Worker {
    pub metrics: Arc<Metrics>,
    pub scratch: Rc<Scratch>,
    pub tasks: Tasks,
    pub stop: StopSignals,
    /// The tasks that accept.
    accepting: TaskTracker,
}

/// The present listeners of a worker.
struct Listeners<'a> {
    worker: &'a Worker,
    relay: Option<Rc<Relay>>,
    edge_trunks: Option<Rc<EdgeTrunks>>,
    carriers: Rc<Carriers>,
    sockets: RefCell<HashMap<SocketAddr, Socket>>,
}

/// A listener, with the part that carries its connections on this worker.
type Carrying = (Running, Rc<dyn Carrier>);

/// The listeners that carry connections, by name.
#[derive(Default)]
struct Carriers {
    all: RefCell<HashMap<String, Carrying>>,
    closed: RefCell<HashSet<String>>,
}

impl Carriers {
    /// Takes a stream of the tunnel to the listener of that name, or returns it if there is none that takes it.
    fn take(&self, listener: &str, tunnelled: TunnelledStream, tasks: &Tasks) -> Option<TunnelledStream> {
        let all = self.all.borrow();
        let Some((_, carrier)) = all.get(listener).filter(|_| !self.closed.borrow().contains(listener)) else {
            return Some(tunnelled);
        };
        Rc::clone(carrier).spawn_tunnelled(tasks, tunnelled);
        None
    }
}

/// The trunks of the tunnel that a worker carries.
pub(super) enum WorkerTrunks {
    /// A core's, on which edges open streams, those for errands among them.
    Core(NewCoreTrunks, Arc<EdgeErrands>),
    /// An edge's, on which this worker opens streams; one of the workers opens those for errands.
    Edge(Rc<EdgeTrunks>, NewEdgeTrunks, Option<ErrandsTo>),
}

/// A socket that accepts.
struct Socket {
    leads_to: Rc<RefCell<Rc<dyn Carrier>>>,
    close: oneshot::Sender<DoneSignal>,
}

impl Worker {
    pub fn new(metrics: Arc<Metrics>, stop: StopSignals) -> Self {
        let (tasks, scratch) = (Tasks::new(metrics.on_panic()), Rc::new(worker::scratch()));
        Self { metrics, scratch, tasks, stop, accepting: TaskTracker::new() }
    }

    /// Measures from now on how late turns of this worker's thread come, which has this name.
    pub fn keep_ticking(&self, name: String, host: Arc<Host>) {
        let histogram = self.metrics.worker_delay.with_label_values(&[&name]);
        tokio::task::spawn_local(lag::keep_ticking(name, host, histogram));
    }

    /// Listens as `plans` say, and carries the trunks of the tunnel, until the stop. `on_kill` is called if
    /// connections remain at its deadline; they are dropped after it.
    pub async fn serve(
        self,
        relay: Option<Rc<Relay>>,
        plans: ListenerPlans,
        trunks: Option<WorkerTrunks>,
        on_kill: impl FnOnce(),
    ) {
        let StopSignals { drain, kill } = self.stop.clone();
        let edge_trunks = match &trunks {
            Some(WorkerTrunks::Edge(trunks, ..)) => Some(Rc::clone(trunks)),
            Some(WorkerTrunks::Core(..)) | None => None,
        };
        let listeners =
            Listeners { worker: &self, relay, edge_trunks, carriers: Rc::default(), sockets: RefCell::default() };
        let (carried, close) = (Tasks::new(self.metrics.on_panic()), CancellationToken::new());
        let carrying = listeners.carry_trunks(trunks, &carried, &close);
        let working = async {
            drain.run_until_cancelled(listeners.take_plans(plans)).await;
            drain.cancelled().await;
            // One that is accepted at this very moment would be cut if nobody knew of it yet.
            self.accepting.close();
            self.accepting.wait().await;
            listeners.relay.iter().for_each(|relay| relay.drain());
            tokio::select! {
                () = self.tasks.ended() => {}
                () = kill.cancelled() => on_kill(),
            }
        };
        tokio::select! {
            () = working => {}
            () = carrying => {}
        }
        // The last words of connections are in the trunks.
        close.cancel();
        listeners.edge_trunks.iter().for_each(|trunks| trunks.close());
        carried.ended().await;
    }

    /// Accepts on `socket` until the drain, or until it is told to close.
    fn accept(
        &self,
        socket: TcpListener,
        accepted: impl FnMut(TcpStream, SocketAddr) + 'static,
        failed: impl FnMut(&io::Error) + 'static,
    ) -> oneshot::Sender<DoneSignal> {
        let (close, closing) = oneshot::channel();
        let drain = self.stop.drain.clone();
        self.accepting.spawn_local(async move {
            let accepting = accept_until(closing, socket, accepted, failed);
            if let Some(Err(error)) = drain.run_until_cancelled(accepting).await {
                error!(%error, "cannot accept any more");
            }
        });
        close
    }
}

impl Listeners<'_> {
    async fn take_plans(&self, mut plans: ListenerPlans) {
        while let Some(plan) = plans.recv().await {
            self.go_by(plan);
        }
    }

    fn go_by(&self, ListenerPlan { listeners, closed, sockets, mut beyond, done }: ListenerPlan) {
        let Worker { metrics, scratch, .. } = self.worker;
        let parts =
            WorkerParts { metrics, scratch, relay: self.relay.as_ref(), edge_trunks: self.edge_trunks.as_ref() };
        let mut new: HashMap<_, _> = sockets.into_iter().collect();
        self.carriers.closed.replace(closed);
        let (mut carriers, mut there) = (self.carriers.all.borrow_mut(), self.sockets.borrow_mut());
        let (mut before, mut closing) = (std::mem::take(&mut *carriers), std::mem::take(&mut *there));
        for (listener, addresses) in listeners {
            let name = listener.name().to_owned();
            let kept = before.remove(&name).filter(|(same, _)| same.is(&listener)).map(|(_, carrier)| carrier);
            let Some(carrier) = kept.or_else(|| listener.carrier(&parts)) else { continue };
            for address in addresses {
                let socket = match (closing.remove(&address), new.remove(&address)) {
                    (Some(socket), _) => {
                        socket.leads_to.replace(Rc::clone(&carrier));
                        Some(socket)
                    }
                    (None, Some(socket)) => Some(self.accept(socket, Rc::clone(&carrier))),
                    (None, None) => None,
                };
                there.extend(socket.map(|socket| (address, socket)));
                for (_, socket) in beyond.extract_if(.., |(of, _)| *of == address) {
                    let _ = self.accept(socket, Rc::clone(&carrier)).close.send(done.clone());
                }
            }
            carriers.insert(name, (listener, carrier));
        }
        for socket in closing.into_values() {
            // This fails only if the task is gone, and the socket with it.
            let _ = socket.close.send(done.clone());
        }
    }

    fn accept(&self, socket: TcpListener, carrier: Rc<dyn Carrier>) -> Socket {
        let leads_to = Rc::new(RefCell::new(carrier));
        let (carrying, failing, tasks) = (Rc::clone(&leads_to), Rc::clone(&leads_to), self.worker.tasks.clone());
        let accepted = move |stream, peer| Rc::clone(&carrying.borrow()).spawn(&tasks, stream, peer);
        let failed = move |error: &io::Error| {
            let carrier = failing.borrow();
            let inbound = carrier.inbound();
            inbound.metrics().accept_errors.inc();
            warn_of_accept(&inbound.config().name, error);
        };
        Socket { leads_to, close: self.worker.accept(socket, accepted, failed) }
    }

    /// Carries the trunks that are given to this worker, as tasks of `carried`, forever.
    async fn carry_trunks(&self, trunks: Option<WorkerTrunks>, carried: &Tasks, close: &CancellationToken) {
        let Worker { metrics, scratch, tasks, stop, .. } = self.worker;
        match trunks {
            None => {}
            Some(WorkerTrunks::Edge(trunks, new, errands)) => {
                if let Some(to) = errands {
                    let (trunks, scratch, tasks) = (Rc::clone(&trunks), Rc::clone(scratch), carried.clone());
                    let close = close.clone();
                    carried.spawn(async move {
                        close.run_until_cancelled(take_errands(trunks, to, scratch, tasks)).await;
                    });
                }
                trunks.run(new, Rc::clone(scratch), carried.clone()).await;
            }
            Some(WorkerTrunks::Core(new, errands)) => {
                let (carriers, tasks) = (Rc::clone(&self.carriers), tasks.clone());
                let take = move |listener: &str, tunnelled| carriers.take(listener, tunnelled, &tasks);
                carry_core_trunks(new, metrics, (scratch, carried), (&stop.drain, close), &errands, take).await;
            }
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;

    /// The byte that makes the handler of the test below panic.
    const POISON: u8 = 13;

    #[test]
    fn a_panic_closes_its_connection_and_is_counted_and_no_other_notices() {
        let metrics = Arc::new(Metrics::new());
        let stop = StopSignals::default();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build_local(tokio::runtime::LocalOptions::default()).unwrap();
        let test = async {
            let worker = Worker::new(Arc::clone(&metrics), stop.clone());
            let socket = TcpListener::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            let address = socket.local_addr().unwrap();
            let (scratch, tasks) = (Rc::clone(&worker.scratch), worker.tasks.clone());
            let accepted = move |stream, _| tasks.spawn(echo(stream, Rc::clone(&scratch)));
            let _open = worker.accept(socket, accepted, |error| panic!("{error}"));
            let mut good = TcpStream::connect(address).await.unwrap();
            assert_eq!(exchange(&mut good, 1).await, Some(1));
            for panics in 1..=3 {
                let mut bad = TcpStream::connect(address).await.unwrap();
                assert_eq!(exchange(&mut bad, 2).await, Some(2));
                assert_eq!(exchange(&mut bad, POISON).await, None);
                assert_eq!(exchange(&mut good, 3).await, Some(3));
                assert_eq!(metrics.panics.get(), panics);
            }
            // Later connections are served as well, and the worker can end: no task is left.
            let mut later = TcpStream::connect(address).await.unwrap();
            assert_eq!(exchange(&mut later, 4).await, Some(4));
            drop((good, later));
            stop.drain.cancel();
            worker.serve(None, mpsc::unbounded_channel().1, None, || panic!("nobody kills it")).await;
        };
        runtime.block_on(async { timeout(Duration::from_secs(60), test).await.expect("it hangs") });
    }

    /// Echoes byte by byte through the worker's scratch buffer.
    async fn echo(stream: TcpStream, scratch: Rc<Scratch>) {
        let stream = otproxy_net::Stream::new(stream).unwrap();
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

    /// Sends one byte; returns the answer, or `None` if the connection is closed.
    async fn exchange(stream: &mut TcpStream, byte: u8) -> Option<u8> {
        stream.write_all(&[byte]).await.unwrap();
        stream.read_u8().await.ok()
    }
}

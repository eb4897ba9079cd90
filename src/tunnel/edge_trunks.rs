//! The trunks of an edge, over which its workers open streams.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::metrics::TunnelMetrics;
use super::places::{TrunkPlaces, WorkerPair};
use super::tether::TrunkTether;
use crate::metrics::{GaugeGuard, Metrics};
use otproxy_net::worker::{Scratch, Tasks};
use otproxy_net::{ConnectResult, DetachedStream, Stream, Trunk, TrunkOwner, TrunkStream};
use otproxy_protocol::frame::ClientId;
use otproxy_protocol::trunk::{Hello, OpenRequest, Side};

/// A trunk on its way to the worker of an edge that has it.
#[derive(Debug)]
pub struct NewEdgeTrunk {
    stream: DetachedStream,
    /// Bytes that came behind the core's hello.
    early: Vec<u8>,
    /// The core's hello.
    core: Hello,
    place: TrunkPlace,
    alive: AliveTrunk,
    tether: TrunkTether,
}

/// The trunks for one worker.
pub type NewEdgeTrunks = mpsc::UnboundedReceiver<NewEdgeTrunk>;

/// The trunks of an edge over all workers.
#[derive(Debug)]
pub struct TrunkPool {
    places: Mutex<TrunkPlaces>,
    /// The number of all.
    alive: AtomicUsize,
    /// Unbounded channels, as each queued trunk is an open connection of the core.
    workers: Vec<mpsc::UnboundedSender<NewEdgeTrunk>>,
    /// Notified when a trunk cannot be made.
    failed: Notify,
    /// The last reason for that.
    failure: Mutex<ConnectResult>,
    edge: String,
}

/// The place of a trunk among those of an edge.
#[derive(Debug)]
pub(super) struct TrunkPlace {
    pool: Arc<TrunkPool>,
    number: u64,
    pair: WorkerPair,
}

impl TrunkPlace {
    /// Returns the worker of the core that is to have the trunk.
    pub fn owner(&self) -> u16 {
        self.pair.1
    }
}

impl Drop for TrunkPlace {
    fn drop(&mut self) {
        self.pool.places.lock().free(self.number);
    }
}

impl TrunkPool {
    /// Makes a pool without trunks for so many workers of the edge of this name, and the ends from which they take them.
    pub fn new(edge: &str, workers: usize) -> (Arc<Self>, Vec<NewEdgeTrunks>) {
        let (senders, receivers) = (0..workers).map(|_| mpsc::unbounded_channel()).unzip();
        let pool = Self {
            places: Mutex::new(TrunkPlaces::new(workers)),
            alive: AtomicUsize::new(0),
            workers: senders,
            failed: Notify::new(),
            failure: Mutex::new(ConnectResult::Error),
            edge: edge.to_owned(),
        };
        (Arc::new(pool), receivers)
    }

    /// Returns the number of workers.
    pub(super) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Returns the number of trunks that are there.
    pub fn alive(&self) -> usize {
        self.alive.load(Ordering::Relaxed)
    }

    /// Tells those who wait for a trunk that one could not be made.
    pub(super) fn failed(&self, result: ConnectResult) {
        *self.failure.lock() = result;
        self.failed.notify_waiters();
    }

    /// Takes the place of a trunk to one of these workers of the core: that of the pair which has the fewest.
    pub(super) fn place(self: &Arc<Self>, owners: Range<u16>) -> TrunkPlace {
        let (number, pair) = self.places.lock().take(owners);
        TrunkPlace { pool: Arc::clone(self), number, pair }
    }

    /// Gives a trunk to the worker that has the place that was wished for. If the core has chosen another of its workers, or there
    /// was no wish, it goes to the worker that has the fewest to that one. Bytes came behind the core's hello.
    pub(super) fn give(
        self: &Arc<Self>,
        (stream, early): (DetachedStream, Vec<u8>),
        core: Hello,
        (wished, tether): (Option<TrunkPlace>, TrunkTether),
    ) {
        let place = self.settle(&core, wished, tether.leaving());
        if let Some(sender) = self.workers.get(place.pair.0) {
            let alive = AliveTrunk::new(self);
            // It fails only once the worker is gone, in a shutdown.
            let _ = sender.send(NewEdgeTrunk { stream, early, core, place, alive, tether });
        }
    }

    fn settle(self: &Arc<Self>, core: &Hello, wished: Option<TrunkPlace>, leave: CancellationToken) -> TrunkPlace {
        let owner = core.owner.map_or(0, |owner| owner.worker);
        let fits = |place: &TrunkPlace| place.owner() == owner;
        let place = wished.filter(fits).unwrap_or_else(|| self.place(owner..owner.saturating_add(1)));
        self.places.lock().fill(place.number, leave, core.workers);
        place
    }
}

/// The guard that counts a trunk as one that is there.
#[derive(Debug)]
struct AliveTrunk(Arc<TrunkPool>);

impl AliveTrunk {
    fn new(pool: &Arc<TrunkPool>) -> Self {
        pool.alive.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(pool))
    }
}

impl Drop for AliveTrunk {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The trunks of one worker of an edge.
#[derive(Debug)]
pub struct EdgeTrunks {
    pool: Arc<TrunkPool>,
    trunks: RefCell<Vec<KnownTrunk>>,
    /// Notified when there is one more.
    came: Notify,
    metrics: TunnelMetrics,
}

#[derive(Debug)]
struct KnownTrunk {
    trunk: Rc<Trunk>,
    core: Rc<Hello>,
}

/// The owner of a trunk.
struct EdgeTrunkOwner(TrunkTether);

impl TrunkOwner for EdgeTrunkOwner {
    fn opened(&self, _: OpenRequest, stream: TrunkStream) {
        // A machine of an edge takes no stream from the other side.
        drop(stream);
    }

    fn gone_away(&self) {
        self.0.gone_away();
    }
}

impl EdgeTrunks {
    /// Makes a worker's part, which counts in `metrics`.
    pub fn new(pool: Arc<TrunkPool>, metrics: &Metrics) -> Rc<Self> {
        let metrics = TunnelMetrics::new(metrics, &pool.edge);
        Rc::new(Self { pool, trunks: RefCell::default(), came: Notify::new(), metrics })
    }

    /// Carries the trunks that are given to this worker, as tasks of `tasks`.
    pub async fn run(self: Rc<Self>, mut new: NewEdgeTrunks, scratch: Rc<Scratch>, tasks: Tasks) {
        while let Some(NewEdgeTrunk { stream, early, core, place, alive, tether }) = new.recv().await {
            let Ok(stream) = stream.attach() else { continue };
            let (trunk, core) = (Trunk::new(Side::Edge, core.credit, Arc::default()), Rc::new(core));
            self.trunks.borrow_mut().push(KnownTrunk { trunk: Rc::clone(&trunk), core });
            self.came.notify_waiters();
            let (all, scratch) = (Rc::clone(&self), Rc::clone(&scratch));
            tasks.spawn(async move {
                let _listed = Listed { all: &all, trunk: &trunk };
                let _counted = (all.metrics.trunk(), alive);
                let owner = EdgeTrunkOwner(tether);
                let end = tokio::select! {
                    end = trunk.run(stream, early, &scratch, &owner) => end,
                    end = owner.0.steer(&trunk, true, place) => end,
                };
                let streams = trunk.streams();
                if streams > 0 {
                    info!(reason = %end, streams, "a trunk to the core has ended, and its streams with it");
                } else {
                    debug!(reason = %end, "a trunk to the core has ended");
                }
            });
        }
    }

    /// Ends all trunks, once what was said on them is out as far as their sockets take it.
    pub fn close(&self) {
        self.trunks.borrow().iter().for_each(|known| known.trunk.close());
    }

    /// Returns whether streams to this listener of the core have to go over a trunk of the worker that owns their client.
    pub fn by_client(&self, listener: &str) -> bool {
        let trunks = self.trunks.borrow();
        trunks.iter().any(|known| known.core.workers > 1 && known.core.links.iter().any(|name| name == listener))
    }

    /// Opens a stream, of this client if it is a link, as soon as there is a trunk for it. The guard counts it.
    ///
    /// # Errors
    /// Returns the reason why there was none `within` that time.
    pub async fn open(
        &self,
        request: &OpenRequest,
        client: Option<ClientId>,
        within: Duration,
    ) -> Result<(Stream, GaugeGuard), ConnectResult> {
        self.wait(within, || self.open_now(request, client)).await
    }

    /// Waits until there is a trunk that takes streams.
    ///
    /// # Errors
    /// Returns the reason why there was none `within` that time.
    pub async fn any(&self, within: Duration) -> Result<(), ConnectResult> {
        self.wait(within, || self.trunks.borrow().iter().any(|known| known.trunk.takes_streams()).then_some(())).await
    }

    /// Waits until there is something, which is looked for again with each trunk that comes.
    async fn wait<T>(&self, within: Duration, look: impl Fn() -> Option<T>) -> Result<T, ConnectResult> {
        let looking = async {
            loop {
                let (came, failed) = (self.came.notified(), self.pool.failed.notified());
                if let Some(found) = look() {
                    return Ok(found);
                }
                tokio::select! {
                    () = came => {}
                    () = failed => return Err(*self.pool.failure.lock()),
                }
            }
        };
        timeout(within, looking).await.unwrap_or(Err(ConnectResult::Timeout))
    }

    /// Opens a stream that belongs to no player, in the same way.
    ///
    /// # Errors
    /// Fails as [`EdgeTrunks::open`] does.
    pub(super) async fn open_aside(&self, request: &OpenRequest, within: Duration) -> Result<Stream, ConnectResult> {
        let open = || {
            let mut stream = self.least_used(None)?.open(request).map(Stream::from)?;
            stream.set_aside();
            Some(stream)
        };
        self.wait(within, open).await
    }

    fn open_now(&self, request: &OpenRequest, client: Option<ClientId>) -> Option<(Stream, GaugeGuard)> {
        let stream = self.least_used(client)?.open(request)?;
        Some((stream.into(), self.metrics.stream()))
    }

    /// Returns the trunk for a new stream, of this client if it is a link.
    fn least_used(&self, client: Option<ClientId>) -> Option<Rc<Trunk>> {
        let now = Instant::now();
        let trunks = self.trunks.borrow();
        let fits =
            |known: &&KnownTrunk| known.trunk.takes_streams() && client.is_none_or(|client| known.core.is_for(client));
        let least = trunks.iter().filter(fits).min_by_key(|known| (known.trunk.is_stalled(now), known.trunk.streams()));
        least.map(|known| Rc::clone(&known.trunk))
    }
}

/// The guard that lists a trunk as long as it is carried.
struct Listed<'a> {
    all: &'a EdgeTrunks,
    trunk: &'a Rc<Trunk>,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        if let Ok(mut trunks) = self.all.trunks.try_borrow_mut() {
            trunks.retain(|known| !Rc::ptr_eq(&known.trunk, self.trunk));
        }
    }
}

#[cfg(test)]
mod tests {
    use otproxy_protocol::trunk::CoreWorkers;

    use super::super::hello;
    use super::*;

    #[test]
    fn whichever_workers_the_core_chooses_each_pair_has_a_trunk() {
        let (pool, _workers) = TrunkPool::new("waw1", 2);
        let says = |worker| Hello { owner: Some(CoreWorkers { worker, key: [0; 16] }), ..hello(2) };
        // Made at once, when the edge did not know yet how many workers the core has.
        let places = [0, 1, 0, 1].map(|owner| pool.settle(&says(owner), None, CancellationToken::new()));
        let mut pairs = places.map(|place| place.pair);
        pairs.sort_unstable();
        assert_eq!(pairs, [(0, 0), (0, 1), (1, 0), (1, 1)]);
        // The core does not have the one that was wished for.
        let wished = pool.place(1..2);
        assert_eq!(pool.settle(&says(0), Some(wished), CancellationToken::new()).owner(), 0);
    }

    #[test]
    fn without_a_trunk_a_player_waits_and_learns_that_none_can_be_made() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (pool, _workers) = TrunkPool::new("waw1", 1);
            let trunks = EdgeTrunks::new(Arc::clone(&pool), &Metrics::new());
            let request = OpenRequest {
                listener: "links".to_owned(),
                player: ([192, 0, 2, 1], 1).into(),
                destination: ([192, 0, 2, 2], 2).into(),
            };
            let within = Duration::from_secs(3);
            let result = trunks.open(&request, None, within).await.map(drop);
            assert_eq!(result, Err(ConnectResult::Timeout));
            let opening = trunks.open(&request, None, within);
            let failing = async { pool.failed(ConnectResult::Refused) };
            let (result, ()) = tokio::join!(opening, failing);
            assert_eq!(result.map(drop), Err(ConnectResult::Refused));
        });
    }
}

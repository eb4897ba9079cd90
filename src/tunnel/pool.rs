//! The spare connections of an edge, and the players that wait for one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use otproxy_net::{ConnectResult, DetachedStream};

/// A request for a connection.
pub(super) type SpareRequest = oneshot::Sender<Result<DetachedStream, ConnectResult>>;
/// An offered connection, which takes one request.
type SpareOffer = oneshot::Sender<SpareRequest>;

/// The pool from which workers take connections to the core.
#[derive(Debug)]
pub struct SparePool {
    state: Mutex<State>,
    /// Notified whenever a request begins to wait.
    wanted: Arc<Notify>,
    /// Spare connections on which the core has answered, offered at this moment or not.
    kept: AtomicUsize,
    /// The number of spare connections since the start.
    made: AtomicUsize,
}

/// A spare connection on which the core has answered.
#[derive(Debug)]
pub(crate) struct HeldSpare<'a>(&'a SparePool);

impl Drop for HeldSpare<'_> {
    fn drop(&mut self) {
        self.0.kept.fetch_sub(1, Relaxed);
    }
}

#[derive(Debug, Default)]
struct State {
    /// The connection that was heard from last is at the back.
    offers: Vec<SpareOffer>,
    /// Waiting requests, in the order of their arrival.
    waiting: VecDeque<SpareRequest>,
}

impl SparePool {
    /// Makes an empty pool, which notifies `wanted` when a request begins to wait.
    pub fn new(wanted: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), wanted, kept: AtomicUsize::new(0), made: AtomicUsize::new(0) })
    }

    /// Returns the number of spare connections now, and of all since the start. As long as the latter grows, new
    /// players get through even if each spare is taken as soon as it is there.
    pub fn spare(&self) -> (usize, usize) {
        (self.kept.load(Relaxed), self.made.load(Relaxed))
    }

    /// Counts a spare connection while the guard is held.
    pub(crate) fn hold(&self) -> HeldSpare<'_> {
        self.kept.fetch_add(1, Relaxed);
        self.made.fetch_add(1, Relaxed);
        HeldSpare(self)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one push or pop, so it is whole whatever happened to the holder of the lock.
        self.state.lock()
    }

    /// Takes a connection: a spare one at once, or the next that is made.
    ///
    /// # Errors
    /// Returns the reason why there was none `within` that time.
    pub async fn take(&self, within: Duration) -> Result<DetachedStream, ConnectResult> {
        let taking = async {
            loop {
                let (request, answer) = oneshot::channel();
                self.ask(request);
                // A spare that ended just now leaves no answer: the next one is tried then.
                if let Ok(answer) = answer.await {
                    return answer;
                }
            }
        };
        timeout(within, taking).await.unwrap_or(Err(ConnectResult::Timeout))
    }

    fn ask(&self, mut request: SpareRequest) {
        let mut state = self.state();
        while let Some(offer) = state.offers.pop() {
            match offer.send(request) {
                Ok(()) => return,
                // It is no longer offered.
                Err(back) => request = back,
            }
        }
        state.waiting.retain(|other| !other.is_closed());
        state.waiting.push_back(request);
        self.wanted.notify_one();
    }

    /// Offers a connection.
    ///
    /// # Errors
    /// Returns the request that waits for one already, and is to have it.
    pub(super) fn offer(&self) -> Result<oneshot::Receiver<SpareRequest>, SpareRequest> {
        let mut state = self.state();
        if let Some(request) = state.next_waiting() {
            return Err(request);
        }
        let (offer, taken) = oneshot::channel();
        state.offers.retain(|other| !other.is_closed());
        state.offers.push(offer);
        Ok(taken)
    }

    /// Returns the number of waiting requests.
    pub(super) fn waiting(&self) -> usize {
        self.state().waiting.iter().filter(|request| !request.is_closed()).count()
    }

    /// Fails the next waiting request, as a connection could not be made: nobody waits in vain while later requests
    /// learn it at once.
    pub(super) fn failed(&self, result: ConnectResult) {
        if let Some(request) = self.state().next_waiting() {
            let _ = request.send(Err(result));
        }
    }
}

impl State {
    fn next_waiting(&mut self) -> Option<SpareRequest> {
        while let Some(request) = self.waiting.pop_front() {
            if !request.is_closed() {
                return Some(request);
            }
        }
        None
    }
}

#[cfg(test)]
impl SparePool {
    /// Returns the number of offers that nobody has taken.
    pub(super) fn offered(&self) -> usize {
        self.state().offers.iter().filter(|offer| !offer.is_closed()).count()
    }

    /// Makes a request that is gone at once.
    pub(super) fn ask_and_leave(&self) {
        self.ask(oneshot::channel().0);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;
    use otproxy_net::Stream;

    const LONG: Duration = Duration::from_secs(3600);

    type Taken = Result<DetachedStream, ConnectResult>;

    /// Runs on a clock that stands until there is nothing else to do.
    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(test);
    }

    fn poll(taking: &mut Pin<&mut impl Future<Output = Taken>>) -> Poll<Taken> {
        taking.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    /// Makes a connection that can be identified by its own port.
    async fn connection() -> (DetachedStream, u16) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let port = stream.local_addr().unwrap().port();
        (Stream::new(stream).unwrap().detach().unwrap(), port)
    }

    fn port(taken: Taken) -> u16 {
        taken.unwrap().attach().unwrap().local_addr().unwrap().port()
    }

    #[test]
    fn the_one_that_was_offered_last_is_taken_and_those_that_ended_are_passed_over() {
        run(async {
            let pool = SparePool::new(Arc::default());
            let (first, ended, mut last) = (pool.offer().unwrap(), pool.offer().unwrap(), pool.offer().unwrap());
            drop(ended);
            assert_eq!(pool.offered(), 2);
            let mut taking = pin!(pool.take(LONG));
            assert!(poll(&mut taking).is_pending());
            let (connection, number) = connection().await;
            assert!(last.try_recv().unwrap().send(Ok(connection)).is_ok());
            let Poll::Ready(taken) = poll(&mut taking) else { panic!("it is there") };
            assert_eq!((port(taken), pool.offered(), pool.waiting()), (number, 1, 0));
            drop(first);
            let mut taking = pin!(pool.take(LONG));
            assert!(poll(&mut taking).is_pending());
            assert_eq!((pool.offered(), pool.waiting()), (0, 1), "who finds none waits");
        });
    }

    #[test]
    fn one_that_ends_in_the_hand_is_no_answer_and_the_next_one_is_taken() {
        run(async {
            let pool = SparePool::new(Arc::default());
            let (mut second, first) = (pool.offer().unwrap(), pool.offer().unwrap());
            let mut taking = pin!(pool.take(LONG));
            assert!(poll(&mut taking).is_pending());
            // Dropped with the request in it.
            drop(first);
            assert!(poll(&mut taking).is_pending());
            let (connection, number) = connection().await;
            assert!(second.try_recv().unwrap().send(Ok(connection)).is_ok());
            let Poll::Ready(taken) = poll(&mut taking) else { panic!("it is there") };
            assert_eq!(port(taken), number);
        });
    }

    #[test]
    fn those_who_wait_are_served_in_their_order_but_for_those_who_left() {
        run(async {
            let wanted = Arc::new(Notify::new());
            let pool = SparePool::new(Arc::clone(&wanted));
            let mut first = Box::pin(pool.take(LONG));
            let (mut second, mut third) = (pin!(pool.take(LONG)), pin!(pool.take(LONG)));
            assert!(poll(&mut first.as_mut()).is_pending());
            assert!(poll(&mut second).is_pending() && poll(&mut third).is_pending());
            wanted.notified().await;
            drop(first);
            assert_eq!(pool.waiting(), 2);
            for taking in [&mut second, &mut third] {
                let (connection, number) = connection().await;
                let Err(request) = pool.offer() else { panic!("somebody waits") };
                assert!(request.send(Ok(connection)).is_ok());
                let Poll::Ready(taken) = poll(taking) else { panic!("it is there") };
                assert_eq!(port(taken), number);
            }
            assert!(pool.offer().is_ok(), "nobody waits any more");
        });
    }

    #[test]
    fn a_failure_is_the_first_ones_and_nobody_waits_for_ever() {
        run(async {
            let pool = SparePool::new(Arc::default());
            pool.failed(ConnectResult::Refused);
            let (mut first, mut second) = (pin!(pool.take(LONG)), pin!(pool.take(LONG)));
            assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
            pool.failed(ConnectResult::Refused);
            assert!(matches!(poll(&mut first), Poll::Ready(Err(ConnectResult::Refused))));
            assert!(poll(&mut second).is_pending());
            assert!(matches!(second.await, Err(ConnectResult::Timeout)));
            assert_eq!(pool.waiting(), 0);
        });
    }

    #[test]
    fn who_leaves_leaves_nothing_behind() {
        run(async {
            let pool = SparePool::new(Arc::default());
            for _ in 0..1000 {
                assert!(poll(&mut pin!(pool.take(LONG))).is_pending());
            }
            assert!(pool.state().waiting.len() <= 1);
            // An offer whose request was abandoned since can be told from one that is wanted.
            let Ok(mut offer) = pool.offer() else { panic!("nobody waits") };
            assert!(poll(&mut pin!(pool.take(LONG))).is_pending());
            assert!(offer.try_recv().unwrap().is_closed());
            for _ in 0..1000 {
                drop(pool.offer());
            }
            assert!(pool.state().offers.len() <= 1);
        });
    }
}

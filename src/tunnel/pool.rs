//! The spare connections of an edge, and the players that wait for one.

use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use crate::net::Detached;
use crate::reason::ConnectResult;

/// Somebody who wants a connection.
pub(super) type Request = oneshot::Sender<Result<Detached, ConnectResult>>;
/// A connection that can be had: it takes one request.
type Offer = oneshot::Sender<Request>;

/// Where workers take connections to the core from.
#[derive(Debug)]
pub struct Pool {
    state: Mutex<State>,
    /// Told whenever somebody begins to wait.
    wanted: Arc<Notify>,
    /// Spare connections on which the core has answered, whether or not they are offered at this moment.
    kept: AtomicUsize,
    /// How many there have been.
    made: AtomicUsize,
}

/// A spare connection on which the core has answered.
#[derive(Debug)]
pub(crate) struct Kept<'a>(&'a Pool);

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        self.0.kept.fetch_sub(1, Relaxed);
    }
}

#[derive(Debug, Default)]
struct State {
    /// The one that was heard from last is at the back.
    offers: Vec<Offer>,
    /// In the order in which they came.
    waiting: VecDeque<Request>,
}

impl Pool {
    /// An empty one, which tells `wanted` when somebody begins to wait.
    pub fn new(wanted: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), wanted, kept: AtomicUsize::new(0), made: AtomicUsize::new(0) })
    }

    /// How many spare connections there are, and have been since the start. Where the latter grows, new players get through
    /// even if each spare is taken as soon as it is there.
    pub fn spare(&self) -> (usize, usize) {
        (self.kept.load(Relaxed), self.made.load(Relaxed))
    }

    /// Counts a spare connection while what this gives is held.
    pub(crate) fn keep(&self) -> Kept<'_> {
        self.kept.fetch_add(1, Relaxed);
        self.made.fetch_add(1, Relaxed);
        Kept(self)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one push or pop: it is whole whatever happened to who held it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection: a spare one at once, or the next that is made.
    ///
    /// # Errors
    /// Why none could be had `within` that time.
    pub async fn take(&self, within: Duration) -> Result<Detached, ConnectResult> {
        let taking = async {
            loop {
                let (request, answer) = oneshot::channel();
                self.ask(request);
                // A spare that ended just now leaves no answer: the next one, then.
                if let Ok(answer) = answer.await {
                    return answer;
                }
            }
        };
        timeout(within, taking).await.unwrap_or(Err(ConnectResult::Timeout))
    }

    fn ask(&self, mut request: Request) {
        let mut state = self.state();
        while let Some(offer) = state.offers.pop() {
            match offer.send(request) {
                Ok(()) => return,
                // It is not offered any more.
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
    /// Who waits for one already, and is to have it.
    pub(super) fn offer(&self) -> Result<oneshot::Receiver<Request>, Request> {
        let mut state = self.state();
        if let Some(request) = state.next_waiting() {
            return Err(request);
        }
        let (offer, taken) = oneshot::channel();
        state.offers.retain(|other| !other.is_closed());
        state.offers.push(offer);
        Ok(taken)
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.state().waiting.iter().filter(|request| !request.is_closed()).count()
    }

    /// A connection for the next one who waits could not be made: nobody waits in vain for what others can be told at once.
    pub(super) fn failed(&self, result: ConnectResult) {
        if let Some(request) = self.state().next_waiting() {
            let _ = request.send(Err(result));
        }
    }
}

impl State {
    fn next_waiting(&mut self) -> Option<Request> {
        while let Some(request) = self.waiting.pop_front() {
            if !request.is_closed() {
                return Some(request);
            }
        }
        None
    }
}

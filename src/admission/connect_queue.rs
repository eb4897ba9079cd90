//! The queue of connects to a server that takes only so many at a time.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use parking_lot::Mutex;
use thiserror::Error;
use tokio::time::{sleep_until, timeout_at};

use super::AddressKey;
use super::fair_queue::FairQueue;
use otproxy_protocol::pacer::Pacer;
use otproxy_protocol::quota::Quota;

/// A connect has no place in the queue: it would wait for too long, and nobody has more places in it than its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("too many connects wait for their turn")]
pub struct QueueFull;

/// The queue of connects to the servers of one host, over all workers. Networks take turns in it. One lock is held for a moment when a
/// connect comes, has its turn, or is given up.
#[derive(Debug)]
pub struct ConnectQueue(Mutex<State>);

#[derive(Debug)]
struct State {
    rate: Quota,
    pacer: Pacer,
    queue: FairQueue,
    waiting: HashMap<u64, Waiting>,
    last: u64,
}

/// A connect that waits.
#[derive(Debug)]
struct Waiting {
    address: AddressKey,
    /// It is next since it looked last, or its turn may come at another time.
    changed: bool,
    waker: Option<Waker>,
}

impl Waiting {
    /// Has its task look at what has changed.
    fn change(&mut self) {
        self.changed = true;
        self.waker.take().into_iter().for_each(Waker::wake);
    }
}

/// What a place comes to.
enum Step {
    /// It is its turn.
    Turn,
    /// It was given to another one.
    Evicted,
    /// It is next, at that time.
    Next(Instant),
    /// Others come before.
    Behind,
}

impl ConnectQueue {
    /// Makes an empty queue, which gives turns at this rate.
    pub fn new(rate: Quota) -> Arc<Self> {
        let (queue, waiting) = (FairQueue::default(), HashMap::new());
        Arc::new(Self(Mutex::new(State { rate, pacer: Pacer::new(rate), queue, waiting, last: 0 })))
    }

    /// Changes the rate. Turns that were given stay, and who waits goes on waiting.
    pub fn set(&self, rate: Quota) {
        let mut state = self.0.lock();
        state.rate = rate;
        state.pacer.set(rate);
        state.wake_next();
    }

    /// Takes a place for a connect of `address`, which waits for its turn until `until` at the most. If not all that wait
    /// could have their turn by then, the network that has the most places gives one up.
    ///
    /// # Errors
    /// That is the network of `address`; then nothing has changed.
    pub fn join(
        self: &Arc<Self>,
        address: AddressKey,
        now: Instant,
        until: Instant,
    ) -> Result<ConnectPlace, QueueFull> {
        let mut state = self.0.lock();
        state.last += 1;
        let number = state.last;
        state.queue.add(address, number);
        let ahead = u32::try_from(state.waiting.len()).unwrap_or(u32::MAX);
        if state.pacer.next(now) + state.rate.interval().saturating_mul(ahead) > until {
            let Some(evicted) = state.queue.evicted_by(address) else {
                state.queue.remove(address, number);
                return Err(QueueFull);
            };
            state.evict(evicted);
        }
        state.waiting.insert(number, Waiting { address, changed: false, waker: None });
        Ok(ConnectPlace { queue: Arc::clone(self), number, until })
    }

    /// Waits for a turn to connect that no player waits for, and takes it. After half of the time until `until` it takes the
    /// next turn, whoever waits: a host that is never looked at seems to be down.
    ///
    /// # Errors
    /// There was no turn by then.
    pub async fn turn_behind(&self, until: Instant) -> Result<(), QueueFull> {
        let began = tokio::time::Instant::now().into_std();
        let patient_until = began + until.saturating_duration_since(began) / 2;
        loop {
            let now = tokio::time::Instant::now().into_std();
            let others_are_done = self.0.lock().others_are_done(now);
            if others_are_done <= now || now >= patient_until {
                let turn = self.0.lock().pacer.take(now, until).ok_or(QueueFull)?;
                sleep_until(turn.into()).await;
                return Ok(());
            }
            sleep_until(others_are_done.min(patient_until).into()).await;
        }
    }
}

impl State {
    /// Returns the time at which all that wait now will have had their turns.
    fn others_are_done(&self, now: Instant) -> Instant {
        match u32::try_from(self.waiting.len()).unwrap_or(u32::MAX) {
            0 => now,
            waiting => self.pacer.next(now) + self.rate.interval().saturating_mul(waiting),
        }
    }

    fn step(&mut self, number: u64, now: Instant) -> Step {
        let is_next = self.queue.next() == Some(number);
        let Some(waiting) = self.waiting.get_mut(&number) else { return Step::Evicted };
        waiting.changed = false;
        if !is_next {
            return Step::Behind;
        }
        let address = waiting.address;
        if self.pacer.take(now, now).is_none() {
            return Step::Next(self.pacer.next(now));
        }
        self.waiting.remove(&number);
        self.queue.serve(address, number);
        self.wake_next();
        Step::Turn
    }

    /// Takes the place of a connect away, whose task finds out.
    fn evict(&mut self, number: u64) {
        let was_next = self.queue.next() == Some(number);
        let Some(mut waiting) = self.waiting.remove(&number) else { return };
        self.queue.remove(waiting.address, number);
        waiting.change();
        if was_next {
            self.wake_next();
        }
    }

    fn wake_next(&mut self) {
        if let Some(waiting) = self.queue.next().and_then(|next| self.waiting.get_mut(&next)) {
            waiting.change();
        }
    }
}

/// A place in the queue. Dropped before its turn, it is given on.
#[derive(Debug)]
pub struct ConnectPlace {
    queue: Arc<ConnectQueue>,
    number: u64,
    until: Instant,
}

impl ConnectPlace {
    /// Waits for its turn to connect, and takes it.
    ///
    /// # Errors
    /// The place was given to another network, or its turn did not come in time.
    pub async fn turn(self) -> Result<(), QueueFull> {
        loop {
            let now = tokio::time::Instant::now().into_std();
            let step = self.queue.0.lock().step(self.number, now);
            let until = match step {
                Step::Turn => return Ok(()),
                Step::Evicted => return Err(QueueFull),
                _ if now >= self.until => return Err(QueueFull),
                Step::Next(at) => at.min(self.until),
                Step::Behind => self.until,
            };
            // Whichever comes first, the next step says what it is.
            let _ = timeout_at(until.into(), poll_fn(|cx| self.poll_changed(cx))).await;
        }
    }

    fn poll_changed(&self, cx: &Context<'_>) -> Poll<()> {
        match self.queue.0.lock().waiting.get_mut(&self.number) {
            Some(waiting) if !waiting.changed => {
                waiting.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }
}

impl Drop for ConnectPlace {
    fn drop(&mut self) {
        self.queue.0.lock().evict(self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::time::Duration;

    use tokio::task::{JoinHandle, LocalSet, spawn_local, yield_now};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const WAIT: Duration = Duration::from_secs(30);

    /// Runs on a clock that jumps whenever nothing else is to be done.
    fn block_on(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(LocalSet::new().run_until(test));
    }

    fn key(address: &str) -> AddressKey {
        address.parse::<std::net::IpAddr>().unwrap().into()
    }

    /// A queue, and the turns that were taken in it: for each, the name of the connect and the second.
    struct Test {
        queue: Arc<ConnectQueue>,
        began: tokio::time::Instant,
        turns: Rc<RefCell<Vec<(usize, u64)>>>,
    }

    impl Test {
        fn new(rate: Quota) -> Self {
            Self { queue: ConnectQueue::new(rate), began: tokio::time::Instant::now(), turns: Rc::default() }
        }

        fn place(&self, address: &str) -> Result<ConnectPlace, QueueFull> {
            let now = tokio::time::Instant::now().into_std();
            self.queue.join(key(address), now, now + WAIT)
        }

        /// Has a connect wait for its turn.
        fn wait(&self, name: usize, address: &str) -> JoinHandle<Result<(), QueueFull>> {
            let (place, turns, began) = (self.place(address), Rc::clone(&self.turns), self.began);
            spawn_local(async move {
                place?.turn().await?;
                turns.borrow_mut().push((name, began.elapsed().as_secs()));
                Ok(())
            })
        }
    }

    #[test]
    fn turns_come_at_the_rate_and_networks_alternate() {
        block_on(async {
            let test = Test::new(Quota::new(SECOND, 2));
            let addresses = ["10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.2", "192.0.2.1"];
            let all: Vec<_> = addresses.iter().enumerate().map(|(name, address)| test.wait(name, address)).collect();
            for one in all {
                assert_eq!(one.await.unwrap(), Ok(()));
            }
            assert_eq!(*test.turns.borrow(), [(0, 0), (4, 0), (3, 1), (1, 2), (2, 3)]);
            assert!(test.queue.0.lock().waiting.is_empty());
        });
    }

    #[test]
    fn a_place_that_is_given_up_is_given_on_whoever_was_next() {
        block_on(async {
            let test = Test::new(Quota::new(SECOND, 1));
            let all: Vec<_> = (0..4).map(|name| test.wait(name, "10.0.0.1")).collect();
            tokio::time::sleep(SECOND / 2).await;
            // The one that is next, and the one behind it.
            all[1].abort();
            all[2].abort();
            for one in all {
                let _ = one.await;
            }
            assert_eq!(*test.turns.borrow(), [(0, 0), (3, 1)]);
        });
    }

    #[test]
    fn a_full_queue_has_room_for_a_network_with_fewer_places() {
        block_on(async {
            let test = Test::new(Quota::new(SECOND, 1));
            // An IPv6 /56, with a few places for each /64.
            let crowd: Vec<_> = (0..31).map(|n| test.wait(n, &format!("2001:db8:0:{}::", n % 8))).collect();
            yield_now().await;
            assert_eq!(test.place("2001:db8:0:1::").err(), Some(QueueFull), "nobody has more");
            let other = test.wait(100, "192.0.2.1");
            assert_eq!(other.await.unwrap(), Ok(()));
            assert_eq!(*test.turns.borrow(), [(0, 0), (1, 1), (100, 2)]);
            let mut lost = 0;
            for one in crowd {
                lost += usize::from(one.await.unwrap() == Err(QueueFull));
            }
            assert_eq!(lost, 1);
        });
    }

    #[test]
    fn a_connect_waits_as_long_as_it_said_and_no_longer() {
        block_on(async {
            let test = Test::new(Quota::new(SECOND * 10, 1));
            let all: Vec<_> = (0..4).map(|name| test.wait(name, "10.0.0.1")).collect();
            yield_now().await;
            assert_eq!(test.place("10.0.0.1").err(), Some(QueueFull));
            // In time as it was, and then the rate is lowered.
            test.queue.set(Quota::new(SECOND * 3600, 1));
            let mut results = Vec::new();
            for one in all {
                results.push(one.await.unwrap());
            }
            assert_eq!(results, [Ok(()), Ok(()), Err(QueueFull), Err(QueueFull)]);
            assert_eq!(test.began.elapsed(), WAIT);
        });
    }

    #[test]
    fn what_goes_behind_players_waits_for_those_that_are_there_and_for_half_of_its_time() {
        block_on(async {
            let test = Test::new(Quota::new(SECOND, 1));
            let behind = |name: usize, within: Duration| {
                let (queue, turns, began) = (Arc::clone(&test.queue), Rc::clone(&test.turns), test.began);
                spawn_local(async move {
                    queue.turn_behind(tokio::time::Instant::now().into_std() + within).await?;
                    turns.borrow_mut().push((name, began.elapsed().as_secs()));
                    Ok(())
                })
            };
            let players: Vec<_> = (0..6).map(|name| test.wait(name, "10.0.0.1")).collect();
            yield_now().await;
            let (patient, hasty, hopeless) =
                (behind(100, SECOND * 30), behind(200, SECOND * 5), behind(300, SECOND / 2));
            assert_eq!(hopeless.await.unwrap(), Err(QueueFull));
            for one in players.into_iter().chain([patient, hasty]) {
                assert_eq!(one.await.unwrap(), Ok(()));
            }
            let expected = [(0, 0), (1, 1), (2, 2), (200, 3), (3, 4), (4, 5), (5, 6), (100, 7)];
            assert_eq!(*test.turns.borrow(), expected);
        });
    }

    #[test]
    fn another_rate_holds_for_all_that_wait() {
        block_on(async {
            let test = Test::new(Quota::new(SECOND, 1));
            let all: Vec<_> = (0..3).map(|name| test.wait(name, "10.0.0.1")).collect();
            yield_now().await;
            test.queue.set(Quota::new(Duration::from_millis(1), 1000));
            for one in all {
                assert_eq!(one.await.unwrap(), Ok(()));
            }
            assert_eq!(*test.turns.borrow(), [(0, 0), (1, 0), (2, 0)]);
        });
    }
}

//! Sleeps that end in time. Sleeps of the runtime end up to two milliseconds later, as it counts in whole ones. A load
//! in such steps comes in bursts, and its latencies would be the timer's.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// One timer of the system for any number of sleeps.
#[derive(Debug, Clone)]
pub struct Timer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    fd: AsyncFd<OwnedFd>,
    sleepers: Mutex<Sleepers>,
}

#[derive(Debug, Default)]
struct Sleepers {
    wakers: BTreeMap<(Instant, u64), Waker>,
    next_id: u64,
    /// The time at which the system's timer fires.
    armed: Option<Instant>,
}

impl Timer {
    /// Makes a timer, and the task that wakes its sleeps: the owner spawns it on the current tokio runtime, and stops
    /// it when no sleep is left.
    ///
    /// # Errors
    /// Fails if the system gives none.
    ///
    /// # Panics
    /// Panics outside of a tokio runtime.
    pub fn new() -> io::Result<(Self, impl Future<Output = ()> + Send + use<>)> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for owners that give up their descriptor; this one cannot"
        )]
        let fd = AsyncFd::new(fd)?;
        let shared = Arc::new(Shared { fd, sleepers: Mutex::default() });
        Ok((Self { shared: shared.clone() }, drive(shared)))
    }

    /// Sleeps until a moment; not at all where it is over.
    pub fn sleep_until(&self, moment: Instant) -> Sleep<'_> {
        Sleep { shared: &self.shared, moment, id: None }
    }
}

/// See [`Timer::sleep_until`].
#[derive(Debug)]
pub struct Sleep<'a> {
    shared: &'a Shared,
    moment: Instant,
    /// Set while it is among the sleepers.
    id: Option<u64>,
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        if now >= self.moment {
            return Poll::Ready(());
        }
        let shared = self.shared;
        let mut sleepers = shared.lock();
        let id = self.id.unwrap_or_else(|| {
            sleepers.next_id += 1;
            sleepers.next_id
        });
        self.id = Some(id);
        sleepers.wakers.insert((self.moment, id), cx.waker().clone());
        if sleepers.armed.is_none_or(|armed| self.moment < armed) {
            shared.arm(&mut sleepers, self.moment, now);
        }
        Poll::Pending
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        // The timer may still fire for it, which wakes nobody.
        if let Some(id) = self.id {
            self.shared.lock().wakers.remove(&(self.moment, id));
        }
    }
}

impl Shared {
    fn lock(&self) -> parking_lot::MutexGuard<'_, Sleepers> {
        self.sleepers.lock()
    }

    fn arm(&self, sleepers: &mut Sleepers, moment: Instant, now: Instant) {
        // Zero would turn it off.
        let wait = moment.saturating_duration_since(now).max(Duration::from_nanos(1));
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: wait.subsec_nanos().into() };
        let spec = Itimerspec { it_interval: zero, it_value: value };
        // It fails for times that cannot be, and this one can.
        let armed = timerfd_settime(self.fd.get_ref(), TimerfdTimerFlags::empty(), &spec).is_ok();
        sleepers.armed = armed.then_some(moment);
    }

    /// Takes those whose time has come, and sets the timer for the next.
    fn due(&self, due: &mut Vec<Waker>) {
        let mut sleepers = self.lock();
        let now = Instant::now();
        sleepers.armed = None;
        while let Some(entry) = sleepers.wakers.first_entry() {
            let moment = entry.key().0;
            if moment > now {
                self.arm(&mut sleepers, moment, now);
                return;
            }
            due.push(entry.remove());
        }
    }
}

async fn drive(shared: Arc<Shared>) {
    let mut due = Vec::new();
    // It fails only where the runtime ends.
    while let Ok(mut ready) = shared.fd.readable().await {
        // Not read: setting the timer anew takes the place of that, and each expiry is an event of its own.
        ready.clear_ready();
        shared.due(&mut due);
        due.drain(..).for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<F: Future>(test: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test hangs") })
    }

    #[test]
    fn all_sleeps_end_and_none_early() {
        run(async {
            let (timer, driver) = Timer::new().unwrap();
            tokio::spawn(driver);
            let start = Instant::now();
            let sleep = async |micros: u64| {
                let moment = start + Duration::from_micros(micros);
                timer.sleep_until(moment).await;
                assert!(Instant::now() >= moment);
            };
            tokio::join!(sleep(30_000), sleep(20_000), sleep(60_000), sleep(45_000));
            // A time that is past needs no timer.
            timer.sleep_until(start).await;
        });
    }

    #[test]
    fn a_sleep_that_is_given_up_leaves_nothing_and_holds_up_no_other() {
        run(async {
            let (timer, driver) = Timer::new().unwrap();
            tokio::spawn(driver);
            let now = Instant::now();
            let far = now + Duration::from_secs(3600);
            for _ in 0..10 {
                tokio::select! {
                    () = timer.sleep_until(far) => panic!("an hour is over"),
                    () = timer.sleep_until(Instant::now() + Duration::from_millis(2)) => {}
                }
            }
            assert!(timer.shared.lock().wakers.is_empty());
            timer.sleep_until(Instant::now() + Duration::from_millis(1)).await;
        });
    }
}

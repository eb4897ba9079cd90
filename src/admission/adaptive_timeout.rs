//! Time limits of unauthenticated peers, which shrink while slots run out.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use otproxy_net::pump::IdleLimit;

use super::{ListenerAdmission, PRESSURE_LEAST};

/// A time limit that shrinks under pressure, also for peers that wait already. The pressure is read only when the timer
/// fires, which is as often as the shortest possible limit.
#[derive(Debug, Clone, Copy)]
pub struct AdaptiveTimeout<'a> {
    admission: &'a ListenerAdmission,
    limit: Duration,
    least: Duration,
}

impl<'a> AdaptiveTimeout<'a> {
    /// Makes a limit of `limit`, which shrinks no lower than `floor` unless `limit` itself is lower. The connections
    /// behind `admission` make the pressure.
    pub fn new(admission: &'a ListenerAdmission, limit: Duration, floor: Duration) -> Self {
        Self { admission, limit, least: limit.mul_f64(PRESSURE_LEAST).max(floor).min(limit) }
    }

    /// Runs `task`; `None` if it takes too long.
    pub async fn within<F: Future>(&self, task: F) -> Option<F::Output> {
        let (since, mut task) = (Instant::now(), pin!(task));
        loop {
            if let Ok(output) = timeout_at(self.next_look(since), task.as_mut()).await {
                return Some(output);
            }
            if self.is_over(since) {
                return None;
            }
        }
    }

    fn now(&self) -> Duration {
        let part = self.admission.time_left_factor();
        if part < 1.0 { self.limit.mul_f64(part).max(self.least) } else { self.limit }
    }
}

impl IdleLimit for AdaptiveTimeout<'_> {
    fn is_over(&self, since: Instant) -> bool {
        since.elapsed() >= self.now()
    }

    fn next_look(&self, since: Instant) -> Instant {
        (since + self.now()).min(Instant::now() + self.least)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use otproxy_net::Stream;
    use otproxy_net::pump::{Observer, PumpEnd, pump};
    use otproxy_net::worker::scratch;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::{sleep, sleep_until};

    use super::*;
    use crate::admission::{AdmissionLimits, PRESSURE_IDLE};

    /// Runs on a clock that jumps whenever nothing else is to be done.
    fn block_on<F: Future>(future: F) -> F::Output {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().unwrap().block_on(future)
    }

    const HOUR: Duration = Duration::from_secs(3600);

    /// Makes admission with this many slots.
    fn admission(connections: usize) -> ListenerAdmission {
        ListenerAdmission::alone(AdmissionLimits {
            connections: Some(connections),
            pressure: true,
            ..AdmissionLimits::default()
        })
    }

    #[test]
    fn a_limit_shrinks_to_a_fifth_or_to_its_floor() {
        let (admission, now) = (admission(4), Instant::now());
        let patience = |floor| AdaptiveTimeout::new(&admission, 10 * HOUR, floor);
        let come = |host: u8| admission.admit(SocketAddr::from(([192, 0, 2, host], 1)), now.into_std()).unwrap();
        let mut held = vec![come(1), come(2), come(3)];
        assert_eq!(patience(Duration::ZERO).now(), 10 * HOUR);
        held.push(come(4));
        assert_eq!(patience(Duration::ZERO).now(), 2 * HOUR);
        assert_eq!(patience(5 * HOUR).now(), 5 * HOUR);
        assert_eq!(patience(20 * HOUR).now(), 10 * HOUR, "a floor makes no limit longer");
        // The next look comes as soon as the answer can have changed.
        assert!(patience(Duration::ZERO).next_look(now) <= now + 2 * HOUR);
        drop(held);
        assert!(patience(Duration::ZERO).next_look(now) <= Instant::now() + 2 * HOUR);
    }

    #[test]
    fn who_waits_already_is_given_less_once_there_is_pressure() {
        let admission = admission(1);
        let began = block_on(async {
            let (patience, began) = (AdaptiveTimeout::new(&admission, 10 * HOUR, Duration::ZERO), Instant::now());
            let pressed = async {
                sleep(HOUR).await;
                let _only = admission.admit(SocketAddr::from(([192, 0, 2, 1], 1)), began.into_std()).unwrap();
                std::future::pending::<()>().await;
            };
            assert_eq!(patience.within(pressed).await, None);
            began.elapsed()
        });
        assert!((2 * HOUR..3 * HOUR).contains(&began), "{began:?}");
    }

    #[test]
    fn without_pressure_a_task_has_all_of_its_time() {
        let admission = admission(1);
        block_on(async {
            let patience = AdaptiveTimeout::new(&admission, 10 * HOUR, Duration::ZERO);
            let in_time = async {
                sleep(9 * HOUR).await;
                5
            };
            assert_eq!(patience.within(in_time).await, Some(5));
            assert_eq!(patience.within(sleep(11 * HOUR)).await, None);
        });
    }

    /// An observer that ignores everything.
    struct Nothing;

    impl Observer for Nothing {
        fn begins(&self, _: &[u8]) {}
        fn count_in(&self, _: u64) {}
        fn count_out(&self, _: u64) {}
    }

    #[test]
    fn an_idle_pump_ends_sooner_once_places_run_out() {
        async fn pair() -> (Stream, TcpStream) {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            (Stream::new(listener.accept().await.unwrap().0).unwrap(), far)
        }
        let admission = admission(1);
        let lasted = |full: bool| {
            let admission = &admission;
            async move {
                let ((client, _player), (target, _core)) = (pair().await, pair().await);
                let scratch = scratch();
                let (began, idle) = (Instant::now(), AdaptiveTimeout::new(admission, 10 * HOUR, PRESSURE_IDLE));
                let pumping = pump(&client, &target, Vec::new(), idle, &scratch, &Nothing);
                let other = async {
                    sleep_until(began + HOUR).await;
                    full.then(|| admission.admit(([192, 0, 2, 1], 1).into(), began.into_std()).unwrap())
                };
                let pumping = async { (pumping.await, began.elapsed()) };
                let ((reason, lasted), _held) = tokio::join!(pumping, other);
                assert_eq!(reason, PumpEnd::Idle);
                lasted
            }
        };
        let (alone, pressed) = block_on(async { (lasted(false).await, lasted(true).await) });
        assert!((10 * HOUR..11 * HOUR).contains(&alone), "{alone:?}");
        assert!((2 * HOUR..3 * HOUR).contains(&pressed), "{pressed:?}");
    }
}

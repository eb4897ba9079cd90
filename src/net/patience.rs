//! How long a stranger is waited for: less where places are about to run out.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::limits::{Gates, PRESSURE_LEAST};

/// A time limit that shrinks under pressure, for those too who wait already. Nothing is looked at but when its timer
/// fires: as often as the least that the limit can become.
#[derive(Debug, Clone, Copy)]
pub struct Patience<'a> {
    gates: Option<&'a Gates>,
    limit: Duration,
    least: Duration,
}

impl<'a> Patience<'a> {
    /// Up to `limit`, and never less than `floor` unless `limit` is. Those before `gates` are who makes the pressure.
    pub fn new(gates: &'a Gates, limit: Duration, floor: Duration) -> Self {
        Self { gates: Some(gates), limit, least: limit.mul_f64(PRESSURE_LEAST).max(floor).min(limit) }
    }

    /// The same time under any pressure.
    pub fn fixed(limit: Duration) -> Self {
        Self { gates: None, limit, least: limit }
    }

    /// Whether who has been waited for since then has had his time.
    pub fn is_over(&self, since: Instant) -> bool {
        since.elapsed() >= self.now()
    }

    /// When to ask that again.
    pub fn next_look(&self, since: Instant) -> Instant {
        (since + self.now()).min(Instant::now() + self.least)
    }

    /// Runs `task`; `None` where it takes too long.
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
        let part = self.gates.map_or(1.0, Gates::time_for_strangers);
        if part < 1.0 { self.limit.mul_f64(part).max(self.least) } else { self.limit }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::time::sleep;

    use super::*;
    use crate::limits::GateLimits;

    /// Time passes only where nothing else is to be done.
    fn block_on<F: Future>(future: F) -> F::Output {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().unwrap().block_on(future)
    }

    const HOUR: Duration = Duration::from_secs(3600);

    /// Gates that let in so many.
    fn gates(connections: usize) -> Gates {
        Gates::within(GateLimits { connections: Some(connections), pressure: true, ..GateLimits::default() })
    }

    #[test]
    fn a_limit_shrinks_to_a_fifth_or_to_its_floor() {
        let (gates, now) = (gates(4), Instant::now());
        let patience = |floor| Patience::new(&gates, 10 * HOUR, floor);
        let come = |host: u8| gates.admit(SocketAddr::from(([192, 0, 2, host], 1)), now.into_std()).unwrap();
        let mut held = vec![come(1), come(2), come(3)];
        assert_eq!(patience(Duration::ZERO).now(), 10 * HOUR);
        held.push(come(4));
        assert_eq!(patience(Duration::ZERO).now(), 2 * HOUR);
        assert_eq!(patience(5 * HOUR).now(), 5 * HOUR);
        assert_eq!(patience(20 * HOUR).now(), 10 * HOUR, "a floor makes no limit longer");
        assert_eq!(Patience::fixed(HOUR).now(), HOUR);
        // It is looked at as often as it can matter.
        assert!(patience(Duration::ZERO).next_look(now) <= now + 2 * HOUR);
        drop(held);
        assert!(patience(Duration::ZERO).next_look(now) <= Instant::now() + 2 * HOUR);
    }

    #[test]
    fn who_waits_already_is_given_less_once_there_is_pressure() {
        let gates = gates(1);
        let began = block_on(async {
            let (patience, began) = (Patience::new(&gates, 10 * HOUR, Duration::ZERO), Instant::now());
            let pressed = async {
                sleep(HOUR).await;
                let _only = gates.admit(SocketAddr::from(([192, 0, 2, 1], 1)), began.into_std()).unwrap();
                std::future::pending::<()>().await;
            };
            assert_eq!(patience.within(pressed).await, None);
            began.elapsed()
        });
        assert!((2 * HOUR..3 * HOUR).contains(&began), "{began:?}");
    }

    #[test]
    fn without_pressure_a_task_has_all_of_its_time() {
        let gates = gates(1);
        block_on(async {
            let patience = Patience::new(&gates, 10 * HOUR, Duration::ZERO);
            let in_time = async {
                sleep(9 * HOUR).await;
                5
            };
            assert_eq!(patience.within(in_time).await, Some(5));
            assert_eq!(patience.within(sleep(11 * HOUR)).await, None);
        });
    }
}

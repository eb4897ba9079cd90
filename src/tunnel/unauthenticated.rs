//! Limit of the handshakes of unauthenticated peers at once.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use tokio_util::sync::CancellationToken;

/// The limiter of unauthenticated peers. At the limit the handshake that has taken the longest gives way to a new one,
/// as it is the least likely to be an edge's. One that takes a moment gets through, whatever stalls beside it.
#[derive(Debug)]
pub(super) struct UnauthenticatedLimiter {
    most: usize,
    next: Cell<u64>,
    /// Handshakes in the order of their arrival.
    under_way: RefCell<BTreeMap<u64, CancellationToken>>,
}

/// A handshake in progress. Dropping it counts it off.
struct UnderWay<'a> {
    unauthenticated: &'a UnauthenticatedLimiter,
    number: u64,
}

impl UnauthenticatedLimiter {
    /// Makes a limiter to this many at once.
    pub fn new(most: usize) -> Self {
        Self { most, next: Cell::new(0), under_way: RefCell::default() }
    }

    /// Runs `handshake`; `None` if it had to give way.
    pub async fn run<T>(&self, handshake: impl Future<Output = T>) -> Option<T> {
        let (number, gives_way) = (self.next.replace(self.next.get() + 1), CancellationToken::new());
        {
            let mut under_way = self.under_way.borrow_mut();
            if under_way.len() >= self.most
                && let Some((_, longest)) = under_way.pop_first()
            {
                longest.cancel();
            }
            under_way.insert(number, gives_way.clone());
        }
        let _under_way = UnderWay { unauthenticated: self, number };
        gives_way.run_until_cancelled(handshake).await
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.unauthenticated.under_way.borrow_mut().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn the_one_that_takes_the_longest_gives_way() {
        let (unauthenticated, cx) = (UnauthenticatedLimiter::new(3), || Context::from_waker(Waker::noop()));
        let mut stalled: Vec<_> = (0..5).map(|_| Box::pin(unauthenticated.run(pending::<()>()))).collect();
        let mut poll = |number: usize| stalled[number].as_mut().poll(&mut cx());
        assert!((0..5).all(|number| poll(number).is_pending()));
        assert_eq!((poll(0), poll(1)), (Poll::Ready(None), Poll::Ready(None)));
        assert!((2..5).all(|number| poll(number).is_pending()));
        assert_eq!(unauthenticated.under_way.borrow().len(), 3);
        // A quick one gets through, at the cost of another one.
        assert_eq!(pin!(unauthenticated.run(ready(7))).poll(&mut cx()), Poll::Ready(Some(7)));
        assert!(poll(2).is_ready() && poll(3).is_pending());
        drop(stalled);
        assert!(unauthenticated.under_way.borrow().is_empty());
    }
}

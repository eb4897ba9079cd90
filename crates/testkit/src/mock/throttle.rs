//! The throttle of a stock game server: it blocks an address that connects too often.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Connects of one address within [`WINDOW`] that are let in, however close.
const FREE: u32 = 5;
/// A connect that comes later than this after the one before begins anew.
const WINDOW: Duration = Duration::from_secs(5);
/// One beyond those blocks the address if it comes no later than this after the one before.
const CLOSE: Duration = Duration::from_millis(500);
/// The time for which it is blocked.
const BLOCK: Duration = Duration::from_secs(3);
/// The time by which each connect while it is blocked lengthens that.
const MORE: Duration = Duration::from_millis(250);

/// The addresses that a throttle tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThrottleBy {
    /// Each counts by itself, as with TFS up to 1.5.
    Address,
    /// All count as one, as with TFS from 1.6 on, which looks before it knows the address.
    All,
}

/// The throttle of a TFS without a patch, over all of its ports.
#[derive(Debug)]
pub struct ConnectThrottle {
    by: ThrottleBy,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    addresses: HashMap<Option<IpAddr>, Counted>,
    refused: usize,
}

/// The connects of one address.
#[derive(Debug)]
struct Counted {
    last: Instant,
    count: u32,
    blocked_until: Option<Instant>,
}

impl ConnectThrottle {
    /// Makes one that has seen nobody.
    pub fn new(by: ThrottleBy) -> Self {
        Self { by, known: Mutex::default() }
    }

    /// Counts a connect, and returns whether it is let in.
    pub fn admits(&self, address: IpAddr, now: Instant) -> bool {
        let mut known = self.known.lock();
        let key = (self.by == ThrottleBy::Address).then_some(address);
        let admitted = match known.addresses.get_mut(&key) {
            None => {
                known.addresses.insert(key, Counted { last: now, count: 1, blocked_until: None });
                true
            }
            Some(counted) => counted.admits(now),
        };
        known.refused += usize::from(!admitted);
        admitted
    }

    /// Returns how many connects were not let in.
    pub fn refused(&self) -> usize {
        self.known.lock().refused
    }
}

impl Counted {
    fn admits(&mut self, now: Instant) -> bool {
        if let Some(until) = self.blocked_until.filter(|until| *until > now) {
            self.blocked_until = Some(until + MORE);
            return false;
        }
        let since = now.saturating_duration_since(self.last);
        self.last = now;
        if since > WINDOW {
            self.count = 1;
            return true;
        }
        self.count += 1;
        if self.count <= FREE {
            return true;
        }
        self.count = 0;
        if since <= CLOSE {
            self.blocked_until = Some(now + BLOCK);
            return false;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 1, 0, 1));

    #[test]
    fn the_sixth_that_comes_close_behind_is_blocked_and_each_try_lengthens_that() {
        let (throttle, start) = (ConnectThrottle::new(ThrottleBy::Address), Instant::now());
        let at = |millis| throttle.admits(ONE, start + Duration::from_millis(millis));
        assert_eq!([0, 1, 2, 3, 4, 5].map(at), [true, true, true, true, true, false]);
        assert_eq!([1000, 2000].map(at), [false, false]);
        assert!(throttle.admits(OTHER, start + Duration::from_millis(2000)));
        assert_eq!([3400, 3756].map(at), [false, true], "three tries made it longer by 750 ms");
        assert_eq!(throttle.refused(), 4);
    }

    #[test]
    fn those_that_are_far_enough_apart_are_never_blocked() {
        let (throttle, start) = (ConnectThrottle::new(ThrottleBy::All), Instant::now());
        let at = |n: u32| throttle.admits([ONE, OTHER][(n % 2) as usize], start + Duration::from_millis(501) * n);
        assert!((0..100).all(at));
        let at_once = |n: u32| throttle.admits([ONE, OTHER][(n % 2) as usize], start + Duration::from_secs(200));
        assert!(!(0..6).all(at_once), "addresses are one");
    }
}

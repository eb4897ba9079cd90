//! What a link does to packets: when each comes out at the other end, or that it never does. Pure.

use std::time::{Duration, Instant};

/// What a link is like; the same in both directions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conditions {
    /// Whether anything passes at all.
    pub up: bool,
    /// How long a packet is on its way.
    pub delay: Duration,
    /// By how much that differs, at the most and either way. Packets keep their order all the same.
    pub jitter: Duration,
    /// The probability that a packet is lost.
    pub loss: f64,
    /// Bits in a second; `None` for any number.
    pub rate: Option<u64>,
    /// Bytes that may wait because of `rate`; packets beyond it are dropped.
    pub queue: u64,
}

impl Default for Conditions {
    fn default() -> Self {
        Self { up: true, delay: Duration::ZERO, jitter: Duration::ZERO, loss: 0.0, rate: None, queue: 64 * 1024 }
    }
}

/// One direction of a link.
#[derive(Debug)]
pub struct Direction {
    random: Random,
    /// When the last packet has been sent whole, at `rate`.
    sent: Option<Instant>,
    /// When the last packet comes out.
    last: Option<Instant>,
    /// Packets that came out, or will.
    pub passed: u64,
    /// Packets that did not, and will not.
    pub dropped: u64,
}

impl Direction {
    /// A direction whose fate `seed` decides.
    pub fn new(seed: u64) -> Self {
        Self { random: Random(seed), sent: None, last: None, passed: 0, dropped: 0 }
    }

    /// A packet of `size` bytes goes in at `now`: when it comes out.
    pub fn pass(&mut self, conditions: &Conditions, size: usize, now: Instant) -> Option<Instant> {
        // Two for each packet, so that the fate of a packet does not hang on that of others.
        let (fate, shift) = (self.random.next(), self.random.next());
        let at = self.time(conditions, size, now, fate, shift);
        if at.is_some() {
            self.passed += 1
        } else {
            self.dropped += 1
        }
        at
    }

    /// A packet that was to come out does not.
    pub fn lose(&mut self) {
        self.passed -= 1;
        self.dropped += 1;
    }

    fn time(&mut self, conditions: &Conditions, size: usize, now: Instant, fate: f64, shift: f64) -> Option<Instant> {
        if !conditions.up || fate < conditions.loss {
            return None;
        }
        let mut start = now;
        if let Some(rate) = conditions.rate {
            let seconds = |bytes: u64| Duration::from_secs_f64(bytes as f64 * 8.0 / rate as f64);
            start = self.sent.map_or(now, |sent| sent.max(now));
            if start - now > seconds(conditions.queue) {
                return None;
            }
            start += seconds(size as u64);
            self.sent = Some(start);
        }
        let jitter = conditions.jitter.mul_f64(2.0 * shift);
        let at = (start + conditions.delay + jitter).checked_sub(conditions.jitter).map_or(start, |at| at.max(start));
        let at = self.last.map_or(at, |last| last.max(at));
        self.last = Some(at);
        Some(at)
    }
}

/// Random numbers that a seed decides: SplitMix64.
#[derive(Debug)]
struct Random(u64);

impl Random {
    /// From 0 to less than 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn packets_are_late_by_the_delay_and_at_most_the_jitter_and_in_order() {
        let conditions = Conditions { delay: 20 * MS, jitter: 5 * MS, ..Conditions::default() };
        let (start, mut direction, mut last) = (Instant::now(), Direction::new(1), None);
        let (mut least, mut most) = (Duration::MAX, Duration::ZERO);
        for second in 0..1000 {
            let now = start + second * Duration::from_secs(1);
            let late = direction.pass(&conditions, 100, now).unwrap() - now;
            (least, most) = (least.min(late), most.max(late));
        }
        assert!(least >= 15 * MS && least < 16 * MS && most <= 25 * MS && most > 24 * MS, "{least:?} {most:?}");
        for packet in 0..1000 {
            let at = direction.pass(&conditions, 100, start + packet * MS / 10);
            assert!(at >= last, "order");
            last = at;
        }
        assert_eq!((direction.passed, direction.dropped), (2000, 0));
    }

    #[test]
    fn more_jitter_than_delay_does_not_turn_back_time() {
        let conditions = Conditions { delay: MS, jitter: 30 * MS, ..Conditions::default() };
        let (now, mut direction) = (Instant::now(), Direction::new(2));
        assert!((0..100).all(|_| direction.pass(&conditions, 100, now).unwrap() >= now));
    }

    #[test]
    fn as_many_are_lost_as_should_be_and_the_same_ones_with_the_same_seed() {
        let conditions = Conditions { loss: 0.01, ..Conditions::default() };
        let fates = |seed| {
            let (now, mut direction) = (Instant::now(), Direction::new(seed));
            let fates: Vec<_> = (0..100_000).map(|_| direction.pass(&conditions, 100, now).is_some()).collect();
            (fates, direction.dropped)
        };
        assert!((900..1100).contains(&fates(3).1), "{}", fates(3).1);
        assert_eq!(fates(3), fates(3));
        assert_ne!(fates(3), fates(4));
    }

    #[test]
    fn a_rate_spreads_packets_and_drops_what_the_queue_does_not_hold() {
        let conditions = Conditions { rate: Some(800_000), queue: 2000, ..Conditions::default() };
        let (now, mut direction) = (Instant::now(), Direction::new(5));
        let out: Vec<_> = (0..4).map(|_| direction.pass(&conditions, 1000, now).map(|at| at - now)).collect();
        assert_eq!(out, [Some(10 * MS), Some(20 * MS), Some(30 * MS), None]);
        let later = now + 25 * MS;
        assert_eq!(direction.pass(&conditions, 1000, later), Some(now + 40 * MS));
    }

    #[test]
    fn nothing_passes_while_it_is_cut() {
        let (now, mut direction) = (Instant::now(), Direction::new(6));
        let cut = Conditions { up: false, ..Conditions::default() };
        assert_eq!(direction.pass(&cut, 100, now), None);
        assert_eq!(direction.pass(&Conditions::default(), 100, now), Some(now));
        assert_eq!((direction.passed, direction.dropped), (1, 1));
        direction.lose();
        assert_eq!((direction.passed, direction.dropped), (0, 2));
    }
}

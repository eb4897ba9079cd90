//! The queue of bytes for the game server, smoothed to a rate if one is set.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::pacer::Pacer;
use crate::quota::Quota;

/// Memory that an empty queue keeps for the next packet, bytes.
const KEEP: usize = 1024;

/// Bytes on their way to a game server that its socket has not taken yet.
#[derive(Debug, Default)]
pub struct Upstream {
    bytes: Vec<u8>,
    written: usize,
    pacer: Option<PacketPacer>,
}

impl Upstream {
    /// Makes an empty queue; `max_packets_per_second` (at least 1) smooths bursts of packets.
    pub fn new(max_packets_per_second: Option<u32>) -> Self {
        Self { pacer: max_packets_per_second.map(PacketPacer::new), ..Self::default() }
    }

    /// Returns the number of waiting bytes.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Returns the cost of all waiting bytes, for a limit: the bytes, and if packets are smoothed a length for each, so
    /// that their places are not free.
    pub fn cost(&self) -> usize {
        self.len() + self.pacer.as_ref().map_or(0, |pacer| pacer.waiting.len() * size_of::<u16>())
    }

    /// Returns whether the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts what is not a packet, the player's address, before all packets. Call it before
    /// anything is written.
    pub fn push_header(&mut self, bytes: &[u8]) {
        self.bytes.splice(..0, bytes.iter().copied());
        if let Some(pacer) = &mut self.pacer {
            pacer.allowed += bytes.len();
        }
    }

    /// Appends one packet: what a frame can carry. One of no bytes is nothing to a game server, and no
    /// place is kept for it.
    pub fn push(&mut self, packet: &[u8]) {
        if self.bytes.len() + packet.len() > self.bytes.capacity() {
            // Written bytes make room before more are taken.
            self.drop_written();
        }
        self.bytes.extend_from_slice(packet);
        if let Some(pacer) = &mut self.pacer
            && let Ok(length) = u16::try_from(packet.len())
            && length > 0
        {
            pacer.waiting.push_back(length);
        }
    }

    /// Returns the bytes that may be written now. It asks for the time only if a rate is set.
    pub fn writable(&mut self, now: impl FnOnce() -> Instant) -> &[u8] {
        let waiting = self.bytes.get(self.written..).unwrap_or_default();
        match &mut self.pacer {
            None => waiting,
            Some(pacer) => waiting.get(..pacer.allowed_at(now())).unwrap_or(waiting),
        }
    }

    /// Takes note that `n` bytes of what [`Upstream::writable`] gave were written.
    pub fn wrote(&mut self, n: usize) {
        self.written += n;
        if let Some(pacer) = &mut self.pacer {
            pacer.allowed = pacer.allowed.saturating_sub(n);
        }
        if self.written >= self.bytes.len() {
            self.written = 0;
            self.bytes.clear();
            self.bytes.shrink_to(KEEP);
        } else if self.written > self.bytes.len() / 2 {
            self.drop_written();
        }
    }

    fn drop_written(&mut self) {
        self.bytes.drain(..self.written);
        self.written = 0;
    }

    /// Returns the time at which more may be written than now; `None` if time alone changes nothing.
    pub fn next_at(&self) -> Option<Instant> {
        self.pacer.as_ref().filter(|pacer| pacer.allowed == 0).and_then(|pacer| pacer.next)
    }
}

/// Lets packets through one by one, evenly, after a burst of a quarter of a second's worth.
#[derive(Debug)]
struct PacketPacer {
    pace: Pacer,
    /// Lengths of the packets that may not go yet. As small as they can be: a client may send packets of one byte.
    waiting: VecDeque<u16>,
    /// Bytes at the front of the queue that may go.
    allowed: usize,
    /// The time at which the first of the waiting packets may go.
    next: Option<Instant>,
}

impl PacketPacer {
    fn new(per_second: u32) -> Self {
        let pace = Pacer::new(Quota::new(Duration::from_secs(1) / per_second.max(1), per_second / 4));
        Self { pace, waiting: VecDeque::new(), allowed: 0, next: None }
    }

    fn allowed_at(&mut self, now: Instant) -> usize {
        while !self.waiting.is_empty() && self.pace.take(now, now).is_some() {
            self.allowed += self.waiting.pop_front().map_or(0, usize::from);
        }
        self.next = (!self.waiting.is_empty()).then(|| self.pace.next(now));
        self.allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_rate_all_goes_at_once() {
        let mut up = Upstream::new(None);
        up.push(b"packet");
        up.push_header(b"hi");
        let now = Instant::now();
        assert_eq!(up.writable(|| now), b"hipacket");
        up.wrote(5);
        assert_eq!(up.writable(|| now), b"ket");
        assert_eq!(up.len(), 3);
        up.wrote(3);
        assert!(up.is_empty() && up.next_at().is_none());
    }

    #[test]
    fn a_rate_smooths_a_burst_in_order_and_loses_nothing() {
        let mut up = Upstream::new(Some(20));
        let start = Instant::now() + Duration::from_secs(10);
        up.push_header(b"H");
        for i in 0..20u8 {
            up.push(&[i, i]);
        }
        let (mut now, mut got, mut times) = (start, Vec::new(), Vec::new());
        while !up.is_empty() {
            let part = up.writable(|| now).to_vec();
            if part.is_empty() {
                now = up.next_at().expect("packets wait");
                continue;
            }
            // One byte at a time: a slow socket must not confuse the count.
            got.push(part[0]);
            times.push(now - start);
            up.wrote(1);
        }
        let want: Vec<u8> = std::iter::once(b'H').chain((0..20).flat_map(|i| [i, i])).collect();
        assert_eq!(got, want);
        assert_eq!(times[10], Duration::ZERO, "five packets are the burst of a rate of 20");
        assert_eq!(*times.last().unwrap(), Duration::from_millis(50 * 15));
    }

    #[test]
    fn packets_of_no_bytes_are_not_kept() {
        let mut up = Upstream::new(Some(1));
        (0..1000).for_each(|_| up.push(b""));
        up.push(b"x");
        let pacer = up.pacer.as_ref().unwrap();
        assert_eq!(pacer.waiting, [1]);
        assert_eq!(up.writable(Instant::now), b"x");
    }

    #[test]
    fn the_place_of_a_small_packet_is_not_free_where_it_waits() {
        let (mut smoothed, mut direct) = (Upstream::new(Some(1)), Upstream::new(None));
        for _ in 0..100 {
            smoothed.push(b"x");
            direct.push(b"x");
        }
        assert_eq!((smoothed.len(), smoothed.cost()), (100, 100 + 100 * size_of::<u16>()));
        assert_eq!((direct.len(), direct.cost()), (100, 100));
    }

    #[test]
    fn what_is_written_makes_room() {
        let (mut up, packet, now) = (Upstream::new(None), [7; 1000], Instant::now());
        (0..10).for_each(|_| up.push(&packet));
        for _ in 0..1000 {
            up.wrote(400);
            up.wrote(600);
            up.push(&packet);
        }
        assert_eq!(up.writable(|| now), packet.repeat(10));
        assert!(up.bytes.capacity() <= 2 * 10_000, "{}", up.bytes.capacity());
    }

    #[test]
    fn a_large_burst_leaves_no_memory_behind() {
        let mut up = Upstream::new(None);
        up.push(&[0; 100_000]);
        up.wrote(100_000);
        assert!(up.bytes.capacity() <= KEEP);
    }
}

//! The queue of bytes for the game server, within its limit on packets in a second if one is set.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::frozen::{FrozenInstant, FrozenPacer, FrozenUpstream};

/// Memory that an empty queue keeps for the next packet, bytes.
const KEEP: usize = 1024;
/// Places for packets that an empty queue keeps for the next ones that wait.
const KEPT_PLACES: usize = 32;
/// The second of a game server, made longer by a tenth: the way there may be quicker for one packet than for the one before.
pub const PERIOD: Duration = Duration::from_millis(1100);
/// The least number of blocks in which the packets of a period go.
const BLOCKS: u32 = 5;

/// Bytes on their way to a game server that its socket has not taken yet.
#[derive(Debug, Default)]
pub struct Upstream {
    bytes: Vec<u8>,
    written: usize,
    /// The position of the next byte in all that there ever was for the game server.
    position: u64,
    /// Bytes of the packets to come that the game server has: a process that was killed wrote them.
    skip: u64,
    pacer: Option<PacketPacer>,
    /// Nobody takes bytes any more: none are kept.
    closed: bool,
}

impl Upstream {
    /// Makes an empty queue; no more than `max_packets_per_second` (at least 1) go in any [`PERIOD`].
    pub fn new(max_packets_per_second: Option<u32>) -> Self {
        Self { pacer: max_packets_per_second.map(PacketPacer::new), ..Self::default() }
    }

    pub(super) fn freeze(&self, now: Instant) -> FrozenUpstream {
        FrozenUpstream {
            bytes: Bytes::copy_from_slice(self.bytes.get(self.written..).unwrap_or_default()),
            position: self.position,
            skip: self.skip,
            closed: self.closed,
            spent: false,
            pacer: self.pacer.as_ref().map(|pacer| pacer.freeze(now)),
        }
    }

    /// Makes the queue that was frozen. If the limit is another one now, what had to wait for it goes at once: it did
    /// wait.
    pub(super) fn thaw(frozen: FrozenUpstream, max_packets_per_second: Option<u32>, now: Instant) -> Self {
        let FrozenUpstream { bytes, position, skip, closed, spent, pacer } = frozen;
        let mut upstream = Self { bytes: bytes.to_vec(), position, skip, closed, ..Self::default() };
        if closed {
            return upstream;
        }
        upstream.pacer = max_packets_per_second.map(|limit| match pacer {
            Some(frozen) if frozen.limit == limit => PacketPacer::thaw(frozen, now),
            _ if spent => PacketPacer { allowed: upstream.bytes.len(), ..PacketPacer::spent(limit, now) },
            _ => PacketPacer { allowed: upstream.bytes.len(), ..PacketPacer::new(limit) },
        });
        upstream
    }

    /// Returns the number of waiting bytes.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Returns the cost of all waiting bytes, for a limit: the bytes, and a length for each packet that is held back, so
    /// that their places are not free.
    pub fn cost(&self) -> usize {
        self.len() + self.pacer.as_ref().map_or(0, |pacer| pacer.waiting.len() * size_of::<u16>())
    }

    /// Returns whether the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the position of the next byte in all that there ever was for the game server, from its first byte on.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Puts what is not a packet, the player's address, before all packets. Call it before
    /// anything is written.
    pub fn push_header(&mut self, bytes: &[u8]) {
        self.bytes.splice(..0, bytes.iter().copied());
        if let Some(pacer) = &mut self.pacer {
            pacer.allowed += bytes.len();
        }
    }

    /// Drops all bytes, and those of packets to come.
    pub fn close(&mut self) {
        *self = Self { closed: true, position: self.position, ..Self::default() };
    }

    /// Appends one packet: what a frame can carry. One of no bytes is nothing to a game server, and no
    /// place is kept for it.
    pub fn push(&mut self, packet: &[u8]) {
        if self.closed {
            return;
        }
        let packet = self.skipped(packet);
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

    /// Returns what the game server does not have of a packet.
    #[inline]
    fn skipped<'a>(&mut self, packet: &'a [u8]) -> &'a [u8] {
        if self.skip == 0 {
            return packet;
        }
        let had = usize::try_from(self.skip).unwrap_or(usize::MAX).min(packet.len());
        self.skip -= had as u64;
        self.position += had as u64;
        packet.get(had..).unwrap_or_default()
    }

    /// Returns the bytes that may be written now. It asks for the time at most once, and not for most packets.
    pub fn writable(&mut self, now: impl FnOnce() -> Instant) -> &[u8] {
        let waiting = self.bytes.get(self.written..).unwrap_or_default();
        match &mut self.pacer {
            None => waiting,
            Some(pacer) => waiting.get(..pacer.allowed_at(now)).unwrap_or(waiting),
        }
    }

    /// Takes note that `n` bytes of what [`Upstream::writable`] gave were written.
    pub fn wrote(&mut self, n: usize) {
        self.written += n;
        self.position += n as u64;
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

/// A limit on packets in any second, such as a game server's, that holds wherever its second begins.
///
/// Packets go in blocks: a fifth of the limit may go once a block is open, and only opening one takes a look at the clock. All
/// packets of a block go between its opening and that of the next. So no [`PERIOD`] has more than the limit if the
/// openings that one may have in full are that far apart. A block whose packets the socket did not take when they might go
/// counts as opened when they are tried again, and so do all others then.
#[derive(Debug)]
struct PacketPacer {
    /// Packets in a period at the most.
    limit: u32,
    /// Packets in a block.
    block: u32,
    /// Packets that may still go in the open one.
    left: u32,
    /// When the latest blocks were opened: as many as the limit lets begin in one period.
    opened: VecDeque<Instant>,
    most: usize,
    /// Lengths of the packets that may not go yet. As small as they can be: a client may send packets of one byte.
    waiting: VecDeque<u16>,
    /// Bytes at the front of the queue that may go.
    allowed: usize,
    /// The time at which the first of the waiting packets may go.
    next: Option<Instant>,
}

impl PacketPacer {
    fn new(limit: u32) -> Self {
        let block = (limit / BLOCKS).max(1);
        // A block of one is over as it is opened; of others a period can also have a part of the one before.
        let most = if block == 1 { limit.max(1) } else { limit / block - 1 };
        let opened = VecDeque::with_capacity(most as usize);
        Self { limit, block, left: 0, opened, most: most as usize, waiting: VecDeque::new(), allowed: 0, next: None }
    }

    /// Makes one whose packets of this period may all have gone already.
    fn spent(limit: u32, now: Instant) -> Self {
        let mut pacer = Self::new(limit);
        pacer.opened.extend(std::iter::repeat_n(now, pacer.most));
        pacer
    }

    fn freeze(&self, now: Instant) -> FrozenPacer {
        let moments = self.opened.iter().map(|opened| FrozenInstant::new(*opened, now));
        FrozenPacer {
            limit: self.limit,
            left: self.left,
            opened: moments.collect(),
            waiting: self.waiting.iter().copied().collect(),
            allowed: u32::try_from(self.allowed).unwrap_or(u32::MAX),
            next: self.next.map(|next| FrozenInstant::new(next, now)),
        }
    }

    fn thaw(frozen: FrozenPacer, now: Instant) -> Self {
        let mut pacer = Self::new(frozen.limit);
        pacer.opened.extend(frozen.opened.iter().map(|moment| moment.at(now)).take(pacer.most));
        pacer.left = frozen.left.min(pacer.block);
        pacer.waiting = frozen.waiting.into();
        pacer.allowed = frozen.allowed as usize;
        pacer.next = frozen.next.map(|next| next.at(now));
        pacer
    }

    /// Returns the bytes that may go now. It asks for the time only if a block is to be opened, or was not taken.
    fn allowed_at(&mut self, now: impl FnOnce() -> Instant) -> usize {
        let (mut now, mut known) = (Some(now), None);
        self.next = None;
        if self.allowed > 0 && !self.opened.is_empty() {
            known = now.take().map(|now| now());
            if let Some(now) = known {
                self.opened.iter_mut().for_each(|opened| *opened = now);
            }
        }
        while let Some(length) = self.waiting.front().copied() {
            if self.left == 0 {
                known = known.or_else(|| now.take().map(|now| now()));
                if !known.is_some_and(|now| self.opens(now)) {
                    break;
                }
            }
            self.left -= 1;
            self.allowed += usize::from(length);
            self.waiting.pop_front();
        }
        if self.waiting.is_empty() {
            self.waiting.shrink_to(KEPT_PLACES);
        }
        self.allowed
    }

    fn opens(&mut self, now: Instant) -> bool {
        if self.opened.len() == self.most {
            let next = self.opened.front().map_or(now, |oldest| *oldest + PERIOD);
            if next > now {
                self.next = Some(next);
                return false;
            }
            self.opened.pop_front();
        }
        self.opened.push_back(now);
        self.left = self.block;
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    /// Writes all that is there from `now` on, as soon as it may go, one byte at a time: a slow socket must not confuse
    /// the count. Returns the bytes, each with its time.
    fn written(up: &mut Upstream, mut now: Instant) -> Vec<(u8, Instant)> {
        let mut got = Vec::new();
        while !up.is_empty() {
            match up.writable(|| now).first() {
                Some(byte) => {
                    got.push((*byte, now));
                    up.wrote(1);
                }
                None => now = up.next_at().expect("packets wait"),
            }
        }
        got
    }

    #[test]
    fn a_backlog_goes_in_order_within_the_limit_and_nothing_is_lost() {
        let mut up = Upstream::new(Some(25));
        let start = Instant::now();
        up.push_header(b"H");
        (0..60u8).for_each(|i| up.push(&[i, i]));
        let got = written(&mut up, start);
        let want: Vec<u8> = std::iter::once(b'H').chain((0..60).flat_map(|i| [i, i])).collect();
        assert_eq!(got.iter().map(|(byte, _)| *byte).collect::<Vec<_>>(), want);
        let packets_by = |time: Duration| got[1..].iter().filter(|(_, at)| *at <= start + time).count() / 2;
        assert_eq!(packets_by(Duration::ZERO), 20, "what fits goes at once");
        assert_eq!((packets_by(PERIOD), packets_by(PERIOD * 2), packets_by(PERIOD * 3)), (40, 60, 60));
    }

    #[test]
    fn ordinary_play_waits_for_nothing_and_rarely_looks_at_the_clock() {
        let (mut up, start) = (Upstream::new(Some(25)), Instant::now());
        let mut looks = 0;
        for n in 0..1000 {
            // Fifteen a second, in pairs.
            let now = start + Duration::from_secs(1) * (n / 2 * 2) / 15;
            up.push(b"xy");
            assert_eq!(
                up.writable(|| [now, {
                    looks += 1;
                    now
                }][1]),
                b"xy",
                "{n}"
            );
            up.wrote(2);
        }
        assert_eq!(looks, 1000 / 5);
    }

    proptest! {
        #[test]
        fn no_second_has_more_than_the_limit_wherever_it_begins(
            limit in 1u32..60,
            pushes in prop::collection::vec((0u64..1500, 0u32..40, 0u64..2000, 0usize..80), 1..40),
        ) {
            let (mut up, mut now, mut sent) = (Upstream::new(Some(limit)), Instant::now(), Vec::new());
            for (wait, packets, patience, mut room) in pushes {
                now += Duration::from_millis(wait);
                (0..packets).for_each(|_| up.push(b"x"));
                let until = now + Duration::from_millis(patience);
                // The socket takes bytes now and then, until then, and not more than it has room for.
                loop {
                    let count = up.writable(|| now).len().min(room);
                    sent.extend(std::iter::repeat_n(now, count));
                    if count > 0 {
                        up.wrote(count);
                    }
                    room -= count;
                    match up.next_at() {
                        Some(next) if next <= until => now = next.max(now),
                        _ => break,
                    }
                }
            }
            for (n, first) in sent.iter().enumerate() {
                if let Some(later) = sent.get(n + limit as usize) {
                    prop_assert!(*later >= *first + PERIOD, "packet {n}");
                }
            }
        }
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
    fn a_closed_queue_keeps_nothing() {
        let mut up = Upstream::new(Some(1));
        (0..10).for_each(|_| up.push(b"packet"));
        let now = Instant::now();
        assert_eq!(up.writable(|| now), b"packet");
        up.wrote(3);
        up.close();
        up.push(b"more");
        assert_eq!((up.cost(), up.next_at()), (0, None));
        assert!(up.writable(|| now).is_empty());
    }

    #[test]
    fn a_large_burst_leaves_no_memory_behind() {
        let mut up = Upstream::new(None);
        up.push(&[0; 100_000]);
        up.wrote(100_000);
        assert!(up.bytes.capacity() <= KEEP);
    }
}

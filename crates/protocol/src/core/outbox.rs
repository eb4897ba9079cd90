//! The way down: what a session sent to its client and the client has not acknowledged yet.
//!
//! An outbox is one virtual stream of whole frames. Each link has a [`Cursor`] into it, always at
//! the start of a frame; acknowledged frames are cut off its front. A frame is made once, and all
//! links write it from the same memory.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;
use thiserror::Error;

use super::frozen::{FrozenError, FrozenOutbox};
use crate::frame::{self, Frame, HEADER_LEN, PacketId, SessionId};

/// The cost of a piece of the outbox beside its bytes, for the limit: its place in the queue, and its reference count.
const CHUNK_OVERHEAD: usize = 96;

/// Frames under construction, contiguous: what one read from the game server becomes.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    frames: u32,
}

impl Batch {
    /// Makes an empty batch with room for `bytes`.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), frames: 0 }
    }

    /// Frames in it.
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Appends a data frame whose payload is `length`, little endian, and then `body`.
    pub fn push(&mut self, session: SessionId, packet: PacketId, ack: PacketId, length: u16, body: &[u8]) {
        self.bytes.extend_from_slice(&frame::data_header(session, packet, ack, 2 + body.len()));
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(body);
        self.frames += 1;
    }
}

/// The position of a link in an outbox: before the first frame that it has not written.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    offset: u64,
    packet: PacketId,
}

impl Cursor {
    /// Returns the packet before which it is.
    pub(super) fn packet(&self) -> PacketId {
        self.packet
    }
}

/// The effect of a write on a cursor.
#[derive(Debug, PartialEq, Eq)]
pub struct CursorAdvance {
    /// Frames of which at least the first byte went out: whole, but for the last where it is cut.
    pub frames: u32,
    /// The rest of the last frame, where the write cut it: it must be the next on this link.
    pub cut: Bytes,
}

/// The client acknowledged a packet that was never sent to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("packet {ack} was acknowledged, and {sent} is the last that was sent")]
pub struct AckBeyondSent {
    /// The packet that the client acknowledged.
    pub ack: PacketId,
    /// The last packet there is.
    pub sent: PacketId,
}

#[derive(Debug)]
struct Chunk {
    start: u64,
    bytes: Bytes,
}

/// Frames that the client has not acknowledged, in order, as one stream.
#[derive(Debug)]
pub struct Outbox {
    chunks: VecDeque<Chunk>,
    /// The position of the first unacknowledged frame, and its packet.
    base: Cursor,
    /// The position of the next frame, and its packet.
    end: Cursor,
}

impl Default for Outbox {
    fn default() -> Self {
        let start = Cursor { offset: 0, packet: PacketId::FIRST };
        Self { chunks: VecDeque::new(), base: start, end: start }
    }
}

impl Outbox {
    /// Has the next packet be this one, as after so many that were acknowledged.
    #[cfg(test)]
    pub(super) fn skip_to(&mut self, next: PacketId) {
        (self.base.packet, self.end.packet) = (next, next);
    }

    pub(super) fn freeze(&self) -> FrozenOutbox {
        let whole = |chunk: &Chunk| {
            let acked = self.base.offset.saturating_sub(chunk.start) as usize;
            chunk.bytes.slice(acked.min(chunk.bytes.len())..)
        };
        FrozenOutbox { base: self.base.packet.0, chunks: self.chunks.iter().map(whole).collect() }
    }

    pub(super) fn thaw(frozen: FrozenOutbox) -> Result<Self, FrozenError> {
        let start = Cursor { offset: 0, packet: PacketId(frozen.base) };
        let mut outbox = Self { chunks: VecDeque::new(), base: start, end: start };
        for bytes in frozen.chunks {
            let (start, mut rest) = (outbox.end.offset, &bytes[..]);
            while !rest.is_empty() {
                let frame = Frame::split(rest).ok().flatten();
                let (_, next) = frame.filter(|_| outbox.end.packet < PacketId::LAST).ok_or(FrozenError::Damaged)?;
                outbox.end.offset += (rest.len() - next.len()) as u64;
                outbox.end.packet = outbox.end.packet.next();
                rest = next;
            }
            outbox.chunks.push_back(Chunk { start, bytes });
        }
        Ok(outbox)
    }

    /// Returns the position before a packet, or at the first one that is not acknowledged if it is; the end, if there is no
    /// such packet yet.
    pub(super) fn before(&self, packet: PacketId) -> Cursor {
        let mut cursor = self.base;
        while cursor.packet < packet {
            let Some(len) = self.frame_len(cursor.offset) else { break };
            cursor = Cursor { offset: cursor.offset + len, packet: cursor.packet.next() };
        }
        cursor
    }

    /// Returns the number that the next packet gets.
    pub fn next(&self) -> PacketId {
        self.end.packet
    }

    /// Returns the position in the stream of all frames at which the first one begins that is not acknowledged.
    pub(super) fn base(&self) -> (PacketId, u64) {
        (self.base.packet, self.base.offset)
    }

    /// Returns the position in the stream of all frames at which the next one will begin.
    pub(super) fn end(&self) -> u64 {
        self.end.offset
    }

    /// Returns the frames from a position on, in pieces.
    pub(super) fn pieces(&self, from: u64) -> impl Iterator<Item = &[u8]> {
        let first = self.chunk_at(from);
        self.chunks.range(first.min(self.chunks.len())..).filter_map(move |chunk| {
            let skip = from.saturating_sub(chunk.start) as usize;
            chunk.bytes.get(skip..).filter(|piece| !piece.is_empty())
        })
    }

    /// Returns the bytes that are not acknowledged.
    pub fn unacked(&self) -> usize {
        (self.end.offset - self.base.offset) as usize
    }

    /// Returns the cost of all kept bytes, for a limit: the bytes, and an overhead for each piece, so that a game
    /// server's small packets do not cost more than they count.
    pub fn cost(&self) -> usize {
        self.unacked() + self.chunks.len() * CHUNK_OVERHEAD
    }

    /// Returns the position at which a link joins: the first unacknowledged frame.
    pub fn start(&self) -> Cursor {
        self.base
    }

    /// Appends the frames of a batch, whose packets are numbered from [`Outbox::next`] on.
    pub fn push(&mut self, batch: Batch) {
        if batch.frames == 0 {
            return;
        }
        // Without the room that a vector keeps to grow: what is held is what is counted.
        let bytes = Bytes::from(batch.bytes.into_boxed_slice());
        let start = self.end.offset;
        self.end.offset += bytes.len() as u64;
        self.end.packet = PacketId(self.end.packet.0.saturating_add(batch.frames));
        self.chunks.push_back(Chunk { start, bytes });
    }

    /// Takes an acknowledgement of all packets up to `ack`; returns the bytes that it freed. An old one is no error, as
    /// links are not equally fast.
    ///
    /// # Errors
    /// Returns [`AckBeyondSent`] if there is no such packet yet; then nothing has changed.
    pub fn ack(&mut self, ack: PacketId) -> Result<usize, AckBeyondSent> {
        if ack < self.base.packet {
            return Ok(0);
        }
        if ack >= self.end.packet {
            return Err(AckBeyondSent { ack, sent: self.end.packet.previous() });
        }
        let before = self.base.offset;
        if ack.next() == self.end.packet {
            self.base = self.end;
        } else {
            while self.base.packet <= ack {
                let Some(len) = self.frame_len(self.base.offset) else { break };
                self.base.offset += len;
                self.base.packet = self.base.packet.next();
                self.drop_acked_chunks();
            }
        }
        self.drop_acked_chunks();
        Ok((self.base.offset - before) as usize)
    }

    /// Forgets all frames, as if they were acknowledged; returns their bytes. A link goes on behind them.
    pub fn discard(&mut self) -> usize {
        let unacked = self.unacked();
        self.base = self.end;
        self.chunks = VecDeque::new();
        unacked
    }

    fn drop_acked_chunks(&mut self) {
        while self.chunks.front().is_some_and(|c| c.start + c.bytes.len() as u64 <= self.base.offset) {
            self.chunks.pop_front();
        }
        if self.chunks.is_empty() {
            // A burst's worth of room is not kept for the rest of the session.
            self.chunks.shrink_to(8);
        }
    }

    /// Returns the index of the chunk that holds the byte at `offset`.
    fn chunk_at(&self, offset: u64) -> usize {
        self.chunks.partition_point(|c| c.start + c.bytes.len() as u64 <= offset)
    }

    /// Returns the bytes from `offset` to the end of its chunk; empty at the end of the stream.
    fn bytes_at(&self, offset: u64) -> &[u8] {
        self.chunks
            .get(self.chunk_at(offset))
            .and_then(|c| c.bytes.get((offset.checked_sub(c.start)?) as usize..))
            .unwrap_or_default()
    }

    /// Returns the length on the wire of the frame that begins at `offset`. Chunks hold whole frames.
    fn frame_len(&self, offset: u64) -> Option<u64> {
        let length = self.bytes_at(offset).first_chunk::<2>()?;
        Some(2 + u64::from(u16::from_le_bytes(*length)))
    }

    /// Moves a cursor over what is acknowledged, and over nothing else.
    #[inline]
    pub fn skip_acked(&self, cursor: &mut Cursor) {
        if cursor.offset < self.base.offset {
            *cursor = self.base;
        }
    }

    /// Returns whether a link at `cursor` has written everything.
    #[inline]
    pub fn is_drained(&self, cursor: &Cursor) -> bool {
        cursor.offset == self.end.offset
    }

    /// Returns the packet that a link at `cursor` writes next.
    #[inline]
    pub fn packet_at(&self, cursor: &Cursor) -> PacketId {
        cursor.packet
    }

    /// Fills `slices` with the bytes after `cursor`; returns how many it filled.
    #[inline]
    pub fn gather<'a>(&'a self, cursor: &Cursor, slices: &mut [IoSlice<'a>]) -> usize {
        let first = self.chunk_at(cursor.offset);
        let mut filled = 0;
        for (slice, chunk) in slices.iter_mut().zip(self.chunks.range(first.min(self.chunks.len())..)) {
            let skip = cursor.offset.saturating_sub(chunk.start) as usize;
            *slice = IoSlice::new(chunk.bytes.get(skip..).unwrap_or_default());
            filled += 1;
        }
        filled
    }

    /// Moves `cursor` over `written` bytes that a link took of what [`Outbox::gather`] gave.
    #[inline]
    pub fn advance(&self, cursor: &mut Cursor, written: usize) -> CursorAdvance {
        let from = cursor.packet;
        let target = cursor.offset + written as u64;
        let mut cut = Bytes::new();
        if target == self.end.offset {
            *cursor = self.end;
        }
        while cursor.offset < target {
            let Some(len) = self.frame_len(cursor.offset) else { break };
            let next = cursor.offset + len;
            if next > target
                && let Some(chunk) = self.chunks.get(self.chunk_at(cursor.offset))
            {
                cut = chunk.bytes.slice((target - chunk.start) as usize..(next - chunk.start) as usize);
            }
            *cursor = Cursor { offset: next, packet: cursor.packet.next() };
        }
        CursorAdvance { frames: cursor.packet.0 - from.0, cut }
    }
}

const _: () = assert!(HEADER_LEN > 2, "a frame is never empty, so a walk over frames always moves");

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn batch(outbox: &Outbox, bodies: &[&[u8]]) -> Batch {
        let mut batch = Batch::default();
        for (i, body) in bodies.iter().enumerate() {
            let packet = PacketId(outbox.next().0 + i as u32);
            batch.push(SessionId(1), packet, PacketId::NONE, body.len() as u16, body);
        }
        batch
    }

    /// Makes an outbox of frames of 20 bytes: 14 of header, 2 of length, 4 of body.
    fn with_frames(chunks: &[usize]) -> Outbox {
        let mut outbox = Outbox::default();
        for &n in chunks {
            let b = batch(&outbox, &vec![&b"body"[..]; n]);
            outbox.push(b);
        }
        outbox
    }

    #[test]
    fn room_for_a_packet_that_is_not_there_yet_is_not_kept() {
        let mut outbox = Outbox::default();
        let mut batch = Batch::with_capacity(64 * 1024);
        batch.push(SessionId(1), outbox.next(), PacketId::NONE, 4, b"body");
        outbox.push(batch);
        let bytes = outbox.chunks.pop_front().unwrap().bytes;
        assert!(Vec::from(bytes).capacity() <= 2 * 20);
    }

    #[test]
    fn acks_free_whole_frames_and_old_ones_free_nothing() {
        let mut outbox = with_frames(&[2, 1]);
        assert_eq!((outbox.unacked(), outbox.next()), (60, PacketId(4)));
        assert_eq!(outbox.ack(PacketId(1)), Ok(20));
        assert_eq!(outbox.ack(PacketId(1)), Ok(0));
        assert_eq!(outbox.chunks.len(), 2);
        assert_eq!(outbox.ack(PacketId(2)), Ok(20));
        assert_eq!(outbox.chunks.len(), 1);
        assert_eq!(outbox.ack(PacketId(4)), Err(AckBeyondSent { ack: PacketId(4), sent: PacketId(3) }));
        assert_eq!(outbox.ack(PacketId(3)), Ok(20));
        assert_eq!((outbox.unacked(), outbox.chunks.len()), (0, 0));
    }

    #[test]
    fn a_cut_frame_is_finished_even_where_it_is_acknowledged_meanwhile() {
        let mut outbox = with_frames(&[2, 2]);
        let mut cursor = outbox.start();
        let advance = outbox.advance(&mut cursor, 25);
        assert_eq!((advance.frames, advance.cut.len()), (2, 15));
        assert_eq!(outbox.packet_at(&cursor), PacketId(3));
        assert_eq!(outbox.ack(PacketId(3)), Ok(60));
        assert_eq!(&advance.cut[11..], b"body", "the cut rest lives on without the outbox");
        outbox.skip_acked(&mut cursor);
        assert_eq!(outbox.packet_at(&cursor), PacketId(4));
        let mut slices = [IoSlice::new(&[]); 4];
        assert_eq!(outbox.gather(&cursor, &mut slices), 1);
        assert_eq!(slices[0].len(), 20);
        assert_eq!(outbox.advance(&mut cursor, 20), CursorAdvance { frames: 1, cut: Bytes::new() });
        assert!(outbox.is_drained(&cursor));
    }

    #[test]
    fn every_cut_of_a_write_leads_to_the_same_stream() {
        let outbox = with_frames(&[3, 1, 2]);
        let whole: Vec<u8> = outbox.chunks.iter().flat_map(|c| c.bytes.to_vec()).collect();
        for step in 1..=whole.len() {
            let (mut cursor, mut sent) = (outbox.start(), Vec::new());
            let mut pending = Bytes::new();
            while !outbox.is_drained(&cursor) || !pending.is_empty() {
                if !pending.is_empty() {
                    sent.extend_from_slice(&pending.split_to(step.min(pending.len())));
                    continue;
                }
                let mut slices = [IoSlice::new(&[]); 2];
                let n = outbox.gather(&cursor, &mut slices);
                let bytes: Vec<u8> = slices[..n].iter().flat_map(|s| s.to_vec()).take(step).collect();
                sent.extend_from_slice(&bytes);
                pending = outbox.advance(&mut cursor, bytes.len()).cut;
            }
            assert_eq!(sent, whole, "in steps of {step}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn an_outbox_gives_every_cursor_the_same_stream(
            batches in vec(vec(0u16..300, 1..5), 1..8),
            writes in vec((0u32..3, 1usize..700), 0..60),
        ) {
            let mut outbox = Outbox::default();
            let mut stream = Vec::new();
            let mut starts = vec![0];
            for sizes in batches {
                let mut batch = Batch::default();
                for size in sizes {
                    let number = PacketId(starts.len() as u32);
                    let body = vec![number.0 as u8; size.into()];
                    batch.push(SessionId(1), number, PacketId::NONE, size, &body);
                    let header = frame::data_header(SessionId(1), number, PacketId::NONE, 2 + body.len());
                    stream.extend([&header[..], &size.to_le_bytes(), &body].concat());
                    starts.push(stream.len());
                }
                outbox.push(batch);
            }
            let (mut cursor, mut base) = (outbox.start(), 0);
            for (ack, wanted) in writes {
                let packet = outbox.packet_at(&cursor).0 as usize;
                let mut slices = [IoSlice::new(&[]); 2];
                let filled = outbox.gather(&cursor, &mut slices);
                let given: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
                let from = starts[packet - 1];
                prop_assert_eq!(&given[..], &stream[from..from + given.len()]);
                prop_assert_eq!(given.is_empty(), outbox.is_drained(&cursor));
                let wanted = wanted.min(given.len());
                let advance = outbox.advance(&mut cursor, wanted);
                // To the end of the frame in which the write ended.
                let to = starts.iter().position(|start| *start >= from + wanted).unwrap();
                prop_assert_eq!(advance.frames as usize, to + 1 - packet);
                prop_assert_eq!(&advance.cut[..], &stream[from + wanted..starts[to]]);
                prop_assert_eq!(outbox.packet_at(&cursor).0 as usize, to + 1);
                let acked = (base + ack as usize).min(starts.len() - 1);
                let freed = outbox.ack(PacketId(acked as u32)).unwrap();
                prop_assert_eq!(freed, starts[acked] - starts[base]);
                base = acked;
                outbox.skip_acked(&mut cursor);
                prop_assert_eq!(outbox.packet_at(&cursor).0 as usize, (to + 1).max(base + 1));
                prop_assert_eq!(outbox.unacked(), stream.len() - starts[base]);
            }
        }
    }
}

//! The bytes of a journal: where each thing stands in the file, and how the state of a record is written.
//!
//! The file is blocks of [`BLOCK`] bytes. The first one has the [`MAGIC`], the [`FORMAT`] and the mark that says which
//! record read last; the read buffer follows, and then blocks for all else. Numbers are little endian.

use crate::progress::Progress;

/// Bytes of a block.
pub const BLOCK: usize = 2048;
/// Bytes of a segment: the memory that a journal takes at a time.
pub const SEGMENT: usize = 1 << 20;
/// Bytes of the read buffer.
pub const READ_BUFFER: usize = 64 * 1024;
/// The most bytes of an identity.
pub const MAX_IDENTITY: usize = 1500;
/// The most bytes of an identity that stand in the record's own block; a longer one takes a block more.
pub const INLINE_IDENTITY: usize = (BLOCK - IDENTITIES) / 2;
/// Bytes of frames, or of a partial packet, in a block.
pub const BLOCK_DATA: usize = BLOCK - BLOCK_HEADER;
/// The most segments of a journal: 4 GiB.
pub const MAX_SEGMENTS: usize = 4096;
/// The number of this format: another one for each change of what is in the file. Nothing reads those of other formats.
pub const FORMAT: u32 = 1;

/// The first bytes of a journal, before its format.
pub(crate) const MAGIC: [u8; 16] = *b"otproxy-journal\0";
/// The position of the format's number, which is that of all formats.
pub(crate) const FORMAT_AT: usize = 16;
/// The position of the byte that says which of the [`MARKS`] counts.
pub(crate) const MARK_SELECTOR: usize = 24;
/// The positions of the two marks, each the block of the record that read last, or 0.
pub(crate) const MARKS: [usize; 2] = [32, 40];
/// The read buffer.
pub(crate) const BUFFER: std::ops::Range<usize> = BLOCK..BLOCK + READ_BUFFER;
/// The first block that is not the header's or the read buffer's.
pub(crate) const FIRST_BLOCK: u32 = (1 + READ_BUFFER / BLOCK) as u32;

/// The position of a block's kind, one byte.
pub(crate) const KIND: usize = 0;
/// The position of the number of the next block, in a block of data.
pub(crate) const NEXT: usize = 4;
/// The position of the number of the record's own block, in a block of data.
pub(crate) const OWNER: usize = 8;
/// Bytes before the data of a block.
pub(crate) const BLOCK_HEADER: usize = 16;

/// The kind of a block without meaning.
pub(crate) const FREE: u8 = 0;
/// The kind of a block of data. It may have no owner any more.
pub(crate) const DATA: u8 = 1;
/// The kind of a record's own block: there is such a record.
pub(crate) const SLOT: u8 = 2;

/// The position of a record's serial, in its own block.
pub(crate) const SERIAL: usize = 16;
/// The position of the byte that says which copy of the state counts.
pub(crate) const SELECTOR: usize = 24;
/// The positions of the two copies of a record's state.
pub(crate) const COPIES: [usize; 2] = [64, 64 + STATE_LEN];
/// The position of the two places for an identity.
const IDENTITIES: usize = 256;
/// Bytes of a state.
pub(crate) const STATE_LEN: usize = (STATE_WORDS + 1) * 8;
/// Words of a state before its checksum.
const STATE_WORDS: usize = 9;

const _: () = assert!(COPIES[1] + STATE_LEN <= IDENTITIES && BUFFER.end == FIRST_BLOCK as usize * BLOCK);
const _: () = assert!(SEGMENT > BUFFER.end && SEGMENT.is_multiple_of(BLOCK));
const _: () = assert!(MAX_IDENTITY <= BLOCK_DATA && BLOCK <= u16::MAX as usize);
const _: () = assert!(MAX_SEGMENTS as u64 * (SEGMENT / BLOCK) as u64 <= u32::MAX as u64);

/// Returns the position of one of the two places for an identity in a record's own block.
pub(crate) fn identity_place(half: u32) -> usize {
    IDENTITIES + if half == 0 { 0 } else { INLINE_IDENTITY }
}

/// Bytes in a chain of blocks: they begin `skip` bytes into the data of the block `head`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    pub head: u32,
    pub skip: u16,
    pub len: u32,
}

/// The place of an identity: 0 and 1 are those in the record's own block, all else is a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Identity {
    pub at: u32,
    pub len: u16,
    pub sum: u32,
}

impl Identity {
    /// Returns the block that it has beside the record's own.
    pub fn block(&self) -> Option<u32> {
        (self.at > 1).then_some(self.at)
    }
}

/// All that a commit changes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct State {
    pub progress: Progress,
    pub base: u32,
    pub frames: Span,
    pub partial: Span,
    pub identity: Identity,
}

impl State {
    /// Returns its bytes, with a checksum that holds for this record alone.
    pub fn encode(&self, slot: u32, serial: u64) -> [u8; STATE_LEN] {
        let Self { progress, base, frames, partial, identity } = self;
        let pair = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        let skips = u32::from(partial.skip) << 16 | u32::from(frames.skip);
        let small = u32::from(progress.stage) << 16 | u32::from(identity.len);
        let words: [u64; STATE_WORDS] = [
            pair(progress.received, *base),
            progress.written,
            progress.read,
            progress.bytes_in,
            progress.bytes_out,
            pair(frames.head, frames.len),
            pair(partial.head, partial.len),
            pair(skips, identity.at),
            pair(small, identity.sum),
        ];
        let mut bytes = [0; STATE_LEN];
        let sum = checksum(seed(slot, serial), &words);
        for (into, word) in bytes.chunks_exact_mut(8).zip(words.into_iter().chain([sum])) {
            into.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Returns the state that was written for this record; `None`, if these bytes are not it.
    pub fn decode(bytes: &[u8; STATE_LEN], slot: u32, serial: u64) -> Option<Self> {
        let mut words = [0; STATE_WORDS];
        let (chunks, _) = bytes.as_chunks::<8>();
        for (word, chunk) in words.iter_mut().zip(chunks) {
            *word = u64::from_le_bytes(*chunk);
        }
        let sum = chunks.last().map(|sum| u64::from_le_bytes(*sum));
        if sum != Some(checksum(seed(slot, serial), &words)) {
            return None;
        }
        let [received, written, read, bytes_in, bytes_out, frames, partial, places, small] = words;
        let (low, high) = (|word: u64| word as u32, |word: u64| (word >> 32) as u32);
        let stage = (small >> 16) as u8;
        Some(Self {
            progress: Progress { received: low(received), written, read, bytes_in, bytes_out, stage },
            base: high(received),
            frames: Span { head: low(frames), skip: places as u16, len: high(frames) },
            partial: Span { head: low(partial), skip: (places >> 16) as u16, len: high(partial) },
            identity: Identity { at: high(places), len: small as u16, sum: high(small) },
        })
    }
}

/// Returns the checksum of an identity.
pub(crate) fn identity_sum(identity: &[u8]) -> u32 {
    let (chunks, rest) = identity.as_chunks::<8>();
    let mut sum = chunks.iter().fold(identity.len() as u64, |sum, chunk| mix(sum, u64::from_le_bytes(*chunk)));
    for byte in rest {
        sum = mix(sum, u64::from(*byte));
    }
    sum as u32
}

fn seed(slot: u32, serial: u64) -> u64 {
    mix(u64::from(FORMAT) << 32 | u64::from(slot), serial)
}

fn checksum(seed: u64, words: &[u64; STATE_WORDS]) -> u64 {
    words.iter().fold(seed, |sum, word| mix(sum, *word))
}

/// Folds a word into a checksum: against accidents, not against an adversary, who would have this process anyway.
fn mix(sum: u64, word: u64) -> u64 {
    let product = u128::from(sum.rotate_left(29) ^ word ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
    product as u64 ^ (product >> 64) as u64
}

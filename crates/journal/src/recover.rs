//! The records of a process that is gone, read from its file.
//!
//! Nothing in the file is believed: each number is held against what the file can be, and each block is taken once. A
//! record that does not hold is lost, and no other one with it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use thiserror::Error;

use crate::layout::{
    BLOCK, BLOCK_HEADER, BUFFER, COPIES, DATA, FIRST_BLOCK, FORMAT, FORMAT_AT, FREE, INLINE_IDENTITY, Identity, KIND,
    MAGIC, MARK_SELECTOR, MARKS, MAX_IDENTITY, MAX_SEGMENTS, NEXT, OWNER, SEGMENT, SELECTOR, SERIAL, SLOT, STATE_LEN,
    Span, State, identity_place, identity_sum,
};
use crate::progress::Progress;

/// Blocks that are read at a time, to find the records among them.
const SCAN: u32 = 64;

/// The error of a file that cannot be read as a journal.
#[derive(Debug, Error)]
pub enum RecoverError {
    /// It is of another format.
    #[error("the journal is of format {0}, and this program reads format {FORMAT}")]
    Format(u32),
    /// It is none.
    #[error("the file is not a journal")]
    NotAJournal,
    /// The kernel does not let it be read.
    #[error("the journal cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// The part of a record that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Torn {
    /// Its state.
    #[error("the record's state is damaged")]
    State,
    /// Its identity.
    #[error("the record's identity is damaged")]
    Identity,
    /// Its frames.
    #[error("the record's frames are damaged")]
    Frames,
    /// Its partial packet.
    #[error("the record's partial packet is damaged")]
    Partial,
}

/// A record that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The serial that it was opened with. If the record is torn, this may be anything.
    pub serial: u64,
    /// The content of it.
    pub record: Result<RecoveredRecord, Torn>,
    /// The place of it in the file.
    pub place: Place,
}

/// The content of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredRecord {
    /// The owner's words about the session.
    pub identity: Vec<u8>,
    /// The numbers of the last change.
    pub progress: Progress,
    /// The number of the first frame that is not acknowledged.
    pub base: u32,
    /// The frames from that on.
    pub frames: Vec<u8>,
    /// The packet of the game server that was not whole yet.
    pub partial: Vec<u8>,
    /// The whole read buffer, if this is the record that read last. The kernel knows how many bytes the process took
    /// from the socket; so many of them as are more than [`Progress::read`] stand at the front of this, and are not in
    /// the record.
    pub unread: Option<Vec<u8>>,
}

/// Returns all records in the file of a journal. Its process must be gone, or must not write to it.
///
/// It takes as much memory as the records have bytes. That is never more than the file has, whatever is in it.
///
/// # Errors
/// Returns an error if the file is no journal, or cannot be read.
pub fn recover(file: &File) -> Result<Vec<Recovered>, RecoverError> {
    recover_from(file)
}

/// The place of a record in the file of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(u32);

/// Has a record be in the file of a journal no more, whose process is gone: another one has the session in its own.
///
/// # Errors
/// Returns the kernel's error.
pub fn forget(file: &File, place: Place) -> io::Result<()> {
    file.write_all_at(&[FREE], u64::from(place.0) * BLOCK as u64 + KIND as u64)
}

/// Bytes that are read by position.
pub(crate) trait Source {
    fn len(&self) -> io::Result<u64>;
    fn read_exact_at(&self, into: &mut [u8], at: u64) -> io::Result<()>;
}

impl Source for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, into, at)
    }
}

pub(crate) fn recover_from(source: &impl Source) -> Result<Vec<Recovered>, RecoverError> {
    let len = source.len()?;
    let mut header = [0; BLOCK];
    let (present, _) = header.split_at_mut(usize::try_from(len).unwrap_or(BLOCK).min(BLOCK));
    source.read_exact_at(present, 0)?;
    if !header.starts_with(&MAGIC) {
        return Err(RecoverError::NotAJournal);
    }
    let format = number(&header, FORMAT_AT);
    if format != FORMAT {
        return Err(RecoverError::Format(format));
    }
    if len < BUFFER.end as u64 || len > MAX_SEGMENTS as u64 * SEGMENT as u64 {
        return Err(RecoverError::NotAJournal);
    }
    let mark = match byte(&header, MARK_SELECTOR) {
        0 => MARKS.first(),
        1 => MARKS.last(),
        _ => None,
    };
    let reader = mark.map_or(0, |at| number(&header, *at));

    // The length is checked: the number fits.
    let blocks = (len / BLOCK as u64) as u32;
    let mut reading = Reading { source, claimed: vec![false; blocks as usize], block: Box::new([0; BLOCK]) };
    let mut found = Vec::new();
    let mut scanned = vec![0; SCAN as usize * BLOCK];
    for first in (FIRST_BLOCK..blocks).step_by(SCAN as usize) {
        let count = SCAN.min(blocks - first) as usize;
        let (scanned, _) = scanned.split_at_mut(count * BLOCK);
        source.read_exact_at(scanned, u64::from(first) * BLOCK as u64)?;
        let (scanned, _) = scanned.as_chunks::<BLOCK>();
        for (slot, block) in (first..).zip(scanned) {
            if byte(block, KIND) == SLOT {
                let serial = long(block, SERIAL);
                let record = reading.record(slot, serial, block)?;
                let record = match record {
                    Ok(mut record) if slot == reader => {
                        let mut unread = vec![0; BUFFER.len()];
                        source.read_exact_at(&mut unread, BUFFER.start as u64)?;
                        record.unread = Some(unread);
                        Ok(record)
                    }
                    record => record,
                };
                found.push(Recovered { serial, record, place: Place(slot) });
            }
        }
    }
    Ok(found)
}

/// The reading of one file.
struct Reading<'a, S> {
    source: &'a S,
    /// The blocks that a record has. None is taken twice: so a chain ends, and all records together are no longer than
    /// the file.
    claimed: Vec<bool>,
    block: Box<[u8; BLOCK]>,
}

impl<S: Source> Reading<'_, S> {
    fn record(&mut self, slot: u32, serial: u64, block: &[u8; BLOCK]) -> io::Result<Result<RecoveredRecord, Torn>> {
        let copy = match byte(block, SELECTOR) {
            0 => COPIES.first(),
            1 => COPIES.last(),
            _ => None,
        };
        let copy = copy.and_then(|at| block.get(*at..)?.first_chunk::<STATE_LEN>());
        let Some(state) = copy.and_then(|copy| State::decode(copy, slot, serial)) else { return Ok(Err(Torn::State)) };
        let Some(identity) = self.identity(slot, block, state.identity)? else { return Ok(Err(Torn::Identity)) };
        let Some(frames) = self.chain(slot, state.frames)? else { return Ok(Err(Torn::Frames)) };
        let Some(partial) = self.chain(slot, state.partial)? else { return Ok(Err(Torn::Partial)) };
        let (progress, base) = (state.progress, state.base);
        Ok(Ok(RecoveredRecord { identity, progress, base, frames, partial, unread: None }))
    }

    fn identity(&mut self, slot: u32, block: &[u8; BLOCK], identity: Identity) -> io::Result<Option<Vec<u8>>> {
        let len = usize::from(identity.len);
        let bytes = match identity.block() {
            None if len <= INLINE_IDENTITY => block.get(identity_place(identity.at)..),
            Some(at) if len <= MAX_IDENTITY => self.claim(slot, at)?.and_then(|block| block.get(BLOCK_HEADER..)),
            _ => None,
        };
        let bytes = bytes.and_then(|bytes| bytes.get(..len));
        Ok(bytes.filter(|bytes| identity_sum(bytes) == identity.sum).map(<[u8]>::to_vec))
    }

    fn chain(&mut self, slot: u32, span: Span) -> io::Result<Option<Vec<u8>>> {
        let (mut at, mut skip, mut rest) = (span.head, usize::from(span.skip), span.len as usize);
        let mut bytes = Vec::new();
        while rest > 0 {
            let Some(block) = self.claim(slot, at)? else { return Ok(None) };
            let Some(part) = block.get(BLOCK_HEADER..).and_then(|data| data.get(skip..)) else { return Ok(None) };
            let part = part.get(..rest).unwrap_or(part);
            bytes.extend_from_slice(part);
            (at, skip, rest) = (number(block, NEXT), 0, rest - part.len());
        }
        Ok(Some(bytes))
    }

    /// Reads a block of that record; `None`, if it is not its, or was taken already.
    fn claim(&mut self, slot: u32, at: u32) -> io::Result<Option<&[u8; BLOCK]>> {
        let Some(claimed) = self.claimed.get_mut(at as usize).filter(|claimed| at >= FIRST_BLOCK && !**claimed) else {
            return Ok(None);
        };
        self.source.read_exact_at(&mut *self.block, u64::from(at) * BLOCK as u64)?;
        if byte(&self.block, KIND) != DATA || number(&self.block, OWNER) != slot {
            return Ok(None);
        }
        *claimed = true;
        Ok(Some(&self.block))
    }
}

fn byte(block: &[u8; BLOCK], at: usize) -> u8 {
    block.get(at).copied().unwrap_or_default()
}

fn number(block: &[u8; BLOCK], at: usize) -> u32 {
    let bytes = block.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn long(block: &[u8; BLOCK], at: usize) -> u64 {
    let bytes = block.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

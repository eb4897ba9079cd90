//! A queue of bytes in blocks of the shared memory, with a change that is made or undone as a whole.

use std::collections::VecDeque;

use crate::blocks::Blocks;
use crate::error::RecordError;
use crate::layout::{BLOCK_DATA, BLOCK_HEADER, NEXT, Span};

/// A queue of bytes in a chain of blocks. This is the working copy: what it says counts only once it is committed.
///
/// Nothing that is committed is ever stored over: bytes are appended behind the end, in blocks of their own or in the
/// free rest of the last one, and what is dropped stays until the commit.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    blocks: VecDeque<u32>,
    /// Blocks at the front that the change under way has dropped.
    dropped: usize,
    /// Bytes of the first block before the first one that counts.
    skip: usize,
    len: usize,
    committed: Committed,
}

/// The chain before the change under way.
#[derive(Debug, Default, Clone, Copy)]
struct Committed {
    blocks: usize,
    skip: usize,
    len: usize,
}

impl Chain {
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns its place, for a state.
    pub fn span(&self) -> Span {
        let head = self.blocks.get(self.dropped).copied().unwrap_or_default();
        // A skip is less than a block, and all blocks together are fewer bytes than `append` lets in.
        Span { head, skip: self.skip as u16, len: self.len as u32 }
    }

    /// Appends bytes, for the record of that slot.
    pub fn append(&mut self, blocks: &mut Blocks, slot: u32, mut bytes: &[u8]) -> Result<(), RecordError> {
        if u32::try_from(self.len + bytes.len()).is_err() {
            return Err(RecordError::NoMemory(std::io::ErrorKind::FileTooLarge.into()));
        }
        while !bytes.is_empty() {
            let live = self.blocks.len() - self.dropped;
            let mut used = (self.skip + self.len) - live.saturating_sub(1) * BLOCK_DATA;
            if live == 0 || used == BLOCK_DATA {
                let block = blocks.take_data(slot)?;
                if let Some(last) = self.blocks.back().filter(|_| live > 0) {
                    blocks.memory.store(*last, NEXT, &block.to_le_bytes());
                }
                self.blocks.push_back(block);
                used = 0;
            }
            let Some(last) = self.blocks.back() else { break };
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_DATA - used));
            blocks.memory.store(*last, BLOCK_HEADER + used, now);
            self.len += now.len();
            bytes = later;
        }
        Ok(())
    }

    /// Drops bytes from the front, of those that are there.
    pub fn drop_front(&mut self, bytes: usize) {
        if bytes >= self.len {
            return self.clear();
        }
        let skip = self.skip + bytes;
        self.dropped += skip / BLOCK_DATA;
        self.skip = skip % BLOCK_DATA;
        self.len -= bytes;
    }

    /// Drops all bytes.
    pub fn clear(&mut self) {
        (self.dropped, self.skip, self.len) = (self.blocks.len(), 0, 0);
    }

    /// Has the change under way be the state of things: call it once that is committed. Blocks that were dropped are
    /// free.
    pub fn keep(&mut self, blocks: &mut Blocks) {
        for block in self.blocks.drain(..self.dropped) {
            blocks.give(block);
        }
        self.dropped = 0;
        self.committed = Committed { blocks: self.blocks.len(), skip: self.skip, len: self.len };
    }

    /// Undoes the change under way. Blocks that it took are free.
    pub fn undo(&mut self, blocks: &mut Blocks) {
        for block in self.blocks.drain(self.committed.blocks..) {
            blocks.give(block);
        }
        (self.dropped, self.skip, self.len) = (0, self.committed.skip, self.committed.len);
    }
}

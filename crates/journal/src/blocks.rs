//! The blocks of a journal that are free, and those that are taken.

use std::ops::Range;

use crate::error::RecordError;
use crate::layout::{BLOCK_HEADER, DATA, FIRST_BLOCK, KIND, NEXT, OWNER};
use crate::memory::Memory;

/// The blocks of a journal. That a block is free is known here, on the heap, alone: the file says which blocks records
/// have.
pub(crate) struct Blocks {
    pub memory: Memory,
    free: Vec<u32>,
    /// Blocks that were never taken.
    fresh: Range<u32>,
}

impl Blocks {
    pub fn new(memory: Memory) -> Self {
        let fresh = FIRST_BLOCK..memory.blocks();
        Self { memory, free: Vec::new(), fresh }
    }

    /// Takes a block, of the kind that it was.
    pub fn take(&mut self) -> Result<u32, RecordError> {
        // The last one that was given back is in the processor's cache.
        if let Some(block) = self.free.pop().or_else(|| self.fresh.next()) {
            return Ok(block);
        }
        self.fresh = self.memory.grow().map_err(RecordError::NoMemory)?;
        self.fresh.next().ok_or_else(|| RecordError::NoMemory(std::io::ErrorKind::OutOfMemory.into()))
    }

    /// Takes a block for data of the record of that slot.
    pub fn take_data(&mut self, slot: u32) -> Result<u32, RecordError> {
        let block = self.take()?;
        let mut header = [0; BLOCK_HEADER];
        const { assert!(KIND == 0 && NEXT == 4 && OWNER == 8 && BLOCK_HEADER == 16) };
        let (words, _) = header.as_chunks_mut::<4>();
        for (into, word) in words.iter_mut().zip([u32::from(DATA), 0, slot]) {
            *into = word.to_le_bytes();
        }
        self.memory.store(block, 0, &header);
        Ok(block)
    }

    /// Gives a block back, which nothing that is committed names any more.
    pub fn give(&mut self, block: u32) {
        self.free.push(block);
    }

    /// Returns the number of blocks that are taken.
    pub fn taken(&self) -> usize {
        (self.memory.blocks() - FIRST_BLOCK) as usize - self.free.len() - self.fresh.len()
    }
}

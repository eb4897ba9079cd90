//! The journal of one thread.

use std::fs::File;
use std::io;

use crate::blocks::Blocks;
use crate::change::Change;
use crate::error::RecordError;
use crate::layout::{BLOCK, FORMAT, FORMAT_AT, FREE, KIND, MAGIC, MARK_SELECTOR, MARKS, SERIAL, SLOT};
use crate::memory::Memory;
use crate::progress::Progress;
use crate::record::Record;

/// The records of one thread's sessions, in memory that stays when the process is killed.
pub struct Journal {
    blocks: Blocks,
    /// The slot of the record that reads, or 0.
    reader: u32,
    /// The mark that counts.
    mark: u8,
}

// It may be made on one thread and used by another.
const _: fn(Journal) -> Box<dyn Send> = |journal| Box::new(journal);

/// All of a session that begins with more than its identity, as one that goes on from a record.
#[derive(Debug, Clone, Copy, Default)]
pub struct Contents<'a> {
    /// The owner's words about the session, up to [`MAX_IDENTITY`](crate::MAX_IDENTITY) bytes.
    pub identity: &'a [u8],
    /// The numbers that it begins with.
    pub progress: Progress,
    /// The number of the first frame that is not acknowledged.
    pub base: u32,
    /// The frames from that on, in pieces.
    pub frames: &'a [&'a [u8]],
    /// The packet of the game server that is not whole yet.
    pub partial: &'a [u8],
}

impl Journal {
    /// Makes an empty journal, with one segment.
    ///
    /// # Errors
    /// Returns the kernel's error if there is no memory for it.
    pub fn create() -> io::Result<Self> {
        Ok(Self::on(Memory::create()?))
    }

    pub(crate) fn on(mut memory: Memory) -> Self {
        memory.store(0, FORMAT_AT, &FORMAT.to_le_bytes());
        memory.store(0, 0, &MAGIC);
        Self { blocks: Blocks::new(memory), reader: 0, mark: 0 }
    }

    /// Returns another descriptor of the file, to be kept by another process.
    ///
    /// # Errors
    /// Returns the kernel's error if the process may have no more descriptors.
    pub fn file(&self) -> io::Result<File> {
        self.blocks.memory.file()?.try_clone()
    }

    /// Returns the memory that it has, bytes. It does not become less.
    pub fn allocated(&self) -> usize {
        self.blocks.memory.blocks() as usize * BLOCK
    }

    /// Returns the memory that its records take, bytes.
    pub fn used(&self) -> usize {
        self.blocks.taken() * BLOCK
    }

    /// Opens the record of a new session. The serial is the owner's name for it, and is not looked at here.
    ///
    /// # Errors
    /// Returns an error if the identity is too long, or if there is no memory: then there is no record.
    pub fn open(&mut self, serial: u64, identity: &[u8], progress: Progress) -> Result<Record, RecordError> {
        self.open_with(serial, &Contents { identity, progress, ..Contents::default() })
    }

    /// Opens the record of a session that has frames or half a packet from before. It is there with all of it, or not
    /// at all.
    ///
    /// # Errors
    /// Returns an error if the identity is too long, or if there is no memory: then there is no record.
    pub fn open_with(&mut self, serial: u64, contents: &Contents<'_>) -> Result<Record, RecordError> {
        let slot = self.blocks.take()?;
        let mut record = Record::new(slot, serial);
        self.blocks.memory.store(slot, SERIAL, &serial.to_le_bytes());
        let mut change = Change::new(&mut self.blocks, &mut record);
        change.identity(contents.identity).progress(&contents.progress).acked(contents.base, 0);
        for frames in contents.frames {
            change.append(contents.base, frames);
        }
        let written = change.extend_partial(contents.partial).commit();
        drop(change);
        match written {
            Ok(()) => {
                // Until now no reader took the block for a record, whatever was in it.
                self.blocks.memory.publish(slot, KIND, SLOT);
                Ok(record)
            }
            Err(error) => {
                self.blocks.give(slot);
                Err(error)
            }
        }
    }

    /// Begins a change of a record.
    pub fn change<'a>(&'a mut self, record: &'a mut Record) -> Change<'a> {
        Change::new(&mut self.blocks, record)
    }

    /// Replaces the identity of a record.
    ///
    /// # Errors
    /// Returns an error if it is too long, or if there is no memory: the record has the one of before then.
    pub fn identify(&mut self, record: &mut Record, identity: &[u8]) -> Result<(), RecordError> {
        self.change(record).identity(identity).commit()
    }

    /// Forgets a session: its record is not there any more.
    pub fn close(&mut self, mut record: Record) {
        let Record { slot, identity, .. } = record;
        self.blocks.memory.publish(slot, KIND, FREE);
        if self.reader == slot {
            // The next record in this block has read nothing.
            self.set_reader(0);
        }
        for chain in [&mut record.frames, &mut record.partial] {
            chain.clear();
            chain.keep(&mut self.blocks);
        }
        if let Some(block) = identity.block() {
            self.blocks.give(block);
        }
        self.blocks.give(slot);
    }

    /// Returns the buffer for the next read from a session's game server. From now on its bytes are that session's:
    /// those that another one read before must be in its record by now.
    ///
    /// Each read begins at the front of it, and is to be in the record before the next one: else the bytes before are
    /// lost to a process that recovers it.
    pub fn buffer_for(&mut self, record: &Record) -> &mut [u8] {
        if self.reader != record.slot {
            self.set_reader(record.slot);
        }
        self.blocks.memory.buffer_mut()
    }

    /// Returns the first `n` bytes of the buffer: those that were read.
    pub fn read(&self, n: usize) -> &[u8] {
        let buffer = self.blocks.memory.buffer();
        buffer.get(..n).unwrap_or(buffer)
    }

    fn set_reader(&mut self, slot: u32) {
        let other = self.mark ^ 1;
        let [first, second] = MARKS;
        self.blocks.memory.store(0, if other == 0 { first } else { second }, &slot.to_le_bytes());
        self.blocks.memory.publish(0, MARK_SELECTOR, other);
        (self.reader, self.mark) = (slot, other);
    }

    #[cfg(test)]
    pub(crate) fn memory(&mut self) -> &mut Memory {
        &mut self.blocks.memory
    }
}

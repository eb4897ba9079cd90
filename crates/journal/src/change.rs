//! A change of one record, which is in the file as a whole or not at all.

use crate::blocks::Blocks;
use crate::error::RecordError;
use crate::layout::{
    BLOCK_HEADER, COPIES, INLINE_IDENTITY, Identity, MAX_IDENTITY, SELECTOR, identity_place, identity_sum,
};
use crate::progress::Progress;
use crate::record::Record;

/// A change of one record. Its parts are done in the order in which they are called, and count from [`Change::commit`]
/// on, all at once; a change that is dropped without it is none.
#[must_use = "a change that is not committed is none"]
pub struct Change<'a> {
    blocks: &'a mut Blocks,
    record: &'a mut Record,
    progress: Progress,
    base: u32,
    identity: Identity,
    error: Option<RecordError>,
}

impl<'a> Change<'a> {
    pub(crate) fn new(blocks: &'a mut Blocks, record: &'a mut Record) -> Self {
        let Record { progress, base, identity, .. } = *record;
        Self { blocks, record, progress, base, identity, error: None }
    }

    /// Replaces the progress.
    pub fn progress(&mut self, progress: &Progress) -> &mut Self {
        self.progress = *progress;
        self
    }

    /// Appends whole frames. The number of the first one that is not acknowledged is then `base`: as it was, if there
    /// were some before.
    pub fn append(&mut self, base: u32, frames: &[u8]) -> &mut Self {
        self.base = base;
        self.attempt(|blocks, record| record.frames.append(blocks, record.slot, frames))
    }

    /// Drops so many bytes of frames from the front. The number of the first one that is not acknowledged is then
    /// `base`.
    pub fn acked(&mut self, base: u32, bytes: usize) -> &mut Self {
        self.base = base;
        self.attempt(|_, record| {
            let held = record.frames.len();
            if bytes > held {
                return Err(RecordError::Acked { bytes, held });
            }
            record.frames.drop_front(bytes);
            Ok(())
        })
    }

    /// Replaces the partial packet.
    pub fn partial(&mut self, partial: &[u8]) -> &mut Self {
        self.clear_partial().extend_partial(partial)
    }

    /// Appends bytes to the partial packet.
    pub fn extend_partial(&mut self, bytes: &[u8]) -> &mut Self {
        self.attempt(|blocks, record| record.partial.append(blocks, record.slot, bytes))
    }

    /// Drops the partial packet.
    pub fn clear_partial(&mut self) -> &mut Self {
        self.record.partial.clear();
        self
    }

    /// Replaces the identity.
    pub fn identity(&mut self, identity: &[u8]) -> &mut Self {
        if self.error.is_none() {
            match self.store_identity(identity) {
                Ok(stored) => {
                    self.give_identity();
                    self.identity = stored;
                }
                Err(error) => self.error = Some(error),
            }
        }
        self
    }

    /// Has all of it count, from one moment to the next.
    ///
    /// # Errors
    /// Returns the first error of a part. Nothing of the change is in the record then.
    pub fn commit(&mut self) -> Result<(), RecordError> {
        if let Some(error) = self.error.take() {
            self.undo();
            return Err(error);
        }
        let other = self.record.selector ^ 1;
        let state = self.record.state(self.progress, self.base, self.identity);
        let [first, second] = COPIES;
        let copy = if other == 0 { first } else { second };
        // The copy that counts is not touched, nor is anything that it names. Until the last line that is the record;
        // with it, it is the other copy, which is whole by then.
        self.blocks.memory.store(self.record.slot, copy, &state.encode(self.record.slot, self.record.serial));
        self.blocks.memory.publish(self.record.slot, SELECTOR, other);

        let before = self.record.identity;
        let record = &mut *self.record;
        (record.selector, record.progress, record.base, record.identity) =
            (other, self.progress, self.base, self.identity);
        record.frames.keep(self.blocks);
        record.partial.keep(self.blocks);
        if let Some(block) = before.block().filter(|_| before != self.identity) {
            self.blocks.give(block);
        }
        Ok(())
    }

    /// Stores an identity where the committed one is not.
    fn store_identity(&mut self, identity: &[u8]) -> Result<Identity, RecordError> {
        let len = u16::try_from(identity.len()).ok().filter(|_| identity.len() <= MAX_IDENTITY);
        let len = len.ok_or(RecordError::Identity(identity.len()))?;
        let slot = self.record.slot;
        let at = if identity.len() <= INLINE_IDENTITY {
            let half = u32::from(self.record.identity.at == 0);
            self.blocks.memory.store(slot, identity_place(half), identity);
            half
        } else {
            let block = self.blocks.take_data(slot)?;
            self.blocks.memory.store(block, BLOCK_HEADER, identity);
            block
        };
        Ok(Identity { at, len, sum: identity_sum(identity) })
    }

    /// Gives the block of an identity back that is not committed.
    fn give_identity(&mut self) {
        if let Some(block) = self.identity.block().filter(|_| self.identity != self.record.identity) {
            self.blocks.give(block);
        }
    }

    fn attempt(&mut self, part: impl FnOnce(&mut Blocks, &mut Record) -> Result<(), RecordError>) -> &mut Self {
        if self.error.is_none() {
            self.error = part(self.blocks, self.record).err();
        }
        self
    }

    fn undo(&mut self) {
        self.record.frames.undo(self.blocks);
        self.record.partial.undo(self.blocks);
        self.give_identity();
        let Record { progress, base, identity, .. } = *self.record;
        (self.progress, self.base, self.identity) = (progress, base, identity);
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        // Nothing is left to undo of one that is committed.
        self.undo();
    }
}

//! The working copy of a session's record.

use std::marker::PhantomData;
use std::rc::Rc;

use crate::chain::Chain;
use crate::layout::{Identity, State};
use crate::progress::Progress;

/// The record of a session in a journal, which the session owns. It must be [closed](crate::Journal::close): one that
/// is dropped keeps its blocks, and is found in the file.
///
/// It belongs to the journal that opened it, and stays on that journal's thread.
#[derive(Debug)]
#[must_use = "a record that is not closed stays in the file"]
pub struct Record {
    pub(crate) slot: u32,
    pub(crate) serial: u64,
    /// The copy of the state that counts.
    pub(crate) selector: u8,
    pub(crate) progress: Progress,
    pub(crate) base: u32,
    pub(crate) identity: Identity,
    pub(crate) frames: Chain,
    pub(crate) partial: Chain,
    not_send: PhantomData<Rc<()>>,
}

impl Record {
    pub(crate) fn new(slot: u32, serial: u64) -> Self {
        Self {
            slot,
            serial,
            selector: 1,
            progress: Progress::default(),
            base: 0,
            identity: Identity::default(),
            frames: Chain::default(),
            partial: Chain::default(),
            not_send: PhantomData,
        }
    }

    /// Returns the serial that it was opened with.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// Returns the progress that was committed last.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Returns the number of the first frame that is not acknowledged, as it was committed last.
    pub fn base(&self) -> u32 {
        self.base
    }

    /// Returns the bytes of frames in it.
    pub fn frames_len(&self) -> usize {
        self.frames.len()
    }

    /// Returns the bytes of the partial packet in it.
    pub fn partial_len(&self) -> usize {
        self.partial.len()
    }

    /// Returns its state with these numbers, and with the chains as they are.
    pub(crate) fn state(&self, progress: Progress, base: u32, identity: Identity) -> State {
        State { progress, base, frames: self.frames.span(), partial: self.partial.span(), identity }
    }
}

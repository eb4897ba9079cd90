//! Errors of writing a record.

use std::io;

use thiserror::Error;

use crate::layout::MAX_IDENTITY;

/// The error of a change that is not in the record. The record stays as it was; if its session goes on, it is behind
/// it, and the owner must close it.
#[derive(Debug, Error)]
pub enum RecordError {
    /// There is no memory for it.
    #[error("no memory for the record of a session: {0}")]
    NoMemory(#[source] io::Error),
    /// An identity of so many bytes is too long.
    #[error("an identity of {0} bytes is too long for a record, which takes up to {MAX_IDENTITY}")]
    Identity(usize),
    /// Bytes were acknowledged that the record does not have.
    #[error("{bytes} bytes of frames were acknowledged, and the record has {held}")]
    Acked {
        /// The bytes that were acknowledged.
        bytes: usize,
        /// The bytes of frames in the record.
        held: usize,
    },
}

//! Journals on memory that records each store, and on real files.

mod crash;
mod damage;
mod file;
mod model;

/// A call of a memory.
#[derive(Debug, Clone)]
pub(crate) enum Store {
    /// Bytes at a position of the file.
    Bytes { at: usize, bytes: Vec<u8> },
    /// So many more bytes of the file.
    Grow(usize),
}

//! A record of game sessions that outlives a killed process.
//!
//! A core may be killed at any instant, and its game sockets are kept by another process. The process that comes next
//! must find the part of each session that the kernel cannot tell: how far the client's packets are, which frames the
//! client has not acknowledged, half a packet of the game server, and the owner's words about all of it. A [`Journal`]
//! has that in a file without a name, in memory that it shares with its holder; [`recover`] reads it. This crate knows
//! bytes and numbers, and no socket, runtime or protocol.
//!
//! ```
//! use otproxy_journal::{Journal, Progress, recover};
//!
//! let mut journal = Journal::create()?;
//! let kept = journal.file()?; // another process has this one
//! let mut record = journal.open(7, b"a knight of 198.51.100.7", Progress::default())?;
//!
//! let n = journal.buffer_for(&record).len().min(300); // as many as a read returned
//! let frames = journal.read(n).to_vec(); // the frames made of them
//! let progress = Progress { read: 300, ..record.progress() };
//! journal.change(&mut record).progress(&progress).append(1, &frames).commit()?;
//! drop(journal); // killed
//!
//! let found = recover(&kept)?;
//! let record = found[0].record.as_ref().expect("whole");
//! assert_eq!((found[0].serial, record.progress.read, record.frames.len()), (7, 300, 300));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Whole changes
//!
//! A process that dies between any two stores, or in the middle of one, leaves each record as it was before the change
//! under way or as it is after it:
//!
//! - A record has a block of its own with two copies of its state, and one byte that says which one counts. A
//!   [`Change`] stores its bytes where nothing counts yet, then the other copy, and then that byte. A byte is stored
//!   whole or not at all.
//! - Nothing that the counting copy names is stored over. Blocks that a change drops are used again after it, and those
//!   it takes are free ones.
//! - A block is a record's own from the last store of [`Journal::open`] to the first of [`Journal::close`].
//!
//! The order of these stores is the compiler's to keep, which two fences see to; what a process has stored in a file's
//! page is there for the next one, however the first one ends. A host that loses its power loses the memory: there is
//! no session to go on with then.
//!
//! # Reading
//!
//! The bytes of a read from the game server are in no record until a change has put them there, and not in the socket
//! any more. So [`Journal::buffer_for`] reads into the shared memory: the bytes are [there](RecoveredRecord::unread)
//! too, for the record that read last.
//!
//! # Memory
//!
//! | of | bytes |
//! |---|---|
//! | a journal | [`SEGMENT`], and as many more at a time, up to [`MAX_SEGMENTS`] of them; none is given back before its end |
//! | a session | [`BLOCK`]; another one if its identity has more than [`INLINE_IDENTITY`] bytes |
//! | its frames, and likewise its partial packet | [`BLOCK`] for each [`BLOCK_DATA`] bytes and what is begun of them at either end; none if there are none |
//! | the same on the heap | some 300 for a session, and 4 for each block |
//!
//! The pages of a segment are taken before it is mapped, so that a host without memory answers with an
//! [error](RecordError::NoMemory). The owner goes on without a record of that session.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "a test fails by a panic"))]

mod blocks;
mod chain;
mod change;
mod error;
mod journal;
mod layout;
mod memory;
mod position;
mod progress;
mod record;
mod recover;
#[cfg(test)]
mod tests;

pub use change::Change;
pub use error::RecordError;
pub use journal::{Contents, Journal};
pub use layout::{BLOCK, BLOCK_DATA, FORMAT, INLINE_IDENTITY, MAX_IDENTITY, MAX_SEGMENTS, READ_BUFFER, SEGMENT};
pub use position::StreamPosition;
pub use progress::Progress;
pub use record::Record;
pub use recover::{Place, RecoverError, Recovered, RecoveredRecord, Torn, forget, recover};

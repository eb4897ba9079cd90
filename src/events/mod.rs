//! Events: what has happened to this process and around it, in the words of an operator, the last ones of each kind.
//!
//! A source emits an event with [`EventLog::emit`], which holds a lock for a moment and waits for nobody. Nothing on the way of a
//! packet does so. A flood of one kind neither fills the log nor drives out other kinds: see [`EventLog`].

mod event;
mod log;

pub use event::{Event, EventKind, Happening, LONGEST_WORDS};
pub use log::{EVENTS_KEPT, EVENTS_PER_WINDOW, EventLog};

//! The session machine: what the relay knows and decides about one game connection of one client.
//!
//! Pure: no I/O, no clock of its own, no runtime. Bytes and the time come in as arguments; what to
//! write and when to wake comes out. So a whole exchange can be driven by a test.

mod inbox;
mod link_writer;
mod machine;
mod outbox;
mod reason;
mod upstream;

pub use inbox::{Arrival, Inbox, ReorderFull};
pub use link_writer::{LinkWriter, MAX_ENDS, MAX_PONGS, Source, Written};
pub use machine::{Machine, MachineLimits, Phase, Refusal};
pub use outbox::{AckBeyondSent, Advance, Batch, Cursor, Outbox};
pub use reason::{EndReason, RefuseReason};
pub use upstream::Upstream;

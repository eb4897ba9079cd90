//! The core's half of the protocol: the machine of one client, and its parts.
//!
//! Pure: no I/O, no clock of its own, no runtime. Frames of links, bytes of game servers, room in sockets and the time
//! go in; connects, writes, ends, counts and lines for the log come out. So a whole exchange can be driven by a test.
//!
//! - [`ClientMachine`]: links and sessions of one client, and every decision about them. [`ReceivedBytes`]: frames from
//!   a link.
//! - [`ClientOwner`]: the questions of a machine. [`Effect`]: the tasks that it gives.
//! - [`Machine`]: the life of a session. [`Inbox`]: order on the way up. [`Outbox`]: frames that may have to be sent
//!   again. [`Upstream`]: packets that wait for the game server. [`RoundTrips`]: which told round trips count.

mod client;
mod frozen;
mod inbox;
mod keys;
mod lend;
mod link_writer;
mod machine;
mod outbox;
mod owner;
mod reason;
mod record;
mod round_trips;
mod session;
mod slots;
mod turn;
mod upstream;

pub use client::{ClientMachine, MAX_LINKS};
pub use frozen::{FORMAT as FROZEN_FORMAT, FrozenClient, FrozenError, ThawedSession};
pub use inbox::{Arrival, Inbox, ReorderFull};
pub use keys::{LinkKey, SessionKey};
pub use lend::{CLOSE_EVERY, LinkDuty, MAX_CLOSES, OPEN_WITHIN};
pub use link_writer::{MAX_ENDS, MAX_PONGS, WriteOutcome};
pub use machine::{Machine, ProtocolError, SessionLimits, SessionPhase, Standing};
pub use outbox::{AckBeyondSent, Batch, Cursor, CursorAdvance, Outbox};
pub use owner::{AdmittedSession, ClientOwner, Effect, FrameCounts, OpenRules};
pub use reason::{EndReason, OpenError};
pub use record::{RecordedSession, SessionRecord};
pub use round_trips::{ROUND_TRIP_SPACING, RoundTrips};
pub use session::{Framed, JOIN_INTERVAL, MAX_ADDRESSES, MAX_JOINS, SessionFigures};
pub use turn::ReceivedBytes;
pub use upstream::{PERIOD as PACKETS_PERIOD, Upstream};

// The rule comes before the client is known.
pub use crate::frame::{NoPing, first_ping};

#[cfg(test)]
mod tests;

//! The client's half of the multi-path protocol, as a game client plays it. Pure: no I/O, and the time is an argument.
//!
//! From the bottom:
//!
//! - [`clocks`]: the clients' times and limits. [`options`]: what a player is made of.
//! - [`link`]: one connection: connecting, waiting for its first pong, ready.
//! - [`session`]: numbers, acks and replay of one game connection. [`end`]: why it is over.
//! - [`choice`]: which links carry a session.
//! - [`machine`]: all links and sessions of one client, driven by bytes and time. [`stats`]: its numbers.
//!
//! It behaves as the known clients do, even where that is a fault: a link that is lost and back between two looks of a
//! session counts as joined, so data is sent on it and it is never opened again. It is stricter in one thing: where they would lose a packet
//! or deliver one twice, it counts a violation ([`stats::SessionStats::gaps`],
//! [`stats::SessionStats::miscut`]).

pub mod choice;
pub mod clocks;
pub mod end;
pub mod link;
pub mod machine;
pub mod options;
pub mod session;
pub mod stats;

pub use clocks::ClientClocks;
pub use end::ClientEndReason;
pub use link::LinkId;
pub use machine::PlayerCore;
pub use options::{PathOptions, PlayerOptions};
pub use session::{ReceivedData, SendError};
pub use stats::{PathStats, PlayerStats, SessionStats};

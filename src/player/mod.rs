//! The client's side of the multi-path protocol: what a game client does, for the demo, the tests
//! and the load bench.
//!
//! From the bottom, and pure up to [`machine`] (no I/O, the time is an argument):
//!
//! - [`clocks`]: the clients' times and limits. [`options`]: what a player is made of.
//! - [`link`]: one connection: connecting, waiting for its first pong, ready.
//! - [`session`]: numbers, acks and replay of one game connection. [`end`]: why it is over.
//! - [`choice`]: which links carry a session.
//! - [`machine`]: all links and sessions of one client, driven by bytes and time.
//! - [`client`]: the machine on real sockets, one task for each player. [`stats`]: its numbers.
//!
//! It behaves as the known clients do, and is stricter in one thing: where they would lose a packet
//! or deliver one twice, it counts a violation ([`stats::SessionStats::gaps`],
//! [`stats::SessionStats::miscut`]).

pub mod choice;
pub mod client;
pub mod clocks;
mod driver;
pub mod end;
pub mod link;
pub mod machine;
pub mod options;
pub mod session;
mod socket;
pub mod stats;

pub use client::{GameSession, Player, SessionSender};
pub use clocks::ClientClocks;
pub use end::EndReason;
pub use link::LinkId;
pub use machine::PlayerCore;
pub use options::{PathOptions, PlayerOptions};
pub use session::{Received, SendError};
pub use stats::{PathStats, PlayerStats, SessionStats};

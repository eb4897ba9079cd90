//! The client's side of the multi-path protocol: what a game client does, for the demo, the tests
//! and the load bench.
//!
//! From the bottom, and pure up to [`machine`] (no I/O, the time is an argument):
//!
//! - [`clocks`]: the clients' times and limits.
//! - [`link`]: one connection: connecting, waiting for its first pong, ready.
//! - [`session`]: numbers, acks and replay of one game connection.
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
pub mod link;
pub mod machine;
pub mod session;
mod socket;
pub mod stats;

pub use client::{GameSession, PathOptions, Player, PlayerOptions, SessionSender};
pub use clocks::ClientClocks;
pub use link::LinkId;
pub use machine::PlayerCore;
pub use session::{EndReason, Received, SendError};
pub use stats::{PathStats, PlayerStats, SessionStats};

//! A player on real sockets, for the demo, the tests and the load bench: [`otproxy_protocol::player`] with its I/O,
//! one task for each player.

mod client;
mod driver;
mod socket;

pub use client::{GameSession, Player, SessionSender};
pub use otproxy_protocol::player::{
    ClientClocks, ClientEndReason, PathOptions, PathStats, PlayerOptions, PlayerStats, SendError, SessionStats,
};

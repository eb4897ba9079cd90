//! A game server to stand in for a real one, and what tells what became of its packets: for the
//! demo, the load test and the tests.
//!
//! - [`packet`] and [`proof`], pure: numbered packets, and the judge of what became of them.
//!   [`direction`]: sums of that. [`message`]: what a load test and the stand-in tell each other.
//! - [`clock`]: times that both ends of one process agree on. [`timer`]: sleeps that end in time.
//! - [`game_server`]: the stand-in itself. [`role`]: a role of the program that runs in this process.

pub mod clock;
pub mod direction;
pub mod game_server;
pub mod message;
pub mod packet;
pub mod proof;
pub mod role;
pub mod timer;

pub use direction::Direction;
pub use game_server::{GameServer, GameServerOptions};
pub use timer::Timer;

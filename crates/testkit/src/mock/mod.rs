//! A mock game server, and what it and players exchange: for the demo, the load test and the tests.
//!
//! - [`packet`], pure: numbered packets. [`message`]: what a load test and the server tell each other.
//! - [`clock`]: times that both ends of one process agree on. [`timer`]: sleeps that end in time.
//! - [`game_server`]: the server itself. [`throttle`], pure: how a stock server blocks those who connect too often.

pub mod clock;
pub mod game_server;
pub mod message;
pub mod packet;
pub mod throttle;
pub mod timer;

pub use game_server::{MockGameServer, MockGameServerOptions};
pub use throttle::{ConnectThrottle, ThrottleBy};
pub use timer::Timer;

//! Equipment to see otproxy work and to test it: players, a game server, and whole topologies of them.
//!
//! - [`player`]: a player on real sockets; its protocol is [`otproxy_protocol::player`].
//! - [`mock`]: a mock game server, and the numbered packets that it and players exchange.
//! - [`delivery`], pure: the check of what became of numbered packets. [`direction`]: sums of that.
//! - [`role`]: an edge or a core that runs in this process. The program provides the starter, as it depends on this crate.
//! - [`demo`]: the whole topology on loopback. [`mod@bench`]: a load test against edges and a core that run. Both give
//!   figures; the program shows them.
#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::string_slice,
        clippy::unchecked_time_subtraction,
        reason = "a test fails by a panic"
    )
)]

pub mod bench;
pub mod delivery;
pub mod demo;
pub mod direction;
pub mod mock;
pub mod player;
pub mod role;

pub use delivery::{Delivery, DeliveryCheck};
pub use direction::Direction;
pub use mock::{MockGameServer, MockGameServerOptions};

//! The multi-path protocol of Open Tibia game clients, and the formats around it. Pure: no I/O, no clock, no runtime.
//!
//! A player's client holds several TCP connections at once, *links*, each over another path, and runs its *sessions*,
//! the game connections, over all of them. A *core* in front of the game server puts them together again.
//!
//! - [`core`]: the core's half of the protocol. [`player`]: the client's half.
//! - [`frame`]: frames on a link. [`game_packet`]: packets in a game server's byte stream. [`reassembly`]: an
//!   incomplete unit of either.
//! - [`player_address`]: the forms in which game servers learn the player's address. [`proxy_header`]: PROXY headers.
//! - [`status`]: requests for a game server's status, and answers. [`sniff`]: the first bytes of connections.
//! - [`edge_list`]: the edges that clients are told. [`login`]: logins, in which they are told of them.
//! - [`trunk`]: many players' streams in one connection between an edge and the core. [`byte_queue`]: bytes that wait.
//! - [`quota`] and [`pacer`]: rate limits. [`words!`]: enums whose values have words. [`printable`]: text from elsewhere.
//!
//! A parser tells what is incomplete (`None`: read more) from what is wrong (an error).
//!
//! The crate's README.md runs a session over two links in memory.
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

pub mod byte_queue;
pub mod core;
pub mod edge_list;
pub mod frame;
pub mod game_packet;
pub mod login;
pub mod pacer;
pub mod player;
pub mod player_address;
pub mod printable;
pub mod proxy_header;
pub mod quota;
pub mod reassembly;
pub mod sniff;
pub mod status;
pub mod trunk;
mod words;

pub use words::Word;

/// Has the example in the README tested.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

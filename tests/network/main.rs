//! The whole topology over slow, lossy networks, with real kernels' TCP.
//!
//! [`link`] is what a link does to packets, pure; [`host`] a network namespace; [`simulator`] joins
//! hosts by links; [`topology`] has the real program on hosts of their own; [`traffic`] plays over it
//! and judges. The tests are in [`faults`], [`fleet`] and [`routers`]; [`bans`] has the kernel drop what banned addresses send, and [`player_source`] has a server see players' own
//! addresses; [`figures`] measures and is
//! run by hand.
//!
//! Root and `/dev/net/tun` are needed.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::string_slice,
    clippy::unchecked_time_subtraction,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

#[path = "../common/mod.rs"]
mod common;

mod bans;
mod faults;
mod figures;
mod fleet;
mod host;
mod link;
mod player_source;
mod routers;
mod simulator;
mod topology;
mod traffic;

//! Everything that runs within one process: parts alone, and roles on loopback with players and game servers.
//!
//! - [`player`], [`exchange`], [`corpus`], [`config`]: one part, mostly without sockets.
//! - [`roles`], [`relay`], [`tunnel`], [`web`]: edges and cores from YAML, on sockets.
//!
//! No test here changes what the whole process has (environment, current directory, panic hook, logging), nor counts
//! what it holds.

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

mod config;
mod corpus;
mod exchange;
mod player;
mod proxies_table;
mod relay;
mod roles;
mod tunnel;
mod web;
mod web_report;

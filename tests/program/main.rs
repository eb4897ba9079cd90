//! The program as a process of its own: its commands as users run them, and what attackers do to it.
//!
//! Tests that start processes are apart from those that run roles in their own: while a process is being started it
//! holds copies of all sockets, and so one that has just been closed can answer for a moment longer.

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

mod admin;
mod alerts;
mod attack;
mod bench;
mod cert;
mod cli;
mod client;
mod deploy;
mod doctor;
mod game_server_kinds;
mod haproxy;
mod hostile;
mod init;
mod monitoring;
mod ping;
mod probe;
mod report;
mod restart;
mod stderr;
mod tunnel;

//! The program as a process of its own: its commands as users run them, and what attackers do to it.
//!
//! Tests that start processes are apart from those that run roles in their own: while a process is being started it
//! holds copies of all sockets, and so one that has just been closed can answer for a moment longer.

#[path = "../common/mod.rs"]
mod common;

mod admin;
mod attack;
mod bench;
mod cert;
mod cli;
mod doctor;
mod hostile;
mod init;
mod tunnel;

//! Roles on real sockets: what goes in and out, what is counted, and how they stop.
//!
//! Everything is on loopback and on ports that the kernel chose.

mod access_log;
mod bans;
mod course;
mod expect;
mod forward;
mod forward_core;
mod gate;
mod login;
mod operation;
mod operator;
mod reload;
mod status;
mod targets;

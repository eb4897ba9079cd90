//! Roles on real sockets: what goes in and out, what is counted, and how they stop.
//!
//! Everything is on loopback and on ports that the kernel chose; `haproxy` and `oracle` also need
//! the program of that name.

mod access_log;
mod bans;
mod expect;
mod forward;
mod forward_core;
mod gate;
mod haproxy;
mod operation;
mod operator;
mod oracle;
mod real_haproxy;
mod reload;
mod sandbox;
mod status;
mod targets;

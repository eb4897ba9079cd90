//! Attacks on an edge while people play behind it: who is turned away and why, and what the players notice.
//!
//! The edge and the core are processes, the players are those of `otproxy bench`. The attackers come from hundreds of
//! addresses of loopback, in numbers that have a bound, and stop with the test. `cargo test` runs small attacks, and
//! asserts states only. The large one, of 20,000 connections from processes of their own, prints the table in
//! docs/performance.md:
//!
//! ```sh
//! cargo test --release --test program -- --ignored --exact attack::table::table --nocapture
//! ```

mod arena;
mod crowd;
mod login_server;
mod players;
mod small;
mod table;

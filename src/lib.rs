//! otproxy: the multi-path relay and the edge proxy for Open Tibia game servers, in one program.
//!
//! The layers, from the top. A module imports only from rows below its own; a test holds that.
//!
//! - [`cli`]: commands, flags, exit codes.
//! - [`deploy`]: puts the files of all hosts in their places, over ssh.
//! - [`init`]: all hosts' files from one topology. [`doctor`]: tries from here the hosts and files that a configuration
//!   needs, and from elsewhere a whole set-up, as a player sees it. [`pull`]: the reports of many hosts, fetched into one folder.
//! - [`roles`]: an edge and a core, started from a checked configuration.
//! - [`web`]: the list of edges, the status and logins over HTTP. [`alerts`]: what owners are told of, by a webhook.
//! - [`fleet`]: the edges of a core, asked, judged and listed. [`lag`]: whose lag it was, a world's, an edge's or this host's.
//! - [`forward`]: TCP forwarding, for both roles. [`relay`]: the multi-path relay of the core. [`admin`]: metrics, health and
//!   the admin API over HTTP. [`proxies_table`]: the rows for edges in a web site's table.
//! - [`tunnel`]: TLS between edges and the core.
//! - [`admission`]: limits, lists and bans, from an accepted socket to a known player.
//! - [`access_log`]: a line for each connection and session that ended. [`certs`]: the operator's own certificates, and TLS
//!   configurations of them. [`report`]: the sockets of listeners as lsof prints them, in files.
//!   [`traffic`]: what this host carries, in days.
//! - [`connection`]: open connections, and the reasons for which they end.
//! - [`events`]: what has happened, for operators. [`history`]: the figures of the last hour and day.
//!   [`metrics`]: the metrics of everything above. [`handover`]: what a process leaves to its successor. [`stderr`]: the lines of the process there, and their thread. `sharded`: tables
//!   that threads share. [`probe`]: links, opened as a player's client opens them. [`state`]: what is kept over restarts. [`unit`](mod@unit): the user of systemd's unit, and the files that it cannot read.
//!
//! Below stand crates, which cargo keeps from importing any of these: [`otproxy_net`], sockets and the threads that carry
//! them; [`otproxy_config`], YAML to checked values; [`otproxy_protocol`], the protocol and the formats on the wire, pure.
//! [`otproxy_testkit`] has players and a mock game server, for the demo, the load test and the tests.
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

// A panic ends the one connection whose task it is in. That takes unwinding.
#[cfg(panic = "abort")]
compile_error!("otproxy must be built with panic = \"unwind\": else a defect met by one player ends all");

pub mod access_log;
pub mod admin;
pub mod admission;
pub mod alerts;
pub mod certs;
pub mod cli;
pub mod connection;
pub mod deploy;
pub mod doctor;
pub mod events;
pub mod fleet;
pub mod forward;
pub mod handover;
pub mod history;
pub mod init;
pub mod lag;
pub mod metrics;
pub mod probe;
pub mod proxies_table;
pub mod pull;
pub mod relay;
pub mod report;
pub mod roles;
mod sharded;
pub mod state;
pub mod stderr;
pub mod traffic;
pub mod tunnel;
pub mod unit;
pub mod web;

//! The tunnel between an edge and the core: TLS with certificates on both sides, one connection for each stream.
//!
//! A connection begins as a spare. Either side may have made it, but the edge takes it into use: it sends a PROXY v2
//! header whose authority names a listener of the core, followed by the player's bytes. Until then the edge asks from
//! time to time whether the core is still there, with a header of the command `LOCAL`, and the core answers with the
//! same.
//!
//! All of that runs on a thread of its own, so that handshakes cost players nothing. A stream that is taken moves to a
//! worker. The protocol is specified in `docs/tunnel.md`.

mod acceptor;
mod client;
mod handshake;
mod maintainer;
mod metrics;
mod pool;
mod refusal;
mod server;
mod spare;
mod unauthenticated;

use std::time::Duration;

pub use crate::certs::certificate::DAYS_LEFT;
pub use acceptor::NAME;
pub use client::TunnelClient;
pub use handshake::{KNOWN, KNOWN_PER_ADDRESS, UNAUTHENTICATED, UNAUTHENTICATED_PER_ADDRESS};
pub use maintainer::{AT_ONCE, FIRST_WAIT, LONGEST_WAIT};
pub use metrics::TunnelMetrics;
pub use pool::SparePool;
pub use refusal::TunnelError;
pub use server::{MOST_READY, RECENT, TunnelPeers, TunnelServer, TunnelStreams};

/// The time limit of a handshake, after the connect.
pub const HANDSHAKE: Duration = Duration::from_secs(5);
/// The time limit of a connect to the other side.
pub const CONNECT: Duration = Duration::from_secs(4);
/// The interval at which an edge asks on a spare connection whether the core is there.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
/// The time limit of the answer.
pub const ANSWER: Duration = Duration::from_secs(5);
/// The time for which the core keeps a connection on which an edge says nothing.
pub const SILENCE: Duration = Duration::from_secs(45);
/// The interval at which the certificates' files are looked at.
pub const REREAD: Duration = Duration::from_secs(5);

//! Metrics, health and the admin API over HTTP/1, for Prometheus, load balancers, people and scripts.
//!
//! It is served at `admin.listen` and at a unix socket. Both are bounded: a limited number of connections at once, each
//! for one request and for a limited time, whatever the peer does.

use std::sync::Arc;

use crate::metrics::{BuildInfo, Metrics};

mod access;
mod answer;
pub mod api;
mod bounded;
mod caller;
mod client;
mod document;
mod errands;
mod event_stream;
mod owner;
mod pages;
mod ready;
mod routes;
mod server;
mod socket;
mod tls;
mod tokens;

pub use access::bearer;
pub use client::{AdminClient, ApiAnswer, ClientError, ClientFiles, MAX_ERRAND, ask_over};
pub use event_stream::{KEEP_ALIVE, MAX_STREAMS};
pub use ready::Readiness;
pub use routes::{MAX_ANSWERS, MAX_REQUEST};
pub use server::{
    AdminError, AdminServer, AdminSockets, CONNECTION_TIMEOUT, MAX_CONNECTIONS, SOCKET_TIMEOUT, check_files,
    check_tokens,
};
pub use socket::{SOCKET_MODE, SocketError, SocketOwnership};
pub use tokens::{LONGEST_TOKEN, SHORTEST_TOKEN, TokenError, TokenFile, TokenPurpose, read_token};

/// The sources of everything that is served.
#[derive(Clone)]
pub struct AdminState {
    /// Every worker's metrics.
    pub metrics: Vec<Arc<Metrics>>,
    /// The state of readiness.
    pub ready: Arc<Readiness>,
    /// The version and the role.
    pub build: BuildInfo,
    /// The role that answers the API.
    pub operator: Arc<dyn api::Operator>,
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

//! Sockets: listeners, streams, connects, and the worker threads that carry them.

mod backoff;
pub mod bans;
mod connect;
mod host_key;
mod inbound;
mod listener;
mod options;
mod patience;
pub mod pump;
mod socket;
mod stream;
pub mod tls;
mod tunnelled;
pub mod worker;

pub use backoff::Backoff;
pub use connect::{Source, connect, connect_forward, lookup, resolve};
pub use host_key::host_key;
pub use inbound::{Admitted, Carried, Inbound, InboundShared, Who};
pub use listener::{BindError, BoundListener, accept_until, bind, bind_beside, warn_of_accept};
pub use patience::Patience;
pub use stream::{Detached, Stream};
pub use tls::TlsError;
pub use tunnelled::{ProvenEdge, Tunnelled, Via, unfinished};

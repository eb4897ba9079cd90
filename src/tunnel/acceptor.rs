//! Accepting connections of the tunnel.

use std::io;
use std::net::{SocketAddr, TcpListener};

use tokio::net::TcpStream;
use tracing::error;

use crate::metrics::Metrics;
use otproxy_net::worker::Tasks;
use otproxy_net::{accept_until, warn_of_accept};
use otproxy_protocol::proxy_header;

/// The name of the tunnel's sockets, in place of a listener's name.
pub const NAME: &str = "tunnel";

/// Accepts on `sockets` forever, and runs `carry` for each connection as a task of its own.
pub(super) fn accept<F>(
    sockets: Vec<TcpListener>,
    metrics: &Metrics,
    tasks: &Tasks,
    carry: impl Fn(TcpStream, SocketAddr) -> F + Clone + 'static,
) where
    F: Future<Output = ()> + 'static,
{
    let errors = metrics.accept_errors.with_label_values(&[NAME]);
    for socket in sockets {
        let (connections, errors, carry) = (tasks.clone(), errors.clone(), carry.clone());
        let accepting = async move {
            let accepted = |stream, peer| connections.spawn(carry(stream, proxy_header::unmap_socket(peer)));
            let failed = |error: &io::Error| {
                errors.inc();
                warn_of_accept(NAME, error);
            };
            if let Err(error) = accept_until(std::future::pending::<()>(), socket, accepted, failed).await {
                error!(listener = NAME, %error, "cannot accept any more");
            }
        };
        // It is not among the tasks: it never ends, and nothing waits for it.
        tokio::task::spawn_local(accepting);
    }
}

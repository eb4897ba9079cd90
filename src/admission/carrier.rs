//! The seam between listeners and the ways in which their connections are carried.

use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::TcpStream;

use super::{Inbound, TunnelledStream};
use otproxy_net::worker::Tasks;

/// The part of a listener that carries its connections on one worker. Each kind of listener has one.
pub trait Carrier {
    /// Returns the counters and the configuration of incoming connections.
    fn inbound(&self) -> &Inbound;

    /// Carries an accepted connection, as a task of its own with the future's own size.
    fn spawn(self: Rc<Self>, tasks: &Tasks, stream: TcpStream, peer: SocketAddr);

    /// Carries a stream of the tunnel, likewise.
    fn spawn_tunnelled(self: Rc<Self>, tasks: &Tasks, tunnelled: TunnelledStream);
}

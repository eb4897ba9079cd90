//! A listener of kind `relay`, on one worker.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::Relay;
use crate::admission::{Carrier, Inbound, InboundShared, TunnelledStream};
use otproxy_net::worker::Tasks;

/// A listener whose connections are links.
pub struct RelayListener {
    relay: Rc<Relay>,
    inbound: Rc<Inbound>,
}

impl RelayListener {
    /// Makes the part of `shared` on the worker of `relay`.
    pub fn new(relay: &Rc<Relay>, shared: &Arc<InboundShared>) -> Self {
        Self { relay: Rc::clone(relay), inbound: relay.inbound(shared) }
    }
}

impl Carrier for RelayListener {
    fn inbound(&self) -> &Inbound {
        &self.inbound
    }

    fn spawn(self: Rc<Self>, tasks: &Tasks, stream: TcpStream, peer: SocketAddr) {
        tasks.spawn(Rc::clone(&self.relay).carry(Rc::clone(&self.inbound), stream, peer));
    }

    fn spawn_tunnelled(self: Rc<Self>, tasks: &Tasks, tunnelled: TunnelledStream) {
        tasks.spawn(Rc::clone(&self.relay).carry_tunnelled(Rc::clone(&self.inbound), tunnelled));
    }
}

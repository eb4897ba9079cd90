//! The core and the edges of the demo: from YAML, as `otproxy core` and `otproxy edge` run them, each on a thread of
//! its own. Keys that their files leave out have the defaults that ship, limits included.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::thread;

use crate::role::{RunningRole, Starter};

use super::DemoError;

/// The port that players ask for.
pub(super) const GAME_PORT: u16 = 7172;
/// The listener of an edge, and of the core.
const LINKS: &str = "links";

fn start(starter: Starter, name: &str, yaml: &str) -> Result<RunningRole, DemoError> {
    starter(name, yaml).map_err(DemoError::Role)
}

/// The core.
pub(super) struct DemoCore {
    running: Option<RunningRole>,
    links: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
}

impl DemoCore {
    /// Starts a core with one address for each edge, so that many links do not run out of ports.
    pub fn start(starter: Starter, game_server: SocketAddr, edges: usize) -> Result<Self, DemoError> {
        let workers = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(2);
        let listen = vec!["'127.0.0.1:0'"; edges].join(", ");
        // All edges connect from 127.0.0.1; players do not, so that none of them is believed. There is nothing to finish
        // once the players have left.
        let yaml = format!(
            "role: core\n\
             name: core\n\
             workers: {workers}\n\
             shutdown_timeout: 500ms\n\
             admin: {{ listen: '127.0.0.1:0' }}\n\
             edges: [{{ name: edges, address: 127.0.0.1 }}]\n\
             listeners: [{{ name: {LINKS}, kind: relay, listen: [{listen}] }}]\n\
             game_servers: [{{ port: {GAME_PORT}, address: '{game_server}' }}]\n"
        );
        let running = start(starter, "core", &yaml)?;
        let (links, admin) = (running.addresses(LINKS).to_vec(), running.admin());
        Ok(Self { running: Some(running), links, admin })
    }

    /// Returns the address that each edge forwards to.
    pub fn links(&self) -> &[SocketAddr] {
        &self.links
    }

    /// Returns the address of its metrics.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Begins to stop it, and returns it for its end; `None` if it is stopped already.
    pub fn stop(&mut self) -> Option<RunningRole> {
        stop(&mut self.running)
    }
}

/// An edge, up or cut.
pub(super) struct DemoEdge {
    starter: Starter,
    name: String,
    core: SocketAddr,
    address: SocketAddr,
    running: Option<RunningRole>,
}

impl DemoEdge {
    /// Starts an edge on a free port.
    ///
    /// Its address is not 127.0.0.1, from which other programs connect: while it is cut, the kernel
    /// could give its port to one of their connections.
    pub fn start(starter: Starter, index: usize, core: SocketAddr) -> Result<Self, DemoError> {
        let host = u8::try_from(index + 2).unwrap_or(u8::MAX);
        let address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0));
        let mut edge = Self { starter, name: format!("edge {}", index + 1), core, address, running: None };
        edge.restart()?;
        Ok(edge)
    }

    /// Returns its name in the table.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns whether it is not cut.
    pub fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// Cuts it: all its connections die. Returns it for its end; `None` if it is cut already.
    pub fn stop(&mut self) -> Option<RunningRole> {
        stop(&mut self.running)
    }

    /// Starts it again, on the port that it had.
    pub fn restart(&mut self) -> Result<(), DemoError> {
        let Self { name, core, address, .. } = self;
        let yaml = format!(
            "role: edge\n\
             name: {name}\n\
             workers: 1\n\
             shutdown_timeout: 0s\n\
             admin: {{ listen: off }}\n\
             listeners: [{{ name: {LINKS}, listen: '{address}', forward_to: '{core}' }}]\n"
        );
        let running = start(self.starter, &self.name, &yaml)?;
        if let Some(address) = running.addresses(LINKS).first() {
            self.address = *address;
        }
        self.running = Some(running);
        Ok(())
    }
}

fn stop(running: &mut Option<RunningRole>) -> Option<RunningRole> {
    let stopping = running.take()?;
    stopping.shut_down();
    Some(stopping)
}

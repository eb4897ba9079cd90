//! The queues of connects to the hosts of game servers: one for each host, whatever leads there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::ConnectQueue;
use otproxy_config::{Config, HostPort, TargetHost};
use otproxy_protocol::quota::Quota;

/// Connects to the host of a game server that may begin at once, and the time between further ones, unless the file gives
/// a rate. When thousands of players come back in one second, the connects that do not fit into a listen queue (often
/// of 128) would be answered with SYN cookies, and connections that find the queue full are then reset.
pub const CONNECT_BURST: u32 = 64;
/// See [`CONNECT_BURST`].
pub const CONNECT_INTERVAL: Duration = Duration::from_micros(500);

/// The queues of connects to all hosts that have one. A game server counts logins and sessions together, often over all
/// ports, so everything that leads to its host takes turns in the same queue.
#[derive(Debug, Default)]
pub struct ConnectQueues(Mutex<HashMap<TargetHost, Arc<ConnectQueue>>>);

impl ConnectQueues {
    /// Makes the queues that `config` asks for.
    pub fn new(config: &Config) -> Arc<Self> {
        let queues = Arc::new(Self::default());
        queues.set(config);
        queues
    }

    /// Changes to the queues that `config` asks for. Turns that were given stay; connects that wait go on waiting, even for a
    /// host that has no queue any more.
    pub fn set(&self, config: &Config) {
        let mut rates: HashMap<_, _> = config.connect_rates().into_iter().collect();
        if let Config::Core(core) = config {
            for server in &core.game_servers {
                rates.entry((&server.address).into()).or_insert(Quota::new(CONNECT_INTERVAL, CONNECT_BURST));
            }
        }
        let mut queues = self.0.lock();
        queues.retain(|host, _| rates.contains_key(host));
        for (host, rate) in rates {
            queues.entry(host).or_insert_with(|| ConnectQueue::new(rate)).set(rate);
        }
    }

    /// Returns the queue of connects to the host of `target`; `None` if they need not wait.
    pub fn of(&self, target: &HostPort) -> Option<Arc<ConnectQueue>> {
        self.0.lock().get(&target.into()).map(Arc::clone)
    }
}

#[cfg(test)]
mod tests;

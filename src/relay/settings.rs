//! The relay's settings, from one reload to the next.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{CONNECT_BURST, CONNECT_INTERVAL};
use crate::admission::{ConnectQueue, RateLimit};
use otproxy_config as config;
use otproxy_config::{BindSessions, GameServerConfig};
use otproxy_protocol::core::SessionLimits;
use otproxy_protocol::quota::Quota;

/// Settings of new links and sessions. A session keeps those that it began with.
#[derive(Debug)]
pub(super) struct RelaySettings {
    pub bind_sessions: BindSessions,
    pub limits: SessionLimits,
    pub max_per_link: usize,
    /// New sessions by address.
    pub opens: Option<RateLimit>,
    servers: HashMap<u16, Arc<GameServerSettings>>,
}

/// A game server that sessions may lead to.
#[derive(Debug)]
pub(super) struct GameServerSettings {
    pub config: GameServerConfig,
    /// The queue of connects to it.
    pub connects: Arc<ConnectQueue>,
}

impl RelaySettings {
    /// Makes the settings of `config`; counts are taken over from `before`.
    pub fn new(config: &config::CoreConfig, before: Option<&Self>) -> Self {
        let sessions = &config.sessions;
        let server = |server: &GameServerConfig| {
            let known = before.and_then(|before| before.servers.get(&server.port));
            let connects = match known {
                Some(known) if known.config.address == server.address => Arc::clone(&known.connects),
                _ => ConnectQueue::new(connect_rate(server)),
            };
            connects.set(connect_rate(server));
            (server.port, Arc::new(GameServerSettings { config: server.clone(), connects }))
        };
        let known = before.and_then(|before| before.opens.as_ref());
        let opens = |rate| known.map_or_else(|| RateLimit::new(rate), |known| known.with_rate(rate));
        Self {
            bind_sessions: sessions.bind_sessions,
            limits: SessionLimits {
                linger: sessions.linger,
                leave_grace: sessions.leave_grace,
                unacked: sessions.unacked,
                reorder: sessions.reorder,
                pending: sessions.pending,
            },
            max_per_link: sessions.max_per_link,
            opens: sessions.opens_per_address.map(opens),
            servers: config.game_servers.iter().map(server).collect(),
        }
    }

    /// Returns the game server that clients ask for by this port.
    pub fn server(&self, port: u32) -> Option<&Arc<GameServerSettings>> {
        self.servers.get(&u16::try_from(port).ok()?)
    }
}

fn connect_rate(server: &GameServerConfig) -> Quota {
    match server.connects_per_second {
        Some(count) => Quota::new(Duration::from_secs(1) / count.max(1), 1),
        None => Quota::new(CONNECT_INTERVAL, CONNECT_BURST),
    }
}

//! The relay's settings, from one reload to the next.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crate::admission::{AddressKey, RateLimit};
use otproxy_config as config;
use otproxy_config::{BindSessions, GameServerConfig};
use otproxy_net::{ConnectResult, OutageLog};
use otproxy_protocol::core::SessionLimits;

/// Settings of new links and sessions. A session keeps those that it began with.
#[derive(Debug)]
pub(super) struct RelaySettings {
    pub bind_sessions: BindSessions,
    pub limits: SessionLimits,
    pub max_per_link: usize,
    /// New sessions by address.
    pub opens: Option<RateLimit>,
    /// Those of them that do not count, as they reached no game server: as many again.
    unreached: Option<RateLimit>,
    servers: HashMap<u16, Arc<GameServerConfig>>,
    /// The limits of the lines about game servers that cannot be reached, for a reason of the connect or of the queue.
    outages: HashMap<u16, Arc<OutageLog<Option<ConnectResult>>>>,
}

impl RelaySettings {
    /// Makes the settings of `config`; counts are taken over from `before`.
    pub fn new(config: &config::CoreConfig, before: Option<&Self>) -> Self {
        let sessions = &config.sessions;
        let outage = |server: &GameServerConfig| {
            let known = before.and_then(|before| before.outages.get(&server.port));
            (server.port, known.map(Arc::clone).unwrap_or_default())
        };
        let rate = |known: Option<&RateLimit>| {
            let limit = |rate| known.map_or_else(|| RateLimit::new(rate), |known| known.with_rate(rate));
            sessions.opens_per_address.map(limit)
        };
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
            opens: rate(before.and_then(|before| before.opens.as_ref())),
            unreached: rate(before.and_then(|before| before.unreached.as_ref())),
            servers: config.game_servers.iter().map(|server| (server.port, Arc::new(server.clone()))).collect(),
            outages: config.game_servers.iter().map(outage).collect(),
        }
    }

    /// Has an open of `address` that reached no game server not count, as far as that goes.
    pub fn open_was_in_vain(&self, address: AddressKey, now: Instant) {
        if let (Some(opens), Some(unreached)) = (&self.opens, &self.unreached)
            && unreached.try_take(address, now)
        {
            opens.give_back(address);
        }
    }

    /// Returns the limit of the lines about the game server of this port; `None` for one that a reload took away.
    pub fn outage(&self, port: u16) -> Option<&OutageLog<Option<ConnectResult>>> {
        self.outages.get(&port).map(Arc::as_ref)
    }

    /// Returns the game server that clients ask for by this port.
    pub fn server(&self, port: u32) -> Option<&Arc<GameServerConfig>> {
        self.servers.get(&u16::try_from(port).ok()?)
    }
}

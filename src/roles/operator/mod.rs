//! What an operator sees of a role that runs, and does to it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::control::{Control, ReloadError};
use crate::admin::api::{
    self, Addresses, AddressesQuestion, Banned, Bans, BansQuestion, Connections, ConnectionsQuestion, Count,
    Disconnect, Disconnected, Drained, DrainedListener, Later, ListenerKind, ListenerState, Listeners, Network,
    Operator, Refusal, Reloaded, Sessions, SessionsQuestion, Status, Target, TargetState, Targets, Time, Unbanned,
};
use crate::limits::{Leads, Presence, Roster};
use crate::metrics::Metrics;
use crate::reason::Closing;
use crate::relay::RelayShared;

mod connections;
mod drains;
mod files;
mod listeners;
mod sessions;

use connections::{close, is_in, who};
use drains::Drains;

/// A role that runs, for the admin API.
pub(super) struct Running {
    role: api::Role,
    started: SystemTime,
    since: Instant,
    control: Control,
    roster: Arc<Roster>,
    relay: Option<Arc<RelayShared>>,
    /// Each worker's counters.
    metrics: Vec<Arc<Metrics>>,
    drains: Arc<Drains>,
}

impl Running {
    /// Ends the sessions that `wanted` picks; gives how many.
    async fn end_sessions(
        &self,
        wanted: impl Fn(ClientId, SessionId, SocketAddr) -> bool + Send + Sync + 'static,
    ) -> u64 {
        let Some(relay) = &self.relay else { return 0 };
        let ended = relay.ask(move |relay| relay.disconnect(&wanted)).await;
        ended.into_iter().sum::<usize>() as u64
    }

    async fn disconnect(&self, what: Disconnect) -> Result<Disconnected, Refusal> {
        match what {
            Disconnect::Connection(id) => {
                let presence = self.roster.get(id).ok_or_else(|| no_connection(id))?;
                let closed = presence.close(Closing::Disconnected);
                Ok(Disconnected { connections: closed.into(), sessions: 0 })
            }
            Disconnect::Listener(name) => {
                self.names(Some(&name))?;
                let connections = close(&self.roster, Closing::Disconnected, |presence| presence.listener() == name);
                Ok(Disconnected { connections, sessions: 0 })
            }
            Disconnect::Address(network, Some(listener)) => {
                self.names(Some(&listener))?;
                let wanted = |presence: &Presence| presence.listener() == listener && is_in(network, who(presence));
                Ok(Disconnected { connections: close(&self.roster, Closing::Disconnected, wanted), sessions: 0 })
            }
            // Sessions first, so that their clients are told of the end before their links go.
            Disconnect::Address(network, None) => {
                let sessions = self.end_sessions(move |_, _, player| is_in(network, player)).await;
                let wanted = |presence: &Presence| is_in(network, who(presence));
                Ok(Disconnected { connections: close(&self.roster, Closing::Disconnected, wanted), sessions })
            }
            Disconnect::Client(client) => {
                let sessions = self.end_sessions(move |of, _, _| of == client).await;
                let wanted = |presence: &Presence| presence.leads() == Some(&Leads::Client(client.0));
                let connections = close(&self.roster, Closing::Disconnected, wanted);
                if sessions + connections == 0 {
                    return Err(Refusal::not_found(
                        format!("client {} has no link and no session here", client.0),
                        format!("see `otproxy sessions`; {WHERE_SESSIONS}"),
                    ));
                }
                Ok(Disconnected { connections, sessions })
            }
            Disconnect::Session(client, session) => {
                let sessions = self.end_sessions(move |of, id, _| (of, id) == (client, session)).await;
                if sessions == 0 {
                    return Err(Refusal::not_found(
                        format!("client {} has no session {}", client.0, session.0),
                        format!("see `otproxy sessions`; {WHERE_SESSIONS}"),
                    ));
                }
                Ok(Disconnected { connections: 0, sessions })
            }
        }
    }

    /// The listener of this name, or all.
    fn names(&self, listener: Option<&str>) -> Result<Vec<String>, Refusal> {
        let all = self.control.listeners().into_iter().map(|listener| listener.name);
        let Some(name) = listener else { return Ok(all.collect()) };
        let known: Vec<_> = all.collect();
        if known.iter().any(|known| known == name) {
            return Ok(vec![name.to_owned()]);
        }
        Err(Refusal::not_found(
            format!("there is no listener `{name}`"),
            format!("the listeners are {}", known.join(", ")),
        ))
    }

    async fn drain(&self, listener: Option<String>, deadline: Option<Duration>) -> Result<Drained, Refusal> {
        let names = self.names(listener.as_deref())?;
        if listener.is_none() {
            self.drained.store(true, Ordering::Relaxed);
        }
        for name in &names {
            self.control.close_listener(name).await.map_err(refusal)?;
            let ending = Ending { links: self.role == api::Role::Edge, deadline };
            self.drains.begin(name, Arc::clone(&self.roster), ending);
            info!(listener = name, deadline_seconds = deadline.map(|deadline| deadline.as_secs()), "drained");
        }
        Ok(self.drained(&names))
    }

    async fn undrain(&self, listener: Option<String>) -> Result<Drained, Refusal> {
        let names = self.names(listener.as_deref())?;
        for name in names.iter().filter(|name| self.drains.has(name)) {
            self.control.open_listener(name).await.map_err(refusal)?;
            self.drains.cancel(name);
            info!(listener = name, "takes connections again");
        }
        // One that takes connections makes the process ready.
        self.drained.store(false, Ordering::Relaxed);
        Ok(self.drained(&names))
    }

    fn drained(&self, names: &[String]) -> Drained {
        let listeners = self.control.listeners().into_iter().filter(|listener| names.contains(&listener.name));
        let listener = |known: ListenerNow| DrainedListener {
            state: self.state_of(&known),
            connections: known.open as u64,
            name: known.name,
        };
        Drained { listeners: listeners.map(listener).collect() }
    }

    fn state_of(&self, listener: &ListenerNow) -> ListenerState {
        match (self.drains.has(&listener.name), listener.open) {
            (false, _) => ListenerState::Open,
            (true, 0) => ListenerState::Drained,
            (true, _) => ListenerState::Draining,
        }
    }
}

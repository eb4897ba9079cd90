//! The reports of a role: the facts of each, from one to the next.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{info, warn};

use super::control::Control;
use super::listeners::ListenerSnapshot;
use crate::admission::ProcessAdmission;
use crate::relay::{Relay, RelayShared};
use crate::report::{PlayerCount, PlayerCounter, ReportFacts, SocketReporter, TunnelledConnection};
use otproxy_config as config;
use otproxy_config::{Config, Destination, HostPort, ListenerType, Reach, ReportConfig};

/// The time in which a `report` is noticed that a reload has brought.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// The parts that reports are made from.
pub(super) struct Reports {
    pub control: Control,
    pub process: Arc<ProcessAdmission>,
    pub relay: Option<Arc<RelayShared>>,
}

impl Reports {
    /// Writes reports as long as the file asks for them, until dropped.
    pub async fn keep(self) {
        let mut reporter = SocketReporter::default();
        let mut failed = false;
        loop {
            let Some(wanted) = self.control.with_config(|config| config.process().report.clone()) else {
                failed = false;
                sleep(ASK_AGAIN).await;
                continue;
            };
            let (every, dir) = (wanted.every, wanted.dir.clone());
            let facts = self.facts(wanted).await;
            let made = spawn_blocking(move || {
                let made = reporter.report(&facts);
                (reporter, made)
            });
            // A panic there has been logged; the next report remembers nothing.
            let (next, made) = made.await.unwrap_or_else(|error| (SocketReporter::default(), Err(error.into())));
            reporter = next;
            match &made {
                Ok(()) if failed => info!(dir = %dir.display(), "the report is written again"),
                Err(error) if !failed => {
                    warn!(dir = %dir.display(), %error, "the report cannot be written; `dir` must be a folder that this user may write to");
                }
                _ => {}
            }
            failed = made.is_err();
            sleep(every).await;
        }
    }

    async fn facts(&self, wanted: ReportConfig) -> ReportFacts {
        let (role, listeners, tunnel, backends) = self.control.with_config(|config| {
            let named: Vec<_> = config.listeners().iter().filter(|listener| wanted.has(listener)).collect();
            let names: Vec<_> = named.iter().map(|listener| listener.inbound().name.clone()).collect();
            (config.role(), names, tunnel_ports(config), backends(config))
        });
        let listening = self.control.listeners();
        let ports: HashMap<_, _> = listening
            .iter()
            .filter(|one| listeners.contains(&one.name))
            .map(|one| (one.name.clone(), port(one)))
            .collect();
        let bound = listening.iter().filter(|one| listeners.contains(&one.name)).flat_map(|one| &one.addresses);
        let mut all: Vec<_> = bound.map(|address| address.port()).chain(ports.values().copied()).collect();
        all.sort_unstable();
        all.dedup();
        let open = self.process.registry().select(|handle| ports.contains_key(handle.listener()));
        let edges: HashMap<Arc<str>, IpAddr> = self
            .process
            .edges()
            .snapshot()
            .into_iter()
            .filter_map(|edge| Some((edge.name, edge.trunks.first()?.address)))
            .collect();
        let through = open.iter().filter_map(|handle| {
            let edge = *edges.get(handle.edge()?)?;
            Some(TunnelledConnection { edge, player: handle.peer(), port: *ports.get(handle.listener())? })
        });
        let tunnelled = through.collect();
        let relays = listening.iter().any(|one| one.kind == ListenerType::Relay);
        let players = match self.relay.as_ref().filter(|_| relays) {
            // A core that relays knows who plays; everything else knows connections.
            Some(relay) => count_players(relay).await,
            None => open.iter().map(|handle| handle.player_or_peer().ip()).collect::<PlayerCount>(),
        };
        ReportFacts { config: wanted, role, ports: all, tunnel, backends, tunnelled, players, time: SystemTime::now() }
    }
}

/// Returns what counts the players of a core that relays.
pub(super) fn player_counter(relay: &Arc<RelayShared>) -> PlayerCounter {
    let relay = Arc::clone(relay);
    PlayerCounter::new(move || {
        let relay = Arc::clone(&relay);
        async move { count_players(&relay).await }
    })
}

/// Counts the players of a core that relays.
async fn count_players(relay: &RelayShared) -> PlayerCount {
    // Addresses alone: workers carry packets meanwhile.
    relay.ask(Relay::players).await.into_iter().flatten().collect()
}

/// Returns the port that stands for a listener: its first, and without one, as behind the tunnel, that of its kind.
fn port(listener: &ListenerSnapshot) -> u16 {
    let usual = if listener.kind == ListenerType::Relay { config::LINKS_PORT } else { config::LOGIN_PORT };
    listener.addresses.first().map_or(usual, |address| address.port())
}

/// Returns the ports on which the other side of the tunnel connects.
fn tunnel_ports(config: &Config) -> Vec<u16> {
    let accept = match config {
        Config::Edge(edge) => match edge.tunnel.as_ref().map(config::EdgeTunnel::reach) {
            Some(Reach::Accept(addresses)) => addresses,
            _ => &[],
        },
        Config::Core(core) => core.tunnel.as_ref().map_or(&[][..], |tunnel| &tunnel.accept),
    };
    accept.iter().map(std::net::SocketAddr::port).collect()
}

/// Returns the hosts that no report may show.
fn backends(config: &Config) -> Vec<HostPort> {
    let targets = config.listeners().iter().filter_map(config::ListenerConfig::leading);
    let mut hosts: Vec<_> = targets
        .flat_map(|forward| &forward.forward_to)
        .filter_map(|target| match &target.destination {
            Destination::Target(host) => Some(host.clone()),
            Destination::Core(_) => None,
        })
        .collect();
    match config {
        Config::Edge(edge) => hosts.extend(edge.tunnel.iter().filter_map(|tunnel| tunnel.dial.clone())),
        Config::Core(core) => hosts.extend(core.game_servers.iter().map(|server| server.address.clone())),
    }
    hosts
}

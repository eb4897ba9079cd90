//! A summary, in one line, of what a configuration would run.

use std::cmp::Reverse;
use std::net::SocketAddr;

use super::file::Config;
use super::inbound::InboundConfig;
use super::key::RoleKind;
use super::listener::ListenerConfig;
use super::process::ProcessConfig;
use super::tunnel::Reach;

impl Config {
    /// Returns the role of the file.
    #[must_use]
    pub fn role(&self) -> RoleKind {
        match self {
            Self::Edge(_) => RoleKind::Edge,
            Self::Core(_) => RoleKind::Core,
        }
    }

    /// Returns what both roles have.
    #[must_use]
    pub fn process(&self) -> &ProcessConfig {
        match self {
            Self::Edge(edge) => &edge.process,
            Self::Core(core) => &core.process,
        }
    }

    /// Returns its listeners, in the order of the file.
    #[must_use]
    pub fn listeners(&self) -> &[ListenerConfig] {
        match self {
            Self::Edge(edge) => &edge.listeners,
            Self::Core(core) => &core.listeners,
        }
    }

    /// Returns what would run, in one line:
    /// `core "waw", 2 listeners (links relay 0.0.0.0:7162, login forward 0.0.0.0:7170), 1 edge, 2 game servers`.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut inbounds: Vec<_> = self.listeners().iter().map(ListenerConfig::inbound).collect();
        // Links come first: they are what a core is there for.
        inbounds.sort_by_key(|inbound| Reverse(inbound.kind));
        let listeners: Vec<String> = inbounds.into_iter().map(listener).collect();
        let mut summary = format!(
            "{} {:?}, {} ({})",
            self.role(),
            self.process().name,
            counted(listeners.len(), "listener"),
            listeners.join(", ")
        );
        let tunnel = match self {
            Self::Edge(edge) => edge.tunnel.as_ref().map(|tunnel| match tunnel.reach() {
                Reach::Dial(core) => format!("to {core}"),
                Reach::Accept(addresses) => format!("at {}", list(addresses)),
            }),
            Self::Core(core) => core.tunnel.as_ref().map(|tunnel| {
                let dialled = core.edges.iter().filter(|edge| edge.dial.is_some()).count();
                match (tunnel.accept.as_slice(), dialled) {
                    (accept, 0) => format!("at {}", list(accept)),
                    ([], dialled) => format!("to {}", counted(dialled, "edge")),
                    (accept, dialled) => format!("at {} and to {}", list(accept), counted(dialled, "edge")),
                }
            }),
        };
        if let Some(tunnel) = tunnel {
            summary.push_str(&format!(", tunnel {tunnel}"));
        }
        if let Self::Core(core) = self {
            let edges = counted(core.edges.len(), "edge");
            let game_servers = counted(core.game_servers.len(), "game server");
            summary.push_str(&format!(", {edges}, {game_servers}"));
        }
        summary
    }
}

fn listener(inbound: &InboundConfig) -> String {
    let addresses = if inbound.listen.is_empty() { "in the tunnel".to_owned() } else { list(&inbound.listen) };
    format!("{} {} {addresses}", inbound.name, inbound.kind)
}

fn list(addresses: &[SocketAddr]) -> String {
    let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    addresses.join(" ")
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

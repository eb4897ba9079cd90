//! A core and edges as `main` starts them, a game server and a link that do exactly what they are told.

use std::net::{Ipv4Addr, SocketAddr};

use otproxy_protocol::frame::ClientId;

pub use crate::common::game::*;
pub use crate::common::link::*;
pub use crate::common::metrics::Metered;
use crate::common::role::Role;
pub use crate::common::run;

/// A core's file, but for what tests change.
#[derive(Debug, Clone)]
pub struct Setup {
    pub servers: Vec<String>,
    pub sessions: &'static str,
    pub listener: &'static str,
    pub workers: usize,
    /// `shutdown_timeout`.
    pub within: &'static str,
}

impl Setup {
    /// One game server, on [`PORT`]; `extra` are more of its keys. It takes packets as fast as tests send them, unless
    /// they say something else.
    pub fn to(game: &Game, extra: &str) -> Self {
        Self { servers: Vec::new(), sessions: "", listener: "", workers: 1, within: "0s" }.and(PORT, game.addr, extra)
    }

    pub fn and(mut self, port: u16, addr: SocketAddr, extra: &str) -> Self {
        let pace = if extra.contains("max_packets_per_second") { "" } else { "max_packets_per_second: none, " };
        self.servers.push(format!("{{ port: {port}, address: \"{addr}\", {pace}{extra} }}"));
        self
    }

    pub fn sessions(self, sessions: &'static str) -> Self {
        Self { sessions, ..self }
    }

    pub fn text(&self) -> String {
        format!(
            "role: core\nworkers: {}\nshutdown_timeout: {}\n\
             edges: [{{ name: a, address: {EDGE_A} }}, {{ name: b, address: {EDGE_B} }}]\n\
             listeners: [{{ name: links, kind: relay, listen: \"127.0.0.1:0\", {} }}]\n\
             game_servers: [{}]\nsessions: {{ {} }}\n",
            self.workers,
            self.within,
            self.listener,
            self.servers.join(", "),
            self.sessions
        )
    }

    pub fn start(self) -> Core {
        let role = Role::start(&self.text());
        Core { links: role.addr("links"), role }
    }
}

pub struct Core {
    pub links: SocketAddr,
    role: Role,
}

impl AsRef<Role> for Core {
    fn as_ref(&self) -> &Role {
        &self.role
    }
}

impl Metered for Core {
    fn admin(&self) -> SocketAddr {
        self.role.admin()
    }
}

impl Core {
    /// Has it be as this says while it runs, all of it.
    pub async fn reload(&self, setup: &Setup) {
        self.reload_text(&setup.text()).await;
    }

    /// The same, from a whole file.
    pub async fn reload_text(&self, text: &str) {
        assert_eq!(self.role.reload(text).await.unwrap().restart, [""; 0]);
    }

    pub async fn link(&self) -> Link {
        self.link_of(EDGE_A, player(1), CLIENT).await
    }

    /// A link that has opened [`S`], and the connection that the game server got for it.
    pub async fn play(&self, game: &Game) -> (Link, GameConn) {
        let mut link = self.link().await;
        link.open(S, PORT).await;
        let (conn, _) = game.accept_otc().await;
        (link, conn)
    }

    /// A link that came over `edge`, with its first ping answered.
    pub async fn link_of(&self, edge: Ipv4Addr, player: SocketAddr, client: ClientId) -> Link {
        Link::connect(self.links, edge, player, client).await
    }

    /// A link that has sent the PROXY header, and nothing else.
    pub async fn silent_link(&self, edge: Ipv4Addr, player: SocketAddr) -> Link {
        Link::silent(self.links, edge, player).await
    }

    pub async fn ended(&self, reason: &str) {
        self.wait("otproxy_relay_sessions_ended_total", &[&format!("reason=\"{reason}\"")], 1.0).await;
    }

    pub async fn refused(&self, reason: &str, count: f64) {
        self.wait("otproxy_relay_refused_total", &[&format!("reason=\"{reason}\"")], count).await;
    }

    pub async fn close(self) {
        self.role.stop().await;
    }

    /// Asks it to shut down, and does not wait.
    pub fn shut_down(&self) {
        self.role.shut_down();
    }
}

/// An edge on loopback, which can be killed.
pub struct Edge {
    pub addr: SocketAddr,
    role: Role,
}

impl Edge {
    pub fn start(listen: SocketAddr, core: SocketAddr) -> Self {
        let role = Role::start(&Self::text("links", listen, core, ""));
        Self { addr: role.addr("links"), role }
    }

    fn text(name: &str, listen: SocketAddr, core: SocketAddr, more: &str) -> String {
        format!(
            "role: edge\nname: edge\nworkers: 1\nshutdown_timeout: 0s\n\
             listeners: [{{ name: {name}, listen: \"{listen}\", forward_to: \"{core}\", {more} }}]\n"
        )
    }

    /// Has its listener be another one at the same address while it runs.
    pub async fn reload(&self, name: &str, core: SocketAddr, more: &str) {
        self.role.reload(&Self::text(name, self.addr, core, more)).await.unwrap();
    }

    /// Cuts all connections and closes the listener.
    pub async fn kill(self) -> SocketAddr {
        self.role.stop().await;
        self.addr
    }
}

impl AsRef<Role> for Edge {
    fn as_ref(&self) -> &Role {
        &self.role
    }
}

impl Metered for Edge {
    fn admin(&self) -> SocketAddr {
        self.role.admin()
    }
}

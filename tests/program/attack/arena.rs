//! An edge and a core as processes, and what is behind them.

use std::net::SocketAddr;
use std::thread::{self, JoinHandle};

use otproxy_testkit::mock::{MockGameServer, MockGameServerOptions};
use tokio_util::sync::CancellationToken;

use crate::attack::login_server::LoginServer;
use crate::common::certificates::Certificates;
use crate::common::link::PORT;
use crate::common::metrics::Metered;
use crate::common::role_process::RoleProcess;

pub const ACTIVE: &str = "otproxy_connections_active";
pub const ACCEPTED: &str = "otproxy_connections_accepted_total";
pub const REJECTED: &str = "otproxy_connections_rejected_total";
pub const CLOSED: &str = "otproxy_connections_closed_total";
pub const SESSIONS: &str = "otproxy_relay_sessions_active";

/// An edge with the listeners `links` and `login`, whose core has a game server and a login server.
pub struct Arena {
    pub edge: RoleProcess,
    pub core: RoleProcess,
    _game: Game,
    _login: LoginServer,
}

/// A game server on a thread of its own: what else the test does, players are not to notice. It ends with this.
struct Game {
    addr: SocketAddr,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Game {
    fn start() -> Self {
        let (started, starts) = std::sync::mpsc::channel();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let options = MockGameServerOptions { push_every: None, push_size: 0 };
                let server = MockGameServer::start(options).await.unwrap();
                started.send(server.addr()).unwrap();
                stopped.cancelled().await;
                server.close().await;
            });
        });
        Self { addr: starts.recv().unwrap(), stop, thread: Some(thread) }
    }
}

impl Drop for Game {
    fn drop(&mut self) {
        self.stop.cancel();
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Arena {
    /// What each listener of the edge has beside its addresses, and what the edge has for both.
    pub async fn new(links: &str, login: &str, both: &str) -> Self {
        let (game, login_server) = (Game::start(), LoginServer::start().await);
        let core = RoleProcess::core(&format!(
            "listeners:\n\
             - {{ name: links, kind: relay, listen: '127.0.0.1:0' }}\n\
             - {{ name: login, listen: '127.0.0.1:0', forward_to: '{}', send_proxy: none }}\n\
             game_servers: [{{ port: {PORT}, address: '{}', max_packets_per_second: none }}]\n",
            login_server.addr, game.addr
        ));
        let edge = RoleProcess::edge(&format!(
            "listeners:\n\
             - {{ name: links, listen: '127.0.0.1:0', forward_to: '{}'{links} }}\n\
             - {{ name: login, listen: '127.0.0.1:0', forward_to: '{}'{login} }}\n{both}",
            core.addr("links"),
            core.addr("login")
        ));
        Self { edge, core, _game: game, _login: login_server }
    }

    /// The same with a tunnel between edge and core.
    pub async fn with_tunnel(links: &str, login: &str, both: &str) -> Self {
        let (game, login_server, certificates) = (Game::start(), LoginServer::start().await, Certificates::new());
        let core = RoleProcess::with(
            "core",
            &format!(
                "tunnel: {{ accept: '127.0.0.1:0', tls: {} }}\nedges: [{{ name: waw1 }}]\nlisteners:\n\
                 - {{ name: links, kind: relay }}\n- {{ name: login, forward_to: '{}', send_proxy: none }}\n\
                 game_servers: [{{ port: {PORT}, address: '{}', max_packets_per_second: none }}]\n",
                certificates.tls("core"),
                login_server.addr,
                game.addr
            ),
        );
        let edge = RoleProcess::edge(&format!(
            "core: {{ dial: '{}', tls: {} }}\nlisteners:\n\
             - {{ name: links, listen: '127.0.0.1:0', forward_to: core/links{links} }}\n\
             - {{ name: login, listen: '127.0.0.1:0', forward_to: core/login{login} }}\n{both}",
            core.addr("tunnel"),
            certificates.tls("waw1")
        ));
        core.wait("otproxy_tunnel_trunks", &[], 4.0).await;
        Self { edge, core, _game: game, _login: login_server }
    }

    /// Waits until the edge has refused so many for this reason.
    pub async fn wait_for_rejected(&self, reason: &str, count: usize) {
        self.edge.wait_until(REJECTED, &[&format!("reason=\"{reason}\"")], |now| now >= count as f64).await;
    }

    /// What the core has been connected to for, players included.
    pub async fn reached_the_core(&self) -> f64 {
        self.core.metric(ACCEPTED, &[]).await
    }

    /// Ends all of it; nothing may have gone wrong inside.
    pub async fn stop(self) {
        self.edge.stop().await;
        self.core.stop().await;
    }
}

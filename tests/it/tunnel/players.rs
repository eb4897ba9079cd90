//! Players with links through tunnels: nothing is lost, whatever restarts, and whose certificate changes.

use std::net::SocketAddr;
use std::time::Duration;

use otproxy::certs::authority::IssueTerms;
use otproxy_protocol::frame::ClientId;
use otproxy_testkit::delivery::DeliveryCheck;
use otproxy_testkit::mock::game_server::{MockGameServer, MockGameServerOptions};
use otproxy_testkit::mock::packet::{self as numbered_packet, PacketOrigin};
use otproxy_testkit::player::{ClientClocks, GameSession, Player, PlayerOptions};

use crate::common::run;
use crate::common::tunnel::*;

const LINKS: &str = "[{ name: links, listen: \"127.0.0.1:0\", forward_to: core/links }]";

/// A player whose packets are all judged.
pub struct Game {
    server: MockGameServer,
    player: Player,
    session: GameSession,
    sent: u64,
    pushed: DeliveryCheck,
    echoed: DeliveryCheck,
}

impl Game {
    fn more(server: &MockGameServer) -> String {
        format!("game_servers: [{{ port: 7172, address: \"{}\", max_packets_per_second: none }}]", server.addr())
    }

    pub async fn play(server: MockGameServer, paths: Vec<SocketAddr>) -> Self {
        let mut clocks = ClientClocks::faster(20);
        // The silence of all paths being down must not end it.
        clocks.session_silence = Duration::from_secs(100);
        let player = Player::connect(PlayerOptions { clocks, ..PlayerOptions::new(ClientId(5), paths) });
        let session = player.open(7172).await;
        Self { server, player, session, sent: 0, pushed: DeliveryCheck::new(), echoed: DeliveryCheck::new() }
    }

    /// Plays until so many packets more came back, and at least so many links carry the session.
    pub async fn on(&mut self, packets: u64, links: usize) {
        let until = self.sent + packets;
        while self.sent < until || self.session.stats().links < links {
            self.sent += 1;
            self.session.send(numbered_packet::numbered(PacketOrigin::Player, self.sent, 60)).await.unwrap();
            self.take().await;
        }
    }

    /// Takes what comes until that is done. A player whose packets nobody takes stops reading, and its links are not made anew.
    pub async fn meanwhile<T>(&mut self, done: impl Future<Output = T>) -> T {
        let mut done = std::pin::pin!(done);
        loop {
            tokio::select! {
                done = &mut done => return done,
                () = self.take() => {}
            }
        }
    }

    async fn take(&mut self) {
        let packet = self.session.recv().await.expect("the session goes on");
        match numbered_packet::number(&packet) {
            Some((PacketOrigin::Server, number)) => self.pushed.see(number),
            Some((PacketOrigin::Player, number)) => self.echoed.see(number),
            None => assert_eq!(packet.len(), 14),
        }
    }

    /// Nothing was lost, doubled or put out of order.
    pub async fn end(mut self) {
        while self.session.stats().unacked > 0
            || self.server.connections().first().is_none_or(|connection| connection.highest < self.sent)
        {
            self.take().await;
        }
        let stats = self.session.stats();
        assert_eq!((stats.gaps, stats.miscut, stats.bad_acks, stats.sent), (0, 0, 0, self.sent));
        let server = self.server.connections();
        assert_eq!(server.len(), 1, "one game connection all the time");
        assert!(server[0].received.perfect() && server[0].highest == self.sent, "{server:?}");
        assert!(self.pushed.so_far().perfect() && self.echoed.so_far().perfect());
        self.session.leave();
        self.player.close().await.unwrap();
    }
}

pub async fn game_server() -> MockGameServer {
    MockGameServer::start(MockGameServerOptions { push_every: Some(Duration::from_millis(2)), push_size: 100 })
        .await
        .unwrap()
}

/// Starts a core with its edges, and a game that is played over both.
pub async fn playing(certificates: &Certificates) -> (Setup, Game) {
    let server = game_server().await;
    let setup = Setup::start(certificates, &server);
    let mut game = Game::play(server, setup.paths.clone()).await;
    game.on(100, 2).await;
    (setup, game)
}

const RELAY: &str = "[{ name: links, kind: relay }]";

/// One edge that connects to the core, and one that the core connects to.
pub struct Setup {
    pub core: Role,
    pub edges: [Option<Role>; 2],
    pub paths: Vec<SocketAddr>,
}

impl Setup {
    pub fn start(certificates: &Certificates, server: &MockGameServer) -> Self {
        // Each has its addresses for good, so that it has them again after a restart.
        let (tunnel, links) = (free_address(), [free_address(), free_address()]);
        let listeners = links.map(|links| LINKS.replace("127.0.0.1:0", &links.to_string()));
        let fra1 = Role::start(&edge_dialled(certificates, "fra1", &tunnel.to_string(), &listeners[1]));
        let edges = format!("[{{ name: waw1 }}, {{ name: fra1, dial: \"{tunnel}\" }}]");
        let yaml = core(certificates, &edges, RELAY, &Game::more(server));
        let core = Role::start(&yaml.replace("127.0.0.1:0", &free_address().to_string()));
        let waw1 = Role::start(&edge(certificates, "waw1", core.addr("tunnel"), &listeners[0]));
        Self { core, edges: [Some(waw1), Some(fra1)], paths: links.to_vec() }
    }
}

#[test]
fn nothing_is_lost_while_edges_restart() {
    run(async {
        let certificates = Certificates::new();
        let (mut setup, mut game) = playing(&certificates).await;
        for round in 0..6 {
            let yaml = setup.edges[round % 2].take().unwrap().stop().await;
            game.on(100, 1).await;
            setup.edges[round % 2] = Some(Role::start(&yaml));
            game.on(100, 2).await;
        }
        game.end().await;
    });
}

#[test]
fn players_are_served_again_whichever_starts_first() {
    run(async {
        let certificates = Certificates::new();
        for edges_first in [true, false] {
            let mut setup = Setup::start(&certificates, &game_server().await);
            let mut yaml = Vec::new();
            for edge in &mut setup.edges {
                yaml.push(edge.take().unwrap().stop().await);
            }
            let core = setup.core.stop().await;
            // The core's game server is another one by now.
            let server = game_server().await;
            let core = format!("{}\n{}", &core[..core.find("game_servers").unwrap()], Game::more(&server));
            let started: Vec<_> = if edges_first {
                yaml.iter().chain([&core]).map(|yaml| Role::start(yaml)).collect()
            } else {
                [&core].into_iter().chain(&yaml).map(|yaml| Role::start(yaml)).collect()
            };
            let mut game = Game::play(server, setup.paths.clone()).await;
            game.on(100, 2).await;
            game.end().await;
            drop(started);
        }
    });
}

#[test]
fn certificates_are_renewed_while_players_play() {
    run(async {
        let certificates = Certificates::new();
        let (setup, mut game) = playing(&certificates).await;
        let expiry = "otproxy_certificate_expiry_timestamp_seconds";
        let made = async || setup.core.handshakes_so_far("ok").await;
        // All trunks are made anew with the new ones: of both edges, and then of one.
        for (name, process, trunks) in [("core", &setup.core, 8), ("waw1", setup.edges[0].as_ref().unwrap(), 4)] {
            let before = (made().await, process.metric(expiry, &["certificate=\"own\""]).await);
            certificates.issue(name, IssueTerms { days: 100 + trunks as u32, new_key: true });
            process.wait_until(expiry, &["certificate=\"own\""], |now| now != before.1).await;
            setup.core.handshakes("ok", before.0 + trunks).await;
            game.on(100, 2).await;
        }
        // Links stay on the old ones.
        for reason in ["tunnel", "revoked"] {
            let labels = ["listener=\"links\"", &format!("reason=\"{reason}\"")];
            assert_eq!(setup.core.metric("otproxy_connections_closed_total", &labels).await, 0.0, "{reason}");
        }
        assert_eq!(setup.core.metric("otproxy_tunnel_handshakes_total", &["result=\"refused\""]).await, 0.0);
        game.on(100, 2).await;
        game.end().await;
    });
}

#[test]
fn an_edge_that_is_revoked_is_out_at_once_and_players_go_on() {
    run(async {
        let certificates = Certificates::new();
        let (setup, mut game) = playing(&certificates).await;
        let core = &setup.core;
        for name in ["waw1", "fra1"] {
            game.on(100, 2).await;
            let edge = format!("edge=\"{name}\"");
            let before = core.metric("otproxy_connections_closed_total", &["reason=\"revoked\""]).await;
            core.replace(&format!("name: {name}"), &format!("revoked: true, name: {name}")).await;
            core.wait_until("otproxy_tunnel_trunks", &[&edge], |now| now == 0.0).await;
            core.wait_until("otproxy_connections_closed_total", &["reason=\"revoked\""], |now| now > before).await;
            core.wait_until("otproxy_relay_links_active", &[&edge], |now| now == 0.0).await;
            if name == "waw1" {
                core.handshakes("revoked", 1).await;
            }
            game.on(100, 1).await;
            // Trusted again, as the file was in the beginning.
            core.replace("role: core", "role: core").await;
            game.on(100, 2).await;
        }
        // Taken out of the file it is the same, by another word.
        core.replace("{ name: waw1 }, ", "").await;
        core.handshakes("unknown_edge", 1).await;
        game.on(100, 1).await;
        game.end().await;
    });
}

#[test]
fn links_of_all_clients_come_to_the_workers_that_own_them() {
    const CLIENTS: u32 = 16;
    run(async {
        let certificates = Certificates::new();
        let server = game_server().await;
        // Two workers at each side.
        let setup = Setup::start(&certificates, &server);
        let mut players = Vec::new();
        for client in 1..=CLIENTS {
            let mut clocks = ClientClocks::faster(20);
            clocks.session_silence = Duration::from_secs(100);
            let options = PlayerOptions::new(ClientId(client), setup.paths.clone());
            let player = Player::connect(PlayerOptions { clocks, ..options });
            let mut session = player.open(7172).await;
            session.send(numbered_packet::numbered(PacketOrigin::Player, 1, 60)).await.unwrap();
            assert!(session.recv().await.is_some(), "client {client}");
            players.push((player, session));
        }
        setup.core.wait_until("otproxy_relay_sessions_active", &[], |now| now == f64::from(CLIENTS)).await;
        assert_eq!(setup.core.metric("otproxy_connections_rejected_total", &["reason=\"wrong_worker\""]).await, 0.0);
    });
}

//! Whole clients, edges, and the core's account of them.

use std::time::Duration;

use otproxy_protocol::frame::{self, ClientId, SessionId};
use otproxy_testkit::delivery::DeliveryCheck;
use otproxy_testkit::mock::game_server::{MockGameServer, MockGameServerOptions};
use otproxy_testkit::mock::packet::{self as numbered_packet, PacketOrigin};
use otproxy_testkit::player::{ClientClocks, Player, PlayerOptions};

use crate::relay::harness::*;

fn options(client: u32, paths: Vec<std::net::SocketAddr>) -> PlayerOptions {
    PlayerOptions { clocks: ClientClocks::faster(20), ..PlayerOptions::new(ClientId(client), paths) }
}

#[test]
fn nothing_is_lost_while_edges_are_killed_and_restarted() {
    run(async {
        let push = MockGameServerOptions { push_every: Some(Duration::from_millis(2)), push_size: 100 };
        let game = MockGameServer::start(push).await.unwrap();
        let setup = Setup { servers: Vec::new(), sessions: "", listener: "", workers: 2, within: "0s" };
        let core = setup.and(PORT, game.addr(), "").start();
        let free = "127.0.0.1:0".parse().unwrap();
        let mut edges = [Some(Edge::start(free, core.links)), Some(Edge::start(free, core.links))];
        let paths = edges.iter().flatten().map(|edge| edge.addr).collect();
        let mut clocks = ClientClocks::faster(20);
        // The silence of all paths being down must not end it.
        clocks.session_silence = Duration::from_secs(60);
        let player = Player::connect(PlayerOptions { clocks, ..options(5, paths) });
        let mut session = player.open(PORT).await;
        let (mut pushed, mut echoed) = (DeliveryCheck::new(), DeliveryCheck::new());
        let mut sent = 0u64;
        let mut take = |packet: &[u8]| match numbered_packet::number(packet) {
            Some((PacketOrigin::Server, number)) => pushed.see(number),
            Some((PacketOrigin::Player, number)) => echoed.see(number),
            None => assert_eq!(packet.len(), 14),
        };
        for round in 0..6 {
            if round > 0 {
                let dying = edges[round % 2].take().unwrap();
                let addr = dying.kill().await;
                edges[round % 2] = Some(Edge::start(addr, core.links));
            }
            // Until this many new packets came after the cut, and both paths are back.
            let mut fresh = 0;
            while fresh < 100 || session.stats().links < 2 {
                sent += 1;
                session.send(numbered_packet::numbered(PacketOrigin::Player, sent, 60)).await.unwrap();
                take(&session.recv().await.expect("the session goes on"));
                fresh += 1;
            }
        }
        while session.stats().received == 0 || echoed_less_than(&game, sent) || session.stats().unacked > 0 {
            take(&session.recv().await.expect("the session goes on"));
        }
        let stats = session.stats();
        assert_eq!((stats.gaps, stats.miscut, stats.bad_acks, stats.sent), (0, 0, 0, sent));
        assert!(player.stats().paths.iter().map(|path| path.losses).sum::<u64>() >= 5, "{stats:?}");
        let server = game.connections();
        assert_eq!(server.len(), 1, "one game connection all the time");
        assert!(server[0].received.perfect() && server[0].highest == sent, "{server:?}");
        assert!(pushed.so_far().perfect() && echoed.so_far().perfect());
        session.leave();
        player.close().await.unwrap();
        for edge in edges.into_iter().flatten() {
            edge.kill().await;
        }
        core.close().await;
    });
}

fn echoed_less_than(game: &MockGameServer, sent: u64) -> bool {
    game.connections().first().is_none_or(|connection| connection.highest < sent)
}

#[test]
fn any_worker_takes_any_link() {
    run(async {
        let options_ = MockGameServerOptions { push_every: None, push_size: 0 };
        let game = MockGameServer::start(options_).await.unwrap();
        let setup =
            Setup { servers: Vec::new(), sessions: "", listener: "accept_proxy: none", workers: 3, within: "0s" };
        let core = setup.and(PORT, game.addr(), "").start();
        let mut players = Vec::new();
        for client in 1..=12 {
            let player = Player::connect(options(client, vec![core.links; 3]));
            let session = player.open(PORT).await;
            players.push((player, session));
        }
        for (_, session) in &mut players {
            session.wait_until(|stats| stats.links == 2).await.unwrap();
            assert_eq!(session.recv().await.unwrap().len(), 14);
            for n in 1..=20 {
                let packet = numbered_packet::numbered(PacketOrigin::Player, n, 100);
                session.send(packet.clone()).await.unwrap();
                assert_eq!(session.recv().await.unwrap(), packet);
            }
        }
        core.wait("otproxy_relay_sessions_active", &["port=\"7172\""], 12.0).await;
        core.wait("otproxy_relay_packets_total", &["direction=\"in\""], 240.0).await;
        for (player, session) in players {
            assert_eq!(session.stats().gaps, 0);
            player.close().await.unwrap();
        }
        core.close().await;
    });
}

#[test]
fn metrics_say_what_was_sent() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").start();
        let (mut link, mut conn) = core.play(&game).await;
        let (mut up, mut down) = (18 + 14, 14);
        for n in 1..=30u32 {
            let body = packet(&vec![n as u8; n as usize + 1]);
            link.data(S, n, n - 1, &body).await;
            conn.expect(&body).await;
            conn.send(&body).await;
            assert_eq!(link.next().await, data(n, n, &body));
            up += frame::HEADER_LEN + body.len();
            down += frame::HEADER_LEN + body.len();
        }
        let expected: [(&str, &[&str], usize); 10] = [
            ("otproxy_connections_accepted_total", &["listener=\"links\""], 1),
            ("otproxy_connections_active", &["listener=\"links\""], 1),
            ("otproxy_relay_links_active", &["edge=\"a\""], 1),
            ("otproxy_relay_sessions_active", &["port=\"7172\""], 1),
            ("otproxy_relay_sessions_opened_total", &["port=\"7172\""], 1),
            ("otproxy_relay_packets_total", &["port=\"7172\"", "direction=\"in\""], 30),
            ("otproxy_relay_packets_total", &["port=\"7172\"", "direction=\"out\""], 30),
            ("otproxy_relay_frames_total", &["edge=\"a\"", "direction=\"in\"", "outcome=\"first\""], 30),
            ("otproxy_relay_frames_total", &["edge=\"a\"", "direction=\"out\"", "outcome=\"first\""], 30),
            // The last packet is not acknowledged.
            ("otproxy_relay_unacked_bytes", &[], frame::HEADER_LEN + 33),
        ];
        for (name, labels, value) in expected {
            // Some counts follow what they count.
            core.wait(name, labels, value as f64).await;
        }
        drop(link);
        core.wait("otproxy_relay_links_active", &["edge=\"a\""], 0.0).await;
        core.wait("otproxy_connections_active", &[], 0.0).await;
        core.wait("otproxy_bytes_total", &["direction=\"in\""], up as f64).await;
        core.wait("otproxy_bytes_total", &["direction=\"out\""], down as f64).await;
        core.close().await;
    });
}

#[test]
fn a_shutdown_ends_sessions_and_tells_their_clients() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").start();
        let mut link = core.link().await;
        link.open(SessionId(3), PORT).await;
        let (mut conn, _) = game.accept_otc().await;
        core.close().await;
        assert_eq!(link.next().await, Some(Seen::End(SessionId(3))));
        assert_eq!(link.next().await, None);
        conn.expect_end().await;
    });
}

#[test]
fn a_shutdown_does_not_wait_for_links_that_carry_nothing() {
    run(async {
        let game = Game::new().await;
        let core = Setup { workers: 2, within: "1h", ..Setup::to(&game, "") }.start();
        let mut idle = Vec::new();
        for client in 1..=8 {
            idle.push(core.link_of(EDGE_A, player(1), ClientId(client)).await);
        }
        // No ping came over this one.
        idle.push(core.silent_link(EDGE_A, player(1)).await);
        core.wait("otproxy_connections_accepted_total", &[], 9.0).await;
        core.shut_down();
        for mut link in idle {
            assert_eq!(link.next().await, None);
        }
        core.close().await;
    });
}

#[test]
fn a_shutdown_waits_for_sessions_and_for_their_last_packets() {
    run(async {
        let game = Game::new().await;
        let core = Setup { within: "1h", ..Setup::to(&game, "") }.sessions("linger: 1h, leave_grace: 1h").start();
        // The session of this link has ended before, and its client has acknowledged nothing.
        let mut over = core.link_of(EDGE_A, player(2), ClientId(2)).await;
        over.open(S, PORT).await;
        let (mut conn, _) = game.accept_otc().await;
        let body = packet(b"the last words");
        conn.send(&body).await;
        drop(conn);
        assert_eq!((over.next().await, over.next().await), (data(1, 0, &body), Some(Seen::End(S))));
        // That of this one goes on, and its client cannot come back to a core that ends.
        let (lost, mut forsaken) = core.play(&game).await;
        drop(lost);
        // And the game server has closed this one, which nobody could be told.
        let mut untold = core.link_of(EDGE_A, player(4), ClientId(4)).await;
        untold.open(S, PORT).await;
        let (conn, _) = game.accept_otc().await;
        drop(untold);
        core.wait("otproxy_relay_links_active", &["edge=\"a\""], 1.0).await;
        drop(conn);
        let mut link = core.link_of(EDGE_A, player(3), ClientId(3)).await;
        link.open(S, PORT).await;
        let (mut conn, _) = game.accept_otc().await;
        core.shut_down();
        assert_eq!(over.next().await, None);
        forsaken.expect_end().await;
        link.data(S, 1, 0, &body).await;
        conn.expect(&body).await;
        conn.send(&body).await;
        drop(conn);
        assert_eq!((link.next().await, link.next().await), (data(1, 1, &body), Some(Seen::End(S))));
        assert_eq!(link.next().await, None);
        core.close().await;
    });
}

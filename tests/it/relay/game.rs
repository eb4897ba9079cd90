//! What goes to and comes from the game server.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use otproxy_protocol::frame::{ClientId, SessionId};
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::common::sandbox::refusing;
use crate::relay::harness::*;

#[test]
fn each_form_of_the_players_address_byte_for_byte() {
    run(async {
        let game = Game::new().await;
        let (addr, port) = (game.addr, game.addr.port().to_be_bytes());
        let v2 =
            [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C".as_slice(), &[198, 51, 100, 1, 127, 0, 0, 1, 0x9C, 0x40], &port]
                .concat();
        assert_eq!(v2.len(), 28);
        let v1 = format!("PROXY TCP4 198.51.100.1 127.0.0.1 40000 {}\r\n", addr.port());
        let forms: [(&str, &[u8]); 5] = [
            ("otc", &[0xFE, 0xFF, 198, 51, 100, 1]),
            ("otc_reversed", &[0xFE, 0xFF, 1, 100, 51, 198]),
            ("proxy_v2", &v2),
            ("proxy_v1", v1.as_bytes()),
            ("none", b""),
        ];
        let mut setup = Setup::to(&game, "");
        for (n, (form, _)) in forms.iter().enumerate() {
            setup = setup.and(8000 + n as u16, addr, &format!("player_address: {form}"));
        }
        let core = setup.start();
        let mut link = core.link().await;
        for (n, (_, bytes)) in (0..).zip(forms) {
            let id = SessionId(u32::from(n) + 1);
            link.open(id, 8000 + n).await;
            link.data(id, 1, 0, &packet(b"first")).await;
            let mut conn = game.accept().await;
            conn.expect(&[bytes, &packet(b"first")].concat()).await;
        }
        core.close().await;
    });
}

#[test]
fn an_ipv6_player_has_a_stable_pseudo_address() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").start();
        let mut seen = Vec::new();
        for (n, player) in (1..).zip(["[2001:db8::1]:5000", "[2001:db8::2]:6000", "[2001:db8:0:1::1]:5000"]) {
            let mut link = core.link_of(EDGE_A, player.parse().unwrap(), ClientId(n)).await;
            link.open(S, PORT).await;
            let (_, address) = game.accept_otc().await;
            assert!(address.octets()[0] >= 240, "{address}");
            seen.push(address);
        }
        assert_eq!(seen[0], seen[1], "one /64 is one player");
        assert_ne!(seen[0], seen[2]);
        core.close().await;
    });
}

#[test]
fn ipv6_players_can_be_refused() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "ipv6_players: refuse").start();
        let mut link = core.link_of(EDGE_A, "[2001:db8::1]:5000".parse().unwrap(), ClientId(1)).await;
        link.open(S, PORT).await;
        assert_eq!(link.next().await, Some(Seen::End(S)));
        core.refused("ipv6_player", 1.0).await;
        // A mapped address is an IPv4 one.
        let mut link = core.link_of(EDGE_A, "[::ffff:198.51.100.9]:5000".parse().unwrap(), ClientId(2)).await;
        link.open(S, PORT).await;
        assert_eq!(game.accept_otc().await.1, Ipv4Addr::new(198, 51, 100, 9));
        core.close().await;
    });
}

#[test]
fn payloads_reach_the_game_as_they_are() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").start();
        let mut link = core.link().await;
        link.open(S, PORT).await;
        let in_blocks = [&[2, 0][..], &[7; 20]].concat();
        let lying = [&[0xFF, 0xFF][..], &[8; 3]].concat();
        let longest = vec![5; otproxy_protocol::frame::MAX_PAYLOAD];
        let payloads = [&b"Antica\n"[..], &in_blocks, b"", &lying, b"\x01", &longest, b"\x03\0end"];
        for (n, payload) in (1..).zip(payloads) {
            link.data(S, n, 0, payload).await;
        }
        let (mut conn, _) = game.accept_otc().await;
        conn.expect(&payloads.concat()).await;
        link.sync().await;
        core.wait("otproxy_relay_packets_total", &["direction=\"in\""], 7.0).await;
        core.close().await;
    });
}

#[test]
fn block_counts_become_byte_counts() {
    run(async {
        let game = Game::new().await;
        for (framing, blocks) in [("blocks", true), ("auto", true), ("auto", false), ("bytes", false)] {
            let core = Setup::to(&game, &format!("framing: {framing}")).start();
            let mut link = core.link().await;
            link.open(S, PORT).await;
            let (mut conn, _) = game.accept_otc().await;
            for (n, count) in (1u32..).zip([1u16, 5, 100]) {
                let body = vec![n as u8; 8 * usize::from(count) + 4];
                let length = if blocks { count } else { body.len() as u16 };
                conn.send(&length.to_le_bytes()).await;
                conn.send(&body).await;
                assert_eq!(link.next().await, data(n, 0, &packet(&body)), "{framing}");
            }
            core.close().await;
        }
    });
}

#[test]
fn the_longest_packet_passes_and_a_longer_one_ends_the_session() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "framing: bytes").start();
        let (mut link, mut conn) = core.play(&game).await;
        let longest = packet(&vec![3; 65519]);
        conn.send(&longest).await;
        assert_eq!(link.next().await, data(1, 0, &longest));
        conn.send(&[packet(b"before"), 65520u16.to_le_bytes().to_vec()].concat()).await;
        assert_eq!(link.next().await, data(2, 0, &packet(b"before")));
        assert_eq!(link.next().await, Some(Seen::End(S)));
        core.ended("protocol_error").await;
        core.close().await;
    });
}

#[test]
fn a_burst_that_is_held_back_arrives_in_order() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "max_packets_per_second: 60").start();
        let mut link = core.link().await;
        link.open(S, PORT).await;
        let packets: Vec<_> = (1..=120u8).map(|n| packet(&[n; 5])).collect();
        for (n, packet) in (1..).zip(&packets) {
            link.data(S, n, 0, packet).await;
        }
        let (mut conn, _) = game.accept_otc().await;
        conn.expect(&packets.concat()).await;
        core.close().await;
    });
}

#[test]
fn each_player_has_a_loopback_address_of_its_own() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "source: loopback_per_player, player_address: none").start();
        let mut peers = Vec::new();
        for n in [1, 2, 3, 1] {
            let mut link = core.link_of(EDGE_A, player(n), ClientId(peers.len() as u32)).await;
            link.open(S, PORT).await;
            peers.push(game.accept().await.peer.ip());
        }
        assert_eq!(peers[0], peers[3]);
        assert!(peers.iter().all(|peer| peer.is_loopback() && *peer != IpAddr::V4(Ipv4Addr::LOCALHOST)), "{peers:?}");
        peers.sort();
        peers.dedup();
        assert_eq!(peers.len(), 3);
        core.close().await;
    });
}

#[test]
fn a_game_server_that_is_down_is_seen_while_nobody_plays() {
    run(async {
        let (socket, addr) = refusing();
        let setup = Setup { servers: Vec::new(), sessions: "", listener: "", workers: 1, within: "0s" };
        let checked = "check: tcp, inter: 10ms, fall: 2, rise: 2";
        let core = setup.and(PORT, addr, checked).and(7173, addr, "").start();
        let up = async |port: &str, wanted| {
            core.wait("otproxy_game_server_up", &[&format!("port=\"{port}\"")], wanted).await
        };
        up("7172", 0.0).await;
        up("7173", 1.0).await;
        // Nothing checks that one, so a player finds out.
        let mut link = core.link().await;
        link.open(S, 7173).await;
        assert_eq!(link.next().await, Some(Seen::End(S)));
        up("7173", 0.0).await;
        let back = socket.listen(1024).unwrap();
        let taking = tokio::spawn(async move { while back.accept().await.is_ok() {} });
        up("7172", 1.0).await;
        taking.abort();
        core.close().await;
    });
}

#[test]
fn the_relays_own_peer_is_the_player_where_no_edge_stands() {
    run(async {
        let game = Game::new().await;
        let setup = Setup { listener: "accept_proxy: none", ..Setup::to(&game, "") };
        let core = setup.start();
        let paths: [SocketAddr; 1] = [core.links];
        let player =
            otproxy_testkit::player::Player::connect(otproxy_testkit::player::PlayerOptions::new(CLIENT, paths));
        let _session = player.open(PORT).await;
        assert_eq!(game.accept_otc().await.1, Ipv4Addr::LOCALHOST);
        player.close().await.unwrap();
        core.close().await;
    });
}

/// Waits until the other side's kernel has taken all bytes of a socket whose writing side is shut down: it is in FIN_WAIT2.
async fn all_taken(socket: &TcpStream) {
    let port = |address: SocketAddr| format!("0100007F:{:04X}", address.port());
    let row = format!(" {} {} 05 ", port(socket.local_addr().unwrap()), port(socket.peer_addr().unwrap()));
    while !fs::read_to_string("/proc/net/tcp").unwrap().contains(&row) {
        tokio::task::yield_now().await;
    }
}

#[test]
fn what_a_game_server_sent_before_its_end_arrives_though_it_takes_no_more() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").sessions("unacked: 64KiB").start();
        let (mut link, mut conn) = core.play(&game).await;
        const PACKETS: u32 = 120;
        let body = |n: u32| packet(&[&n.to_le_bytes()[..], &[1; 1396]].concat());
        for n in 1..=PACKETS {
            conn.send(&body(n)).await;
        }
        // The core stops reading at its limit, and the kernel has the rest.
        conn.stream.shutdown().await.unwrap();
        all_taken(&conn.stream).await;
        SockRef::from(&conn.stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(conn);
        for n in 1..=PACKETS {
            let Some(Seen::Data { packet: number, payload, .. }) = link.next().await else { panic!("at {n}") };
            assert_eq!((number, payload), (n, body(n)));
            // A packet for a game server that is gone; it acknowledges, and so more comes.
            link.data(S, n, n, &packet(b"key")).await;
        }
        assert_eq!(link.next().await, Some(Seen::End(S)));
        core.ended("game_closed").await;
        core.close().await;
    });
}

//! Beside a real HAProxy: in front of the core, where operators have one already, and behind the
//! edge.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use otproxy_protocol::frame::ClientId;
use otproxy_testkit::mock::game_server::{CHALLENGE, MockGameServer, MockGameServerOptions};
use otproxy_testkit::player::{ClientClocks, PathOptions, Player, PlayerOptions};
use tokio::io::AsyncWriteExt;

use crate::common::sandbox::*;
use crate::haproxy::real::{self, HaProxy};

/// A `listen` section from one address to another.
fn listen(name: &str, bind: impl std::fmt::Display, server: SocketAddr, options: &str) -> String {
    format!("listen {name}\n  bind {bind}\n  server s {server} {options}\n")
}

#[test]
fn in_front_of_a_forward_of_the_core() {
    if !real::is_here() {
        return;
    }
    run(async {
        let (game, addr) = target().await;
        let core = Role::core(&format!(
            "edges: [{{ name: waw1, address: 127.0.0.0/8 }}]\n\
             listeners: [{{ name: login, listen: \"127.0.0.1:0\", forward_to: \"{addr}\" }}]"
        ));
        let to = core.addr("login");
        let haproxy = HaProxy::start(4, |addrs| {
            // IPv6 players come by a port of ::1 with the number of an IPv4 one that is free.
            let v6 = |addr: SocketAddr| format!("[::1]:{}", addr.port());
            [
                listen("v1", addrs[0], to, "send-proxy"),
                listen("v2", addrs[1], to, "send-proxy-v2 proxy-v2-options unique-id,crc32c"),
                listen("v1-ipv6", v6(addrs[2]), to, "send-proxy"),
                listen("v2-ipv6", v6(addrs[3]), to, "send-proxy-v2"),
            ]
            .concat()
        })
        .await;
        for index in 0..2 {
            let mut client = connect_from("127.0.0.9", haproxy.addr(index)).await;
            client.write_all(b"request").await.unwrap();
            let mut server = accept(&game).await;
            let expected = v2(client.local_addr().unwrap(), haproxy.addr(index));
            assert_eq!(read(&mut server, 28).await, expected, "{index}");
            assert_eq!(read(&mut server, 7).await, b"request");
            server.write_all(b"answer").await.unwrap();
            assert_eq!(read(&mut client, 6).await, b"answer");
        }
        for index in 2..4 {
            let mut client =
                connect_from("::1", SocketAddr::new("::1".parse().unwrap(), haproxy.addr(index).port())).await;
            client.write_all(b"request").await.unwrap();
            let mut server = accept(&game).await;
            let header = read(&mut server, 28).await;
            assert_eq!(header[12..16], *b"\x21\x11\0\x0C");
            assert!(header[16] >= 240, "{header:?}");
            assert_eq!(header[24..26], client.local_addr().unwrap().port().to_be_bytes());
            assert_eq!(read(&mut server, 7).await, b"request");
        }
        let rejected = core.all_series().await;
        let rejected = rejected.iter().filter(|(name, _)| name.starts_with("otproxy_connections_rejected"));
        assert_eq!(rejected.map(|(_, count)| count).sum::<f64>(), 0.0);
        core.stop().await;
    });
}

#[test]
fn health_checks_of_haproxy_reach_no_game_server() {
    if !real::is_here() {
        return;
    }
    run(async {
        let game = MockGameServer::start(quiet()).await.unwrap();
        let core = core_with_relay(game.addr());
        let _haproxy = HaProxy::start(2, |addrs| {
            [
                listen("v2", addrs[0], core.addr("links"), "send-proxy-v2 check check-send-proxy inter 20ms"),
                listen("bare", addrs[1], core.addr("links"), "check inter 20ms"),
            ]
            .concat()
        })
        .await;
        core.wait_series("otproxy_connections_accepted_total{listener=links}", |count| count >= 20.0).await;
        assert_eq!(core.series("otproxy_relay_sessions_opened_total{port=7172}").await, 0.0);
        assert!(game.connections().is_empty());
        core.stop().await;
    });
}

fn quiet() -> MockGameServerOptions {
    MockGameServerOptions { push_every: None, push_size: 0 }
}

fn core_with_relay(game: SocketAddr) -> Role {
    Role::core(&format!(
        "edges: [{{ name: waw1, address: 127.0.0.0/8 }}]\n\
         listeners: [{{ name: links, kind: relay, listen: \"127.0.0.1:0\" }}]\n\
         game_servers: [{{ port: 7172, address: \"{game}\" }}]"
    ))
}

fn packet(number: u32) -> Vec<u8> {
    [&[4, 0][..], &number.to_le_bytes()].concat()
}

/// A session over two HAProxies, one with each version of the header: all packets once and in
/// order, and the game server knows the player.
async fn play_through_haproxy(local: &str, host: &str, is_player: impl Fn(Ipv4Addr) -> bool) {
    const PACKETS: u32 = 200;
    let game = MockGameServer::start(quiet()).await.unwrap();
    let core = core_with_relay(game.addr());
    let to = core.addr("links");
    let bind = |addr: SocketAddr| SocketAddr::new(host.parse::<IpAddr>().unwrap(), addr.port());
    let haproxy = HaProxy::start(2, |addrs| {
        listen("v1", bind(addrs[0]), to, "send-proxy") + &listen("v2", bind(addrs[1]), to, "send-proxy-v2")
    })
    .await;
    let path =
        |index| PathOptions { local: Some(local.parse().unwrap()), ..PathOptions::new(bind(haproxy.addr(index))) };
    let long = Duration::from_secs(60);
    let clocks = ClientClocks { first_pong: long, later_pong: long, session_silence: long, ..ClientClocks::faster(50) };
    let options = PlayerOptions { clocks, paths: vec![path(0), path(1)], ..PlayerOptions::new(ClientId(9), []) };
    let player = Player::connect(options);
    player.wait_until(|stats| stats.ready() == 2).await.unwrap();
    let mut session = player.open(7172).await;
    session.wait_until(|stats| stats.links == 2).await.unwrap();
    assert_eq!(session.recv().await.unwrap(), CHALLENGE[..]);
    for number in 0..PACKETS {
        session.send(packet(number)).await.unwrap();
        assert_eq!(session.recv().await.unwrap(), packet(number));
    }
    let stats = session.stats();
    assert_eq!((stats.gaps, stats.miscut, stats.bad_acks), (0, 0, 0));
    let connections = game.connections();
    assert_eq!(connections.len(), 1);
    assert_eq!(connections[0].other, u64::from(PACKETS), "each packet came once");
    assert!(connections[0].player.is_some_and(&is_player), "{connections:?}");
    let metrics = core.all_series().await;
    assert_eq!(metrics["otproxy_relay_links_active{edge=waw1}"], 2.0);
    assert_eq!(metrics["otproxy_relay_packets_total{direction=in,port=7172}"], f64::from(PACKETS));
    assert_eq!(metrics["otproxy_relay_packets_total{direction=out,port=7172}"], f64::from(PACKETS + 1));
    session.leave();
    core.wait_for("otproxy_relay_sessions_ended_total{port=7172,reason=client_left}", 1).await;
    player.close().await.unwrap();
    core.stop().await;
}

#[test]
fn in_front_of_the_cores_links() {
    if real::is_here() {
        run(play_through_haproxy("127.0.0.9", "127.0.0.50", |player| player == Ipv4Addr::new(127, 0, 0, 9)));
    }
}

#[test]
fn in_front_of_the_cores_links_with_an_ipv6_player() {
    if real::is_here() {
        run(play_through_haproxy("::1", "::1", |player| player.octets()[0] >= 240));
    }
}

#[test]
fn behind_the_edge() {
    if !real::is_here() {
        return;
    }
    run(async {
        let (game, addr) = target().await;
        let haproxy = HaProxy::start(1, |addrs| {
            listen("links", format_args!("{} accept-proxy", addrs[0]), addr, "send-proxy-v2")
        })
        .await;
        for version in ["v2", "v1"] {
            let edge = Role::edge(&format!(
                "[{{ name: a, listen: [\"127.0.0.1:0\", \"[::1]:0\"], forward_to: \"{}\", send_proxy: {version} }}]",
                haproxy.addr(0)
            ));
            for (local, index) in [("127.0.0.9", 0), ("::1", 1)] {
                let mut client = connect_from(local, edge.addrs("a")[index]).await;
                let header = v2(client.local_addr().unwrap(), client.peer_addr().unwrap());
                client.write_all(b"hello").await.unwrap();
                let mut server = accept(&game).await;
                assert_eq!(read(&mut server, header.len()).await, header, "{version} from {local}");
                assert_eq!(read(&mut server, 5).await, b"hello");
                server.write_all(b"back").await.unwrap();
                assert_eq!(read(&mut client, 4).await, b"back");
                // The end goes through both, each way by itself.
                client.shutdown().await.unwrap();
                assert_eq!(read_to_close(&mut server).await, b"");
                server.write_all(b"last").await.unwrap();
                drop(server);
                assert_eq!(read_to_close(&mut client).await, b"last");
            }
            edge.stop().await;
        }
    });
}

#[test]
fn behind_the_edge_and_before_the_core() {
    if !real::is_here() {
        return;
    }
    run(async {
        let game = MockGameServer::start(quiet()).await.unwrap();
        let core = core_with_relay(game.addr());
        let haproxy = HaProxy::start(1, |addrs| {
            listen("links", format_args!("{} accept-proxy", addrs[0]), core.addr("links"), "send-proxy-v2")
        })
        .await;
        let edge =
            Role::edge(&format!("[{{ name: a, listen: \"127.0.0.1:0\", forward_to: \"{}\" }}]", haproxy.addr(0)));
        let path = PathOptions { local: Some("127.0.0.9".parse().unwrap()), ..PathOptions::new(edge.addr("a")) };
        let player = Player::connect(PlayerOptions { paths: vec![path], ..PlayerOptions::new(ClientId(9), []) });
        let mut session = player.open(7172).await;
        assert_eq!(session.recv().await.unwrap(), CHALLENGE[..]);
        session.send(packet(1)).await.unwrap();
        assert_eq!(session.recv().await.unwrap(), packet(1));
        assert_eq!(game.connections()[0].player, Some(Ipv4Addr::new(127, 0, 0, 9)));
        player.close().await.unwrap();
        edge.stop().await;
        core.stop().await;
    });
}

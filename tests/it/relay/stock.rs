//! Game servers without a patch, which block an address that connects too often.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use otproxy_protocol::frame::{ClientId, SessionId};
use otproxy_testkit::mock::game_server::{CHALLENGE, MockGameServer, MockGameServerOptions};
use otproxy_testkit::mock::{ConnectThrottle, ThrottleBy};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::common::role::Role;
use crate::common::sandbox::{connect_from, read, read_to_close, v2};
use crate::relay::harness::*;

const QUIET: MockGameServerOptions = MockGameServerOptions { push_every: None, push_size: 0 };

/// A core with links and a login forward that tell nobody's address, and a check of the login server.
fn core(login: SocketAddr, world: SocketAddr, forward: &str, server: &str) -> Role {
    Role::start(&format!(
        "role: core\nworkers: 2\nshutdown_timeout: 0s\nadmin: {{ listen: \"127.0.0.1:0\" }}\n\
         edges: [{{ name: a, address: {EDGE_A} }}]\nlisteners:\n\
         - {{ name: links, kind: relay, listen: \"127.0.0.1:0\" }}\n\
         - {{ name: login, listen: \"127.0.0.1:0\", forward_to: \"{login}\", send_proxy: none, {forward} }}\n\
         game_servers:\n- {{ port: {PORT}, address: \"{world}\", player_address: none, {server} }}\n\
         - {{ port: 7173, address: \"{world}\", player_address: none }}\n"
    ))
}

/// A login by way of the forward.
async fn log_in(core: &Role, player: SocketAddr) -> TcpStream {
    let mut login = connect_from(&EDGE_A.to_string(), core.addr("login")).await;
    let header = v2(player, "198.51.100.200:7171".parse().unwrap());
    login.write_all(&[&header[..], &packet(b"login")].concat()).await.unwrap();
    login
}

#[test]
fn all_who_come_at_once_get_into_a_stock_server_on_this_host() {
    run(async {
        let throttle = Arc::new(ConnectThrottle::new(ThrottleBy::Address));
        let server =
            || MockGameServer::start_throttled((Ipv4Addr::LOCALHOST, 0).into(), QUIET, Arc::clone(&throttle)).unwrap();
        let (login, world) = (server(), server());
        // As it ships, with a check that comes more often than anybody would have it.
        let core = core(login.addr(), world.addr(), "check: tcp, inter: 50ms", "");
        let mut players = Vec::new();
        for n in 1..=12 {
            let mut link = Link::connect(core.addr("links"), EDGE_A, player(n), ClientId(n.into())).await;
            link.open(S, PORT).await;
            link.data(S, 1, 0, &packet(b"game")).await;
            players.push((link, log_in(&core, player(n)).await));
        }
        for (link, login) in &mut players {
            assert_eq!(link.next().await, data(1, 1, &CHALLENGE), "over a link");
            assert_eq!(read(login, CHALLENGE.len()).await, CHALLENGE, "over the forward");
        }
        // Checks alone are as many as the throttle bears, and they are nobody else's.
        let one_more = log_in(&core, player(13)).await;
        login.wait_until(|connections| connections.len() >= 13).await;
        drop((players, one_more));
        core.stop().await;
    });
}

#[test]
fn turns_are_shared_by_all_that_leads_to_one_host() {
    run(async {
        let game = Game::new().await;
        for (forward, server) in [("connects: 1/1h", ""), ("", "connects: 1/1h")] {
            let core = core(game.addr, game.addr, forward, server);
            let mut login = log_in(&core, player(1)).await;
            game.accept().await.expect(&packet(b"login")).await;
            // The next turn is in an hour, over whatever leads there.
            let mut link = Link::connect(core.addr("links"), EDGE_A, player(2), CLIENT).await;
            for (session, port) in [(1, PORT), (2, 7173)] {
                link.open(SessionId(session), port).await;
                assert_eq!(link.next().await, Some(Seen::End(SessionId(session))));
            }
            let mut second = log_in(&core, player(3)).await;
            assert_eq!(read_to_close(&mut second).await, b"");
            assert_eq!(core.metric("otproxy_relay_refused_total", &["reason=\"connect_queue\""]).await, 2.0);
            let queue = ["listener=\"login\"", "result=\"queue\""];
            core.wait_until("otproxy_target_connects_total", &queue, |count| count == 1.0).await;
            login.shutdown().await.unwrap();
            core.stop().await;
        }
    });
}

#[test]
fn connections_come_from_the_address_that_the_file_says() {
    run(async {
        let game = Game::new().await;
        let own = Ipv4Addr::new(127, 0, 0, 77);
        let core = core(game.addr, game.addr, "source: 127.0.0.77", "source: 127.0.0.77");
        let mut link = Link::connect(core.addr("links"), EDGE_A, player(1), CLIENT).await;
        link.open(S, PORT).await;
        assert_eq!(game.accept().await.peer.ip(), IpAddr::V4(own));
        let login = log_in(&core, player(2)).await;
        assert_eq!(game.accept().await.peer.ip(), IpAddr::V4(own));
        drop((link, login));
        core.stop().await;
    });
}

#[test]
fn a_login_and_a_session_of_one_player_come_from_one_address_and_checks_from_another() {
    run(async {
        let game = Game::new().await;
        let core = core(game.addr, game.addr, "check: tcp, inter: 1h", "");
        let check = game.accept().await.peer.ip();
        let _local = log_in(&core, "127.0.0.9:40000".parse().unwrap()).await;
        let local = game.accept().await.peer.ip();
        let _login = log_in(&core, player(1)).await;
        let login = game.accept().await.peer.ip();
        assert_ne!(login, local);
        let mut link = Link::connect(core.addr("links"), EDGE_A, player(1), CLIENT).await;
        link.open(S, PORT).await;
        assert_eq!(game.accept().await.peer.ip(), login, "some servers tie a session to the login's address");
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert!(login.is_loopback() && login != localhost && check != login && check != localhost, "{login} {check}");
        assert!(local != localhost && local != check, "whoever plays by the host's own loopback is a player too");
        core.stop().await;
    });
}

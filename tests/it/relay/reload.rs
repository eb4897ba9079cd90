//! What changes at a core while links and sessions go on.

use otproxy_protocol::frame::{ClientId, SessionId};

use crate::common::crew::{Crew, pushing};
use crate::relay::harness::*;

const OTHER: SessionId = SessionId(8);

/// A packet each way, number `number` of its direction.
async fn plays(link: &mut Link, conn: &mut GameConn, number: u32) {
    let body = packet(&number.to_le_bytes());
    link.data(S, number, number - 1, &body).await;
    conn.expect(&body).await;
    conn.send(&body).await;
    assert_eq!(link.next().await, data(number, number, &body));
}

#[test]
fn a_session_keeps_its_game_server_and_new_ones_have_those_of_now() {
    run(async {
        let (game, other) = (Game::new().await, Game::new().await);
        let setup = Setup::to(&game, "");
        let core = setup.clone().start();
        let (mut link, mut conn) = core.play(&game).await;
        plays(&mut link, &mut conn, 1).await;

        // Its port leads elsewhere, and there is another port.
        core.reload(&Setup::to(&other, "").and(7173, game.addr, "player_address: none")).await;
        plays(&mut link, &mut conn, 2).await;
        link.open(OTHER, PORT).await;
        let (second, _) = other.accept_otc().await;
        link.open(SessionId(9), 7173).await;
        let third = game.accept().await;
        core.wait("otproxy_relay_sessions_active", &["port=\"7173\""], 1.0).await;

        // Its port is gone.
        let gone = Setup { servers: Vec::new(), ..setup }.and(7173, game.addr, "");
        core.reload(&gone).await;
        plays(&mut link, &mut conn, 3).await;
        link.open(SessionId(10), PORT).await;
        assert_eq!(link.next().await, Some(Seen::End(SessionId(10))));
        core.refused("port", 1.0).await;
        core.wait("otproxy_relay_sessions_active", &["port=\"7172\""], 2.0).await;
        drop((conn, second, third));
        let ended = ["reason=\"game_closed\"", "port=\"7172\""];
        core.wait("otproxy_relay_sessions_ended_total", &ended, 2.0).await;
        core.close().await;
    });
}

#[test]
fn what_paces_connects_to_a_game_server_goes_on_at_another_pace() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "connects_per_second: 1").start();
        let mut link = core.link().await;
        link.open(S, PORT).await;
        let _first = game.accept_otc().await;
        // It has its place in a second. One that is opened at another pace comes behind it.
        link.open(OTHER, PORT).await;
        link.sync().await;
        core.reload(&Setup::to(&game, "connects_per_second: 1000")).await;
        link.open(SessionId(9), PORT).await;
        link.sync().await;
        core.wait("otproxy_target_connects_total", &["result=\"ok\""], 3.0).await;
        core.close().await;
    });
}

#[test]
fn limits_of_sessions_count_those_that_are_there() {
    run(async {
        let game = Game::new().await;
        let setup = Setup::to(&game, "");
        let core = setup.clone().start();
        let (mut link, mut conn) = core.play(&game).await;
        let try_one = async |link: &mut Link, id: u32| {
            link.open(SessionId(id), PORT).await;
            assert_eq!(link.next().await, Some(Seen::End(SessionId(id))));
        };
        core.reload(&setup.clone().sessions("max: 1")).await;
        try_one(&mut link, 20).await;
        core.reload(&setup.clone().sessions("max_per_address: 1")).await;
        try_one(&mut link, 21).await;
        core.refused("session_limit", 2.0).await;
        // Without a rate nothing is known of what was done.
        core.reload(&setup.clone().sessions("max_per_link: 1, opens_per_address: none")).await;
        try_one(&mut link, 22).await;
        core.refused("link_sessions", 1.0).await;
        core.reload(&setup.clone().sessions("opens_per_address: 1/1h")).await;
        link.open(OTHER, PORT).await;
        let (mut other, _) = game.accept_otc().await;
        // What it did is known at another rate too.
        core.reload(&setup.clone().sessions("opens_per_address: 1/2h")).await;
        try_one(&mut link, 23).await;
        core.refused("open_rate", 1.0).await;
        // Who may join is decided when somebody joins.
        core.reload(&setup.clone().sessions("bind_sessions: address")).await;
        let mut stranger = core.link_of(EDGE_B, player(2), CLIENT).await;
        stranger.open(S, PORT).await;
        stranger.sync().await;
        core.refused("identity", 1.0).await;
        core.reload(&setup.sessions("bind_sessions: client")).await;
        stranger.open(S, PORT).await;
        stranger.sync().await;
        let body = packet(b"for both");
        conn.send(&body).await;
        assert_eq!((link.next().await, stranger.next().await), (data(1, 0, &body), data(1, 0, &body)));
        link.data(OTHER, 1, 0, &body).await;
        other.expect(&body).await;
        core.close().await;
    });
}

#[test]
fn a_session_keeps_the_limits_that_it_began_with() {
    run(async {
        let game = Game::new().await;
        let setup = Setup::to(&game, "").sessions("linger: 1h, leave_grace: 1h");
        let core = setup.clone().start();
        let (link, mut conn) = core.play(&game).await;
        core.reload(&setup.sessions("linger: 10ms")).await;
        let (new, mut new_conn) = {
            let mut link = core.link_of(EDGE_A, player(2), ClientId(2)).await;
            link.open(S, PORT).await;
            (link, game.accept_otc().await.0)
        };
        drop((link, new));
        // The new one ends; the old one waits for its client, who comes back.
        new_conn.expect_end().await;
        core.ended("links_lost").await;
        let mut link = core.link().await;
        link.open(S, PORT).await;
        plays(&mut link, &mut conn, 1).await;
        core.close().await;
    });
}

#[test]
fn edges_are_known_and_trusted_as_the_file_has_them() {
    run(async {
        let game = Game::new().await;
        let setup = Setup::to(&game, "");
        let core = setup.clone().start();
        let (mut link, mut conn) = core.play(&game).await;
        let third = std::net::Ipv4Addr::new(127, 0, 0, 3);
        let untrusted = Link::silent(core.links, third, player(3)).await;
        core.wait("otproxy_connections_rejected_total", &["reason=\"untrusted\""], 1.0).await;
        drop(untrusted);
        let edges = format!("{{ name: c, address: {third} }}, {{ name: a, address: {EDGE_A}, revoked: true }}");
        let text = setup.text().replace(&format!("{{ name: a, address: {EDGE_A} }}"), &edges);
        core.reload_text(&text).await;
        assert_eq!(core.metric("otproxy_relay_links_active", &["edge=\"c\""]).await, 0.0);
        let new = core.link_of(third, player(3), ClientId(3)).await;
        core.wait("otproxy_relay_links_active", &["edge=\"c\""], 1.0).await;
        let refused = Link::silent(core.links, EDGE_A, player(4)).await;
        core.wait("otproxy_connections_rejected_total", &["reason=\"untrusted\""], 2.0).await;
        // By an address it is known at the beginning, and not asked again.
        plays(&mut link, &mut conn, 1).await;
        drop((refused, new));
        core.close().await;
    });
}

#[test]
fn links_are_idle_for_as_long_as_their_listener_allowed_when_they_came() {
    run(async {
        let game = Game::new().await;
        let patient = Setup { listener: "timeouts: { idle: 1h }", ..Setup::to(&game, "") };
        let core = patient.clone().start();
        let (mut link, mut conn) = core.play(&game).await;
        let hasty = Setup { listener: "timeouts: { idle: 200ms }", ..patient.clone() };
        core.reload(&hasty).await;
        let mut silent = core.link_of(EDGE_A, player(2), ClientId(2)).await;
        assert_eq!(silent.next().await, None);
        core.wait("otproxy_connections_closed_total", &["reason=\"idle\""], 1.0).await;
        core.reload(&patient).await;
        let mut late = core.link_of(EDGE_A, player(3), ClientId(3)).await;
        let mut silent = {
            core.reload(&hasty).await;
            core.link_of(EDGE_A, player(2), ClientId(2)).await
        };
        assert_eq!(silent.next().await, None);
        late.sync().await;
        plays(&mut link, &mut conn, 1).await;
        core.close().await;
    });
}

#[test]
fn links_go_on_when_their_listener_becomes_another_kind_or_goes() {
    run(async {
        let game = Game::new().await;
        let setup = Setup { workers: 2, ..Setup::to(&game, "") };
        let core = setup.clone().start();
        let (mut link, mut conn) = core.play(&game).await;
        // The same address leads past the relay now, by the sockets that it has.
        let forward = format!("kind: forward, forward_to: \"{}\", send_proxy: none", game.addr);
        core.reload_text(&setup.text().replace("kind: relay", &forward)).await;
        let mut login = Link::silent(core.links, EDGE_A, player(2)).await;
        login.send(b"login").await;
        game.accept().await.expect(b"login").await;
        plays(&mut link, &mut conn, 1).await;
        core.reload(&setup).await;
        let mut second = core.link_of(EDGE_B, player(1), CLIENT).await;
        second.open(S, PORT).await;
        assert_eq!(second.next().await, data(1, 1, &packet(&1u32.to_le_bytes())));
        // Gone altogether: the session goes on over what it has.
        let other = setup
            .text()
            .replace("name: links, kind", "name: others, kind")
            .replace("listen: \"127.0.0.1:0\", ", "listen: \"127.0.0.1:0\", accept_proxy: none, ");
        core.reload_text(&other).await;
        assert!(tokio::net::TcpStream::connect(core.links).await.is_err());
        let body = packet(b"on both");
        link.data(S, 2, 1, &body).await;
        conn.expect(&body).await;
        conn.send(&body).await;
        assert_eq!((link.next().await, second.next().await), (data(2, 2, &body), data(2, 2, &body)));
        drop((link, second, login));
        core.wait("otproxy_connections_active", &["listener=\"links\""], 0.0).await;
        core.close().await;
    });
}

#[test]
fn nothing_is_lost_while_edges_and_core_are_reloaded_under_players() {
    run(async {
        let game = pushing().await;
        let setup = Setup { servers: Vec::new(), sessions: "", listener: "", workers: 2, within: "0s" }.and(
            PORT,
            game.addr(),
            "",
        );
        let core = setup.clone().start();
        let free = "127.0.0.1:0".parse().unwrap();
        let edges = [Edge::start(free, core.links), Edge::start(free, core.links)];
        let mut crew = Crew::start(4, &edges.each_ref().map(|edge| edge.addr)).await;
        let closed = core.metric("otproxy_connections_closed_total", &[]).await;
        for round in 0..10 {
            let (name, more) =
                if round % 2 == 0 { ("others", "check: tcp, inter: 1h") } else { ("links", "expect: links") };
            for edge in &edges {
                edge.reload(name, core.links, more).await;
            }
            let sessions = if round % 2 == 0 { "max: 9, unacked: 1MiB" } else { "linger: 20s" };
            // The edges' checks come on top of eight links: they are refused, and take nobody's place.
            let listener = if round % 3 == 0 {
                "timeouts: { idle: 50s }"
            } else {
                "limits: { connections: 9, fair_share: false }"
            };
            core.reload(&Setup { listener, ..setup.clone() }.and(7173 + round, game.addr(), "").sessions(sessions))
                .await;
            for _ in 0..20 {
                crew.play().await;
            }
        }
        assert_eq!(crew.lost_nothing().await, [0; 4], "no link was lost");
        assert_eq!(core.metric("otproxy_connections_closed_total", &[]).await, closed, "no link was closed");
        assert_eq!(game.connections().len(), 4, "one game connection each, all the time");
        crew.leave().await;
        for edge in edges {
            edge.kill().await;
        }
        core.close().await;
    });
}

//! Links and sessions, as the protocol has them.

use otproxy_protocol::frame::{self, ClientId, PONG, PacketId, SessionId};
use tokio::io::AsyncReadExt;

use crate::common::eventually;
use crate::relay::harness::*;

const FRAMES: &str = "otproxy_relay_frames_total";

#[test]
fn pings_with_and_without_payload_are_answered_with_fourteen_bytes() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").start();
        let mut link = core.silent_link(EDGE_A, player(1)).await;
        let bare = frame::data_header(SessionId(0), PacketId(0), PacketId(CLIENT.0), 0);
        for ping in [&frame::ping(CLIENT, 0)[..], &bare, &frame::ping(CLIENT, 120), &frame::ping(CLIENT, 5000)] {
            link.send(ping).await;
            let mut pong = [0; 14];
            link.stream.read_exact(&mut pong).await.unwrap();
            assert_eq!(pong, PONG);
        }
        // Longer ago than the link is there nothing was measured.
        assert_eq!(core.metric("otproxy_relay_link_rtt_seconds_count", &[]).await, 0.0);
        eventually("a round trip that can be", async || {
            link.send(&frame::ping(CLIENT, 1)).await;
            let mut pong = [0; 14];
            link.stream.read_exact(&mut pong).await.unwrap();
            (core.metric("otproxy_relay_link_rtt_seconds_count", &["edge=\"a\""]).await == 1.0).then_some(())
        })
        .await;
        // However many more come, and of whatever they tell, no other one counts within two seconds.
        let flood: Vec<u8> = (0..50).flat_map(|_| frame::ping(CLIENT, 4_950)).collect();
        link.send(&flood).await;
        link.stream.read_exact(&mut [0; 14]).await.unwrap();
        assert!(core.metric("otproxy_relay_link_rtt_seconds_sum", &["edge=\"a\""]).await < 0.01);
        core.close().await;
    });
}

#[test]
fn two_links_deliver_once_and_count_who_was_first() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").start();
        let mut a = core.link_of(EDGE_A, player(1), CLIENT).await;
        let mut b = core.link_of(EDGE_B, player(1), CLIENT).await;
        a.open(S, PORT).await;
        let (mut conn, _) = game.accept_otc().await;
        b.open(S, PORT).await;
        b.sync().await;
        for n in 1..=5u32 {
            let body = packet(&[n as u8; 10]);
            a.data(S, n, n - 1, &body).await;
            conn.expect(&body).await;
            b.data(S, n, n - 1, &body).await;
            b.sync().await;
            conn.send(&body).await;
            assert_eq!(a.next().await, data(n, n, &body));
            assert_eq!(b.next().await, data(n, n, &body));
        }
        // What is sent is counted right after it was.
        core.wait(FRAMES, &["direction=\"out\"", "outcome=\"first\""], 5.0).await;
        core.wait(FRAMES, &["direction=\"out\"", "outcome=\"duplicate\""], 5.0).await;
        let count = async |labels: &[&str]| core.metric(FRAMES, labels).await;
        assert_eq!(count(&["edge=\"a\"", "direction=\"in\"", "outcome=\"first\""]).await, 5.0);
        assert_eq!(count(&["edge=\"b\"", "direction=\"in\"", "outcome=\"first\""]).await, 0.0);
        assert_eq!(count(&["edge=\"b\"", "direction=\"in\"", "outcome=\"duplicate\""]).await, 5.0);
        core.close().await;
    });
}

#[test]
fn a_packet_ahead_of_its_turn_waits() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").start();
        let mut link = core.link().await;
        link.open(S, PORT).await;
        for n in [3, 2, 2, 1, 4] {
            link.data(S, n, 0, &packet(&[n as u8])).await;
        }
        let (mut conn, _) = game.accept_otc().await;
        for n in 1..=4 {
            conn.expect(&packet(&[n])).await;
        }
        core.close().await;
    });
}

#[test]
fn a_join_gets_what_is_not_acknowledged_and_nothing_else() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").start();
        let (mut a, mut conn) = core.play(&game).await;
        for n in 1..=4 {
            conn.send(&packet(&[n; 2])).await;
            assert_eq!(a.next().await, data(n.into(), 0, &packet(&[n; 2])));
        }
        a.data(S, 1, 2, b"\0\0").await;
        a.sync().await;
        let mut b = core.link_of(EDGE_B, player(1), CLIENT).await;
        b.open(S, PORT).await;
        assert_eq!(b.next().await, data(3, 0, &packet(&[3; 2])));
        assert_eq!(b.next().await, data(4, 0, &packet(&[4; 2])));
        // An open again changes nothing.
        b.open(S, PORT).await;
        conn.send(&packet(&[5; 2])).await;
        assert_eq!(b.next().await, data(5, 1, &packet(&[5; 2])));
        assert_eq!(a.next().await, data(5, 1, &packet(&[5; 2])));
        core.close().await;
    });
}

#[test]
fn after_the_last_leave_the_session_ends_in_its_grace() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").sessions("leave_grace: 100ms").start();
        let (mut link, mut conn) = core.play(&game).await;
        link.data(S, 1, 0, &packet(b"last words")).await;
        link.leave(S).await;
        conn.expect(&packet(b"last words")).await;
        conn.expect_end().await;
        core.ended("client_left").await;
        core.wait("otproxy_relay_sessions_active", &[], 0.0).await;
        core.close().await;
    });
}

#[test]
fn a_join_within_the_grace_goes_on() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").sessions("leave_grace: 50s").start();
        let mut a = core.link().await;
        let mut b = core.link_of(EDGE_B, player(1), CLIENT).await;
        a.open(S, PORT).await;
        let (mut conn, _) = game.accept_otc().await;
        // The leave overtakes the join, on another connection.
        a.leave(S).await;
        a.sync().await;
        conn.send(&packet(b"xx")).await;
        b.open(S, PORT).await;
        assert_eq!(b.next().await, data(1, 0, &packet(b"xx")));
        b.data(S, 1, 1, &packet(b"y")).await;
        conn.expect(&packet(b"y")).await;
        assert_eq!(core.metric("otproxy_relay_sessions_opened_total", &[]).await, 1.0);
        core.close().await;
    });
}

#[test]
fn a_session_without_links_lingers_and_then_ends() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").sessions("linger: 100ms").start();
        let (link, mut conn) = core.play(&game).await;
        drop(link);
        conn.expect_end().await;
        core.ended("links_lost").await;
        core.close().await;
    });
}

#[test]
fn a_session_resumes_on_a_new_link_where_it_was() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").start();
        let (mut a, mut conn) = core.play(&game).await;
        a.data(S, 1, 0, &packet(b"1")).await;
        conn.expect(&packet(b"1")).await;
        conn.send(&packet(b"one")).await;
        assert_eq!(a.next().await, data(1, 1, &packet(b"one")));
        drop(a);
        core.wait("otproxy_relay_links_active", &["edge=\"a\""], 0.0).await;
        conn.send(&[packet(b"two"), packet(b"three")].concat()).await;
        core.wait("otproxy_relay_packets_total", &["direction=\"out\""], 3.0).await;
        let mut b = core.link_of(EDGE_B, player(1), CLIENT).await;
        b.open(S, PORT).await;
        for (n, body) in [(1, "one"), (2, "two"), (3, "three")] {
            assert_eq!(b.next().await, data(n, 1, &packet(body.as_bytes())));
        }
        // The client sends again what was not acknowledged to it.
        for n in 1..=2 {
            b.data(S, n, 3, &packet(n.to_string().as_bytes())).await;
        }
        conn.expect(&packet(b"2")).await;
        core.wait("otproxy_relay_unacked_bytes", &[], 0.0).await;
        core.close().await;
    });
}

#[test]
fn a_join_just_after_the_game_closed_gets_the_rest_and_the_end() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").start();
        let mut a = core.link().await;
        let mut b = core.link_of(EDGE_B, player(1), CLIENT).await;
        a.open(S, PORT).await;
        let (mut conn, _) = game.accept_otc().await;
        conn.send(&packet(b"last words")).await;
        drop(conn);
        assert_eq!(a.next().await, data(1, 0, &packet(b"last words")));
        assert_eq!(a.next().await, Some(Seen::End(S)));
        core.ended("game_closed").await;
        b.open(S, PORT).await;
        assert_eq!(b.next().await, data(1, 0, &packet(b"last words")));
        assert_eq!(b.next().await, Some(Seen::End(S)));
        assert_eq!(core.metric("otproxy_relay_sessions_opened_total", &[]).await, 1.0, "no second game connection");
        core.close().await;
    });
}

#[test]
fn a_game_that_closes_is_all_data_and_then_an_end_on_every_link() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").start();
        let mut a = core.link().await;
        let mut b = core.link_of(EDGE_B, player(1), CLIENT).await;
        a.open(S, PORT).await;
        let (mut conn, _) = game.accept_otc().await;
        b.open(S, PORT).await;
        b.sync().await;
        let body = vec![9; 30_000];
        for _ in 0..10 {
            conn.send(&packet(&body)).await;
        }
        drop(conn);
        for link in [&mut a, &mut b] {
            for n in 1..=10 {
                assert_eq!(link.next().await, data(n, 0, &packet(&body)));
            }
            assert_eq!(link.next().await, Some(Seen::End(S)));
            link.sync().await;
        }
        core.ended("game_closed").await;
        core.close().await;
    });
}

#[test]
fn a_game_that_cannot_be_reached_is_an_end_at_once() {
    run(async {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let game = Game::new().await;
        let core = Setup::to(&game, "").and(7173, closed, "").start();
        let mut link = core.link().await;
        link.open(S, 7173).await;
        assert_eq!(link.next().await, Some(Seen::End(S)));
        core.ended("game_unreachable").await;
        core.wait("otproxy_target_connects_total", &["result=\"refused\""], 1.0).await;
        link.open(SessionId(8), PORT).await;
        game.accept_otc().await;
        core.close().await;
    });
}

#[test]
fn a_port_that_is_not_in_the_list_is_refused() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").start();
        let mut link = core.link().await;
        link.open(S, game.addr.port()).await;
        assert_eq!(link.next().await, Some(Seen::End(S)));
        // What is over 65535 must not be taken for its low 16 bits.
        let port = PacketId(u32::from(PORT) + 65536);
        link.send(&frame::data_header(S, PacketId(0), port, 0)).await;
        assert_eq!(link.next().await, Some(Seen::End(S)));
        core.refused("port", 2.0).await;
        link.open(S, PORT).await;
        game.accept_otc().await;
        core.close().await;
    });
}

#[test]
fn a_stranger_cannot_join_and_the_owner_plays_on() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").sessions("bind_sessions: address").start();
        let (mut owner, mut conn) = core.play(&game).await;
        let mut stranger = core.link_of(EDGE_A, player(2), CLIENT).await;
        // Without an end: in a client on two addresses, it would be the game's on both.
        stranger.open(S, PORT).await;
        stranger.sync().await;
        stranger.data(S, 1, 0, &packet(b"evil")).await;
        stranger.leave(S).await;
        stranger.sync().await;
        core.refused("identity", 1.0).await;
        conn.send(&packet(b"secret")).await;
        assert_eq!(owner.next().await, data(1, 0, &packet(b"secret")));
        owner.data(S, 1, 1, &packet(b"mine")).await;
        conn.expect(&packet(b"mine")).await;
        stranger.sync().await;
        core.close().await;
    });
}

#[test]
fn a_strangers_packet_is_refused_and_the_owners_of_that_number_arrives() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").sessions("bind_sessions: address").start();
        let (mut owner, mut conn) = core.play(&game).await;
        // No open before it: a write and nothing else, with an acknowledgement that would end the session.
        let mut stranger = core.link_of(EDGE_B, player(2), CLIENT).await;
        stranger.data(S, 1, 77, &packet(b"evil")).await;
        stranger.sync().await;
        core.refused("identity", 1.0).await;
        owner.data(S, 1, 0, &packet(b"mine")).await;
        conn.expect(&packet(b"mine")).await;
        conn.send(&packet(b"answer")).await;
        assert_eq!(owner.next().await, data(1, 1, &packet(b"answer")));
        core.close().await;
    });
}

/// A client counts a link as joined that was lost and back before it looked.
#[test]
fn a_packet_on_a_link_of_the_player_that_has_not_joined_is_a_join() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").start();
        let (mut owner, mut conn) = core.play(&game).await;
        conn.send(&packet(b"first")).await;
        assert_eq!(owner.next().await, data(1, 0, &packet(b"first")));
        let mut back = core.link_of(EDGE_B, player(1), CLIENT).await;
        back.data(S, 1, 0, &packet(b"mine")).await;
        conn.expect(&packet(b"mine")).await;
        assert_eq!(back.next().await, data(1, 0, &packet(b"first")), "from the first that is not acknowledged");
        conn.send(&packet(b"second")).await;
        assert_eq!(back.next().await, data(2, 1, &packet(b"second")));
        core.close().await;
    });
}

#[test]
fn a_player_with_a_new_address_plays_on() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").start();
        let (mut old, mut conn) = core.play(&game).await;
        conn.send(&packet(b"before")).await;
        assert_eq!(old.next().await, data(1, 0, &packet(b"before")));
        // The same client, which is now somewhere else, on every edge.
        drop(old);
        conn.send(&packet(b"meanwhile")).await;
        let mut links = Vec::new();
        for edge in [EDGE_A, EDGE_B] {
            let mut new = core.link_of(edge, player(2), CLIENT).await;
            new.open(S, PORT).await;
            assert_eq!(new.next().await, data(1, 0, &packet(b"before")));
            assert_eq!(new.next().await, data(2, 0, &packet(b"meanwhile")));
            links.push(new);
        }
        links[0].data(S, 1, 2, &packet(b"on")).await;
        conn.expect(&packet(b"on")).await;
        core.wait("otproxy_relay_joined_elsewhere_total", &[], 1.0).await;
        core.close().await;
    });
}

#[test]
fn the_same_session_id_of_two_clients_is_two_sessions() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").start();
        let mut conns = Vec::new();
        for n in 1..=2u8 {
            let mut link = core.link_of(EDGE_A, player(n), ClientId(n.into())).await;
            link.open(S, PORT).await;
            let (mut conn, address) = game.accept_otc().await;
            assert_eq!(address.octets()[3], n);
            conn.send(&packet(&[n; 2])).await;
            conns.push((link, conn, n));
        }
        for (link, conn, n) in &mut conns {
            assert_eq!(link.next().await, data(1, 0, &packet(&[*n; 2])));
            link.data(S, 1, 1, &packet(&[*n; 2])).await;
            conn.expect(&packet(&[*n; 2])).await;
        }
        core.close().await;
    });
}

#[test]
fn last_words_reach_a_client_that_comes_back_for_them() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").sessions("leave_grace: 1ms").start();
        let (mut lost, mut conn) = core.play(&game).await;
        conn.send(&packet(b"last")).await;
        assert_eq!(lost.next().await, data(1, 0, &packet(b"last")));
        drop(conn);
        // The kernel takes it all, and nobody says that it has come.
        core.ended("game_closed").await;
        drop(lost);
        let mut back = core.link().await;
        assert_eq!(back.next().await, data(1, 0, &packet(b"last")));
        assert_eq!(back.next().await, Some(Seen::End(S)));
        back.open(S, PORT).await;
        assert_eq!(back.next().await, Some(Seen::End(S)));
        back.data(S, 5, 1, &packet(b"late")).await;
        back.sync().await;
        core.wait("otproxy_relay_unacked_bytes", &[], 0.0).await;
        core.wait("otproxy_relay_sessions_opened_total", &[], 1.0).await;
        core.refused("unknown_session", 0.0).await;
        core.close().await;
    });
}

#[test]
fn each_path_may_have_an_address_of_its_own() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").start();
        let (mut a, mut conn) = core.play(&game).await;
        let mut b = core.link_of(EDGE_B, "[2001:db8::7]:5000".parse().unwrap(), CLIENT).await;
        b.open(S, PORT).await;
        conn.send(&packet(b"both")).await;
        assert_eq!(a.next().await, data(1, 0, &packet(b"both")));
        assert_eq!(b.next().await, data(1, 0, &packet(b"both")));
        core.close().await;
    });
}

#[test]
fn data_for_a_session_that_does_not_exist_is_answered_with_an_end() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").start();
        let mut link = core.link().await;
        link.data(S, 5, 3, &packet(b"?")).await;
        assert_eq!(link.next().await, Some(Seen::End(S)));
        core.refused("unknown_session", 1.0).await;
        core.close().await;
    });
}

/// Its open was lost with the link before, which was back before the client looked.
#[test]
fn a_link_with_packets_of_a_session_that_nobody_opened_is_closed_at_the_next_ping() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").start();
        let mut link = core.link().await;
        link.data(S, 1, 0, &packet(b"login")).await;
        core.refused("unknown_session", 1.0).await;
        link.send(&frame::ping(CLIENT, 20)).await;
        while link.next_or_cut().await.is_some_and(|seen| seen == Seen::Pong) {}
        let closed = "otproxy_connections_closed_total";
        core.wait(closed, &["listener=\"links\"", "reason=\"rejoin\""], 1.0).await;
        let mut back = core.link().await;
        back.open(S, PORT).await;
        back.data(S, 1, 0, &packet(b"login")).await;
        let (mut conn, _) = game.accept_otc().await;
        conn.expect(&packet(b"login")).await;
        core.close().await;
    });
}

#[test]
fn what_is_no_frame_closes_the_link_and_no_other() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").start();
        let (mut good, mut conn) = core.play(&game).await;
        let mut bad = core.link().await;
        bad.open(S, PORT).await;
        bad.sync().await;
        bad.send(&[11, 0]).await;
        assert_eq!(bad.next().await, None);
        let closed = "otproxy_connections_closed_total";
        core.wait(closed, &["listener=\"links\"", "reason=\"protocol_error\""], 1.0).await;
        conn.send(&packet(b"on")).await;
        assert_eq!(good.next().await, data(1, 0, &packet(b"on")));
        core.close().await;
    });
}

#[test]
fn a_link_that_does_not_begin_with_a_ping_is_closed() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").start();
        for first in [&frame::open(S, PORT)[..], b"GET / HTTP/1.1\r\n\r\n", &[5, 0]] {
            let mut link = core.silent_link(EDGE_A, player(1)).await;
            link.send(first).await;
            if first.starts_with(b"GET") {
                // A length of 17735: it is refused long before that much came.
                link.send(&[0; 100]).await;
            }
            assert_eq!(link.next().await, None);
        }
        core.wait("otproxy_connections_rejected_total", &["reason=\"no_ping\""], 3.0).await;
        core.close().await;
    });
}

#[test]
fn a_later_ping_does_not_change_whose_link_it_is() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").start();
        let (mut owner, mut conn) = core.play(&game).await;
        let mut other = core.link_of(EDGE_A, player(1), ClientId(5)).await;
        other.send(&frame::ping(CLIENT, 20)).await;
        assert_eq!(other.next().await, Some(Seen::Pong));
        other.data(S, 1, 1, &packet(b"not mine")).await;
        assert_eq!(other.next().await, Some(Seen::End(S)));
        core.refused("unknown_session", 1.0).await;
        owner.data(S, 1, 0, &packet(b"mine")).await;
        conn.expect(&packet(b"mine")).await;
        core.close().await;
    });
}

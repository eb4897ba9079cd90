//! Every limit of the relay, hit.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use otproxy::relay::{CONNECT_WAIT, FRAMES_PER_TURN, MAX_CLIENT_LINKS, MAX_LINKS, MAX_REFUSALS};
use otproxy_protocol::frame::{self, ClientId, PacketId, SessionId};
use socket2::{Domain, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::relay::harness::*;

#[test]
fn sessions_by_address_and_in_all() {
    run(async {
        for (sessions, other) in [("max_per_address: 1", true), ("max: 1", false)] {
            let game = Game::new().await;
            let core = Setup::to(&game, "").sessions(sessions).start();
            let mut link = core.link().await;
            link.open(S, PORT).await;
            let _first = game.accept_otc().await;
            link.open(SessionId(8), PORT).await;
            assert_eq!(link.next().await, Some(Seen::End(SessionId(8))));
            core.refused("session_limit", 1.0).await;
            let mut second = core.link_of(EDGE_A, player(2), ClientId(2)).await;
            second.open(S, PORT).await;
            if other {
                game.accept_otc().await;
            } else {
                assert_eq!(second.next().await, Some(Seen::End(S)));
                core.refused("session_limit", 2.0).await;
            }
            core.close().await;
        }
    });
}

#[test]
fn sessions_on_one_link() {
    run(async {
        let game = Game::new().await;
        for (sessions, most) in [("", 16), ("max_per_link: 2", 2)] {
            let core = Setup::to(&game, "").sessions(sessions).start();
            let mut link = core.link().await;
            for id in 1..=most + 1 {
                link.open(SessionId(id), PORT).await;
            }
            assert_eq!(link.next().await, Some(Seen::End(SessionId(most + 1))));
            core.refused("link_sessions", 1.0).await;
            // One that has left makes room.
            link.leave(SessionId(1)).await;
            link.open(SessionId(most + 2), PORT).await;
            link.sync().await;
            core.wait("otproxy_relay_sessions_opened_total", &[], f64::from(most) + 1.0).await;
            core.close().await;
        }
    });
}

#[test]
fn a_player_who_comes_back_as_another_client_has_the_place_of_the_one_that_crashed() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").sessions("max_per_address: 1").start();
        let (crashed, _conn) = core.play(&game).await;
        let mut other = core.link_of(EDGE_A, player(1), ClientId(8)).await;
        other.open(S, PORT).await;
        assert_eq!(other.next().await, Some(Seen::End(S)));
        core.refused("session_limit", 1.0).await;
        drop(crashed);
        core.wait("otproxy_relay_links_active", &["edge=\"a\""], 1.0).await;
        other.open(SessionId(9), PORT).await;
        let _second = game.accept_otc().await;
        core.ended("evicted").await;
        other.sync().await;
        core.close().await;
    });
}

#[test]
fn an_open_that_reaches_no_game_server_does_not_count() {
    run(async {
        let game = Game::new().await;
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let setup = Setup::to(&game, "").and(7000, gone.local_addr().unwrap(), "");
        drop(gone);
        let core = setup.sessions("opens_per_address: 2/1h").start();
        let mut link = core.link().await;
        // As many as count do not, and both links of a client are one open.
        for id in 1..=2 {
            let mut second = core.link().await;
            for link in [&mut link, &mut second] {
                link.open(SessionId(id), 7000).await;
                assert_eq!(link.next().await, Some(Seen::End(SessionId(id))));
            }
        }
        let mut conns = Vec::new();
        for id in 3..=4 {
            link.open(SessionId(id), PORT).await;
            conns.push(game.accept_otc().await);
        }
        link.open(SessionId(5), PORT).await;
        assert_eq!(link.next().await, Some(Seen::End(SessionId(5))));
        core.refused("open_rate", 1.0).await;
        core.close().await;
    });
}

#[test]
fn links_of_one_session() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").start();
        let (mut first, mut conn) = core.play(&game).await;
        let mut links = Vec::new();
        for _ in 1..MAX_LINKS {
            let mut link = core.link().await;
            link.open(S, PORT).await;
            link.sync().await;
            links.push(link);
        }
        let mut one_more = core.link().await;
        one_more.open(S, PORT).await;
        one_more.sync().await;
        core.refused("session_links", 1.0).await;
        conn.send(&packet(b"on")).await;
        assert_eq!(first.next().await, data(1, 0, &packet(b"on")));
        first.leave(S).await;
        first.sync().await;
        one_more.open(S, PORT).await;
        assert_eq!(one_more.next().await, data(1, 0, &packet(b"on")));
        core.close().await;
    });
}

#[test]
fn new_sessions_by_address_over_all_workers() {
    run(async {
        let game = Game::new().await;
        let setup = Setup { workers: 4, ..Setup::to(&game, "") };
        let core = setup.sessions("opens_per_address: 3/1h").start();
        let (mut links, mut conns) = (Vec::new(), Vec::new());
        for n in 1..=10 {
            let mut link = core.link_of(EDGE_A, player(1), ClientId(n)).await;
            link.open(S, PORT).await;
            if n <= 3 {
                conns.push(game.accept_otc().await);
            } else {
                assert_eq!(link.next().await, Some(Seen::End(S)));
            }
            links.push(link);
        }
        core.refused("open_rate", 7.0).await;
        // Another player is not affected, nor is a join, of which there may be any number.
        let mut other = core.link_of(EDGE_A, player(2), ClientId(11)).await;
        other.open(S, PORT).await;
        conns.push(game.accept_otc().await);
        for _ in 0..5 {
            let mut join = core.link_of(EDGE_B, player(1), ClientId(1)).await;
            join.open(S, PORT).await;
            join.sync().await;
            links.push(join);
        }
        core.refused("open_rate", 7.0).await;
        assert_eq!(core.metric("otproxy_relay_sessions_opened_total", &[]).await, 4.0);
        core.close().await;
    });
}

#[test]
fn an_edge_that_claims_a_players_address_takes_nothing_of_what_that_has_through_others() {
    run(async {
        let game = Game::new().await;
        let sessions = "opens_per_address: 2/1h, max_per_address: 2";
        let core = Setup { workers: 2, ..Setup::to(&game, "") }.sessions(sessions).start();
        // The stolen edge opens and breaks the protocol in the player's name, as often as it is let.
        let (mut stolen, mut taken) = (Vec::new(), Vec::new());
        for n in 1..=5 {
            let mut link = core.link_of(EDGE_A, player(1), ClientId(n)).await;
            link.open(S, PORT).await;
            match n {
                1 | 2 => taken.push(game.accept_otc().await),
                _ => assert_eq!(link.next().await, Some(Seen::End(S))),
            }
            stolen.push(link);
        }
        core.refused("session_limit", 3.0).await;
        let mut link = core.link_of(EDGE_B, player(1), ClientId(77)).await;
        link.open(S, PORT).await;
        let (mut conn, address) = game.accept_otc().await;
        assert_eq!(address, player(1).ip());
        conn.send(&packet(b"on")).await;
        assert_eq!(link.next().await, data(1, 0, &packet(b"on")));
        core.close().await;
    });
}

#[test]
fn a_full_house_comes_back_at_once_after_a_restart() {
    run(async {
        let game = Game::new().await;
        // Logins go on counting among the sessions for a moment, and that limit is not what this is about.
        let core = Setup::to(&game, "").sessions("max_per_address: 40").start();
        let mut playing = Vec::new();
        // As many as `max_per_address` lets in by default; each logs in, and then plays.
        for n in 1..=20 {
            let mut link = core.link_of(EDGE_A, player(1), ClientId(n)).await;
            link.open(SessionId(1), PORT).await;
            drop(game.accept_otc().await);
            assert_eq!(link.next().await, Some(Seen::End(SessionId(1))));
            link.open(SessionId(2), PORT).await;
            playing.push((game.accept_otc().await, link));
        }
        assert_eq!(core.metric("otproxy_relay_sessions_opened_total", &[]).await, 40.0);
        core.close().await;
    });
}

#[test]
fn what_a_game_server_does_not_read_ends_the_session() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").sessions("pending: 64KiB").start();
        let (mut link, _conn) = core.play(&game).await;
        let mut other = core.link_of(EDGE_A, player(2), ClientId(2)).await;
        other.open(S, PORT).await;
        let (mut other_conn, _) = game.accept_otc().await;
        let payload = packet(&[1; 50_000]);
        // The kernel's buffers are filled first.
        for n in 1.. {
            assert!(n < 10_000, "500 MB and no end");
            link.data(S, n, 0, &payload).await;
            link.send(&frame::ping(CLIENT, 20)).await;
            match link.next().await {
                Some(Seen::Pong) => {}
                seen => {
                    assert_eq!(seen, Some(Seen::End(S)));
                    break;
                }
            }
        }
        core.ended("limit").await;
        other.data(S, 1, 0, &packet(b"undisturbed")).await;
        other_conn.expect(&packet(b"undisturbed")).await;
        core.close().await;
    });
}

#[test]
fn the_places_of_small_packets_that_wait_for_their_turn_are_not_free() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "max_packets_per_second: 1").sessions("pending: 256").start();
        let mut link = core.link().await;
        link.open(S, PORT).await;
        // Under the limit by their bytes alone.
        for n in 1..=200 {
            link.data(S, n, 0, b"x").await;
        }
        assert_eq!(link.next().await, Some(Seen::End(S)));
        core.ended("limit").await;
        core.close().await;
    });
}

const CONNECTS: &str = "otproxy_target_connects_total";

#[test]
fn connects_of_all_workers_together_come_no_faster_than_they_may() {
    run(async {
        let game = Game::new().await;
        let setup = Setup { workers: 4, ..Setup::to(&game, "connects_per_second: 20") };
        let core = setup.start();
        let mut links = Vec::new();
        for n in 1..=20 {
            links.push(core.link_of(EDGE_A, player(n), ClientId(n.into())).await);
        }
        let start = Instant::now();
        for link in &mut links {
            link.open(S, PORT).await;
        }
        for n in 0..20 {
            game.accept_otc().await;
            let least = Duration::from_millis(50) * n;
            assert!(start.elapsed() >= least, "{} connects in {:?}", n + 1, start.elapsed());
        }
        core.close().await;
    });
}

#[test]
fn who_would_wait_for_a_connect_longer_than_a_client_waits_is_refused_at_once() {
    run(async {
        let game = Game::new().await;
        let sessions = "max_per_link: 100, max_per_address: 100, opens_per_address: none";
        let setup = Setup::to(&game, "connects_per_second: 1");
        let core = setup.sessions(sessions).start();
        let mut link = core.link().await;
        // At one connect a second, the last of these would have to wait for a minute and a half.
        link.send(&(1..=90).flat_map(|id| frame::open(SessionId(id), PORT)).collect::<Vec<_>>()).await;
        let (mut refused, mut last) = (0.0, 0);
        while last < 90 {
            let Some(Seen::End(SessionId(id))) = link.next().await else { panic!("after {last}") };
            assert!(u64::from(id) > CONNECT_WAIT.as_secs() + 1, "{id}");
            (refused, last) = (refused + 1.0, id);
        }
        core.refused("connect_queue", refused).await;
        game.accept_otc().await;
        core.close().await;
    });
}

#[test]
fn nothing_connects_for_a_client_that_left_while_it_waited() {
    run(async {
        let game = Game::new().await;
        let setup = Setup::to(&game, "connects_per_second: 1");
        let core = setup.sessions("leave_grace: 0s").start();
        let mut link = core.link().await;
        let opens = (1..=16).flat_map(|id| frame::open(SessionId(id), PORT));
        let leaves = (2..=16).flat_map(|id| frame::end(SessionId(id)));
        link.send(&opens.chain(leaves).collect::<Vec<_>>()).await;
        let _conn = game.accept_otc().await;
        core.wait("otproxy_relay_sessions_ended_total", &["reason=\"client_left\""], 15.0).await;
        core.wait("otproxy_relay_sessions_active", &[], 1.0).await;
        assert_eq!(core.metric(CONNECTS, &[]).await, 1.0);
        core.close().await;
    });
}

#[test]
fn nothing_connects_for_a_client_whose_links_are_lost_for_too_long_while_it_waits() {
    run(async {
        let game = Game::new().await;
        let setup = Setup::to(&game, "connects_per_second: 1");
        let core = setup.sessions("linger: 0s").start();
        let mut link = core.link().await;
        link.send(&(1..=16).flat_map(|id| frame::open(SessionId(id), PORT)).collect::<Vec<_>>()).await;
        drop(link);
        core.wait("otproxy_relay_sessions_ended_total", &["reason=\"links_lost\""], 16.0).await;
        core.wait("otproxy_relay_sessions_active", &[], 0.0).await;
        // One for each second that the loss took to be seen, but not one for each session.
        assert!(core.metric(CONNECTS, &[]).await < 16.0);
        core.close().await;
    });
}

#[test]
fn who_breaks_a_rule_while_it_waits_for_the_connect_is_told_at_once() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "connects_per_second: 1").start();
        let mut link = core.link().await;
        let (first, second) = (SessionId(1), SessionId(2));
        let ack = frame::data_header(second, PacketId(1), PacketId(1), 0);
        link.send(&[&frame::open(first, PORT)[..], &frame::open(second, PORT), &ack].concat()).await;
        assert_eq!(link.next().await, Some(Seen::End(second)));
        core.ended("protocol_error").await;
        let _conn = game.accept_otc().await;
        core.wait("otproxy_relay_sessions_active", &[], 1.0).await;
        assert_eq!(core.metric(CONNECTS, &[]).await, 1.0);
        core.close().await;
    });
}

#[test]
fn a_game_server_that_does_not_answer_is_an_end_in_time() {
    run(async {
        // It listens, and what it may accept is there already: further connects are not answered.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let addr = socket.local_addr().unwrap().as_socket().unwrap();
        let _first = std::net::TcpStream::connect(addr).unwrap();
        let game = Game::new().await;
        let setup = Setup::to(&game, "").and(7173, addr, "");
        let core = Setup { listener: "timeouts: { connect: 200ms }", ..setup }.start();
        let mut link = core.link().await;
        link.open(S, 7173).await;
        assert_eq!(link.next().await, Some(Seen::End(S)));
        core.ended("game_unreachable").await;
        core.wait(CONNECTS, &["result=\"timeout\""], 1.0).await;
        core.close().await;
    });
}

#[test]
fn too_much_ahead_of_its_turn_ends_the_session() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").sessions("reorder: 2KiB").start();
        let mut link = core.link().await;
        link.open(S, PORT).await;
        link.data(S, 2, 0, &[0; 1000]).await;
        link.sync().await;
        link.data(S, 3, 0, &[0; 1000]).await;
        assert_eq!(link.next().await, Some(Seen::End(S)));
        core.ended("limit").await;
        core.close().await;
    });
}

#[test]
fn an_ack_of_what_was_never_sent_ends_the_session() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").start();
        let (mut link, mut conn) = core.play(&game).await;
        link.data(S, 1, 1, &packet(b"?")).await;
        assert_eq!(link.next().await, Some(Seen::End(S)));
        conn.expect_end().await;
        core.ended("protocol_error").await;
        core.close().await;
    });
}

#[test]
fn a_silent_link_is_closed_and_half_a_frame_is_silence() {
    run(async {
        let game = Game::new().await;
        let setup = Setup { listener: "timeouts: { idle: 300ms }", ..Setup::to(&game, "") };
        let core = setup.start();
        let mut silent = core.link().await;
        assert_eq!(silent.next().await, None);
        let reason = ["listener=\"links\"", "reason=\"idle\""];
        core.wait("otproxy_connections_closed_total", &reason, 1.0).await;
        let mut slow = core.link().await;
        slow.open(S, PORT).await;
        slow.send(&frame::data_header(S, PacketId(1), PacketId(0), 60_000)).await;
        let mut trickle = tokio::time::interval(std::time::Duration::from_millis(20));
        loop {
            tokio::select! {
                _ = trickle.tick() => if slow.stream.write_all(&[0]).await.is_err() { break },
                seen = slow.next() => {
                    assert_eq!(seen, None);
                    break;
                }
            }
        }
        core.wait("otproxy_connections_closed_total", &reason, 2.0).await;
        core.close().await;
    });
}

#[test]
fn what_is_not_acknowledged_pauses_the_game_and_nothing_is_lost() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").sessions("unacked: 64KiB").start();
        let (mut link, mut conn) = core.play(&game).await;
        const PACKETS: u32 = 20_000;
        let body = |n: u32| packet(&[&n.to_le_bytes()[..], &[1; 1000]].concat());
        let server = tokio::spawn(async move {
            for n in 1..=PACKETS {
                conn.send(&body(n)).await;
            }
            conn
        });
        // It stops by itself once the limit is reached, one read of the game connection beyond it at most.
        // The pieces in which the bytes are kept count too: a little for each packet, if each is one.
        let mut received = 0;
        while core.metric("otproxy_relay_unacked_bytes", &[]).await < 50_000.0 {
            tokio::task::yield_now().await;
        }
        let mut acks = 0;
        while received < PACKETS {
            let Some(Seen::Data { packet, payload, .. }) = link.next().await else { panic!("at {received}") };
            received += 1;
            assert_eq!((packet, payload), (received, body(received)));
            // Some of what is there now comes before the next packet of the client.
            if received % 16 == 0 {
                acks += 1;
                link.data(S, acks, received, b"").await;
            }
            if received == 40 {
                let unacked = core.metric("otproxy_relay_unacked_bytes", &[]).await;
                assert!(unacked <= 2.0 * 65536.0 + 20_000.0, "{unacked}");
            }
        }
        server.await.unwrap();
        core.close().await;
    });
}

#[test]
fn a_link_that_does_not_read_slows_no_other_and_wakes_to_what_is_not_acknowledged() {
    /// More than all buffers on the way, and many times what the core keeps.
    const PACKETS: u32 = 10_000;
    const ACKED: u32 = 9_900;
    const UNACKED: usize = 256 * 1024;
    run(async {
        let game = Game::new().await;
        let setup = Setup { listener: "timeouts: { idle: 1h }", ..Setup::to(&game, "") };
        let core = setup.sessions("unacked: 256KiB").start();
        let (mut stalled, mut conn) = core.play(&game).await;
        let mut good = core.link_of(EDGE_B, player(1), CLIENT).await;
        good.open(S, PORT).await;
        good.sync().await;
        let body = |n: u32| packet(&[&n.to_le_bytes()[..], &[1; 2000]].concat());
        let server = tokio::spawn(async move {
            for n in 1..=PACKETS {
                conn.send(&body(n)).await;
            }
            conn
        });
        for n in 1..=PACKETS {
            let seen = good.next().await;
            let next = |packet, payload: &[u8]| packet == n && payload == body(n);
            assert!(matches!(seen, Some(Seen::Data { packet, payload, .. }) if next(packet, &payload)));
            if n % 20 == 0 && n <= ACKED {
                good.data(S, n / 20, n, b"").await;
            }
            if n % 500 == 0 {
                // One read of the game connection beyond it at the most, and the headers of its frames.
                let kept = core.metric("otproxy_relay_unacked_bytes", &[]).await as usize;
                assert!(kept <= UNACKED + 68 * 1024, "{kept}");
            }
        }
        let mut conn = server.await.unwrap();
        good.sync().await;
        let frame = frame::HEADER_LEN + body(1).len();
        let kept = (PACKETS - ACKED) as usize * frame;
        core.wait("otproxy_relay_unacked_bytes", &[], kept as f64).await;
        // What the kernels took for the stalled one while it slept cannot be taken back.
        let slept = core.metric("otproxy_relay_frames_total", &["edge=\"a\"", "direction=\"out\""]).await as usize;
        let mut seen = Vec::new();
        while seen.last() != Some(&PACKETS) {
            let Some(Seen::Data { packet, payload, .. }) = stalled.next().await else { panic!("after {seen:?}") };
            assert_eq!(payload, body(packet));
            seen.push(packet);
        }
        // Behind that it is sent the frames that nobody has acknowledged, all of them, and no other.
        assert_eq!(seen.len() - slept, (PACKETS - ACKED) as usize, "{seen:?}");
        assert!(seen[slept..].iter().copied().eq(ACKED + 1..=PACKETS), "{seen:?}");
        // No gap: where frames are left out, they end with one that was acknowledged.
        let gaps = [&[0][..], &seen].concat();
        let mut gaps = gaps.windows(2).filter(|pair| pair[1] != pair[0] + 1);
        assert!(gaps.all(|pair| pair[1] > pair[0] && (pair[1] - 1) % 20 == 0), "{seen:?}");
        conn.send(&packet(b"both")).await;
        for link in [&mut good, &mut stalled] {
            assert_eq!(link.next().await, data(PACKETS + 1, ACKED / 20, &packet(b"both")));
        }
        core.close().await;
    });
}

/// Returns a player of a network of its own.
fn elsewhere(network: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, network, 1], 40_000))
}

#[test]
fn a_crowd_in_one_network_gives_up_its_newest_session_for_each_other_network() {
    run(async {
        let game = Game::new().await;
        let setup = Setup { workers: 4, ..Setup::to(&game, "") };
        let core = setup.sessions("max: 4").start();
        let mut crowd = Vec::new();
        for n in 1..=4 {
            let mut link = core.link_of(EDGE_A, player(n), ClientId(n.into())).await;
            link.open(S, PORT).await;
            crowd.push((link, game.accept_otc().await.0));
        }
        let mut others = Vec::new();
        for n in 1..=2 {
            let mut link = core.link_of(EDGE_A, elsewhere(n), ClientId(100 + u32::from(n))).await;
            link.open(S, PORT).await;
            others.push((link, game.accept_otc().await.0));
            let (mut evicted, mut conn) = crowd.pop().unwrap();
            assert_eq!(evicted.next().await, Some(Seen::End(S)));
            conn.expect_end().await;
        }
        core.wait("otproxy_relay_sessions_ended_total", &["reason=\"evicted\""], 2.0).await;
        // No network has more than this one would.
        let mut late = core.link_of(EDGE_A, player(9), ClientId(9)).await;
        late.open(S, PORT).await;
        assert_eq!(late.next().await, Some(Seen::End(S)));
        core.refused("session_limit", 1.0).await;
        for (link, conn) in crowd.iter_mut().chain(&mut others) {
            conn.send(&packet(b"on")).await;
            assert_eq!(link.next().await, data(1, 0, &packet(b"on")));
        }
        core.close().await;
    });
}

#[test]
fn a_crowd_in_one_network_that_waits_for_connects_keeps_nobody_else_out() {
    run(async {
        let game = Game::new().await;
        let setup = Setup { workers: 4, ..Setup::to(&game, "connects_per_second: 4") };
        let core = setup.sessions("max_per_link: 1000, max_per_address: 1000, opens_per_address: none").start();
        let mut crowd = core.link().await;
        crowd.send(&(1..=300).flat_map(|id| frame::open(SessionId(id), PORT)).collect::<Vec<_>>()).await;
        let (_first, _) = game.accept_otc().await;
        // The crowd fills the queue, which has as many places as turns in 30 s, long before many had theirs.
        let Some(Seen::End(_)) = crowd.next().await else { panic!("all have a place") };
        let mut other = core.link_of(EDGE_A, elsewhere(1), ClientId(2)).await;
        other.open(S, PORT).await;
        let mut turns = 0;
        while game.accept_otc().await.1 != elsewhere(1).ip() {
            turns += 1;
        }
        // Behind one of the other network's, and what connected before it came.
        assert!(turns < 60, "{turns}");
        core.wait("otproxy_relay_sessions_ended_total", &["reason=\"connect_queue\""], 1.0).await;
        core.close().await;
    });
}

#[test]
fn beyond_the_memory_of_all_sessions_the_largest_of_the_largest_network_ends() {
    run(async {
        let game = Game::new().await;
        let setup = Setup { workers: 4, listener: "timeouts: { idle: 1h }", ..Setup::to(&game, "") };
        let core = setup.sessions("memory: 1MiB, unacked: 700KiB").start();
        let mut good = core.link_of(EDGE_A, elsewhere(1), ClientId(50)).await;
        good.open(S, PORT).await;
        let (mut good_conn, _) = game.accept_otc().await;
        let mut crowd = Vec::new();
        for n in 1..=2 {
            let mut link = Link::narrow(core.links, EDGE_A, player(n)).await;
            link.ping_first(ClientId(n.into())).await;
            link.open(S, PORT).await;
            let (mut conn, _) = game.accept_otc().await;
            // Nobody acknowledges it, and not two of these fit.
            let sending = tokio::spawn(async move {
                let _ = conn.stream.write_all(&packet(&[0; 998]).repeat(600)).await;
                conn
            });
            crowd.push((link, sending));
            if n == 1 {
                core.wait_until("otproxy_relay_memory_bytes", &[], |memory| memory > 600_000.0).await;
            }
        }
        // The first, which keeps more. Its link has no more to tell than that.
        while !matches!(crowd[0].0.next().await, Some(Seen::End(S))) {}
        core.ended("memory").await;
        assert!(core.metric("otproxy_relay_memory_bytes", &[]).await <= 1_048_576.0);
        assert_eq!(core.metric("otproxy_relay_memory_limit_bytes", &[]).await, 1_048_576.0);
        let kept = core.metric("otproxy_relay_unacked_bytes", &[]).await;
        assert!(kept < 1_048_576.0, "{kept}: what it had kept is forgotten");
        good_conn.send(&packet(b"undisturbed")).await;
        assert_eq!(good.next().await, data(1, 0, &packet(b"undisturbed")));
        core.close().await;
    });
}

#[test]
fn a_link_whose_requests_are_refused_again_and_again_is_closed() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").start();
        let (mut good, mut conn) = core.play(&game).await;
        let mut link = core.link().await;
        let junk = data_frame(SessionId(99), 9, 1, b"x");
        // As many as a client may have on their way when it does not know that its session is over.
        link.send(&junk.repeat(MAX_REFUSALS as usize)).await;
        link.send(&frame::ping(CLIENT, 20)).await;
        while link.next().await != Some(Seen::Pong) {}
        core.refused("unknown_session", f64::from(MAX_REFUSALS)).await;
        // And many more. It may be closed while they are written.
        let _ = link.stream.write_all(&junk.repeat(10_000)).await;
        while link.next_or_cut().await.is_some() {}
        core.wait("otproxy_connections_closed_total", &["reason=\"refused\""], 1.0).await;
        let refused = core.metric("otproxy_relay_refused_total", &[]).await;
        let most = MAX_REFUSALS + FRAMES_PER_TURN + 60;
        assert!(refused <= f64::from(most), "{refused}");
        conn.send(&packet(b"undisturbed")).await;
        assert_eq!(good.next().await, data(1, 0, &packet(b"undisturbed")));
        core.close().await;
    });
}

#[test]
fn links_of_one_client_are_limited_and_shared_by_network() {
    run(async {
        let game = Game::new().await;
        let setup = Setup { workers: 4, listener: "timeouts: { idle: 1h }", ..Setup::to(&game, "") };
        let core = setup.start();
        let mut links = Vec::new();
        for _ in 0..MAX_CLIENT_LINKS {
            links.push(core.link().await);
        }
        let mut one_more = core.silent_link(EDGE_A, player(1)).await;
        one_more.send(&frame::ping(CLIENT, 0)).await;
        assert_eq!(one_more.next().await, None);
        let rejected = ["listener=\"links\"", "reason=\"client_links\""];
        core.wait("otproxy_connections_rejected_total", &rejected, 1.0).await;
        // From elsewhere, as by another line of the same player, there is room.
        let mut other = core.link_of(EDGE_B, elsewhere(1), CLIENT).await;
        other.sync().await;
        assert_eq!(links.pop().unwrap().next().await, None);
        core.wait("otproxy_connections_closed_total", &["reason=\"evicted\""], 1.0).await;
        // Other clients of that address are not concerned.
        core.link_of(EDGE_A, player(1), ClientId(5)).await.sync().await;
        // An edge that claims an address of its own for each link keeps none of another edge out.
        let stolen = ClientId(6);
        let mut claimed = Vec::new();
        for n in 0..MAX_CLIENT_LINKS {
            claimed.push(core.link_of(EDGE_A, elsewhere(n as u8), stolen).await);
        }
        core.link_of(EDGE_B, player(1), stolen).await.sync().await;
        core.close().await;
    });
}

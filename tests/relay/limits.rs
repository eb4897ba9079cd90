//! Every limit of the relay, hit.

use otproxy::wire::frame::{self, ClientId, PacketId, SessionId};
use tokio::io::AsyncWriteExt;

use crate::harness::*;

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
        let core = Setup::to(&game, "").start();
        let mut link = core.link().await;
        for id in 1..=17 {
            link.open(SessionId(id), PORT).await;
        }
        assert_eq!(link.next().await, Some(Seen::End(SessionId(17))));
        core.refused("link_sessions", 1.0).await;
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
        let mut received = 0;
        while core.metric("otproxy_relay_unacked_bytes", &[]).await < 65536.0 {
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

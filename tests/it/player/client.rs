//! A player on real sockets against the fake core.

use std::future::Future;
use std::time::Duration;

use otproxy_protocol::frame::{ClientId, MAX_PAYLOAD, SessionId};
use otproxy_testkit::player::{ClientClocks, ClientEndReason, Player, PlayerOptions, SendError};

use crate::player::fake_core::{FakeCore, FakePath};

/// Only against a test that hangs.
const HANG: Duration = Duration::from_secs(60);

fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(HANG, test).await.expect("the test hangs") })
}

/// Checks are quick, and nothing is given up while a busy machine stands still.
fn clocks() -> ClientClocks {
    ClientClocks {
        link_check: Duration::from_millis(20),
        session_check: Duration::from_millis(5),
        first_pong: HANG,
        later_pong: HANG,
        session_silence: HANG,
    }
}

fn options<'a>(paths: impl IntoIterator<Item = &'a FakePath>) -> PlayerOptions {
    let paths = paths.into_iter().map(|path| path.addr);
    PlayerOptions { clocks: clocks(), ..PlayerOptions::new(ClientId(9), paths) }
}

fn packet(number: u32) -> Vec<u8> {
    let mut packet = vec![4, 0];
    packet.extend(number.to_le_bytes());
    packet
}

#[test]
fn packets_come_back_once_and_in_order_over_two_links() {
    run(async {
        let core = FakeCore::new(true);
        let paths = [core.path(), core.path(), core.path()];
        let player = Player::connect(options(&paths));
        player.wait_until(|stats| stats.ready() == 3).await.unwrap();
        let mut session = player.open(7172).await;
        session.wait_until(|stats| stats.links == 2).await.unwrap();
        for number in 0..200 {
            session.send(packet(number)).await.unwrap();
            assert_eq!(session.recv().await.unwrap(), packet(number));
        }
        let stats = session.wait_until(|stats| stats.received == 200).await.unwrap();
        assert_eq!((stats.sent, stats.gaps, stats.miscut, stats.bad_acks), (200, 0, 0, 0));
        let stats = player.stats();
        assert_eq!(stats.paths.iter().map(|path| path.first).sum::<u64>(), 200);
        assert_eq!(stats.sessions, 1);
        let id = session.id();
        session.leave();
        assert_eq!(session.recv().await, None);
        assert_eq!(session.stats().ended, Some(ClientEndReason::Left));
        assert_eq!(session.send(packet(0)).await, Err(SendError::Ended));
        core.wait_until(|core| core.sessions[&id].leaves >= 2).await;
        player.close().await.unwrap();
        core.wait_until(|core| core.connections() == 0).await;
    });
}

#[test]
fn a_session_survives_the_loss_of_every_path_in_turn() {
    run(async {
        let core = FakeCore::new(true);
        let mut paths = vec![core.path(), core.path(), core.path()];
        let player = Player::connect(options(&paths));
        let mut session = player.open(7172).await;
        let mut number = 0;
        for round in 0..6 {
            session.wait_until(|stats| stats.links == 2).await.unwrap();
            let cut = paths.remove(0).cut().await;
            for _ in 0..20 {
                session.send(packet(number)).await.unwrap();
                assert_eq!(session.recv().await.unwrap(), packet(number), "round {round}");
                number += 1;
            }
            paths.push(cut.restore());
        }
        let stats = session.stats();
        assert_eq!((stats.received, stats.gaps), (120, 0));
        let paths = player.stats().paths;
        assert!(paths.iter().all(|path| path.losses >= 1));
        player.close().await.unwrap();
    });
}

#[test]
fn with_no_path_at_all_packets_wait() {
    run(async {
        let core = FakeCore::new(true);
        let path = core.path();
        let player = Player::connect(options([&path]));
        let mut session = player.open(7172).await;
        session.wait_until(|stats| stats.links == 1).await.unwrap();
        let cut = path.cut().await;
        session.wait_until(|stats| stats.links == 0).await.unwrap();
        for number in 0..50 {
            session.send(packet(number)).await.unwrap();
        }
        let _path = cut.restore();
        for number in 0..50 {
            assert_eq!(session.recv().await.unwrap(), packet(number));
        }
        assert_eq!(core.lock().pings.iter().filter(|(_, report)| *report == 5000).count(), 1);
    });
}

#[test]
fn sessions_of_one_player_do_not_mix() {
    run(async {
        let core = FakeCore::new(true);
        let paths = [core.path(), core.path()];
        let player = Player::connect(options(&paths));
        let mut sessions = Vec::new();
        for port in 7171..7176 {
            sessions.push(player.open(port).await);
        }
        for round in 0..20 {
            for (index, session) in sessions.iter().enumerate() {
                session.send(packet(round * 100 + index as u32)).await.unwrap();
            }
        }
        for round in 0..20 {
            for (index, session) in sessions.iter_mut().enumerate() {
                assert_eq!(session.recv().await.unwrap(), packet(round * 100 + index as u32));
            }
        }
        let ports: Vec<_> = sessions.iter().map(|session| core.lock().sessions[&session.id()].ports[0]).collect();
        assert_eq!(ports, [7171, 7172, 7173, 7174, 7175]);
        player.close().await.unwrap();
        for session in &mut sessions {
            assert_eq!(session.recv().await, None);
            assert_eq!(session.stats().ended, Some(ClientEndReason::Closed));
        }
    });
}

#[test]
fn a_core_that_ends_the_session_is_heard_after_its_last_packets() {
    run(async {
        let core = FakeCore::new(false);
        let paths = [core.path(), core.path()];
        let player = Player::connect(options(&paths));
        let mut session = player.open_as(SessionId(4), 7172).await;
        session.wait_until(|stats| stats.links == 2).await.unwrap();
        // The second joined on the client's side; the core must know both, to end it on both.
        core.wait_until(|core| core.sessions.get(&SessionId(4)).is_some_and(|session| session.ports.len() == 2)).await;
        core.with(|core| {
            (0..1000).for_each(|number| core.push(SessionId(4), &packet(number)));
            core.end(SessionId(4));
        });
        for number in 0..1000 {
            assert_eq!(session.recv().await.unwrap(), packet(number));
        }
        assert_eq!(session.recv().await, None);
        let stats = session.stats();
        assert_eq!((stats.ended, stats.received, stats.gaps), (Some(ClientEndReason::Core), 1000, 0));
    });
}

#[test]
fn packets_that_nobody_takes_hold_the_player_up_and_none_is_lost() {
    run(async {
        let core = FakeCore::new(false);
        let path = core.path();
        let player = Player::connect(options([&path]));
        let mut session = player.open_as(SessionId(4), 7172).await;
        session.wait_until(|stats| stats.links == 1).await.unwrap();
        core.wait_until(|core| core.sessions.contains_key(&SessionId(4))).await;
        const PACKETS: u32 = 20_000;
        core.with(|core| (0..PACKETS).for_each(|number| core.push(SessionId(4), &packet(number))));
        session.wait_until(|stats| stats.received >= 256).await.unwrap();
        for number in 0..PACKETS {
            assert_eq!(session.recv().await.unwrap(), packet(number));
        }
    });
}

#[test]
fn what_does_not_fit_in_a_frame_is_refused() {
    run(async {
        let player = Player::connect(options([]));
        let session = player.open(7172).await;
        let packet = vec![0; MAX_PAYLOAD + 1];
        assert_eq!(session.send(packet).await, Err(SendError::TooLong(MAX_PAYLOAD + 1)));
        player.close().await.unwrap();
    });
}

#[test]
fn a_dropped_session_is_left_and_a_dropped_player_is_gone() {
    run(async {
        let core = FakeCore::new(true);
        let paths = [core.path(), core.path()];
        let player = Player::connect(options(&paths));
        let session = player.open_as(SessionId(4), 7172).await;
        session.wait_until(|stats| stats.links == 2).await.unwrap();
        session.send(packet(0)).await.unwrap();
        drop(session);
        core.wait_until(|core| core.sessions.get(&SessionId(4)).is_some_and(|session| session.leaves == 2)).await;
        assert_eq!(core.lock().sessions[&SessionId(4)].received, [packet(0)], "what was sent before went out");
        drop(player);
        core.wait_until(|core| core.connections() == 0).await;
    });
}

#[test]
fn an_id_in_use_opens_nothing_and_harms_nothing() {
    run(async {
        let core = FakeCore::new(true);
        let path = core.path();
        let player = Player::connect(options([&path]));
        let mut first = player.open_as(SessionId(4), 7172).await;
        let mut second = player.open_as(SessionId(4), 7172).await;
        assert_eq!(second.recv().await, None);
        first.send(packet(1)).await.unwrap();
        assert_eq!(first.recv().await.unwrap(), packet(1));
    });
}

#[test]
fn many_players_share_the_paths() {
    run(async {
        let core = FakeCore::new(true);
        let paths = [core.path(), core.path()];
        let mut players = tokio::task::JoinSet::new();
        for index in 0..20 {
            let player = Player::connect(PlayerOptions { client_id: ClientId(index), ..options(&paths) });
            players.spawn(async move {
                let mut session = player.open_as(SessionId(100 + index), 7172).await;
                for number in 0..20 {
                    session.send(packet(number)).await.unwrap();
                    assert_eq!(session.recv().await.unwrap(), packet(number));
                }
                player.close().await.unwrap();
            });
        }
        players.join_all().await;
    });
}

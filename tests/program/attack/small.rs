//! Small attacks: hundreds of connections, and states that must come.

use otproxy_testkit::bench::LoadReport;

use crate::attack::arena::{ACTIVE, Arena, CLOSED};
use crate::attack::crowd::{Crowd, Kind};
use crate::attack::players::{Players, newcomer};
use crate::common::metrics::Metered;
use crate::common::role_process::may_open;
use crate::common::run;

const PLAYERS: usize = 10;
const ATTACKERS: usize = 300;
/// This process has one end of each connection, and what players and servers have.
const FILES: u64 = 1000;

/// Unauthenticated peers of each kind, which `expect` refuses at the edge.
const EXPECT_LINKS: &str = ", expect: links, timeouts: { first_bytes: 500ms }";
const EXPECT_LOGIN: &str = ", expect: login, timeouts: { first_bytes: 500ms }, status: { address: play.example }";

fn crowd(arena: &Arena, kind: Kind) -> Crowd {
    Crowd {
        kind,
        links: arena.edge.addr("links"),
        login: arena.edge.addr("login"),
        network: 16,
        addresses: 50,
        connections: ATTACKERS,
        connects_per_second: 1000,
    }
}

/// Players who were in the game noticed nothing: all packets came once and in order, and each has the link that it
/// began with.
fn noticed_nothing(figures: &LoadReport) {
    assert!(figures.passed(), "{figures:?}");
    assert_eq!((figures.players, figures.paths[0].links_lost), (PLAYERS as u64, 0), "{figures:?}");
}

/// Attacks until `until` is over.
async fn under_attack<T>(crowds: impl IntoIterator<Item = Crowd>, until: impl Future<Output = T>) -> T {
    let mut attacks = tokio::task::JoinSet::new();
    for crowd in crowds {
        attacks.spawn(crowd.attack());
    }
    let result = until.await;
    attacks.shutdown().await;
    result
}

#[test]
fn what_begins_otherwise_than_a_game_does_gets_no_further_than_the_edge() {
    if !may_open(FILES) {
        return;
    }
    run(async {
        for (kind, reason) in [(Kind::Silent, "silent"), (Kind::Garbage, "unexpected")] {
            let arena = Arena::new(EXPECT_LINKS, EXPECT_LOGIN, "").await;
            let refused = arena.wait_for_rejected(reason, 2 * ATTACKERS);
            let meanwhile = under_attack([crowd(&arena, kind)], refused);
            let (figures, ()) = Players::new(PLAYERS).play(&arena, meanwhile).await;
            noticed_nothing(&figures);
            // The first of them looks whether anybody is there at all, and says nothing.
            assert!(arena.reached_the_core().await <= PLAYERS as f64 + 1.0, "{kind:?}");
            arena.edge.wait(ACTIVE, &[], 0.0).await;
            arena.stop().await;
        }
    });
}

/// Links that ping as those of players do: nothing but their number tells them apart.
#[test]
fn a_crowd_gives_way_to_who_comes_and_players_keep_their_places() {
    const PLACES: usize = 60;
    /// Beside those who play.
    const NEWCOMERS: u16 = 10;
    if !may_open(FILES) {
        return;
    }
    run(async {
        let limits = format!("limits: {{ connections: {PLACES} }}");
        for (addresses, of_links, of_both) in [(1, format!(", {limits}"), ""), (10, String::new(), &*limits)] {
            let arena = Arena::new(&(", expect: links".to_owned() + &of_links), "", of_both).await;
            let (links, crowd) = (arena.edge.addr("links"), Crowd { addresses, ..crowd(&arena, Kind::Links) });
            let coming = async {
                // All places are taken, by the crowd but for the players'.
                arena.edge.wait_until("otproxy_pressure_ratio", &[], |share| share >= 1.0).await;
                for number in 0..NEWCOMERS {
                    assert!(newcomer(links, number).await.is_some(), "{number} of {addresses}");
                }
                // Carried or not yet: most often the core has answered by then.
                arena.edge.wait_until(CLOSED, &["reason=\"evicted\""], |evicted| evicted > 0.0).await;
            };
            let (figures, ()) = Players::new(PLAYERS).play(&arena, under_attack([crowd], coming)).await;
            noticed_nothing(&figures);
            arena.stop().await;
        }
    });
}

/// The last ones to come are refused, whoever they are.
#[test]
fn without_fair_share_who_comes_later_is_kept_out() {
    if !may_open(FILES) {
        return;
    }
    run(async {
        let arena = Arena::new(", expect: links, limits: { connections: 60, fair_share: false }", "", "").await;
        let links = arena.edge.addr("links");
        let crowd = Crowd { addresses: 1, connections: 50, ..crowd(&arena, Kind::Links) };
        let coming = async {
            arena.edge.wait(ACTIVE, &[], 60.0).await;
            tokio::select! {
                entered = newcomer(links, 0) => panic!("{entered:?}"),
                () = arena.wait_for_rejected("limit", 1) => {}
            }
        };
        let (figures, ()) = Players::new(PLAYERS).play(&arena, under_attack([crowd], coming)).await;
        noticed_nothing(&figures);
        arena.stop().await;
    });
}

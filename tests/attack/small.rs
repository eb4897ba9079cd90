//! Small attacks: hundreds of connections, and states that must come.

use otproxy::bench::Figures;

use crate::arena::{ACTIVE, Arena};
use crate::common::run;
use crate::crowd::{Crowd, Kind};
use crate::players::Players;
use crate::process::may_open;

const PLAYERS: usize = 10;
const ATTACKERS: usize = 300;
/// This process has one end of each connection, and what players and servers have.
const FILES: u64 = 1000;

/// Strangers of each kind, whom `expect` turns away at the edge.
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

/// Players who were in the game noticed nothing: all packets came once and in order, and each has the link that it began with.
fn noticed_nothing(figures: &Figures) {
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

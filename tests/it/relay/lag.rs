//! Whose lag it was, as a core tells it that carries real players.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::admin::see;
use crate::common::crew::{Crew, pushing};
use crate::common::eventually;
use crate::relay::harness::*;

/// The time for which the world stands still.
const STALL: Duration = Duration::from_millis(1500);
/// The time for which people play before it does, so that the core knows what is usual.
const PLAYED: Duration = Duration::from_millis(2500);

/// Returns the first event of a kind.
async fn event(core: &Core, kind: &str) -> Option<Value> {
    let events = see(core, "events").await;
    events["events"].as_array().unwrap().iter().find(|event| event["kind"] == kind).cloned()
}

#[test]
fn a_world_that_stands_still_while_people_play_is_told_of() {
    run(async {
        let game = pushing().await;
        let setup = Setup { servers: Vec::new(), sessions: "", listener: "", workers: 2, within: "0s" };
        let core = setup.and(PORT, game.addr(), "").start();
        let edges = [0; 2].map(|_| Edge::start("127.0.0.1:0".parse().unwrap(), core.links));
        let mut crew = Crew::start(3, &edges.each_ref().map(|edge| edge.addr)).await;
        // If this host is held up meanwhile, it is the host's: then once more.
        let told = loop {
            let began = Instant::now();
            while began.elapsed() < PLAYED {
                crew.play().await;
            }
            game.stand_still(true);
            for _ in 0..10 {
                crew.act().await;
                tokio::time::sleep(STALL / 10).await;
            }
            game.stand_still(false);
            let settled = Instant::now();
            while settled.elapsed() < STALL / 2 {
                crew.play().await;
            }
            if let Some(told) = event(&core, "game_stall").await {
                break told;
            }
        };
        assert_eq!((&told["port"], &told["ongoing"], &told["warning"]), (&PORT.into(), &false.into(), &true.into()));
        let text = told["text"].as_str().unwrap();
        assert!(text.starts_with("world 7172 stood still for "), "{text}");
        let seconds = told["seconds"].as_f64().unwrap();
        assert!(seconds >= 0.2, "{seconds}");
        core.wait_until("otproxy_game_stall_seconds_count", &["port=\"7172\""], |count| count >= 1.0).await;
        // The next row of the history has it.
        eventually("a figure", async || {
            let history = see(&core, "history?figures=stall_seconds,game_stall_seconds,sessions").await;
            let column = history["worlds"]["7172"]["stall_seconds"].as_array()?;
            let seen: f64 = column.iter().filter_map(Value::as_f64).sum();
            let all: f64 = history["figures"]["game_stall_seconds"].as_array()?.iter().filter_map(Value::as_f64).sum();
            assert!(history["figures"].get("links").is_none());
            assert!(history["worlds"]["7172"].get("packets_in").is_none());
            (seen >= 0.2 && all >= 0.2).then_some(())
        })
        .await;
        crew.lost_nothing().await;
        crew.leave().await;
        core.close().await;
    });
}

#[test]
fn edges_and_worlds_over_which_nobody_plays_have_figures_as_well() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").start();
        eventually("a row", async || {
            let history = see(&core, "history?figures=links,sessions").await;
            let last = |of: &str, name: &str, figure: &str| history[of][name][figure].as_array()?.last().cloned();
            let of_edges = ["a", "b"].map(|edge| last("edges", edge, "links"));
            (of_edges == [Some(0.into()), Some(0.into())] && last("worlds", "7172", "sessions")? == 0).then_some(())
        })
        .await;
        core.close().await;
    });
}

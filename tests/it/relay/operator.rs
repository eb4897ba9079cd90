//! Sessions, as an operator of the core sees them and ends them.

use otproxy_protocol::frame::{ClientId, SessionId};
use serde_json::{Value, json};

use crate::common::admin::{act, ask, see};
use crate::common::crew::{Crew, pushing};
use crate::common::eventually;
use crate::relay::harness::*;

const OTHER: SessionId = SessionId(8);

/// The sessions of the answer, in order of their numbers.
fn numbers(answer: &Value) -> Vec<u64> {
    let mut numbers: Vec<_> =
        answer["sessions"].as_array().unwrap().iter().map(|session| session["session"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn a_session_is_seen_with_its_links_and_what_it_holds() {
    run(async {
        let game = Game::new().await;
        let core = Setup { workers: 3, ..Setup::to(&game, "") }.start();
        let (mut link, mut conn) = core.play(&game).await;
        let mut second = core.link_of(EDGE_B, player(1), CLIENT).await;
        second.open(S, PORT).await;
        second.sync().await;
        // A round trip counts once the link is as old as that.
        eventually("what pings told", async || {
            link.sync().await;
            second.sync().await;
            let one = see(&core, &format!("sessions?client={}", CLIENT.0)).await;
            let links = one["sessions"][0]["links"].as_array()?;
            links.iter().all(|link| link["round_trip_seconds"] == 0.02).then_some(())
        })
        .await;
        conn.send(&packet(b"seven..")).await;
        assert_eq!(link.next().await, data(1, 0, &packet(b"seven..")));
        // One in its turn, and one ahead of it.
        link.data(S, 1, 0, b"abc").await;
        link.data(S, 3, 0, b"later").await;
        link.sync().await;
        conn.expect(b"abc").await;
        let mut elsewhere = core.link_of(EDGE_A, player(2), ClientId(99)).await;
        elsewhere.open(OTHER, PORT).await;
        let (_other, _) = game.accept_otc().await;
        elsewhere.sync().await;

        let all = see(&core, "sessions").await;
        assert_eq!((&all["total"], numbers(&all)), (&json!(2), vec![S.0.into(), OTHER.0.into()]));
        let status = see(&core, "status").await;
        assert_eq!((&status["role"], &status["sessions"]["open"]), (&json!("core"), &json!(2)));
        let one = see(&core, &format!("sessions?client={}", CLIENT.0)).await;
        assert_eq!(numbers(&one), [u64::from(S.0)]);
        let session = &one["sessions"][0];
        assert_eq!((&session["state"], &session["port"]), (&json!("carried"), &json!(PORT)));
        assert_eq!(session["player"], json!(player(1)));
        assert_eq!((&session["packets_in"], &session["bytes_in"]), (&json!(1), &json!(3)));
        assert_eq!((&session["packets_out"], &session["bytes_out"]), (&json!(1), &json!(9)));
        assert!(session["unacked_bytes"].as_u64().unwrap() > 9 && session["reorder_bytes"].as_u64().unwrap() >= 5);
        let links = session["links"].as_array().unwrap();
        let edges: Vec<_> = links.iter().map(|link| link["edge"].clone()).collect();
        assert_eq!(edges, ["a", "b"]);
        assert!(links.iter().all(|link| link["round_trip_seconds"] == 0.02), "what its pings told: {links:?}");
        let connection = links[1]["connection"].as_u64().unwrap();
        let of_b = see(&core, "connections?limit=10000").await;
        let of_b = of_b["connections"].as_array().unwrap().iter().find(|c| c["id"] == connection).unwrap().clone();
        assert_eq!((&of_b["state"], &of_b["edge"], &of_b["client"]), (&json!("link"), &json!("b"), &json!(CLIENT.0)));
        assert_eq!(numbers(&see(&core, "sessions?address=203.0.113.0/24").await), [0; 0]);

        // Its connection is closed, and the session goes on over the other one.
        act(&core, "disconnect", json!({ "connection": connection })).await;
        assert_eq!(second.next_or_cut().await, data(1, 0, &packet(b"seven..")));
        assert_eq!(second.next_or_cut().await, None);
        link.data(S, 2, 1, b"def").await;
        conn.expect(b"deflater").await;
        core.close().await;
    });
}

#[test]
fn a_session_that_is_disconnected_ends_for_client_and_game_server_and_its_link_stays() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").start();
        let (mut link, mut conn) = core.play(&game).await;
        let (status, answer) =
            ask(&core, "disconnect", Some(&json!({ "client": CLIENT.0, "session": OTHER.0 }).to_string())).await;
        assert_eq!(status, 404, "{answer}");
        let gone = act(&core, "disconnect", json!({ "client": CLIENT.0, "session": S.0 })).await;
        assert_eq!(gone, json!({ "connections": 0, "sessions": 1 }));
        assert_eq!(link.next().await, Some(Seen::End(S)));
        conn.expect_end().await;
        core.ended("disconnected").await;
        // A join that was on its way meets the end, and opens no second game connection.
        let mut late = core.link_of(EDGE_B, player(1), CLIENT).await;
        late.open(S, PORT).await;
        assert_eq!(late.next().await, Some(Seen::End(S)));
        link.sync().await;
        link.open(OTHER, PORT).await;
        game.accept_otc().await;
        core.close().await;
    });
}

#[test]
fn a_client_and_an_address_are_disconnected_with_all_that_they_have() {
    run(async {
        let game = Game::new().await;
        for what in [json!({ "client": CLIENT.0 }), json!({ "address": player(1).ip() })] {
            let core = Setup { workers: 3, ..Setup::to(&game, "") }.start();
            let (mut link, mut conn) = core.play(&game).await;
            let mut second = core.link_of(EDGE_B, player(1), CLIENT).await;
            second.sync().await;
            let mut other = core.link_of(EDGE_A, player(2), ClientId(99)).await;
            other.open(S, PORT).await;
            let (mut others, _) = game.accept_otc().await;
            let gone = act(&core, "disconnect", what).await;
            assert_eq!(gone, json!({ "connections": 2, "sessions": 1 }));
            assert_eq!(
                (link.next_or_cut().await, link.next_or_cut().await),
                (Some(Seen::End(S)), None),
                "told, then closed"
            );
            // Which of the two is closed first is chance: the other one is then told the end in its place.
            let told = second.next_or_cut().await;
            assert!(told.is_none() || told == Some(Seen::End(S)) && second.next_or_cut().await.is_none(), "{told:?}");
            conn.expect_end().await;
            core.wait("otproxy_connections_closed_total", &["reason=\"disconnected\""], 2.0).await;
            other.data(S, 1, 0, b"untouched").await;
            others.expect(b"untouched").await;
            core.close().await;
        }
    });
}

#[test]
fn who_plays_loses_nothing_while_one_edge_after_the_other_is_drained() {
    run(async {
        let game = pushing().await;
        let setup = Setup { servers: Vec::new(), sessions: "", listener: "", workers: 2, within: "0s" }.and(
            PORT,
            game.addr(),
            "",
        );
        let core = setup.start();
        // Fixed ports, so that a drained edge is found again where it was.
        let free = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
        let edges = free.map(|address| Edge::start(address, core.links));
        let mut crew = Crew::start(4, &free).await;
        for turn in 0..4 {
            let edge = &edges[turn % 2];
            act(&edge, "drain", json!({ "deadline_seconds": 1 })).await;
            while see(&edge, "status").await["connections"]["open"] != 0 {
                crew.play().await;
            }
            act(&edge, "undrain", json!({})).await;
            crew.rejoin().await;
        }
        assert!(crew.lost_nothing().await.iter().all(|losses| *losses >= 4), "each drain took a link of each");
        assert_eq!(core.metric("otproxy_relay_sessions_ended_total", &[]).await, 0.0);
        assert_eq!(game.connections().len(), 4, "one game connection each, all the time");
        crew.leave().await;
        for edge in edges {
            edge.kill().await;
        }
        core.close().await;
    });
}

#[test]
fn an_edge_without_a_tunnel_is_seen_with_its_address_and_its_connections() {
    run(async {
        let game = Game::new().await;
        let core = Setup { workers: 2, ..Setup::to(&game, "") }.start();
        let mut links = vec![core.link().await, core.link().await];
        links.push(core.link_of(EDGE_B, player(1), ClientId(9)).await);
        let seen = see(&core, "edges").await;
        let show = |edge: &Value| (edge["addresses"].clone(), edge["in_use"].clone(), edge["trunks"].clone());
        let all: Vec<_> = seen["edges"].as_array().unwrap().iter().map(show).collect();
        assert_eq!(all, [(json!([EDGE_A]), json!(2), Value::Null), (json!([EDGE_B]), json!(1), Value::Null)]);
        core.close().await;
    });
}

#[test]
fn an_edge_known_by_its_address_is_thrown_out_too() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").start();
        let (mut link, _conn) = core.play(&game).await;
        let revoked = act(&core, "revoke", json!({ "edge": "a" })).await;
        assert_eq!((&revoked["revoked_by"], &revoked["connections"]), (&json!("operator"), &json!(1)));
        assert_eq!(link.next().await, None);
        core.wait("otproxy_connections_closed_total", &["reason=\"revoked\""], 1.0).await;
        let refused = Link::silent(core.links, EDGE_A, player(4)).await;
        core.wait("otproxy_connections_rejected_total", &["reason=\"untrusted\""], 1.0).await;
        drop(refused);
        act(&core, "revoke", json!({ "edge": "a", "undo": true })).await;
        let again = core.link_of(EDGE_A, player(1), CLIENT).await;
        drop((again, link));
        core.close().await;
    });
}

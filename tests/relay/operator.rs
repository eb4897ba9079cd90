//! Links and sessions as an operator sees them, and what the operator does to them.

use otproxy::admin::Client;
use otproxy::wire::frame::SessionId;
use serde_json::{Value, json};

use crate::harness::*;

const OTHER: SessionId = SessionId(8);

/// The operator of a core.
struct Operator(Client);

impl Operator {
    fn of(core: &Core) -> Self {
        Self(Client::tcp(core.admin()))
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.0.get(&format!("/api/v1/{path}")).await.unwrap();
        assert_eq!(answer.status, 200, "{path}");
        serde_json::from_slice(&answer.body).unwrap()
    }

    async fn disconnect(&self, what: Value) -> (u16, Value) {
        let answer = self.0.post("/api/v1/disconnect", what.to_string()).await.unwrap();
        (answer.status, serde_json::from_slice(&answer.body).unwrap())
    }

    /// The sessions that are asked for, once they are as `wanted`.
    async fn sessions(&self, query: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let sessions = self.get(&format!("sessions?{query}")).await;
            if wanted(&sessions) {
                return sessions;
            }
            tokio::task::yield_now().await;
        }
    }
}

#[test]
fn a_session_is_seen_with_its_links() {
    run(async {
        let game = Game::new().await;
        let mut setup = Setup::to(&game, "");
        setup.workers = 3;
        let core = setup.start();
        let operator = Operator::of(&core);
        assert_eq!(operator.get("sessions").await, json!({ "total": 0, "sessions": [] }));
        let (mut link, mut conn) = core.play(&game).await;
        let mut other = core.link_of(EDGE_B, player(1), CLIENT).await;
        other.open(S, PORT).await;
        conn.send(&packet(b"twelve bytes")).await;
        assert_eq!(link.next().await, data(1, 0, &packet(b"twelve bytes")));
        assert_eq!(other.next().await, data(1, 0, &packet(b"twelve bytes")));

        let sessions =
            operator.sessions("client=1000&address=198.51.100.0/24", |sessions| sessions["total"] == 1).await;
        let session = &sessions["sessions"][0];
        assert_eq!(
            (&session["client"], &session["session"], &session["port"]),
            (&json!(1000), &json!(7), &json!(PORT))
        );
        assert_eq!((&session["state"], &session["player"]), (&json!("carried"), &json!(player(1).to_string())));
        assert_eq!(session["game_server"], game.addr.to_string());
        assert_eq!(
            (&session["packets_out"], &session["bytes_out"]),
            (&json!(1), &json!(packet(b"twelve bytes").len()))
        );
        assert!(session["unacked_bytes"].as_u64().unwrap() >= 12, "{session}");
        let mut edges: Vec<_> = session["links"].as_array().unwrap().iter().map(|link| &link["edge"]).collect();
        edges.sort_unstable_by_key(|edge| edge.as_str());
        assert_eq!(edges, ["a", "b"]);
        // An acknowledgement frees what was kept.
        link.data(S, 1, 1, &packet(b"up")).await;
        operator.sessions("", |sessions| sessions["sessions"][0]["unacked_bytes"] == 0).await;
        assert_eq!(operator.get("sessions?client=1001").await["total"], 0);
        assert_eq!(operator.get("sessions?address=203.0.113.0/24").await["total"], 0);

        let connections = operator.get("connections?listener=links").await;
        assert_eq!(connections["total"], 2);
        assert_eq!(
            (&connections["connections"][0]["client"], &connections["connections"][0]["edge"]),
            (&json!(1000), &json!("b"))
        );
        assert_eq!(operator.get("status").await["sessions"]["open"], 1);
        core.close().await;
    });
}

#[test]
fn one_session_is_ended_and_its_link_goes_on() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").start();
        let operator = Operator::of(&core);
        let (mut link, mut conn) = core.play(&game).await;
        link.open(OTHER, PORT).await;
        let (mut kept, _) = game.accept_otc().await;
        let one = json!({ "client": 1000, "session": 7 });
        assert_eq!(operator.disconnect(one.clone()).await, (200, json!({ "connections": 0, "sessions": 1 })));
        conn.expect_end().await;
        assert_eq!(link.next().await, Some(Seen::End(S)));
        core.ended("disconnected").await;
        link.data(OTHER, 1, 0, &packet(b"on")).await;
        kept.expect(&packet(b"on")).await;
        assert_eq!(operator.disconnect(json!({ "client": 1, "session": 7 })).await.0, 404);
        core.close().await;
    });
}

#[test]
fn a_session_outlives_a_link_that_is_closed_and_not_its_client() {
    run(async {
        let game = Game::new().await;
        let core = Setup::to(&game, "").start();
        let operator = Operator::of(&core);
        let (mut link, mut conn) = core.play(&game).await;
        let mut other = core.link_of(EDGE_B, player(1), CLIENT).await;
        other.open(S, PORT).await;
        other.sync().await;
        let id = operator.get("connections").await["connections"][1]["id"].clone();
        assert_eq!(
            operator.disconnect(json!({ "connection": id })).await,
            (200, json!({ "connections": 1, "sessions": 0 }))
        );
        assert_eq!(link.next_or_cut().await, None);
        other.data(S, 1, 0, &packet(b"on")).await;
        conn.expect(&packet(b"on")).await;

        assert_eq!(
            operator.disconnect(json!({ "client": 1000 })).await,
            (200, json!({ "connections": 1, "sessions": 1 }))
        );
        conn.expect_end().await;
        while other.next_or_cut().await.is_some() {}
        operator.sessions("", |sessions| sessions["total"] == 0).await;
        core.close().await;
    });
}

//! The edges, as the core's operator sees them, and the addresses that they may come from.

use otproxy::certs::show;
use serde_json::{Value, json};

use crate::common::admin::{act, ask, see};
use crate::common::metrics::scrape;
use crate::common::sandbox::{echo_target, echoes, read_to_close};
use crate::common::tunnel::*;
use crate::common::{eventually, run};
use crate::tunnel::players::playing;

const LISTENERS: &str = "[{ name: login, listen: \"127.0.0.1:0\", forward_to: core/login }]";

/// Returns what the core says of an edge, once that is so.
async fn edge_that(core: &Role, name: &str, is: impl Fn(&Value) -> bool) -> Value {
    eventually(name, async || {
        let edges = see(&core, "edges").await;
        let edge = edges["edges"].as_array()?.iter().find(|edge| edge["name"] == name)?.clone();
        is(&edge).then_some(edge)
    })
    .await
}

/// Returns the number of an edge's trunks.
fn trunks(edge: &Value) -> usize {
    edge["trunks"].as_array().unwrap().len()
}

#[test]
fn an_edge_comes_from_its_address_alone_and_is_seen_with_all_that_is_known_of_it() {
    run(async {
        let certificates = Certificates::new();
        let to = echo_target().await;
        let forward = format!("[{{ name: login, forward_to: \"{to}\", send_proxy: none }}]");
        let edges = "[{ name: waw1, address: [127.0.0.0/29] }, { name: fra1, address: 192.0.2.1 }]";
        let core = Role::start(&core(&certificates, edges, &forward, ""));
        let waw1 = Role::start(&edge(&certificates, "waw1", core.addr("tunnel"), LISTENERS));
        let fra1 = Role::start(&edge(&certificates, "fra1", core.addr("tunnel"), LISTENERS));
        core.handshakes("wrong_address", 1).await;
        let refused = edge_that(&core, "fra1", |edge| edge["last_error"] != Value::Null).await;
        assert_eq!(refused["last_error"]["reason"], "wrong_address");
        assert_eq!(refused["last_error"]["address"], "127.0.0.1");
        assert_eq!((&refused["since"], trunks(&refused)), (&Value::Null, 0));
        let seen = edge_that(&core, "waw1", |edge| trunks(edge) == 4).await;
        for (role, open) in [(&core, 4), (&waw1, 4), (&fra1, 0)] {
            assert_eq!(see(&role, "status").await["trunks"], open);
        }
        assert_eq!(seen["addresses"], serde_json::json!(["127.0.0.1"]));
        assert!(seen["since"].is_string() && seen["last_error"].is_null(), "{seen}");
        let issued = &show::read(&[certificates.folder.join("waw1.pem")]).shown[0].certificate;
        assert_eq!(seen["certificate"]["serial"], otproxy::certs::certificate::hex(&issued.serial));
        let mut player = tokio::net::TcpStream::connect(waw1.addr("login")).await.unwrap();
        echoes(&mut player, b"hello").await;
        edge_that(&core, "waw1", |edge| edge["in_use"] == 1 && trunks(edge) == 4).await;
        // A file that names another address closes what comes from the old one, as a stolen key's would.
        core.replace("127.0.0.0/29", "192.0.2.2").await;
        assert_eq!(read_to_close(&mut player).await, b"");
        let gone = edge_that(&core, "waw1", |edge| edge["since"].is_null() && !edge["last_error"].is_null()).await;
        assert_eq!((&gone["in_use"], trunks(&gone)), (&Value::from(0), 0));
        assert_eq!(gone["addresses"], serde_json::json!(["127.0.0.1"]), "the last one");
        core.replace("role: core", "role: core").await;
        edge_that(&core, "waw1", |edge| trunks(edge) == 4).await;
        assert_eq!(ask(&waw1, "edges", None).await.0, 404);
        drop(fra1);
    });
}

#[test]
fn the_series_of_an_edge_go_with_it_and_come_back_with_it() {
    run(async {
        let certificates = Certificates::new();
        let (setup, mut game) = playing(&certificates).await;
        let core = &setup.core;
        let series = async || {
            let all = scrape(core.admin()).await;
            all.lines().filter(|line| line.contains("edge=\"waw1\"")).map(str::to_owned).collect::<Vec<_>>()
        };
        assert!(!series().await.is_empty());
        core.replace("{ name: waw1 }, ", "").await;
        eventually("no series", async || series().await.is_empty().then_some(())).await;
        game.on(100, 1).await;
        core.replace("role: core", "role: core").await;
        game.on(100, 2).await;
        game.meanwhile(core.wait_until("otproxy_relay_links_active", &["edge=\"waw1\""], |now| now == 1.0)).await;
        core.wait_until("otproxy_tunnel_trunks", &["edge=\"waw1\""], |now| now > 0.0).await;
        game.end().await;
    });
}

#[test]
fn an_operator_throws_an_edge_out_over_reloads_and_lets_it_in_again() {
    run(async {
        let certificates = Certificates::new();
        let (setup, mut game) = playing(&certificates).await;
        let core = &setup.core;
        let file = certificates.folder.join("core.yaml");
        std::fs::write(&file, "\u{7}[{garbage").unwrap();
        core.control().set_file(file, |_| {});
        // One that connects to the core, and one that the core connects to.
        for name in ["waw1", "fra1"] {
            game.on(100, 2).await;
            // The file is broken just then.
            assert!(core.control().reload().await.is_err());
            let revoked = act(core, "revoke", json!({ "edge": name })).await;
            assert_eq!(
                revoked,
                json!({ "edge": name, "revoked_by": "operator", "connections": 1, "trusted_on": [] }),
                "its link"
            );
            let out = async || edge_that(core, name, |edge| trunks(edge) == 0 && edge["in_use"] == 0).await;
            assert_eq!(out().await["revoked_by"], "operator");
            if name == "waw1" {
                core.handshakes("revoked", 1).await;
            }
            game.on(100, 1).await;
            // A file that says nothing of it, or has it no more for a while, lets nobody in.
            core.replace("role: core", "role: core").await;
            core.replace(&format!("{{ name: {name}"), "{ name: ams1").await;
            core.replace("role: core", "role: core").await;
            let seen = out().await;
            assert_eq!((&seen["revoked"], &seen["revoked_by"]), (&json!(true), &json!("operator")));
            game.on(100, 1).await;
            let undone = act(core, "revoke", json!({ "edge": name, "undo": true })).await;
            assert_eq!((&undone["revoked_by"], &undone["connections"]), (&Value::Null, &json!(0)));
            edge_that(core, name, |edge| trunks(edge) == 4 && edge["revoked"] == false).await;
            game.on(100, 2).await;
        }
        assert_eq!(core.metric("otproxy_connections_closed_total", &["reason=\"revoked\""]).await, 2.0);
        // What the file revokes is for the file to let in again.
        core.replace("name: waw1", "revoked: true, name: waw1").await;
        edge_that(core, "waw1", |edge| edge["revoked_by"] == "file").await;
        let (status, answer) = ask(core, "revoke", Some("{\"edge\": \"waw1\", \"undo\": true}")).await;
        assert_eq!((status, &answer["error"]), (409, &json!("the edge waw1 is revoked by the file")));
        let (status, answer) = ask(core, "revoke", Some("{\"edge\": \"waw2\"}")).await;
        assert_eq!((status, &answer["remedy"]), (404, &json!("the edges are: waw1, fra1")));
        let edge = setup.edges[0].as_ref().unwrap();
        assert_eq!(ask(edge, "revoke", Some("{\"edge\": \"waw1\"}")).await.0, 404);
        game.on(100, 1).await;
        game.end().await;
    });
}

#[test]
fn the_connections_of_one_edge_can_be_closed() {
    run(async {
        let certificates = Certificates::new();
        let (setup, mut game) = playing(&certificates).await;
        let core = &setup.core;
        let closed = act(core, "disconnect", json!({ "edge": "waw1" })).await;
        assert_eq!(closed, json!({ "connections": 1, "sessions": 0 }));
        core.wait_until("otproxy_connections_closed_total", &["reason=\"disconnected\""], |now| now == 1.0).await;
        game.on(100, 2).await;
        let (status, answer) = ask(core, "disconnect", Some("{\"edge\": \"waw2\"}")).await;
        assert_eq!((status, &answer["error"]), (404, &json!("there is no edge `waw2`")));
        game.end().await;
    });
}

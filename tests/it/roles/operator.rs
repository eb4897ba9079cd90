//! What an operator sees of a role that runs, and does to it, by the admin API.

use std::net::SocketAddr;

use otproxy_protocol::frame::{ClientId, ping};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::common::admin;
use crate::common::sandbox::*;

/// An edge with two listeners that lead to an echo, and more YAML at its end.
async fn edge(more: &str) -> Role {
    let target = echo_target().await;
    Role::start(&format!(
        "role: edge\nlisteners:\n\
         - {{ name: a, listen: \"127.0.0.1:0\", forward_to: \"{target}\", send_proxy: none }}\n\
         - {{ name: b, listen: \"127.0.0.1:0\", forward_to: \"{target}\", send_proxy: none }}\n{more}\n"
    ))
}

async fn see(role: &Role, path: &str) -> Value {
    admin::see(role, path).await
}

async fn act(role: &Role, path: &str, body: Value) -> Value {
    admin::act(role, path, body).await
}

/// Connects from an address, and is served.
async fn served(local: &str, to: SocketAddr) -> TcpStream {
    let mut stream = connect_from(local, to).await;
    echoes(&mut stream, b"hello").await;
    stream
}

/// A link, as far as an edge can tell, that is served.
async fn link(to: SocketAddr) -> TcpStream {
    let mut stream = connect_from("127.0.0.1", to).await;
    echoes(&mut stream, &ping(ClientId(7), 0)).await;
    stream
}

fn closed(listener: &str, reason: &str) -> String {
    format!("otproxy_connections_closed_total{{listener={listener},reason={reason}}}")
}

async fn is_refused(to: SocketAddr) -> bool {
    TcpStream::connect(to).await.is_err()
}

#[test]
fn what_is_open_is_seen_and_can_be_closed_by_number_by_address_and_by_listener() {
    run(async {
        let edge = edge("limits: { connections: 100 }").await;
        let (a, b) = (edge.addr("a"), edge.addr("b"));
        let mut one = served("127.0.0.1", a).await;
        let mut two = [served("127.0.0.2", a).await, served("127.0.0.2", b).await];
        let mut three = [served("127.0.0.3", a).await, served("127.0.0.3", b).await];
        // Bytes are counted behind the write that tells the test of them.
        eventually("all bytes are counted", async || {
            let all = see(&edge, "connections").await;
            let counted = all["connections"].as_array()?.iter().all(|c| c["bytes_in"] == 5 && c["bytes_out"] == 5);
            (counted && all["total"] == 5).then_some(())
        })
        .await;
        let of_one = see(&edge, "connections?address=127.0.0.1&listener=a").await;
        assert_eq!(of_one["total"], 1);
        let connection = &of_one["connections"][0];
        assert_eq!((&connection["state"], &connection["listener"]), (&json!("forwarding"), &json!("a")));
        assert_eq!(connection["player"], json!(one.local_addr().unwrap()));
        let status = see(&edge, "status").await;
        assert_eq!((&status["connections"], &status["ready"]), (&json!({ "open": 5, "limit": 100 }), &json!(true)));
        let talkers = see(&edge, "addresses").await;
        assert_eq!((&talkers["total"], &talkers["addresses"][2]["connections"]), (&json!(3), &json!(1)));

        let gone = act(&edge, "disconnect", json!({ "connection": connection["id"] })).await;
        assert_eq!(gone, json!({ "connections": 1, "sessions": 0 }));
        assert_eq!(read_to_close(&mut one).await, b"");
        let gone = act(&edge, "disconnect", json!({ "address": "127.0.0.2" })).await;
        assert_eq!(gone, json!({ "connections": 2, "sessions": 0 }));
        for stream in &mut two {
            assert_eq!(read_to_close(stream).await, b"");
        }
        act(&edge, "disconnect", json!({ "listener": "b" })).await;
        let [of_a, of_b] = &mut three;
        assert_eq!(read_to_close(of_b).await, b"");
        echoes(of_a, b"goes on").await;
        edge.wait_for(&closed("a", "disconnected"), 2).await;
        edge.wait_for(&closed("b", "disconnected"), 2).await;
        for (body, says) in [
            (json!({ "connection": connection["id"] }), "there is no connection"),
            (json!({ "listener": "c" }), "there is no listener `c`"),
            (json!({ "client": 7 }), "client 7 has no link and no session"),
        ] {
            let (status, answer) = admin::ask(&edge, "disconnect", Some(&body.to_string())).await;
            assert_eq!(status, 404, "{answer}");
            assert!(answer["error"].as_str().unwrap().starts_with(says), "{answer}");
        }
        edge.stop_after(three).await;
    });
}

#[test]
fn one_that_has_not_said_yet_who_it_is_can_be_closed_too() {
    run(async {
        let edge = Role::start(
            "role: edge\nlisteners:\n\
             - { name: a, listen: \"127.0.0.1:0\", forward_to: \"127.0.0.1:9\", expect: login, timeouts: { first_bytes: 1h } }\n",
        );
        let mut silent = connect_from("127.0.0.1", edge.addr("a")).await;
        let id = eventually("it is there", async || {
            let all = see(&edge, "connections").await;
            (all["connections"][0]["state"] == "opening").then(|| all["connections"][0]["id"].clone())
        })
        .await;
        act(&edge, "disconnect", json!({ "connection": id })).await;
        assert_eq!(read_to_close(&mut silent).await, b"");
        edge.wait_for("otproxy_connections_rejected_total{listener=a,reason=disconnected}", 1).await;
        edge.stop().await;
    });
}

#[test]
fn a_drained_listener_takes_nobody_and_what_is_open_goes_on_until_the_deadline() {
    run(async {
        let edge = edge("").await;
        let (a, b) = (edge.addr("a"), edge.addr("b"));
        let mut open = served("127.0.0.1", a).await;
        let drained = act(&edge, "drain", json!({ "listener": "a" })).await;
        assert_eq!(drained["listeners"], json!([{ "name": "a", "state": "draining", "connections": 1 }]));
        assert!(is_refused(a).await);
        echoes(&mut open, b"goes on").await;
        drop(served("127.0.0.1", b).await);
        assert_eq!(get(edge.admin(), "/ready").await.unwrap().0, 200, "another listener takes connections");
        let listeners = see(&edge, "listeners").await;
        assert_eq!(listeners["listeners"][0]["addresses"].as_array().unwrap().len(), 1, "where it was is still told");
        act(&edge, "drain", json!({ "listener": "a", "deadline_seconds": 0 })).await;
        assert_eq!(read_to_close(&mut open).await, b"");
        edge.wait_for(&closed("a", "drained"), 1).await;
        eventually("it is drained", async || {
            (see(&edge, "listeners").await["listeners"][0]["state"] == "drained").then_some(())
        })
        .await;
        let (status, answer) = admin::ask(&edge, "drain", Some("{\"listener\": \"c\"}")).await;
        assert_eq!((status, &answer["error"]), (404, &json!("there is no listener `c`")));
        edge.stop().await;
    });
}

#[test]
fn a_drained_process_is_not_ready_until_it_is_drained_no_more() {
    run(async {
        // A port that does not change when it is listened on again.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let target = echo_target().await;
        let edge = Role::start(&format!(
            "role: edge\nlisteners: [{{ name: a, listen: \"{free}\", forward_to: \"{target}\", send_proxy: none }}]\n"
        ));
        let mut open = served("127.0.0.1", free).await;
        act(&edge, "drain", json!({})).await;
        assert_eq!(get(edge.admin(), "/ready").await.unwrap().0, 503);
        assert_eq!(see(&edge, "status").await["draining"], true);
        assert!(is_refused(free).await);
        // A reload does not open it again.
        act_of_control(&edge, &format!("role: edge\nlimits: {{ connections: 9 }}\nlisteners: [{{ name: a, listen: \"{free}\", forward_to: \"{target}\", send_proxy: none }}]\n")).await;
        assert!(is_refused(free).await);
        let undrained = act(&edge, "undrain", json!({})).await;
        assert_eq!(undrained["listeners"][0]["state"], "open");
        assert_eq!(get(edge.admin(), "/ready").await.unwrap().0, 200);
        drop(served("127.0.0.1", free).await);
        echoes(&mut open, b"all the time").await;
        edge.stop_after(open).await;
    });
}

async fn act_of_control(edge: &Role, yaml: &str) {
    edge.reload(yaml).await.expect("a right file");
}

#[test]
fn an_edge_closes_the_links_of_a_drained_listener_and_nothing_else_of_it() {
    run(async {
        let edge = edge("").await;
        let a = edge.addr("a");
        let mut links = [link(a).await, link(a).await, link(a).await];
        let (mut other, mut elsewhere) = (served("127.0.0.1", a).await, link(edge.addr("b")).await);
        act(&edge, "drain", json!({ "listener": "a" })).await;
        for link in &mut links {
            assert_eq!(read_to_close(link).await, b"");
        }
        edge.wait_for(&closed("a", "drained"), 3).await;
        echoes(&mut other, b"no link").await;
        echoes(&mut elsewhere, b"elsewhere").await;
        edge.stop_after((other, elsewhere)).await;
    });
}

#[test]
fn an_edge_that_ends_does_not_wait_for_links_to_leave() {
    run(async {
        let edge = edge("shutdown_timeout: 1h").await;
        let a = edge.addr("a");
        let mut links = [link(a).await, link(a).await];
        let mut other = served("127.0.0.1", a).await;
        edge.shut_down();
        for link in &mut links {
            assert_eq!(read_to_close(link).await, b"");
        }
        echoes(&mut other, b"no link").await;
        drop(other);
        edge.ended().await.unwrap();
    });
}

#[test]
fn whom_the_operator_bans_is_refused_and_closed_where_he_says_so() {
    run(async {
        let edge = edge("bans: { exempt: 127.0.0.9 }").await;
        let a = edge.addr("a");
        let mut open = [served("127.0.0.2", a).await, served("127.0.0.3", a).await];
        let banned =
            act(&edge, "ban", json!({ "network": "127.0.0.2/31", "for_seconds": 3600, "disconnect": true })).await;
        assert_eq!(banned["disconnected"], json!({ "connections": 2, "sessions": 0 }));
        for stream in &mut open {
            assert_eq!(read_to_close(stream).await, b"");
        }
        let mut again = connect_from("127.0.0.3", a).await;
        assert_eq!(read_to_close(&mut again).await, b"");
        edge.wait_for("otproxy_connections_rejected_total{listener=a,reason=banned}", 1).await;
        let bans = see(&edge, "bans?address=127.0.0.2").await;
        assert_eq!((&bans["total"], &bans["bans"][0]["by"]), (&json!(1), &json!("operator")));
        let (status, _) = admin::ask(&edge, "ban", Some("{\"network\": \"127.0.0.0/24\"}")).await;
        assert_eq!(status, 409, "somebody in it is exempt");
        assert_eq!(
            act(&edge, "unban", json!({ "network": "127.0.0.0/8" })).await,
            json!({ "networks": ["127.0.0.2/31"] })
        );
        drop(served("127.0.0.3", a).await);
        edge.stop().await;
    });
}

#[test]
fn a_target_that_is_drained_has_no_new_connections() {
    run(async {
        let (first, second) = (target().await, target().await);
        let edge = Role::start(&format!(
            "role: edge\nlisteners:\n- name: a\n  listen: \"127.0.0.1:0\"\n  send_proxy: none\n  forward_to:\n\
             \x20   - {{ name: one, address: \"{}\" }}\n    - {{ name: two, address: \"{}\" }}\n",
            first.1, second.1
        ));
        let set = async |target: &str, state: &str| {
            act(&edge, "target", json!({ "listener": "a", "target": target, "state": state })).await
        };
        let connect = async || connect_from("127.0.0.1", edge.addr("a")).await;
        let (mut open, mut at_one) = (connect().await, accept(&first.0).await);
        assert_eq!(set("one", "drain").await["state"], "drain");
        let (_other, _at_two) = (connect().await, accept(&second.0).await);
        open.write_all(b"on").await.unwrap();
        assert_eq!(read(&mut at_one, 2).await, b"on");
        let targets = see(&edge, "targets").await;
        let counts: Vec<_> = targets["targets"].as_array().unwrap().iter().map(|t| t["connections"].clone()).collect();
        assert_eq!(counts, [1, 1]);
        set("one", "ready").await;
        let (_third, _at_one) = (connect().await, accept(&first.0).await);
        let body = json!({ "listener": "a", "target": "three", "state": "maint" }).to_string();
        let (status, answer) = admin::ask(&edge, "target", Some(&body)).await;
        assert_eq!((status, &answer["remedy"]), (404, &json!("its targets are: one, two")));
        edge.stop_after((open, _other, _third)).await;
    });
}

#[test]
fn an_edge_says_where_sessions_are() {
    run(async {
        let edge = edge("").await;
        let (status, answer) = admin::ask(&edge, "sessions", None).await;
        assert_eq!((status, &answer["error"]), (404, &json!("an edge has no sessions")));
        edge.stop().await;
    });
}

//! Tests of views.

use super::*;

#[tokio::test]
async fn each_list_is_what_the_operator_says() {
    let server = Admin::core().await;
    let (status, body) = server.get("/api/v1/status").await;
    assert_eq!(status, 200);
    assert_eq!(body["role"], "core");
    assert_eq!(body["started"], "2030-03-17T17:46:40Z");
    assert_eq!(body["connections"]["limit"], 1000);
    assert_eq!(body["last_reload"]["errors"][0], "edge.yaml:1:1: bad");
    let (_, body) = server.get("/api/v1/listeners").await;
    assert_eq!(body["listeners"][0]["rejected"]["rate"], 1_000_000);
    let (_, body) = server.get("/api/v1/targets").await;
    assert_eq!(body["targets"][0]["check"]["result"], "ok");
    assert_eq!(body["targets"][1]["check"], Value::Null);
    let (_, body) = server.get("/api/v1/connections").await;
    assert_eq!(body["total"], 2);
    assert_eq!(body["connections"][0]["state"], "link");
    let (_, body) = server.get("/api/v1/sessions?client=5").await;
    assert_eq!(body["sessions"][0]["client"], 5);
    let (_, body) = server.get("/api/v1/addresses?by=bytes&limit=1").await;
    assert_eq!((&body["total"], body["addresses"].as_array().unwrap().len()), (&Value::from(2), 1));
    let (_, body) = server.get("/api/v1/bans").await;
    assert_eq!(body["bans"][1]["by"], "rules");
    let (status, head, _) = server.over_socket("GET", "/api/v1/bans", &[], "").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: application/json") && head.contains("cache-control: no-store"), "{head}");
    assert!(server.operator.done().is_empty(), "who reads changes nothing");
}

#[tokio::test]
async fn an_edge_has_no_sessions_and_says_where_they_are() {
    let server = Admin::edge().await;
    let (status, body) = server.get("/api/v1/sessions").await;
    assert_eq!((status, &body["remedy"]), (404, &Value::from("ask the core")));
    assert_eq!(server.get("/api/v1/status").await.1["sessions"], Value::Null);
}

#[tokio::test]
async fn a_question_that_makes_no_sense_is_refused() {
    let server = Admin::core().await;
    for query in [
        "limit=0",
        "limit=10001",
        "limit=-1",
        "limit=x",
        "limit=",
        "limit=1&limit=2",
        "limt=1",
        "address=198.51.100.7/24",
        "address=nobody",
        "address=",
        "address=198.51.100.7:80",
        "address=%FF",
        "%",
        "address=%zz",
    ] {
        let (status, body) = server.get(&format!("/api/v1/connections?{query}")).await;
        assert_eq!(status, 400, "{query}: {body}");
        assert!(body["error"].as_str().unwrap().len() > 10 && body["remedy"].is_string(), "{query}: {body}");
    }
    for path in
        ["status?x=1", "sessions?client=-1", "sessions?client=4294967296", "addresses?by=size", "bans?listener=a"]
    {
        let (status, body) = server.get(&format!("/api/v1/{path}")).await;
        assert_eq!(status, 400, "{path}: {body}");
    }
    // Every spelling of an address, and its encoding in a URL.
    for query in ["address=2001:db8::%2F32", "address=2001%3Adb8%3A%3A7&limit=1", "listener=%6Cogin", "", "&"] {
        let (status, body) = server.get(&format!("/api/v1/connections?{query}")).await;
        assert_eq!(status, 200, "{query}: {body}");
    }
    for (query, name) in [("none", "none"), ("n%C3%B6", "nö"), ("a%00b", "a\0b")] {
        let (status, body) = server.get(&format!("/api/v1/connections?listener={query}")).await;
        assert_eq!((status, &body["error"]), (404, &format!("there is no listener `{name}`").into()));
        assert_eq!(body["remedy"], "the listeners are: login");
    }
}

#[tokio::test]
async fn what_is_not_there_is_said_in_json() {
    let server = Admin::edge().await;
    for path in ["/api/v1", "/api/v1/", "/api/v1/none", "/api/v1/status/", "/api/v1/status/x", "/api/v1/%73tatuss"] {
        let (status, body) = server.get(path).await;
        assert_eq!(status, 404, "{path}: {body}");
        assert!(body["remedy"].as_str().unwrap().contains("/api/v1/openapi.json"), "{body}");
    }
    for (method, path, allow) in [
        ("POST", "/api/v1/status", "get"),
        ("DELETE", "/api/v1/bans", "get"),
        ("GET", "/api/v1/reload", "post"),
        ("PUT", "/api/v1/drain", "post"),
        ("OPTIONS", "/api/v1/drain", "post"),
    ] {
        let (status, head, body) = server.over_socket(method, path, &[], "").await;
        assert_eq!(status, 405, "{method} {path}");
        assert!(head.lines().any(|line| line.starts_with("allow:") && line.contains(allow)), "{head}");
        assert!(serde_json::from_str::<Value>(&body).unwrap()["remedy"].is_string(), "{body}");
    }
}

#[tokio::test]
async fn the_longest_list_arrives_whole() {
    let mut fake = FakeOperator::new(Role::Core);
    fake.connections = 20_000;
    let server = Admin::start(fake, |_, _| {}).await;
    let (_, body) = server.get("/api/v1/connections?limit=10000").await;
    assert_eq!(body["total"], 20_000);
    let list = body["connections"].as_array().unwrap();
    assert_eq!(list.len(), api::MOST);
    assert_eq!(list[0]["id"], 20_000);
    let (_, body) = server.get("/api/v1/connections").await;
    assert_eq!(body["connections"].as_array().unwrap().len(), 100);
}

//! Tests of actions.

use super::*;

#[tokio::test]
async fn each_act_reaches_the_operator() {
    let server = Admin::core().await;
    for (path, body, does) in [
        ("reload", "{}", "reload"),
        ("drain", "{}", "drain None None"),
        ("drain", r#"{"listener":"login","deadline_seconds":0}"#, "drain Some(\"login\") Some(0ns)"),
        ("undrain", r#"{"listener":null}"#, "undrain None"),
        ("ban", r#"{"network":"198.51.100.0/24"}"#, "ban 198.51.100.0/24 None false"),
        (
            "ban",
            r#"{"network":"::ffff:198.51.100.7","for_seconds":60,"disconnect":true}"#,
            "ban 198.51.100.7 Some(60s) true",
        ),
        ("unban", r#"{"network":"2001:db8::/32"}"#, "unban 2001:db8::/32"),
        ("revoke", r#"{"edge":"waw1"}"#, "revoke waw1 false"),
        ("revoke", r#"{"edge":"waw1","undo":true}"#, "revoke waw1 true"),
        ("disconnect", r#"{"connection":7}"#, "Connection(7)"),
        ("disconnect", r#"{"listener":"login"}"#, "Listener(\"login\")"),
        ("disconnect", r#"{"edge":"waw1"}"#, "Edge(\"waw1\")"),
        ("disconnect", r#"{"client":7}"#, "Client(ClientId(7))"),
        ("disconnect", r#"{"client":7,"session":1}"#, "Session(ClientId(7), SessionId(1))"),
        ("target", r#"{"listener":"login","target":"first","state":"maint"}"#, "target first maint"),
        ("upgrade", r#"{"role":"core","place":".7.up","takes_socket":true}"#, "upgrade .7.up true"),
    ] {
        let before = server.operator.done().len();
        let (status, answer) = server.post(&format!("/api/v1/{path}"), body).await;
        assert_eq!(status, 200, "{path} {body}: {answer}");
        assert_eq!(server.operator.done()[before..], [does], "{path} {body}");
    }
    let (_, answer) = server.post("/api/v1/drain", "{}").await;
    assert_eq!(answer["listeners"][0]["state"], "draining");
    let (_, answer) = server.post("/api/v1/disconnect", r#"{"address":"192.0.2.0/24","listener":"a"}"#).await;
    assert_eq!((&answer["connections"], &answer["sessions"]), (&Value::from(1), &Value::from(2)));
}

#[tokio::test]
async fn what_cannot_be_done_says_why() {
    let server = Admin::core().await;
    for (path, body, expected, says) in [
        ("drain", r#"{"listener":"none"}"#, 404, "there is no listener `none`"),
        ("ban", r#"{"network":"192.0.2.1"}"#, 409, "`bans.exempt`"),
        ("target", r#"{"listener":"none","target":"first","state":"ready"}"#, 404, "there is no listener"),
        ("drain", r#"{"deadline_seconds":86401}"#, 422, "`deadline_seconds` is 86401"),
        ("ban", r#"{"network":"192.0.2.2","for_seconds":0}"#, 422, "`for_seconds` is 0"),
        ("ban", r#"{"network":"192.0.2.2","for_seconds":31536001}"#, 422, "`for_seconds` is 31536001"),
        ("revoke", r#"{"edge":"none"}"#, 404, "there is no edge `none`"),
        ("revoke", r#"{"edge":"fra1","undo":true}"#, 409, "by the file"),
        ("upgrade", r#"{"role":"edge","place":".7.up","takes_socket":true}"#, 409, "another role"),
        ("upgrade", r#"{"role":"core","place":"/run/.7.up","takes_socket":true}"#, 422, "`place`"),
        ("upgrade", r#"{"role":"core","place":"..","takes_socket":true}"#, 422, "`place`"),
        ("disconnect", "{}", 422, "it is not said what"),
        ("disconnect", r#"{"edge":"waw1","listener":"login"}"#, 422, "it is not said what"),
        ("disconnect", r#"{"session":1}"#, 422, "it is not said what"),
        ("disconnect", r#"{"connection":1,"client":1}"#, 422, "it is not said what"),
    ] {
        let (status, answer) = server.post(&format!("/api/v1/{path}"), body).await;
        assert_eq!(status, expected, "{path} {body}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(says) && answer["remedy"].is_string(), "{body}: {answer}");
    }
    assert!(server.operator.done().is_empty());
    server.operator.reloads.close();
    let (status, answer) = server.post("/api/v1/reload", "{}").await;
    assert_eq!(status, 422);
    assert_eq!(answer["errors"][0], "edge.yaml:1:1: role: wrong");
}

#[tokio::test]
async fn a_body_that_is_no_request_is_refused() {
    let server = Admin::core().await;
    for (body, expected) in [
        ("", 400),
        ("{", 400),
        ("nonsense", 400),
        (r#"{"network":"198.51.100.7"}{}"#, 400),
        (r#"{"network":"198.51.100.7"} x"#, 400),
        ("[]", 422),
        (r#"["198.51.100.7",60,true]"#, 422),
        ("null", 422),
        ("7", 422),
        ("{}", 422),
        (r#"{"network":7}"#, 422),
        (r#"{"network":null}"#, 422),
        (r#"{"network":"198.51.100.7/24"}"#, 422),
        (r#"{"network":"\u0000"}"#, 422),
        (r#"{"network":"198.51.100.7","networks":1}"#, 422),
        (r#"{"network":"198.51.100.7","network":"198.51.100.8"}"#, 422),
        (r#"{"network":"198.51.100.7","for_seconds":-1}"#, 422),
        (r#"{"network":"198.51.100.7","for_seconds":1.5}"#, 422),
        (r#"{"network":"198.51.100.7","for_seconds":99999999999999999999}"#, 422),
        (r#"{"network":"198.51.100.7","disconnect":"yes"}"#, 422),
        (r#"{"network":"198.51.100.7","disconnect":null}"#, 422),
    ] {
        let (status, answer) = server.post("/api/v1/ban", body).await;
        assert_eq!(status, expected, "{body}: {answer}");
        assert!(answer["error"].is_string() && answer["remedy"].is_string(), "{body}: {answer}");
    }
    assert_eq!(server.post("/api/v1/reload", "[]").await.0, 422);
    let deep = "[".repeat(8000);
    assert_eq!(server.post("/api/v1/ban", &deep).await.0, 422);
    for header in ["X: y", "Content-Type: text/plain", "Content-Type: application/x-www-form-urlencoded"] {
        let (status, _, body) = server.over_socket("POST", "/api/v1/reload", &[header], "{}").await;
        assert_eq!(status, 415, "{header}");
        assert!(body.contains("Content-Type: application/json"), "{body}");
    }
    let (status, ..) =
        server.over_socket("POST", "/api/v1/reload", &["Content-Type: application/json; charset=utf-8"], "{}").await;
    assert_eq!(status, 200);
    assert_eq!(server.operator.done(), ["reload"]);
}

#[tokio::test]
async fn what_has_begun_is_done_though_nobody_waits_for_it() {
    let mut fake = FakeOperator::new(Role::Core);
    fake.reloads = Arc::new(tokio::sync::Semaphore::new(0));
    let server = Admin::start(fake, |_, _| {}).await;
    let mut stream = UnixStream::connect(&server.socket).await.unwrap();
    let request =
        "POST /api/v1/reload HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    stream.write_all(request.as_bytes()).await.unwrap();
    // Every later answer arrived while the action waited.
    assert_eq!(server.get("/api/v1/status").await.0, 200);
    drop(stream);
    assert_eq!(server.get("/api/v1/status").await.0, 200);
    server.operator.reloads.add_permits(1);
    let done = async {
        while server.operator.done().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(60), done).await.expect("the reload is done");
}

#[tokio::test]
async fn a_defect_in_an_act_is_told_and_the_server_goes_on() {
    let server = Admin::core().await;
    let (status, answer) = server.post("/api/v1/disconnect", r#"{"client":0}"#).await;
    assert_eq!(status, 500, "{answer}");
    assert!(answer["remedy"].as_str().unwrap().contains("a defect of otproxy"), "{answer}");
    assert_eq!(server.get("/api/v1/status").await.0, 200);
}

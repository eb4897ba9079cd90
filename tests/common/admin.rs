//! The admin API, as a script asks it.

use serde_json::Value;
use tokio::net::UnixStream;

use super::http;
use super::role::Role;

/// Asks the admin API of a role at its socket: a GET, or with a `body` a POST. Gives the status and the JSON.
pub async fn ask(role: &impl AsRef<Role>, path: &str, body: Option<&str>) -> (u16, Value) {
    let method = if body.is_some() { "POST" } else { "GET" };
    let body = body.unwrap_or_default();
    let request = format!(
        "{method} /api/v1/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let stream = UnixStream::connect(role.as_ref().socket()).await.unwrap();
    let (status, body) = http::ask(stream, &request).await.unwrap_or_else(|error| panic!("{path}: {error}"));
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}")))
}

/// Sees something that is there.
pub async fn see(role: &impl AsRef<Role>, path: &str) -> Value {
    let (status, answer) = ask(role, path, None).await;
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

/// Does something that can be done.
pub async fn act(role: &impl AsRef<Role>, path: &str, body: Value) -> Value {
    let (status, answer) = ask(role, path, Some(&body.to_string())).await;
    assert_eq!(status, 200, "{path} {body}: {answer}");
    answer
}

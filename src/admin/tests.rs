use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::api::{Operator, Role};
use super::fake::FakeOperator;
use super::*;
use otproxy_config as config;

mod acts;
mod bounds;
mod doors;
mod events;
mod schema;
mod views;

/// A running server, over a fake operator.
struct Admin {
    address: SocketAddr,
    socket: PathBuf,
    directory: PathBuf,
    ready: Arc<Readiness>,
    operator: Arc<FakeOperator>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Admin {
    async fn edge() -> Self {
        Self::start(FakeOperator::new(Role::Edge), |_, _| {}).await
    }

    async fn core() -> Self {
        Self::start(FakeOperator::new(Role::Core), |_, _| {}).await
    }

    /// Starts it with loopback and a socket, as changed by `change`; its files are in the directory.
    async fn start(fake: FakeOperator, change: impl Fn(&mut config::AdminConfig, &Path)) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("otproxy-admin-{}-{count}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let socket = directory.join("admin.sock");
        let listen = Some("127.0.0.1:0".parse().unwrap());
        let mut config = config::AdminConfig { listen, socket: Some(socket.clone()), ..config::AdminConfig::default() };
        change(&mut config, &directory);
        let server = AdminServer::bind(&config, None).unwrap();
        let address = server.address().unwrap_or_else(|| "127.0.0.1:0".parse().unwrap());
        let ready: Arc<Readiness> = Arc::default();
        let metrics = Arc::new(Metrics::new());
        metrics.connections_accepted.with_label_values(&["links"]).inc_by(7);
        let build = BuildInfo { version: "1.2.3", role: "edge" };
        let operator = Arc::new(fake);
        let answering: Arc<dyn Operator> = operator.clone();
        let state = AdminState { metrics: vec![metrics], ready: Arc::clone(&ready), build, operator: answering };
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = server.serve(state, None, async { drop(stopped.await) });
        let task = tokio::spawn(async { serving.await.unwrap() });
        Self { address, socket, directory, ready, operator, stop: Some(stop), task }
    }

    /// Sends a GET over the unix socket; returns status and JSON.
    async fn get(&self, path: &str) -> (u16, Value) {
        let (status, _, body) = self.over_socket("GET", path, &[], "").await;
        (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}")))
    }

    /// Sends a POST over the unix socket; returns status and JSON.
    async fn post(&self, path: &str, body: &str) -> (u16, Value) {
        let (status, _, body) = self.over_socket("POST", path, &["Content-Type: application/json"], body).await;
        (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}")))
    }

    async fn over_socket(&self, method: &str, path: &str, headers: &[&str], body: &str) -> (u16, String, String) {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        ask(stream, method, path, &[&["Host: admin"], headers].concat(), body).await
    }

    async fn over_tcp(&self, method: &str, path: &str, headers: &[&str], body: &str) -> (u16, String, String) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        ask(stream, method, path, headers, body).await
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.task.abort();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Sends a request; returns status, head in lower case, and body.
async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &str,
) -> (u16, String, String) {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let length = body.len();
    let request = format!("{method} {path} HTTP/1.1\r\nContent-Length: {length}\r\n{headers}\r\n{body}");
    let answer = exchange(stream, request.as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{method} {path}: {answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

/// Returns everything that the server sends until it closes, while the client never does.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &[u8]) -> String {
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    timeout(Duration::from_secs(60), stream.read_to_string(&mut answer)).await.expect("the server closes").unwrap();
    answer
}

#[tokio::test]
async fn pages() {
    let server = Admin::edge().await;
    for (host, socket) in [("Host: localhost", false), ("Host: localhost", true)] {
        let get = async |path: &str| match socket {
            true => server.over_socket("GET", path, &[], "").await,
            false => server.over_tcp("GET", path, &[host], "").await,
        };
        let (status, head, body) = get("/metrics").await;
        assert_eq!(status, 200);
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        assert!(head.contains("connection: close"), "{head}");
        assert!(body.contains("otproxy_connections_accepted_total{listener=\"links\"} 7\n"), "{body}");
        assert!(body.contains("otproxy_build_info{role=\"edge\",version=\"1.2.3\"} 1\n"), "{body}");

        let (status, _, body) = get("/live").await;
        assert_eq!((status, &*body), (200, "live\n"));
        let (status, _, body) = get("/").await;
        assert!(status == 200 && body.contains("/metrics"), "{body}");
        let (status, _, body) = get("/secret").await;
        assert_eq!((status, &*body), (404, "not found\n"));
    }
    let (status, ..) = server.over_tcp("POST", "/metrics", &["Host: localhost"], "").await;
    assert_eq!(status, 405);
    let stream = TcpStream::connect(server.address).await.unwrap();
    let answer = exchange(stream, b"\x07\x00nonsense\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn readiness_follows_the_process() {
    let server = Admin::edge().await;
    let ask = async || {
        let answer = server.over_tcp("GET", "/ready", &["Host: localhost"], "").await;
        (answer.0, answer.2)
    };
    let (yes, no) = ((200, "ready\n".to_owned()), (503, "not ready\n".to_owned()));
    assert_eq!(ask().await, yes);
    for (drained, expected) in [(true, &no), (false, &yes)] {
        server.ready.set_drained(drained);
        assert_eq!(ask().await, *expected);
    }
    server.ready.set_ending();
    // An undrained process still ends.
    server.ready.set_drained(false);
    assert_eq!(ask().await, no);
}

#[tokio::test]
async fn shutdown_ends_it_and_removes_the_socket() {
    let mut server = Admin::edge().await;
    assert_eq!(server.get("/api/v1/status").await.0, 200);
    assert!(server.socket.exists());
    server.stop.take().unwrap().send(()).unwrap();
    timeout(Duration::from_secs(60), &mut server.task).await.expect("it ends").unwrap();
    assert!(!server.socket.exists());
    assert!(TcpStream::connect(server.address).await.is_err());
}

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::*;

/// A server that is under way.
struct Server {
    address: SocketAddr,
    ready: Arc<AtomicBool>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn server(max: usize, connection_timeout: Duration) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let ready = Arc::new(AtomicBool::new(false));
    let metrics = Arc::new(Metrics::new());
    metrics.listener("links").accepted.inc_by(7);
    let build = BuildInfo { version: "1.2.3", role: "edge" };
    let state = State { metrics: vec![metrics], ready: Arc::clone(&ready), build };
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(serve_bounded(BoundedListener::new(listener, max, connection_timeout), state, async {
        drop(stopped.await)
    }));
    Server { address, ready, stop, task }
}

/// All that the server answers until it closes, though the client never does.
async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(Duration::from_secs(20), stream.read_to_string(&mut answer)).await.expect("the server closes").unwrap();
    answer
}

/// Status, head in lower case, body.
async fn get(address: SocketAddr, path: &str) -> (u16, String, String) {
    let answer = exchange(address, &format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

#[tokio::test]
async fn pages() {
    let server = server(MAX_CONNECTIONS, CONNECTION_TIMEOUT).await;
    let (status, head, body) = get(server.address, "/metrics").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(head.contains("connection: close"), "{head}");
    assert!(body.contains("otproxy_connections_accepted_total{listener=\"links\"} 7\n"), "{body}");
    assert!(body.contains("otproxy_build_info{role=\"edge\",version=\"1.2.3\"} 1\n"), "{body}");

    let (status, _, body) = get(server.address, "/live").await;
    assert_eq!((status, &*body), (200, "live\n"));
    let (status, _, body) = get(server.address, "/").await;
    assert!(status == 200 && body.contains("/metrics"), "{body}");
    let (status, _, body) = get(server.address, "/secret").await;
    assert_eq!((status, &*body), (404, "not found\n"));
    let answer = exchange(server.address, "POST /metrics HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    let answer = exchange(server.address, "\x07\x00nonsense\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn readiness_follows_the_process() {
    let server = server(MAX_CONNECTIONS, CONNECTION_TIMEOUT).await;
    for (ready, status, body) in [(false, 503, "not ready\n"), (true, 200, "ready\n"), (false, 503, "not ready\n")] {
        server.ready.store(ready, Ordering::Relaxed);
        let answer = get(server.address, "/ready").await;
        assert_eq!((answer.0, &*answer.2), (status, body));
    }
}

#[tokio::test]
async fn a_silent_or_slow_client_is_dropped() {
    let server = server(1, Duration::from_millis(300)).await;
    for request in ["", "GET /live HT", "GET /live HTTP/1.1\r\nHost: test\r\n"] {
        let began = Instant::now();
        exchange(server.address, request).await;
        assert!(began.elapsed() >= Duration::from_millis(200), "{request:?} had its time");
    }
    // A byte now and then does not lengthen it.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let drip = async {
        while stream.write_all(b"G").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(20), drip).await.expect("the server closes");
    assert_eq!(get(server.address, "/live").await.0, 200);
}

#[tokio::test]
async fn more_clients_than_places_wait_their_turn() {
    let server = server(2, Duration::from_millis(500)).await;
    let silent = [TcpStream::connect(server.address).await.unwrap(), TcpStream::connect(server.address).await.unwrap()];
    let began = Instant::now();
    assert_eq!(get(server.address, "/live").await.0, 200);
    assert!(began.elapsed() >= Duration::from_millis(300), "it waited for a place");
    drop(silent);
}

#[tokio::test]
async fn shutdown_ends_it_though_a_client_is_there() {
    let server = server(MAX_CONNECTIONS, Duration::from_millis(300)).await;
    let _silent = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(get(server.address, "/live").await.0, 200);
    server.stop.send(()).unwrap();
    timeout(Duration::from_secs(20), server.task).await.expect("it ends").unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

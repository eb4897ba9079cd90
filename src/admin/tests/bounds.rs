//! Tests of what a peer may take: permits, time, bytes.

use super::super::access::Transport;
use super::super::bounded::BoundedListener;
use super::super::routes::ApiContext;
use super::super::server;
use super::*;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Serves the pages alone, with this many permits and this much time.
async fn pages(max: usize, connection_timeout: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let build = BuildInfo { version: "1.2.3", role: "edge" };
    let operator: Arc<dyn Operator> = Arc::new(FakeOperator::new(Role::Edge));
    let state = AdminState { metrics: Vec::new(), ready: Arc::default(), build, operator: Arc::clone(&operator) };
    let places = Arc::new(Semaphore::new(1));
    let (streams, stop) = (Arc::new(Semaphore::new(1)), CancellationToken::new());
    let context = ApiContext { door: Transport::Socket, tokens: Arc::default(), operator, places, streams, stop };
    let listener = BoundedListener::new(listener, max, connection_timeout);
    tokio::spawn(async move { server::serve(Some(listener), &state, context, &CancellationToken::new()).await });
    address
}

async fn get(address: SocketAddr, path: &str) -> u16 {
    ask(TcpStream::connect(address).await.unwrap(), "GET", path, &["Host: localhost"], "").await.0
}

#[tokio::test]
async fn a_silent_or_slow_client_is_dropped() {
    let address = pages(1, Duration::from_millis(300)).await;
    for request in ["", "GET /live HT", "GET /live HTTP/1.1\r\nHost: localhost\r\n"] {
        let began = Instant::now();
        exchange(TcpStream::connect(address).await.unwrap(), request.as_bytes()).await;
        assert!(began.elapsed() >= Duration::from_millis(200), "{request:?} had its time");
    }
    // A byte now and then does not extend the time.
    let mut stream = TcpStream::connect(address).await.unwrap();
    let drip = async {
        while stream.write_all(b"G").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(60), drip).await.expect("the server closes");
    assert_eq!(get(address, "/live").await, 200);
}

#[tokio::test]
async fn more_clients_than_places_wait_their_turn() {
    let address = pages(2, Duration::from_millis(500)).await;
    let silent = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
    let began = Instant::now();
    assert_eq!(get(address, "/live").await, 200);
    assert!(began.elapsed() >= Duration::from_millis(300), "it waited for a place");
    drop(silent);
}

#[tokio::test]
async fn a_flood_at_the_address_does_not_lock_the_socket() {
    let server = Admin::core().await;
    let mut silent = Vec::new();
    for _ in 0..2 * MAX_CONNECTIONS {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    assert_eq!(server.get("/api/v1/status").await.0, 200);
    assert_eq!(server.post("/api/v1/drain", "{}").await.0, 200);
    drop(silent);
    assert_eq!(server.over_tcp("GET", "/api/v1/status", &["Host: 127.0.0.1"], "").await.0, 200);
}

#[tokio::test]
async fn a_long_body_is_refused_before_it_is_read() {
    let server = Admin::core().await;
    let long = format!(r#"{{"network":"{}"}}"#, "x".repeat(MAX_REQUEST));
    let (status, answer) = server.post("/api/v1/ban", &long).await;
    assert_eq!(status, 413, "{answer}");
    assert!(answer["remedy"].is_string());
    // One body declares that it is long, the other does not.
    let head = "POST /api/v1/ban HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
    let mut stream = UnixStream::connect(&server.socket).await.unwrap();
    stream.write_all(format!("{head}Content-Length: 99999999999\r\n\r\n{long}").as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    timeout(Duration::from_secs(60), stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, b"HTTP/1.1 413");
    let mut stream = UnixStream::connect(&server.socket).await.unwrap();
    stream
        .write_all(format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n", long.len()).as_bytes())
        .await
        .unwrap();
    timeout(Duration::from_secs(60), stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, b"HTTP/1.1 413");
    assert!(server.operator.done().is_empty());
}

#[tokio::test]
async fn a_long_head_is_refused() {
    let server = Admin::core().await;
    let mut stream = UnixStream::connect(&server.socket).await.unwrap();
    let long = format!("GET /api/v1/status HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    // The server may close while this is still being written.
    let _ = stream.write_all(long.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await.expect("it closes");
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{:?}", String::from_utf8_lossy(&answer));
    assert_eq!(server.get("/api/v1/status").await.0, 200);
}

/// Checks that only a few of the longest answers are in memory at once: the others wait until a client has read one, or
/// has left.
#[tokio::test]
async fn few_answers_are_in_memory_at_once() {
    let mut fake = FakeOperator::new(Role::Core);
    fake.connections = 10_000;
    let server = Admin::start(fake, |_, _| {}).await;
    let request = b"GET /api/v1/connections?limit=10000 HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut held = Vec::new();
    for _ in 0..MAX_ANSWERS {
        let mut stream = UnixStream::connect(&server.socket).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut first = [0; 12];
        timeout(Duration::from_secs(60), stream.read_exact(&mut first)).await.unwrap().unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        held.push(stream);
    }
    // The next answer starts once one of these is read to its end. An answer that is no list never waits for readers.
    let mut next = UnixStream::connect(&server.socket).await.unwrap();
    next.write_all(b"GET /api/v1/bans HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(server.post("/api/v1/drain", "{}").await.0, 200);
    let mut answer = [0; 12];
    let nothing = next.try_read(&mut answer).map_err(|error| error.kind());
    assert_eq!(nothing, Err(std::io::ErrorKind::WouldBlock));
    let both = async {
        held.pop().unwrap().read_to_end(&mut Vec::new()).await.unwrap();
        next.read_exact(&mut answer).await.unwrap();
    };
    timeout(Duration::from_secs(60), both).await.expect("it has its turn");
    assert_eq!(&answer, b"HTTP/1.1 200");
}

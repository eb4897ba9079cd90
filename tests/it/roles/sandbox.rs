//! What all tests here stand on: roles from YAML on ports of the kernel's choice, stand-in targets,
//! and metrics scraped as an operator would.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use otproxy::admission::Bans;
use otproxy::config::{self, Config};
use otproxy::roles::{self, Control, ReloadError, Reloaded};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// Only against a test that hangs.
const HANG: Duration = Duration::from_secs(90);
/// How long a condition may take to become true, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Runs a test on a runtime of its own.
pub fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let result = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async { timeout(HANG, test).await.expect("the test hangs") })
    }));
    // A role that a failed test did not stop must not hold the failure back.
    runtime.shutdown_background();
    if let Err(panic) = result {
        resume_unwind(panic);
    }
}

/// Looks at `condition` until it gives something.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        sleep(LOOK).await;
    }
}

/// A role that runs on free ports.
pub struct Role {
    addresses: HashMap<String, Vec<SocketAddr>>,
    admin: SocketAddr,
    control: Control,
    bans: Arc<Bans>,
    shutdown: Option<oneshot::Sender<()>>,
    task: JoinHandle<io::Result<()>>,
}

impl Role {
    /// An edge with these `listeners` (the YAML of the list).
    pub fn edge(listeners: &str) -> Self {
        Self::start(&format!("role: edge\nlisteners: {listeners}\n"))
    }

    /// A core with this YAML, its `role` aside.
    pub fn core(yaml: &str) -> Self {
        Self::start(&format!("role: core\n{yaml}\n"))
    }

    /// A role from its YAML; two workers and a free port for admin are added.
    pub fn start(yaml: &str) -> Self {
        let service = match parsed(yaml) {
            Config::Edge(edge) => roles::edge::bind(edge).expect("an edge"),
            Config::Core(core) => roles::core::bind(core).expect("a core"),
        };
        let addresses = service.listeners().map(|(name, addresses)| (name.to_owned(), addresses.to_vec())).collect();
        let (admin, control) = (service.admin_address().expect("an admin address"), service.control());
        let bans = Arc::clone(service.bans());
        let (shutdown, asked) = oneshot::channel();
        let task = tokio::spawn(service.run(async {
            // Dropped without a word it means the same.
            let _ = asked.await;
        }));
        Self { addresses, admin, control, bans, shutdown: Some(shutdown), task }
    }

    /// The first address of a listener.
    pub fn addr(&self, listener: &str) -> SocketAddr {
        self.addrs(listener)[0]
    }

    /// All addresses of a listener.
    pub fn addrs(&self, listener: &str) -> &[SocketAddr] {
        &self.addresses[listener]
    }

    /// Has it be as this YAML says, completed as that which it was started with.
    pub async fn reload(&self, yaml: &str) -> Result<Reloaded, ReloadError> {
        self.control.reload_with(parsed(yaml)).await
    }

    /// What changes it while it runs.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The addresses that a listener has now; none where there is no such listener.
    pub fn addrs_now(&self, listener: &str) -> Vec<SocketAddr> {
        self.control
            .addresses()
            .into_iter()
            .find(|(name, _)| name == listener)
            .map(|(_, addrs)| addrs)
            .unwrap_or_default()
    }

    /// Where admin is.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Who is banned.
    pub fn bans(&self) -> &Bans {
        &self.bans
    }

    /// Tells it to shut down, and does not wait.
    pub fn shut_down(&mut self) {
        let _ = self.shutdown.take().expect("not told yet").send(());
    }

    /// Drops it while it runs, with no shutdown.
    pub fn abort(&self) {
        self.task.abort();
    }

    /// What running it ended with. Waits for that.
    pub async fn ended(self) -> io::Result<()> {
        self.task.await.expect("no panic")
    }

    /// Shuts it down and waits for its end.
    pub async fn stop(mut self) {
        self.shut_down();
        self.ended().await.expect("a clean end");
    }

    /// The same, once `connections` are closed.
    pub async fn stop_after<T>(self, connections: T) {
        drop(connections);
        self.stop().await;
    }

    /// All its metrics now. Keys are `name{label=value,..}` with the labels in order of their names.
    pub async fn metrics(&self) -> HashMap<String, f64> {
        let (status, body) = get(self.admin, "/metrics").await.expect("metrics");
        assert_eq!(status, 200);
        body.lines().filter(|line| !line.starts_with('#')).map(metric_line).collect()
    }

    /// One of its metrics now.
    pub async fn metric(&self, name: &str) -> f64 {
        *self.metrics().await.get(name).unwrap_or_else(|| panic!("no metric {name}"))
    }

    /// Scrapes until a metric satisfies `condition`.
    pub async fn wait_metric(&self, name: &str, condition: impl Fn(f64) -> bool) -> f64 {
        eventually(name, async || Some(self.metric(name).await).filter(|value| condition(*value))).await
    }

    /// Scrapes until a metric is `expected`.
    pub async fn wait_for(&self, name: &str, expected: u64) {
        self.wait_metric(name, |value| value == expected as f64).await;
    }
}

/// A configuration from its YAML; two workers and a free port for admin are added.
fn parsed(yaml: &str) -> Config {
    let yaml = format!("{yaml}\nname: test\nworkers: 2\nadmin: {{ listen: \"127.0.0.1:0\" }}\n");
    config::parse("test.yaml", &yaml).unwrap_or_else(|errors| panic!("{errors}\n{yaml}"))
}

fn metric_line(line: &str) -> (String, f64) {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
    let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
    let Some((name, labels)) = series.split_once('{') else { return (series.to_owned(), value) };
    let mut labels: Vec<_> = labels.trim_end_matches('}').split(',').map(|label| label.replace('"', "")).collect();
    labels.sort();
    (format!("{name}{{{}}}", labels.join(",")), value)
}

/// GETs over HTTP: the status and the body.
pub async fn get(addr: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok((status, body.to_owned()))
}

/// A stand-in target; the test accepts and plays it.
pub async fn target() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// A stand-in target that sends back what it gets, each connection until its end.
pub async fn echo_target() -> SocketAddr {
    let (listener, addr) = target().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    addr
}

/// An address that refuses connections for as long as the socket lives: bound, and not listening.
pub fn refusing() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

/// Connects from an address of the test's choice.
pub async fn connect_from(local: &str, to: SocketAddr) -> TcpStream {
    let local: IpAddr = local.parse().unwrap();
    let socket = if local.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
    socket.bind(SocketAddr::new(local, 0)).unwrap();
    let stream = socket.connect(to).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Accepts a connection on a stand-in target.
pub async fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Reads exactly `count` bytes.
pub async fn read(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).await.unwrap();
    bytes
}

/// Reads until the other side closes, however it does that: a reset is the end too where the other
/// side had bytes that it did not read.
pub async fn read_to_close(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => return bytes,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
                return bytes;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Sends `bytes` and expects them back.
pub async fn echoes(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    assert_eq!(read(stream, bytes.len()).await, bytes);
}

/// Whether a connection is served: it echoes, rather than being closed.
pub async fn is_served(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    stream.write_all(b"?").await.is_ok() && matches!(stream.read(&mut byte).await, Ok(1))
}

/// A PROXY v2 header as the specification writes it, apart from the code under test.
pub fn v2(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    v2_with(source, destination, &[])
}

/// The same, with TLVs.
pub fn v2_with(source: SocketAddr, destination: SocketAddr, tlvs: &[u8]) -> Vec<u8> {
    let (family, mut payload) = match (source.ip(), destination.ip()) {
        (IpAddr::V4(s), IpAddr::V4(d)) => (0x11, [s.octets(), d.octets()].concat()),
        (s, d) => (0x21, [v6(s).octets(), v6(d).octets()].concat()),
    };
    payload.extend(source.port().to_be_bytes());
    payload.extend(destination.port().to_be_bytes());
    payload.extend(tlvs);
    v2_raw(0x21, family, &payload)
}

/// A PROXY v2 header of any content.
pub fn v2_raw(version_command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u16).to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[version_command, family], &length, payload].concat()
}

fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// A PROXY v1 line.
pub fn v1(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (s, d) = (source.ip(), destination.ip());
    format!("PROXY {family} {s} {d} {} {}\r\n", source.port(), destination.port()).into_bytes()
}

/// Bytes that show where they belong.
pub fn pattern(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(&mut next).take(count.div_ceil(8)).flatten().collect();
    bytes.truncate(count);
    bytes
}

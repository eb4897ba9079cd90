//! A core and edges as `main` starts them, a game server and a link that do exactly what they are told.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use otproxy::config::{self, Config};
use otproxy::roles;
use otproxy::wire::frame::{self, ClientId, Frame, FromCore, PacketId, SessionId};
use otproxy::wire::proxy_header::write_v2;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Only against a test that hangs.
pub const HANG: Duration = Duration::from_secs(60);
/// Between two looks at metrics.
const POLL: Duration = Duration::from_millis(10);

pub const CLIENT: ClientId = ClientId(1000);
pub const S: SessionId = SessionId(7);
pub const PORT: u16 = 7172;
/// Peers of these addresses are the edges `a` and `b`.
pub const EDGE_A: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
pub const EDGE_B: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

pub fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bounded = async { tokio::time::timeout(HANG, test).await.expect("the test hangs") };
    let result = catch_unwind(AssertUnwindSafe(|| runtime.block_on(bounded)));
    // A core that a failed test left running would keep the runtime for ever.
    runtime.shutdown_background();
    result.unwrap_or_else(|panic| resume_unwind(panic))
}

pub fn player(last: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, last], 40_000))
}

/// A core's file, but for what tests change.
#[derive(Debug, Clone)]
pub struct Setup {
    pub servers: Vec<String>,
    pub sessions: &'static str,
    pub listener: &'static str,
    pub workers: usize,
}

impl Setup {
    /// One game server, on [`PORT`]; `extra` are more of its keys.
    pub fn to(game: &Game, extra: &str) -> Self {
        Self { servers: Vec::new(), sessions: "", listener: "", workers: 1 }.and(PORT, game.addr, extra)
    }

    pub fn and(mut self, port: u16, addr: SocketAddr, extra: &str) -> Self {
        self.servers.push(format!("{{ port: {port}, address: \"{addr}\", {extra} }}"));
        self
    }

    pub fn sessions(self, sessions: &'static str) -> Self {
        Self { sessions, ..self }
    }

    pub fn start(self) -> Core {
        let text = format!(
            "role: core\nworkers: {}\nshutdown_timeout: 0s\nadmin: {{ listen: \"127.0.0.1:0\" }}\n\
             edges: [{{ name: a, address: {EDGE_A} }}, {{ name: b, address: {EDGE_B} }}]\n\
             listeners: [{{ name: links, kind: relay, listen: \"127.0.0.1:0\", {} }}]\n\
             game_servers: [{}]\nsessions: {{ {} }}\n",
            self.workers,
            self.listener,
            self.servers.join(", "),
            self.sessions
        );
        let Config::Core(config) = config::parse("core.yaml", &text).unwrap_or_else(|e| panic!("{e}\n{text}")) else {
            panic!("not a core")
        };
        let service = roles::core::bind(config).unwrap();
        let links = service.addresses("links")[0];
        let admin = service.admin_address().unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(service.run(async { drop(stopped.await) }));
        Core { links, admin, stop, task }
    }
}

pub struct Core {
    pub links: SocketAddr,
    admin: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Core {
    pub async fn link(&self) -> Link {
        self.link_of(EDGE_A, player(1), CLIENT).await
    }

    /// A link that has opened [`S`], and the connection that the game server got for it.
    pub async fn play(&self, game: &Game) -> (Link, GameConn) {
        let mut link = self.link().await;
        link.open(S, PORT).await;
        let (conn, _) = game.accept_otc().await;
        (link, conn)
    }

    /// A link that came over `edge`, with its first ping answered.
    pub async fn link_of(&self, edge: Ipv4Addr, player: SocketAddr, client: ClientId) -> Link {
        let mut link = self.silent_link(edge, player).await;
        link.send(&frame::ping(client, 0)).await;
        assert_eq!(link.next().await, Some(Seen::Pong));
        link.client = client;
        link
    }

    /// A link that has sent the PROXY header, and nothing else.
    pub async fn silent_link(&self, edge: Ipv4Addr, player: SocketAddr) -> Link {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((edge, 0).into()).unwrap();
        let stream = socket.connect(self.links).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut link = Link { stream, input: Vec::new(), client: CLIENT };
        let mut header = Vec::new();
        let destination = match player.ip() {
            IpAddr::V4(_) => SocketAddr::from(([203, 0, 113, 1], 7162)),
            IpAddr::V6(_) => "[2001:db8:1::1]:7162".parse().unwrap(),
        };
        write_v2(&mut header, player, destination);
        link.send(&header).await;
        link
    }

    async fn scrape(&self) -> String {
        let mut stream = TcpStream::connect(self.admin).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    /// The sum of all series of `name` that have all `labels`, each as `key="value"`.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        sum(&self.scrape().await, name, labels)
    }

    pub async fn wait(&self, name: &str, labels: &[&str], value: f64) {
        loop {
            let text = self.scrape().await;
            if sum(&text, name, labels) == value {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    pub async fn ended(&self, reason: &str) {
        self.wait("otproxy_relay_sessions_ended_total", &[&format!("reason=\"{reason}\"")], 1.0).await;
    }

    pub async fn refused(&self, reason: &str, count: f64) {
        self.wait("otproxy_relay_refused_total", &[&format!("reason=\"{reason}\"")], count).await;
    }

    pub async fn close(self) {
        let _ = self.stop.send(());
        self.task.await.unwrap().unwrap();
    }
}

fn sum(text: &str, name: &str, labels: &[&str]) -> f64 {
    let series = text.lines().filter_map(|line| line.rsplit_once(' ')).filter(|(series, _)| {
        let (family, rest) = series.split_once('{').unwrap_or((series, ""));
        family == name && labels.iter().all(|label| rest.contains(label))
    });
    series.map(|(_, value)| value.parse::<f64>().unwrap()).sum()
}

/// An edge on loopback, which can be killed.
pub struct Edge {
    pub addr: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Edge {
    pub fn start(listen: SocketAddr, core: SocketAddr) -> Self {
        let text = format!(
            "role: edge\nworkers: 1\nshutdown_timeout: 0s\nadmin: {{ listen: off }}\n\
             listeners: [{{ name: links, listen: \"{listen}\", forward_to: \"{core}\" }}]\n"
        );
        let Config::Edge(config) = config::parse("edge.yaml", &text).unwrap_or_else(|e| panic!("{e}")) else {
            panic!("not an edge")
        };
        let service = roles::edge::bind(config).unwrap();
        let addr = service.addresses("links")[0];
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(service.run(async { drop(stopped.await) }));
        Self { addr, stop, task }
    }

    /// Cuts all connections and closes the listener.
    pub async fn kill(self) -> SocketAddr {
        let _ = self.stop.send(());
        self.task.await.unwrap().unwrap();
        self.addr
    }
}

/// What a link got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Pong,
    Data { session: SessionId, packet: u32, ack: u32, payload: Vec<u8> },
    End(SessionId),
}

pub fn data(packet: u32, ack: u32, payload: &[u8]) -> Option<Seen> {
    Some(Seen::Data { session: S, packet, ack, payload: payload.to_vec() })
}

/// A link, frame by frame.
pub struct Link {
    pub stream: TcpStream,
    input: Vec<u8>,
    client: ClientId,
}

impl Link {
    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next frame; `None` at the end of the link.
    pub async fn next(&mut self) -> Option<Seen> {
        loop {
            if let Some((frame, rest)) = Frame::split(&self.input).expect("a frame") {
                let seen = match frame.from_core().expect("a frame of the core") {
                    FromCore::Pong => Seen::Pong,
                    FromCore::End { session } => Seen::End(session),
                    FromCore::Data { session, packet, ack, payload } => {
                        Seen::Data { session, packet: packet.0, ack: ack.0, payload: payload.to_vec() }
                    }
                };
                let used = self.input.len() - rest.len();
                self.input.drain(..used);
                return Some(seen);
            }
            // A reset is an end as well.
            if self.stream.read_buf(&mut self.input).await.unwrap_or(0) == 0 {
                assert!(self.input.is_empty(), "half a frame at the end");
                return None;
            }
        }
    }

    pub async fn open(&mut self, session: SessionId, port: u16) {
        self.send(&frame::open(session, port)).await;
    }

    pub async fn leave(&mut self, session: SessionId) {
        self.send(&frame::end(session)).await;
    }

    pub async fn data(&mut self, session: SessionId, packet: u32, ack: u32, payload: &[u8]) {
        let header = frame::data_header(session, PacketId(packet), PacketId(ack), payload.len());
        self.send(&[&header, payload].concat()).await;
    }

    /// All that was sent before has been taken in once this returns. Nothing else may be under way.
    pub async fn sync(&mut self) {
        self.send(&frame::ping(self.client, 20)).await;
        assert_eq!(self.next().await, Some(Seen::Pong));
    }
}

/// A game server: each connection is the test's to accept.
pub struct Game {
    pub addr: SocketAddr,
    listener: TcpListener,
}

impl Game {
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { addr: listener.local_addr().unwrap(), listener }
    }

    pub async fn accept(&self) -> GameConn {
        let (stream, peer) = self.listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        GameConn { stream, peer }
    }

    /// Accepts a session of a server with `player_address: otc`; gives the address as well.
    pub async fn accept_otc(&self) -> (GameConn, Ipv4Addr) {
        let mut conn = self.accept().await;
        let header = conn.read(6).await;
        assert_eq!(header[..2], [0xFE, 0xFF]);
        (conn, Ipv4Addr::new(header[2], header[3], header[4], header[5]))
    }
}

pub struct GameConn {
    pub stream: TcpStream,
    pub peer: SocketAddr,
}

impl GameConn {
    pub async fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    pub async fn expect(&mut self, bytes: &[u8]) {
        assert_eq!(self.read(bytes.len()).await, bytes);
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The connection ends, and nothing came before that.
    pub async fn expect_end(&mut self) {
        assert_eq!(self.stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
    }
}

/// `u16 length + body`.
pub fn packet(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u16).to_le_bytes()[..], body].concat()
}

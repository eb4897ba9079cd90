//! A game server to stand in for a real one: it speaks first, echoes, and pushes packets of its own.
//!
//! A connection begins with the player's address in the form `otc` (`FE FF` and 4 bytes). The server
//! answers with a challenge of 14 bytes, sends back each packet as it is, and pushes numbered
//! packets ([`super::packet`]) at a fixed rate. What players number is judged on arrival.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::packet::{self, Origin};
use super::proof::{Judge, Proof};

/// What announces the player's address.
const OTC: [u8; 2] = [0xFE, 0xFF];
/// The first packet of a game server: `0C 00`, and 12 bytes.
pub const CHALLENGE: [u8; 14] = *b"\x0C\0\0\0\0\0\x06\0\x1Fchall";
/// Connections whose numbers are kept; the oldest are forgotten beyond.
const MAX_KEPT: usize = 10_000;
/// A pause after a failed accept: without it, a lack of descriptors makes a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// Bytes read at once.
const READ_SIZE: usize = 16 * 1024;

/// How a game server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GameServerOptions {
    /// The time between two packets of its own on a connection; `None` for no such packets.
    pub push_every: Option<Duration>,
    /// Bytes of such a packet.
    pub push_size: usize,
}

impl Default for GameServerOptions {
    fn default() -> Self {
        Self { push_every: Some(Duration::from_millis(100)), push_size: 200 }
    }
}

/// The numbers of one connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectionStats {
    /// The player's address, once it has been told.
    pub player: Option<Ipv4Addr>,
    /// The player's numbered packets: what has arrived so far.
    pub received: Proof,
    /// The highest number among them.
    pub highest: u64,
    /// Packets that arrived without a number of the player's.
    pub other: u64,
    /// Packets sent back, numbered or not.
    pub echoed: u64,
    /// Packets of the server's own, numbered from 1.
    pub pushed: u64,
    /// Bytes received, the address included.
    pub bytes_received: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Whether it is over.
    pub closed: bool,
}

#[derive(Debug)]
struct Shared {
    options: GameServerOptions,
    connections: Mutex<VecDeque<Arc<Mutex<ConnectionStats>>>>,
    /// Counts changes of any connection's numbers.
    changes: watch::Sender<u64>,
    quiet: CancellationToken,
    stop: CancellationToken,
}

/// A game server on 127.0.0.1. Dropping it stops it.
#[derive(Debug)]
pub struct GameServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

impl GameServer {
    /// Starts a game server on a free port, on the current tokio runtime.
    ///
    /// # Errors
    /// Where no port can be bound.
    pub async fn start(options: GameServerOptions) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            options,
            connections: Mutex::default(),
            changes: watch::channel(0).0,
            quiet: CancellationToken::new(),
            stop: CancellationToken::new(),
        });
        let tasks = TaskTracker::new();
        tasks.spawn(accept(listener, shared.clone(), tasks.clone()));
        tasks.close();
        Ok(Self { addr, shared, tasks })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The numbers of its connections, the oldest first.
    pub fn connections(&self) -> Vec<ConnectionStats> {
        let connections = self.shared.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.iter().map(|stats| *stats.lock().unwrap_or_else(PoisonError::into_inner)).collect()
    }

    /// Waits until the connections' numbers satisfy `condition`, and gives them.
    pub async fn wait_until(&self, mut condition: impl FnMut(&[ConnectionStats]) -> bool) -> Vec<ConnectionStats> {
        let mut changes = self.shared.changes.subscribe();
        loop {
            let connections = self.connections();
            // The sender lives as long as this server: there is always another change to wait for.
            if condition(&connections) || changes.changed().await.is_err() {
                return connections;
            }
        }
    }

    /// Pushes no more packets of its own, on any connection. It still sends back what arrives.
    pub fn quiet(&self) {
        self.shared.quiet.cancel();
    }

    /// Closes all connections, waits for its tasks, and gives the last numbers.
    pub async fn close(self) -> Vec<ConnectionStats> {
        self.shared.stop.cancel();
        self.tasks.wait().await;
        self.connections()
    }
}

impl Drop for GameServer {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, tasks: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            () = shared.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => drop(tasks.spawn(serve(stream, shared.clone()))),
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let stats = Arc::new(Mutex::new(ConnectionStats { received: Judge::new().so_far(), ..ConnectionStats::default() }));
    {
        let mut connections = shared.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.push_back(stats.clone());
        if connections.len() > MAX_KEPT {
            connections.pop_front();
        }
    }
    let mut connection = Connection { stream, judge: Judge::new(), shared: &shared, stats: &stats };
    tokio::select! {
        () = shared.stop.cancelled() => {}
        // However it ends, it is over: the player's side says why.
        _ = connection.run() => {}
    }
    // What the peer has not taken is lost with it.
    let _ = connection.stream.shutdown().await;
    connection.count(|stats| stats.closed = true);
}

struct Connection<'a> {
    stream: TcpStream,
    judge: Judge,
    shared: &'a Shared,
    stats: &'a Mutex<ConnectionStats>,
}

impl Connection<'_> {
    async fn run(&mut self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        let mut header = [0; 6];
        self.stream.read_exact(&mut header).await?;
        let [a, b, c, d, e, f] = header;
        if [a, b] != OTC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no player address"));
        }
        self.count(|stats| {
            stats.player = Some(Ipv4Addr::new(c, d, e, f));
            stats.bytes_received += header.len() as u64;
        });
        self.write(&CHALLENGE).await?;
        self.play().await
    }

    async fn play(&mut self) -> io::Result<()> {
        let options = self.shared.options;
        let every = options.push_every.map(|every| every.max(Duration::from_millis(1)));
        // Without pushes the timer still exists, and is never looked at.
        let period = every.unwrap_or(Duration::from_secs(1));
        let mut timer = interval_at(Instant::now() + period, period);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut buffer = vec![0; READ_SIZE];
        let mut input = Vec::new();
        let mut pushed = 0;
        loop {
            tokio::select! {
                _ = timer.tick(), if every.is_some() && !self.shared.quiet.is_cancelled() => {
                    // The tick may have been awaited since before the quiet.
                    if self.shared.quiet.is_cancelled() {
                        continue;
                    }
                    pushed += 1;
                    // Counted first: whoever receives it finds it counted.
                    self.count(|stats| stats.pushed = pushed);
                    self.write(&packet::numbered(Origin::Server, pushed, options.push_size)).await?;
                }
                read = self.stream.read(&mut buffer) => {
                    let count = read?;
                    if count == 0 {
                        return Ok(());
                    }
                    input.extend_from_slice(buffer.get(..count).unwrap_or_default());
                    let whole = self.judge(&input, count);
                    if let Some(echo) = input.get(..whole) {
                        self.write(echo).await?;
                    }
                    input.drain(..whole);
                }
            }
        }
    }

    /// Judges the whole packets at the front of `input`: how many bytes they are.
    fn judge(&mut self, input: &[u8], arrived: usize) -> usize {
        let mut rest = input;
        let (mut packets, mut other) = (0, 0);
        while let Some((bytes, next)) = packet::split(rest) {
            rest = next;
            packets += 1;
            match packet::number(bytes) {
                Some((Origin::Player, number)) => self.judge.see(number),
                _ => other += 1,
            }
        }
        let (received, highest) = (self.judge.so_far(), self.judge.highest());
        self.count(|stats| {
            stats.received = received;
            stats.highest = highest;
            stats.other += other;
            stats.echoed += packets;
            stats.bytes_received += arrived as u64;
        });
        input.len() - rest.len()
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.count(|stats| stats.bytes_sent += bytes.len() as u64);
        Ok(())
    }

    fn count(&self, update: impl FnOnce(&mut ConnectionStats)) {
        update(&mut self.stats.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.changes.send_modify(|changes| *changes += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only against a test that hangs.
    const HANG: Duration = Duration::from_secs(60);

    fn run<F: Future>(test: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(HANG, test).await.expect("the test hangs") })
    }

    async fn connect(server: &GameServer) -> TcpStream {
        let mut stream = TcpStream::connect(server.addr()).await.unwrap();
        stream.write_all(&[0xFE, 0xFF, 203, 0, 113, 7]).await.unwrap();
        let mut challenge = [0; 14];
        stream.read_exact(&mut challenge).await.unwrap();
        assert_eq!(challenge, CHALLENGE);
        stream
    }

    async fn read_packet(stream: &mut TcpStream) -> Vec<u8> {
        let length = stream.read_u16_le().await.unwrap();
        let mut packet = length.to_le_bytes().to_vec();
        packet.resize(2 + usize::from(length), 0);
        stream.read_exact(&mut packet[2..]).await.unwrap();
        packet
    }

    #[test]
    fn echoes_and_judges() {
        run(async {
            let server = GameServer::start(GameServerOptions { push_every: None, push_size: 0 }).await.unwrap();
            let mut stream = connect(&server).await;
            for number in [1, 2, 4, 3, 3, 6] {
                let packet = packet::numbered(Origin::Player, number, 50);
                for byte in packet.chunks(7) {
                    stream.write_all(byte).await.unwrap();
                }
                assert_eq!(read_packet(&mut stream).await, packet);
            }
            stream.write_all(b"\x02\0hi").await.unwrap();
            assert_eq!(read_packet(&mut stream).await, b"\x02\0hi");
            drop(stream);
            let connections = server.wait_until(|all| all.iter().all(|stats| stats.closed)).await;
            let [stats] = connections[..] else { panic!("{connections:?}") };
            assert_eq!(stats.player, Some(Ipv4Addr::new(203, 0, 113, 7)));
            assert_eq!((stats.highest, stats.other, stats.echoed), (6, 1, 7));
            let proof = Proof { delivered: 5, lost: 1, duplicated: 1, reordered: 1, alien: 0, exact: true };
            assert_eq!(stats.received, proof);
            assert_eq!((stats.bytes_received, stats.bytes_sent), (6 + 6 * 50 + 4, 14 + 6 * 50 + 4));
            server.close().await;
        });
    }

    #[test]
    fn pushes_numbered_packets_and_ends_cleanly() {
        run(async {
            let options = GameServerOptions { push_every: Some(Duration::from_millis(1)), push_size: 64 };
            let server = GameServer::start(options).await.unwrap();
            let mut stream = connect(&server).await;
            let mut judge = Judge::new();
            for _ in 0..20 {
                let packet = read_packet(&mut stream).await;
                assert_eq!(packet.len(), 64);
                let Some((Origin::Server, number)) = packet::number(&packet) else { panic!("{packet:?}") };
                judge.see(number);
            }
            assert!(judge.verdict(20).perfect());
            let last = server.close().await;
            assert!(last[0].closed && last[0].pushed >= 20);
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
        });
    }

    #[test]
    fn echoes_but_does_not_push_once_quiet() {
        run(async {
            let options = GameServerOptions { push_every: Some(Duration::from_millis(1)), push_size: 64 };
            let server = GameServer::start(options).await.unwrap();
            server.quiet();
            let mut stream = connect(&server).await;
            for number in 1..=20 {
                let packet = packet::numbered(Origin::Player, number, 50);
                stream.write_all(&packet).await.unwrap();
                assert_eq!(read_packet(&mut stream).await, packet);
            }
            assert_eq!(server.close().await[0].pushed, 0);
        });
    }

    #[test]
    fn refuses_a_connection_without_the_players_address() {
        run(async {
            let server = GameServer::start(GameServerOptions::default()).await.unwrap();
            let mut stream = TcpStream::connect(server.addr()).await.unwrap();
            stream.write_all(b"\x04\0abcd").await.unwrap();
            assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
            let connections = server.wait_until(|all| all.iter().any(|stats| stats.closed)).await;
            assert_eq!(connections[0].player, None);
        });
    }
}

//! A game server to stand in for a real one: it speaks first, echoes, and pushes packets of its own.
//!
//! A connection may begin with the player's address, in any form that a core sends it in. The server
//! answers the first bytes with a challenge of 14 bytes, sends back each packet as it is, and pushes
//! numbered packets ([`super::packet`]) at a fixed rate. Players' numbers are checked on arrival.
//!
//! A player that says its terms ([`super::message`]) is not echoed: it gets what it asked for.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use otproxy_protocol::proxy_header::{may_be_header, parse, unmap};

use super::clock;
use super::message::Message;
use super::packet::{self, PacketOrigin};
use super::throttle::ConnectThrottle;
use super::timer::Timer;
use crate::delivery::{Delivery, DeliveryCheck};

/// The start of the player's address in the form `otc`.
const OTC: [u8; 2] = [0xFE, 0xFF];
/// The first packet of a game server: `0C 00`, and 12 bytes.
pub const CHALLENGE: [u8; 14] = *b"\x0C\0\0\0\0\0\x06\0\x1Fchall";
/// Connections whose numbers are kept; the oldest are forgotten beyond.
const MAX_KEPT: usize = 10_000;
/// A pause after a failed accept: without it, a lack of descriptors makes a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// Bytes read at once.
const READ_SIZE: usize = 16 * 1024;
/// Connections that the kernel may complete ahead of an accept; it cuts this to its own limit.
const BACKLOG: u32 = 4096;
/// The least time between two pushes on a connection, whatever its player asks for.
const MIN_EVERY: Duration = Duration::from_millis(1);

/// The options of a game server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MockGameServerOptions {
    /// The time between two packets of its own on a connection; `None` for no such packets.
    pub push_every: Option<Duration>,
    /// Bytes of such a packet.
    pub push_size: usize,
}

impl Default for MockGameServerOptions {
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
    pub received: Delivery,
    /// The highest number among them.
    pub highest: u64,
    /// Packets that arrived without a number of the player's.
    pub other: u64,
    /// Packets sent back, numbered or not.
    pub echoed: u64,
    /// Packets of the server's own, numbered from 1. To a player with terms its answers are among them.
    pub pushed: u64,
    /// Bytes received, the address included.
    pub bytes_received: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// True once it is over.
    pub closed: bool,
}

#[derive(Debug)]
struct Shared {
    options: MockGameServerOptions,
    /// Refuses those that connect too often, if there is one.
    throttle: Option<Arc<ConnectThrottle>>,
    connections: Mutex<VecDeque<Arc<Mutex<ConnectionStats>>>>,
    /// Counts changes of any connection's numbers.
    changes: watch::Sender<u64>,
    quiet: CancellationToken,
    /// True while it stands still.
    still: watch::Sender<bool>,
    stop: CancellationToken,
    timer: Timer,
}

impl Shared {
    /// Waits until it stands still no more.
    async fn moves(&self) {
        // The sender lives as long as this.
        let _ = self.still.subscribe().wait_for(|still| !still).await;
    }

    fn admits(&self, peer: SocketAddr) -> bool {
        self.throttle.as_ref().is_none_or(|throttle| throttle.admits(peer.ip(), Instant::now()))
    }
}

/// A game server. Dropping it stops it.
#[derive(Debug)]
pub struct MockGameServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

impl MockGameServer {
    /// Starts a game server on a free port of 127.0.0.1, on the current tokio runtime.
    ///
    /// # Errors
    /// Where no port can be bound.
    pub async fn start(options: MockGameServerOptions) -> io::Result<Self> {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), options)
    }

    /// Starts a game server at an address of the caller's choice, on the current tokio runtime.
    ///
    /// # Errors
    /// Where that cannot be bound.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start_at(addr: SocketAddr, options: MockGameServerOptions) -> io::Result<Self> {
        Self::start_with(addr, options, None)
    }

    /// Starts a game server as [`MockGameServer::start_at`] does, which lets in as this throttle does. Ports of one server
    /// share it.
    ///
    /// # Errors
    /// Where the address cannot be bound.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start_throttled(
        addr: SocketAddr,
        options: MockGameServerOptions,
        throttle: Arc<ConnectThrottle>,
    ) -> io::Result<Self> {
        Self::start_with(addr, options, Some(throttle))
    }

    fn start_with(
        addr: SocketAddr,
        options: MockGameServerOptions,
        throttle: Option<Arc<ConnectThrottle>>,
    ) -> io::Result<Self> {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        let listener = socket.listen(BACKLOG)?;
        let addr = listener.local_addr()?;
        let (timer, driver) = Timer::new()?;
        let shared = Arc::new(Shared {
            options,
            throttle,
            connections: Mutex::default(),
            changes: watch::channel(0).0,
            quiet: CancellationToken::new(),
            still: watch::Sender::new(false),
            stop: CancellationToken::new(),
            timer,
        });
        let tasks = TaskTracker::new();
        tasks.spawn(shared.stop.clone().run_until_cancelled_owned(driver));
        tasks.spawn(accept(listener, shared.clone(), tasks.clone()));
        tasks.close();
        Ok(Self { addr, shared, tasks })
    }

    /// Returns the address that it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the numbers of its connections, the oldest first.
    pub fn connections(&self) -> Vec<ConnectionStats> {
        let connections = self.shared.connections.lock();
        connections.iter().map(|stats| *stats.lock()).collect()
    }

    /// Waits until the connections' numbers satisfy `condition`, and returns them.
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

    /// Has it stand still, as a server that saves does: it reads and sends nothing, on any connection, until it is to go on.
    pub fn stand_still(&self, still: bool) {
        self.shared.still.send_replace(still);
    }

    /// Closes all connections, waits for its tasks, and returns the last numbers.
    pub async fn close(self) -> Vec<ConnectionStats> {
        self.shared.stop.cancel();
        self.tasks.wait().await;
        self.connections()
    }
}

impl Drop for MockGameServer {
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
            Ok((_, peer)) if !shared.admits(peer) => {}
            Ok((stream, _)) => drop(tasks.spawn(serve(stream, shared.clone()))),
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let stats =
        Arc::new(Mutex::new(ConnectionStats { received: DeliveryCheck::new().so_far(), ..ConnectionStats::default() }));
    {
        let mut connections = shared.connections.lock();
        connections.push_back(stats.clone());
        if connections.len() > MAX_KEPT {
            connections.pop_front();
        }
    }
    let mut connection = Connection::new(stream, &shared, &stats);
    tokio::select! {
        () = shared.stop.cancelled() => {}
        // However it ends, it is over: the player's side says why.
        _ = connection.run() => {}
    }
    // Bytes that the peer has not read are lost with it.
    let _ = connection.stream.shutdown().await;
    connection.count(|stats| stats.closed = true);
}

/// Packets that are sent without being asked for.
#[derive(Debug, Clone, Copy)]
struct Pushes {
    every: Duration,
    /// The time at which the next one is to be sent.
    next: Instant,
}

struct Connection<'a> {
    stream: TcpStream,
    check: DeliveryCheck,
    /// `None` for no pushes, or no more.
    pushes: Option<Pushes>,
    size: usize,
    /// The player has said its terms.
    terms: bool,
    pushed: u64,
    shared: &'a Shared,
    stats: &'a Mutex<ConnectionStats>,
}

impl<'a> Connection<'a> {
    fn new(stream: TcpStream, shared: &'a Shared, stats: &'a Mutex<ConnectionStats>) -> Self {
        let MockGameServerOptions { push_every, push_size: size } = shared.options;
        let pushes = push_every.map(|every| Pushes::starting_at(Instant::now(), every, every));
        Self { stream, check: DeliveryCheck::new(), pushes, size, terms: false, pushed: 0, shared, stats }
    }

    async fn run(&mut self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        let mut buffer = vec![0; READ_SIZE];
        let mut input = Vec::new();
        let (player, length) = loop {
            if let Some(announced) = announced(&input)? {
                break announced;
            }
            self.read(&mut buffer, &mut input).await?;
        };
        input.drain(..length);
        self.count(|stats| {
            stats.player = player;
            stats.bytes_received += length as u64;
        });
        self.write(&CHALLENGE).await?;
        if let Some(pushes) = &mut self.pushes {
            *pushes = Pushes::starting_at(Instant::now(), pushes.every, pushes.every);
        }
        // The address may have come together with a packet.
        self.take(&mut input).await?;
        loop {
            self.shared.moves().await;
            let pushes = self.pushes.filter(|_| !self.shared.quiet.is_cancelled());
            let next = pushes.map_or_else(Instant::now, |pushes| pushes.next);
            tokio::select! {
                () = self.shared.timer.sleep_until(next), if pushes.is_some() => {
                    self.shared.moves().await;
                    // It may have slept since before the quiet.
                    if !self.shared.quiet.is_cancelled() {
                        self.push(next).await?;
                    }
                }
                read = self.stream.read(&mut buffer) => {
                    take_in(&mut input, &buffer, read?)?;
                    self.shared.moves().await;
                    self.take(&mut input).await?;
                }
            }
        }
    }

    async fn read(&mut self, buffer: &mut [u8], input: &mut Vec<u8>) -> io::Result<()> {
        let count = self.stream.read(buffer).await?;
        take_in(input, buffer, count)
    }

    /// Sends what was to be sent at `due`.
    async fn push(&mut self, due: Instant) -> io::Result<()> {
        self.pushed += 1;
        let pushed = self.pushed;
        // Counted first, so that its receiver finds it counted.
        self.count(|stats| stats.pushed = pushed);
        let packet = if self.terms {
            Message::Push { number: pushed, sent: clock::nanos(due) }.packet(self.size)
        } else {
            packet::numbered(PacketOrigin::Server, pushed, self.size)
        };
        self.write(&packet).await?;
        if let Some(pushes) = &mut self.pushes {
            // Terms are kept to whatever holds the server up: a load that slows down with what it
            // measures hides how slow that is. Without terms nobody wants a burst after a pause.
            let from = if self.terms { due } else { Instant::now() };
            pushes.next = from + pushes.every;
        }
        Ok(())
    }

    /// Checks and answers the whole packets at the front of `input`, and leaves the rest.
    async fn take(&mut self, input: &mut Vec<u8>) -> io::Result<()> {
        let arrived = Instant::now();
        let mut rest = &input[..];
        let (mut output, mut echoed, mut other) = (Vec::new(), 0, 0);
        while let Some((packet, next)) = packet::split(rest) {
            rest = next;
            match Message::of(packet) {
                Some(message) => self.obey(message, arrived, &mut output),
                None => {
                    match packet::number(packet) {
                        Some((PacketOrigin::Player, number)) => self.check.see(number),
                        _ => other += 1,
                    }
                    echoed += 1;
                    output.extend_from_slice(packet);
                }
            }
        }
        let taken = input.len() - rest.len();
        input.drain(..taken);
        let (received, highest, pushed) = (self.check.so_far(), self.check.highest(), self.pushed);
        self.count(|stats| {
            stats.received = received;
            stats.highest = highest;
            stats.other += other;
            stats.echoed += echoed;
            stats.pushed = pushed;
            stats.bytes_received += taken as u64;
        });
        if output.is_empty() { Ok(()) } else { self.write(&output).await }
    }

    /// Does what a message says; what is to be sent goes to `output`.
    fn obey(&mut self, message: Message, arrived: Instant, output: &mut Vec<u8>) {
        match message {
            Message::Terms { every, first, size } => {
                self.terms = true;
                self.size = usize::try_from(size).unwrap_or(usize::MAX);
                let (first, every) = (Duration::from_nanos(first), Duration::from_nanos(every));
                self.pushes = (!every.is_zero()).then(|| Pushes::starting_at(arrived, first, every));
                output.extend(Message::Welcome { clock: clock::id() }.packet(0));
            }
            Message::Up { number, sent: asked } => {
                self.check.see(number);
                self.pushed += 1;
                let answer = Message::Answer { number: self.pushed, sent: clock::nanos(arrived), asked };
                output.extend(answer.packet(self.size));
            }
            Message::Question { sent } => {
                self.pushes = None;
                output.extend(Message::Verdict { sent: self.pushed, received: self.check.verdict(sent) }.packet(0));
            }
            // The server's own: nobody sends them here.
            Message::Welcome { .. } | Message::Push { .. } | Message::Answer { .. } | Message::Verdict { .. } => {}
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.count(|stats| stats.bytes_sent += bytes.len() as u64);
        Ok(())
    }

    fn count(&self, update: impl FnOnce(&mut ConnectionStats)) {
        update(&mut self.stats.lock());
        self.shared.changes.send_modify(|changes| *changes += 1);
    }
}

impl Pushes {
    fn starting_at(now: Instant, first: Duration, every: Duration) -> Self {
        let every = every.max(MIN_EVERY);
        // A time that cannot be is as good as never: then the first comes a period from now.
        Self { every, next: now.checked_add(first).unwrap_or(now + every) }
    }
}

/// Takes in the bytes of a read. The end of the stream is an end like any other.
fn take_in(input: &mut Vec<u8>, buffer: &[u8], count: usize) -> io::Result<()> {
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    input.extend_from_slice(buffer.get(..count).unwrap_or_default());
    Ok(())
}

/// Returns the player's IPv4 address at the front of a connection, if it is announced, and the length of the
/// announcement. `None` if more bytes are needed to tell.
fn announced(bytes: &[u8]) -> io::Result<Option<(Option<Ipv4Addr>, usize)>> {
    if bytes.is_empty() || bytes == &OTC[..1] {
        return Ok(None);
    }
    if let Some(address) = bytes.strip_prefix(&OTC) {
        return Ok(address.first_chunk::<4>().map(|address| (Some(Ipv4Addr::from(*address)), OTC.len() + 4)));
    }
    if !may_be_header(bytes) {
        return Ok(Some((None, 0)));
    }
    let header = parse(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(header.map(|(header, length)| match header.source.map(|source| unmap(source.ip())) {
        Some(IpAddr::V4(player)) => (Some(player), length),
        _ => (None, length),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use otproxy_protocol::proxy_header::{write_v1, write_v2};

    /// Only against a test that hangs.
    const HANG: Duration = Duration::from_secs(60);

    fn run<F: Future>(test: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(HANG, test).await.expect("the test hangs") })
    }

    async fn connect(server: &MockGameServer) -> TcpStream {
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
            let server = MockGameServer::start(MockGameServerOptions { push_every: None, push_size: 0 }).await.unwrap();
            let mut stream = connect(&server).await;
            for number in [1, 2, 4, 3, 3, 6] {
                let packet = packet::numbered(PacketOrigin::Player, number, 50);
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
            let proof = Delivery { delivered: 5, lost: 1, duplicated: 1, reordered: 1, alien: 0, exact: true };
            assert_eq!(stats.received, proof);
            assert_eq!((stats.bytes_received, stats.bytes_sent), (6 + 6 * 50 + 4, 14 + 6 * 50 + 4));
            server.close().await;
        });
    }

    #[test]
    fn pushes_numbered_packets_and_ends_cleanly() {
        run(async {
            let options = MockGameServerOptions { push_every: Some(Duration::from_millis(1)), push_size: 64 };
            let server = MockGameServer::start(options).await.unwrap();
            let mut stream = connect(&server).await;
            let mut check = DeliveryCheck::new();
            for _ in 0..20 {
                let packet = read_packet(&mut stream).await;
                assert_eq!(packet.len(), 64);
                let Some((PacketOrigin::Server, number)) = packet::number(&packet) else { panic!("{packet:?}") };
                check.see(number);
            }
            assert!(check.verdict(20).perfect());
            let last = server.close().await;
            assert!(last[0].closed && last[0].pushed >= 20);
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
        });
    }

    #[test]
    fn echoes_but_does_not_push_once_quiet() {
        run(async {
            let options = MockGameServerOptions { push_every: Some(Duration::from_millis(1)), push_size: 64 };
            let server = MockGameServer::start(options).await.unwrap();
            server.quiet();
            let mut stream = connect(&server).await;
            for number in 1..=20 {
                let packet = packet::numbered(PacketOrigin::Player, number, 50);
                stream.write_all(&packet).await.unwrap();
                assert_eq!(read_packet(&mut stream).await, packet);
            }
            assert_eq!(server.close().await[0].pushed, 0);
        });
    }

    #[test]
    fn takes_the_players_address_in_every_form_at_every_byte() {
        let (player, server) = (SocketAddr::from(([203, 0, 113, 7], 50_000)), SocketAddr::from(([127, 0, 0, 1], 7)));
        let (mut v1, mut v2) = (Vec::new(), Vec::new());
        write_v1(&mut v1, player, server);
        write_v2(&mut v2, player, server);
        let forms: [&[u8]; 4] = [&[0xFE, 0xFF, 203, 0, 113, 7], &v1, &v2, b""];
        for form in forms {
            let bytes = [form, b"\x02\0hi"].concat();
            let expected = (!form.is_empty()).then_some(Ipv4Addr::new(203, 0, 113, 7));
            for cut in 0..form.len() {
                assert_eq!(announced(&bytes[..cut]).unwrap(), None, "{form:?}");
            }
            assert_eq!(announced(&bytes).unwrap(), Some((expected, form.len())), "{form:?}");
        }
        assert!(announced(b"PROXY nonsense\r\n").is_err());
    }

    #[test]
    fn serves_a_connection_without_the_players_address() {
        run(async {
            let server = MockGameServer::start(MockGameServerOptions { push_every: None, push_size: 0 }).await.unwrap();
            let mut stream = TcpStream::connect(server.addr()).await.unwrap();
            stream.write_all(b"\x04\0abcd").await.unwrap();
            let mut answer = [0; 20];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, *[&CHALLENGE[..], b"\x04\0abcd"].concat());
            assert_eq!(server.connections()[0].player, None);
        });
    }

    #[test]
    fn keeps_to_the_terms_of_a_player_and_judges_at_the_end() {
        run(async {
            let server = MockGameServer::start(MockGameServerOptions { push_every: None, push_size: 0 }).await.unwrap();
            let mut stream = connect(&server).await;
            let millis = |count: u64| count * 1_000_000;
            let terms = Message::Terms { every: millis(1), first: millis(2), size: 77 };
            let ups = [1, 2, 4].map(|number| Message::Up { number, sent: 1000 + number }.packet(30));
            stream.write_all(&[terms.packet(0), ups.concat()].concat()).await.unwrap();
            assert_eq!(Message::of(&read_packet(&mut stream).await), Some(Message::Welcome { clock: clock::id() }));
            let (mut downs, mut answers, mut last) = (0, Vec::new(), 0);
            while downs < 20 || answers.len() < 3 {
                let packet = read_packet(&mut stream).await;
                assert_eq!(packet.len(), 77);
                downs += 1;
                match Message::of(&packet) {
                    Some(Message::Push { number, sent }) => {
                        // One exactly a period after the other, whenever it was really sent.
                        assert!(last == 0 || sent == last + millis(1), "{sent} after {last}");
                        assert_eq!(number, downs);
                        last = sent;
                    }
                    Some(Message::Answer { number, asked, .. }) => {
                        assert_eq!(number, downs);
                        answers.push(asked);
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(answers, [1001, 1002, 1004]);
            stream.write_all(&Message::Question { sent: 5 }.packet(0)).await.unwrap();
            let (sent, received) = loop {
                downs += 1;
                match Message::of(&read_packet(&mut stream).await) {
                    Some(Message::Push { .. }) => {}
                    Some(Message::Verdict { sent, received }) => break (sent, received),
                    other => panic!("{other:?}"),
                }
            };
            assert_eq!(sent, downs - 1, "the verdict is the last, and no packet of the load");
            assert_eq!(
                received,
                Delivery { delivered: 3, lost: 2, duplicated: 0, reordered: 0, alien: 0, exact: true }
            );
        });
    }
}

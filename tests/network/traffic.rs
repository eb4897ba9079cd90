//! Players and a game server that send each other numbered packets, and what became of each: whether
//! it arrived, once and in order, and when.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use otproxy_protocol::frame::ClientId;
use otproxy_testkit::delivery::{Delivery, DeliveryCheck};
use otproxy_testkit::mock::packet::{self, PacketOrigin};
use otproxy_testkit::player::{
    ClientClocks, GameSession, PathOptions, Player, PlayerOptions, PlayerStats, SessionSender,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::topology::{GAME_PORT, Topology, player_address, player_index};

/// Only against a test that hangs: how long a state may take to come on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(10);

/// How the players play.
#[derive(Debug, Clone)]
pub struct Play {
    /// Players, with one session each.
    pub players: usize,
    /// The edges that they know.
    pub edges: Vec<&'static str>,
    /// Links that carry a session at once.
    pub links: usize,
    /// The clients' clocks.
    pub clocks: ClientClocks,
    /// Between two packets of a player, and of the game server to a player.
    pub every: [Duration; 2],
    /// Their bytes.
    pub sizes: [usize; 2],
}

impl Play {
    /// 40 players, 5 packets a second up and 10 down.
    pub fn new(edges: &[&'static str], links: usize) -> Self {
        Self {
            players: 40,
            edges: edges.to_vec(),
            links,
            clocks: ClientClocks::default(),
            every: [Duration::from_millis(200), Duration::from_millis(100)],
            sizes: [40, 200],
        }
    }
}

/// One direction of a session.
#[derive(Debug, Default)]
struct Stream {
    /// When each packet was sent; the first is number 1.
    sent: Vec<Instant>,
    judge: DeliveryCheck,
    late: Vec<Duration>,
}

impl Stream {
    /// Counts a packet that is sent now; gives its number.
    fn send(&mut self) -> u64 {
        self.sent.push(Instant::now());
        self.sent.len() as u64
    }

    fn receive(&mut self, number: u64) {
        self.judge.see(number);
        if let Some(sent) = (number as usize).checked_sub(1).and_then(|index| self.sent.get(index)) {
            self.late.push(sent.elapsed());
        }
    }

    fn verdict(&self) -> Delivery {
        self.judge.verdict(self.sent.len() as u64)
    }
}

/// What is known of one session.
#[derive(Debug, Default)]
struct Record {
    up: Stream,
    down: Stream,
    /// Connections that the game server has had from this player.
    connections: u32,
    /// The session is over, at either side.
    ended: bool,
    /// Frames that known clients would have lost or cut wrongly.
    violations: u64,
}

type Records = Arc<Vec<Mutex<Record>>>;

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Players and a game server at work. Dropping it ends both.
pub struct Traffic {
    records: Records,
    players: Vec<Player>,
    /// No more packets are sent.
    quiet: CancellationToken,
    stop: CancellationToken,
    threads: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// Starts them; gives them once each player has all its links and has heard of the game server.
    pub fn start(topology: &Topology, play: &Play) -> Self {
        let records: Records = Arc::new((0..play.players).map(|_| Mutex::default()).collect());
        let (quiet, stop) = (CancellationToken::new(), CancellationToken::new());
        let (sender, players) = mpsc::channel();
        let enter = topology.game().entrance();
        let (server_play, server_records) = (play.clone(), Arc::clone(&records));
        let (server_quiet, server_stop) = (quiet.clone(), stop.clone());
        let game = thread::spawn(move || {
            enter();
            run(&server_stop, serve(server_play, server_records, server_quiet));
        });
        let enter = topology.network().host("player").entrance();
        let (their_play, their_records) = (play.clone(), Arc::clone(&records));
        let (their_quiet, their_stop) = (quiet.clone(), stop.clone());
        let edges: Vec<_> = play.edges.iter().map(|edge| topology.edge_address(edge)).collect();
        let client = thread::spawn(move || {
            enter();
            let seats = async {
                let mut tasks = JoinSet::new();
                let mut seated = Vec::new();
                for index in 0..their_play.players {
                    let local = Some(IpAddr::V4(player_address(index)));
                    let mut options = PlayerOptions::new(ClientId(index as u32 + 1), []);
                    options.paths = edges.iter().map(|edge| PathOptions { local, ..PathOptions::new(*edge) }).collect();
                    options.links_per_session = their_play.links;
                    options.clocks = their_play.clocks;
                    let player = Player::connect(options);
                    let session = player.open(GAME_PORT).await;
                    let (records, quiet) = (Arc::clone(&their_records), their_quiet.clone());
                    tasks.spawn(speak(session.sender(), index, their_play.clone(), records, quiet));
                    tasks.spawn(listen(session, index, Arc::clone(&their_records)));
                    seated.push(player);
                }
                let _ = sender.send(seated);
                while tasks.join_next().await.is_some() {}
                std::future::pending::<()>().await;
            };
            run(&their_stop, seats);
        });
        let players = players.recv().expect("the players have seats");
        let traffic = Self { records, players, quiet, stop, threads: vec![game, client] };
        traffic.wait_for_links(&(0..play.edges.len()).collect::<Vec<_>>());
        traffic.wait_for_packets(1);
        traffic
    }

    /// Waits until every player can use these of its paths.
    pub fn wait_for_links(&self, paths: &[usize]) {
        self.wait_until_all("links stand", |stats| paths.iter().all(|path| stats.paths[*path].ready));
    }

    /// Waits until no player can use any of these paths.
    pub fn wait_for_no_links(&self, paths: &[usize]) {
        self.wait_until_all("links are given up", |stats| paths.iter().all(|path| !stats.paths[*path].ready));
    }

    fn wait_until_all(&self, what: &str, condition: impl Fn(&PlayerStats) -> bool) {
        eventually(what, || self.players.iter().all(|player| condition(&player.stats())));
    }

    /// Waits until in each session `count` more packets have arrived in each direction.
    pub fn wait_for_packets(&self, count: u64) {
        let arrived = |record: &Record| [&record.up, &record.down].map(|stream| stream.judge.highest());
        let before: Vec<_> = self.records.iter().map(|record| arrived(&lock(record))).collect();
        eventually("packets arrive in every session", || {
            self.records.iter().zip(&before).all(|(record, before)| {
                let record = lock(record);
                assert!(!record.ended, "a session ended");
                arrived(&record).iter().zip(before).all(|(now, before)| *now >= before + count)
            })
        });
    }

    /// Forgets how late packets have been so far.
    pub fn forget_lateness(&self) {
        for record in self.records.iter() {
            let mut record = lock(record);
            record.up.late.clear();
            record.down.late.clear();
        }
    }

    /// How late the latest packet has been since.
    pub fn latest(&self) -> Duration {
        let latest = |record: &Mutex<Record>| {
            let record = lock(record);
            record.up.late.iter().chain(&record.down.late).max().copied()
        };
        self.records.iter().filter_map(latest).max().unwrap_or_default()
    }

    /// The last round trips that players measured on a path.
    pub fn round_trips(&self, path: usize) -> Vec<Duration> {
        self.players.iter().filter_map(|player| player.stats().paths[path].rtt).collect()
    }

    /// Ends the game: no more is sent, and what is under way may arrive. Then says what became of all.
    pub fn finish(&self) -> Outcome {
        self.quiet.cancel();
        eventually("all that was sent arrives", || {
            self.records.iter().all(|record| {
                let record = lock(record);
                record.ended || [&record.up, &record.down].iter().all(|s| s.judge.highest() >= s.sent.len() as u64)
            })
        });
        let mut outcome = Outcome::default();
        for record in self.records.iter() {
            let record = lock(record);
            for (sum, stream) in outcome.directions.iter_mut().zip([&record.up, &record.down]) {
                let verdict = stream.verdict();
                sum.sent += stream.sent.len() as u64;
                sum.delivered += verdict.delivered;
                sum.faults += u64::from(!verdict.perfect());
                sum.late.extend(&stream.late);
            }
            outcome.ended += u64::from(record.ended);
            outcome.extra += u64::from(record.connections.saturating_sub(1));
            outcome.violations += record.violations;
        }
        outcome.directions.iter_mut().for_each(|direction| direction.late.sort_unstable());
        outcome
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Looks at `condition` until it holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        thread::sleep(LOOK);
    }
}

/// What became of one direction of all sessions.
#[derive(Debug, Default)]
pub struct Direction {
    pub sent: u64,
    pub delivered: u64,
    /// Sessions in which a packet was lost, doubled, out of order or never sent.
    pub faults: u64,
    /// From the shortest to the longest.
    pub late: Vec<Duration>,
}

/// The time within which `share` of all came, of times that are sorted.
pub fn percentile(times: &[Duration], share: f64) -> Duration {
    let rank = (times.len() as f64 * share).ceil() as usize;
    times.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// What became of all packets.
#[derive(Debug, Default)]
pub struct Outcome {
    /// To the game server, and to the players.
    pub directions: [Direction; 2],
    /// Sessions that ended although nobody left.
    pub ended: u64,
    /// Connections to the game server beyond one for each player.
    pub extra: u64,
    /// Frames that known clients would have lost or cut wrongly.
    pub violations: u64,
}

impl Outcome {
    /// Takes in what became of another game's packets.
    pub fn add(&mut self, other: Self) {
        for (sum, direction) in self.directions.iter_mut().zip(other.directions) {
            sum.sent += direction.sent;
            sum.delivered += direction.delivered;
            sum.faults += direction.faults;
            sum.late.extend(direction.late);
            sum.late.sort_unstable();
        }
        self.ended += other.ended;
        self.extra += other.extra;
        self.violations += other.violations;
    }

    /// Nothing was lost, doubled or out of order, and no session ended.
    pub fn assert_perfect(&self) {
        for direction in &self.directions {
            assert!(direction.sent > 0 && direction.faults == 0 && direction.delivered == direction.sent, "{self}");
        }
        assert_eq!((self.ended, self.extra, self.violations), (0, 0, 0), "{self}");
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, direction) in ["up", "down"].into_iter().zip(&self.directions) {
            let [p50, p99, p999] =
                [0.5, 0.99, 0.999].map(|share| percentile(&direction.late, share).as_secs_f64() * 1e3);
            let Direction { sent, delivered, faults, .. } = direction;
            write!(f, "{name:>4} {p50:4.0} {p99:4.0} {p999:4.0} ms, {delivered} of {sent}, {faults} faulty; ")?;
        }
        write!(f, "{} ended, {} extra, {} violations", self.ended, self.extra, self.violations)
    }
}

fn run(stop: &CancellationToken, work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { stop.run_until_cancelled(work).await });
}

/// A timer of which player `index` has its own part, so that not all send at once.
fn pace(every: Duration, index: usize, players: usize) -> tokio::time::Interval {
    let first = tokio::time::Instant::now() + every.mul_f64((index + 1) as f64 / players as f64);
    let mut timer = interval_at(first, every);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    timer
}

/// A player's packets.
async fn speak(sender: SessionSender, index: usize, play: Play, records: Records, quiet: CancellationToken) {
    let mut timer = pace(play.every[0], index, play.players);
    while quiet.run_until_cancelled(timer.tick()).await.is_some() {
        let number = lock(&records[index]).up.send();
        if sender.send(packet::numbered(PacketOrigin::Player, number, play.sizes[0])).await.is_err() {
            return;
        }
    }
}

/// What a player gets.
async fn listen(mut session: GameSession, index: usize, records: Records) {
    while let Some(packet) = session.recv().await {
        let stats = session.stats();
        let mut record = lock(&records[index]);
        record.violations = stats.gaps + stats.miscut + stats.bad_acks;
        if let Some((PacketOrigin::Server, number)) = packet::number(&packet) {
            record.down.receive(number);
        }
    }
    lock(&records[index]).ended = true;
}

/// A game server that takes the players' addresses in the form `otc`.
async fn serve(play: Play, records: Records, quiet: CancellationToken) {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, GAME_PORT)).await.unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        let (play, records, quiet) = (play.clone(), Arc::clone(&records), quiet.clone());
        tokio::spawn(async move {
            let mut index = None;
            let _ = play_with(stream, play, &records, quiet, &mut index).await;
            if let Some(record) = index.and_then(|index: usize| records.get(index)) {
                lock(record).ended = true;
            }
        });
    }
}

async fn play_with(
    mut stream: TcpStream,
    play: Play,
    records: &Records,
    quiet: CancellationToken,
    index: &mut Option<usize>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut header = [0; 6];
    stream.read_exact(&mut header).await?;
    let [0xFE, 0xFF, a, b, c, d] = header else { return Err(io::ErrorKind::InvalidData.into()) };
    let player = player_index(Ipv4Addr::new(a, b, c, d)).ok_or(io::ErrorKind::InvalidData)?;
    let record = records.get(player).ok_or(io::ErrorKind::InvalidData)?;
    *index = Some(player);
    lock(record).connections += 1;
    stream.write_all(&otproxy_testkit::mock::game_server::CHALLENGE).await?;
    let mut timer = pace(play.every[1], player, play.players);
    let (mut buffer, mut input) = (vec![0; 16 * 1024], Vec::new());
    loop {
        tokio::select! {
            _ = timer.tick(), if !quiet.is_cancelled() => {
                if !quiet.is_cancelled() {
                    let number = lock(record).down.send();
                    stream.write_all(&packet::numbered(PacketOrigin::Server, number, play.sizes[1])).await?;
                }
            }
            read = stream.read(&mut buffer) => {
                let count = read?;
                if count == 0 {
                    return Ok(());
                }
                input.extend_from_slice(&buffer[..count]);
                let mut rest = &input[..];
                while let Some((bytes, next)) = packet::split(rest) {
                    rest = next;
                    if let Some((PacketOrigin::Player, number)) = packet::number(bytes) {
                        lock(record).up.receive(number);
                    }
                }
                input = rest.to_vec();
            }
        }
    }
}

//! A load test against edges and a core that run: players over links, a mock game server behind them, and what became
//! of all packets.
//!
//! - `seat`: one player. `line`: what carries its packets. `crew`: the threads that players run on.
//! - [`histogram`] and [`figures`], pure: latencies, sums and the verdict.
//!
//! The load is open: each packet has a time at which it is to be sent, all players' times are spread
//! evenly, and a relay that slows down does not slow the load down. Latencies count from that time.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use thiserror::Error;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, sleep_until, timeout};

use crate::mock::message::{MIN_DOWN, MIN_UP};
use crate::mock::packet::MAX_PACKET;
use crate::mock::{MockGameServer, MockGameServerOptions};

mod crew;
pub mod figures;
pub mod histogram;
mod line;
mod seat;

pub use figures::{LoadReport, Meter, PathReport};
pub use histogram::Histogram;

use crew::PlayerThreads;
use seat::{BenchPlayer, LoadPhase, LoadPlan, PlayerReport, StartFailure};

/// The sizes that a player's packets can have.
pub const UP_SIZES: std::ops::RangeInclusive<usize> = MIN_UP..=MAX_PACKET;
/// The sizes that the game server's packets can have.
pub const DOWN_SIZES: std::ops::RangeInclusive<usize> = MIN_DOWN..=MAX_PACKET;

/// The time limit of an edge's answer to the first connect.
const PROBE: Duration = Duration::from_secs(4);
/// The time between the arrivals of two players: 500 of them in a second.
const RAMP: Duration = Duration::from_millis(2);
/// The time that packets on their way at the end may take to arrive.
const SETTLE: Duration = Duration::from_secs(15);
/// Between two lines of progress.
const SHOW: Duration = Duration::from_millis(500);
/// Open files besides the connections.
const OTHER_FILES: u64 = 64;

/// The options of a load test.
#[derive(Debug, Clone, PartialEq)]
pub struct BenchOptions {
    /// The edges, as `HOST:PORT`: each player has a link to every one, in this order.
    pub edges: Vec<String>,
    /// The port that they ask the core for; `None` for plain connections, without links and core.
    pub port: Option<u16>,
    /// Players.
    pub players: usize,
    /// Links that carry a session, at most as many as there are edges.
    pub links: usize,
    /// Packets a second from each player.
    pub up: f64,
    /// Packets a second to each player, one answer to each of its own among them: not less than `up`.
    pub down: f64,
    /// Bytes of a packet from a player, in [`UP_SIZES`].
    pub size_up: usize,
    /// Bytes of a packet to a player, in [`DOWN_SIZES`].
    pub size_down: usize,
    /// The time that is measured.
    pub duration: Duration,
    /// The time that players play before it.
    pub warmup: Duration,
    /// The address at which this process is the game server as well.
    pub serve: Option<SocketAddr>,
    /// True if players announce addresses of their own in PROXY headers, as an edge does.
    pub send_proxy: bool,
    /// Threads that players run on.
    pub threads: usize,
    /// The limit of this process's open files.
    pub file_limit: u64,
}

/// The reason why a load test could not run. Each message has the remedy.
#[derive(Debug, Error)]
pub enum BenchError {
    /// The process may not have as many files open as this needs.
    #[error(
        "so many players and links need {needed} open files, and only {limit} are allowed: choose fewer, or raise \
         `ulimit -Hn`"
    )]
    Files {
        /// Files that would be open.
        needed: u64,
        /// Files that may be.
        limit: u64,
    },
    /// A thread, a runtime or a timer could not be had.
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
    /// The mock game server's address cannot be had.
    #[error("the game server cannot listen on {address}: {error}{}", if error.kind() == io::ErrorKind::AddrInUse {
        " (another process listens there: see `ss -ltnp`)" } else { "" })]
    Serve {
        /// The address.
        address: SocketAddr,
        /// The cause.
        error: io::Error,
    },
    /// An edge's name has no address.
    #[error("`{edge}` is no address with a port: {error}; write it as `p1.example:7162` or `198.51.100.7:7162`")]
    Resolve {
        /// As it was given.
        edge: String,
        /// The cause.
        error: io::Error,
    },
    /// Nobody answers at an edge.
    #[error(
        "nobody answers at {edge}: {error}; does the edge run and listen there, and does its firewall let this host in?"
    )]
    NoAnswer {
        /// The edge.
        edge: SocketAddr,
        /// The cause.
        error: io::Error,
    },
    /// Players did not get into the game.
    #[error("{out} of {players} players did not get into the game; the first: {why}")]
    Out {
        /// The number of players.
        out: usize,
        /// Of how many that tried.
        players: usize,
        /// The reason of the first of them.
        why: String,
    },
    /// It was ended before it began.
    #[error("ended before all players were in the game")]
    Interrupted,
}

/// Runs the mock game server alone, until `interrupt` comes. Calls `listening` with its address first.
///
/// # Errors
/// Where it cannot listen.
pub async fn serve(
    address: SocketAddr,
    listening: impl FnOnce(SocketAddr),
    interrupt: impl Future<Output = ()>,
) -> Result<(), BenchError> {
    let server = game_server(address)?;
    listening(server.addr());
    interrupt.await;
    server.close().await;
    Ok(())
}

/// Starts the mock game server as a load test uses it: it pushes what players ask for, and nothing else.
fn game_server(address: SocketAddr) -> Result<MockGameServer, BenchError> {
    MockGameServer::start_at(address, MockGameServerOptions { push_every: None, push_size: 0 })
        .map_err(|error| BenchError::Serve { address, error })
}

/// A display of a load test's progress.
pub trait Progress {
    /// Shows how many players are in the game, of how many.
    fn entering(&mut self, inside: usize, players: usize);

    /// Shows how long they have played, of how long, and what `meter` returns.
    fn playing(&mut self, elapsed: Duration, whole: Duration, meter: &dyn Fn() -> Meter);

    /// Shows nothing any more.
    fn end(&mut self);
}

/// Shows nothing.
impl Progress for () {
    fn entering(&mut self, _: usize, _: usize) {}

    fn playing(&mut self, _: Duration, _: Duration, _: &dyn Fn() -> Meter) {}

    fn end(&mut self) {}
}

/// Runs a load test, until its time is over or `interrupt` comes.
///
/// # Errors
/// Fails if it cannot run; what it finds out is in the [`LoadReport`].
pub async fn run(
    options: &BenchOptions,
    progress: &mut dyn Progress,
    interrupt: impl Future<Output = ()>,
) -> Result<LoadReport, BenchError> {
    let connections =
        if options.port.is_some() { options.edges.len() } else { 1 } + usize::from(options.serve.is_some());
    let needed = (connections as u64).saturating_mul(options.players as u64).saturating_add(OTHER_FILES);
    if needed > options.file_limit {
        return Err(BenchError::Files { needed, limit: options.file_limit });
    }
    let mut edges = Vec::new();
    for edge in &options.edges {
        edges.push(resolve(edge).await?);
    }
    let mut crew = PlayerThreads::start(options.threads)?;
    if let Some(address) = options.serve {
        crew.serve(move || game_server(address)).await??;
    }
    for edge in edges.iter().collect::<BTreeSet<_>>() {
        probe(*edge).await?;
    }
    let bench = Bench { options, plan: Arc::new(plan(options, edges)), phase: watch::channel(LoadPhase::Enter).0 };
    let result = bench.play(&crew, progress, interrupt).await;
    // In any case players leave, and the threads end.
    bench.phase.send_replace(LoadPhase::Leave);
    drop(bench);
    crew.end().await;
    result
}

fn plan(options: &BenchOptions, edges: Vec<SocketAddr>) -> LoadPlan {
    let every = |rate: f64| (rate > 0.0).then(|| Duration::from_secs_f64(1.0 / rate));
    LoadPlan {
        edges,
        port: options.port,
        links: options.links,
        players: options.players,
        send_proxy: options.send_proxy,
        up_every: every(options.up),
        push_every: every(options.down - options.up),
        size_up: options.size_up,
        size_down: options.size_down,
        // Not those of a test that ran before, whose sessions may linger.
        first_client: RandomState::new().hash_one(0) as u32,
    }
}

/// Returns the first address of a name, as clients try no other.
async fn resolve(edge: &str) -> Result<SocketAddr, BenchError> {
    let fail = |error| BenchError::Resolve { edge: edge.to_owned(), error };
    let mut found = lookup_host(edge).await.map_err(fail)?;
    found.next().ok_or_else(|| fail(io::Error::other("the name has no address")))
}

async fn probe(edge: SocketAddr) -> Result<(), BenchError> {
    let connect = timeout(PROBE, TcpStream::connect(edge)).await;
    let connected = connect.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in 4 s")));
    connected.map(drop).map_err(|error| BenchError::NoAnswer { edge, error })
}

struct Bench<'a> {
    options: &'a BenchOptions,
    plan: Arc<LoadPlan>,
    phase: watch::Sender<LoadPhase>,
}

impl Bench<'_> {
    async fn play(
        &self,
        crew: &PlayerThreads,
        progress: &mut dyn Progress,
        interrupt: impl Future<Output = ()>,
    ) -> Result<LoadReport, BenchError> {
        tokio::pin!(interrupt);
        let (reports, mut reported) = mpsc::unbounded_channel();
        tokio::select! {
            entered = self.enter(crew, reports, &mut reported, progress) => entered?,
            () = &mut interrupt => return Err(BenchError::Interrupted),
        }
        let start = Instant::now();
        let measure = start + self.options.warmup;
        let end = measure + self.options.duration;
        self.phase.send_replace(LoadPhase::Play { start, measure, end });
        let mut cpu = Duration::ZERO;
        let whole = async {
            sleep_until(measure.into()).await;
            cpu = cpu_time();
            sleep_until(end.into()).await;
        };
        let early = tokio::select! {
            () = whole => false,
            () = &mut interrupt => true,
            () = show(crew, progress, start, end) => false,
        };
        let measured = measure.elapsed().min(self.options.duration);
        let cpu = if measured.is_zero() { Duration::ZERO } else { cpu_time().saturating_sub(cpu) };
        if early {
            self.phase.send_replace(LoadPhase::Stop);
        }
        let mut tallies = Vec::new();
        // A player without an answer by then reports what it has.
        let mut settled = timeout(SETTLE, gather(&mut reported, &mut tallies, self.options.players)).await.is_ok();
        self.phase.send_replace(LoadPhase::Leave);
        if !settled {
            settled = timeout(SETTLE, gather(&mut reported, &mut tallies, self.options.players)).await.is_ok();
        }
        progress.end();
        let paths = if self.options.port.is_some() { self.plan.edges.len() } else { 0 };
        let mut figures = LoadReport::of(crew.meter(), &tallies, paths);
        if !settled {
            figures.unanswered += self.options.players.saturating_sub(tallies.len()) as u64;
        }
        Ok(LoadReport { measured, cpu, early, ..figures })
    }

    /// Gets all players into the game: the first one alone, as what is wrong for all shows with it.
    async fn enter(
        &self,
        crew: &PlayerThreads,
        reports: mpsc::UnboundedSender<PlayerReport>,
        reported: &mut mpsc::UnboundedReceiver<PlayerReport>,
        progress: &mut dyn Progress,
    ) -> Result<(), BenchError> {
        let players = self.options.players;
        let (mut inside, mut out) = (0, 0);
        let mut first: Option<StartFailure> = None;
        for index in 0..players {
            let (plan, phase) = (self.plan.clone(), self.phase.subscribe());
            crew.seat(index, |meter| BenchPlayer { index, plan, meter, phase, reports: reports.clone() });
            let last = index + 1 == players;
            if index > 0 {
                sleep(RAMP).await;
            }
            loop {
                // The first one, and at the end all: until they have said how it went.
                let wait = index == 0 || last;
                let report =
                    if wait && inside + out <= index { reported.recv().await } else { reported.try_recv().ok() };
                match report {
                    Some(PlayerReport::In) => inside += 1,
                    Some(PlayerReport::Out(failure)) => {
                        first.get_or_insert(failure);
                        out += 1;
                    }
                    // Only after playing, which nobody does yet.
                    Some(PlayerReport::Done(_)) => {}
                    None => break,
                }
                progress.entering(inside, players);
            }
            if out > 0 && (index == 0 || last) {
                break;
            }
        }
        match first {
            None => Ok(()),
            Some(failure) => Err(BenchError::Out { out, players: inside + out, why: failure.to_string() }),
        }
    }
}

/// Gathers what players say at the end, until all have.
async fn gather(
    reported: &mut mpsc::UnboundedReceiver<PlayerReport>,
    tallies: &mut Vec<figures::BenchTally>,
    players: usize,
) {
    while tallies.len() < players {
        match reported.recv().await {
            Some(PlayerReport::Done(tally)) => tallies.push(*tally),
            Some(PlayerReport::In | PlayerReport::Out(_)) => {}
            None => return,
        }
    }
}

/// Shows the progress for ever.
async fn show(crew: &PlayerThreads, progress: &mut dyn Progress, start: Instant, end: Instant) {
    loop {
        sleep(SHOW).await;
        progress.playing(start.elapsed(), end - start, &|| crew.meter());
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0))
}

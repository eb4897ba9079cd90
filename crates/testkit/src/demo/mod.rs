//! The whole topology on loopback, to see it work: a mock game server, a core, edges and players on real sockets, and
//! the bookkeeping that proves that nothing is lost, doubled or out of order while edges are cut.
//!
//! - `seat`: one simulated player. `topology`: core and edges.
//! - [`figures`], pure: sums and the verdict. [`resources`]: memory and open files. [`display`]: what is given to be
//!   shown.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::mock::{MockGameServer, MockGameServerOptions};
use crate::role::Starter;

pub mod display;
pub mod figures;
pub mod resources;
mod seat;
mod topology;

pub use display::{Display, EdgeNow, Moment};
pub use figures::DemoReport;
pub use resources::{HighWater, Resources};

use seat::DemoPlayer;
use topology::{DemoCore, DemoEdge};

/// The time in which links and sessions must stand at the start, and a cut edge's links come back.
const START: Duration = Duration::from_secs(30);
const LINKS_BACK: Duration = Duration::from_secs(5);
/// The time that packets on their way at the end may take to arrive.
const SETTLE: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(20);
/// Between two looks at memory and open files.
const RESOURCES: Duration = Duration::from_millis(250);
/// Between two packets of a player. Many players send less often: all together about this many
/// packets a millisecond, so that a small machine keeps up with both sides of it.
const PACE: Duration = Duration::from_millis(100);
const PACE_PER_PLAYER: Duration = Duration::from_millis(1);
const PACKET_SIZE: usize = 120;
/// An edge is cut, is away and rests after its return for a part of the whole time, but not longer.
const REST_PARTS: u32 = 20;
const REST: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
const MAX_AWAY: Duration = Duration::from_secs(1);
/// Descriptors that each player needs: on each path its socket, two of the edge, one of the core;
/// and two for its connection to the game server.
const FILES_PER_PATH: u64 = 4;
const FILES_PER_SESSION: u64 = 2;
const OTHER_FILES: u64 = 512;

/// The size of a demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DemoOptions {
    /// Simulated players, at most 15 000.
    pub players: usize,
    /// Edges, at most 200.
    pub edges: usize,
    /// The time that the players play.
    pub duration: Duration,
    /// The limit of this process's open files.
    pub file_limit: u64,
}

/// The reason why a demo could not run.
#[derive(Debug, Error)]
pub enum DemoError {
    /// The process may not have as many files open as this needs.
    #[error(
        "so many players and edges need {needed} open files, and only {limit} are allowed: choose fewer, or raise \
         `ulimit -Hn`"
    )]
    Files {
        /// Files that would be open.
        needed: u64,
        /// Files that may be.
        limit: u64,
    },
    /// A socket, a thread or a runtime could not be had.
    #[error("cannot start {what}: {source}")]
    Start {
        /// The part that did not start.
        what: String,
        /// The cause.
        source: io::Error,
    },
    /// The core or an edge could not be started.
    #[error("{0}")]
    Role(Box<dyn Error + Send + Sync>),
    /// Links or sessions do not come to stand.
    #[error("after {START:?} only {ready} of {players} players are in the game")]
    Slow {
        /// Players whose session works over all links.
        ready: usize,
        /// All players.
        players: usize,
    },
}

/// The result of a demo.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DemoOutcome {
    /// The counts of all packets.
    pub figures: DemoReport,
    /// The number of times that an edge was cut.
    pub cuts: u64,
    /// The most that the process held while the players played.
    pub highest: HighWater,
    /// Files that were open once all had ended, and had not been before the start.
    pub files_left: u64,
    /// The time was up: it was not interrupted.
    pub in_time: bool,
}

impl DemoOutcome {
    /// Returns whether all packets arrived, once and in order, all sessions lasted, and no file was left open.
    pub fn passed(&self) -> bool {
        self.figures.perfect() && self.files_left == 0
    }
}

/// Plays the demo, until its time is over or `interrupt` comes. Takes free ports of 127.0.0.0/8, and gives all back.
/// The core and the edges are started by `starter`; `display` shows how it goes.
///
/// # Errors
/// Fails if it cannot run; its findings are in the [`DemoOutcome`].
pub async fn run(
    options: DemoOptions,
    starter: Starter,
    display: &mut dyn Display,
    interrupt: impl Future<Output = ()>,
) -> Result<DemoOutcome, DemoError> {
    tokio::pin!(interrupt);
    let mut demo = Demo::start(options, starter, display).await?;
    let result = tokio::select! {
        result = demo.open_seats() => result.map(|()| true),
        () = &mut interrupt => Ok(false),
    };
    let result = match result {
        Ok(true) => demo.play(interrupt).await,
        Ok(false) => Ok(false),
        Err(error) => Err(error),
    };
    demo.finish(result).await
}

struct Demo<'a> {
    options: DemoOptions,
    server: MockGameServer,
    core: DemoCore,
    edges: RefCell<Vec<DemoEdge>>,
    seats: Vec<DemoPlayer>,
    /// No more packets from players.
    quiet: CancellationToken,
    cuts: Cell<u64>,
    /// Files that were open before the start.
    files_before: u64,
    highest: Cell<HighWater>,
    started: Instant,
    display: RefCell<&'a mut dyn Display>,
}

impl<'a> Demo<'a> {
    async fn start(options: DemoOptions, starter: Starter, display: &'a mut dyn Display) -> Result<Self, DemoError> {
        let per_player = FILES_PER_PATH * options.edges as u64 + FILES_PER_SESSION;
        let needed = OTHER_FILES + per_player * options.players as u64;
        if needed > options.file_limit {
            return Err(DemoError::Files { needed, limit: options.file_limit });
        }
        let fail = |source| DemoError::Start { what: "the look at this process's open files".to_owned(), source };
        let files_before = Resources::now().map_err(fail)?.files;
        let pushes = MockGameServerOptions { push_every: Some(pace(options.players)), push_size: PACKET_SIZE };
        let server = MockGameServer::start(pushes)
            .await
            .map_err(|source| DemoError::Start { what: "the game server".to_owned(), source })?;
        let core = DemoCore::start(starter, server.addr(), options.edges)?;
        let edges: Result<Vec<_>, _> =
            core.links().iter().enumerate().map(|(index, links)| DemoEdge::start(starter, index, *links)).collect();
        let edges = edges?;
        display.begin(options, core.admin());
        Ok(Self {
            options,
            server,
            core,
            edges: RefCell::new(edges),
            seats: Vec::new(),
            quiet: CancellationToken::new(),
            cuts: Cell::new(0),
            files_before,
            highest: Cell::default(),
            started: Instant::now(),
            display: RefCell::new(display),
        })
    }

    /// Seats all players, and waits until each is in the game over all links.
    async fn open_seats(&mut self) -> Result<(), DemoError> {
        let players = self.options.players;
        let addresses: Vec<_> = self.edges.borrow().iter().map(DemoEdge::address).collect();
        for index in 0..players {
            self.seats.push(DemoPlayer::take(index, players, &addresses, self.quiet.clone()).await);
        }
        let ready = Cell::new(0);
        let all = async {
            for seat in &self.seats {
                seat.in_the_game().await;
                ready.set(ready.get() + 1);
            }
        };
        timeout(START, all).await.map_err(|_| DemoError::Slow { ready: ready.get(), players })
    }

    /// Lets them play and cuts edges. Gives whether the time was up, not the interrupt.
    async fn play(&mut self, interrupt: impl Future<Output = ()>) -> Result<bool, DemoError> {
        self.started = Instant::now();
        for seat in &self.seats {
            seat.start();
        }
        let over = CancellationToken::new();
        let this = &*self;
        let watch = async {
            let in_time = tokio::select! {
                () = sleep(this.options.duration) => true,
                () = interrupt => false,
                () = over.cancelled() => false,
                () = this.show() => false,
                () = this.watch_resources() => false,
            };
            over.cancel();
            in_time
        };
        let cut = async {
            let result = this.cut_edges(&over).await;
            over.cancel();
            result
        };
        let (in_time, cut) = tokio::join!(watch, cut);
        cut.map(|()| in_time)
    }

    /// Shows it for ever.
    async fn show(&self) {
        loop {
            let every = self.display.borrow().every();
            sleep(every).await;
            self.show_now(self.figures());
        }
    }

    /// Keeps the most that the process holds, for ever.
    async fn watch_resources(&self) {
        loop {
            // Only the start needs it: without /proc the demo does not run at all.
            if let Ok(resources) = Resources::now() {
                let mut highest = self.highest.get();
                highest.see(resources, self.started.elapsed(), self.options.duration);
                self.highest.set(highest);
            }
            sleep(RESOURCES).await;
        }
    }

    fn show_now(&self, figures: DemoReport) {
        let edges = self.edges.borrow();
        let moment = Moment {
            elapsed: self.started.elapsed().min(self.options.duration),
            cuts: self.cuts.get(),
            edges: edges.iter().enumerate().map(|(index, edge)| EdgeNow::new(edge, index, &self.seats)).collect(),
            figures,
        };
        self.display.borrow_mut().show(self.options, &moment);
    }

    /// Cuts one edge after another, never two at once, until it is `over`. All are up afterwards.
    async fn cut_edges(&self, over: &CancellationToken) -> Result<(), DemoError> {
        let rest = (self.options.duration / REST_PARTS).clamp(REST.0, REST.1);
        let away = (self.options.duration / 4).min(MAX_AWAY);
        for index in (0..self.options.edges).cycle() {
            if over.run_until_cancelled(sleep(rest)).await.is_none() {
                break;
            }
            let stopping = self.edges.borrow_mut().get_mut(index).and_then(DemoEdge::stop);
            self.cuts.set(self.cuts.get() + 1);
            if let Some(stopped) = stopping {
                log_end(stopped.ended().await);
            }
            let _ = over.run_until_cancelled(sleep(away)).await;
            self.bring_back(index).await?;
            let back = async {
                for seat in &self.seats {
                    seat.path_ready(index).await;
                }
            };
            // If the links are slow to come back, the next cut is harder on the sessions.
            if over.run_until_cancelled(timeout(LINKS_BACK, back)).await.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Starts a cut edge where it was. Its port was free to others for a while.
    async fn bring_back(&self, index: usize) -> Result<(), DemoError> {
        let deadline = Instant::now() + LINKS_BACK;
        loop {
            let result = self.edges.borrow_mut().get_mut(index).map_or(Ok(()), DemoEdge::restart);
            match result {
                Err(_) if Instant::now() < deadline => sleep(REST.0).await,
                result => return result,
            }
        }
    }

    fn figures(&self) -> DemoReport {
        // Arrivals are read before what was sent, so that nothing has arrived that was not sent.
        let arrived = self.server.connections();
        let tallies: Vec<_> = self.seats.iter().map(|seat| (seat.address(), seat.tally())).collect();
        DemoReport::of(&tallies, &arrived, &self.server.connections())
    }

    async fn settled(&self) {
        while !self.figures().settled() {
            sleep(LOOK).await;
        }
    }

    /// Waits for all that is on its way, ends everything, and says what was shown.
    async fn finish(mut self, result: Result<bool, DemoError>) -> Result<DemoOutcome, DemoError> {
        self.quiet.cancel();
        self.server.quiet();
        if result.is_ok() {
            // Packets that are still missing afterwards are lost.
            let _ = timeout(SETTLE, self.settled()).await;
        }
        let figures = self.figures().at_the_end();
        if result.is_ok() {
            self.show_now(figures);
        }
        let mut leaving: JoinSet<()> = self.seats.drain(..).map(DemoPlayer::leave).collect();
        while leaving.join_next().await.is_some() {}
        let stopping: Vec<_> = self.edges.borrow_mut().iter_mut().filter_map(DemoEdge::stop).collect();
        for stopped in stopping.into_iter().chain(self.core.stop()) {
            log_end(stopped.ended().await);
        }
        self.server.close().await;
        let in_time = result?;
        let files_left = Resources::now().map_or(0, |now| now.files.saturating_sub(self.files_before));
        Ok(DemoOutcome { figures, cuts: self.cuts.get(), highest: self.highest.get(), files_left, in_time })
    }
}

fn pace(players: usize) -> Duration {
    PACE.max(PACE_PER_PLAYER.saturating_mul(u32::try_from(players).unwrap_or(u32::MAX)))
}

/// Logs the end of a role that failed to end as asked. The fate of its players is in the figures.
fn log_end(ended: io::Result<()>) {
    if let Err(error) = ended {
        error!(%error, "a role ended on its own");
    }
}

//! One simulated player: it gets into the game, keeps to its rates, and says what became of its packets.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::mock::game_server::CHALLENGE;
use crate::mock::message::Message;
use crate::mock::{Timer, clock};
use crate::player::{ClientEndReason, GameSession, PathOptions, PathStats, Player, PlayerOptions};
use otproxy_protocol::frame::ClientId;
use otproxy_protocol::proxy_header::write_v2;

use super::figures::{BenchTally, Meter};
use super::line::{self, LineReceiver, LineSender};

/// The time in which all links of a player must stand: a lost first attempt is made again after 2.5 s.
const LINKS: Duration = Duration::from_secs(15);
/// The time in which a session must stand, and then the game server answer.
const SESSION: Duration = Duration::from_secs(10);
/// The network for benchmarks: players announced by `--send-proxy` come from here.
const BENCHMARKS: [u8; 2] = [198, 18];
/// Players at loopback edges connect from here.
const LOOPBACK: [u8; 2] = [127, 1];

/// The plan that all players follow.
#[derive(Debug)]
pub(super) struct LoadPlan {
    pub edges: Vec<SocketAddr>,
    /// The port to ask the core for; `None` for plain connections.
    pub port: Option<u16>,
    pub links: usize,
    pub players: usize,
    pub send_proxy: bool,
    /// Between two packets of a player; `None` for none.
    pub up_every: Option<Duration>,
    /// Between two packets of the game server that are no answers.
    pub push_every: Option<Duration>,
    pub size_up: usize,
    pub size_down: usize,
    /// The id of the first player; the others follow.
    pub first_client: u32,
}

impl LoadPlan {
    /// Returns the address of a player. Players do not live together: each is in a /24 of its own, as far as there are
    /// any.
    fn address(&self, network: [u8; 2], index: usize) -> Ipv4Addr {
        let [a, b] = network;
        Ipv4Addr::new(a, b, (index % 250) as u8, (index / 250 + 1) as u8)
    }

    fn path(&self, edge: SocketAddr, index: usize) -> PathOptions {
        let mut path = PathOptions::new(edge);
        // On loopback each player can have an address of its own, as players have.
        if edge.ip().is_loopback() && edge.is_ipv4() && !self.send_proxy {
            path.local = Some(IpAddr::V4(self.address(LOOPBACK, index)));
        }
        if self.send_proxy {
            let mut header = Vec::new();
            write_v2(&mut header, SocketAddr::new(self.address(BENCHMARKS, index).into(), 40_000), edge);
            path.preface = Bytes::from(header);
        }
        path
    }

    /// Returns the part of a period that a player begins with, so that all are spread over it evenly.
    fn phase(&self, period: Duration, index: usize) -> Duration {
        period.mul_f64(index as f64 / self.players.max(1) as f64)
    }

    fn terms(&self, index: usize) -> Message {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let every = self.push_every.unwrap_or_default();
        let first = nanos(self.phase(every, index));
        Message::Terms { every: nanos(every), first, size: self.size_down as u64 }
    }
}

/// The phase that all players are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoadPhase {
    /// They get into the game.
    Enter,
    /// They play.
    Play {
        start: Instant,
        /// From here to `end` it is measured.
        measure: Instant,
        end: Instant,
    },
    /// They send no more, and ask what became of it.
    Stop,
    /// They leave, answered or not.
    Leave,
}

/// The reason why a player did not get into the game.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StartFailure {
    /// A path has no link: whether a connection stood, at least.
    Link { edge: SocketAddr, connected: bool },
    /// The session was over before the game server spoke.
    Ended(Option<ClientEndReason>),
    /// No answer from the game server.
    Silence,
    /// Something else than the mock game server answers.
    Stranger,
    /// A plain connection could not be made, or broke.
    Plain(SocketAddr),
}

impl fmt::Display for StartFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link { edge, connected: false } => write!(
                f,
                "no connection to {edge} stays: is its target up, and is this host let in (`accept_proxy`, \
                 `limits.connections_per_address`)? Its log and its metrics `rejected_total` say more"
            ),
            Self::Link { edge, connected: true } => write!(
                f,
                "{edge} takes connections, but no ping is answered: does it lead to a listener of `kind: relay`? A \
                 core itself wants a PROXY header (`--send-proxy`) from an address in its `edges`"
            ),
            Self::Ended(Some(ClientEndReason::Core)) | Self::Ended(None) => f.write_str(
                "the core ended the session at once: is the port in `game_servers` of core.yaml, does the stand-in \
                 game server listen at its address, and are `sessions.max_per_address` and \
                 `sessions.opens_per_address` enough for players who all come from here? The core's metric `otproxy_relay_refused_total` says which",
            ),
            Self::Ended(Some(reason)) => write!(f, "the session is over: {reason}"),
            Self::Silence => f.write_str(
                "the session stands, but the stand-in game server does not answer: does the port lead to \
                 `otproxy bench --serve`?",
            ),
            Self::Stranger => f.write_str(
                "what answers is no stand-in game server but perhaps a real one: give a port that leads to \
                 `otproxy bench --serve`",
            ),
            Self::Plain(edge) => write!(
                f,
                "the connection to {edge} breaks: is its target the stand-in game server, and does it listen?"
            ),
        }
    }
}

/// A message of a player.
pub(super) enum PlayerReport {
    /// It is in the game.
    In,
    /// It did not get in.
    Out(StartFailure),
    /// It has played.
    Done(Box<BenchTally>),
}

/// A player.
pub(super) struct BenchPlayer {
    pub index: usize,
    pub plan: Arc<LoadPlan>,
    pub meter: Arc<Mutex<Meter>>,
    pub phase: watch::Receiver<LoadPhase>,
    pub reports: mpsc::UnboundedSender<PlayerReport>,
}

impl BenchPlayer {
    /// Plays, from the first connect to the last report.
    pub async fn run(self, timer: Timer) {
        let entered = tokio::select! {
            entered = self.enter() => entered,
            () = self.reached(|phase| phase == LoadPhase::Leave) => return,
        };
        // If nobody listens any more the test is over.
        match entered {
            Err(failure) => drop(self.reports.send(PlayerReport::Out(failure))),
            Ok(mut line) => {
                let _ = self.reports.send(PlayerReport::In);
                let tally = self.play(&mut line, &timer).await;
                let _ = self.reports.send(PlayerReport::Done(Box::new(tally)));
                self.reached(|phase| phase == LoadPhase::Leave).await;
                line.close().await;
            }
        }
    }

    async fn reached(&self, condition: impl Fn(LoadPhase) -> bool) {
        // Without its sender the test is over as well.
        let _ = self.phase.clone().wait_for(|phase| condition(*phase)).await;
    }

    /// Connects, opens, and agrees on terms with the game server.
    async fn enter(&self) -> Result<Line, StartFailure> {
        let mut line = match self.plan.port {
            Some(port) => self.open(port).await?,
            None => self.connect().await?,
        };
        let agreed = timeout(SESSION, async {
            if !line.outlet.send(self.plan.terms(self.index).packet(0)).await {
                return Err(line.dead());
            }
            loop {
                let Some(packet) = line.inlet.recv().await else { return Err(line.dead()) };
                match Message::of(&packet) {
                    Some(Message::Welcome { clock }) => return Ok(clock),
                    None if packet == CHALLENGE[..] => {}
                    _ => return Err(StartFailure::Stranger),
                }
            }
        });
        let clock = agreed.await.map_err(|_| StartFailure::Silence)??;
        line.same_clock = clock == clock::id();
        line.failed_before = line.paths().iter().map(|path| path.losses).collect();
        Ok(line)
    }

    async fn open(&self, port: u16) -> Result<Line, StartFailure> {
        let Self { index, plan, .. } = self;
        let mut options = PlayerOptions::new(ClientId(plan.first_client.wrapping_add(*index as u32)), []);
        options.paths = plan.edges.iter().map(|edge| plan.path(*edge, *index)).collect();
        options.links_per_session = plan.links;
        let player = Player::connect(options);
        if timeout(LINKS, player.wait_until(|stats| stats.ready() == stats.paths.len())).await.is_err() {
            let paths = player.stats().paths;
            let missing = plan.edges.iter().zip(&paths).find(|(_, path)| !path.ready);
            if let Some((edge, path)) = missing {
                return Err(StartFailure::Link { edge: *edge, connected: path.connected });
            }
        }
        let session = player.open(port).await;
        match timeout(SESSION, session.wait_until(|stats| stats.links == plan.links)).await {
            Ok(Some(_)) => {}
            Ok(None) => return Err(StartFailure::Ended(session.stats().ended)),
            Err(_) => return Err(StartFailure::Silence),
        }
        let (outlet, inlet) = (LineSender::Session(session.sender()), LineReceiver::Session(session));
        Ok(Line { outlet, inlet, player: Some(player), plain: None, same_clock: false, failed_before: Vec::new() })
    }

    async fn connect(&self) -> Result<Line, StartFailure> {
        let Self { index, plan, .. } = self;
        let edge = plan.edges.iter().cycle().nth(index % plan.edges.len().max(1));
        let edge = *edge.ok_or(StartFailure::Silence)?;
        let path = plan.path(edge, *index);
        let made = timeout(LINKS, line::connect(path.addr, path.local, &path.preface)).await;
        let (outlet, inlet) = made.ok().and_then(Result::ok).ok_or(StartFailure::Plain(edge))?;
        Ok(Line { outlet, inlet, player: None, plain: Some(edge), same_clock: false, failed_before: Vec::new() })
    }

    fn meter(&self, measure: impl FnOnce(&mut Meter)) {
        measure(&mut self.meter.lock());
    }

    async fn play(&self, line: &mut Line, timer: &Timer) -> BenchTally {
        let sent = Cell::new(0);
        let times = Cell::new(None);
        let tally = RefCell::new(BenchTally::default());
        let same_clock = line.same_clock;
        let Line { outlet, inlet, .. } = line;
        let sending = async {
            self.send(outlet, timer, &sent, &times).await;
            outlet.send(Message::Question { sent: sent.get() }.packet(0)).await
        };
        let receiving = async {
            while let Some(packet) = inlet.recv().await {
                let now = clock::now();
                let message = Message::of(&packet);
                let mut tally = tally.borrow_mut();
                if let Some(Message::Verdict { sent, received }) = message {
                    tally.verdict = Some((sent, received));
                    return;
                }
                self.take(&mut tally, message, now, times.get(), same_clock);
            }
            tally.borrow_mut().ended = true;
        };
        tokio::select! {
            _ = async { tokio::join!(sending, receiving) } => {}
            () = self.reached(|phase| phase == LoadPhase::Leave) => {}
        }
        let mut tally = tally.into_inner();
        tally.sent = sent.get();
        tally.paths = line.paths();
        tally.failed_before = std::mem::take(&mut line.failed_before);
        if let Some(stats) = line.session().map(GameSession::stats) {
            tally.violations = stats.gaps + stats.miscut + stats.bad_acks;
        }
        tally
    }

    /// Sends at fixed times, whatever becomes of it, until the end or a stop.
    async fn send(&self, outlet: &mut LineSender, timer: &Timer, sent: &Cell<u64>, times: &Cell<Option<(u64, u64)>>) {
        let mut phase = self.phase.clone();
        let play = phase.wait_for(|phase| *phase != LoadPhase::Enter).await.map(|phase| *phase);
        let Ok(LoadPhase::Play { start, measure, end }) = play else { return };
        times.set(Some((clock::nanos(measure), clock::nanos(end))));
        let stopped = self.reached(|phase| matches!(phase, LoadPhase::Stop | LoadPhase::Leave));
        let load = async {
            let Some(every) = self.plan.up_every else { return };
            let mut due = start + self.plan.phase(every, self.index);
            while due < end {
                timer.sleep_until(due).await;
                let late = due.elapsed();
                sent.set(sent.get() + 1);
                self.meter(|meter| {
                    meter.sent += 1;
                    if due >= measure {
                        meter.late.record(u64::try_from(late.as_nanos()).unwrap_or(u64::MAX));
                    }
                });
                // The time when it was to be sent: one that is held up counts with all of its delay.
                let packet = Message::Up { number: sent.get(), sent: clock::nanos(due) };
                if !outlet.send(packet.packet(self.plan.size_up)).await {
                    return;
                }
                due += every;
            }
        };
        tokio::select! {
            () = async { load.await; timer.sleep_until(end).await } => {}
            () = stopped => {}
        }
    }

    /// Counts a packet that came in at `now`.
    fn take(
        &self,
        tally: &mut BenchTally,
        message: Option<Message>,
        now: u64,
        times: Option<(u64, u64)>,
        same_clock: bool,
    ) {
        let measured = |moment| times.is_some_and(|(from, to)| (from..to).contains(&moment));
        self.meter(|meter| {
            meter.received += 1;
            match message {
                Some(Message::Answer { number, sent, asked }) => {
                    tally.received.see(number);
                    tally.answered += 1;
                    if measured(asked) {
                        meter.round_trip.record(now.saturating_sub(asked));
                        if same_clock {
                            meter.up.record(sent.saturating_sub(asked));
                            meter.down.record(now.saturating_sub(sent));
                        }
                    }
                }
                Some(Message::Push { number, sent }) => {
                    tally.received.see(number);
                    if same_clock && measured(sent) {
                        meter.down.record(now.saturating_sub(sent));
                    }
                }
                _ => tally.strange += 1,
            }
        });
    }
}

/// A player's way to the game server.
struct Line {
    outlet: LineSender,
    inlet: LineReceiver,
    /// The player, if the line is a session.
    player: Option<Player>,
    /// The peer, if the line is a plain connection.
    plain: Option<SocketAddr>,
    /// The game server's times are those of this process.
    same_clock: bool,
    /// Losses of each path until the player was in the game.
    failed_before: Vec<u64>,
}

impl Line {
    fn session(&self) -> Option<&GameSession> {
        match &self.inlet {
            LineReceiver::Session(session) => Some(session),
            LineReceiver::Plain { .. } => None,
        }
    }

    fn paths(&self) -> Vec<PathStats> {
        self.player.as_ref().map_or_else(Vec::new, |player| player.stats().paths)
    }

    fn dead(&self) -> StartFailure {
        match self.plain {
            Some(edge) => StartFailure::Plain(edge),
            None => StartFailure::Ended(self.session().and_then(|session| session.stats().ended)),
        }
    }

    async fn close(self) {
        let Self { inlet, outlet, player, .. } = self;
        drop((inlet, outlet));
        if let Some(player) = player {
            // A player that has panicked has closed its links as well.
            let _ = player.close().await;
        }
    }
}

//! One simulated player: its links, its session, and the tally of what it sent and got.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::delivery::DeliveryCheck;
use crate::mock::packet::{self, PacketOrigin};
use crate::player::{ClientClocks, GameSession, PathOptions, PathStats, Player, PlayerOptions, SessionSender};
use otproxy_protocol::frame::ClientId;
use otproxy_protocol::player::clocks::SESSION_SILENCE;

use super::topology::GAME_PORT;
use super::{PACKET_SIZE, pace};

/// Players that live faster than real clients, so that a short demo shows links come back.
const QUICK_PLAYERS: usize = 200;
const QUICK: u32 = 5;
/// With more players, pings would be most of the traffic.
const LESS_QUICK: u32 = 2;

/// The counts of a player.
#[derive(Debug, Clone, Default)]
pub(super) struct DemoTally {
    /// Its packets sent, numbered from 1.
    pub sent: u64,
    /// Its own packets that came back.
    pub echoes: DeliveryCheck,
    /// The game server's packets.
    pub pushes: DeliveryCheck,
    /// Packets without a number: the challenge.
    pub other: u64,
    /// Packets that a known client would have lost or read wrongly, and impossible acks.
    pub violations: u64,
    /// The session is over, and the player did not leave.
    pub ended: bool,
}

/// A player in its seat.
pub(super) struct DemoPlayer {
    player: Arc<Player>,
    address: Ipv4Addr,
    tally: Arc<Mutex<DemoTally>>,
    arrivals: watch::Receiver<u64>,
    start: CancellationToken,
    leave: CancellationToken,
    tasks: [JoinHandle<()>; 2],
}

impl DemoPlayer {
    /// Connects player `index` of `players` to all `edges` and opens its session. It sends from
    /// [`DemoPlayer::start`] until `quiet`.
    pub async fn take(index: usize, players: usize, edges: &[SocketAddr], quiet: CancellationToken) -> Self {
        // Each has an address of its own, which tells its connection at the game server. It also
        // keeps its connects to a cut edge from meeting themselves: they come from another address.
        let address = Ipv4Addr::new(127, 1, (index / 250) as u8, (index % 250 + 1) as u8);
        let local = Some(IpAddr::V4(address));
        let factor = if players > QUICK_PLAYERS { LESS_QUICK } else { QUICK };
        let mut options = PlayerOptions::new(ClientId(index as u32 + 1), []);
        options.paths = edges.iter().map(|edge| PathOptions { local, ..PathOptions::new(*edge) }).collect();
        options.clocks = ClientClocks { session_silence: SESSION_SILENCE, ..ClientClocks::faster(factor) };
        let player = Arc::new(Player::connect(options));
        let session = player.open(GAME_PORT).await;
        let tally = Arc::new(Mutex::new(DemoTally::default()));
        let (start, leave) = (CancellationToken::new(), CancellationToken::new());
        let (arrived, arrivals) = watch::channel(0);
        let sending = send(session.sender(), tally.clone(), players, start.clone(), quiet);
        let tasks = [tokio::spawn(sending), tokio::spawn(receive(session, tally.clone(), leave.clone(), arrived))];
        Self { player, address, tally, arrivals, start, leave, tasks }
    }

    /// Returns its address, as the game server learns it.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Returns its counts so far.
    pub fn tally(&self) -> DemoTally {
        self.tally.lock().clone()
    }

    /// Returns the numbers of one of its paths.
    pub fn path(&self, index: usize) -> PathStats {
        self.player.stats().paths.get(index).copied().unwrap_or_default()
    }

    /// Waits until all its links stand and the game server has spoken.
    pub async fn in_the_game(&self) {
        let _ = self.player.wait_until(|stats| stats.ready() == stats.paths.len()).await;
        let _ = self.arrivals.clone().wait_for(|arrived| *arrived > 0).await;
    }

    /// Waits until one of its paths can be used.
    pub async fn path_ready(&self, index: usize) {
        let _ = self.player.wait_until(|stats| stats.paths.get(index).is_none_or(|path| path.ready)).await;
    }

    /// Starts sending.
    pub fn start(&self) {
        self.start.cancel();
    }

    /// Leaves the game and closes all links.
    pub async fn leave(self) {
        self.leave.cancel();
        let [sending, receiving] = self.tasks;
        // It may wait for room that will not come.
        sending.abort();
        let _ = sending.await;
        let _ = receiving.await;
        if let Some(player) = Arc::into_inner(self.player) {
            let _ = player.close().await;
        }
    }
}

async fn send(
    session: SessionSender,
    tally: Arc<Mutex<DemoTally>>,
    players: usize,
    start: CancellationToken,
    quiet: CancellationToken,
) {
    if quiet.run_until_cancelled(start.cancelled()).await.is_none() {
        return;
    }
    let mut timer = interval(pace(players));
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 1.. {
        if quiet.run_until_cancelled(timer.tick()).await.is_none() {
            return;
        }
        // Counted first, so that its receiver finds it counted.
        tally.lock().sent = number;
        if session.send(packet::numbered(PacketOrigin::Player, number, PACKET_SIZE)).await.is_err() {
            return;
        }
    }
}

async fn receive(
    mut session: GameSession,
    tally: Arc<Mutex<DemoTally>>,
    leave: CancellationToken,
    arrived: watch::Sender<u64>,
) {
    loop {
        let packet = tokio::select! {
            packet = session.recv() => packet,
            () = leave.cancelled() => return session.leave(),
        };
        let stats = session.stats();
        let mut tally = tally.lock();
        tally.violations = stats.gaps + stats.miscut + stats.bad_acks;
        match packet.as_deref().map(packet::number) {
            Some(Some((PacketOrigin::Player, number))) => tally.echoes.see(number),
            Some(Some((PacketOrigin::Server, number))) => tally.pushes.see(number),
            Some(None) => tally.other += 1,
            None => {
                tally.ended = true;
                return;
            }
        }
        arrived.send_modify(|arrived| *arrived += 1);
    }
}

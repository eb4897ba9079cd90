//! Who plays: those who are in the game before the attack, and those who come during it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use otproxy_protocol::frame::ClientId;
use otproxy_testkit::bench::{self, BenchOptions, LoadReport};
use otproxy_testkit::player::{PathOptions, Player, PlayerOptions};
use tokio::time::timeout;

use crate::attack::arena::{Arena, SESSIONS};
use crate::common::link::PORT;
use crate::common::metrics::Metered;

/// How long somebody tries to get into the game before they give up.
const PATIENCE: Duration = Duration::from_secs(10);
/// More than any test takes.
const LONG: Duration = Duration::from_secs(3600);

/// Who plays, how long before it is measured, and how long then; without an end until they are told.
#[derive(Debug, Clone, Copy)]
pub struct Players {
    pub count: usize,
    pub warmup: Duration,
    pub measured: Duration,
}

impl Players {
    /// They play until they are told to leave.
    pub fn new(count: usize) -> Self {
        Self { count, warmup: Duration::ZERO, measured: LONG }
    }

    /// Has them play over one link each while `meanwhile` goes on, from when all are in the game. Gives what they
    /// noticed, and what it gave.
    pub async fn play<T>(self, arena: &Arena, meanwhile: impl Future<Output = T>) -> (LoadReport, T) {
        let options = BenchOptions {
            edges: vec![arena.edge.addr("links").to_string()],
            port: Some(PORT),
            players: self.count,
            links: 1,
            up: 5.0,
            down: 10.0,
            size_up: 24,
            size_down: 120,
            duration: self.measured,
            warmup: self.warmup,
            serve: None,
            send_proxy: false,
            threads: 1,
            file_limit: 10_000,
        };
        let (over, ended) = tokio::sync::oneshot::channel::<()>();
        let meanwhile = async {
            arena.core.wait(SESSIONS, &[], self.count as f64).await;
            let result = meanwhile.await;
            drop(over);
            result
        };
        let interrupt = async { drop(ended.await) };
        let mut progress = ();
        let (figures, result) = tokio::join!(bench::run(&options, &mut progress, interrupt), meanwhile);
        (figures.expect("all are in the game"), result)
    }
}

/// Somebody who wants to play now: gives how long it took until the game server spoke; `None` where they gave up.
pub async fn newcomer(links: SocketAddr, number: u16) -> Option<Duration> {
    let [high, low] = number.to_be_bytes();
    let mut path = PathOptions::new(links);
    path.local = Some(Ipv4Addr::new(127, 2 + high, low, 1).into());
    let mut options = PlayerOptions::new(ClientId(0xB000_0000 | u32::from(number)), []);
    options.paths = vec![path];
    options.links_per_session = 1;
    let start = Instant::now();
    let player = Player::connect(options);
    let enter = async {
        let mut session = player.open(PORT).await;
        session.send(vec![1, 0, 0]).await.ok()?;
        session.recv().await
    };
    let spoken = timeout(PATIENCE, enter).await.ok().flatten();
    let took = start.elapsed();
    let _ = player.close().await;
    spoken.map(|_| took)
}

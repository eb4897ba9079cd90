//! The threads that players run on, and the game server's.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use otproxy_net::worker;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::mock::{MockGameServer, Timer};

use super::figures::Meter;
use super::seat::BenchPlayer;

struct Member {
    seats: mpsc::UnboundedSender<BenchPlayer>,
    meter: Arc<Mutex<Meter>>,
}

/// Threads, each with a part of the players. Dropping it stops the game server.
pub(super) struct PlayerThreads {
    members: Vec<Member>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    stop: CancellationToken,
}

impl PlayerThreads {
    pub fn start(threads: usize) -> io::Result<Self> {
        let mut crew = Self { members: Vec::new(), threads: Vec::new(), stop: CancellationToken::new() };
        for index in 0..threads.max(1) {
            let (seats, received) = mpsc::unbounded_channel();
            crew.members.push(Member { seats, meter: Arc::default() });
            crew.threads.push(worker::spawn(format!("players-{index}"), || play(received))?);
        }
        Ok(crew)
    }

    /// Starts a game server on a thread of its own.
    pub async fn serve<E: Send + 'static>(
        &mut self,
        start: impl FnOnce() -> Result<MockGameServer, E> + Send + 'static,
    ) -> io::Result<Result<(), E>> {
        let (started, starts) = oneshot::channel();
        let stop = self.stop.clone();
        let thread = worker::spawn("game-server".to_owned(), move || async move {
            match start() {
                Ok(server) => {
                    // If nobody waits any more, `stop` comes at once.
                    let _ = started.send(Ok(()));
                    stop.cancelled().await;
                    server.close().await;
                }
                Err(error) => drop(started.send(Err(error))),
            }
            Ok(())
        })?;
        self.threads.push(thread);
        starts.await.map_err(|_| io::Error::other("the game server's thread ended"))
    }

    /// Seats player `index` on its thread.
    pub fn seat(&self, index: usize, seat: impl FnOnce(Arc<Mutex<Meter>>) -> BenchPlayer) {
        if let Some(member) = self.members.get(index % self.members.len().max(1)) {
            // A thread that has panicked says so in the log; its players miss at the end.
            let _ = member.seats.send(seat(member.meter.clone()));
        }
    }

    /// Returns everything that the players have measured so far.
    pub fn meter(&self) -> Meter {
        let mut sum = Meter::default();
        for member in &self.members {
            sum.add(&member.meter.lock());
        }
        sum
    }

    /// Stops the game server and waits for all threads. Players must be leaving.
    pub async fn end(mut self) {
        self.members.clear();
        self.stop.cancel();
        let threads = std::mem::take(&mut self.threads);
        let join = move || threads.into_iter().for_each(|thread| drop(thread.join()));
        // The error that a thread ended with was reported or logged before.
        let _ = tokio::task::spawn_blocking(join).await;
    }
}

impl Drop for PlayerThreads {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Runs players until no more can come and all have left.
async fn play(mut seats: mpsc::UnboundedReceiver<BenchPlayer>) -> io::Result<()> {
    let (timer, driver) = Timer::new()?;
    let _driver = AbortOnDropHandle::new(tokio::spawn(driver));
    let mut players = JoinSet::new();
    while let Some(seat) = seats.recv().await {
        players.spawn_local(seat.run(timer.clone()));
    }
    while players.join_next().await.is_some() {}
    Ok(())
}

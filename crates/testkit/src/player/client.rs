//! A player on real sockets: what the demo, the tests and the bench hold in their hands.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use otproxy_protocol::frame::{MAX_PAYLOAD, SessionId};

use super::driver::{PlayerCommand, PlayerDriver, SessionFlags, SessionIo};
use super::socket::LinkSocket;
use otproxy_protocol::player::machine::PlayerCore;
use otproxy_protocol::player::options::PlayerOptions;
use otproxy_protocol::player::session::SendError;
use otproxy_protocol::player::stats::{PlayerStats, SessionStats};

/// Packets that may wait between a session's handle and its player's task, in each direction.
const QUEUE: usize = 256;
/// Commands that may wait for a player's task.
const COMMANDS: usize = 32;

/// A client with its links: connects them, and reconnects for ever until it is closed or dropped.
#[derive(Debug)]
pub struct Player {
    commands: mpsc::Sender<PlayerCommand>,
    closing: oneshot::Sender<()>,
    task: JoinHandle<()>,
    stats: watch::Receiver<PlayerStats>,
    next_session: AtomicU32,
}

impl Player {
    /// Starts a player: one task on the current tokio runtime, of whatever kind.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn connect(options: PlayerOptions) -> Self {
        let priorities = options.paths.iter().map(|path| Duration::from_millis(path.priority_ms.into()));
        let core = PlayerCore::new(
            options.client_id,
            priorities,
            options.links_per_session,
            options.clocks,
            Instant::now().into_std(),
        );
        let (commands, command_receiver) = mpsc::channel(COMMANDS);
        let (closing, closed) = oneshot::channel();
        let paths = core.path_stats().collect();
        let (stats_sender, stats) = watch::channel(PlayerStats { paths, sessions: 0 });
        let driver = PlayerDriver {
            core,
            sockets: options.paths.into_iter().map(LinkSocket::new).collect(),
            sessions: Default::default(),
            commands: command_receiver,
            closing: closed,
            stats: stats_sender,
        };
        let task = tokio::spawn(driver.run());
        Self { commands, closing, task, stats, next_session: AtomicU32::new(clock_id()) }
    }

    /// Opens a session with `port` of the game host. It needs no link yet; see
    /// [`Player::wait_until`].
    pub async fn open(&self, port: u16) -> GameSession {
        let id = match self.next_session.fetch_add(1, Ordering::Relaxed) {
            // 0 is the link's own.
            0 => self.next_session.fetch_add(1, Ordering::Relaxed),
            id => id,
        };
        self.open_as(SessionId(id), port).await
    }

    /// Opens a session under an id of the caller's choice. With one that is 0 or open already the session is over at
    /// once.
    pub async fn open_as(&self, id: SessionId, port: u16) -> GameSession {
        let (outgoing, outgoing_receiver) = mpsc::channel(QUEUE);
        let (incoming_sender, incoming) = mpsc::channel(QUEUE);
        let (stats_sender, stats) = watch::channel(SessionStats::default());
        let flags = Arc::new(SessionFlags::default());
        let io = SessionIo {
            outgoing: outgoing_receiver,
            incoming: incoming_sender,
            stats: stats_sender,
            flags: flags.clone(),
            undelivered: Default::default(),
            ended: false,
        };
        // If the task is gone, so are the ends of the channels: the session is over.
        let _ = self.commands.send(PlayerCommand::Open(id, port, io)).await;
        let sender = SessionSender { outgoing };
        GameSession { id, sender, incoming, stats, flags, commands: self.commands.clone() }
    }

    /// Returns the present numbers of all paths.
    pub fn stats(&self) -> PlayerStats {
        self.stats.borrow().clone()
    }

    /// Waits until the numbers satisfy `condition`, and returns them; `None` once the player is gone.
    pub async fn wait_until(&self, condition: impl FnMut(&PlayerStats) -> bool) -> Option<PlayerStats> {
        wait_until(&self.stats, condition).await
    }

    /// Leaves all sessions, writes what waits (for a second at most), closes all links, and waits
    /// for the task to end.
    ///
    /// # Errors
    /// Where the task has panicked.
    pub async fn close(self) -> io::Result<()> {
        // The task may be gone already; then there is nobody to tell.
        let _ = self.closing.send(());
        self.task.await.map_err(io::Error::other)
    }
}

/// Returns an id as clients make them: the low 32 bits of a clock.
fn clock_id() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_millis() as u32)
}

async fn wait_until<T: Clone>(stats: &watch::Receiver<T>, condition: impl FnMut(&T) -> bool) -> Option<T> {
    stats.clone().wait_for(condition).await.ok().map(|stats| stats.clone())
}

/// The sending half of a session; any number of them can exist.
#[derive(Debug, Clone)]
pub struct SessionSender {
    outgoing: mpsc::Sender<Bytes>,
}

impl SessionSender {
    /// Sends a packet, its leading u16 included. Waits while too much is not acknowledged yet.
    ///
    /// # Errors
    /// [`SendError::TooLong`], and [`SendError::Ended`] once the session is over.
    pub async fn send(&self, packet: impl Into<Bytes>) -> Result<(), SendError> {
        let packet = packet.into();
        if packet.len() > MAX_PAYLOAD {
            return Err(SendError::TooLong(packet.len()));
        }
        self.outgoing.send(packet).await.map_err(|_| SendError::Ended)
    }
}

/// A session of a player. Dropping it leaves it.
#[derive(Debug)]
pub struct GameSession {
    id: SessionId,
    sender: SessionSender,
    incoming: mpsc::Receiver<Bytes>,
    stats: watch::Receiver<SessionStats>,
    flags: Arc<SessionFlags>,
    commands: mpsc::Sender<PlayerCommand>,
}

impl GameSession {
    /// Returns its id.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Returns a sender for another task.
    pub fn sender(&self) -> SessionSender {
        self.sender.clone()
    }

    /// Sends as [`SessionSender::send`] does.
    ///
    /// # Errors
    /// Fails as that does.
    pub async fn send(&self, packet: impl Into<Bytes>) -> Result<(), SendError> {
        self.sender.send(packet).await
    }

    /// Returns the next packet, its leading u16 included; `None` once the session is over and all earlier packets are
    /// taken. Safe to cancel. While packets are not taken, the whole player stands still.
    pub async fn recv(&mut self) -> Option<Bytes> {
        let packet = self.incoming.recv().await;
        if self.flags.stalled.load(Ordering::SeqCst) {
            self.wake();
        }
        packet
    }

    /// Leaves the session, after all that was sent before. Packets that have arrived can still be received.
    pub fn leave(&self) {
        self.flags.leaving.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Returns its present numbers; the last ones after its end.
    pub fn stats(&self) -> SessionStats {
        *self.stats.borrow()
    }

    /// Waits until the numbers satisfy `condition`, and returns them; `None` once the session is over and they never
    /// will.
    pub async fn wait_until(&self, condition: impl FnMut(&SessionStats) -> bool) -> Option<SessionStats> {
        wait_until(&self.stats, condition).await
    }

    fn wake(&self) {
        // A full channel wakes the task as well, and a closed one needs no waking.
        let _ = self.commands.try_send(PlayerCommand::Wake);
    }
}

impl Drop for GameSession {
    fn drop(&mut self) {
        self.leave();
    }
}

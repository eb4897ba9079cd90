//! A session's task: the connection to the game server, from its start to the session's end.

use std::future::poll_fn;
use std::net::SocketAddrV4;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use thiserror::Error;
use tokio::time::{Sleep, sleep_until};
use tracing::{info, warn};

use super::log::SessionLogGuard;
use super::{SessionTask, TableEntry};
use crate::admission::QueueFull;
use crate::connection::source_for;
use crate::relay::client::{RelayMachine, flush_game, flush_links, tell, write_game_stream};
use crate::relay::places::Spare;
use otproxy_net::{ConnectResult, Stream, connect};
use otproxy_protocol::core::{EndReason, Framed, SessionPhase};
use otproxy_protocol::player_address::ipv4_of;

/// Reads from a game server in one turn: then others have theirs.
const READS_PER_TURN: usize = 4;

/// The timer of a session's task.
type Timer = Option<Pin<Box<Sleep>>>;

/// The error of a session that did not reach its game server.
#[derive(Debug, Error)]
enum ConnectError {
    #[error(transparent)]
    Queue(QueueFull),
    #[error("{0}")]
    Failed(ConnectResult),
}

impl SessionTask {
    /// Carries the session to its end.
    pub async fn run(self) {
        let _entry = TableEntry(&self);
        let account = SessionLogGuard::new(&self);
        self.play(None).await;
        self.end(account).await;
    }

    /// Carries a session to its end that began in the process before, which had this connection to the game server.
    pub async fn go_on(self, game: Option<Rc<Stream>>) {
        let _entry = TableEntry(&self);
        if self.client.machine.borrow().is_closed(self.key) {
            return self.until(|machine| machine.is_over(self.key)).await;
        }
        let account = SessionLogGuard::again(&self);
        let figures = self.client.machine.borrow().figures(self.key);
        match game {
            Some(game) => self.play(Some(game)).await,
            None if figures.is_some_and(|figures| !figures.connecting && figures.ended.is_none()) => {
                self.warn(&"the connection to the game server was lost with the process before");
                let mut machine = self.client.machine.borrow_mut();
                machine.game_closed(self.key);
                machine.disconnected(self.key);
                tell(&mut machine, self.key);
            }
            None => self.play(None).await,
        }
        self.end(account).await;
    }

    /// Connects to the game server, unless there is a connection, and moves packets until the session ends.
    async fn play(&self, game: Option<Rc<Stream>>) {
        let Self { client, key, session, .. } = self;
        let connected = match game {
            Some(game) => Some(Ok(game)),
            None => self.unless_ended(Box::pin(self.connect())).await,
        };
        match connected {
            // Nobody waits for it any more, or the client has broken a rule.
            None => {}
            Some(Ok(game)) => {
                flush_game(&mut client.machine.borrow_mut(), *key);
                self.carry(&game).await;
                self.relay.record_end(&client.machine.borrow(), *key);
                tell(&mut client.machine.borrow_mut(), *key);
                // Plain, so it is ready at once.
                let _ = poll_fn(|cx| game.poll_shutdown(cx)).await;
                client.machine.borrow_mut().disconnected(*key);
                *session.game.borrow_mut() = None;
            }
            Some(Err(error)) => {
                self.log_unreached(&error);
                self.relay.shared.settings().open_was_in_vain(session.opener, Instant::now());
                let mut machine = client.machine.borrow_mut();
                match error {
                    ConnectError::Queue(_) => machine.end(*key, EndReason::ConnectQueue),
                    ConnectError::Failed(_) => machine.connect_failed(*key),
                }
                tell(&mut machine, *key);
            }
        }
    }

    /// Waits until the client is told of the session's end, closes the account, and waits for joins on their way.
    async fn end(&self, account: SessionLogGuard<'_>) {
        self.until(|machine| machine.is_finished(self.key)).await;
        drop(account);
        self.until(|machine| machine.is_over(self.key)).await;
    }

    /// Runs `work` and returns its result; `None`, and `work` goes no further, if the session ends before.
    async fn unless_ended<T>(&self, mut work: Pin<Box<impl Future<Output = T>>>) -> Option<T> {
        let mut timer = None;
        poll_fn(|cx| {
            self.session.task.keep(cx);
            loop {
                let passed = self.poll_timer(cx, &mut timer, None).is_ready();
                if self.client.machine.borrow().ended(self.key).is_some() {
                    return Poll::Ready(None);
                }
                if !passed {
                    return work.as_mut().poll(cx).map(Some);
                }
            }
        })
        .await
    }

    /// Connects to the game server, and announces the player to it.
    async fn connect(&self) -> Result<Rc<Stream>, ConnectError> {
        let session = &self.session;
        let (inbound, server) = (&session.inbound, &session.server);
        let pseudo = &self.relay.shared.pseudo_ipv4;
        let source = source_for(server.source, session.player.ip(), pseudo);
        if let Some(place) = session.connect.take() {
            place.turn().await.map_err(ConnectError::Queue)?;
        }
        let target = (server.address.host.as_str(), server.address.port);
        let result = connect(target, source, inbound.config().timeouts.connect).await;
        let connected = result.as_ref().err().copied().unwrap_or(ConnectResult::Ok);
        inbound.metrics().connect(connected);
        self.relay.shared.game_servers.connected(server.port, connected);
        let (stream, address) = result.map_err(ConnectError::Failed)?;
        let player = SocketAddrV4::new(ipv4_of(session.player.ip(), pseudo), session.player.port());
        let mut header = Vec::new();
        server.player_address.write(&mut header, player, address);
        let settings = self.relay.shared.settings();
        if let Some(seconds) = settings.outage(server.port).and_then(|outage| outage.worked(Instant::now())) {
            info!(seconds, "game server {} can be reached again", server.address);
        }
        let game = Rc::new(stream);
        *session.game.borrow_mut() = Some(Rc::clone(&game));
        let mut machine = self.client.machine.borrow_mut();
        let header = session.header.get_or_init(|| header.into());
        self.relay.begin_record(self.client.id, &machine, self.key, &game);
        machine.connected(self.key, header);
        Ok(game)
    }

    /// Logs that the game server was not reached, up to the log's limit.
    fn log_unreached(&self, error: &ConnectError) {
        let (settings, server) = (self.relay.shared.settings(), &self.session.server);
        let reason = if let ConnectError::Failed(result) = error { Some(*result) } else { None };
        let may_tell = settings.outage(server.port).and_then(|outage| outage.failed(reason, Instant::now()));
        if let Some(suppressed) = may_tell {
            let (player, client, session) = (self.session.player, self.client.id, self.session.id);
            warn!(%player, %client, %session, suppressed, "game server {} cannot be reached: {error}", server.address);
        }
    }

    /// Moves packets until the session ends.
    async fn carry(&self, game: &Stream) {
        let mut timer = None;
        poll_fn(|cx| {
            self.session.task.keep(cx);
            loop {
                if self.poll_game(cx, game).is_ready() {
                    return Poll::Ready(());
                }
                let blocked = &self.session.game_blocked;
                if blocked.get() {
                    let write = || Ok(write_game_stream(&mut self.client.machine.borrow_mut(), self.key));
                    // After an error of the socket itself there is nothing to wait for: reading shows its end.
                    if game.poll_drain(cx, write).is_ready() {
                        blocked.set(false);
                    }
                }
                let paced = self.client.machine.borrow().paced_until(self.key).filter(|_| !blocked.get());
                if self.poll_timer(cx, &mut timer, paced).is_pending() {
                    return Poll::Pending;
                }
                flush_game(&mut self.client.machine.borrow_mut(), self.key);
            }
        })
        .await;
    }

    /// Waits until the machine says so.
    async fn until(&self, ready: impl Fn(&RelayMachine) -> bool) {
        let mut timer = None;
        poll_fn(|cx| {
            self.session.task.keep(cx);
            loop {
                if ready(&self.client.machine.borrow()) {
                    return Poll::Ready(());
                }
                if self.poll_timer(cx, &mut timer, None).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await;
    }

    /// Waits for the machine's deadline or for `other`, whichever comes first.
    fn poll_timer(&self, cx: &mut Context<'_>, timer: &mut Timer, other: Option<Instant>) -> Poll<()> {
        let deadline = self.client.machine.borrow().deadline(self.key);
        self.mark_spare(deadline.is_some());
        let Some(at) = deadline.into_iter().chain(other).min() else {
            *timer = None;
            return Poll::Pending;
        };
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(at.into())));
        if timer.deadline() != at.into() {
            timer.as_mut().reset(at.into());
        }
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let mut machine = self.client.machine.borrow_mut();
        machine.tick(self.key, Instant::now());
        self.relay.serve_links(&mut machine);
        Poll::Ready(())
    }

    /// Takes note whether links carry the session, for others at its player's address that have no place.
    #[inline]
    fn mark_spare(&self, waits: bool) {
        let place = &self.session.place;
        if waits || place.is_spare() {
            let figures = self.client.machine.borrow().figures(self.key);
            let spare = match figures.map(|figures| (figures.ended, figures.phase)) {
                Some((None, SessionPhase::Lingering | SessionPhase::Grace)) => Some(Spare::WithoutLinks),
                Some((None, _)) => None,
                _ => return,
            };
            place.set_spare(spare);
        }
    }

    /// Reads the game server, as far as the machine wants it; ready once the session has ended.
    fn poll_game(&self, cx: &mut Context<'_>, game: &Stream) -> Poll<()> {
        let Self { relay, client, key, session } = self;
        for _ in 0..READS_PER_TURN {
            {
                let machine = client.machine.borrow();
                if !machine.wants_game_data(*key) {
                    return if machine.ended(*key).is_some() { Poll::Ready(()) } else { Poll::Pending };
                }
            }
            let take = |bytes: &[u8]| client.machine.borrow_mut().game_bytes(*key, bytes);
            match relay.read_game(session, |buffer| game.poll_read(cx, buffer), take) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(None) | Err(_)) => {
                    client.machine.borrow_mut().game_closed(*key);
                    return Poll::Ready(());
                }
                Poll::Ready(Ok(Some(framed))) => self.on_framed(framed),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Has the packets of what was read go out on every link. They are recorded before.
    fn on_framed(&self, framed: Framed) {
        let mut machine = self.client.machine.borrow_mut();
        self.relay.record(&machine, self.key);
        self.session.port.packets_out.inc_by(framed.packets.into());
        self.relay.shared.beats.hear(&self.session.heard_in, &self.session.port.beat);
        self.relay.metrics.relay_unacked_bytes.add(framed.unacked as i64);
        self.relay.count_memory(&machine, self.key);
        flush_links(&mut machine, self.key);
        if let Some(error) = framed.error {
            self.warn(&error);
        }
    }
}

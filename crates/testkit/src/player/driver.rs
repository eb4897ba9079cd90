//! The one task of a player: the machine, its sockets, and the channels of its sessions.
//!
//! All is polled from one place, so that a player costs one task and one timer, whatever the number
//! of its links. While a session's packets are not taken, no link is read and no clock ticks, as
//! with a client process that is held up: the core sees it through TCP.

use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use otproxy_protocol::frame::SessionId;

use super::socket::LinkSocket;
use otproxy_protocol::player::link::LinkId;
use otproxy_protocol::player::machine::{LinkAction, PlayerCore, SessionEvent};
use otproxy_protocol::player::stats::{PlayerStats, SessionStats};

/// The time for which a closing player tries to get its last bytes out.
const CLOSE_FLUSH: Duration = Duration::from_secs(1);
/// The time to which a timer is set if there is nothing to wait for.
const FAR: Duration = Duration::from_secs(3600);
/// Bytes read from a link at once.
const READ_SIZE: usize = 16 * 1024;

/// A command to a player's task from its handles.
pub(super) enum PlayerCommand {
    /// Open a session.
    Open(SessionId, u16, SessionIo),
    /// Look again at the sessions: one is left, or its packets are taken again.
    Wake,
}

/// The flags that a session's handle and its player's task share.
#[derive(Debug, Default)]
pub(super) struct SessionFlags {
    /// The handle wants to leave once what it has sent is on its way.
    pub(super) leaving: AtomicBool,
    /// The task waits for the handle to take packets.
    pub(super) stalled: AtomicBool,
}

/// The task's ends of a session's channels.
pub(super) struct SessionIo {
    pub(super) outgoing: mpsc::Receiver<Bytes>,
    pub(super) incoming: mpsc::Sender<Bytes>,
    pub(super) stats: watch::Sender<SessionStats>,
    pub(super) flags: Arc<SessionFlags>,
    /// Packets that did not fit into `incoming`: at most what one turn has read.
    pub(super) undelivered: VecDeque<Bytes>,
    pub(super) ended: bool,
}

impl SessionIo {
    /// Hands out packets as far as they are taken.
    fn deliver(&mut self) {
        while let Some(packet) = self.undelivered.pop_front() {
            match self.incoming.try_send(packet) {
                Ok(()) => {}
                Err(TrySendError::Closed(_)) => self.undelivered.clear(),
                Err(TrySendError::Full(packet)) => {
                    self.undelivered.push_front(packet);
                    // Said first, tried again afterwards: the handle may have made room between.
                    if self.flags.stalled.swap(true, Ordering::SeqCst) {
                        return;
                    }
                }
            }
        }
        self.flags.stalled.store(false, Ordering::SeqCst);
    }
}

/// The task's state.
pub(super) struct PlayerDriver {
    pub(super) core: PlayerCore,
    pub(super) sockets: Vec<LinkSocket>,
    pub(super) sessions: HashMap<SessionId, SessionIo>,
    pub(super) commands: mpsc::Receiver<PlayerCommand>,
    pub(super) closing: oneshot::Receiver<()>,
    pub(super) stats: watch::Sender<PlayerStats>,
}

impl PlayerDriver {
    /// Runs until the player is closed or dropped.
    pub(super) async fn run(mut self) {
        let mut sleep = pin!(sleep_until(Instant::now()));
        let mut scratch = vec![0; READ_SIZE];
        poll_fn(|cx| self.turn(cx, sleep.as_mut(), &mut scratch)).await;
        self.core.close();
        self.settle();
        // Past this time the peer does not read, and dropping the socket is all that is left.
        let _ = timeout(CLOSE_FLUSH, poll_fn(|cx| self.poll_flush(cx))).await;
        self.publish_paths();
    }

    fn turn(&mut self, cx: &mut Context<'_>, mut sleep: Pin<&mut Sleep>, scratch: &mut [u8]) -> Poll<()> {
        loop {
            if Pin::new(&mut self.closing).poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let mut busy = self.poll_commands(cx);
            busy |= self.poll_packets(cx);
            if !self.stalled() {
                busy |= self.poll_sockets(cx, scratch);
                if sleep.as_mut().poll(cx).is_ready() {
                    self.core.tick(Instant::now().into_std());
                    busy = true;
                }
            }
            self.act();
            busy |= self.poll_write(cx);
            self.settle();
            let deadline = self.deadline(&sleep);
            if sleep.deadline() != deadline {
                sleep.as_mut().reset(deadline);
                busy = true;
            }
            if !busy {
                return Poll::Pending;
            }
        }
    }

    fn deadline(&self, sleep: &Sleep) -> Instant {
        match self.core.deadline() {
            Some(deadline) => Instant::from_std(deadline),
            // Without links and sessions there is none, and a command wakes the task anyway.
            None if sleep.is_elapsed() => Instant::now() + FAR,
            None => sleep.deadline(),
        }
    }

    /// Returns whether a session's packets are not taken. One that is over holds up no other.
    fn stalled(&mut self) -> bool {
        for session in self.sessions.values_mut() {
            session.deliver();
        }
        self.sessions.values().any(|session| !session.ended && !session.undelivered.is_empty())
    }

    fn poll_commands(&mut self, cx: &mut Context<'_>) -> bool {
        let mut busy = false;
        while let Poll::Ready(Some(command)) = self.commands.poll_recv(cx) {
            busy = true;
            if let PlayerCommand::Open(id, port, session) = command {
                // An id in use already: the new handle sees the end of its channels.
                if self.core.open(id, port, Instant::now().into_std()) {
                    self.sessions.insert(id, session);
                }
            }
        }
        busy
    }

    /// Takes the packets to send from the sessions that have room.
    fn poll_packets(&mut self, cx: &mut Context<'_>) -> bool {
        let mut busy = false;
        for (&id, session) in self.sessions.iter_mut().filter(|(_, session)| !session.ended) {
            while self.core.has_room(id) {
                let Poll::Ready(Some(packet)) = session.outgoing.poll_recv(cx) else { break };
                busy = true;
                // The handle has checked the length, and there is room.
                let _ = self.core.send(id, &packet);
            }
            if session.flags.leaving.load(Ordering::SeqCst) {
                session.outgoing.close();
                while let Ok(packet) = session.outgoing.try_recv() {
                    // A packet without room is lost with the session, as on any leave.
                    let _ = self.core.send(id, &packet);
                }
                self.core.leave(id);
                busy = true;
            }
        }
        if busy {
            self.settle();
        }
        busy
    }

    fn poll_sockets(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> bool {
        let mut busy = false;
        for (index, socket) in self.sockets.iter_mut().enumerate() {
            let id = LinkId(index);
            if let Poll::Ready(result) = socket.poll_connect(cx) {
                busy = true;
                match result {
                    Ok(()) => self.core.connected(id, Instant::now().into_std()),
                    Err(_) => self.core.lost(id),
                }
            }
            if let Poll::Ready(result) = socket.poll_read(cx, scratch) {
                busy = true;
                match result {
                    Ok(count @ 1..) => {
                        let bytes = scratch.get(..count).unwrap_or_default();
                        self.core.bytes(id, bytes, Instant::now().into_std());
                    }
                    Ok(0) | Err(_) => {
                        socket.close();
                        self.core.lost(id);
                    }
                }
            }
        }
        busy
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> bool {
        let mut busy = false;
        for (index, socket) in self.sockets.iter_mut().enumerate() {
            let id = LinkId(index);
            while !self.core.output(id).is_empty() {
                match socket.poll_write(cx, self.core.output(id)) {
                    Poll::Ready(Ok(count @ 1..)) => self.core.wrote(id, count),
                    Poll::Ready(Ok(0) | Err(_)) => {
                        socket.close();
                        self.core.lost(id);
                        busy = true;
                    }
                    Poll::Pending => break,
                }
            }
        }
        busy
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_write(cx);
        let left = (0..self.sockets.len()).any(|index| !self.core.output(LinkId(index)).is_empty());
        if left { Poll::Pending } else { Poll::Ready(()) }
    }

    fn act(&mut self) {
        while let Some(action) = self.core.poll_action() {
            let (LinkAction::Connect(id) | LinkAction::Close(id)) = action;
            let Some(socket) = self.sockets.get_mut(id.0) else { continue };
            match action {
                LinkAction::Connect(_) => socket.connect(),
                LinkAction::Close(_) => socket.close(),
            }
        }
    }

    /// Publishes the numbers, then hands out events, so that the receiver of a packet sees it counted.
    fn settle(&mut self) {
        let mut last = Vec::new();
        while let Some(event) = self.core.poll_event() {
            match event {
                SessionEvent::Packet(id, packet) => {
                    if let Some(session) = self.sessions.get_mut(&id) {
                        session.undelivered.push_back(packet);
                    }
                }
                SessionEvent::Ended(id, stats) => last.push((id, stats)),
            }
        }
        self.publish_paths();
        for (&id, session) in &self.sessions {
            if let Some(stats) = self.core.session_stats(id) {
                publish(&session.stats, stats);
            }
        }
        for (id, stats) in last {
            if let Some(session) = self.sessions.get_mut(&id) {
                publish(&session.stats, stats);
                session.ended = true;
            }
        }
        self.sessions.retain(|_, session| {
            session.deliver();
            !(session.ended && session.undelivered.is_empty())
        });
    }

    fn publish_paths(&self) {
        let sessions = self.sessions.values().filter(|session| !session.ended).count();
        self.stats.send_if_modified(|stats| {
            let changed = stats.sessions != sessions || !self.core.path_stats().eq(stats.paths.iter().copied());
            if changed {
                stats.sessions = sessions;
                stats.paths.clear();
                stats.paths.extend(self.core.path_stats());
            }
            changed
        });
    }
}

fn publish(sender: &watch::Sender<SessionStats>, stats: SessionStats) {
    sender.send_if_modified(|old| std::mem::replace(old, stats) != stats);
}

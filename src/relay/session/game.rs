//! A session's task: the connection to the game server, from its start to the session's end.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddrV4};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::{Sleep, sleep, sleep_until};

use super::{Listed, Record, Session};
use crate::relay::Relay;
use otproxy_config as config;
use otproxy_config::GameServer;
use otproxy_net::{ConnectResult, Stream, connect};
use otproxy_protocol::core::{Batch, EndReason};
use otproxy_protocol::frame::{HEADER_LEN, PacketId};
use otproxy_protocol::game_packet::{Cutter, PacketError};
use otproxy_protocol::partial::Partial;
use otproxy_protocol::player_address::ipv4_of;

/// Reads from a game server in one turn: then others have theirs.
const READS_PER_TURN: usize = 4;

impl Session {
    /// Carries the session to its end.
    pub(in crate::relay) async fn run(self: Rc<Self>, relay: Rc<Relay>) {
        let _listed = Listed { session: &self, relay: &relay };
        let record = Record::new(&self, &relay);
        let server = &self.server.config;
        match self.unless_ended(Box::pin(self.connect(&relay, server))).await {
            // Nobody waits for it any more, or the client has broken a rule.
            None => {}
            Some(Ok(game)) => {
                *self.game.borrow_mut() = Some(Rc::clone(&game));
                self.flush_game();
                let reason = self.carry(&relay, &game, server).await;
                self.end(reason);
                // Plain, so it is ready at once.
                let _ = poll_fn(|cx| game.poll_shutdown(cx)).await;
                *self.game.borrow_mut() = None;
            }
            Some(Err(result)) => {
                let what = format_args!("game server {} cannot be reached: {result}", server.address);
                relay.warn(self.player, self.key, &what);
                self.end(EndReason::GameUnreachable);
            }
        }
        self.finished().await;
        drop(record);
        // A join that is on its way now must meet the end, rather than open a second game connection
        // that the client would never use and never leave.
        let reason = self.machine.borrow().ended();
        if let Some(EndReason::GameClosed | EndReason::ProtocolError | EndReason::Limit | EndReason::Disconnected) =
            reason
        {
            sleep(self.leave_grace).await;
        }
    }

    /// What `work` gives; `None`, and `work` goes no further, where the session ends before.
    async fn unless_ended<T>(&self, mut work: Pin<Box<impl Future<Output = T>>>) -> Option<T> {
        let mut timer = None;
        poll_fn(|cx| {
            self.task.keep(cx);
            loop {
                let passed = self.poll_timer(cx, &mut timer, None).is_ready();
                if self.machine.borrow().ended().is_some() {
                    return Poll::Ready(None);
                }
                if !passed {
                    return work.as_mut().poll(cx).map(Some);
                }
            }
        })
        .await
    }

    async fn connect(&self, relay: &Relay, server: &GameServer) -> Result<Rc<Stream>, ConnectResult> {
        let inbound = &self.inbound;
        let pseudo = &relay.shared.pseudo_ipv4;
        let source = match server.source {
            config::Source::Default => None,
            config::Source::LoopbackPerPlayer => Some(IpAddr::V4(pseudo.loopback(self.player.ip()))),
        };
        if self.connect_at > Instant::now() {
            sleep_until(self.connect_at.into()).await;
        }
        let target = (server.address.host.as_str(), server.address.port);
        let result = connect(target, source, inbound.config().timeouts.connect).await;
        inbound.metrics().connect(result.as_ref().err().copied().unwrap_or(ConnectResult::Ok));
        let (stream, address) = result?;
        let player = SocketAddrV4::new(ipv4_of(self.player.ip(), pseudo), self.player.port());
        let mut header = Vec::new();
        server.player_address.write(&mut header, player, address);
        self.upstream.borrow_mut().push_header(&header);
        Ok(Rc::new(stream))
    }

    /// Moves packets until the session ends; gives why.
    async fn carry(&self, relay: &Relay, game: &Stream, server: &GameServer) -> EndReason {
        let mut cutter = Cutter::new(server.framing);
        let mut partial = Partial::default();
        let mut timer: Option<Pin<Box<Sleep>>> = None;
        poll_fn(|cx| {
            self.task.keep(cx);
            loop {
                if let Poll::Ready(reason) = self.poll_game(cx, relay, game, &mut cutter, &mut partial) {
                    return Poll::Ready(reason);
                }
                if self.game_blocked.get() {
                    match game.poll_drain(cx, || self.write_game()) {
                        Poll::Ready(Ok(())) => self.game_blocked.set(false),
                        Poll::Ready(Err(_)) => return Poll::Ready(EndReason::GameClosed),
                        Poll::Pending => {}
                    }
                }
                let paced = self.upstream.borrow().next_at().filter(|_| !self.game_blocked.get());
                if self.poll_timer(cx, &mut timer, paced).is_pending() {
                    return Poll::Pending;
                }
                self.flush_game();
            }
        })
        .await
    }

    /// Waits until the session has nothing left to tell its client.
    async fn finished(&self) {
        let mut timer = None;
        poll_fn(|cx| {
            self.task.keep(cx);
            loop {
                if self.machine.borrow().is_finished() {
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
    fn poll_timer(
        &self,
        cx: &mut Context<'_>,
        timer: &mut Option<Pin<Box<Sleep>>>,
        other: Option<Instant>,
    ) -> Poll<()> {
        let deadline = self.machine.borrow().deadline();
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
        self.machine.borrow_mut().tick(Instant::now());
        Poll::Ready(())
    }

    fn poll_game(
        &self,
        cx: &mut Context<'_>,
        relay: &Relay,
        game: &Stream,
        cutter: &mut Cutter,
        partial: &mut Partial,
    ) -> Poll<EndReason> {
        for _ in 0..READS_PER_TURN {
            if let Some(reason) = self.machine.borrow().ended() {
                return Poll::Ready(reason);
            }
            if !self.machine.borrow().wants_game_data() {
                return Poll::Pending;
            }
            let mut scratch = relay.scratch.borrow_mut();
            let n = match game.poll_read(cx, &mut scratch) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(EndReason::GameClosed),
                Poll::Ready(Ok(n)) => n,
            };
            if let Err(error) = self.on_game_bytes(relay, scratch.get(..n).unwrap_or_default(), cutter, partial) {
                relay.warn(self.player, self.key, &error);
                return Poll::Ready(EndReason::ProtocolError);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Frames the whole packets of what was read, once, and writes them on every link.
    fn on_game_bytes(
        &self,
        relay: &Relay,
        bytes: &[u8],
        cutter: &mut Cutter,
        partial: &mut Partial,
    ) -> Result<(), PacketError> {
        let result = partial.feed(bytes, |bytes| self.frame(relay, bytes, cutter));
        self.flush_links();
        result
    }

    /// Gives how many bytes the whole packets were.
    fn frame(&self, relay: &Relay, bytes: &[u8], cutter: &mut Cutter) -> (usize, Result<(), PacketError>) {
        let mut machine = self.machine.borrow_mut();
        // Most reads hold one packet, and then this is exact.
        let mut batch = Batch::with_capacity(bytes.len() + HEADER_LEN);
        let (id, ack, first) = (machine.id(), machine.received(), machine.outbox().next());
        let mut used = 0;
        let result = loop {
            match cutter.next(bytes.get(used..).unwrap_or_default()) {
                Ok(Some((packet, len))) => {
                    let number = PacketId(first.0.saturating_add(batch.frames()));
                    batch.push(id, number, ack, packet.length, packet.body);
                    used += len;
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.port.packets_out.inc_by(batch.frames().into());
        let before = machine.outbox().unacked();
        machine.push(batch);
        let added = machine.outbox().unacked() - before;
        relay.metrics.relay_unacked_bytes.add(added as i64);
        self.bytes_out.set(self.bytes_out.get() + used as u64);
        // The number after the last one means end: no session comes near it, and none goes past it.
        if machine.outbox().next() >= PacketId::LAST {
            machine.end(EndReason::Limit);
        }
        (used, result)
    }
}

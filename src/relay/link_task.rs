//! The task of one link: its frames in, and its end.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tracing::debug;

use super::Relay;
use super::client::{RelayClient, write_stream};
use super::link::RelayLink;
use crate::access_log::{AccessLogEntry, Ended, LinkEnd};
use crate::admission::{AdmissionGuard, lost, unfinished};
use crate::connection::CloseReason;
use otproxy_net::CloseTurn;
use otproxy_protocol::core::LinkKey;

/// Reads in one turn: then other links have theirs. Most often the second finds nothing.
const READS_PER_TURN: usize = 2;

/// The task of a link, which carries it to its end. When it is dropped, the link's sessions lose it, and the end is
/// counted and logged, in whatever way it came.
///
/// It is a future of its own rather than an `async fn`, as there is one for each link, and this one takes no byte more
/// than its fields.
pub struct LinkTask {
    relay: Rc<Relay>,
    client: Rc<RelayClient>,
    pub(super) key: LinkKey,
    link: Rc<RelayLink>,
    /// Bytes from before the link was carried here: its first frame, a ping, and perhaps more.
    early: Option<Vec<u8>>,
    /// Frames that were read are left for another turn.
    paused: bool,
    reason: Option<CloseReason>,
    /// The place among the links that have ended in this moment, if there are many.
    turn: Option<Rc<CloseTurn>>,
    /// Counts the link against the listener's limits.
    _guard: AdmissionGuard,
}

impl LinkTask {
    pub(super) fn new(
        relay: Rc<Relay>,
        client: Rc<RelayClient>,
        link: Rc<RelayLink>,
        early: Vec<u8>,
        guard: AdmissionGuard,
    ) -> Self {
        let key = client.machine.borrow_mut().add_link(Rc::clone(&link));
        Self::of(relay, client, (key, link), early, guard)
    }

    /// Returns the task of a link that the machine has already.
    pub(super) fn of(
        relay: Rc<Relay>,
        client: Rc<RelayClient>,
        (key, link): (LinkKey, Rc<RelayLink>),
        early: Vec<u8>,
        guard: AdmissionGuard,
    ) -> Self {
        link.inbound.metrics().active.inc();
        link.edge.links.inc();
        relay.idle_watch.add(&link);
        Self { relay, client, key, link, early: Some(early), paused: false, reason: None, turn: None, _guard: guard }
    }

    fn poll_link(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        self.link.task.keep(cx);
        if let Some(closing) = self.link.handle.poll_closing(cx) {
            return Poll::Ready(closing.into());
        }
        if let Poll::Ready(reason) = self.poll_frames(cx) {
            return Poll::Ready(reason);
        }
        if self.link.silent.take() {
            self.relay.link_silent(self.link.client(), &self.link.sign, &self.link.edge);
            let mut machine = self.client.machine.borrow_mut();
            machine.silent(self.key);
            self.relay.serve_links(&mut machine);
        }
        if self.link.blocked.get() {
            let write = || write_stream(&mut self.client.machine.borrow_mut(), self.key);
            match self.link.stream.poll_drain(cx, write) {
                Poll::Ready(Ok(())) => self.link.blocked.set(false),
                Poll::Ready(Err(_)) => return Poll::Ready(self.failed()),
                Poll::Pending => {}
            }
        }
        match self.link.closing.get() {
            Some(reason) => Poll::Ready(reason),
            None => Poll::Pending,
        }
    }

    fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let mut reads = if self.paused { 1 } else { READS_PER_TURN };
        while reads > 0 {
            reads -= 1;
            let taken = if let Some(early) = self.early.take() {
                self.link.begun.set(true);
                self.on_bytes(&early)
            } else if self.paused {
                self.on_bytes(&[])
            } else {
                let mut scratch = self.relay.scratch.borrow_mut();
                let n = match self.link.stream.poll_read(cx, &mut scratch) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(0)) => return Poll::Ready(CloseReason::Client),
                    Poll::Ready(Err(_)) => return Poll::Ready(self.failed()),
                    Poll::Ready(Ok(n)) => n,
                };
                self.on_bytes(scratch.get(..n).unwrap_or_default())
            };
            match taken {
                Ok(paused) => self.paused = paused,
                Err(reason) => return Poll::Ready(reason),
            }
            if self.paused {
                break;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Returns the reason for which a link whose stream failed has ended.
    fn failed(&self) -> CloseReason {
        lost(&self.link.stream, self.link.origin.as_ref()).unwrap_or(CloseReason::ClientError)
    }

    fn on_bytes(&self, bytes: &[u8]) -> Result<bool, CloseReason> {
        let Self { relay, client, key, link, .. } = self;
        link.handle.add_in(bytes.len() as u64);
        link.inbound.metrics().bytes_in.inc_by(bytes.len() as u64);
        relay.receive(client, (*key, link), bytes)
    }
}

impl Future for LinkTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.reason.is_none() {
            self.reason = Some(ready!(self.poll_link(cx)));
        }
        let Self { relay, turn, link, .. } = &mut *self;
        ready!(relay.tasks.closes().poll_turn(cx, turn));
        // Under TLS an end that is not said looks like a cut. It is tried once: nobody waits here any more.
        let _ = link.stream.poll_shutdown(cx);
        Poll::Ready(())
    }
}

impl Drop for LinkTask {
    fn drop(&mut self) {
        let link = &self.link;
        self.relay.idle_watch.remove(link);
        // Tried, for a second panic while one unwinds would end the process.
        if let Ok(mut machine) = self.client.machine.try_borrow_mut() {
            machine.lost(self.key, Instant::now());
            self.relay.serve_links(&mut machine);
        }
        self.relay.forget_unused(&self.client);
        let reason =
            self.reason.unwrap_or_else(|| unfinished(&link.handle, link.origin.as_ref().map(|origin| &*origin.edge)));
        self.relay.link_ended(link.client(), &link.sign, &link.edge, reason);
        link.edge.links.dec();
        let inbound = &link.inbound;
        inbound.metrics().active.dec();
        inbound.count_closed(reason, &link.handle, link.key());
        inbound.access_log(|| {
            let what = Ended::Link(LinkEnd { client: link.client(), reason });
            AccessLogEntry {
                edge: Some(link.edge.name.to_string()),
                bytes_in: link.handle.bytes_in(),
                bytes_out: link.handle.bytes_out(),
                open: inbound.open_counts(),
                ..AccessLogEntry::new(&inbound.config().name, link.player(), link.handle.began(), what)
            }
        });
        debug!(
            listener = inbound.config().name,
            player = %link.player(),
            client = %link.client(),
            seconds = link.handle.began().elapsed().as_secs_f64(),
            bytes_in = link.handle.bytes_in(),
            bytes_out = link.handle.bytes_out(),
            %reason,
            "link ended",
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::net::{TcpListener, TcpStream};
    use tokio::runtime::{Builder, LocalOptions};

    use super::*;
    use crate::admission::{
        AdmissionControl, AdmissionLimits, BanMetrics, BanPolicy, Bans, InboundShared, ListenerAdmission,
        ProcessAdmission,
    };
    use crate::metrics::Metrics;
    use crate::relay::{EdgeMetrics, FRAMES_PER_TURN, OTHER_EDGE, RelayShared};
    use otproxy_config::{self as config, Config};
    use otproxy_net::Stream;
    use otproxy_net::worker::{Tasks, scratch};
    use otproxy_protocol::core::OpenError;
    use otproxy_protocol::frame::{self, ClientId, PacketId, SessionId};
    use otproxy_protocol::player_address::PseudoIpv4;

    /// Runs a test with a link's task, whose first bytes are these, and the peer of the link.
    fn with_link(early: Vec<u8>, test: impl AsyncFnOnce(Rc<Relay>, Pin<Box<LinkTask>>, TcpStream)) {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
        runtime.block_on(async {
            let text = "role: core\nworkers: 1\n\
                        listeners: [{ name: links, kind: relay, listen: '127.0.0.1:1', accept_proxy: none }]\n\
                        game_servers: [{ port: 7172, address: '127.0.0.1:2' }]\n";
            let Config::Core(core) = config::parse("core.yaml", text).unwrap() else { panic!("a core") };
            let metrics = Arc::new(Metrics::new());
            let bans = Bans::new(BanPolicy::off(), BanMetrics::new(&metrics));
            let gate = || AdmissionControl::new(AdmissionLimits::default(), Arc::default());
            let process = ProcessAdmission::new(gate(), bans);
            let (shared, _) = RelayShared::new(&core, PseudoIpv4::new([1; 16]), Arc::default());
            let tasks = Tasks::new(metrics.on_panic());
            let relay = Relay::new(shared, 0, Arc::clone(&metrics), Rc::new(scratch()), tasks, None);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (stream, player) = listener.accept().await.unwrap();
            let inbound =
                relay.inbound(&InboundShared::new(core.listeners[0].inbound().clone(), Arc::clone(&process), None));
            let guard = ListenerAdmission::new("links", gate(), process).admit_peer(player).unwrap();
            let (stream, handle) = (Stream::new(stream).unwrap(), Arc::clone(guard.handle()));
            let edge = Rc::new(EdgeMetrics::new(&metrics, OTHER_EDGE));
            let link = Rc::new(RelayLink::new(stream, (handle, player.ip().into()), ClientId(5), edge, None, inbound));
            let client = relay.client(ClientId(5));
            let task = LinkTask::new(Rc::clone(&relay), client, link, early, guard);
            test(relay, Box::pin(task), peer).await;
        });
    }

    #[test]
    fn a_link_that_ends_with_many_others_waits_for_its_turn() {
        with_link(frame::ping(ClientId(5), 0).to_vec(), async |relay, mut task, peer| {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            drop(peer);
            while task.reason.is_none() {
                tokio::task::yield_now().await;
                while relay.tasks.closes().poll_turn(&mut cx, &mut None).is_ready() {}
                assert!(task.as_mut().poll(&mut cx).is_pending());
            }
            assert_eq!(task.reason, Some(CloseReason::Client));
            assert_eq!(relay.clients.borrow().len(), 1, "it is there until then");
            task.await;
            assert!(relay.clients.borrow().is_empty());
        });
    }

    #[test]
    fn a_turn_has_so_many_frames_and_then_others_have_theirs() {
        let refused = frame::data_header(SessionId(1), PacketId(1), PacketId(0), 0);
        let junk = refused.repeat(FRAMES_PER_TURN as usize + 1);
        let early = [&frame::ping(ClientId(5), 0)[..], &junk].concat();
        with_link(early, async |relay, mut task, peer| {
            let refused = || relay.refused.get(OpenError::UnknownSession) as u32;
            let mut cx = Context::from_waker(std::task::Waker::noop());
            assert!(task.as_mut().poll(&mut cx).is_pending());
            assert_eq!(refused(), FRAMES_PER_TURN - 1, "and the ping");
            // More that has come is not read before those are done with.
            peer.writable().await.unwrap();
            peer.try_write(&junk).unwrap();
            assert!(task.as_mut().poll(&mut cx).is_pending());
            assert_eq!(refused(), FRAMES_PER_TURN + 1);
            while refused() < 2 * (FRAMES_PER_TURN + 1) {
                assert!(task.as_mut().poll(&mut cx).is_pending());
                tokio::task::yield_now().await;
            }
        });
    }
}

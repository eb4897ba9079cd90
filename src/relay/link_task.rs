//! The task of one link: its frames in, and its end.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use tracing::debug;

use super::Relay;
use super::client::{RelayClient, write_stream};
use super::link::RelayLink;
use crate::access_log::{AccessLogEntry, Ended, LinkEnd};
use crate::admission::{AdmissionGuard, unfinished};
use crate::connection::CloseReason;
use otproxy_protocol::core::LinkKey;
use otproxy_protocol::frame::FrameError;

/// Reads in one turn: then other links have theirs.
const READS_PER_TURN: usize = 8;

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
    reason: Option<CloseReason>,
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
        link.inbound.metrics().active.inc();
        link.edge.links.inc();
        relay.idle_watch.add(&link);
        let key = client.machine.borrow_mut().add_link(Rc::clone(&link));
        Self { relay, client, key, link, early: Some(early), reason: None, _guard: guard }
    }

    fn poll_link(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        self.link.task.keep(cx);
        if let Some(closing) = self.link.handle.poll_closing(cx) {
            return Poll::Ready(closing.into());
        }
        if let Some(early) = self.early.take()
            && self.on_bytes(&early).is_err()
        {
            return Poll::Ready(CloseReason::ProtocolError);
        }
        if let Poll::Ready(reason) = self.poll_frames(cx) {
            return Poll::Ready(reason);
        }
        if self.link.silent.take() {
            let mut machine = self.client.machine.borrow_mut();
            machine.silent(self.key);
            self.relay.serve_links(&mut machine);
        }
        if self.link.blocked.get() {
            let write = || write_stream(&mut self.client.machine.borrow_mut(), self.key);
            match self.link.stream.poll_drain(cx, write) {
                Poll::Ready(Ok(())) => self.link.blocked.set(false),
                Poll::Ready(Err(_)) => return Poll::Ready(CloseReason::ClientError),
                Poll::Pending => {}
            }
        }
        match self.link.closing.get() {
            Some(reason) => Poll::Ready(reason),
            None => Poll::Pending,
        }
    }

    fn poll_frames(&self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        for _ in 0..READS_PER_TURN {
            let mut scratch = self.relay.scratch.borrow_mut();
            let n = match self.link.stream.poll_read(cx, &mut scratch) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => return Poll::Ready(CloseReason::Client),
                Poll::Ready(Err(_)) => return Poll::Ready(CloseReason::ClientError),
                Poll::Ready(Ok(n)) => n,
            };
            if self.on_bytes(scratch.get(..n).unwrap_or_default()).is_err() {
                return Poll::Ready(CloseReason::ProtocolError);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn on_bytes(&self, bytes: &[u8]) -> Result<(), FrameError> {
        let Self { relay, client, key, link, .. } = self;
        link.handle.add_in(bytes.len() as u64);
        link.inbound.metrics().bytes_in.inc_by(bytes.len() as u64);
        relay.receive(client, (*key, link), bytes)
    }
}

impl Future for LinkTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let polled = self.poll_link(cx);
        polled.map(|reason| {
            self.reason = Some(reason);
            // Under TLS an end that is not said looks like a cut. It is tried once: nobody waits here any more.
            let _ = self.link.stream.poll_shutdown(cx);
        })
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
        link.edge.links.dec();
        let inbound = &link.inbound;
        inbound.metrics().active.dec();
        inbound.count_closed(reason, link.player());
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

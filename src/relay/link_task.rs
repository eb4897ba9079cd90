//! The task of one link: its frames in, and its end.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tracing::debug;

use super::Relay;
use super::link::Link;
use super::session::Session;
use crate::access_log::{Entry, LinkEnd, What};
use crate::admission::{Admission, unfinished};
use crate::connection::CloseReason;
use otproxy_protocol::frame::{Frame, FrameError, FromClient};
use otproxy_protocol::partial::Partial;

/// Reads in one turn: then other links have theirs.
const READS_PER_TURN: usize = 8;

/// Carries a link to its end. When it is dropped, the link's sessions lose it, and the end is
/// counted and logged, however it came.
///
/// It is a future of its own rather than an `async fn`: there are as many of it as links, and this
/// one takes no byte more than its fields.
pub struct LinkTask {
    relay: Rc<Relay>,
    link: Rc<Link>,
    /// The start of a frame that is not whole yet: never more than one frame and one read.
    partial: Partial,
    /// What came before the link was carried here: its first frame, a ping, and perhaps more.
    early: Option<Vec<u8>>,
    reason: Option<CloseReason>,
    /// Counts the link against the listener's limits.
    _guard: Admission,
}

/// What one read leaves to do.
#[derive(Default)]
struct Turn {
    /// A session whose game connection has new data to write.
    touched: Option<Rc<Session>>,
    /// The link itself has something to write.
    answer: bool,
    /// Whether a whole frame was seen.
    heard: bool,
}

/// The peer does not speak the protocol: the link is closed.
struct ProtocolError;

impl From<FrameError> for ProtocolError {
    fn from(_: FrameError) -> Self {
        Self
    }
}

impl LinkTask {
    pub(super) fn new(relay: Rc<Relay>, link: Rc<Link>, early: Vec<u8>, guard: Admission) -> Self {
        link.inbound.metrics().active.inc();
        link.edge.links.inc();
        relay.idle_watch.add(&link);
        Self { relay, link, partial: Partial::default(), early: Some(early), reason: None, _guard: guard }
    }

    fn poll_link(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        self.link.task.keep(cx);
        if let Some(closing) = self.link.presence.poll_closing(cx) {
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
        if self.link.blocked.get() {
            match self.link.stream.poll_drain(cx, || self.link.write()) {
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

    fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let relay = Rc::clone(&self.relay);
        for _ in 0..READS_PER_TURN {
            let mut scratch = relay.scratch.borrow_mut();
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

    /// Takes in bytes; what is not a whole frame yet is kept.
    fn on_bytes(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        let Self { relay, link, partial, .. } = self;
        link.presence.add_in(bytes.len() as u64);
        link.inbound.metrics().bytes_in.inc_by(bytes.len() as u64);
        let mut turn = Turn::default();
        let result = partial.feed(bytes, |bytes| turn.on_frames(relay, link, bytes));
        if turn.heard {
            relay.idle_watch.heard(link);
        }
        if let Some(session) = turn.touched {
            session.flush_game();
        }
        if turn.answer {
            link.flush();
        }
        result
    }
}

impl Turn {
    /// Takes in the whole frames of `bytes`; gives how many bytes those are.
    fn on_frames(&mut self, relay: &Rc<Relay>, link: &Rc<Link>, bytes: &[u8]) -> (usize, Result<(), ProtocolError>) {
        let mut rest = bytes;
        let result = loop {
            match Frame::split(rest) {
                Ok(Some((frame, behind))) => {
                    rest = behind;
                    self.heard = true;
                    self.on_frame(relay, link, frame.from_client());
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.into()),
            }
        };
        (bytes.len() - rest.len(), result)
    }

    fn on_frame(&mut self, relay: &Rc<Relay>, link: &Rc<Link>, frame: FromClient<'_>) {
        match frame {
            // The first ping said whose link this is; what later ones say changes nothing.
            FromClient::Ping { client: _, rtt } => {
                if let Some(rtt) = rtt {
                    link.edge.rtt.observe(rtt.as_secs_f64());
                    link.round_trip.set(Some(rtt));
                }
                link.writer.borrow_mut().pong();
                self.answer = true;
            }
            FromClient::Open { session, port } => {
                relay.open(link, session, port);
                self.answer = true;
            }
            FromClient::Data { session: id, packet, ack, payload } => {
                let session = link.writer.borrow().get(id).cloned();
                let Some(session) = session else {
                    relay.stray_data(link, id);
                    self.answer = true;
                    return;
                };
                session.on_data(relay, &link.edge, packet, ack, payload);
                self.touch(session);
            }
            FromClient::Leave { session } => {
                let session = link.writer.borrow_mut().remove(session);
                if let Some(session) = session {
                    session.left_by(link);
                }
            }
        }
    }

    /// Notes that `session` has something for its game server; the one before it writes now.
    fn touch(&mut self, session: Rc<Session>) {
        match &self.touched {
            Some(same) if Rc::ptr_eq(same, &session) => {}
            _ => {
                if let Some(other) = self.touched.replace(session) {
                    other.flush_game();
                }
            }
        }
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
        let sessions: Vec<_> = link.writer.try_borrow_mut().map(|mut w| w.clear().collect()).unwrap_or_default();
        for session in sessions {
            session.lost_by(link);
        }
        let reason = self.reason.unwrap_or_else(|| unfinished(&link.presence, link.via.as_ref().map(|via| &*via.edge)));
        link.edge.links.dec();
        let inbound = &link.inbound;
        inbound.metrics().active.dec();
        inbound.count_closed(reason, link.player());
        inbound.access_log(|| {
            let what = What::Link(LinkEnd { client: link.client(), reason });
            Entry {
                edge: Some(link.edge.name.to_string()),
                bytes_in: link.presence.bytes_in(),
                bytes_out: link.presence.bytes_out(),
                open: inbound.open(),
                ..Entry::new(&inbound.config().name, link.player(), link.presence.began(), what)
            }
        });
        debug!(
            listener = inbound.config().name,
            player = %link.player(),
            client = %link.client(),
            seconds = link.presence.began().elapsed().as_secs_f64(),
            bytes_in = link.presence.bytes_in(),
            bytes_out = link.presence.bytes_out(),
            %reason,
            "link ended",
        );
    }
}

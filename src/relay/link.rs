//! One link of a client: its frames in, what its sessions have for it out.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use prometheus::IntCounter;
use tokio::time::sleep_until;
use tracing::debug;

use super::Relay;
use super::session::Session;
use super::task_waker::TaskWaker;
use crate::metrics::EdgeMetrics;
use crate::net::{Inbound, Stream};
use crate::reason::CloseReason;
use crate::session::{LinkWriter, Written};
use crate::wire::frame::{ClientId, Frame, FrameError, FromClient, SessionId};
use crate::wire::partial::Partial;

/// Reads in one turn: then other links have theirs.
const READS_PER_TURN: usize = 8;

/// A link on the worker that owns its client.
pub struct Link {
    stream: Stream,
    client: ClientId,
    player: SocketAddr,
    edge: EdgeMetrics,
    listener: usize,
    writer: RefCell<LinkWriter<Rc<Session>>>,
    /// The socket takes no more: the link's task waits for it.
    blocked: Cell<bool>,
    failed: Cell<bool>,
    bytes_out: Cell<u64>,
    /// The listener's counter.
    bytes_out_total: IntCounter,
    task: TaskWaker,
}

/// What one read leaves to do.
#[derive(Default)]
struct Turn {
    /// A session whose game connection has new data to write.
    touched: Option<Rc<Session>>,
    /// The link itself has something to write.
    answer: bool,
    /// Whole frames seen.
    frames: usize,
}

/// The peer does not speak the protocol: the link is closed.
struct ProtocolError;

impl From<FrameError> for ProtocolError {
    fn from(_: FrameError) -> Self {
        Self
    }
}

impl Link {
    pub(super) fn new(
        stream: Stream,
        client: ClientId,
        player: SocketAddr,
        edge: EdgeMetrics,
        listener: usize,
        bytes_out_total: IntCounter,
    ) -> Self {
        Self {
            stream,
            client,
            player,
            edge,
            listener,
            writer: RefCell::default(),
            blocked: Cell::new(false),
            failed: Cell::new(false),
            bytes_out: Cell::new(0),
            bytes_out_total,
            task: TaskWaker::default(),
        }
    }

    pub(super) fn client(&self) -> ClientId {
        self.client
    }

    pub(super) fn player(&self) -> SocketAddr {
        self.player
    }

    pub(super) fn listener(&self) -> usize {
        self.listener
    }

    pub(super) fn carries(&self, session: SessionId) -> bool {
        self.writer.borrow().get(session).is_some()
    }

    pub(super) fn sessions(&self) -> usize {
        self.writer.borrow().sessions()
    }

    pub(super) fn join(&self, session: Rc<Session>) {
        self.writer.borrow_mut().join(session);
    }

    /// Queues an end for a session that the link does not carry.
    pub(super) fn answer_end(&self, session: SessionId) {
        self.writer.borrow_mut().end(session);
    }

    /// Carries the link to its end. `early` came before: its first frame, a ping, and perhaps more.
    pub(super) async fn run(self: Rc<Self>, relay: &Rc<Relay>, early: Vec<u8>) {
        let Some(inbound) = relay.inbound(self.listener) else { return };
        let idle = inbound.config().idle_timeout;
        let mut record = Record::new(&self, inbound);
        let mut partial = Partial::default();
        let mut last_frame = Instant::now();
        let mut timer = pin!(sleep_until((last_frame + idle).into()));
        let mut early = Some(early);
        let reason = poll_fn(|cx| {
            self.task.keep(cx);
            if let Some(early) = early.take() {
                record.count_in(early.len());
                if self.on_bytes(relay, &early, &mut partial).is_err() {
                    return Poll::Ready(CloseReason::ProtocolError);
                }
            }
            if let Poll::Ready(reason) = self.poll_frames(cx, relay, &mut partial, &mut record, &mut last_frame) {
                return Poll::Ready(reason);
            }
            if self.blocked.get() {
                match self.stream.poll_drain(cx, || self.write()) {
                    Poll::Ready(Ok(())) => self.blocked.set(false),
                    Poll::Ready(Err(_)) => return Poll::Ready(CloseReason::ClientError),
                    Poll::Pending => {}
                }
            }
            if self.failed.get() {
                return Poll::Ready(CloseReason::ClientError);
            }
            // The timer is moved only when it fires, not with every frame.
            while timer.as_mut().poll(cx).is_ready() {
                let deadline = last_frame + idle;
                if Instant::now() >= deadline {
                    return Poll::Ready(CloseReason::Idle);
                }
                timer.as_mut().reset(deadline.into());
            }
            Poll::Pending
        })
        .await;
        record.reason = Some(reason);
    }

    fn poll_frames(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        relay: &Rc<Relay>,
        partial: &mut Partial,
        record: &mut Record<'_>,
        last_frame: &mut Instant,
    ) -> Poll<CloseReason> {
        for _ in 0..READS_PER_TURN {
            let mut scratch = relay.scratch.borrow_mut();
            let n = match self.stream.poll_read(cx, &mut scratch) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => return Poll::Ready(CloseReason::Client),
                Poll::Ready(Err(_)) => return Poll::Ready(CloseReason::ClientError),
                Poll::Ready(Ok(n)) => n,
            };
            record.count_in(n);
            match self.on_bytes(relay, scratch.get(..n).unwrap_or_default(), partial) {
                Ok(0) => {}
                Ok(_) => *last_frame = Instant::now(),
                Err(_) => return Poll::Ready(CloseReason::ProtocolError),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes in bytes; what is not a whole frame yet is kept in `partial`, never more than one
    /// frame and one read. Gives the whole frames seen.
    fn on_bytes(
        self: &Rc<Self>,
        relay: &Rc<Relay>,
        bytes: &[u8],
        partial: &mut Partial,
    ) -> Result<usize, ProtocolError> {
        let mut turn = Turn::default();
        let result = partial.feed(bytes, |bytes| self.on_frames(relay, bytes, &mut turn));
        if let Some(session) = turn.touched {
            session.flush_game();
        }
        if turn.answer {
            self.flush();
        }
        result.map(|()| turn.frames)
    }

    /// Takes in the whole frames of `bytes`; gives how many bytes those are.
    fn on_frames(
        self: &Rc<Self>,
        relay: &Rc<Relay>,
        bytes: &[u8],
        turn: &mut Turn,
    ) -> (usize, Result<(), ProtocolError>) {
        let mut rest = bytes;
        let result = loop {
            match Frame::split(rest) {
                Ok(Some((frame, behind))) => {
                    rest = behind;
                    turn.frames += 1;
                    self.on_frame(relay, frame.from_client(), turn);
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.into()),
            }
        };
        (bytes.len() - rest.len(), result)
    }

    fn on_frame(self: &Rc<Self>, relay: &Rc<Relay>, frame: FromClient<'_>, turn: &mut Turn) {
        match frame {
            // The first ping said whose link this is; what later ones say changes nothing.
            FromClient::Ping { client: _, rtt } => {
                if let Some(rtt) = rtt {
                    self.edge.rtt.observe(rtt.as_secs_f64());
                }
                self.writer.borrow_mut().pong();
                turn.answer = true;
            }
            FromClient::Open { session, port } => {
                relay.open(self, session, port);
                turn.answer = true;
            }
            FromClient::Data { session: id, packet, ack, payload } => {
                let session = self.writer.borrow().get(id).cloned();
                let Some(session) = session else {
                    relay.stray_data(self, id);
                    turn.answer = true;
                    return;
                };
                session.on_data(relay, &self.edge, packet, ack, payload);
                turn.touch(session);
            }
            FromClient::Leave { session } => {
                let session = self.writer.borrow_mut().remove(session);
                if let Some(session) = session {
                    session.left_by(self);
                }
            }
        }
    }

    /// Writes at once what waits for this link, as far as its socket takes it.
    pub(super) fn flush(&self) {
        if self.blocked.get() || self.failed.get() {
            return;
        }
        match self.write() {
            Ok(false) => return,
            Ok(true) => self.blocked.set(true),
            Err(_) => self.failed.set(true),
        }
        self.task.wake();
    }

    /// Writes what waits; gives whether the socket takes no more.
    fn write(&self) -> io::Result<bool> {
        let written = self.writer.borrow_mut().write_to(|slices| self.stream.try_write(slices))?;
        let Written { bytes, first, duplicate, blocked } = written;
        self.bytes_out.set(self.bytes_out.get() + bytes);
        self.bytes_out_total.inc_by(bytes);
        if first > 0 {
            self.edge.out_first.inc_by(first.into());
        }
        if duplicate > 0 {
            self.edge.out_duplicate.inc_by(duplicate.into());
        }
        Ok(blocked)
    }
}

impl Turn {
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

/// The account of one link: when it is dropped, the link's sessions lose it, and the end is counted
/// and logged, however it came.
struct Record<'a> {
    link: &'a Rc<Link>,
    inbound: &'a Inbound,
    started: Instant,
    bytes_in: u64,
    reason: Option<CloseReason>,
}

impl<'a> Record<'a> {
    fn new(link: &'a Rc<Link>, inbound: &'a Inbound) -> Self {
        inbound.metrics().active.inc();
        link.edge.links.inc();
        Self { link, inbound, started: Instant::now(), bytes_in: 0, reason: None }
    }

    fn count_in(&mut self, bytes: usize) {
        self.bytes_in += bytes as u64;
        self.inbound.metrics().bytes_in.inc_by(bytes as u64);
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let link = self.link;
        // After a panic in the middle of a write the writer may be in use for ever.
        let sessions: Vec<_> = link.writer.try_borrow_mut().map(|mut w| w.clear().collect()).unwrap_or_default();
        for session in sessions {
            session.lost_by(link);
        }
        let unfinished = if std::thread::panicking() { CloseReason::Panic } else { CloseReason::Shutdown };
        let reason = self.reason.unwrap_or(unfinished);
        let metrics = self.inbound.metrics();
        link.edge.links.dec();
        metrics.active.dec();
        metrics.closed(reason);
        debug!(
            listener = self.inbound.config().name,
            player = %link.player,
            client = %link.client,
            seconds = self.started.elapsed().as_secs_f64(),
            bytes_in = self.bytes_in,
            bytes_out = link.bytes_out.get(),
            %reason,
            "link ended",
        );
    }
}

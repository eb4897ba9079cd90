//! A trunk on a worker: its task, which moves frames between a connection and a machine, and the streams that others read and
//! write.
//!
//! All streams of a trunk are written to one buffer, which the task writes to the connection once those that were ready before
//! it have had their turn: so the frames of many players leave in one record, with one system call.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use otproxy_protocol::trunk::{
    OpenRequest, Received, ResetReason, Side, StreamId, TrunkError, TrunkEvent, TrunkMachine,
};

use super::worker::Scratch;
use super::{Stream, TaskWaker};

/// Reads in one turn: then other tasks have theirs.
const READS_PER_TURN: usize = 4;
/// The interval at which a side asks the other whether it is there.
pub const HEARTBEAT: Duration = Duration::from_secs(2);
/// The time without a byte after which a trunk is given up: that of four heartbeats.
pub const SILENCE: Duration = Duration::from_secs(8);
/// The time that an answer may take until new streams go over other trunks.
pub const STALLED: Duration = Duration::from_millis(1500);

/// The reason for which a trunk ended.
#[derive(Debug, Error)]
pub enum TrunkEnd {
    /// The other side has ended it.
    #[error("ended by the other side")]
    Closed,
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Failed(#[from] io::Error),
    /// Nothing came for [`SILENCE`].
    #[error("nothing came for {} s", SILENCE.as_secs())]
    Silent,
    /// The other side sent what the format does not allow.
    #[error(transparent)]
    Protocol(#[from] TrunkError),
    /// This side has ended it.
    #[error("ended by this side")]
    Ours,
}

/// The owner of a side of a trunk.
pub trait TrunkOwner {
    /// Takes a stream, or [refuses](TrunkStream::refuse) it.
    fn opened(&self, request: OpenRequest, stream: TrunkStream);

    /// Learns of a stream that was reset at once, as its opening says nothing about a player.
    fn bad_open(&self) {}

    /// Learns that the other side wants no more streams here.
    fn gone_away(&self) {}
}

/// Figures of a trunk, read by other threads.
#[derive(Debug, Default)]
pub struct TrunkStats {
    /// Bytes of plaintext that came and went.
    pub bytes_in: AtomicU64,
    /// See `bytes_in`.
    pub bytes_out: AtomicU64,
    /// Streams now.
    pub streams: AtomicU64,
    /// The last round trip in microseconds; 0 before the first.
    pub round_trip: AtomicU64,
}

/// The tasks that wait for a stream, and whether its writer was sent away.
#[derive(Debug, Default)]
struct Waiters {
    reader: TaskWaker,
    writer: TaskWaker,
    full: Cell<bool>,
}

impl Waiters {
    fn wake_all(&self) {
        self.full.set(false);
        self.reader.wake();
        self.writer.wake();
    }
}

/// A trunk on the worker that has it.
pub struct Trunk {
    machine: RefCell<TrunkMachine<Waiters>>,
    task: TaskWaker,
    /// True once it has ended: its streams are cut, behind what has come for them.
    over: Cell<bool>,
    /// True once this side wants it to end.
    closing: Cell<bool>,
    /// True once either side wants no more streams here.
    gone_away: Cell<bool>,
    /// The time of the ping that is not answered yet.
    asked: Cell<Option<Instant>>,
    /// Streams that do not count.
    aside: Cell<usize>,
    stats: Arc<TrunkStats>,
}

impl fmt::Debug for Trunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trunk").field("over", &self.over).finish_non_exhaustive()
    }
}

impl Trunk {
    /// Makes a side of a trunk that keeps its figures in `stats`; the other side has told `credit` in its hello.
    pub fn new(side: Side, credit: u32, stats: Arc<TrunkStats>) -> Rc<Self> {
        Rc::new(Self {
            machine: RefCell::new(TrunkMachine::new(side, credit)),
            task: TaskWaker::default(),
            over: Cell::new(false),
            closing: Cell::new(false),
            gone_away: Cell::new(false),
            asked: Cell::new(None),
            aside: Cell::new(0),
            stats,
        })
    }

    /// Returns its figures.
    pub fn stats(&self) -> &Arc<TrunkStats> {
        &self.stats
    }

    /// Returns the number of its streams, without those that are [aside](Stream::set_aside).
    pub fn streams(&self) -> usize {
        self.machine.borrow().len().saturating_sub(self.aside.get())
    }

    /// Returns whether new streams can go over it: it lives, and the other side takes them.
    pub fn takes_streams(&self) -> bool {
        !self.over.get() && !self.gone_away.get() && !self.closing.get()
    }

    /// Returns whether the other side takes long to answer, so that new streams should go over another one.
    pub fn is_stalled(&self, now: Instant) -> bool {
        self.asked.get().is_some_and(|asked| now.saturating_duration_since(asked) >= STALLED)
    }

    /// Ends the trunk and cuts its streams.
    pub fn close(&self) {
        self.closing.set(true);
        self.task.wake();
    }

    /// Takes no more streams, and asks the other side to open none here.
    pub fn go_away(&self) {
        self.gone_away.set(true);
        self.machine.borrow_mut().go_away();
        self.task.wake();
    }

    /// Opens a stream. `None` if the trunk takes none any more.
    pub fn open(self: &Rc<Self>, request: &OpenRequest) -> Option<TrunkStream> {
        if !self.takes_streams() {
            return None;
        }
        let id = self.machine.borrow_mut().open(request, Waiters::default())?;
        self.task.wake();
        self.count_streams();
        Some(TrunkStream::new(Rc::clone(self), id))
    }

    fn count_streams(&self) {
        // A panic may unwind through whoever has borrowed it.
        if let Ok(machine) = self.machine.try_borrow() {
            let streams = machine.len().saturating_sub(self.aside.get());
            self.stats.streams.store(streams as u64, Ordering::Relaxed);
        }
    }

    /// Carries the trunk over `stream`, on which `early` came behind the hello, until it ends. Then all of its streams are cut.
    pub async fn run(
        self: &Rc<Self>,
        stream: Stream,
        early: Vec<u8>,
        scratch: &Scratch,
        owner: &impl TrunkOwner,
    ) -> TrunkEnd {
        stream.limit_unsent();
        stream.towards_target();
        // It may be dropped at any moment.
        let _cut = CutAtEnd(self);
        let mut ticks = interval(HEARTBEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut carry =
            Carry { trunk: self, stream, early: Some(early), ticks: pin!(ticks), heard: Instant::now(), token: 0 };
        match poll_fn(|cx| carry.poll(cx, scratch, owner)).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }
}

/// Cuts the streams of a trunk when its task ends, in whatever way.
struct CutAtEnd<'a>(&'a Trunk);

impl Drop for CutAtEnd<'_> {
    fn drop(&mut self) {
        self.0.over.set(true);
        if let Ok(mut machine) = self.0.machine.try_borrow_mut() {
            machine.streams().for_each(|waiters| waiters.wake_all());
        }
    }
}

/// No value: a trunk's task ends with an end alone.
enum Never {}

/// The task of a trunk.
struct Carry<'a> {
    trunk: &'a Rc<Trunk>,
    stream: Stream,
    /// Bytes that were read before.
    early: Option<Vec<u8>>,
    ticks: Pin<&'a mut Interval>,
    /// The time of the last byte.
    heard: Instant,
    /// The token of the last ping.
    token: u64,
}

impl Carry<'_> {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &Scratch,
        owner: &impl TrunkOwner,
    ) -> Poll<Result<Never, TrunkEnd>> {
        let trunk = self.trunk;
        trunk.task.keep(cx);
        if trunk.closing.get() {
            let _ = self.poll_write(cx);
            let _ = self.stream.poll_shutdown(cx);
            return Poll::Ready(Err(TrunkEnd::Ours));
        }
        let read = self.poll_read(cx, scratch, owner);
        self.poll_heartbeat(cx)?;
        if let Poll::Ready(Err(error)) = self.poll_write(cx) {
            return Poll::Ready(Err(error.into()));
        }
        // Bytes that were read count before a connection that takes no more.
        match read {
            Poll::Ready(Err(end)) => Poll::Ready(Err(end)),
            Poll::Ready(Ok(())) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Reads and takes what has come; ready if there may be more.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &Scratch,
        owner: &impl TrunkOwner,
    ) -> Poll<Result<(), TrunkEnd>> {
        if let Some(early) = self.early.take() {
            self.take(&early, owner)?;
        }
        let mut scratch = scratch.borrow_mut();
        for _ in 0..READS_PER_TURN {
            let count = ready!(self.stream.poll_read(cx, &mut scratch))?;
            if count == 0 {
                return Poll::Ready(Err(TrunkEnd::Closed));
            }
            self.heard = Instant::now();
            self.trunk.stats.bytes_in.fetch_add(count as u64, Ordering::Relaxed);
            self.take(scratch.get(..count).unwrap_or_default(), owner)?;
        }
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, mut bytes: &[u8], owner: &impl TrunkOwner) -> Result<(), TrunkEnd> {
        let trunk = self.trunk;
        loop {
            let mut machine = trunk.machine.borrow_mut();
            let Some(event) = machine.receive(&mut bytes)? else { return Ok(()) };
            match event {
                TrunkEvent::Readable(id) => {
                    if let Some(waiters) = machine.stream(id) {
                        waiters.reader.wake();
                    }
                }
                TrunkEvent::Writable(id) => {
                    if let Some(waiters) = machine.stream(id) {
                        waiters.wake_all();
                    }
                }
                TrunkEvent::Open(id, request) => {
                    machine.accept(id, Waiters::default());
                    drop(machine);
                    trunk.count_streams();
                    owner.opened(request, TrunkStream::new(Rc::clone(trunk), id));
                }
                TrunkEvent::BadOpen(_) => {
                    drop(machine);
                    owner.bad_open();
                }
                TrunkEvent::Pong(token) => {
                    if token == self.token
                        && let Some(asked) = trunk.asked.take()
                    {
                        let round_trip = self.heard.saturating_duration_since(asked);
                        trunk.stats.round_trip.store(round_trip.as_micros().max(1) as u64, Ordering::Relaxed);
                    }
                }
                TrunkEvent::GoAway => {
                    trunk.gone_away.set(true);
                    drop(machine);
                    owner.gone_away();
                }
            }
        }
    }

    fn poll_heartbeat(&mut self, cx: &mut Context<'_>) -> Result<(), TrunkEnd> {
        while self.ticks.as_mut().poll_tick(cx).is_ready() {
            let now = Instant::now();
            if now.saturating_duration_since(self.heard) >= SILENCE {
                return Err(TrunkEnd::Silent);
            }
            if self.trunk.asked.get().is_none() {
                self.token += 1;
                self.trunk.machine.borrow_mut().ping(self.token);
                self.trunk.asked.set(Some(now));
            }
        }
        Ok(())
    }

    /// Writes what waits, as far as the connection takes it, and lets streams that had no room fill it again.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (trunk, stream) = (self.trunk, &self.stream);
        let mut machine = trunk.machine.borrow_mut();
        if !machine.outgoing().is_empty() || stream.holds_back() {
            let write = || {
                loop {
                    let out = machine.outgoing();
                    if out.is_empty() {
                        return Ok(false);
                    }
                    match stream.try_write(&[IoSlice::new(out)]) {
                        Ok(count) => {
                            trunk.stats.bytes_out.fetch_add(count as u64, Ordering::Relaxed);
                            machine.written(count);
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                        Err(error) => return Err(error),
                    }
                }
            };
            ready!(stream.poll_drain(cx, write))?;
        }
        let mut given = 0;
        while let Some(id) = machine.next_writer(&mut given) {
            if let Some(waiters) = machine.stream(id) {
                waiters.full.set(false);
                waiters.writer.wake();
            }
        }
        if machine.has_waiting() {
            // After those that were woken.
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }
}

/// A stream of a trunk. Dropped before both directions have ended, it is reset.
pub struct TrunkStream {
    trunk: Rc<Trunk>,
    id: StreamId,
    /// True if it does not count among the trunk's streams.
    aside: bool,
}

impl fmt::Debug for TrunkStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrunkStream({})", self.id.0)
    }
}

impl TrunkStream {
    fn new(trunk: Rc<Trunk>, id: StreamId) -> Self {
        Self { trunk, id, aside: false }
    }

    /// Leaves it out of the trunk's count of streams: nobody loses anything with it.
    pub(super) fn set_aside(&mut self) {
        if !std::mem::replace(&mut self.aside, true) {
            self.trunk.aside.set(self.trunk.aside.get() + 1);
            self.trunk.count_streams();
        }
    }

    /// Reads available bytes; 0 is the end. Never fails with `WouldBlock`.
    pub(super) fn poll_read(&self, cx: &Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut machine = self.trunk.machine.borrow_mut();
        let queued = machine.queued();
        let received = machine.read(self.id, buffer);
        if machine.queued() > queued {
            self.trunk.task.wake();
        }
        match received {
            Received::Bytes(count) => Poll::Ready(Ok(count)),
            Received::End => Poll::Ready(Ok(0)),
            Received::Reset(_) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Received::Nothing if self.trunk.over.get() => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            Received::Nothing => {
                if let Some(waiters) = machine.stream(self.id) {
                    waiters.reader.keep(cx);
                }
                Poll::Pending
            }
        }
    }

    /// Resets the stream for this reason.
    pub fn refuse(self, reason: ResetReason) {
        self.trunk.machine.borrow_mut().reset(self.id, reason);
    }

    /// Returns whether the trunk itself has ended, and not this stream alone.
    pub fn lost_trunk(&self) -> bool {
        self.trunk.over.get()
    }

    /// Polls until it may take more.
    pub(super) fn poll_writable(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let mut machine = self.trunk.machine.borrow_mut();
        match machine.stream(self.id) {
            Some(waiters) if waiters.full.get() && !self.trunk.over.get() => {
                waiters.writer.keep(cx);
                Poll::Pending
            }
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Writes at once as many bytes as it takes; `WouldBlock` if it takes none now.
    pub(super) fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.trunk.over.get() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut machine = self.trunk.machine.borrow_mut();
        let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
        let count = machine.send(self.id, slices).map_err(|_| io::ErrorKind::BrokenPipe)?;
        if count < wanted
            && let Some(waiters) = machine.stream(self.id)
        {
            waiters.full.set(true);
        }
        self.trunk.task.wake();
        if count == 0 && wanted > 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
    }

    /// Ends this side's direction.
    pub(super) fn end(&self) {
        self.trunk.machine.borrow_mut().end(self.id);
        self.trunk.task.wake();
    }
}

impl Drop for TrunkStream {
    fn drop(&mut self) {
        // Likewise.
        if let Ok(mut machine) = self.trunk.machine.try_borrow_mut() {
            machine.reset(self.id, ResetReason::Aborted);
        }
        if self.aside {
            self.trunk.aside.set(self.trunk.aside.get().saturating_sub(1));
        }
        self.trunk.count_streams();
        self.trunk.task.wake();
    }
}

#[cfg(test)]
mod tests;

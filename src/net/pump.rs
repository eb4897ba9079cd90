//! Moves bytes between two streams, each direction to its own end.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use prometheus::IntCounter;
use tokio::time::{Instant, sleep_until};

use super::worker::Scratch;
use super::{Patience, Stream, options};
use crate::limits::Presence;
use crate::reason::CloseReason;
use otproxy_protocol::frame::begins_link;

/// Reads of one direction in one turn: then others have theirs.
const READS_PER_TURN: usize = 8;
/// The largest read, bytes. What is read is written at once, out of the processor's nearest cache: with
/// reads of 64 KiB a download takes half as much CPU again.
pub const READ: usize = 16 * 1024;

/// One direction of a forwarded connection.
#[derive(Debug, Default)]
struct Half {
    /// It is the one from the client to the target.
    from_client: bool,
    /// What was read and the other side has not taken.
    pending: Vec<u8>,
    written: usize,
    /// Something was read.
    begun: bool,
    /// The reading side has ended.
    eof: bool,
    /// All is written and the writing side was told of the end.
    done: bool,
}

enum HalfError {
    Read,
    Write,
}

impl Half {
    fn flush(&mut self, cx: &mut Context<'_>, to: &Stream) -> Poll<io::Result<()>> {
        while let Some(rest) = self.pending.get(self.written..)
            && !rest.is_empty()
        {
            self.written += ready!(to.poll_write(cx, rest))?;
        }
        if !self.pending.is_empty() {
            self.pending = Vec::new();
            self.written = 0;
        }
        to.poll_flush(cx)
    }

    /// Moves what can be moved; ready when this direction is done or failed.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        (from, to): (&Stream, &Stream),
        scratch: &Scratch,
        counters: PumpCounters<'_>,
        moved: &mut bool,
    ) -> Poll<Result<(), HalfError>> {
        for _ in 0..READS_PER_TURN {
            if self.done {
                return Poll::Ready(Ok(()));
            }
            ready!(self.flush(cx, to)).map_err(|_| HalfError::Write)?;
            if self.eof {
                ready!(to.poll_shutdown(cx)).map_err(|_| HalfError::Write)?;
                self.done = true;
                *moved = true;
                return Poll::Ready(Ok(()));
            }
            let mut scratch = scratch.borrow_mut();
            let part = scratch.get_mut(..READ).unwrap_or_default();
            let n = ready!(from.poll_read(cx, part)).map_err(|_| HalfError::Read)?;
            *moved = true;
            if n == 0 {
                self.eof = true;
                continue;
            }
            let data = scratch.get(..n).unwrap_or_default();
            if !self.begun && self.from_client && begins_link(data) {
                carries_link(from, to, counters.presence);
            }
            self.begun = true;
            counters.count(self.from_client, n as u64);
            let taken = match to.try_write(&[io::IoSlice::new(data)]) {
                Ok(taken) => taken,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
                Err(_) => return Poll::Ready(Err(HalfError::Write)),
            };
            if let Some(rest) = data.get(taken..)
                && !rest.is_empty()
            {
                self.pending = rest.to_vec();
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Keeps the queues between a link's `target` and its `client` small: what waits in them delays pongs.
/// Other connections may be downloads, for which large ones are faster.
pub fn carries_link(client: &Stream, target: &Stream, presence: &Presence) {
    presence.set_link();
    client.bound();
    options::link_towards_target(&target.options());
}

/// Where a stream under TLS failed, what came through it may not be all, and `other` must not take it for that.
fn cut_after(failed: &Stream, other: &Stream) {
    if failed.is_tls() {
        other.cut_at_close();
    }
}

/// Counters that a pump adds to while it runs.
#[derive(Debug, Clone, Copy)]
pub struct PumpCounters<'a> {
    /// Bytes from the client.
    pub bytes_in: &'a IntCounter,
    /// Bytes to the client.
    pub bytes_out: &'a IntCounter,
    /// The connection's own counts.
    pub presence: &'a Presence,
}

impl PumpCounters<'_> {
    fn count(&self, from_client: bool, bytes: u64) {
        if from_client {
            self.bytes_in.inc_by(bytes);
            self.presence.add_in(bytes);
        } else {
            self.bytes_out.inc_by(bytes);
            self.presence.add_out(bytes);
        }
    }
}

/// Moves bytes both ways until both sides have ended, one failed, or nothing moved for `idle`; gives why it ended.
/// `first` goes to the target before anything else and is not counted.
pub async fn pump(
    client: &Stream,
    target: &Stream,
    first: Vec<u8>,
    idle: Patience<'_>,
    scratch: &Scratch,
    counters: PumpCounters<'_>,
) -> CloseReason {
    let mut up = Half { from_client: true, pending: first, ..Half::default() };
    let mut down = Half::default();
    let mut first_to_end = None;
    let mut last_moved = Instant::now();
    let mut timer = pin!(sleep_until(idle.next_look(last_moved)));
    // Whether the timer wakes this task already.
    let mut watched = false;
    poll_fn(|cx| {
        let mut moved = false;
        let a = up.poll(cx, (client, target), scratch, counters, &mut moved);
        if up.eof {
            first_to_end.get_or_insert(CloseReason::Client);
        }
        let b = down.poll(cx, (target, client), scratch, counters, &mut moved);
        if down.eof {
            first_to_end.get_or_insert(CloseReason::Target);
        }
        match (a, b) {
            (Poll::Ready(Err(HalfError::Read)), _) | (_, Poll::Ready(Err(HalfError::Write))) => {
                cut_after(client, target);
                return Poll::Ready(first_to_end.unwrap_or(CloseReason::ClientError));
            }
            (Poll::Ready(Err(HalfError::Write)), _) | (_, Poll::Ready(Err(HalfError::Read))) => {
                cut_after(target, client);
                return Poll::Ready(first_to_end.unwrap_or(CloseReason::TargetError));
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => {
                return Poll::Ready(first_to_end.unwrap_or(CloseReason::Client));
            }
            _ => {}
        }
        if moved {
            last_moved = Instant::now();
            // The timer is looked at and moved only when it fires, not with every byte.
            if watched && last_moved < timer.deadline() {
                return Poll::Pending;
            }
        }
        watched = true;
        while timer.as_mut().poll(cx).is_ready() {
            if idle.is_over(last_moved) {
                return Poll::Ready(CloseReason::Idle);
            }
            timer.as_mut().reset(idle.next_look(last_moved));
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::limits::{GateLimits, Gates, PRESSURE_IDLE};
    use crate::net::worker::scratch;
    use otproxy_protocol::frame::{ClientId, ping};

    /// Both ends of a connection.
    async fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Stream::new(listener.accept().await.unwrap().0).unwrap(), far)
    }

    /// What the kernel is told of both sides once the client has sent `first`: how much may wait unsent for the
    /// client, and be taken in from the target.
    async fn queues_behind(first: &[u8]) -> (u32, usize) {
        let ((client, mut player), (target, mut core)) = (pair().await, pair().await);
        let (count, scratch) = (IntCounter::new("bytes", "bytes").unwrap(), scratch());
        let presence = Presence::new(1, "test".into(), ([127, 0, 0, 1], 1).into());
        let counters = PumpCounters { bytes_in: &count, bytes_out: &count, presence: &presence };
        let pumping = pump(&client, &target, Vec::new(), Patience::fixed(Duration::from_secs(60)), &scratch, counters);
        let exchange = async {
            player.write_all(first).await.unwrap();
            core.read_exact(&mut vec![0; first.len()]).await.unwrap();
        };
        tokio::select! {
            pumped = pumping => panic!("{pumped:?}"),
            () = exchange => {}
        }
        (client.options().tcp_notsent_lowat().unwrap(), target.options().recv_buffer_size().unwrap())
    }

    #[test]
    fn only_a_connection_that_begins_with_a_ping_has_small_queues() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let test =
            async { (queues_behind(b"GET / HTTP/1.1\r\n\r\n").await, queues_behind(&ping(ClientId(1), 0)).await) };
        let bounded = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), test).await });
        let (other, link) = bounded.expect("it hangs");
        // Zero is the kernel's own: no mark.
        assert_eq!((other.0, link.0), (0, options::UNSENT as u32));
        assert!(link.1 < other.1, "{link:?} and {other:?}");
    }

    #[test]
    fn an_idle_pump_ends_sooner_once_places_run_out() {
        const HOUR: Duration = Duration::from_secs(3600);
        // Time passes only where nothing else is to be done.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let gates = Gates::within(GateLimits { connections: Some(1), pressure: true, ..GateLimits::default() });
        let lasted = |full: bool| {
            let gates = &gates;
            async move {
                let ((client, _player), (target, _core)) = (pair().await, pair().await);
                let (count, scratch) = (IntCounter::new("bytes", "bytes").unwrap(), scratch());
                let presence = Presence::new(1, "test".into(), ([127, 0, 0, 1], 1).into());
                let counters = PumpCounters { bytes_in: &count, bytes_out: &count, presence: &presence };
                let (began, idle) = (Instant::now(), Patience::new(gates, 10 * HOUR, PRESSURE_IDLE));
                let pumping = pump(&client, &target, Vec::new(), idle, &scratch, counters);
                let other = async {
                    sleep_until(began + HOUR).await;
                    full.then(|| gates.admit(([192, 0, 2, 1], 1).into(), began.into_std()).unwrap())
                };
                let pumping = async { (pumping.await, began.elapsed()) };
                let ((reason, lasted), _held) = tokio::join!(pumping, other);
                assert_eq!(reason, CloseReason::Idle);
                lasted
            }
        };
        let (alone, pressed) = runtime.block_on(async { (lasted(false).await, lasted(true).await) });
        assert!((10 * HOUR..11 * HOUR).contains(&alone), "{alone:?}");
        assert!((2 * HOUR..3 * HOUR).contains(&pressed), "{pressed:?}");
    }
}

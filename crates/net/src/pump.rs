//! The pump, which moves bytes between two streams, each direction to its own end.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Stream;
use super::worker::Scratch;

/// Reads of one direction in one turn, before the other direction has its turn.
const READS_PER_TURN: usize = 8;
/// The largest read, in bytes. The bytes are written at once, out of the processor's nearest cache: with reads of 64
/// KiB a download takes half as much CPU again.
pub const READ: usize = 16 * 1024;

/// The reason for which a pump ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PumpEnd {
    /// The client's side closed first.
    Client,
    /// The target's side closed first.
    Target,
    /// The client's side was reset or failed.
    ClientError,
    /// The target's side was reset or failed.
    TargetError,
    /// Nothing moved for the permitted time.
    Idle,
}

/// An observer of the bytes that a pump moves, which is called before they go on.
pub trait Observer {
    /// Takes the first bytes that were read from the client.
    fn begins(&self, first: &[u8]);
    /// Counts bytes from the client.
    fn count_in(&self, bytes: u64);
    /// Counts bytes to the client.
    fn count_out(&self, bytes: u64);
}

/// The time for which a pump may be idle. It may change while the pump waits.
pub trait IdleLimit {
    /// Returns whether the pump has been idle for too long, if bytes last moved at `since`.
    fn is_over(&self, since: Instant) -> bool;
    /// Returns when to ask that again.
    fn next_look(&self, since: Instant) -> Instant;
}

impl IdleLimit for Duration {
    fn is_over(&self, since: Instant) -> bool {
        since.elapsed() >= *self
    }

    fn next_look(&self, since: Instant) -> Instant {
        since + *self
    }
}

/// One direction of a forwarded connection.
#[derive(Debug, Default)]
struct Half {
    /// True for the direction from the client to the target.
    from_client: bool,
    /// Bytes that were read, and that the other side has not taken.
    pending: Vec<u8>,
    written: usize,
    /// True once bytes were read.
    begun: bool,
    /// True once the reading side has ended.
    eof: bool,
    /// True once everything is written and the writing side was told of the end.
    done: bool,
    /// True once the writing side has failed: what is read from then on is for nobody. It is read all the same, for
    /// closing over unread bytes would reset the reading side, and cost it bytes that it has yet to take.
    broken: bool,
}

/// The reading side was reset or failed.
struct ReadError;

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

    /// Returns whether this direction has nothing more to deliver.
    fn is_over(&self) -> bool {
        self.done || self.broken
    }

    fn breaks(&mut self) {
        self.broken = true;
        self.pending = Vec::new();
    }

    /// Moves bytes as far as possible; ready when this direction has nothing more to read.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        (from, to): (&Stream, &Stream),
        scratch: &Scratch,
        observer: &impl Observer,
        moved: &mut bool,
    ) -> Poll<Result<(), ReadError>> {
        for _ in 0..READS_PER_TURN {
            if self.done {
                return Poll::Ready(Ok(()));
            }
            if !self.broken && ready!(self.flush(cx, to)).is_err() {
                self.breaks();
            }
            if self.eof {
                if !self.broken && ready!(to.poll_shutdown(cx)).is_err() {
                    self.breaks();
                }
                self.done = true;
                *moved = true;
                return Poll::Ready(Ok(()));
            }
            let mut scratch = scratch.borrow_mut();
            let part = scratch.get_mut(..READ).unwrap_or_default();
            let n = ready!(from.poll_read(cx, part)).map_err(|_| ReadError)?;
            *moved = true;
            if n == 0 {
                self.eof = true;
                continue;
            }
            let data = scratch.get(..n).unwrap_or_default();
            if self.from_client && !self.begun {
                observer.begins(data);
            }
            self.begun = true;
            if self.from_client {
                observer.count_in(n as u64);
            } else {
                observer.count_out(n as u64);
            }
            if self.broken {
                continue;
            }
            let taken = match to.try_write(&[io::IoSlice::new(data)]) {
                Ok(taken) => taken,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
                Err(_) => {
                    self.breaks();
                    continue;
                }
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

/// Keeps the queues between a `target` and its `client` small, as bytes that wait in them delay pongs. Meant for links;
/// other connections may be downloads, for which large queues are faster.
pub fn keep_queues_small(client: &Stream, target: &Stream) {
    client.limit_unsent();
    target.link_towards_target();
}

/// Cuts `other` after `failed`, if that tells cuts: its bytes may be incomplete, and `other` must not take them for
/// everything.
fn cut_after(failed: &Stream, other: &Stream) {
    if failed.tells_cuts() {
        other.cut_at_close();
    }
}

/// Moves bytes both ways until both sides have ended, one failed, or nothing moved for `idle`; returns why it ended. The bytes
/// that a side had sent before it failed still reach the other.
/// `first` goes to the target before anything else and is not observed.
pub async fn pump(
    client: &Stream,
    target: &Stream,
    first: Vec<u8>,
    idle: impl IdleLimit,
    scratch: &Scratch,
    observer: &impl Observer,
) -> PumpEnd {
    let mut up = Half { from_client: true, pending: first, ..Half::default() };
    let mut down = Half::default();
    let mut first_to_end = None;
    let mut last_moved = Instant::now();
    let mut timer = pin!(sleep_until(idle.next_look(last_moved)));
    // True if the timer wakes this task already.
    let mut watched = false;
    poll_fn(|cx| {
        let mut moved = false;
        let a = up.poll(cx, (client, target), scratch, observer, &mut moved);
        if up.eof {
            first_to_end.get_or_insert(PumpEnd::Client);
        }
        let b = down.poll(cx, (target, client), scratch, observer, &mut moved);
        if down.eof {
            first_to_end.get_or_insert(PumpEnd::Target);
        }
        if matches!(a, Poll::Ready(Err(ReadError))) {
            cut_after(client, target);
            return Poll::Ready(first_to_end.unwrap_or(PumpEnd::ClientError));
        }
        if matches!(b, Poll::Ready(Err(ReadError))) {
            cut_after(target, client);
            return Poll::Ready(first_to_end.unwrap_or(PumpEnd::TargetError));
        }
        if up.broken {
            first_to_end.get_or_insert(PumpEnd::TargetError);
        }
        if down.broken {
            first_to_end.get_or_insert(PumpEnd::ClientError);
        }
        if up.is_over() && down.is_over() {
            return Poll::Ready(first_to_end.unwrap_or(PumpEnd::Client));
        }
        if moved {
            last_moved = Instant::now();
            // The timer is read and moved only when it fires, not with every byte.
            if watched && last_moved < timer.deadline() {
                return Poll::Pending;
            }
        }
        watched = true;
        while timer.as_mut().poll(cx).is_ready() {
            if idle.is_over(last_moved) {
                return Poll::Ready(PumpEnd::Idle);
            }
            timer.as_mut().reset(idle.next_look(last_moved));
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use socket2::SockRef;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::worker::scratch;

    /// An observer that ignores everything.
    struct Nothing;

    impl Observer for Nothing {
        fn begins(&self, _: &[u8]) {}
        fn count_in(&self, _: u64) {}
        fn count_out(&self, _: u64) {}
    }

    /// Returns the pump's socket and the one at its other end.
    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (listener.accept().await.unwrap().0, far)
    }

    #[test]
    fn what_a_side_sent_before_it_was_reset_still_arrives() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let ((client, mut player), (target, mut server)) = (pair().await, pair().await);
            // So that the player's side takes a part of it at a time.
            SockRef::from(&client).set_send_buffer_size(1).unwrap();
            SockRef::from(&player).set_recv_buffer_size(1).unwrap();
            let sent: Vec<u8> = (0..40_000u32).map(|n| n as u8).collect();
            server.write_all(&sent).await.unwrap();
            while target.peek(&mut vec![0; sent.len()]).await.unwrap() < sent.len() {}
            SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
            drop(server);
            // The first thing that the pump meets is a target that takes nothing any more.
            player.write_all(b"more").await.unwrap();
            let (client, target) = (Stream::new(client).unwrap(), Stream::new(target).unwrap());
            let (scratch, idle) = (scratch(), Duration::from_secs(3600));
            let pumping = async {
                let end = pump(&client, &target, Vec::new(), idle, &scratch, &Nothing).await;
                drop((client, target));
                end
            };
            let got = async {
                let mut got = Vec::new();
                player.read_to_end(&mut got).await.unwrap();
                got
            };
            let (end, got) = tokio::join!(pumping, got);
            assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
            assert_eq!(end, PumpEnd::TargetError);
        });
    }
}

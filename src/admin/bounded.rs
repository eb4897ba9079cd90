//! A listener with a limited number of connections, each of limited duration.
//!
//! `axum::serve` has no timeout of its own, for headers or for anything else.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// A listener that accepts while a permit is free.
pub(super) struct BoundedListener<L> {
    listener: L,
    places: Arc<Semaphore>,
    timeout: Duration,
}

impl<L> BoundedListener<L> {
    pub(super) fn new(listener: L, max: usize, timeout: Duration) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(max)), timeout }
    }
}

impl<L: Listener> Listener for BoundedListener<L> {
    type Io = BoundedStream<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (BoundedStream<L::Io>, L::Addr) {
        // Acquiring fails only once the semaphore is closed, and nobody closes it.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        // The listener waits and tries again if the process is out of descriptors.
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        let (timeout, deadline) = (self.timeout, Box::pin(sleep(self.timeout)));
        let bounded =
            BoundedStream { stream, timeout, deadline, limit: Arc::default(), has_taken: false, _place: place };
        (bounded, peer)
    }

    fn local_addr(&self) -> io::Result<L::Addr> {
        self.listener.local_addr()
    }
}

/// The time limit of a connection.
#[derive(Debug, Default)]
pub(super) struct TimeLimit {
    lifted: AtomicBool,
}

impl TimeLimit {
    /// Lets the connection go on for as long as its peer takes something within each such time.
    pub(super) fn lift(&self) {
        self.lifted.store(true, Ordering::Relaxed);
    }
}

/// A stream that fails once its time is up, whether it was reading or writing; if the limit is lifted, once its peer takes nothing.
pub(super) struct BoundedStream<S> {
    stream: S,
    timeout: Duration,
    deadline: Pin<Box<Sleep>>,
    limit: Arc<TimeLimit>,
    /// Bytes were taken since the deadline was set.
    has_taken: bool,
    _place: Option<OwnedSemaphorePermit>,
}

impl<S> BoundedStream<S> {
    /// Returns the stream itself.
    pub(super) fn get_ref(&self) -> &S {
        &self.stream
    }

    /// Returns its limit.
    pub(super) fn time_limit(&self) -> &Arc<TimeLimit> {
        &self.limit
    }

    /// Fails once the time is up; until then registers the task to be woken at that time.
    fn in_time(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.deadline.as_mut().poll(cx).is_ready() {
            if !self.limit.lifted.load(Ordering::Relaxed) || !std::mem::take(&mut self.has_taken) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.deadline.as_mut().reset(Instant::now() + self.timeout);
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for BoundedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.in_time(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for BoundedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.in_time(cx)?;
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.has_taken |= matches!(written, Poll::Ready(Ok(taken)) if taken > 0);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.in_time(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.in_time(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    const TIME: Duration = Duration::from_secs(10);

    fn pair() -> (BoundedStream<DuplexStream>, DuplexStream) {
        let (stream, peer) = tokio::io::duplex(8);
        let deadline = Box::pin(sleep(TIME));
        let (timeout, limit) = (TIME, Arc::default());
        (BoundedStream { stream, timeout, deadline, limit, has_taken: false, _place: None }, peer)
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_when_its_time_is_up_whatever_it_does() {
        let (mut stream, mut peer) = pair();
        let reading = tokio::spawn(async move { while peer.read_u8().await.is_ok() {} });
        let began = Instant::now();
        while stream.write_u8(1).await.is_ok() {
            sleep(TIME / 8).await;
        }
        assert_eq!(began.elapsed(), TIME);
        reading.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn one_whose_limit_is_lifted_goes_on_as_long_as_its_peer_takes_something() {
        let (mut stream, mut peer) = pair();
        stream.time_limit().lift();
        let began = Instant::now();
        for _ in 0..100 {
            stream.write_u8(1).await.expect("it goes on");
            peer.read_u8().await.unwrap();
            sleep(TIME / 2).await;
        }
        // From here on nobody reads.
        while stream.write_u8(1).await.is_ok() {}
        let lasted = began.elapsed();
        assert!((50 * TIME..=52 * TIME).contains(&lasted), "{lasted:?}");
    }
}

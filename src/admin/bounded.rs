//! A listener with a limited number of connections, each of limited duration.
//!
//! `axum::serve` has no timeout of its own, for headers or for anything else.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

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
        (BoundedStream { stream, deadline: Box::pin(sleep(self.timeout)), _place: place }, peer)
    }

    fn local_addr(&self) -> io::Result<L::Addr> {
        self.listener.local_addr()
    }
}

/// A stream that fails once its time is up, whether it was reading or writing.
pub(super) struct BoundedStream<S> {
    stream: S,
    deadline: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl<S> BoundedStream<S> {
    /// Returns the stream itself.
    pub(super) fn get_ref(&self) -> &S {
        &self.stream
    }

    /// Fails once the time is up; until then registers the task to be woken at that time.
    fn in_time(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
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
        Pin::new(&mut self.stream).poll_write(cx, buf)
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

//! A connection as the HTTP library reads and writes it, with its bytes counted.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::admission::ListenerMetrics;
use crate::connection::ConnectionHandle;
use otproxy_net::{Stream, StreamIo};

/// A stream whose bytes are counted as its connection's, and its listener's.
pub(super) struct CountedStream {
    /// Bytes that were read before.
    early: Vec<u8>,
    stream: StreamIo,
    handle: Arc<ConnectionHandle>,
    metrics: ListenerMetrics,
}

impl CountedStream {
    /// Counts the bytes of `stream`, of which `early` were read before.
    pub fn new(stream: Stream, early: Vec<u8>, handle: &Arc<ConnectionHandle>, metrics: &ListenerMetrics) -> Self {
        Self { early, stream: StreamIo(stream), handle: Arc::clone(handle), metrics: metrics.clone() }
    }

    /// Ends this side's direction, and waits for the other to end: a close with bytes unread, or of a stream in a trunk, would take
    /// the answer away from the client.
    pub async fn linger(mut self) {
        let ended = self.shutdown().await;
        let mut ignored = [0; 1024];
        while ended.is_ok() && self.stream.read(&mut ignored).await.is_ok_and(|count| count > 0) {}
    }

    fn count_read(&self, count: usize) {
        self.handle.add_in(count as u64);
        self.metrics.bytes_in.inc_by(count as u64);
    }

    fn count_written(&self, count: usize) {
        self.handle.add_out(count as u64);
        self.metrics.bytes_out.inc_by(count as u64);
    }
}

impl AsyncRead for CountedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let count = self.early.len().min(buf.remaining());
            let early: Vec<u8> = self.early.drain(..count).collect();
            buf.put_slice(&early);
            self.count_read(count);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.count_read(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.count_written(count);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

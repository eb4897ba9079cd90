//! A stream, plain or under TLS, whose buffers are the caller's, so that an idle one holds none.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ServerConfig};
use socket2::SockRef;
use tokio::net::TcpStream;

use super::options;
use super::socket::{self, Socket};
use super::tls::{TlsError, TlsLayer};
use super::worker::Scratch;

/// A non-blocking stream on the runtime of one worker: TCP, or TLS over it.
#[derive(Debug)]
pub struct Stream {
    socket: Socket,
    pub(super) tls: Option<Box<TlsLayer>>,
}

/// A [`Stream`] on its way from one worker's runtime to another's.
#[derive(Debug)]
pub struct DetachedStream {
    socket: socket::DetachedSocket,
    tls: Option<Box<TlsLayer>>,
}

impl DetachedStream {
    /// Puts the stream on the runtime that this runs on.
    ///
    /// # Errors
    /// Where the runtime cannot watch it.
    pub fn attach(self) -> io::Result<Stream> {
        Ok(Stream { socket: self.socket.attach()?, tls: self.tls })
    }
}

impl Stream {
    /// Takes over a connected TCP stream, and turns Nagle's delay off.
    ///
    /// # Errors
    /// Where the socket is gone already.
    pub fn new(io: TcpStream) -> io::Result<Self> {
        Ok(Self { socket: Socket::new(io)?, tls: None })
    }

    /// Puts a plain TCP stream, on which nothing was read or written yet, under TLS, with this side as the client. The
    /// peer's certificate must be for `name`. The caller sets the deadline, by dropping this.
    ///
    /// # Errors
    /// Fails if the handshake fails; the peer is told why as far as TLS has an alert for it.
    pub async fn tls_connect(self, config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, TlsError> {
        let tls = TlsLayer::connect(&self.socket, config, name).await?;
        Ok(Self { socket: self.socket, tls: Some(tls) })
    }

    /// Puts it under TLS in the same way, with this side as the server.
    ///
    /// # Errors
    /// Fails as [`Stream::tls_connect`] does.
    pub async fn tls_accept(self, config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        let tls = TlsLayer::accept(&self.socket, config).await?;
        Ok(Self { socket: self.socket, tls: Some(tls) })
    }

    /// Returns whether it is under TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Returns the certificate that the peer has proved to be its own, if the stream is under TLS and the peer had to
    /// show one.
    pub fn peer_certificate(&self) -> Option<CertificateDer<'static>> {
        self.tls.as_ref()?.peer_certificate()
    }

    /// Detaches the stream from its runtime, with everything that belongs to it, to be moved to another worker's.
    ///
    /// # Errors
    /// Fails if the runtime cannot let go of it.
    pub fn detach(self) -> io::Result<DetachedStream> {
        Ok(DetachedStream { socket: self.socket.detach()?, tls: self.tls })
    }

    /// Limits the bytes that wait unsent in the kernel: further ones wait here.
    pub fn limit_unsent(&self) {
        self.socket.limit_unsent();
    }

    /// Sets the options of a connection to a target: bytes that stay unacknowledged for too long end it.
    pub fn towards_target(&self) {
        options::towards_target(&self.options());
    }

    /// Makes a close reset the connection, so that the peer does not take the bytes that it has for everything. A
    /// stream under TLS shows that anyway, by ending without a close_notify.
    pub fn cut_at_close(&self) {
        if !self.is_tls() {
            // A closed socket needs no reset.
            let _ = self.options().set_linger(Some(Duration::ZERO));
        }
    }

    /// Returns the kernel's options of the socket.
    pub fn options(&self) -> SockRef<'_> {
        self.socket.options()
    }

    /// Returns the address of this side.
    ///
    /// # Errors
    /// Fails if the kernel does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Reads available bytes into `buffer`; 0 is the end of the stream, as declared by the peer.
    ///
    /// # Errors
    /// Returns the errors of the socket, never `WouldBlock`. Under TLS also `InvalidData` for bytes that are no TLS,
    /// and `UnexpectedEof` if the connection ended and the peer did not declare it: the bytes before may be incomplete.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match &self.tls {
            None => self.socket.poll_read(cx, buffer),
            Some(tls) => tls.poll_read(&self.socket, cx, buffer),
        }
    }

    /// Writes as many of `bytes` as the stream takes, once it takes any.
    ///
    /// # Errors
    /// Returns the errors of the socket, never `WouldBlock`.
    pub fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_writable(cx))?;
            match self.try_write(&[IoSlice::new(bytes)]) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Calls `write`, which writes with [`Stream::try_write`], whenever the stream may take more, until it reports that
    /// the stream took everything: `Ok(false)`.
    ///
    /// # Errors
    /// Returns the errors of `write`, and of the socket.
    pub fn poll_drain(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut() -> io::Result<bool>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_flush(cx))?;
            ready!(self.socket.poll_writable(cx))?;
            if !write()? && !self.holds_back() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Writes at once as many bytes as the stream takes, with one system call. A stream that [holds
    /// back](Stream::holds_back) earlier bytes takes nothing until those are out.
    ///
    /// # Errors
    /// Returns `WouldBlock` if it takes nothing now; any other error if it is of no more use.
    pub fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.tls {
            None => self.socket.try_write(slices),
            Some(tls) => tls.try_write(&self.socket, slices),
        }
    }

    /// Returns whether the socket has not taken all the bytes that the stream took: under TLS a record goes out whole
    /// or not at all, so the rest of one may wait here. The writer then waits with [`Stream::poll_flush`].
    pub fn holds_back(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.holds_back())
    }

    /// Polls until the stream holds nothing back.
    ///
    /// # Errors
    /// Returns the errors of the socket.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.tls {
            None => Poll::Ready(Ok(())),
            Some(tls) => tls.poll_flush(&self.socket, cx),
        }
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// Returns the errors of the socket.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        poll_fn(|cx| {
            while !bytes.is_empty() {
                let written = ready!(self.poll_write(cx, bytes))?;
                bytes = bytes.get(written..).unwrap_or_default();
            }
            self.poll_flush(cx)
        })
        .await
    }

    /// Reads once, at most `at_most` bytes, and appends them to `to`; returns how many. It holds no buffer while it
    /// waits.
    ///
    /// # Errors
    /// Returns the errors of [`Stream::poll_read`].
    pub async fn read_onto(&self, to: &mut Vec<u8>, at_most: usize, scratch: &Scratch) -> io::Result<usize> {
        poll_fn(|cx| {
            let mut scratch = scratch.borrow_mut();
            let room = at_most.min(scratch.len());
            let buffer = scratch.get_mut(..room).unwrap_or_default();
            let n = ready!(self.poll_read(cx, buffer))?;
            to.extend_from_slice(buffer.get(..n).unwrap_or_default());
            Poll::Ready(Ok(n))
        })
        .await
    }

    /// Ends this side's direction, once all bytes that it took are out; the other may go on. A plain stream is ready at
    /// once.
    ///
    /// # Errors
    /// Returns the errors of the socket, under TLS: the peer does not learn that it has everything.
    pub fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(tls) = &self.tls {
            ready!(tls.poll_goodbye(&self.socket, cx))?;
        }
        self.socket.shutdown_write();
        Poll::Ready(Ok(()))
    }
}

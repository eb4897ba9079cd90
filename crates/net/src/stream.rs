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
use super::tls::{Tls, TlsError};
use super::worker::Scratch;

/// A non-blocking stream on the runtime of one worker: TCP, or TLS over it.
#[derive(Debug)]
pub struct Stream {
    socket: Socket,
    pub(super) tls: Option<Box<Tls>>,
}

/// A [`Stream`] on its way from one worker's runtime to another's.
#[derive(Debug)]
pub struct Detached {
    socket: socket::Detached,
    tls: Option<Box<Tls>>,
}

impl Detached {
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

    /// Makes a stream of plain TCP, on which nothing was read or written yet, one under TLS: this side is the client,
    /// and expects the peer's certificate to be `name`'s. Whoever drops this sets the deadline.
    ///
    /// # Errors
    /// The handshake failed; the peer was told why as far as TLS has a word for it.
    pub async fn tls_connect(self, config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, TlsError> {
        let tls = Tls::connect(&self.socket, config, name).await?;
        Ok(Self { socket: self.socket, tls: Some(tls) })
    }

    /// The same where this side is the server.
    ///
    /// # Errors
    /// Those of [`Stream::tls_connect`].
    pub async fn tls_accept(self, config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        let tls = Tls::accept(&self.socket, config).await?;
        Ok(Self { socket: self.socket, tls: Some(tls) })
    }

    /// Whether it is under TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The certificate that the peer has shown and proved to be its own, where the stream is under TLS and the peer
    /// had to show one.
    pub fn peer_certificate(&self) -> Option<CertificateDer<'static>> {
        self.tls.as_ref()?.peer_certificate()
    }

    /// Takes the stream off its runtime, with all that belongs to it, to be moved to another worker's.
    ///
    /// # Errors
    /// Where the runtime cannot let go of it.
    pub fn detach(self) -> io::Result<Detached> {
        Ok(Detached { socket: self.socket.detach()?, tls: self.tls })
    }

    /// From now on, what waits to be sent waits here and not in the kernel.
    pub fn bound(&self) {
        self.socket.bound();
    }

    /// It is on the way to the core from here on: what is not acknowledged for too long ends it.
    pub fn towards_target(&self) {
        options::towards_target(&self.options());
    }

    /// From now on a close is a reset, so that what the peer has does not pass for all there was. A stream under TLS says so
    /// anyway, by ending without a goodbye.
    pub fn cut_at_close(&self) {
        if !self.is_tls() {
            // A socket that is gone already has no close to come.
            let _ = self.options().set_linger(Some(Duration::ZERO));
        }
    }

    /// The kernel's options of the socket.
    pub fn options(&self) -> SockRef<'_> {
        self.socket.options()
    }

    /// The address of this side.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Reads what there is into `buffer`; 0 is the end of the stream, which the peer has said.
    ///
    /// # Errors
    /// Those of the socket, never `WouldBlock`. Under TLS `InvalidData` for what is none, and `UnexpectedEof` where the
    /// connection ended and the peer did not say so: what came before may not be all.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match &self.tls {
            None => self.socket.poll_read(cx, buffer),
            Some(tls) => tls.poll_read(&self.socket, cx, buffer),
        }
    }

    /// Writes what the stream takes of `bytes`, once it takes any.
    ///
    /// # Errors
    /// Those of the socket, never `WouldBlock`.
    pub fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_writable(cx))?;
            match self.try_write(&[IoSlice::new(bytes)]) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Calls `write`, which writes with [`Stream::try_write`], whenever the stream may take more,
    /// until it says that the stream took all: `Ok(false)`.
    ///
    /// # Errors
    /// Those of `write`, and of the socket.
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

    /// Writes at once what the stream takes, with one system call. A stream that [holds back](Stream::holds_back) what
    /// it took before takes nothing until that is out.
    ///
    /// # Errors
    /// `WouldBlock` where it takes nothing now; others where it is of no more use.
    pub fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.tls {
            None => self.socket.try_write(slices),
            Some(tls) => tls.try_write(&self.socket, slices),
        }
    }

    /// Whether the socket has not taken all that the stream took: under TLS a record goes out whole or not at all, so
    /// the rest of one may wait here. Whoever wrote waits with [`Stream::poll_flush`] then.
    pub fn holds_back(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.holds_back())
    }

    /// Ready once the stream holds nothing back.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.tls {
            None => Poll::Ready(Ok(())),
            Some(tls) => tls.poll_flush(&self.socket, cx),
        }
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// Those of the socket.
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

    /// Reads once, at most `at_most` bytes, and appends them to `to`; gives how many. While it waits
    /// it holds no buffer.
    ///
    /// # Errors
    /// Those of [`Stream::poll_read`].
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

    /// Ends this side's direction, once all that it took is out; the other may go on. A plain stream is ready at once.
    ///
    /// # Errors
    /// Under TLS those of the socket: the peer does not learn that what it has is all.
    pub fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(tls) = &self.tls {
            ready!(tls.poll_goodbye(&self.socket, cx))?;
        }
        self.socket.shutdown_write();
        Poll::Ready(Ok(()))
    }
}

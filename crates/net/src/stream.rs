//! A stream, plain, under TLS or of a trunk, whose buffers are the caller's, so that an idle one holds none.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ServerConfig};
use socket2::SockRef;
use tokio::net::TcpStream;

use super::options;
use super::socket::{self, Socket};
use super::tls::{ALPN, TlsError, TlsLayer};
use super::trunk::TrunkStream;
use super::worker::Scratch;
use otproxy_protocol::trunk::ResetReason;

/// A non-blocking stream on the runtime of one worker: TCP, TLS over it, or one of the streams of a trunk.
#[derive(Debug)]
pub struct Stream(Transport);

#[derive(Debug)]
enum Transport {
    Tcp(Socket),
    Tls(Socket, Box<TlsLayer>),
    Trunk(TrunkStream),
}

/// A [`Stream`] over a socket on its way from one worker's runtime to another's.
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
        let socket = self.socket.attach()?;
        Ok(Stream(match self.tls {
            None => Transport::Tcp(socket),
            Some(tls) => Transport::Tls(socket, tls),
        }))
    }
}

impl From<TrunkStream> for Stream {
    fn from(stream: TrunkStream) -> Self {
        Self(Transport::Trunk(stream))
    }
}

impl Stream {
    /// Takes over a connected TCP stream, and turns Nagle's delay off.
    ///
    /// # Errors
    /// Where the socket is gone already.
    pub fn new(io: TcpStream) -> io::Result<Self> {
        Ok(Self(Transport::Tcp(Socket::new(io)?)))
    }

    /// Puts a plain TCP stream, on which nothing was read or written yet, under TLS, with this side as the client. The
    /// peer's certificate must be for `name`. The caller sets the deadline, by dropping this.
    ///
    /// # Errors
    /// Fails if the handshake fails; the peer is told why as far as TLS has an alert for it.
    pub async fn tls_connect(self, config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, TlsError> {
        let socket = self.into_tcp()?;
        let tls = TlsLayer::connect(&socket, config, name).await?;
        Ok(Self(Transport::Tls(socket, tls)))
    }

    /// Puts it under TLS in the same way, with this side as the server.
    ///
    /// # Errors
    /// Fails as [`Stream::tls_connect`] does.
    pub async fn tls_accept(self, config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        let socket = self.into_tcp()?;
        let tls = TlsLayer::accept(&socket, config, Some(ALPN)).await?;
        Ok(Self(Transport::Tls(socket, tls)))
    }

    /// Puts it under TLS as the server of everybody's clients: the protocol inside is one of `config`, or none is named.
    ///
    /// # Errors
    /// Fails as [`Stream::tls_connect`] does.
    pub async fn tls_accept_public(self, config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        let socket = self.into_tcp()?;
        let tls = TlsLayer::accept(&socket, config, None).await?;
        Ok(Self(Transport::Tls(socket, tls)))
    }

    fn into_tcp(self) -> io::Result<Socket> {
        match self.0 {
            Transport::Tcp(socket) => Ok(socket),
            Transport::Tls(..) | Transport::Trunk(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn socket(&self) -> Option<&Socket> {
        match &self.0 {
            Transport::Tcp(socket) | Transport::Tls(socket, _) => Some(socket),
            Transport::Trunk(_) => None,
        }
    }

    #[cfg(test)]
    pub(super) fn tls(&self) -> Option<&TlsLayer> {
        match &self.0 {
            Transport::Tls(_, tls) => Some(tls),
            Transport::Tcp(_) | Transport::Trunk(_) => None,
        }
    }

    /// Returns whether it is one of the streams of a trunk.
    pub fn is_of_trunk(&self) -> bool {
        matches!(self.0, Transport::Trunk(_))
    }

    /// Leaves a stream of a trunk out of its trunk's count: nobody loses anything with it.
    pub fn set_aside(&mut self) {
        if let Transport::Trunk(stream) = &mut self.0 {
            stream.set_aside();
        }
    }

    /// Returns whether it was lost with its trunk.
    pub fn lost_trunk(&self) -> bool {
        matches!(&self.0, Transport::Trunk(stream) if stream.lost_trunk())
    }

    /// Closes it; a stream of a trunk is reset for this reason.
    pub fn refuse(self, reason: ResetReason) {
        if let Transport::Trunk(stream) = self.0 {
            stream.refuse(reason);
        }
    }

    /// Returns whether an end in the middle is told apart from an end: it is under TLS, or of a trunk.
    pub fn tells_cuts(&self) -> bool {
        !matches!(self.0, Transport::Tcp(_))
    }

    /// Returns the certificate that the peer has proved to be its own, and those that it sent behind it, if the stream is
    /// under TLS and the peer had to show one.
    pub fn peer_certificates(&self) -> Vec<CertificateDer<'static>> {
        match &self.0 {
            Transport::Tls(_, tls) => tls.peer_certificates(),
            Transport::Tcp(_) | Transport::Trunk(_) => Vec::new(),
        }
    }

    /// Detaches the stream from its runtime, with everything that belongs to it, to be moved to another worker's.
    ///
    /// # Errors
    /// Fails if the runtime cannot let go of it, and for a stream of a trunk, which stays where the trunk is.
    pub fn detach(self) -> io::Result<DetachedStream> {
        let (socket, tls) = match self.0 {
            Transport::Tcp(socket) => (socket, None),
            Transport::Tls(socket, tls) => (socket, Some(tls)),
            Transport::Trunk(_) => return Err(io::ErrorKind::Unsupported.into()),
        };
        Ok(DetachedStream { socket: socket.detach()?, tls })
    }

    /// Limits the bytes that wait unsent in the kernel: further ones wait here. Of a stream of a trunk, credit limits them.
    pub fn limit_unsent(&self) {
        if let Some(socket) = self.socket() {
            socket.limit_unsent();
        }
    }

    /// Sets the options of a connection to a target: bytes that stay unacknowledged for too long end it.
    pub fn towards_target(&self) {
        if let Some(socket) = self.socket() {
            options::towards_target(&socket.options());
        }
    }

    /// Keeps the queue of bytes that come from a target small, for a link.
    pub fn link_towards_target(&self) {
        if let Some(socket) = self.socket() {
            options::link_towards_target(&socket.options());
        }
    }

    /// Makes a close reset the connection, so that the peer does not take the bytes that it has for everything. A
    /// stream that [tells cuts](Stream::tells_cuts) shows that anyway, by ending without a goodbye.
    pub fn cut_at_close(&self) {
        if !self.tells_cuts() {
            self.reset_at_close();
        }
    }

    /// Makes a close of its socket reset the connection.
    pub fn reset_at_close(&self) {
        if let Some(socket) = self.socket() {
            // A closed socket needs no reset.
            let _ = socket.options().set_linger(Some(Duration::ZERO));
        }
    }

    /// Returns one more descriptor of its socket, for another process.
    ///
    /// # Errors
    /// Fails if there is no descriptor left, and for a stream that is not plain: more than a socket belongs to it.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        match &self.0 {
            Transport::Tcp(socket) => socket.duplicate(),
            Transport::Tls(..) | Transport::Trunk(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Returns the kernel's options of the socket, if it has one of its own.
    pub fn options(&self) -> Option<SockRef<'_>> {
        self.socket().map(Socket::options)
    }

    /// Returns the address of this side.
    ///
    /// # Errors
    /// Fails if the kernel does not tell, and for a stream of a trunk.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket().map_or(Err(io::ErrorKind::Unsupported.into()), Socket::local_addr)
    }

    /// Reads available bytes into `buffer`; 0 is the end of the stream, as declared by the peer.
    ///
    /// # Errors
    /// Returns the errors of the socket, never `WouldBlock`. Under TLS also `InvalidData` for bytes that are no TLS,
    /// and `UnexpectedEof` if the connection ended and the peer did not declare it: the bytes before may be incomplete.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match &self.0 {
            Transport::Tcp(socket) => socket.poll_read(cx, buffer),
            Transport::Tls(socket, tls) => tls.poll_read(socket, cx, buffer),
            Transport::Trunk(stream) => stream.poll_read(cx, buffer),
        }
    }

    /// Polls until it may take more.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.0 {
            Transport::Tcp(socket) | Transport::Tls(socket, _) => socket.poll_writable(cx),
            Transport::Trunk(stream) => stream.poll_writable(cx),
        }
    }

    /// Writes as many of `bytes` as the stream takes, once it takes any.
    ///
    /// # Errors
    /// Returns the errors of the socket, never `WouldBlock`.
    pub fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_writable(cx))?;
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
            ready!(self.poll_writable(cx))?;
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
        match &self.0 {
            Transport::Tcp(socket) => socket.try_write(slices),
            Transport::Tls(socket, tls) => tls.try_write(socket, slices),
            Transport::Trunk(stream) => stream.try_write(slices),
        }
    }

    /// Returns whether the socket has not taken all the bytes that the stream took: under TLS a record goes out whole
    /// or not at all, so the rest of one may wait here. The writer then waits with [`Stream::poll_flush`].
    pub fn holds_back(&self) -> bool {
        matches!(&self.0, Transport::Tls(_, tls) if tls.holds_back())
    }

    /// Polls until the stream holds nothing back.
    ///
    /// # Errors
    /// Returns the errors of the socket.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.0 {
            Transport::Tcp(_) | Transport::Trunk(_) => Poll::Ready(Ok(())),
            Transport::Tls(socket, tls) => tls.poll_flush(socket, cx),
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
        match &self.0 {
            Transport::Tcp(socket) => socket.shutdown_write(),
            Transport::Tls(socket, tls) => {
                ready!(tls.poll_goodbye(socket, cx))?;
                socket.shutdown_write();
            }
            Transport::Trunk(stream) => stream.end(),
        }
        Poll::Ready(Ok(()))
    }
}

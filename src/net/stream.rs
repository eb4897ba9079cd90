//! A TCP stream whose buffers are the caller's, so that an idle one holds none.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::worker::Scratch;

/// A non-blocking TCP stream on the runtime of one worker.
#[derive(Debug)]
pub struct Stream {
    io: TcpStream,
}

impl Stream {
    /// Takes over a connected stream, and turns Nagle's delay off.
    ///
    /// # Errors
    /// Where the socket is gone already.
    pub fn new(io: TcpStream) -> io::Result<Self> {
        io.set_nodelay(true)?;
        Ok(Self { io })
    }

    /// Takes over a stream that came from another worker's runtime.
    ///
    /// # Errors
    /// Where the runtime cannot watch it.
    pub fn from_std(stream: std::net::TcpStream) -> io::Result<Self> {
        Ok(Self { io: TcpStream::from_std(stream)? })
    }

    /// Gives the stream away, to be moved to another worker's runtime.
    ///
    /// # Errors
    /// Where the runtime cannot let go of it.
    pub fn into_std(self) -> io::Result<std::net::TcpStream> {
        self.io.into_std()
    }

    /// The kernel's options of the socket.
    pub fn options(&self) -> SockRef<'_> {
        SockRef::from(&self.io)
    }

    /// The address of this side.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    /// Reads what there is into `buffer`; 0 is the end of the stream.
    ///
    /// # Errors
    /// Those of the socket, never `WouldBlock`.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.io.poll_read_ready(cx))?;
            match self.io.try_read(buffer) {
                Ok(n) => {
                    if n > 0 && n < buffer.len() {
                        self.forget_readable();
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    /// A read that leaves room in its buffer has emptied the socket: the next byte comes with a new
    /// event, and asking again before it would cost a system call for nothing. An end of stream that
    /// is known already stays known.
    fn forget_readable(&self) {
        let _ = self.io.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    }

    /// Writes what the socket takes of `bytes`, once it takes any.
    ///
    /// # Errors
    /// Those of the socket, never `WouldBlock`.
    pub fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.io.poll_write_ready(cx))?;
            match self.try_write(&[IoSlice::new(bytes)]) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Calls `write`, which writes with [`Stream::try_write`], whenever the socket may take more,
    /// until it says that the socket took all: `Ok(false)`.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn poll_drain(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut() -> io::Result<bool>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.io.poll_write_ready(cx))?;
            if !write()? {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Writes at once what the socket takes, with one system call.
    ///
    /// # Errors
    /// `WouldBlock` where it takes nothing now; others where it is of no more use.
    pub fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            let result = match slices {
                [one] => self.io.try_write(one),
                many => self.io.try_write_vectored(many),
            };
            match result {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// Reads once, at most `at_most` bytes, and appends them to `to`; gives how many. While it waits
    /// it holds no buffer.
    ///
    /// # Errors
    /// Those of the socket.
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

    /// Ends this side's direction; the other may go on.
    pub fn shutdown_write(&self) {
        // A socket that is gone already needs no goodbye.
        let _ = self.options().shutdown(Shutdown::Write);
    }
}

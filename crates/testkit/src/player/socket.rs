//! The connection of one link: idle, connecting, or a stream.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};

use otproxy_protocol::player::options::PathOptions;

type Connect = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

enum State {
    Idle,
    Connecting(Connect),
    Up(TcpStream),
}

/// A link's socket, polled by its player's one task.
pub(super) struct LinkSocket {
    path: PathOptions,
    state: State,
    /// The rest of the path's preface, to be written before everything else.
    preface: Bytes,
}

impl LinkSocket {
    pub(super) fn new(path: PathOptions) -> Self {
        Self { path, state: State::Idle, preface: Bytes::new() }
    }

    pub(super) fn connect(&mut self) {
        self.preface = self.path.preface.clone();
        self.state = State::Connecting(Box::pin(connect(self.path.addr, self.path.local)));
    }

    pub(super) fn close(&mut self) {
        self.state = State::Idle;
    }

    /// Polls a connect that is under way.
    pub(super) fn poll_connect(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let State::Connecting(connect) = &mut self.state else { return Poll::Pending };
        let result = ready!(connect.as_mut().poll(cx));
        Poll::Ready(match result {
            Ok(stream) => {
                self.state = State::Up(stream);
                Ok(())
            }
            Err(error) => {
                self.state = State::Idle;
                Err(error)
            }
        })
    }

    /// Reads into `buffer`: how many bytes, 0 at the end of the stream.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let State::Up(stream) = &mut self.state else { return Poll::Pending };
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Writes the preface, then of `output` what the kernel takes: how many bytes of `output`.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, output: &[u8]) -> Poll<io::Result<usize>> {
        let State::Up(stream) = &mut self.state else { return Poll::Pending };
        while !self.preface.is_empty() {
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, &self.preface))?;
            let _ = self.preface.split_to(written);
        }
        Pin::new(stream).poll_write(cx, output)
    }
}

async fn connect(addr: SocketAddr, local: Option<std::net::IpAddr>) -> io::Result<TcpStream> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(local) = local {
        socket.bind(SocketAddr::new(local, 0))?;
    }
    let stream = socket.connect(addr).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

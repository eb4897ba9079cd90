//! The line of a player's packets: a session over links, or a plain connection.

use std::io;
use std::net::{IpAddr, SocketAddr};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::mock::packet;
use crate::player::{GameSession, SessionSender};

/// Bytes that a plain connection has room for at each read.
const READ_SIZE: usize = 4 * 1024;

/// The sending half.
pub(super) enum LineSender {
    Session(SessionSender),
    Plain(OwnedWriteHalf),
}

impl LineSender {
    /// Sends a packet; `false` once the line is dead.
    pub async fn send(&mut self, packet: Vec<u8>) -> bool {
        match self {
            Self::Session(session) => session.send(packet).await.is_ok(),
            Self::Plain(stream) => stream.write_all(&packet).await.is_ok(),
        }
    }
}

/// The receiving half.
pub(super) enum LineReceiver {
    Session(GameSession),
    Plain { stream: OwnedReadHalf, input: BytesMut },
}

impl LineReceiver {
    /// Returns the next packet, its length included; `None` once the line is dead. Safe to cancel.
    pub async fn recv(&mut self) -> Option<Bytes> {
        match self {
            Self::Session(session) => session.recv().await,
            Self::Plain { stream, input } => loop {
                if let Some((packet, _)) = packet::split(input) {
                    let length = packet.len();
                    return Some(input.split_to(length).freeze());
                }
                input.reserve(READ_SIZE);
                if stream.read_buf(input).await.unwrap_or(0) == 0 {
                    return None;
                }
            },
        }
    }
}

/// Makes a plain connection that begins with `preface`.
pub(super) async fn connect(
    to: SocketAddr,
    from: Option<IpAddr>,
    preface: &[u8],
) -> io::Result<(LineSender, LineReceiver)> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(from) = from {
        socket.bind(SocketAddr::new(from, 0))?;
    }
    let mut stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    stream.write_all(preface).await?;
    let (read, write) = stream.into_split();
    Ok((LineSender::Plain(write), LineReceiver::Plain { stream: read, input: BytesMut::new() }))
}

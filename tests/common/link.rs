//! A link to a core, frame by frame, as an edge passes it on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use otproxy_protocol::frame::{self, ClientId, Frame, FromCore, PacketId, SessionId};
use otproxy_protocol::proxy_header::write_v2;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

pub const CLIENT: ClientId = ClientId(1000);
pub const S: SessionId = SessionId(7);
pub const PORT: u16 = 7172;
/// Peers of these addresses are the edges `a` and `b`.
pub const EDGE_A: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
pub const EDGE_B: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Returns a player's address.
pub fn player(last: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, last], 40_000))
}

/// A frame that a link got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Pong,
    Data { session: SessionId, packet: u32, ack: u32, payload: Vec<u8> },
    End(SessionId),
}

pub fn data(packet: u32, ack: u32, payload: &[u8]) -> Option<Seen> {
    Some(Seen::Data { session: S, packet, ack, payload: payload.to_vec() })
}

/// Returns a data frame as a client sends it.
pub fn data_frame(session: SessionId, packet: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    [&frame::data_header(session, PacketId(packet), PacketId(ack), payload.len()), payload].concat()
}

/// A link, frame by frame.
pub struct Link {
    pub stream: TcpStream,
    input: Vec<u8>,
    client: ClientId,
}

impl Link {
    /// Opens a link that came over `edge`, with its first ping answered.
    pub async fn connect(links: SocketAddr, edge: Ipv4Addr, player: SocketAddr, client: ClientId) -> Self {
        let mut link = Self::silent(links, edge, player).await;
        link.ping_first(client).await;
        link
    }

    /// Sends the first ping, and waits for its pong.
    pub async fn ping_first(&mut self, client: ClientId) {
        self.send(&frame::ping(client, 0)).await;
        assert_eq!(self.next().await, Some(Seen::Pong));
        self.client = client;
    }

    /// Opens a link that has sent the PROXY header, and nothing else.
    pub async fn silent(links: SocketAddr, edge: Ipv4Addr, player: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((edge, 0).into()).unwrap();
        Self::over(socket.connect(links).await.unwrap(), player).await
    }

    /// Opens the same, with a receive buffer that takes next to nothing: what is not read waits in the core.
    pub async fn narrow(links: SocketAddr, edge: Ipv4Addr, player: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.bind((edge, 0).into()).unwrap();
        Self::over(socket.connect(links).await.unwrap(), player).await
    }

    /// Opens the same, over a connection of one's own.
    pub async fn over(stream: TcpStream, player: SocketAddr) -> Self {
        stream.set_nodelay(true).unwrap();
        let mut link = Link { stream, input: Vec::new(), client: CLIENT };
        let mut header = Vec::new();
        let destination = match player.ip() {
            IpAddr::V4(_) => SocketAddr::from(([203, 0, 113, 1], 7162)),
            IpAddr::V6(_) => "[2001:db8:1::1]:7162".parse().unwrap(),
        };
        write_v2(&mut header, player, destination);
        link.send(&header).await;
        link
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Returns the next frame; `None` at the end of the link.
    pub async fn next(&mut self) -> Option<Seen> {
        let seen = self.next_or_cut().await;
        assert!(seen.is_some() || self.input.is_empty(), "half a frame at the end");
        seen
    }

    /// Returns the same, on a link that may end in the middle of a frame.
    pub async fn next_or_cut(&mut self) -> Option<Seen> {
        loop {
            if let Some((frame, rest)) = Frame::split(&self.input).expect("a frame") {
                let seen = match frame.from_core().expect("a frame of the core") {
                    FromCore::Pong => Seen::Pong,
                    FromCore::End { session } => Seen::End(session),
                    FromCore::Data { session, packet, ack, payload } => {
                        Seen::Data { session, packet: packet.0, ack: ack.0, payload: payload.to_vec() }
                    }
                };
                let used = self.input.len() - rest.len();
                self.input.drain(..used);
                return Some(seen);
            }
            // A reset is an end as well.
            if self.stream.read_buf(&mut self.input).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    pub async fn open(&mut self, session: SessionId, port: u16) {
        self.send(&frame::open(session, port)).await;
    }

    pub async fn leave(&mut self, session: SessionId) {
        self.send(&frame::end(session)).await;
    }

    pub async fn data(&mut self, session: SessionId, packet: u32, ack: u32, payload: &[u8]) {
        self.send(&data_frame(session, packet, ack, payload)).await;
    }

    /// Waits until all that was sent before has been taken in. Nothing else may be under way.
    pub async fn sync(&mut self) {
        self.send(&frame::ping(self.client, 20)).await;
        assert_eq!(self.next().await, Some(Seen::Pong));
    }
}

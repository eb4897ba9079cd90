//! A game server that does exactly what it is told.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A game server: each connection is the test's to accept.
pub struct Game {
    pub addr: SocketAddr,
    listener: TcpListener,
}

impl Game {
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { addr: listener.local_addr().unwrap(), listener }
    }

    pub async fn accept(&self) -> GameConn {
        let (stream, peer) = self.listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        GameConn { stream, peer }
    }

    /// Accepts a session of a server with `player_address: otc`; gives the address as well.
    pub async fn accept_otc(&self) -> (GameConn, Ipv4Addr) {
        let mut conn = self.accept().await;
        let header = conn.read(6).await;
        assert_eq!(header[..2], [0xFE, 0xFF]);
        (conn, Ipv4Addr::new(header[2], header[3], header[4], header[5]))
    }
}

pub struct GameConn {
    pub stream: TcpStream,
    pub peer: SocketAddr,
}

impl GameConn {
    pub async fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    pub async fn expect(&mut self, bytes: &[u8]) {
        assert_eq!(self.read(bytes.len()).await, bytes);
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Expects that the connection ends, and nothing came before that.
    pub async fn expect_end(&mut self) {
        assert_eq!(self.stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
    }
}

/// Returns `u16 length + body`.
pub fn packet(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u16).to_le_bytes()[..], body].concat()
}

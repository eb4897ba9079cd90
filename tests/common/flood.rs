//! Handshakes that are begun and go no further, from many addresses.

use std::net::{Ipv4Addr, SocketAddr};

use otproxy::tunnel::{UNAUTHENTICATED, UNAUTHENTICATED_PER_ADDRESS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

/// Connections at once: more than may be.
pub const CONNECTIONS: usize = UNAUTHENTICATED + 256;
/// Descriptors that two floods take, with both ends in one process, and what else is open there.
pub const FILES: u64 = 4 * CONNECTIONS as u64 + 2000;
/// The start of a hello of TLS.
const HALF_A_HELLO: &[u8] = &[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];

/// One that goes on in rounds: as many as there can be, until the last of them has been closed.
pub struct Flood {
    going_on: JoinHandle<()>,
}

impl Flood {
    pub fn start(to: SocketAddr) -> Self {
        let going_on = tokio::spawn(async move {
            loop {
                round(to, async {}).await;
            }
        });
        Self { going_on }
    }

    pub async fn end(self) {
        self.going_on.abort();
        let _ = self.going_on.await;
    }
}

/// Runs one round, which is over once all are closed.
pub async fn round(to: SocketAddr, meanwhile: impl Future<Output = ()>) {
    let mut all = Vec::new();
    for number in 0..CONNECTIONS {
        all.push(begin(to, number).await);
    }
    meanwhile.await;
    for connection in &mut all {
        closed(connection).await;
    }
}

async fn begin(to: SocketAddr, number: usize) -> TcpStream {
    let [high, low] = ((number / UNAUTHENTICATED_PER_ADDRESS) as u16).to_be_bytes();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 9, high, low), 0).into()).unwrap();
    let mut stream = socket.connect(to).await.unwrap();
    // One that is one too many may be closed already.
    let _ = stream.write_all(HALF_A_HELLO).await;
    stream
}

async fn closed(stream: &mut TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

//! The port of a world at an edge, for players without links. The game server speaks first there, and nobody logs in.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout, timeout_at};

use super::STEP;
use super::edge::connect;
use crate::doctor::opening::{Opening, shown};
use crate::probe::ProbeError;

/// A world's port, and what came there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenGame {
    /// The port.
    pub port: u16,
    /// The time until the game server's first packet was there.
    pub first: Result<Duration, GameError>,
}

/// The reason why a game server has not spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GameError {
    /// There is no connection.
    Connect(ProbeError),
    /// The connection was closed without a packet.
    Closed,
    /// Nothing came in this time.
    Silent(Duration),
    /// This came in place of a packet.
    NoGame(String),
    /// Other ports took all the time that an edge has.
    Untried,
}

impl GameError {
    /// Returns the finding, as the end of a sentence that begins with the port.
    pub(super) fn finding(&self) -> String {
        match self {
            Self::Connect(error) => error.finding(),
            Self::Closed => "takes the connection, and closes it in place of the game server's first packet".to_owned(),
            Self::Silent(within) => {
                format!(
                    "takes the connection, and no game server speaks within {}",
                    humantime::format_duration(*within)
                )
            }
            Self::NoGame(bytes) => format!("answers, and not as a game server: {bytes}"),
            Self::Untried => "was not tried: other ports of the edge took all the time".to_owned(),
        }
    }

    /// Returns the remedy.
    pub(super) fn remedy(&self) -> String {
        let remedy = match self {
            Self::Connect(error) => return error.remedy("the edge"),
            Self::Closed => {
                "see that the game server runs, and reads what the core sends in front: `otproxy doctor` on the core's host; and that the \
                 edge lets this host in: its log, and `otproxy listeners` there"
            }
            Self::Silent(_) => {
                "see that the game server runs and is not stuck: `otproxy doctor` on the core's host. One for clients before 8.41 waits \
                 for the client, and nothing is wrong then"
            }
            Self::NoGame(_) => "see which program listens there: `ss -ltnp` on the edge's host",
            Self::Untried => "see what is said of the other ports, and try this one alone: `--game-port PORT`",
        };
        remedy.to_owned()
    }
}

impl SeenGame {
    /// Waits at a port for the game server's first packet, until `end` at most.
    pub(super) async fn look(at: SocketAddr, end: Instant) -> Self {
        let untried = Err(GameError::Untried);
        let first =
            if Instant::now() < end { timeout_at(end, first_packet(at)).await.unwrap_or(untried) } else { untried };
        Self { port: at.port(), first }
    }
}

/// Returns the time from the connect to the first packet.
async fn first_packet(at: SocketAddr) -> Result<Duration, GameError> {
    let start = Instant::now();
    let (mut stream, _) = connect(at).await.map_err(GameError::Connect)?;
    let mut bytes = Vec::new();
    let reading = async {
        loop {
            match Opening::of(&bytes) {
                Opening::Packet => return true,
                Opening::Other => return false,
                // A reset is an end.
                Opening::Part if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 => return false,
                Opening::Part => {}
            }
        }
    };
    match timeout(STEP, reading).await {
        Ok(true) => Ok(start.elapsed()),
        Ok(false) if bytes.is_empty() => Err(GameError::Closed),
        Err(_) if bytes.is_empty() => Err(GameError::Silent(STEP)),
        _ => Err(GameError::NoGame(shown(&bytes))),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// Returns what is seen of somebody who says this, and then closes or stays.
    async fn seen(said: &[&[u8]], stays: bool) -> Result<Duration, GameError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        let speaking = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            for bytes in said {
                // A reader that has enough may be gone.
                let _ = stream.write_all(bytes).await;
            }
            stays.then_some(stream)
        };
        tokio::join!(first_packet(at), speaking).0
    }

    #[tokio::test]
    async fn a_game_server_speaks_first() {
        let in_bytes = [&[12, 0][..], &[7; 12]].concat();
        let in_blocks = [&[1, 0][..], &[7; 12]].concat();
        for packet in [&in_bytes, &in_blocks] {
            assert!(seen(&[packet], true).await.is_ok());
            assert!(seen(&[&packet[..1], &packet[1..5], &packet[5..], b"and more"], false).await.is_ok());
        }
        assert_eq!(seen(&[], false).await, Err(GameError::Closed));
        let other = |text: &str| Err(GameError::NoGame(text.to_owned()));
        assert_eq!(seen(&[b"SSH-2.0-x\r\n"], true).await, other("`SSH-2.0-x`"));
        assert_eq!(seen(&[&[0; 4]], true).await, other("00 00 00 00"));
        assert_eq!(seen(&[&in_bytes[..5]], false).await, other("0c 00 07 07 07"));
        let endless = seen(&[&[b'x'; 1 << 20]], true).await;
        assert_eq!(endless, other(&shown(&[b'x'; 1 << 20])));
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_for_a_first_packet_is_limited() {
        // The kernel takes the connections, and nobody speaks.
        let silent = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = silent.local_addr().unwrap();
        let now = Instant::now();
        assert_eq!(SeenGame::look(at, now + 2 * STEP).await.first, Err(GameError::Silent(STEP)));
        assert_eq!(SeenGame::look(at, Instant::now() + STEP / 2).await.first, Err(GameError::Untried));
        assert_eq!(SeenGame::look(at, now).await.first, Err(GameError::Untried));
    }
}

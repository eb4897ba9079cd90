//! One link, on a socket of its own.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::ProbeError;
use otproxy_net::ConnectResult;
use otproxy_protocol::frame::{self, ClientId, PONG};
use otproxy_protocol::proxy_header;

/// The way in which links are opened and pinged.
#[derive(Debug, Clone, Copy)]
pub struct Probing {
    /// The client that the links are of.
    pub client: ClientId,
    /// The time limit of a connect, and that of a pong.
    pub within: Duration,
    /// Whether a PROXY header goes first, as an edge sends it.
    pub send_proxy: bool,
}

/// A link that stands.
#[derive(Debug)]
pub struct ProbeLink {
    stream: TcpStream,
    probing: Probing,
    /// Whether a ping was answered.
    answered: bool,
    /// The round trip that pings tell, in milliseconds.
    told: u32,
}

impl ProbeLink {
    /// Connects; returns the link and the time that took.
    ///
    /// # Errors
    /// Returns the reason why there is no connection.
    pub async fn open(address: SocketAddr, probing: Probing) -> Result<(Self, Duration), ProbeError> {
        let start = Instant::now();
        let mut stream = match timeout(probing.within, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(ProbeError::of_connect(&error, address.is_ipv6())),
            Err(_) => return Err(ProbeError::Connect(ConnectResult::Timeout)),
        };
        let took = start.elapsed();
        if begin(&mut stream, address, probing.send_proxy).await.is_err() {
            return Err(ProbeError::Closed { first: true });
        }
        Ok((Self { stream, probing, answered: false, told: 0 }, took))
    }

    /// Has pings tell this round trip, in milliseconds, as those of players do.
    #[must_use]
    pub fn telling(self, told: u32) -> Self {
        Self { told, ..self }
    }

    /// Returns the address of this host on the way there.
    #[must_use]
    pub fn local(&self) -> Option<IpAddr> {
        self.stream.local_addr().ok().map(|local| local.ip())
    }

    /// Sends a ping and waits for its pong; returns the round trip.
    ///
    /// # Errors
    /// Returns the reason why there is no pong. The link is of no more use then.
    pub async fn ping(&mut self) -> Result<Duration, ProbeError> {
        let within = self.probing.within;
        let start = Instant::now();
        match timeout(within, self.exchange()).await {
            Ok(Ok(())) => {
                self.answered = true;
                Ok(start.elapsed())
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ProbeError::Silent(within)),
        }
    }

    async fn exchange(&mut self) -> Result<(), ProbeError> {
        let first = !self.answered;
        let closed = |_: io::Error| ProbeError::Closed { first };
        // No round trip is reported unless one is to be told: a core counts those of players.
        self.stream.write_all(&frame::ping(self.probing.client, self.told)).await.map_err(closed)?;
        let (mut answer, mut len) = ([0; PONG.len()], 0);
        loop {
            let (got, room) = answer.split_at_mut(len);
            if !PONG.starts_with(got) {
                return Err(ProbeError::NoLink(shown(got)));
            }
            if room.is_empty() {
                return Ok(());
            }
            match self.stream.read(room).await.map_err(closed)? {
                0 => return Err(ProbeError::Closed { first }),
                count => len += count,
            }
        }
    }
}

async fn begin(stream: &mut TcpStream, address: SocketAddr, send_proxy: bool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if !send_proxy {
        return Ok(());
    }
    let mut header = Vec::new();
    proxy_header::write_v2(&mut header, stream.local_addr()?, address);
    stream.write_all(&header).await
}

/// Returns bytes of somebody else as text that is safe to print.
pub(crate) fn shown(bytes: &[u8]) -> String {
    if bytes.iter().all(|byte| byte.is_ascii_graphic() || b" \r\n\t".contains(byte)) {
        return format!("`{}`", String::from_utf8_lossy(bytes).trim_end().replace(['\r', '\n', '\t'], " "));
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;
    use otproxy_protocol::frame::{HEADER_LEN, first_ping};

    const PROBING: Probing = Probing { client: ClientId(7), within: Duration::from_secs(10), send_proxy: false };

    /// Pings somebody who takes one connection, reads a ping, and sends these parts.
    async fn answered_by(parts: &[&[u8]], probing: Probing) -> Result<Duration, ProbeError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let pinging = async {
            let (mut link, _) = ProbeLink::open(address, probing).await?;
            link.ping().await
        };
        let answering = async {
            let (mut stream, peer) = listener.accept().await.unwrap();
            if probing.send_proxy {
                let mut header = [0; 28];
                stream.read_exact(&mut header).await.unwrap();
                let (header, _) = proxy_header::parse(&header).unwrap().unwrap();
                assert_eq!(header.source, Some(peer));
            }
            let mut ping = [0; HEADER_LEN + 4];
            stream.read_exact(&mut ping).await.unwrap();
            assert_eq!(first_ping(&ping).unwrap(), Some(ClientId(7)));
            for part in parts {
                stream.write_all(part).await.unwrap();
            }
        };
        let (result, ()) = tokio::join!(pinging, answering);
        result
    }

    #[tokio::test]
    async fn a_pong_is_a_pong_and_nothing_else_is() {
        assert!(answered_by(&[&PONG], PROBING).await.is_ok());
        assert!(answered_by(&[&PONG[..1], &PONG[1..]], PROBING).await.is_ok());
        assert!(answered_by(&[&PONG], Probing { send_proxy: true, ..PROBING }).await.is_ok());
        assert_eq!(answered_by(&[], PROBING).await, Err(ProbeError::Closed { first: true }));
        assert_eq!(answered_by(&[&PONG[..5]], PROBING).await, Err(ProbeError::Closed { first: true }));
        assert_eq!(answered_by(&[b"SSH-2.0-x\r\n"], PROBING).await, Err(ProbeError::NoLink("`SSH-2.0-x`".to_owned())));
        let end = frame::end(otproxy_protocol::frame::SessionId(1));
        assert_eq!(
            answered_by(&[&end], PROBING).await,
            Err(ProbeError::NoLink("0c 00 01 00 00 00 ff ff ff ff 00 00 00 00".to_owned()))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_for_a_pong_is_limited() {
        // The kernel takes the connection, and nobody answers.
        let silent = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (mut link, _) = ProbeLink::open(silent.local_addr().unwrap(), PROBING).await.unwrap();
        assert_eq!(link.ping().await, Err(ProbeError::Silent(PROBING.within)));
    }
}

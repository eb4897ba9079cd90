//! One edge, as a player uses it: links, the login's port, the status, the ports of worlds.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::{EDGE, EdgePorts, INTERVAL, ListedEdge, PINGS, STEP, SeenGame};
use crate::probe::{self, PingFigures, PingSeries, ProbeError, Probing};
use otproxy_net::ConnectResult;
use otproxy_protocol::status::{MAX_ANSWER, ServerStatus, StatusRequest};

/// An edge, and what it did.
#[derive(Debug)]
pub struct SeenEdge {
    /// The edge, as clients are told it.
    pub listed: ListedEdge,
    /// The addresses of its name. Clients try the first, and no other.
    pub addresses: Vec<IpAddr>,
    /// Pings over links.
    pub links: PingFigures,
    /// The time that a connect to the login's port took.
    pub login: Result<Duration, ProbeError>,
    /// The answer to a request for the status.
    pub status: Result<ServerStatus, StatusError>,
    /// The addresses of the name that the status shows.
    pub shown: Vec<IpAddr>,
    /// The ports of worlds.
    pub games: Vec<SeenGame>,
}

/// The reason why there is no status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatusError {
    /// There is no connection.
    Connect(ProbeError),
    /// No whole answer came in this time.
    Silent(Duration),
    /// The connection was closed without an answer.
    Closed,
    /// The answer is no status, or longer than any.
    NotStatus,
}

impl StatusError {
    /// Returns the finding, as the end of a sentence that begins with the address.
    pub(super) fn finding(&self) -> String {
        match self {
            Self::Connect(error) => error.finding(),
            Self::Silent(within) => {
                format!("takes the connection, and gives no status within {}", humantime::format_duration(*within))
            }
            Self::Closed => "closes the connection in place of a status".to_owned(),
            Self::NotStatus => "answers, and not with a status".to_owned(),
        }
    }

    /// Returns the remedy.
    pub(super) fn remedy(&self) -> String {
        match self {
            Self::Connect(error) => error.remedy("the edge"),
            Self::Silent(_) | Self::Closed => {
                "see that the game server runs, and that it answers requests for the status: `otproxy doctor` on the core's host; and \
                 that the edge lets this host in: its log, and `otproxy listeners` there"
                    .to_owned()
            }
            Self::NotStatus => "see which program listens there, and give its port with `--status-port`".to_owned(),
        }
    }
}

impl SeenEdge {
    /// Tries all that a player uses of an edge.
    pub(super) async fn look(listed: ListedEdge, ports: EdgePorts) -> Self {
        let end = Instant::now() + EDGE;
        let mut addresses = Vec::new();
        for address in resolved(&listed.at.host).await {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        let nowhere = ProbeError::Connect(ConnectResult::Resolve);
        let mut seen = Self {
            listed,
            addresses,
            links: PingFigures::default(),
            login: Err(nowhere.clone()),
            status: Err(StatusError::Connect(nowhere.clone())),
            shown: Vec::new(),
            games: Vec::new(),
        };
        let Some(ip) = seen.addresses.first().copied() else {
            seen.links.fail(nowhere);
            return seen;
        };
        let probing = Probing { client: probe::client_id(), within: STEP, send_proxy: false };
        let address = SocketAddr::new(ip, seen.listed.at.port);
        let series = PingSeries { address, probing, count: Some(PINGS), interval: INTERVAL };
        let links = &mut seen.links;
        // The pings that were counted by then hold.
        let pinging = timeout_at(end, series.run(|pinged| links.count(&pinged)));
        let asking = async {
            let login = connect(SocketAddr::new(ip, ports.login)).await.map(|(_, took)| took);
            let status = status(SocketAddr::new(ip, ports.status)).await;
            let mut games = Vec::new();
            for port in ports.games {
                games.push(SeenGame::look(SocketAddr::new(ip, port), end).await);
            }
            (login, status, games)
        };
        (_, (seen.login, seen.status, seen.games)) = tokio::join!(pinging, asking);
        if let Ok(view) = &seen.status {
            seen.shown = resolved(&view.address).await;
        }
        seen
    }
}

/// Returns the addresses of a host; none if it does not resolve.
async fn resolved(host: &str) -> Vec<IpAddr> {
    let addresses = otproxy_net::resolve((host, 0), STEP).await.unwrap_or_default();
    addresses.into_iter().map(|address| address.ip().to_canonical()).collect()
}

/// Connects; returns the time that took too.
pub(super) async fn connect(address: SocketAddr) -> Result<(TcpStream, Duration), ProbeError> {
    let start = Instant::now();
    match timeout(STEP, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => Ok((stream, start.elapsed())),
        Ok(Err(error)) => Err(ProbeError::of_connect(&error, address.is_ipv6())),
        Err(_) => Err(ProbeError::Connect(ConnectResult::Timeout)),
    }
}

/// Asks for the status, and reads the answer to its end.
async fn status(address: SocketAddr) -> Result<ServerStatus, StatusError> {
    let (mut stream, _) = connect(address).await.map_err(StatusError::Connect)?;
    let mut answer = Vec::new();
    let exchange = async {
        stream.write_all(&StatusRequest::Xml.to_bytes()).await?;
        let most = u64::try_from(MAX_ANSWER).unwrap_or(u64::MAX);
        stream.take(most.saturating_add(1)).read_to_end(&mut answer).await
    };
    match timeout(STEP, exchange).await {
        Err(_) => Err(StatusError::Silent(STEP)),
        // A reset behind a whole answer takes nothing away from it.
        Ok(_) if answer.is_empty() => Err(StatusError::Closed),
        Ok(_) if answer.len() > MAX_ANSWER => Err(StatusError::NotStatus),
        Ok(_) => ServerStatus::read(&answer).ok_or(StatusError::NotStatus),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    /// Asks somebody for the status who answers with these bytes.
    async fn answered(answer: &[u8]) -> Result<ServerStatus, StatusError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let answering = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 8];
            stream.read_exact(&mut request).await.unwrap();
            assert_eq!(&request, b"\x06\0\xFF\xFFinfo");
            // A reader that has enough may be gone.
            let _ = stream.write_all(answer).await;
        };
        tokio::join!(status(address), answering).0
    }

    #[tokio::test]
    async fn an_answer_is_a_status_or_it_is_told_why_not() {
        let view = answered(b"<tsqp><serverinfo servername='Antica' ip='p1.example'/></tsqp>").await.unwrap();
        assert_eq!((view.name.as_str(), view.address.as_str()), ("Antica", "p1.example"));
        assert_eq!(answered(b"").await, Err(StatusError::Closed));
        assert_eq!(answered(b"SSH-2.0-x\r\n").await, Err(StatusError::NotStatus));
        let mut long = b"<serverinfo ip='p1.example'/>".to_vec();
        long.resize(MAX_ANSWER + 1, b' ');
        assert_eq!(answered(&long).await, Err(StatusError::NotStatus));
        long.pop();
        assert!(answered(&long).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_for_an_answer_is_limited() {
        // The kernel takes the connection, and nobody answers.
        let silent = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert_eq!(status(silent.local_addr().unwrap()).await, Err(StatusError::Silent(STEP)));
    }
}

//! Connecting to targets.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpSocket;
use tokio::time::timeout;

use super::{Stream, options};
use crate::config::Target;
use crate::reason::ConnectResult;

/// The local address that a connect starts from: `None` lets the kernel choose.
pub type Source = Option<IpAddr>;

/// Connects to a game server, trying each address of its name, each for at most `within`. Gives
/// the stream and the address that answered.
///
/// # Errors
/// What the last try ended with.
pub async fn connect(target: &Target, source: Source, within: Duration) -> Result<(Stream, SocketAddr), ConnectResult> {
    connect_with(target, source, within, |_| {}).await
}

/// The same for the target of a forward.
///
/// # Errors
/// What the last try ended with.
pub async fn connect_forward(target: &Target, within: Duration) -> Result<(Stream, SocketAddr), ConnectResult> {
    connect_with(target, None, within, |socket| options::towards_target(&SockRef::from(socket))).await
}

async fn connect_with(
    target: &Target,
    source: Source,
    within: Duration,
    prepare: impl Fn(&TcpSocket),
) -> Result<(Stream, SocketAddr), ConnectResult> {
    let addresses: Vec<SocketAddr> = match target.host.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, target.port)],
        Err(_) => timeout(within, tokio::net::lookup_host((target.host.as_str(), target.port)))
            .await
            .map_err(|_| ConnectResult::Resolve)?
            .map_err(|_| ConnectResult::Resolve)?
            .filter(|a| source.is_none_or(|s| s.is_ipv4() == a.is_ipv4()))
            .collect(),
    };
    let mut last = ConnectResult::Resolve;
    for address in addresses {
        match timeout(within, connect_to(address, source, &prepare)).await {
            Ok(Ok(stream)) => return Ok((stream, address)),
            Ok(Err(error)) => last = ConnectResult::of(&error),
            Err(_) => last = ConnectResult::Timeout,
        }
    }
    Err(last)
}

async fn connect_to(address: SocketAddr, source: Source, prepare: impl Fn(&TcpSocket)) -> io::Result<Stream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    prepare(&socket);
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    Stream::new(socket.connect(address).await?)
}

//! Connecting to targets.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::time::timeout;

use super::Stream;
use crate::config::Target;
use crate::reason::ConnectResult;

/// The local address that a connect starts from: `None` lets the kernel choose.
pub type Source = Option<IpAddr>;

/// Connects to `target`, trying each address of its name, each for at most `within`. Gives the
/// stream and the address that answered.
///
/// # Errors
/// What the last try ended with.
pub async fn connect(target: &Target, source: Source, within: Duration) -> Result<(Stream, SocketAddr), ConnectResult> {
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
        match timeout(within, connect_to(address, source)).await {
            Ok(Ok(stream)) => return Ok((stream, address)),
            Ok(Err(error)) => last = ConnectResult::of(&error),
            Err(_) => last = ConnectResult::Timeout,
        }
    }
    Err(last)
}

async fn connect_to(address: SocketAddr, source: Source) -> io::Result<Stream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    Stream::new(socket.connect(address).await?)
}

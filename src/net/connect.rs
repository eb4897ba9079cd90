//! Connecting to targets.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
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
    let addresses = resolve(target, within).await?;
    let fitting = addresses.into_iter().filter(|a| source.is_none_or(|s| s.is_ipv4() == a.is_ipv4()));
    let (stream, address) = connect_with(fitting, source, within, |_| {}).await?;
    Ok((Stream::new(stream).map_err(|error| ConnectResult::of(&error))?, address))
}

/// The same for the addresses of a forward's target, as a plain socket.
///
/// # Errors
/// What the last try ended with.
pub async fn connect_forward(
    addresses: impl IntoIterator<Item = SocketAddr>,
    within: Duration,
) -> Result<(TcpStream, SocketAddr), ConnectResult> {
    connect_with(addresses, None, within, |socket| options::towards_target(&SockRef::from(socket))).await
}

/// The addresses of a target, in the order in which they are to be tried.
///
/// # Errors
/// [`ConnectResult::Resolve`] where its name cannot be looked up `within` that time.
pub async fn resolve(target: &Target, within: Duration) -> Result<Vec<SocketAddr>, ConnectResult> {
    if let Some(address) = target.literal() {
        return Ok(vec![address]);
    }
    match timeout(within, lookup(target.clone())).await {
        Ok(Ok(addresses)) => Ok(addresses),
        _ => Err(ConnectResult::Resolve),
    }
}

/// Looks up the name of a target, however long that takes.
///
/// # Errors
/// Those of the system's resolver.
pub async fn lookup(target: Target) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((target.host.as_str(), target.port)).await?.collect())
}

async fn connect_with(
    addresses: impl IntoIterator<Item = SocketAddr>,
    source: Source,
    within: Duration,
    prepare: impl Fn(&TcpSocket),
) -> Result<(TcpStream, SocketAddr), ConnectResult> {
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

async fn connect_to(address: SocketAddr, source: Source, prepare: impl Fn(&TcpSocket)) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    prepare(&socket);
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    socket.connect(address).await
}

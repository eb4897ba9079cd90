//! Connects to targets.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::{Stream, options};
use otproxy_protocol::words;

words! {
    /// The result of an attempt to reach a target.
    pub enum ConnectResult {
        /// Connected.
        Ok = "ok",
        /// Refused by the target's host.
        Refused = "refused",
        /// No answer within `timeouts.connect`.
        Timeout = "timeout",
        /// The host or network cannot be reached.
        Unreachable = "unreachable",
        /// The target's name does not resolve.
        Resolve = "resolve",
        /// Through the tunnel: the handshake failed.
        Handshake = "handshake",
        /// Any other failure, such as no free descriptor.
        Error = "error",
    }
}

impl ConnectResult {
    /// Returns the result that an I/O error of a connect stands for.
    pub fn of(error: &std::io::Error) -> Self {
        use std::io::ErrorKind::*;
        match error.kind() {
            ConnectionRefused => Self::Refused,
            TimedOut => Self::Timeout,
            HostUnreachable | NetworkUnreachable | NetworkDown => Self::Unreachable,
            _ => Self::Error,
        }
    }
}

/// The local address that a connect starts from: `None` lets the kernel choose.
pub type SourceIp = Option<IpAddr>;

/// Connects to a port of a host, by name or address, trying each address of its name, each for at most `within`. Returns
/// the stream and the address that answered.
///
/// Returns the result of the last attempt.
/// Returns the result of the last attempt.
pub async fn connect(
    (host, port): (&str, u16),
    source: SourceIp,
    within: Duration,
) -> Result<(Stream, SocketAddr), ConnectResult> {
    let addresses = resolve((host, port), within).await?;
    let fitting = addresses.into_iter().filter(|a| source.is_none_or(|s| s.is_ipv4() == a.is_ipv4()));
    let (stream, address) = connect_with(fitting, source, within, |_| {}).await?;
    Ok((Stream::new(stream).map_err(|error| ConnectResult::of(&error))?, address))
}

/// Connects to the addresses of a forward's target, as a plain socket.
///
/// Returns the result of the last attempt.
/// Returns the result of the last attempt.
pub async fn connect_forward(
    addresses: impl IntoIterator<Item = SocketAddr>,
    within: Duration,
) -> Result<(TcpStream, SocketAddr), ConnectResult> {
    connect_with(addresses, None, within, |socket| options::towards_target(&SockRef::from(socket))).await
}

/// Returns the addresses of a host with its port, in the order in which they are to be tried.
///
/// Returns the result of the last attempt.
/// Returns [`ConnectResult::Resolve`] if its name cannot be looked up `within` that time.
pub async fn resolve((host, port): (&str, u16), within: Duration) -> Result<Vec<SocketAddr>, ConnectResult> {
    if let Ok(address) = host.parse() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    match timeout(within, lookup((host, port))).await {
        Ok(Ok(addresses)) => Ok(addresses),
        _ => Err(ConnectResult::Resolve),
    }
}

/// Looks up the name of a host, however long that takes.
///
/// Returns the result of the last attempt.
/// Returns the error of the system's resolver.
pub async fn lookup((host, port): (&str, u16)) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}

async fn connect_with(
    addresses: impl IntoIterator<Item = SocketAddr>,
    source: SourceIp,
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

async fn connect_to(address: SocketAddr, source: SourceIp, prepare: impl Fn(&TcpSocket)) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    prepare(&socket);
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    socket.connect(address).await
}

//! Connects to targets.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tracing::field::display;
use tracing::warn;

use super::source::{Source, SourceError};
use super::{OutageLog, Stream, descriptors, options};
use otproxy_protocol::words;

/// The kernel's range of ports for connections, of IPv6 as well.
const PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

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
        /// Too many connects waited for their turn: nothing was tried.
        Queue = "queue",
        /// This host has no local address with a free port for it.
        NoAddress = "no_address",
        /// With `source: player`: the player's address is none that a player can have, or one of this host.
        BadSource = "bad_source",
        /// With `source: player`: the kernel does not let this process connect from addresses of others.
        NoPrivilege = "no_privilege",
        /// Any other failure, such as no free descriptor.
        Error = "error",
    }
}

impl ConnectResult {
    /// Returns the result that an I/O error of a connect stands for.
    pub fn of(error: &std::io::Error) -> Self {
        use std::io::ErrorKind::*;
        if let Some(error) = SourceError::of(error) {
            return match error {
                SourceError::NoPlayer(_) | SourceError::Own(_) => Self::BadSource,
                SourceError::NoPrivilege(_) => Self::NoPrivilege,
            };
        }
        match error.kind() {
            // A reset comes where its listener was closed in the same moment.
            ConnectionRefused | ConnectionReset => Self::Refused,
            TimedOut => Self::Timeout,
            HostUnreachable | NetworkUnreachable | NetworkDown => Self::Unreachable,
            AddrNotAvailable | AddrInUse => Self::NoAddress,
            // This host has no IPv6 at all.
            _ if is_without_family(error) => Self::Unreachable,
            _ => Self::Error,
        }
    }

    /// Returns whether it says something about this host alone, and nothing about the target.
    pub const fn is_of_this_host(self) -> bool {
        matches!(self, Self::Queue | Self::NoAddress | Self::BadSource | Self::NoPrivilege | Self::Error)
    }
}

/// Returns whether the kernel does not know the address family of a socket that was asked for.
pub(super) fn is_without_family(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::AFNOSUPPORT)
}

/// Connects to a port of a host, by name or address, trying each address of its name, each for at most `within`. Returns
/// the stream and the address that answered. It logs no address: the core's may be one that is to stand in no log.
///
/// # Errors
/// Returns the result of the last attempt.
pub async fn connect(
    (host, port): (&str, u16),
    source: Source,
    within: Duration,
) -> Result<(Stream, SocketAddr), ConnectResult> {
    connect_any(resolve((host, port), within).await?, source, within).await
}

/// Connects to the first of these addresses that answers, in the same way.
///
/// # Errors
/// Returns the result of the last attempt.
pub async fn connect_any(
    addresses: impl IntoIterator<Item = SocketAddr>,
    source: Source,
    within: Duration,
) -> Result<(Stream, SocketAddr), ConnectResult> {
    let (stream, address) = connect_with(addresses, source, within, false, |_| {}).await?;
    Ok((Stream::new(stream).map_err(|error| ConnectResult::of(&error))?, address))
}

/// Connects to the addresses of a forward's target, as a plain socket; from `source`, to those of its family.
///
/// # Errors
/// Returns the result of the last attempt.
pub async fn connect_forward(
    addresses: impl IntoIterator<Item = SocketAddr>,
    source: Source,
    within: Duration,
) -> Result<(TcpStream, SocketAddr), ConnectResult> {
    connect_with(addresses, source, within, true, |socket| options::towards_target(&SockRef::from(socket))).await
}

/// Returns the addresses of a host with its port, in the order in which they are to be tried.
///
/// # Errors
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
/// # Errors
/// Returns the error of the system's resolver.
pub async fn lookup((host, port): (&str, u16)) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}

async fn connect_with(
    addresses: impl IntoIterator<Item = SocketAddr>,
    source: Source,
    within: Duration,
    log_address: bool,
    prepare: impl Fn(&TcpSocket),
) -> Result<(TcpStream, SocketAddr), ConnectResult> {
    let mut last = ConnectResult::Resolve;
    for address in addresses.into_iter().filter(|address| source.fits(*address)) {
        match timeout(within, connect_to(address, source, &prepare)).await {
            Ok(Ok(stream)) => return Ok((stream, address)),
            Ok(Err(error)) => {
                last = ConnectResult::of(&error);
                if last.is_of_this_host() {
                    warn_of_connect(address, source, &error, log_address);
                }
            }
            Err(_) => last = ConnectResult::Timeout,
        }
    }
    Err(last)
}

pub(super) async fn connect_to(
    address: SocketAddr,
    source: Source,
    prepare: impl Fn(&TcpSocket),
) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if descriptors::is_held_back(&socket) {
        return Err(descriptors::none_left());
    }
    prepare(&socket);
    source.bind(&socket, address)?;
    socket.connect(address).await
}

/// Logs that a connect failed for a reason of this host, up to the log's limit. One to another target that works says nothing
/// about that reason.
fn warn_of_connect(target: SocketAddr, source: Source, error: &io::Error, log_address: bool) {
    static LOG: OutageLog<(ConnectResult, Option<i32>)> = OutageLog::new();
    let reason = (ConnectResult::of(error), error.raw_os_error());
    if let Some(suppressed) = LOG.failed(reason, Instant::now()) {
        let remedy = remedy(target, source, error, &port_range());
        let target = log_address.then(|| display(target));
        warn!(target, %error, suppressed, "cannot connect, for a reason of this host; {remedy}");
    }
}

/// Returns the remedy for a failed connect that is no fault of the target. `ports` is the range of local ports.
fn remedy(target: SocketAddr, source: Source, error: &io::Error, ports: &str) -> String {
    let family = if target.is_ipv6() { "-6 " } else { "" };
    if let Some(error) = SourceError::of(error) {
        return error.remedy().to_owned();
    }
    let needs = match (Errno::from_io_error(error), source) {
        (Some(Errno::MFILE), _) => return "raise LimitNOFILE or `ulimit -Hn`: too few files may be open".to_owned(),
        (Some(Errno::NFILE), _) => return "raise the sysctl fs.file-max: too few files may be open".to_owned(),
        (Some(Errno::PERM | Errno::ACCESS), _) => return "see its firewall: `nft list ruleset`".to_owned(),
        (Some(Errno::ADDRNOTAVAIL), Source::Own(source)) => {
            format!("it needs the address {source} (`ip {family}address`), and")
        }
        // What the kernel answers too where IPv6 is turned off.
        (Some(Errno::ADDRNOTAVAIL), _) if target.is_ipv6() => {
            "it needs an IPv6 address (`ip -6 address`), and".to_owned()
        }
        (Some(Errno::ADDRNOTAVAIL | Errno::ADDRINUSE), _) => "it needs".to_owned(),
        _ => return "see the kernel's log: `dmesg`".to_owned(),
    };
    format!(
        "{needs} a free port among {ports}, the {PORT_RANGE} of this host, for each connection from one address to one \
         port of a target: widen that by `sysctl -w net.ipv4.ip_local_port_range=\"10240 65535\"`"
    )
}

/// Reads the range of ports that the kernel chooses from for connections, as `32768 to 60999`.
fn port_range() -> String {
    let range = std::fs::read_to_string(PORT_RANGE).unwrap_or_default();
    range.split_whitespace().collect::<Vec<_>>().join(" to ")
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn a_connect_that_is_reset_is_no_fault_of_this_host() {
        assert_eq!(ConnectResult::of(&Errno::CONNRESET.into()), ConnectResult::Refused);
    }

    #[test]
    fn a_connect_that_this_host_fails_says_what_the_host_lacks() {
        let (v4, v6) = ("192.0.2.1:7172".parse().unwrap(), "[2001:db8::1]:7172".parse().unwrap());
        let own = Source::Own(IpAddr::from([127, 0, 0, 9]));
        for (errno, target, source, result, says) in [
            (
                Errno::ADDRNOTAVAIL,
                v4,
                Source::Kernel,
                ConnectResult::NoAddress,
                "it needs a free port among 5 to 9, the /proc/sys/net",
            ),
            (
                Errno::ADDRINUSE,
                v4,
                own,
                ConnectResult::NoAddress,
                "it needs a free port among 5 to 9, the /proc/sys/net",
            ),
            (
                Errno::ADDRNOTAVAIL,
                v4,
                own,
                ConnectResult::NoAddress,
                "the address 127.0.0.9 (`ip address`), and a free",
            ),
            (
                Errno::ADDRNOTAVAIL,
                v6,
                Source::Kernel,
                ConnectResult::NoAddress,
                "it needs an IPv6 address (`ip -6 address`), and a free",
            ),
            (Errno::MFILE, v4, Source::Kernel, ConnectResult::Error, "raise LimitNOFILE"),
            (Errno::NFILE, v4, Source::Kernel, ConnectResult::Error, "fs.file-max"),
            (Errno::PERM, v4, Source::Kernel, ConnectResult::Error, "firewall"),
            (Errno::NOMEM, v4, Source::Kernel, ConnectResult::Error, "dmesg"),
        ] {
            let error = io::Error::from(errno);
            assert_eq!(ConnectResult::of(&error), result, "{error}");
            assert!(result.is_of_this_host());
            let remedy = remedy(target, source, &error, "5 to 9");
            assert!(remedy.contains(says), "{error}: {remedy}");
        }
        let without_ipv6 = ConnectResult::of(&Errno::AFNOSUPPORT.into());
        assert!(without_ipv6 == ConnectResult::Unreachable && !without_ipv6.is_of_this_host());
    }

    #[test]
    fn the_range_of_ports_is_read() {
        let range = port_range();
        let (low, high) = range.split_once(" to ").unwrap_or_else(|| panic!("{range:?}"));
        assert!(low.parse::<u16>().unwrap() < high.parse::<u16>().unwrap(), "{range}");
    }

    #[test]
    fn a_connect_comes_from_the_address_that_is_asked_for_or_from_none() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let target = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = target.local_addr().unwrap();
            let source = IpAddr::from([127, 0, 0, 77]);
            let stream = connect_to(address, Source::Own(source), |_| {}).await.unwrap();
            assert_eq!(stream.local_addr().unwrap().ip(), source);
            // Not an address of this host.
            let foreign = connect_to(address, Source::Own(IpAddr::from([192, 0, 2, 9])), |_| {}).await.unwrap_err();
            assert_eq!(ConnectResult::of(&foreign), ConnectResult::NoAddress);
        });
    }
}

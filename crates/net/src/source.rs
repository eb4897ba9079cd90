//! The local address that a connect starts from: the kernel's choice, one of this host, or a player's.
//!
//! A socket with `IP_TRANSPARENT` may be bound to an address of another host. That takes the privilege `CAP_NET_RAW`, and answers
//! only come back if a route leads what servers on loopback send there to this host: docs/configuration.md has both.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::SockRef;
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::timeout;

use super::connect::{ConnectResult, connect_to};
use otproxy_protocol::player_address::{PseudoIpv4, ipv4_of, ipv6_of};

/// The addresses that [`try_as_player`] comes from, of documentation's networks: no player has them.
const TRIED_AS: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(192, 0, 2, 1), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
/// The time limit of that: nothing leaves the host, and a kernel without the route answers never.
const TRY_WITHIN: Duration = Duration::from_secs(2);

/// The local address that a connect starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Source {
    /// As the kernel chooses.
    #[default]
    Kernel,
    /// An address of this host.
    Own(IpAddr),
    /// A player's, which is another host's; to servers on loopback alone.
    Player(PlayerSource),
}

/// The addresses by which a server on loopback sees a player.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlayerSource {
    player: IpAddr,
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
}

/// The reason why a player's address cannot be the source of a connect.
#[derive(Debug, Error)]
pub(super) enum SourceError {
    #[error("{0} is no address that a player can have")]
    NoPlayer(IpAddr),
    #[error("{0} is an address of this host, or net.ipv4.ip_nonlocal_bind takes all for such")]
    Own(IpAddr),
    #[error("the kernel does not let otproxy connect from players' addresses: {0}")]
    NoPrivilege(io::Error),
}

impl From<SourceError> for io::Error {
    fn from(error: SourceError) -> Self {
        Self::other(error)
    }
}

impl SourceError {
    /// Returns the error of a source that an error of a connect stands for, if it does.
    pub(super) fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// Returns the remedy.
    pub(super) const fn remedy(&self) -> &'static str {
        match self {
            Self::NoPlayer(_) | Self::Own(_) => BAD_SOURCE,
            Self::NoPrivilege(_) => NO_PRIVILEGE,
        }
    }
}

/// The remedy for an address that no player can have.
const BAD_SOURCE: &str = "`source: player` connects from no such address: see what says that it is the player's (`trusted_peers`), or set \
     `sysctl -w net.ipv4.ip_nonlocal_bind=0`";

/// The remedy for a process that may not connect from players' addresses.
const NO_PRIVILEGE: &str = "`source: player` needs the privilege CAP_NET_RAW: `otproxy init` writes the lines of the unit for it, which are in \
     docs/configuration.md too, and they take a restart of the unit; without it set `source: loopback_per_player`";

/// The remedy where nothing leads a server's answers back.
const NO_ROUTE: &str = "`source: player` needs the rule and the route that `ip rule list pref 716` and `ip route show table 7162` show (`ip -6` for servers \
     on ::1), and a firewall that accepts what comes in over `lo`: the unit that `otproxy init` writes sets both when it starts, so \
     restart it; docs/configuration.md has the commands";

impl From<Option<IpAddr>> for Source {
    fn from(own: Option<IpAddr>) -> Self {
        own.map_or(Self::Kernel, Self::Own)
    }
}

impl Source {
    /// Returns a player's own. A server of the other family sees the address that stands for it there.
    #[must_use]
    pub fn player(player: IpAddr, pseudo: &PseudoIpv4) -> Self {
        Self::Player(PlayerSource { player, ipv4: ipv4_of(player, pseudo), ipv6: ipv6_of(player) })
    }

    /// Returns whether connects to `target` can start from it.
    pub(super) fn fits(self, target: SocketAddr) -> bool {
        match self {
            Self::Kernel => true,
            Self::Own(own) => own.is_ipv4() == target.is_ipv4(),
            Self::Player(_) => target.ip().is_loopback(),
        }
    }

    /// Binds a socket that is to be connected to `target`.
    ///
    /// # Errors
    /// Fails if the kernel refuses it, or if it is no address that a player can have.
    pub(super) fn bind(self, socket: &TcpSocket, target: SocketAddr) -> io::Result<()> {
        match self {
            Self::Kernel => Ok(()),
            Self::Own(own) => socket.bind(SocketAddr::new(own, 0)),
            Self::Player(player) => player.bind(socket, target),
        }
    }
}

impl PlayerSource {
    fn bind(self, socket: &TcpSocket, target: SocketAddr) -> io::Result<()> {
        if !can_be_a_players(self.player) {
            return Err(SourceError::NoPlayer(self.player).into());
        }
        let ip = if target.is_ipv4() { IpAddr::V4(self.ipv4) } else { IpAddr::V6(self.ipv6) };
        let source = SocketAddr::new(ip, 0);
        // Without the option the kernel takes this host's own addresses, and no other.
        match socket.bind(source) {
            Ok(()) => return Err(SourceError::Own(ip).into()),
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
            Err(error) => return Err(error),
        }
        let options = SockRef::from(socket);
        let allowed =
            if ip.is_ipv4() { options.set_ip_transparent_v4(true) } else { options.set_ip_transparent_v6(true) };
        allowed.map_err(SourceError::NoPrivilege)?;
        socket.bind(source)
    }
}

/// Returns whether an address is one that a player's host can have.
fn can_be_a_players(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [first, ..] = v4.octets();
            !(first == 0 || v4.is_loopback() || v4.is_multicast() || v4.is_broadcast())
        }
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_loopback() || v6.is_multicast() || v6.is_unicast_link_local()),
    }
}

/// Connects to a listener of its own at `loopback` as a player would, and has that see the player's address.
///
/// # Errors
/// Returns the result of the connect: [`ConnectResult::NoPrivilege`], or [`ConnectResult::Timeout`] where no route leads answers
/// back.
pub async fn try_as_player(loopback: IpAddr) -> Result<(), ConnectResult> {
    let listener = TcpListener::bind(SocketAddr::new(loopback, 0)).await.map_err(|error| ConnectResult::of(&error))?;
    let target = listener.local_addr().map_err(|error| ConnectResult::of(&error))?;
    let (ipv4, ipv6) = TRIED_AS;
    let player = if loopback.is_ipv4() { IpAddr::V4(ipv4) } else { IpAddr::V6(ipv6) };
    let source = Source::Player(PlayerSource { player, ipv4, ipv6 });
    let connected = timeout(TRY_WITHIN, connect_to(target, source, |_| {})).await;
    let _stream = connected.map_err(|_| ConnectResult::Timeout)?.map_err(|error| ConnectResult::of(&error))?;
    match timeout(TRY_WITHIN, listener.accept()).await {
        Ok(Ok((_, peer))) if peer.ip() == player => Ok(()),
        Ok(_) => Err(ConnectResult::Error),
        Err(_) => Err(ConnectResult::Timeout),
    }
}

/// Returns the remedy for what [`try_as_player`] failed with.
#[must_use]
pub const fn remedy_as_player(result: ConnectResult) -> &'static str {
    match result {
        ConnectResult::NoPrivilege => NO_PRIVILEGE,
        ConnectResult::BadSource => BAD_SOURCE,
        // Without the IPv6 route the kernel knows at once.
        ConnectResult::Timeout | ConnectResult::Unreachable => NO_ROUTE,
        _ => "see the log for the line about a reason of this host",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PSEUDO: PseudoIpv4 = PseudoIpv4::new(*b"sixteen byte key");

    #[test]
    fn what_no_player_can_have_is_never_a_source() {
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "239.255.255.255",
            "255.255.255.255",
            "::",
            "::1",
            "ff02::1",
            "fe80::1",
            "::ffff:127.0.0.1",
        ] {
            assert!(!can_be_a_players(address.parse().unwrap()), "{address}");
        }
        for address in ["203.0.113.77", "10.1.2.3", "2001:db8::7", "::ffff:203.0.113.77"] {
            assert!(can_be_a_players(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn a_socket_is_bound_to_no_address_that_is_no_players() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        for (player, target) in [("127.0.0.1", "127.0.0.1:9"), ("::1", "[::1]:9"), ("127.0.0.1", "[::1]:9")] {
            let target: SocketAddr = target.parse().unwrap();
            let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
            let error = Source::player(player.parse().unwrap(), &PSEUDO).bind(&socket, target).unwrap_err();
            assert_eq!(ConnectResult::of(&error), ConnectResult::BadSource, "{player}: {error}");
            assert!(SourceError::of(&error).unwrap().remedy().contains("trusted_peers"));
        }
    }

    #[test]
    fn players_addresses_go_to_loopback_alone() {
        let source = Source::player("203.0.113.77".parse().unwrap(), &PSEUDO);
        assert!(source.fits("127.0.0.9:1".parse().unwrap()) && source.fits("[::1]:1".parse().unwrap()));
        assert!(!source.fits("198.51.100.1:1".parse().unwrap()));
    }
}

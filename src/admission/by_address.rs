//! Tables by player address that all workers share.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};
use parking_lot::MutexGuard;

use crate::sharded::Sharded;

/// The part of an address by which players are told apart: an IPv4 address, or an IPv6 /64, as a line usually gets a
/// whole one. A v4-mapped address counts as its IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostKey {
    /// An IPv4 address, as a number.
    V4(u32),
    /// The upper 64 bits of an IPv6 address.
    V6(u64),
}

impl From<IpAddr> for HostKey {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.to_bits()),
            IpAddr::V6(v6) => Self::V6((v6.to_bits() >> 64) as u64),
        }
    }
}

impl HostKey {
    /// Returns the address, or the /64, as a network.
    pub fn network(self) -> IpNet {
        match self {
            Self::V4(address) => IpAddr::from(Ipv4Addr::from_bits(address)).into(),
            Self::V6(upper) => Ipv6Net::new_assert(Ipv6Addr::from_bits(u128::from(upper) << 64), 64).into(),
        }
    }
}

/// The one on whose word an address rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reporter {
    /// Nobody: it is the peer of an own socket.
    Socket,
    /// An edge with a certificate, by the number of its [`AuthenticatedEdge`](super::AuthenticatedEdge).
    Edge(u32),
    /// A trusted peer, which has said it in a PROXY header.
    Peer(HostKey),
}

/// The key by which everything that a player does is counted: the address, and the one on whose word it rests. So an
/// edge that claims a player's address uses up only what that address may through this edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddressKey {
    /// The one on whose word it rests.
    pub reporter: Reporter,
    /// The address.
    pub host: HostKey,
}

impl From<IpAddr> for AddressKey {
    /// Returns the key of the peer of an own socket.
    fn from(address: IpAddr) -> Self {
        Self::reported(Reporter::Socket, address)
    }
}

impl AddressKey {
    /// The least and the greatest key, for ranges of keys.
    pub(super) const FIRST: Self = Self { reporter: Reporter::Socket, host: HostKey::V4(0) };
    /// See [`FIRST`](Self::FIRST).
    pub(super) const LAST: Self = Self { reporter: Reporter::Peer(HostKey::V6(u64::MAX)), host: HostKey::V6(u64::MAX) };

    /// Returns the key of an address that rests on the word of `reporter`.
    pub fn reported(reporter: Reporter, address: IpAddr) -> Self {
        Self { reporter, host: address.into() }
    }

    /// Returns the address, or the /64, as a network.
    pub fn network(self) -> IpNet {
        self.host.network()
    }

    /// Returns one key for all addresses that rest on the word of the same edge or peer; of an own socket, the address.
    pub fn of_reporter(self) -> Self {
        match self.reporter {
            Reporter::Socket => self,
            reporter => Self { reporter, host: HostKey::V4(0) },
        }
    }

    /// Returns the key of an IPv4 address on an own socket.
    #[cfg(test)]
    pub(crate) const fn v4(address: u32) -> Self {
        Self { reporter: Reporter::Socket, host: HostKey::V4(address) }
    }

    /// Returns the key of an IPv6 /64 on an own socket.
    #[cfg(test)]
    pub(crate) const fn v6(upper: u64) -> Self {
        Self { reporter: Reporter::Socket, host: HostKey::V6(upper) }
    }
}

/// A table `T` for each part of all addresses.
#[derive(Debug, Default)]
pub(super) struct ByAddress<T> {
    shards: Sharded<T>,
    /// Keyed at random, so that no peer can aim at one shard.
    hasher: RandomState,
}

impl<T> ByAddress<T> {
    /// Locks the shard that has `address`.
    pub(super) fn shard(&self, address: AddressKey) -> MutexGuard<'_, T> {
        self.shards.lock(self.hasher.hash_one(address))
    }

    /// Returns the sum of a value over all shards.
    #[cfg(test)]
    pub(super) fn sum(&self, count: impl Fn(&T) -> usize) -> usize {
        self.shards.iter().map(|shard| count(&shard)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: &str) -> AddressKey {
        address.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn addresses_of_one_player_are_one_key() {
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_eq!(key("2001:db8:1:2::3"), key("2001:db8:1:2:ffff::"));
        assert_ne!(key("2001:db8:1:2::3"), key("2001:db8:1:3::3"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_ne!(key("0.0.0.0"), key("::"));
    }

    #[test]
    fn an_address_that_two_report_is_two_keys() {
        let address = "192.0.2.1".parse().unwrap();
        let peer = |peer: &str| Reporter::Peer(peer.parse::<IpAddr>().unwrap().into());
        let reporters =
            [Reporter::Socket, Reporter::Edge(1), Reporter::Edge(2), peer("198.51.100.7"), peer("2001:db8::1")];
        let keys: std::collections::BTreeSet<_> =
            reporters.map(|reporter| AddressKey::reported(reporter, address)).into();
        assert_eq!(keys.len(), reporters.len());
        assert!(keys.iter().all(|key| key.network() == address.into()));
        assert!(keys.iter().all(|key| (AddressKey::FIRST..=AddressKey::LAST).contains(key)));
    }

    #[test]
    fn a_key_is_a_network() {
        for (address, network) in [("192.0.2.1", "192.0.2.1/32"), ("2001:db8:1:2::3", "2001:db8:1:2::/64")] {
            assert_eq!(key(address).network().to_string(), network);
        }
    }
}

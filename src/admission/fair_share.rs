//! Numbers of connections, sessions or waiting connects by address and by network, and the choice of the one to evict.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

use super::{AddressKey, HostKey};

/// Connections by address and by network, ranked by how many there are. Each change and each question takes logarithmic
/// time, and an address without connections takes no memory.
#[derive(Debug, Default)]
pub struct FairShare {
    /// The connections of each address, the newest last.
    connections: BTreeSet<(AddressKey, u64)>,
    by_address: HashMap<AddressKey, usize>,
    by_network: HashMap<Network, usize>,
    /// The networks, that with the most connections last.
    networks: BTreeSet<(usize, Network)>,
    /// The addresses of each network, that with the most connections last.
    addresses: BTreeSet<(Network, usize, AddressKey)>,
}

/// The network that one operator most often gets: an IPv4 /24, or an IPv6 /48. As addresses, networks that rest on the
/// words of two edges are two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network(AddressKey);

impl From<AddressKey> for Network {
    fn from(address: AddressKey) -> Self {
        let host = match address.host {
            HostKey::V4(v4) => HostKey::V4(v4 & !0xFF),
            HostKey::V6(v6) => HostKey::V6(v6 & !0xFFFF),
        };
        Self(AddressKey { host, ..address })
    }
}

impl FairShare {
    /// Counts a connection. The higher its number, the newer it is.
    pub fn add(&mut self, address: AddressKey, connection: u64) {
        if self.connections.insert((address, connection)) {
            self.recount(address, |count| count + 1);
        }
    }

    /// Counts it off.
    pub fn remove(&mut self, address: AddressKey, connection: u64) {
        if self.connections.remove(&(address, connection)) {
            self.recount(address, |count| count - 1);
        }
    }

    /// Returns the number of connections of an address.
    pub fn of(&self, address: AddressKey) -> usize {
        self.by_address.get(&address).copied().unwrap_or(0)
    }

    /// Returns the connection that is evicted for one of `newcomer`, which counts already: the newest of the address
    /// with the most connections, in the network with the most. `None` if that is the newcomer's own address. Among
    /// equals it is always the newcomer's.
    pub fn evicted_by(&self, newcomer: AddressKey) -> Option<u64> {
        let own = Network::from(newcomer);
        let (most, largest) = *self.networks.last()?;
        let network = if self.of_network(own) == most { own } else { largest };
        let (_, most, address) = *self.addresses_of(network).next_back()?;
        if network == own && self.of(newcomer) == most { None } else { self.newest(address) }
    }

    /// Returns the number of connections of a network.
    pub fn of_network(&self, network: Network) -> usize {
        self.by_network.get(&network).copied().unwrap_or(0)
    }

    /// Returns the oldest connection of an address.
    pub fn oldest(&self, address: AddressKey) -> Option<u64> {
        self.connections.range((address, 0)..=(address, u64::MAX)).next().map(|(_, connection)| *connection)
    }

    fn addresses_of(&self, network: Network) -> impl DoubleEndedIterator<Item = &(Network, usize, AddressKey)> {
        self.addresses.range((network, 0, AddressKey::FIRST)..=(network, usize::MAX, AddressKey::LAST))
    }

    fn newest(&self, address: AddressKey) -> Option<u64> {
        let connections = self.connections.range((address, 0)..=(address, u64::MAX));
        connections.last().map(|(_, connection)| *connection)
    }

    fn recount(&mut self, address: AddressKey, change: impl Fn(usize) -> usize) {
        let network = Network::from(address);
        let (before, now) = recount(&mut self.by_address, address, &change);
        self.addresses.remove(&(network, before, address));
        if now > 0 {
            self.addresses.insert((network, now, address));
        }
        let (before, now) = recount(&mut self.by_network, network, change);
        self.networks.remove(&(before, network));
        if now > 0 {
            self.networks.insert((now, network));
        }
    }
}

/// Changes a count, and removes its entry if it becomes zero; returns it before and after.
fn recount<K: std::hash::Hash + Eq>(
    counts: &mut HashMap<K, usize>,
    key: K,
    change: impl Fn(usize) -> usize,
) -> (usize, usize) {
    match counts.entry(key) {
        Entry::Vacant(entry) => (0, *entry.insert(change(0))),
        Entry::Occupied(mut entry) => {
            let before = *entry.get();
            let now = change(before);
            if now == 0 {
                entry.remove();
            } else {
                entry.insert(now);
            }
            (before, now)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(address: &str) -> AddressKey {
        address.parse::<std::net::IpAddr>().unwrap().into()
    }

    /// Makes connections 1, 2, .. of these addresses.
    fn shares(addresses: &[&str]) -> FairShare {
        let mut shares = FairShare::default();
        (1..).zip(addresses).for_each(|(connection, address)| shares.add(key(address), connection));
        shares
    }

    /// Returns the connection that is evicted for one more of `newcomer`.
    fn gives_way_to(addresses: &[&str], newcomer: &str) -> Option<u64> {
        shares(&[addresses, &[newcomer]].concat()).evicted_by(key(newcomer))
    }

    #[test]
    fn the_newest_of_the_address_with_the_most_in_the_network_with_the_most_gives_way() {
        let crowd = ["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.1.1", "10.0.1.1"];
        assert_eq!(gives_way_to(&crowd, "192.0.2.1"), Some(2));
        // Many addresses of one network are one crowd, however few connections each has.
        assert_eq!(gives_way_to(&["10.0.1.1", "10.0.1.1", "10.0.0.1", "10.0.0.2", "10.0.0.3"], "192.0.2.1"), Some(5));
        // In its own network as well.
        assert_eq!(gives_way_to(&["10.0.0.1", "10.0.0.1"], "10.0.0.2"), Some(2));
    }

    #[test]
    fn who_has_as_many_as_anybody_gives_way_himself() {
        assert_eq!(gives_way_to(&["10.0.0.1", "10.0.1.1"], "192.0.2.1"), None);
        assert_eq!(gives_way_to(&["10.0.0.1", "10.0.0.1"], "10.0.0.1"), None);
        assert_eq!(gives_way_to(&["10.0.0.1", "10.0.0.1", "192.0.2.1"], "192.0.2.1"), None, "two and two");
        assert_eq!(gives_way_to(&[], "192.0.2.1"), None);
    }

    #[test]
    fn an_ipv6_network_is_a_48_and_an_address_a_64() {
        let crowd = ["2001:db8:1:1::1", "2001:db8:1:1::2", "2001:db8:1:2::1", "2001:db8:2::1", "2001:db8:2::2"];
        assert_eq!(gives_way_to(&crowd, "2001:db8:3::1"), Some(2));
        assert_eq!(shares(&crowd).of(key("2001:db8:1:1::9")), 2);
    }

    /// The same, counted anew each time.
    #[derive(Debug, Default)]
    struct Naive(Vec<(AddressKey, u64)>);

    impl Naive {
        fn of(&self, of: impl Fn(AddressKey) -> bool) -> usize {
            self.0.iter().filter(|(address, _)| of(*address)).count()
        }

        fn network(&self, network: Network) -> usize {
            self.of(|address| Network::from(address) == network)
        }

        fn address(&self, address: AddressKey) -> usize {
            self.of(|other| other == address)
        }

        /// Returns whether `connection` may be evicted: no other one has more, and it is its address's newest.
        fn may_give_way(&self, connection: u64) -> bool {
            let address = self.0.iter().find(|(_, other)| *other == connection).expect("one that is there").0;
            let network = Network::from(address);
            let all = || self.0.iter().map(|(address, _)| *address);
            all().all(|other| self.network(other.into()) <= self.network(network))
                && all()
                    .filter(|other| Network::from(*other) == network)
                    .all(|o| self.address(o) <= self.address(address))
                && self.0.iter().all(|(other, newer)| *other != address || *newer <= connection)
        }
    }

    proptest! {
        #[test]
        fn as_if_all_were_counted_anew(
            steps in prop::collection::vec((any::<bool>(), 0u32..3, 0u32..3, any::<bool>()), 1..120),
        ) {
            let (mut shares, mut naive, mut number) = (FairShare::default(), Naive::default(), 0u64);
            for (come, network, host, v6) in steps {
                let address = if v6 {
                    AddressKey::v6(u64::from(network) << 16 | u64::from(host))
                } else {
                    AddressKey::v4(network << 8 | host)
                };
                if come || naive.0.is_empty() {
                    number += 1;
                    shares.add(address, number);
                    naive.0.push((address, number));
                    let own = (naive.network(address.into()), naive.address(address));
                    match shares.evicted_by(address) {
                        Some(connection) => {
                            let other = naive.0.iter().find(|(_, other)| *other == connection).unwrap().0;
                            prop_assert!(naive.may_give_way(connection));
                            prop_assert!((naive.network(other.into()), naive.address(other)) > own);
                            prop_assert!(other != address);
                        }
                        None => prop_assert!(naive.may_give_way(number), "another one has more"),
                    }
                } else {
                    let (address, gone) = naive.0.swap_remove((network * 3 + host) as usize % naive.0.len());
                    shares.remove(address, gone);
                    shares.remove(address, gone);
                }
                prop_assert_eq!(shares.of(address), naive.address(address));
            }
            for (address, connection) in naive.0 {
                shares.remove(address, connection);
            }
            let left = (shares.connections.len(), shares.by_address.len(), shares.by_network.len());
            prop_assert_eq!((left, shares.networks.len(), shares.addresses.len()), ((0, 0, 0), 0, 0));
        }
    }
}

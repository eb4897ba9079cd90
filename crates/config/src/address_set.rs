//! Sets of addresses that are looked up for each connection, however large they are.

use std::net::IpAddr;

use ipnet::IpNet;

/// A set of networks. A look-up is a binary search: seventeen steps among a hundred thousand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddressSet {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

impl AddressSet {
    /// Returns whether `address` is in one of the networks. A v4-mapped address counts as its IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(v4) => self.v4.contains(v4.to_bits()),
            IpAddr::V6(v6) => self.v6.contains(v6.to_bits()),
        }
    }

    /// Returns whether an address of `network` is in one of the networks.
    pub fn meets(&self, network: &IpNet) -> bool {
        match network {
            IpNet::V4(net) => self.v4.meets(net.network().to_bits(), net.broadcast().to_bits()),
            IpNet::V6(net) => self.v6.meets(net.network().to_bits(), net.broadcast().to_bits()),
        }
    }

    /// Returns whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.v4.first.is_empty() && self.v6.first.is_empty()
    }
}

impl FromIterator<IpNet> for AddressSet {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        Self { v4: Ranges::new(v4), v6: Ranges::new(v6) }
    }
}

/// Ranges in order, none of which overlaps another. First and last addresses are kept apart, so that a search reads
/// half as much memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Ranges<T> {
    first: Vec<T>,
    last: Vec<T>,
}

impl<T: Ord + Copy> Ranges<T> {
    fn new(mut ranges: Vec<(T, T)>) -> Self {
        ranges.sort_unstable();
        let mut merged = Self { first: Vec::new(), last: Vec::new() };
        for (first, last) in ranges {
            match merged.last.last_mut() {
                // Networks overlap only if one contains the other.
                Some(before) if first <= *before => *before = last.max(*before),
                _ => {
                    merged.first.push(first);
                    merged.last.push(last);
                }
            }
        }
        merged.first.shrink_to_fit();
        merged.last.shrink_to_fit();
        merged
    }

    fn contains(&self, address: T) -> bool {
        self.meets(address, address)
    }

    /// Returns whether one of them overlaps the range from `first` to `last`.
    fn meets(&self, first: T, last: T) -> bool {
        let behind = self.first.partition_point(|other| *other <= last);
        behind.checked_sub(1).and_then(|index| self.last.get(index)).is_some_and(|other| first <= *other)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use ipnet::{Ipv4Net, Ipv6Net};
    use proptest::prelude::*;

    use super::*;

    fn set(networks: &[&str]) -> AddressSet {
        networks.iter().map(|network| network.parse::<IpNet>().unwrap()).collect()
    }

    fn has(set: &AddressSet, address: &str) -> bool {
        set.contains(address.parse().unwrap())
    }

    #[test]
    fn the_ends_of_networks() {
        let some = set(&["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32", "10.1.0.0/16", "192.0.2.8/31", "192.0.2.7/32"]);
        for inside in ["10.0.0.0", "10.255.255.255", "192.0.2.7", "192.0.2.9", "::ffff:10.2.3.4", "2001:db8:ffff::"] {
            assert!(has(&some, inside), "{inside}");
        }
        for outside in
            ["9.255.255.255", "11.0.0.0", "192.0.2.6", "192.0.2.10", "2001:db7::", "2001:db9::", "::10.0.0.1"]
        {
            assert!(!has(&some, outside), "{outside}");
        }
        assert_eq!(some.v4.first.len(), 3, "what lies in another network, or is there twice, takes no place");
        assert!(!some.is_empty());
    }

    #[test]
    fn nothing_and_everything() {
        let nothing = AddressSet::default();
        assert!(nothing.is_empty() && !has(&nothing, "0.0.0.0") && !has(&nothing, "::"));
        let all = set(&["0.0.0.0/0", "::/0", "127.0.0.1/32"]);
        for address in ["0.0.0.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] {
            assert!(has(&all, address), "{address}");
        }
        assert!(!has(&set(&["0.0.0.0/0"]), "::1"));
    }

    fn network() -> impl Strategy<Value = IpNet> {
        // So few addresses that networks overlap and touch.
        let v4 = (0u32..64, 24u8..=32, any::<bool>()).prop_map(|(low, prefix, end)| {
            let bits = if end { u32::MAX - low } else { low << 2 };
            Ipv4Net::new(Ipv4Addr::from_bits(bits), prefix).unwrap().trunc().into()
        });
        let v6 = (0u128..64, 120u8..=128, any::<bool>()).prop_map(|(low, prefix, end)| {
            let bits = if end { u128::MAX - low } else { 1 << 120 | low };
            Ipv6Net::new(Ipv6Addr::from_bits(bits), prefix).unwrap().trunc().into()
        });
        prop_oneof![v4, v6]
    }

    proptest! {
        #[test]
        fn as_each_network_says(
            networks in prop::collection::vec(network(), 0..20),
            others in prop::collection::vec(network(), 20),
        ) {
            let set: AddressSet = networks.iter().copied().collect();
            let low = (0u32..300).chain(u32::MAX - 300..=u32::MAX).map(|bits| Ipv4Addr::from_bits(bits).into());
            let high = (0u128..100).map(|low| 1 << 120 | low).chain(u128::MAX - 100..=u128::MAX);
            for address in low.chain(high.map(|bits| Ipv6Addr::from_bits(bits).into())) {
                let expected = networks.iter().any(|network| network.contains(&address));
                prop_assert_eq!(set.contains(address), expected, "{}", address);
            }
            for network in &others {
                let expected = networks.iter().any(|own| own.contains(network) || network.contains(own));
                prop_assert_eq!(set.meets(network), expected, "{}", network);
            }
        }
    }
}

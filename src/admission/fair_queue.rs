//! A queue in which networks take turns, and in each network its addresses.

use std::collections::{BTreeSet, HashMap};

use super::AddressKey;
use super::fair_share::{FairShare, Network};

/// Entries that wait for their turn. The network that has had no turn for the longest is next, in it the address of
/// which that holds, and of that the entry that came first. Each change and each question takes logarithmic time, and an
/// address without entries takes no memory.
#[derive(Debug, Default)]
pub(super) struct FairQueue {
    /// The entries of each address.
    shares: FairShare,
    /// The last stamp. Each turn and each new network or address gets the next one.
    stamp: u64,
    network_stamps: HashMap<Network, u64>,
    address_stamps: HashMap<AddressKey, u64>,
    /// The networks, by their last turn, or else by their coming.
    networks: BTreeSet<(u64, Network)>,
    /// The addresses of each network, likewise.
    addresses: BTreeSet<(Network, u64, AddressKey)>,
}

impl FairQueue {
    /// Adds an entry. The higher its number, the newer it is.
    pub fn add(&mut self, address: AddressKey, entry: u64) {
        self.shares.add(address, entry);
        let network = Network::from(address);
        if !self.address_stamps.contains_key(&address) {
            self.stamp_address(address);
        }
        if !self.network_stamps.contains_key(&network) {
            self.stamp_network(network);
        }
    }

    /// Removes an entry that has had its turn, which counts for its address and its network.
    pub fn serve(&mut self, address: AddressKey, entry: u64) {
        self.remove(address, entry);
        if self.address_stamps.contains_key(&address) {
            self.stamp_address(address);
        }
        if self.network_stamps.contains_key(&address.into()) {
            self.stamp_network(address.into());
        }
    }

    /// Removes an entry that waits no more.
    pub fn remove(&mut self, address: AddressKey, entry: u64) {
        self.shares.remove(address, entry);
        let network = Network::from(address);
        if self.shares.of(address) == 0
            && let Some(stamp) = self.address_stamps.remove(&address)
        {
            self.addresses.remove(&(network, stamp, address));
        }
        if self.shares.of_network(network) == 0
            && let Some(stamp) = self.network_stamps.remove(&network)
        {
            self.networks.remove(&(stamp, network));
        }
    }

    /// Returns the entry whose turn is next. An entry that is added does not change it.
    pub fn next(&self) -> Option<u64> {
        let (_, network) = *self.networks.first()?;
        let addresses = (network, 0, AddressKey::FIRST)..=(network, u64::MAX, AddressKey::LAST);
        let (.., address) = *self.addresses.range(addresses).next()?;
        self.shares.oldest(address)
    }

    /// Returns the entry that gives way to one of `newcomer`, which was added already. See [`FairShare::evicted_by`].
    pub fn evicted_by(&self, newcomer: AddressKey) -> Option<u64> {
        self.shares.evicted_by(newcomer)
    }

    fn stamp_address(&mut self, address: AddressKey) {
        let network = Network::from(address);
        self.stamp += 1;
        if let Some(before) = self.address_stamps.insert(address, self.stamp) {
            self.addresses.remove(&(network, before, address));
        }
        self.addresses.insert((network, self.stamp, address));
    }

    fn stamp_network(&mut self, network: Network) {
        self.stamp += 1;
        if let Some(before) = self.network_stamps.insert(network, self.stamp) {
            self.networks.remove(&(before, network));
        }
        self.networks.insert((self.stamp, network));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: &str) -> AddressKey {
        address.parse::<std::net::IpAddr>().unwrap().into()
    }

    /// Returns the order in which entries of these addresses get their turns.
    fn order(addresses: &[&str]) -> Vec<usize> {
        let mut queue = FairQueue::default();
        (0..).zip(addresses).for_each(|(entry, address)| queue.add(key(address), entry));
        let mut order = Vec::new();
        while let Some(entry) = queue.next() {
            queue.serve(key(addresses[entry as usize]), entry);
            order.push(entry as usize);
        }
        let left =
            (queue.network_stamps.len(), queue.address_stamps.len(), queue.networks.len(), queue.addresses.len());
        assert_eq!((left, queue.shares.of(key(addresses[0]))), ((0, 0, 0, 0), 0), "nothing is left behind");
        order
    }

    #[test]
    fn networks_take_turns_and_then_addresses() {
        // Of one address, who came first.
        assert_eq!(order(&["10.0.0.1", "10.0.0.1", "10.0.0.1"]), [0, 1, 2]);
        // A newcomer from elsewhere waits for one turn of each other network.
        assert_eq!(order(&["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.1.1", "10.0.0.3"]), [0, 3, 2, 4, 1]);
        // An IPv6 /48 is one network, however many /64 it has.
        assert_eq!(order(&["2001:db8::", "2001:db8:0:1::", "2001:db8:0:2::", "2001:db8:1::"]), [0, 3, 1, 2]);
    }

    #[test]
    fn a_turn_that_is_not_taken_costs_nobody_one() {
        let mut queue = FairQueue::default();
        let (crowd, other) = (key("10.0.0.1"), key("192.0.2.1"));
        (1..=3).for_each(|entry| queue.add(crowd, entry));
        queue.add(other, 4);
        assert_eq!(queue.next(), Some(1));
        queue.remove(crowd, 1);
        assert_eq!(queue.next(), Some(2), "it is still the turn of its network");
        queue.serve(crowd, 2);
        assert_eq!(queue.next(), Some(4));
        queue.remove(other, 4);
        assert_eq!(queue.next(), Some(3));
        queue.remove(crowd, 3);
        queue.remove(crowd, 3);
        assert_eq!(queue.next(), None);
    }
}

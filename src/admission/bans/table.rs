//! The table of banned networks and their ends.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;

use super::BanReason;

/// Networks that are banned at once at most, in about 10 MiB. A table of a power of two of slots is full at that
/// number, and grows once more by insertions and removals.
pub const BANS: usize = 65536 / 8 * 7;

/// A ban.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ban {
    /// The network that is refused. It has no bits behind the prefix; IPv4 is never written as IPv6.
    pub network: IpNet,
    /// The time of its end.
    pub until: Instant,
    /// Its reason.
    pub reason: BanReason,
}

/// A table of bans, each by itself: an address is banned if it is in any of the networks.
#[derive(Debug, Default)]
pub(super) struct BanTable {
    bans: HashMap<IpNet, (Instant, BanReason)>,
    /// The same by end, to remove the next one.
    ends: BTreeSet<(Instant, IpNet)>,
    /// The number of networks of each prefix length: a look-up tries each length that is present.
    v4: BTreeMap<u8, usize>,
    v6: BTreeMap<u8, usize>,
}

impl BanTable {
    /// Returns the number of networks.
    pub(super) fn len(&self) -> usize {
        self.bans.len()
    }

    /// Returns the number of networks that fit before it grows.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.bans.capacity()
    }

    /// Returns whether `address` is banned.
    pub(super) fn has(&self, address: IpAddr, now: Instant) -> bool {
        let address = address.to_canonical();
        let lengths = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        lengths.keys().any(|length| {
            let network = IpNet::new(address, *length).ok().and_then(|network| self.bans.get(&network.trunc()));
            network.is_some_and(|(until, _)| *until > now)
        })
    }

    /// Inserts a ban, in place of another of the same network. Without room, the ban that ends first is dropped;
    /// returns false if that is this one.
    pub(super) fn put(&mut self, ban: Ban) -> bool {
        self.take(&ban.network);
        if self.bans.len() >= BANS {
            match self.ends.first().copied() {
                Some((until, network)) if until < ban.until => self.take(&network),
                _ => return false,
            };
        }
        self.bans.insert(ban.network, (ban.until, ban.reason));
        self.ends.insert((ban.until, ban.network));
        *self.lengths(&ban.network).entry(ban.network.prefix_len()).or_insert(0) += 1;
        true
    }

    /// Removes and returns the bans that `which` picks.
    pub(super) fn lift(&mut self, which: impl Fn(&Ban) -> bool) -> Vec<Ban> {
        let lifted: Vec<Ban> = self.all().filter(which).collect();
        lifted.iter().for_each(|ban| self.take(&ban.network));
        lifted
    }

    /// Returns the earliest end.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.ends.first().map(|(until, _)| *until)
    }

    /// Removes bans that have ended.
    pub(super) fn end(&mut self, now: Instant) {
        while let Some((until, network)) = self.ends.first().copied()
            && until <= now
        {
            self.take(&network);
        }
    }

    /// Returns bans that have not ended, by network.
    pub(super) fn list(&self, now: Instant) -> Vec<Ban> {
        let mut list: Vec<Ban> = self.all().filter(|ban| ban.until > now).collect();
        list.sort_unstable_by_key(|ban| ban.network);
        list
    }

    fn all(&self) -> impl Iterator<Item = Ban> {
        self.bans.iter().map(|(network, (until, reason))| Ban { network: *network, until: *until, reason: *reason })
    }

    fn take(&mut self, network: &IpNet) {
        let Some((until, _)) = self.bans.remove(network) else { return };
        self.ends.remove(&(until, *network));
        let lengths = self.lengths(network);
        if let Some(count) = lengths.get_mut(&network.prefix_len()) {
            *count -= 1;
            if *count == 0 {
                lengths.remove(&network.prefix_len());
            }
        }
    }

    fn lengths(&mut self, network: &IpNet) -> &mut BTreeMap<u8, usize> {
        if network.addr().is_ipv4() { &mut self.v4 } else { &mut self.v6 }
    }
}

//! The table of banned networks and their ends.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;

use super::BanReason;
use crate::admission::Reporter;

/// Networks that are banned at once at most, in about 10 MiB. A table of a power of two of slots is full at that
/// number, and grows once more by insertions and removals.
pub const BANS: usize = 65536 / 8 * 7;

/// A ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// The one through whom alone the network is refused, as what it did rests on that one's word: an edge or a trusted
    /// peer. [`Reporter::Socket`] if it is refused everywhere.
    pub reporter: Reporter,
    /// The name of that edge, or the address of that peer.
    pub edge: Option<Arc<str>>,
    /// The network that is refused. It has no bits behind the prefix; IPv4 is never written as IPv6.
    pub network: IpNet,
    /// The time of its end.
    pub until: Instant,
    /// Its reason.
    pub reason: BanReason,
}

/// The key of a ban.
type Key = (Reporter, IpNet);

/// The rest of a ban.
#[derive(Debug)]
struct Terms {
    until: Instant,
    reason: BanReason,
    edge: Option<Arc<str>>,
}

/// A table of bans, each by itself: an address is banned if it is in any of the networks.
#[derive(Debug, Default)]
pub(super) struct BanTable {
    bans: HashMap<Key, Terms>,
    /// The same by end, to remove the next one.
    ends: BTreeSet<(Instant, Key)>,
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

    /// Returns whether `address` is banned where it rests on the word of `reporter`: everywhere, or there alone.
    pub(super) fn has(&self, reporter: Reporter, address: IpAddr, now: Instant) -> bool {
        let address = address.to_canonical();
        let lengths = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        lengths.keys().any(|length| {
            let Ok(network) = IpNet::new(address, *length) else { return false };
            let banned = |reporter| self.bans.get(&(reporter, network.trunc())).is_some_and(|ban| ban.until > now);
            banned(Reporter::Socket) || (reporter != Reporter::Socket && banned(reporter))
        })
    }

    /// Inserts a ban, in place of another of the same network. Without room, the ban that ends first is dropped;
    /// returns false if that is this one.
    pub(super) fn put(&mut self, ban: Ban) -> bool {
        let Ban { reporter, edge, network, until, reason } = ban;
        let key = (reporter, network);
        self.take(&key);
        if self.bans.len() >= BANS {
            match self.ends.first().copied() {
                Some((first, other)) if first < until => self.take(&other),
                _ => return false,
            };
        }
        self.bans.insert(key, Terms { until, reason, edge });
        self.ends.insert((until, key));
        *self.lengths(&network).entry(network.prefix_len()).or_insert(0) += 1;
        true
    }

    /// Removes and returns the bans that `which` picks.
    pub(super) fn lift(&mut self, which: impl Fn(&Ban) -> bool) -> Vec<Ban> {
        let lifted: Vec<Ban> = self.all().filter(which).collect();
        lifted.iter().for_each(|ban| self.take(&(ban.reporter, ban.network)));
        lifted
    }

    /// Returns the earliest end.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.ends.first().map(|(until, _)| *until)
    }

    /// Removes bans that have ended.
    pub(super) fn end(&mut self, now: Instant) {
        while let Some((until, key)) = self.ends.first().copied()
            && until <= now
        {
            self.take(&key);
        }
    }

    /// Returns bans that have not ended, by network.
    pub(super) fn list(&self, now: Instant) -> Vec<Ban> {
        let mut list: Vec<Ban> = self.all().filter(|ban| ban.until > now).collect();
        list.sort_unstable_by_key(|ban| (ban.network, ban.reporter));
        list
    }

    fn all(&self) -> impl Iterator<Item = Ban> {
        self.bans.iter().map(|((reporter, network), terms)| Ban {
            reporter: *reporter,
            edge: terms.edge.clone(),
            network: *network,
            until: terms.until,
            reason: terms.reason,
        })
    }

    fn take(&mut self, key: &Key) {
        let Some(Terms { until, .. }) = self.bans.remove(key) else { return };
        self.ends.remove(&(until, *key));
        let (_, network) = key;
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

//! Banned networks with their ends.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;

use super::BanReason;

/// Networks that are banned at once at the most, in about 10 MiB. A table of a power of two of slots is full there, and
/// grows once more by what comes and goes.
pub const BANS: usize = 65536 / 8 * 7;

/// A ban.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ban {
    /// Who is refused. Without bits behind the prefix; IPv4 is never written as IPv6.
    pub network: IpNet,
    /// Until when.
    pub until: Instant,
    /// What for.
    pub reason: BanReason,
}

/// Bans, each by itself: where networks lie in one another, who is in one of them is banned.
#[derive(Debug, Default)]
pub(super) struct Table {
    bans: HashMap<IpNet, (Instant, BanReason)>,
    /// The same by their ends: who is next to be forgotten.
    ends: BTreeSet<(Instant, IpNet)>,
    /// How many there are of each prefix length: a look-up asks for each that there is.
    v4: BTreeMap<u8, usize>,
    v6: BTreeMap<u8, usize>,
}

impl Table {
    /// Networks in it.
    pub(super) fn len(&self) -> usize {
        self.bans.len()
    }

    /// Networks that it takes before it grows.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.bans.capacity()
    }

    /// Whether `address` is banned.
    pub(super) fn has(&self, address: IpAddr, now: Instant) -> bool {
        let address = address.to_canonical();
        let lengths = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        lengths.keys().any(|length| {
            let network = IpNet::new(address, *length).ok().and_then(|network| self.bans.get(&network.trunc()));
            network.is_some_and(|(until, _)| *until > now)
        })
    }

    /// Puts a ban in, in place of another of the same network. Where there is no room, the one that ends first gives way;
    /// gives whether that is another one.
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

    /// Takes out, and gives, those of which `which` is true.
    pub(super) fn lift(&mut self, which: impl Fn(&Ban) -> bool) -> Vec<Ban> {
        let lifted: Vec<Ban> = self.all().filter(which).collect();
        lifted.iter().for_each(|ban| self.take(&ban.network));
        lifted
    }

    /// When the first of them ends.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.ends.first().map(|(until, _)| *until)
    }

    /// Takes out what has ended.
    pub(super) fn end(&mut self, now: Instant) {
        while let Some((until, network)) = self.ends.first().copied()
            && until <= now
        {
            self.take(&network);
        }
    }

    /// What has not ended, by network.
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

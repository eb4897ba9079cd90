//! Bans: addresses that are refused for a while, because they broke the rules too often or by the operator's word.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use parking_lot::{RwLock, RwLockReadGuard};
use tracing::{info, warn};

use otproxy_net::RateLimitedLog;
use otproxy_protocol::quota::Quota;
use otproxy_protocol::words;

use super::{AddressKey, REFUSED_LINES, RateLimit, Reporter};
use crate::connection::AdmissionError;
use otproxy_config as config;
use otproxy_config::AddressSet;

mod keep;
mod metrics;
mod nftables;
mod table;

use table::BanTable;

pub use keep::keep;
pub use metrics::BanMetrics;
pub use nftables::{KernelBans, NFT_UNIT_LINES, nft_remedy};
pub use table::{BANS, Ban};

words! {
    /// The reason of a ban.
    pub enum BanReason {
        /// The operator made it.
        Operator = "operator",
        /// The address broke the rules more often than `bans.after` allows.
        Rules = "rules",
    }
}

/// The longest ban of an operator: a longer one belongs into `deny`.
pub const LONGEST_BAN: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The rules by which addresses are banned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BanPolicy {
    /// The rate of violations that one address may reach; `None` for any.
    pub after: Option<Quota>,
    /// The duration of such a ban.
    pub lasting: Duration,
    /// Addresses that no ban refuses, whatever network was banned.
    pub exempt: AddressSet,
}

#[cfg(test)]
impl BanPolicy {
    /// Makes bans that only the operator adds to.
    pub(crate) fn off() -> Self {
        Self { after: None, lasting: Duration::from_secs(600), exempt: AddressSet::default() }
    }
}

impl From<&config::BansConfig> for BanPolicy {
    fn from(bans: &config::BansConfig) -> Self {
        Self { after: bans.after, lasting: bans.lasting, exempt: bans.exempt.iter().copied().collect() }
    }
}

/// The bans of a process, over all workers. They are not saved, and end with the process.
#[derive(Debug)]
pub struct Bans {
    rules: RwLock<Rules>,
    table: RwLock<BanTable>,
    /// Networks in the table. While there are none, a look-up only reads this.
    banned: AtomicUsize,
    /// A number that changes with each change of the bans.
    version: AtomicU64,
    metrics: BanMetrics,
    log: RateLimitedLog,
}

#[derive(Debug)]
struct Rules {
    rules: BanPolicy,
    /// The violations of each address.
    breaks: Option<RateLimit>,
}

impl Rules {
    fn new(rules: BanPolicy) -> Self {
        Self { breaks: rules.after.map(RateLimit::new), rules }
    }
}

impl Bans {
    /// Makes an empty table.
    pub fn new(rules: BanPolicy, metrics: BanMetrics) -> Arc<Self> {
        Arc::new(Self {
            rules: RwLock::new(Rules::new(rules)),
            table: RwLock::default(),
            banned: AtomicUsize::new(0),
            version: AtomicU64::new(0),
            metrics,
            log: RateLimitedLog::new(REFUSED_LINES),
        })
    }

    /// Changes the rules. Bans keep their ends, except those that the rules made of addresses that are exempt now. Past
    /// violations are forgotten if `after` changes.
    pub fn set(&self, new: BanPolicy) {
        let exempt = new.exempt.clone();
        {
            let mut rules = self.rules.write();
            if rules.rules.after == new.after {
                rules.rules = new;
            } else {
                *rules = Rules::new(new);
            }
        }
        self.change(|table| table.lift(|ban| ban.reason == BanReason::Rules && exempt.meets(&ban.network)));
    }

    /// Checks that `address` is not banned.
    ///
    /// # Errors
    /// [`AdmissionError::Banned`]
    pub fn check(&self, address: IpAddr, now: Instant) -> Result<(), AdmissionError> {
        self.check_reported(Reporter::Socket, address, now)
    }

    /// Checks that `address`, which rests on the word of `reporter`, is not banned.
    ///
    /// # Errors
    /// [`AdmissionError::Banned`]
    pub fn check_reported(&self, reporter: Reporter, address: IpAddr, now: Instant) -> Result<(), AdmissionError> {
        // A ban that is made at this moment may as well have come a moment later: Relaxed does.
        if self.banned.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        let banned = self.read().has(reporter, address, now);
        if banned && !self.is_exempt(address) { Err(AdmissionError::Banned) } else { Ok(()) }
    }

    /// Counts a violation by `address`; bans it if that was one too many.
    pub fn count_violation(&self, address: IpAddr, now: Instant) {
        self.count_reported((Reporter::Socket, None), address, now);
    }

    /// Counts a violation by `address`, which rests on the word of a reporter of this name. One too many bans it as far as
    /// it comes through that one: on nobody's word is anybody refused elsewhere.
    pub fn count_reported(&self, (reporter, edge): (Reporter, Option<Arc<str>>), address: IpAddr, now: Instant) {
        let key = AddressKey::reported(reporter, address);
        let lasting = {
            let rules = self.rules.read();
            let Some(breaks) = &rules.breaks else { return };
            if rules.rules.exempt.contains(address) || breaks.try_take(key, now) {
                return;
            }
            rules.rules.lasting
        };
        let network = key.network();
        let ban = Ban { reporter, edge: edge.clone(), network, until: now + lasting, reason: BanReason::Rules };
        // A banned address may break rules with connections that it had open: that makes no ban longer.
        if self.change(|table| !table.has(reporter, address, now) && table.put(ban)) {
            self.metrics.banned(BanReason::Rules);
            if let Some(suppressed) = self.log.allow(now) {
                let (edge, seconds) = (edge.as_deref(), lasting.as_secs_f64());
                warn!(%network, edge, seconds, suppressed, "banned: it broke the rules too often");
            }
        }
    }

    /// Bans `network` by the operator's word, which replaces an earlier ban of this network. It lasts [`LONGEST_BAN`]
    /// at most. Returns whether there was room for it: a table full of bans that end later has none.
    pub fn ban(&self, network: IpNet, lasting: Duration, now: Instant) -> bool {
        let lasting = lasting.min(LONGEST_BAN);
        let (network, until) = (canonical(network), now + lasting);
        let ban = Ban { reporter: Reporter::Socket, edge: None, network, until, reason: BanReason::Operator };
        let put = self.change(|table| table.put(ban));
        if put {
            self.metrics.banned(BanReason::Operator);
            info!(%network, seconds = lasting.as_secs_f64(), "banned by the operator");
        }
        put
    }

    /// Lifts the bans of `network` and of all networks within it, and forgets their violations. Returns the lifted
    /// bans.
    pub fn unban(&self, network: IpNet) -> Vec<Ban> {
        let network = canonical(network);
        let lifted = self.change(|table| table.lift(|ban| network.contains(&ban.network)));
        {
            let rules = self.rules.read();
            for ban in lifted.iter().filter(|ban| ban.reason == BanReason::Rules) {
                // Otherwise the next violation would ban it again.
                let key = AddressKey::reported(ban.reporter, ban.network.addr());
                rules.breaks.iter().for_each(|breaks| breaks.forget(key));
            }
        }
        if !lifted.is_empty() {
            info!(%network, bans = lifted.len(), "no longer banned");
        }
        lifted
    }

    /// Returns all present bans, by network.
    pub fn list(&self, now: Instant) -> Vec<Ban> {
        self.read().list(now)
    }

    /// Removes bans that have ended.
    pub fn remove_ended(&self, now: Instant) {
        let due = self.read().next_end().is_some_and(|end| end <= now);
        if due {
            self.change(|table| table.end(now));
        }
    }

    /// Returns a number that changes whenever the results of [`Bans::list`] or [`Bans::is_free_of_exempt`] change.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Returns whether no address of `network` is exempt.
    pub fn is_free_of_exempt(&self, network: &IpNet) -> bool {
        !self.rules.read().rules.exempt.meets(network)
    }

    fn is_exempt(&self, address: IpAddr) -> bool {
        self.rules.read().rules.exempt.contains(address)
    }

    fn read(&self) -> RwLockReadGuard<'_, BanTable> {
        self.table.read()
    }

    /// Changes the table, and updates the values that are read without its lock.
    fn change<T>(&self, change: impl FnOnce(&mut BanTable) -> T) -> T {
        // Each change is whole before anything that can panic.
        let mut table = self.table.write();
        let changed = change(&mut table);
        self.banned.store(table.len(), Ordering::Relaxed);
        self.metrics.active.set(i64::try_from(table.len()).unwrap_or(i64::MAX));
        self.version.fetch_add(1, Ordering::Release);
        changed
    }
}

/// Returns a network without bits behind the prefix, and as IPv4 if it is IPv4-mapped.
fn canonical(network: IpNet) -> IpNet {
    /// Bits before the IPv4 address in an IPv4-mapped one.
    const MAPPED: u8 = 96;
    let network = network.trunc();
    let v4 = network.addr().to_canonical();
    match network.prefix_len().checked_sub(MAPPED) {
        Some(prefix) if network.addr().is_ipv6() && v4.is_ipv4() => IpNet::new(v4, prefix).unwrap_or(network),
        _ => network,
    }
}

#[cfg(test)]
mod tests;

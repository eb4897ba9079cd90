//! Bans in the kernel: two sets of nftables, whose elements expire by themselves, and the program that fills them.
//!
//! The wanted sets are compared with the kernel's, rather than each ban passed on as it is made. So a failed call, a
//! flood of bans and a reloaded firewall are all repaired in the same way, and nothing is queued.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::process::Stdio;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use prometheus::IntCounter;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;
use tracing::{info, warn};

use super::{Ban, Bans};
use crate::admission::Reporter;
use otproxy_config::NftTable;
use otproxy_net::{Backoff, OutageLog};

/// The time limit of one call.
const CALL: Duration = Duration::from_secs(30);
/// The pause after a call, in multiples of its duration: with very many bans a call takes a second.
const REST: u32 = 4;
/// The pause after a failed call; it doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest pause after a failed call.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const BACKOFF: Backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
/// The interval at which the kernel's sets are written anew: another program may have emptied them.
const AGAIN: Duration = Duration::from_secs(60);
/// The longest timeout of an element, as nft does not take years. It is renewed many times before it ends.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Characters of an error that are logged.
const MAX_ERROR: usize = 300;

/// The sets in the kernel, and their known elements.
#[derive(Debug)]
pub struct KernelBans {
    sets: Sets,
    /// The [`Bans::version`] that they equal.
    version: Option<u64>,
    /// The time at which they were last written whole.
    told: Option<Instant>,
    /// The time before which no call is made.
    not_before: Option<Instant>,
    failures: u32,
    errors: IntCounter,
    outage: OutageLog<()>,
}

impl KernelBans {
    /// Makes it for the sets in `table`; failed calls are counted in `errors`.
    pub fn new(table: NftTable, errors: IntCounter) -> Self {
        let (sets, outage) = (Sets { table, elements: None }, OutageLog::new());
        Self { sets, version: None, told: None, not_before: None, failures: 0, errors, outage }
    }

    /// Updates the sets to `bans`, if they differ. The first call also finds out whether they exist.
    pub async fn follow(&mut self, bans: &Bans) {
        let began = Instant::now();
        if self.told.is_some_and(|told| began >= told + AGAIN)
            && self.sets.elements.as_ref().is_some_and(|e| !e.is_empty())
        {
            (self.sets.elements, self.version) = (None, None);
        }
        let version = bans.version();
        if self.version == Some(version) || self.not_before.is_some_and(|at| began < at) {
            return;
        }
        let wanted = wanted(&bans.list(began), |network| bans.is_free_of_exempt(network));
        let whole = self.sets.elements.is_none();
        let script = self.sets.script(&wanted, began);
        let result = if script.is_empty() { Ok(()) } else { call(&script).await };
        let ended = Instant::now();
        match result {
            Ok(()) => {
                if let Some(seconds) = self.outage.worked(ended) {
                    info!(table = %self.sets.table, seconds, "nftables has the bans again");
                }
                if whole {
                    self.told = Some(began);
                }
                (self.sets.elements, self.version, self.failures) = (Some(wanted), Some(version), 0);
                self.not_before = Some(ended + (ended - began) * REST);
            }
            Err(error) => {
                (self.sets.elements, self.version) = (None, None);
                self.failures = self.failures.saturating_add(1);
                self.not_before = Some(ended + BACKOFF.wait(self.failures));
                self.errors.inc();
                if let Some(suppressed) = self.outage.failed((), ended) {
                    let (table, remedy) = (&self.sets.table, self.sets.remedy(&error));
                    warn!(%table, error, remedy, suppressed, "bans hold here alone: nftables does not take them");
                }
            }
        }
    }
}

/// Returns the networks that the kernel should have: none within another one, which it does not take, and none with an
/// exempt address, which it would not know; and none that is refused through one edge alone. `bans` are in order.
fn wanted(bans: &[Ban], is_free_of_exempt: impl Fn(&IpNet) -> bool) -> BTreeMap<IpNet, Instant> {
    let (mut wanted, mut last) = (BTreeMap::new(), None::<IpNet>);
    for Ban { network, until, .. } in bans.iter().filter(|ban| ban.reporter == Reporter::Socket) {
        if last.is_none_or(|wide| !wide.contains(network)) && is_free_of_exempt(network) {
            last = Some(*network);
            wanted.insert(*network, *until);
        }
    }
    wanted
}

/// The two sets.
#[derive(Debug)]
struct Sets {
    table: NftTable,
    /// Their elements; `None` if unknown.
    elements: Option<BTreeMap<IpNet, Instant>>,
}

impl Sets {
    /// Returns the script that changes the sets to `wanted`; empty if they are equal.
    fn script(&self, wanted: &BTreeMap<IpNet, Instant>, now: Instant) -> String {
        let mut script = String::new();
        let before = match &self.elements {
            Some(elements) => elements,
            None => {
                for set in ["banned4", "banned6"] {
                    let _ = writeln!(script, "flush set {} {set}", self.table);
                }
                &BTreeMap::new()
            }
        };
        let gone = before.iter().filter(|(network, until)| wanted.get(network) != Some(until) && **until > now);
        let gone: Vec<_> = gone.map(|(network, _)| (*network, network.to_string())).collect();
        // It may have expired there a moment ago, and an absent element cannot be deleted; but any element can be
        // added.
        self.change(&mut script, "add", &gone);
        self.change(&mut script, "delete", &gone);
        let new = wanted.iter().filter(|(network, until)| before.get(network) != Some(until));
        // It expires there a little earlier than here, so it is never there once it has ended here.
        let new = new.map(|(network, until)| (*network, until.saturating_duration_since(now).min(LONGEST).as_secs()));
        let new = new.filter(|(_, seconds)| *seconds > 0);
        let new: Vec<_> = new.map(|(network, seconds)| (network, format!("{network} timeout {seconds}s"))).collect();
        self.change(&mut script, "add", &new);
        script
    }

    fn change(&self, script: &mut String, verb: &str, elements: &[(IpNet, String)]) {
        for (set, is_ipv4) in [("banned4", true), ("banned6", false)] {
            let own = elements.iter().filter(|(network, _)| network.addr().is_ipv4() == is_ipv4);
            let own: Vec<_> = own.map(|(_, text)| text.as_str()).collect();
            if !own.is_empty() {
                let _ = writeln!(script, "{verb} element {} {set} {{ {} }}", self.table, own.join(", "));
            }
        }
    }

    /// Returns what a person can do about an error.
    fn remedy(&self, error: &str) -> String {
        if error.contains("Operation not permitted") {
            return "this process needs CAP_NET_ADMIN; docs/security.md has the lines for systemd".to_owned();
        }
        let table = &self.table;
        format!(
            "apt install nftables; nft add table {table}; \
             nft 'add set {table} banned4 {{ type ipv4_addr; flags interval,timeout; }}'; \
             nft 'add set {table} banned6 {{ type ipv6_addr; flags interval,timeout; }}'; \
             and rules that drop `ip saddr @banned4` and `ip6 saddr @banned6`"
        )
    }
}

/// Runs `script` in nft, all of it or nothing.
async fn call(script: &str) -> Result<(), String> {
    let calling = async {
        let mut command = Command::new("nft");
        // The words of errors are compared.
        command.args(["-f", "-"]).env("LC_ALL", "C").kill_on_drop(true);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // It may end before it has read everything; its error then says why.
            let _ = stdin.write_all(script.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = timeout(CALL, calling).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let output = output.map_err(|error| format!("nft cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let first = text.lines().next().unwrap_or("nft failed without a word");
    Err(first.chars().take(MAX_ERROR).collect())
}

#[cfg(test)]
mod tests;

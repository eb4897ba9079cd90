//! The state of a host, as it says itself.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Characters of a SHA-256.
const HASH_LEN: usize = 64;

/// A host, as it answered the first command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Its machine, as `uname -m` says.
    pub machine: String,
    /// Commands run as root there.
    pub is_root: bool,
    /// The unit of otproxy runs.
    pub is_active: bool,
    /// The firewall is loaded when the host starts.
    pub rules_at_boot: bool,
    /// Version and architecture of the package that is installed, as `0.1.0_amd64`.
    pub package: Option<String>,
    /// The tables of its firewall, as `table inet otproxy`.
    pub tables: Vec<String>,
    /// The ports of TCP at which programs listen to more than the host itself.
    pub listens: Vec<u16>,
    /// The hashes of files, by their paths.
    hashes: BTreeMap<String, String>,
}

impl Found {
    /// Reads the answer. Lines of others, as of a shell's start, mean nothing.
    pub fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let rest = rest.trim();
            match word {
                "machine" => rest.clone_into(&mut found.machine),
                "user" => found.is_root = rest == "0",
                "unit" => found.is_active = rest == "active",
                "boot" => found.rules_at_boot = rest == "enabled",
                "package" => found.package = rest.strip_suffix(" installed").map(str::to_owned),
                "table" => found.tables.push(line.trim().to_owned()),
                "listens" => found.listens.extend(open_port(rest)),
                hash if hash.len() == HASH_LEN => drop(found.hashes.insert(rest.to_owned(), hash.to_owned())),
                _ => {}
            }
        }
        found.listens.sort_unstable();
        found.listens.dedup();
        found
    }

    /// Returns whether a file there has this hash.
    pub fn has(&self, place: &str, sha256: &str) -> bool {
        self.hashes.get(place).is_some_and(|hash| hash == sha256)
    }
}

/// Returns the port of an address that others reach, as `ss` writes it: `*:80`, `127.0.0.53%lo:53`, `[::]:22`.
fn open_port(address: &str) -> Option<u16> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = host.split('%').next().unwrap_or_default();
    let is_loopback = host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
    if is_loopback { None } else { port.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_noise_is_not() {
        let hash = "0a".repeat(32);
        let text = format!(
            "Welcome, user 0!\nmachine x86_64\nuser 0\nunit active\nboot enabled\npackage 0.1.0_amd64 installed\ntable inet otproxy\n\
             table ip nat\nlistens 0.0.0.0:22\nlistens [::]:22\nlistens 127.0.0.1:9162\nlistens [::ffff:127.0.0.1]:1\nlistens [::1]:9\n\
             listens 127.0.0.53%lo:53\nlistens *:443\nlistens\n{hash}  /etc/otproxy/a b\nsha256sum: x\n"
        );
        let found = Found::parse(&text);
        assert!(found.is_root && found.is_active && found.rules_at_boot);
        assert_eq!((found.machine.as_str(), found.package.as_deref()), ("x86_64", Some("0.1.0_amd64")));
        assert_eq!(found.tables, ["table inet otproxy", "table ip nat"]);
        assert_eq!(found.listens, [22, 443]);
        assert!(found.has("/etc/otproxy/a b", &hash) && !found.has("/etc/otproxy/a b", "") && !found.has("x", &hash));
    }

    #[test]
    fn no_answer_is_a_host_that_has_nothing() {
        let found = Found::parse("machine\nuser\nunit inactive\nboot not-found\npackage 0.1.0_amd64 config-files\n");
        assert_eq!(found, Found::default());
    }
}

//! `bans`: those who are refused for a while.

use std::fmt;
use std::time::Duration;

use ipnet::IpNet;
use otproxy_protocol::quota::Quota;

use super::address::NETWORK;
use super::declare::{Read, section};
use super::formats::{DURATION, RATE_OR_NONE};
use super::scope::Scope;
use super::takes::{Format, list, value};
use super::tree::{Node, Value};

/// The families of tables that can drop packets by address.
const FAMILIES: [&str; 4] = ["inet", "ip", "ip6", "netdev"];
/// Characters of a table's name, as the kernel has it.
const MAX_TABLE: usize = 255;

section! {
    /// `bans`: those who are refused for a while.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct BansConfig from BansKeys {
        /// how often a player's address may break the rules; who does it more often is banned
        after: Option<Quota> = value(RATE_OR_NONE).or("none").example("600/60s"),
        /// how long who breaks the rules too often is refused by all listeners
        lasting as "for": Duration = value(DURATION).or("10m"),
        /// who is never refused for a ban, beside those whose PROXY header is believed
        exempt: Vec<IpNet> = list(NETWORK).or("[]").example("[192.0.2.7, 10.0.0.0/8]"),
        /// the nftables table with the sets `banned4` and `banned6`, into which bans are put too, for the kernel to drop what they send
        nftables: Option<NftTable> = value(TABLE_OR_OFF).or("off").example("inet otproxy").restart(),
    }
}

/// `bans.nftables`: a table of nftables. Both are words that nft takes as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NftTable {
    /// `inet`, `ip`, `ip6` or `netdev`.
    pub family: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for NftTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family, self.name)
    }
}

const TABLE_OR_OFF: Format<Option<NftTable>> = Format::new("family and table, or `off`", table);

impl Read for BansConfig {
    fn read(section: &Scope<'_>) -> Option<Self> {
        let keys = BansKeys::read(section);
        if keys.lasting == Some(Duration::ZERO) {
            section.wrong("for", "`0s` would lift each ban at once; give at least `1s`, or `after: none` for no bans");
        }
        keys.complete()
    }
}

/// Parses a family and a table, or the word `off`.
fn table(node: &Node) -> Result<Option<NftTable>, String> {
    let wrong = || {
        let families = FAMILIES.map(|family| format!("`{family}`")).join(", ");
        format!(
            "{} is not a table of nftables; write it as `inet otproxy`: the family ({families}) and the name; or `off` \
             for none",
            node.quoted()
        )
    };
    let Value::Text(text) = &node.value else { return Err(wrong()) };
    if text == "off" {
        return Ok(None);
    }
    match text.split_whitespace().collect::<Vec<_>>().as_slice() {
        [family, name] if FAMILIES.contains(family) && is_word(name) => {
            Ok(Some(NftTable { family: (*family).to_owned(), name: (*name).to_owned() }))
        }
        _ => Err(wrong()),
    }
}

/// Returns whether nft takes a name as it is, and as nothing else.
fn is_word(name: &str) -> bool {
    let rest = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    name.len() <= MAX_TABLE && name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(rest)
}

#[cfg(test)]
mod tests {
    use super::super::tree::fragment;
    use super::*;
    use crate::AddressSet;

    #[test]
    fn peers_that_are_trusted_are_exempt_and_a_revoked_edge_is_not() {
        let exempt = |text: &str| {
            let config = super::super::parse("a.yaml", text).unwrap_or_else(|errors| panic!("{errors}"));
            config.process().bans.exempt.iter().copied().collect::<AddressSet>()
        };
        let listener = "{ name: a, listen: \"0.0.0.0:1\", forward_to: \"a:1\"";
        let edge = exempt(&format!(
            "role: edge\nbans: {{ exempt: 192.0.2.7 }}\n\
             listeners: [{listener}, accept_proxy: optional, trusted_peers: 10.0.0.0/8 }}]"
        ));
        let core = exempt(&format!(
            "role: core\nedges: [{{ name: x, address: 192.0.2.7 }}, {{ name: y, address: 192.0.2.8, revoked: true }}]\n\
             listeners: [{listener}, accept_proxy: none }}, {{ name: b, listen: \"0.0.0.0:2\", forward_to: \"a:1\", \
             trusted_peers: 10.0.0.0/8 }}]"
        ));
        for exempt in [edge, core] {
            let of = |address: &str| exempt.contains(address.parse().unwrap());
            assert!(of("192.0.2.7") && of("10.9.9.9") && !of("192.0.2.8") && !of("127.0.0.1"));
        }
    }

    #[test]
    fn a_table_is_a_family_and_a_word() {
        let read = |text: &str| table(&fragment(text)).map(|table| table.map(|table| table.to_string()));
        assert_eq!(read("inet otproxy"), Ok(Some("inet otproxy".to_owned())));
        assert_eq!(read("ip   my-table_2"), Ok(Some("ip my-table_2".to_owned())));
        assert_eq!(read("off"), Ok(None));
        for wrong in [
            "otproxy",
            "inet",
            "inet otproxy banned4",
            "bridge otproxy",
            "inet 2x",
            "\"inet a;b\"",
            "\"inet {\"",
            "7",
            "[inet, otproxy]",
        ] {
            assert!(read(wrong).unwrap_err().contains("write it as `inet otproxy`"), "{wrong}");
        }
        assert!(read(&format!("inet {}", "a".repeat(256))).is_err());
    }
}

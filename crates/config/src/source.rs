//! `source`: the local address of connections to a target or a game server.

use std::net::{IpAddr, Ipv4Addr};

use super::address::{HostPort, ip};
use super::scope::Scope;
use super::takes::Format;
use super::tree::{Node, Value};

const PER_PLAYER: &str = "loopback_per_player";

/// The default in the reference.
pub(super) const BY_DEFAULT: &str = "`loopback_per_player` to 127.0.0.0/8 where no address is told, else `default`";

pub(super) const SOURCE: Format<SourceAddress> =
    Format::new("`default`, `loopback_per_player` or an address of this host", source);

/// The local address of connections to targets or to a game server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SourceAddress {
    /// As the kernel chooses.
    #[default]
    Default,
    /// An address in 127.0.0.0/8 for each player.
    LoopbackPerPlayer,
    /// This one.
    Address(IpAddr),
}

/// The source of checks of a server on loopback that tells players apart by theirs: no player's.
const OF_CHECKS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

impl SourceAddress {
    /// Returns the local address of checks; `None` lets the kernel choose.
    #[must_use]
    pub fn of_checks(self) -> Option<IpAddr> {
        match self {
            Self::Default => None,
            Self::LoopbackPerPlayer => Some(OF_CHECKS),
            Self::Address(own) => Some(own),
        }
    }

    /// Returns the source of connections to `target`, one of several: elsewhere than on loopback the kernel chooses.
    #[must_use]
    pub fn towards(self, target: &HostPort) -> Self {
        if self == Self::LoopbackPerPlayer && !target.is_ipv4_loopback() { Self::Default } else { self }
    }
}

/// Parses a word, or an address of this host.
fn source(node: &Node) -> Result<SourceAddress, String> {
    match &node.value {
        Value::Text(text) if text == "default" => Ok(SourceAddress::Default),
        Value::Text(text) if text == PER_PLAYER => Ok(SourceAddress::LoopbackPerPlayer),
        _ => ip(node).map(SourceAddress::Address).map_err(|message| {
            format!("{message}; beside an address of this host it takes `default` and `{PER_PLAYER}`")
        }),
    }
}

/// Returns the source of connections to all of `targets`: that of the file if it fits them, or the default. `told` says
/// whether they are told the player's address.
pub(super) fn for_targets<'t>(
    item: &Scope<'_>,
    read: Option<SourceAddress>,
    targets: impl Iterator<Item = &'t HostPort> + Clone,
    told: bool,
) -> Option<SourceAddress> {
    if !item.has("source") {
        let per_player = !told && targets.clone().any(HostPort::is_ipv4_loopback);
        return Some(if per_player { SourceAddress::LoopbackPerPlayer } else { SourceAddress::Default });
    }
    let source = read?;
    for target in targets {
        let literal = target.literal().map(|address| address.ip());
        match source {
            SourceAddress::LoopbackPerPlayer if !target.is_ipv4_loopback() => item.wrong(
                "source",
                format!(
                    "`{PER_PLAYER}` needs a server on this host, and `{target}` is not on 127.0.0.0/8; write the address as \
                     `127.0.0.1:{}`, or leave this out",
                    target.port
                ),
            ),
            SourceAddress::Address(ip) if literal.is_some_and(|literal| literal.is_ipv4() != ip.is_ipv4()) => {
                let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
                item.wrong("source", format!("`{ip}` is of {family}, and `{target}` is not; give one of its family"));
            }
            _ => {}
        }
    }
    Some(source)
}

#[cfg(test)]
mod tests {
    use super::super::tree::fragment;
    use super::*;

    #[test]
    fn a_word_or_an_address() {
        let read = |text| source(&fragment(text));
        assert_eq!(read("default"), Ok(SourceAddress::Default));
        assert_eq!(read("loopback_per_player"), Ok(SourceAddress::LoopbackPerPlayer));
        assert_eq!(read("198.51.100.7"), Ok(SourceAddress::Address(IpAddr::from([198, 51, 100, 7]))));
        assert_eq!(read("'2001:db8::7'"), Ok(SourceAddress::Address("2001:db8::7".parse().unwrap())));
        for (wrong, says) in [
            ("loopback", "it takes `default` and `loopback_per_player`"),
            ("198.51.100.7:7171", "has a port"),
            ("0.0.0.0", "is no address of one host"),
            ("'::'", "is no address of one host"),
            ("010.0.0.1", "write it as `10.0.0.1`"),
            ("7", "is not an address"),
        ] {
            let message = read(wrong).unwrap_err();
            assert!(message.contains(says), "{wrong}: {message}");
        }
    }
}

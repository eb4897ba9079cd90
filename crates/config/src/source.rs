//! `source`: the local address of connections to a target or a game server.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::address::{HostPort, ip};
use super::file::Config;
use super::listener::ListenerConfig;
use super::scope::Scope;
use super::takes::Format;
use super::tree::{Node, Value};

const PER_PLAYER: &str = "loopback_per_player";
const PLAYER: &str = "player";

/// The default in the reference.
pub(super) const BY_DEFAULT: &str = "`loopback_per_player` to 127.0.0.0/8 where no address is told, else `default`";

pub(super) const SOURCE: Format<SourceAddress> =
    Format::new("`default`, `loopback_per_player`, `player` or an address of this host", source);

/// The local address of connections to targets or to a game server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SourceAddress {
    /// As the kernel chooses.
    #[default]
    Default,
    /// An address in 127.0.0.0/8 for each player.
    LoopbackPerPlayer,
    /// The player's own.
    Player,
    /// This one.
    Address(IpAddr),
}

/// The source of checks of a server on loopback that tells players apart by theirs: no player's.
const OF_CHECKS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

impl SourceAddress {
    /// Returns the local address of checks of `target`; `None` lets the kernel choose.
    #[must_use]
    pub fn of_checks(self, target: &HostPort) -> Option<IpAddr> {
        match self {
            Self::LoopbackPerPlayer | Self::Player if target.is_ipv4_loopback() => Some(OF_CHECKS),
            Self::Default | Self::LoopbackPerPlayer | Self::Player => None,
            Self::Address(own) => Some(own),
        }
    }

    /// Returns the source of connections to `target`, one of several: elsewhere than on loopback the kernel chooses.
    #[must_use]
    pub fn towards(self, target: &HostPort) -> Self {
        if self == Self::LoopbackPerPlayer && !target.is_ipv4_loopback() { Self::Default } else { self }
    }

    /// Returns whether each player has an address of its own at `target`.
    #[must_use]
    pub fn tells_apart(self, target: &HostPort) -> bool {
        matches!(self.towards(target), Self::LoopbackPerPlayer | Self::Player)
    }
}

impl Config {
    /// Returns the addresses of loopback, one of each family, to which connections start from players' own addresses. Those take a
    /// privilege and a route.
    #[must_use]
    pub fn loopbacks_of_players(&self) -> BTreeSet<IpAddr> {
        let mut found = BTreeSet::new();
        let mut add = |source: SourceAddress, target: &HostPort| {
            if source == SourceAddress::Player {
                let ipv4 = target.is_ipv4_loopback();
                found.insert(if ipv4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
            }
        };
        if let Self::Core(core) = self {
            core.game_servers.iter().for_each(|server| add(server.source, &server.address));
        }
        for forward in self.listeners().iter().filter_map(ListenerConfig::forward) {
            forward.hosts().for_each(|target| add(forward.source, target));
        }
        found
    }
}

/// Parses a word, or an address of this host.
fn source(node: &Node) -> Result<SourceAddress, String> {
    match &node.value {
        Value::Text(text) if text == "default" => Ok(SourceAddress::Default),
        Value::Text(text) if text == PER_PLAYER => Ok(SourceAddress::LoopbackPerPlayer),
        Value::Text(text) if text == PLAYER => Ok(SourceAddress::Player),
        _ => ip(node).map(SourceAddress::Address).map_err(|message| {
            format!("{message}; beside an address of this host it takes `default`, `{PER_PLAYER}` and `{PLAYER}`")
        }),
    }
}

/// Returns the source of connections to all of `targets`: that of the file if it fits them, or the default. `told` says
/// whether they are told the player's address, by this key.
pub(super) fn for_targets<'t>(
    item: &Scope<'_>,
    read: Option<SourceAddress>,
    targets: impl Iterator<Item = &'t HostPort> + Clone,
    (key, told): (&str, bool),
) -> Option<SourceAddress> {
    if !item.has("source") {
        let per_player = !told && targets.clone().any(HostPort::is_ipv4_loopback);
        return Some(if per_player { SourceAddress::LoopbackPerPlayer } else { SourceAddress::Default });
    }
    let source = read?;
    if source == SourceAddress::Player && told {
        item.wrong(
            "source",
            format!("with `{PLAYER}` the server sees the player's address on the connection itself, and reads no header; give `{key}: none`, or leave this out"),
        );
    }
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
            SourceAddress::Player if !target.is_loopback() => item.wrong(
                "source",
                format!(
                    "`{PLAYER}` needs a server on this host, as answers to players go past otproxy otherwise, and `{target}` is not on \
                     loopback; write the address as `127.0.0.1:{0}` or `[::1]:{0}`, or leave this out",
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
        assert_eq!(read("player"), Ok(SourceAddress::Player));
        assert_eq!(read("198.51.100.7"), Ok(SourceAddress::Address(IpAddr::from([198, 51, 100, 7]))));
        assert_eq!(read("'2001:db8::7'"), Ok(SourceAddress::Address("2001:db8::7".parse().unwrap())));
        for (wrong, says) in [
            ("loopback", "it takes `default`, `loopback_per_player` and `player`"),
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

//! The player's address, as a game server is told it: the first bytes on a game connection.
//!
//! Game servers know IPv4 alone, so IPv6 players are given an IPv4 address of their own.

use std::fmt;
use std::hash::Hasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

use siphasher::sip::SipHasher24;

use crate::proxy_header::{unmap, write_v1, write_v2};

/// The start of the OTC forms: a length that no game packet has.
const OTC_START: [u8; 2] = [0xFE, 0xFF];

crate::words! {
    /// A form in which a game server is told the player's address.
    pub enum PlayerAddress {
        /// `FE FF`, then the IPv4 address in network order.
        Otc = "otc",
        /// `FE FF`, then the IPv4 address reversed.
        OtcReversed = "otc_reversed",
        /// PROXY protocol v2, always 28 bytes.
        ProxyV2 = "proxy_v2",
        /// PROXY protocol v1.
        ProxyV1 = "proxy_v1",
        /// Nothing.
        None = "none",
    }
}

impl PlayerAddress {
    /// Appends what goes first on a game connection. `server` is where that connection leads.
    ///
    /// The version 2 form is always 28 bytes, as patched game servers read exactly that many: where
    /// `server` has no IPv4 address, the header says 127.0.0.1. So does version 1, for the same readers.
    pub fn write(self, out: &mut Vec<u8>, player: SocketAddrV4, server: SocketAddr) {
        let octets = player.ip().octets();
        let destination = || match unmap(server.ip()) {
            ip @ IpAddr::V4(_) => SocketAddr::new(ip, server.port()),
            IpAddr::V6(_) => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), server.port()),
        };
        match self {
            Self::Otc => {
                out.extend_from_slice(&OTC_START);
                out.extend_from_slice(&octets);
            }
            Self::OtcReversed => {
                out.extend_from_slice(&OTC_START);
                out.extend_from_slice(&backwards(*player.ip()).octets());
            }
            Self::ProxyV2 => write_v2(out, player.into(), destination()),
            Self::ProxyV1 => write_v1(out, player.into(), destination()),
            Self::None => {}
        }
    }
}
/// Returns an address with its bytes in the other order, as servers read it that take it for a number of their own.
#[must_use]
pub const fn backwards(address: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from_bits(address.to_bits().swap_bytes())
}

/// IPv4 addresses that stand for players without one that a game server could use.
///
/// They are derived from the player's address and a key: they stay the same as long as the key does, so that
/// per-address rules and bans of a game server hold; and they cannot be foreseen without the key, so nobody can pick an
/// IPv6 address to be taken for another player.
#[derive(Clone)]
pub struct PseudoIpv4 {
    key: [u8; 16],
}

impl fmt::Debug for PseudoIpv4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PseudoIpv4").finish_non_exhaustive()
    }
}

impl PseudoIpv4 {
    /// Makes the mapping. `key` should be secret, and the same after a restart.
    pub const fn new(key: [u8; 16]) -> Self {
        Self { key }
    }

    /// Returns an address in 240.0.0.0/4 for the /64 of `address`: the reserved block, which no real player is in.
    /// Never 255.255.255.255, which is a broadcast.
    pub fn map(&self, address: Ipv6Addr) -> Ipv4Addr {
        let hash = self.hash(b'6', &network_of(address));
        // One less than the block has, which leaves its last address out.
        let offset = below(hash, 0x0FFF_FFFF);
        Ipv4Addr::from_bits(0xF000_0000 | offset)
    }

    /// Returns an address in 127.0.0.0/8 for a player: one of its own for each IPv4 address and each IPv6 /64, as far
    /// as 16 million addresses go. Never one in 127.0.0.0/16, as services listen there, and never one with a last octet
    /// of 0 or 255.
    pub fn loopback(&self, address: IpAddr) -> Ipv4Addr {
        let hash = match unmap(address) {
            IpAddr::V4(v4) => self.hash(b'4', &v4.octets()),
            IpAddr::V6(v6) => self.hash(b'l', &network_of(v6)),
        };
        let number = below(hash, 255 * 256 * 254);
        let network = number / 254 + 256;
        let host = number % 254 + 1;
        Ipv4Addr::from_bits(0x7F00_0000 | network << 8 | host)
    }

    /// Hashes an address. `domain` keeps the two uses of the key apart.
    fn hash(&self, domain: u8, bytes: &[u8]) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write_u8(domain);
        hasher.write(bytes);
        hasher.finish()
    }
}

/// Returns the /64 of an address, which belongs to one player, whatever it puts into the rest.
fn network_of(address: Ipv6Addr) -> [u8; 8] {
    ((address.to_bits() >> 64) as u64).to_be_bytes()
}

/// Returns a number below `bound` from an even hash; its bias is below 2^-32.
fn below(hash: u64, bound: u32) -> u32 {
    (hash % u64::from(bound)) as u32
}

/// Returns the player's IPv4 address: its own, or a pseudo one.
pub fn ipv4_of(address: IpAddr, pseudo: &PseudoIpv4) -> Ipv4Addr {
    match unmap(address) {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(v6) => pseudo.map(v6),
    }
}

/// Returns the player's IPv6 address: its own, or the one that stands for an IPv4 address where there is IPv6 alone (RFC 6052, with
/// the well-known prefix 64:ff9b::/96).
pub fn ipv6_of(address: IpAddr) -> Ipv6Addr {
    match unmap(address) {
        IpAddr::V4(v4) => Ipv6Addr::from_bits(0x0064_ff9b << 96 | u128::from(v4.to_bits())),
        IpAddr::V6(v6) => v6,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const PSEUDO: PseudoIpv4 = PseudoIpv4::new(*b"sixteen byte key");

    fn written(form: PlayerAddress, server: &str) -> Vec<u8> {
        let mut out = Vec::new();
        form.write(&mut out, "192.0.2.33:50000".parse().unwrap(), server.parse().unwrap());
        out
    }

    #[test]
    fn the_forms_byte_for_byte() {
        let server = "198.51.100.2:7172";
        assert_eq!(written(PlayerAddress::Otc, server), [0xFE, 0xFF, 192, 0, 2, 33]);
        assert_eq!(written(PlayerAddress::OtcReversed, server), [0xFE, 0xFF, 33, 2, 0, 192]);
        assert_eq!(written(PlayerAddress::ProxyV1, server), b"PROXY TCP4 192.0.2.33 198.51.100.2 50000 7172\r\n");
        assert!(written(PlayerAddress::None, server).is_empty());
        let v2 = [
            &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C"[..],
            &[192, 0, 2, 33, 198, 51, 100, 2],
            &50000u16.to_be_bytes(),
            &7172u16.to_be_bytes(),
        ]
        .concat();
        assert_eq!(written(PlayerAddress::ProxyV2, server), v2);
    }

    #[test]
    fn an_ipv6_server_does_not_lengthen_the_header() {
        let v2 = written(PlayerAddress::ProxyV2, "[2001:db8::1]:7172");
        assert_eq!((v2.len(), &v2[20..24]), (28, &[127, 0, 0, 1][..]));
        let mapped = written(PlayerAddress::ProxyV2, "[::ffff:198.51.100.2]:7172");
        assert_eq!((mapped.len(), &mapped[20..24]), (28, &[198, 51, 100, 2][..]));
        let v1 = written(PlayerAddress::ProxyV1, "[2001:db8::1]:7172");
        assert_eq!(v1, b"PROXY TCP4 192.0.2.33 127.0.0.1 50000 7172\r\n");
    }

    #[test]
    fn ipv4_players_keep_their_address() {
        let v4 = Ipv4Addr::new(192, 0, 2, 33);
        assert_eq!(ipv4_of(v4.into(), &PSEUDO), v4);
        assert_eq!(ipv4_of(v4.to_ipv6_mapped().into(), &PSEUDO), v4);
        assert_eq!(PSEUDO.loopback(v4.into()), PSEUDO.loopback(v4.to_ipv6_mapped().into()));
    }

    #[test]
    fn an_ipv6_server_sees_ipv4_players_as_behind_nat64() {
        let v4 = Ipv4Addr::new(192, 0, 2, 33);
        let seen: Ipv6Addr = "64:ff9b::192.0.2.33".parse().unwrap();
        assert_eq!((ipv6_of(v4.into()), ipv6_of(v4.to_ipv6_mapped().into())), (seen, seen));
        let v6 = "2001:db8::7".parse().unwrap();
        assert_eq!(ipv6_of(IpAddr::V6(v6)), v6);
    }

    #[test]
    fn pseudo_addresses_do_not_change_between_releases() {
        // Bans that a game server keeps by address depend on it.
        let v6 = "2001:db8:1:2::3".parse().unwrap();
        assert_eq!(PSEUDO.map(v6).to_string(), "248.146.238.196");
        assert_eq!(PSEUDO.loopback(v6.into()).to_string(), "127.48.187.89");
        assert_eq!(PSEUDO.loopback(Ipv4Addr::new(192, 0, 2, 33).into()).to_string(), "127.203.127.95");
    }

    #[test]
    fn players_are_told_apart() {
        let v6 = |n: u128| Ipv6Addr::from_bits(0x2001_0db8 << 96 | n << 64 | n);
        let mapped: HashSet<_> = (0..1000).map(|n| PSEUDO.map(v6(n))).collect();
        let loopback: HashSet<_> = (0..1000).map(|n| PSEUDO.loopback(v6(n).into())).collect();
        assert!(mapped.len() > 990 && loopback.len() > 990, "{} {}", mapped.len(), loopback.len());
        assert_ne!(PSEUDO.map(v6(1)), PseudoIpv4::new([0; 16]).map(v6(1)), "the key counts");
    }

    proptest! {
        #[test]
        fn pseudo_addresses_stay_in_their_blocks(key: [u8; 16], v6: u128, v4: u32, host: u64) {
            let pseudo = PseudoIpv4::new(key);
            let address = Ipv6Addr::from_bits(v6);
            let mapped = pseudo.map(address);
            prop_assert!(mapped.octets()[0] >= 240 && !mapped.is_broadcast(), "{mapped}");
            let neighbour = Ipv6Addr::from_bits(v6 >> 64 << 64 | u128::from(host));
            prop_assert_eq!(pseudo.map(neighbour), mapped);
            for player in [IpAddr::V6(address), Ipv4Addr::from_bits(v4).into()] {
                let [a, b, _, d] = pseudo.loopback(player).octets();
                prop_assert!(a == 127 && b >= 1 && (1..=254).contains(&d));
            }
        }
    }
}

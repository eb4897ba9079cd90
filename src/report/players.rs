//! The numbers of players, as lists of servers count them.

use std::collections::HashMap;
use std::net::IpAddr;

/// Characters of one address that are counted at most.
pub const COUNTED: usize = 4;

/// The numbers of players at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlayerCount {
    /// Everybody.
    pub online: usize,
    /// Addresses.
    pub unique: usize,
    /// Everybody, but at most [`COUNTED`] of one address.
    pub counted: usize,
}

impl FromIterator<IpAddr> for PlayerCount {
    fn from_iter<T: IntoIterator<Item = IpAddr>>(players: T) -> Self {
        let mut each: HashMap<IpAddr, usize> = HashMap::new();
        for player in players {
            *each.entry(player.to_canonical()).or_default() += 1;
        }
        let (online, counted) =
            each.values().fold((0, 0), |(online, counted), of| (online + of, counted + COUNTED.min(*of)));
        Self { online, unique: each.len(), counted }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn four_of_an_address_count() {
        let of = |hosts: &[u8]| hosts.iter().map(|host| IpAddr::from([192, 0, 2, *host])).collect::<PlayerCount>();
        assert_eq!(of(&[]), PlayerCount::default());
        assert_eq!(of(&[1, 2, 1, 1, 1, 1]), PlayerCount { online: 6, unique: 2, counted: 5 });
    }

    proptest! {
        #[test]
        fn counted_is_between(hosts in proptest::collection::vec((0u8..20, any::<bool>()), 0..200)) {
            let players = hosts.iter().map(|(host, mapped)| {
                let v4 = std::net::Ipv4Addr::new(192, 0, 2, *host);
                if *mapped { IpAddr::V6(v4.to_ipv6_mapped()) } else { IpAddr::V4(v4) }
            });
            let PlayerCount { online, unique, counted } = players.collect();
            prop_assert_eq!(online, hosts.len());
            prop_assert!(unique <= counted && counted <= online && counted <= unique * COUNTED);
        }
    }
}

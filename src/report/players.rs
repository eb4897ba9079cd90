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

impl PlayerCount {
    /// Reads the last line of `players.csv`; `None` if it has none.
    #[must_use]
    pub fn of_last_line(text: &str) -> Option<Self> {
        let mut numbers = text.lines().next_back()?.split(',').skip(1).map(str::parse);
        let mut number = || numbers.next()?.ok();
        let count = Self { online: number()?, unique: number()?, counted: number()? };
        numbers.next().is_none().then_some(count)
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

    #[test]
    fn the_last_line_is_read() {
        const TITLE: &str = "time,online,unique,counted\n";
        let read = |lines: &str| PlayerCount::of_last_line(&format!("{TITLE}{lines}"));
        let expected = PlayerCount { online: 3, unique: 1, counted: 2 };
        assert_eq!(read("2026-11-28T19:33:00Z,9,9,9\n2026-11-28T19:34:00Z,3,1,2\n"), Some(expected));
        for none in
            ["", "2026-11-28T19:34:00Z,3,1", "2026-11-28T19:34:00Z,3,1,2,7\n", "2026-11-28T19:34:00Z,3,1,-2\n", "\n"]
        {
            assert_eq!(read(none), None, "{none}");
        }
        assert_eq!(PlayerCount::of_last_line(""), None);
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

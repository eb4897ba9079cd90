//! The list for one player: the edges of a datacenter one after the other, so that the two that a player likes best do not fail
//! together.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

use super::{EdgeList, ListedEdge};

/// Milliseconds by which each further edge of a datacenter is set back: more than what edges there differ by.
pub const SET_BACK: u16 = 40;
/// Bits of an IPv6 address that count: hosts change the others.
const IPV6_PREFIX: u32 = 64;

impl EdgeList {
    /// Returns whether it is another one for each player: some edges share a datacenter.
    #[must_use]
    pub fn is_by_player(&self) -> bool {
        let mut seen = std::collections::HashSet::new();
        self.0.iter().filter_map(|edge| edge.datacenter.as_ref()).any(|datacenter| !seen.insert(datacenter))
    }

    /// Returns the list for a player: of each datacenter one edge as it is, the next one set back by [`SET_BACK`], and so on.
    ///
    /// Each player has an order of its own among all edges, by rendezvous hashing of both: all edges get equal shares of the players, and
    /// an edge that goes or comes changes the first edge of its own players alone.
    #[must_use]
    pub fn for_player(&self, player: IpAddr) -> Self {
        let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
        for (place, edge) in self.0.iter().enumerate() {
            if let Some(datacenter) = &edge.datacenter {
                places.entry(datacenter).or_default().push(place);
            }
        }
        let mut list = self.clone();
        for mut places in places.into_values() {
            places.sort_by_cached_key(|place| Reverse(self.0.get(*place).map(|edge| (score(player, edge), *place))));
            for (rank, place) in places.into_iter().enumerate() {
                let back = u16::try_from(rank).unwrap_or(u16::MAX).saturating_mul(SET_BACK);
                if let Some(edge) = list.0.get_mut(place) {
                    edge.priority = edge.priority.saturating_add(back);
                }
            }
        }
        list
    }
}

/// Returns a number by which a player orders edges. It is the same on all hosts, with all versions.
fn score(player: IpAddr, edge: &ListedEdge) -> u64 {
    let mut hasher = SipHasher13::new();
    match player.to_canonical() {
        IpAddr::V4(ip) => hasher.write(&ip.octets()),
        IpAddr::V6(ip) => hasher.write(&(ip.to_bits() >> (128 - IPV6_PREFIX)).to_be_bytes()),
    }
    hasher.write(edge.host.as_bytes());
    hasher.write(&edge.port.to_be_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn edge(host: &str, priority: u16, datacenter: Option<&str>) -> ListedEdge {
        let datacenter = datacenter.map(Into::into);
        ListedEdge { host: host.to_owned(), port: 7162, priority, datacenter }
    }

    fn waw(count: usize) -> EdgeList {
        EdgeList((0..count).map(|number| edge(&format!("p{number}.example"), 0, Some("waw"))).collect())
    }

    fn players() -> impl Iterator<Item = IpAddr> {
        (0..10_000_u32).map(|number| Ipv4Addr::from(0xCB00_7100 + number * 7).into())
    }

    /// Returns the edge that is not set back.
    fn first(list: &EdgeList, player: IpAddr) -> String {
        let list = list.for_player(player);
        list.0.into_iter().min_by_key(|edge| edge.priority).unwrap().host
    }

    #[test]
    fn players_are_spread_within_a_tenth() {
        for count in 2..=5 {
            let (list, mut shares) = (waw(count), HashMap::<_, usize>::new());
            players().for_each(|player| *shares.entry(first(&list, player)).or_default() += 1);
            let even = 10_000 / count;
            assert_eq!(shares.len(), count);
            assert!(shares.values().all(|share| share.abs_diff(even) * 10 <= even), "{shares:?}");
        }
    }

    #[test]
    fn an_edge_that_goes_moves_its_own_players_alone() {
        let (all, mut moved) = (waw(4), 0);
        let mut left = all.clone();
        let gone = left.0.remove(1).host;
        for player in players() {
            let (before, after) = (first(&all, player), first(&left, player));
            assert!(before == after || before == gone, "{before} to {after}");
            moved += usize::from(before != after);
        }
        assert!((2000..3000).contains(&moved), "{moved}");
    }

    #[test]
    fn of_each_datacenter_one_edge_is_as_it_is() {
        let list = EdgeList(vec![
            edge("a", 10, Some("waw")),
            edge("b", 10, Some("waw")),
            edge("c", 5, Some("fra")),
            edge("d", 10, Some("waw")),
            edge("e", 7, None),
            edge("f", 7, None),
        ]);
        assert!(list.is_by_player());
        for player in players().take(100) {
            let told = list.for_player(player);
            let priorities: Vec<_> = told.0.iter().map(|edge| edge.priority).collect();
            assert_eq!((priorities[2], priorities[4], priorities[5]), (5, 7, 7));
            let mut waw = [priorities[0], priorities[1], priorities[3]];
            waw.sort_unstable();
            assert_eq!(waw, [10, 10 + SET_BACK, 10 + 2 * SET_BACK]);
            assert_eq!(told.for_player(player).0.len(), 6, "in the same order");
        }
        let alone = EdgeList(vec![edge("a", 1, Some("waw")), edge("b", 2, Some("fra")), edge("c", 3, None)]);
        assert!(!alone.is_by_player());
        assert_eq!(alone.for_player(Ipv4Addr::LOCALHOST.into()), alone);
        let far = EdgeList(vec![edge("a", u16::MAX, Some("waw")); 2000]);
        assert!(far.for_player(Ipv4Addr::LOCALHOST.into()).0.iter().all(|edge| edge.priority == u16::MAX));
    }

    #[test]
    fn an_address_is_the_same_in_each_form() {
        let list = waw(5);
        for number in 0..100 {
            let v4 = Ipv4Addr::new(192, 0, 2, number);
            assert_eq!(list.for_player(v4.into()), list.for_player(v4.to_ipv6_mapped().into()));
            let net = Ipv6Addr::new(0x2001, 0xdb8, 0, number.into(), 1, 2, 3, 4);
            let same = Ipv6Addr::new(0x2001, 0xdb8, 0, number.into(), 9, 9, 9, 9);
            assert_eq!(list.for_player(net.into()), list.for_player(same.into()));
        }
    }
}

use crate::admission::BanMetrics;
use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::metrics::Metrics;

const MINUTE: Duration = Duration::from_secs(60);

fn rules(exempt: &[&str]) -> BanPolicy {
    let exempt = exempt.iter().map(|text| net(text)).collect();
    BanPolicy { after: Some(Quota::per(3, MINUTE)), lasting: 10 * MINUTE, exempt }
}

fn bans(rules: BanPolicy) -> Arc<Bans> {
    Bans::new(rules, BanMetrics::new(&Metrics::new()))
}

fn net(text: &str) -> IpNet {
    text.parse::<IpNet>().unwrap_or_else(|_| text.parse::<IpAddr>().unwrap().into())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Returns those of the addresses that are refused.
fn refused<'a>(bans: &Bans, addresses: &[&'a str], now: Instant) -> Vec<&'a str> {
    addresses.iter().copied().filter(|address| bans.check(ip(address), now) == Err(AdmissionError::Banned)).collect()
}

fn listed(bans: &Bans, now: Instant) -> Vec<String> {
    bans.list(now).iter().map(|ban| ban.network.to_string()).collect()
}

#[test]
fn who_breaks_the_rules_too_often_is_banned_for_a_while_and_nobody_else() {
    let (bans, now) = (bans(rules(&[])), Instant::now());
    let version = bans.version();
    for (offender, same, other) in
        [("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"), ("2001:db8:1:2::3", "2001:db8:1:2:ffff::", "2001:db8:1:3::3")]
    {
        for _ in 0..3 {
            bans.count_violation(ip(offender), now);
            assert!(refused(&bans, &[offender, same], now).is_empty(), "too early");
        }
        bans.count_violation(ip(same), now);
        bans.count_violation(ip(other), now);
        assert_eq!(refused(&bans, &[offender, same, other], now), [offender, same]);
    }
    assert_eq!(listed(&bans, now), ["192.0.2.1/32", "2001:db8:1:2::/64"]);
    assert_eq!((bans.metrics.active.get(), bans.metrics.made(BanReason::Rules)), (2, 2));
    assert_ne!(bans.version(), version);
    let end = now + 10 * MINUTE;
    assert_eq!(refused(&bans, &["192.0.2.1"], end - Duration::from_millis(1)).len(), 1);
    assert!(refused(&bans, &["192.0.2.1"], end).is_empty() && listed(&bans, end).is_empty());
    assert_eq!(bans.metrics.active.get(), 2, "nobody has looked yet");
    bans.remove_ended(end);
    assert_eq!(bans.metrics.active.get(), 0);
    // The quota that was earned back meanwhile is available again.
    bans.count_violation(ip("192.0.2.1"), end);
    assert!(listed(&bans, end).is_empty());
}

#[test]
fn who_breaks_them_seldom_never_is() {
    let (bans, mut now) = (bans(rules(&[])), Instant::now());
    for _ in 0..1000 {
        bans.count_violation(ip("192.0.2.1"), now);
        now += MINUTE / 3;
    }
    assert!(listed(&bans, now).is_empty());
}

#[test]
fn who_breaks_them_on_the_word_of_an_edge_is_refused_through_that_edge_alone() {
    let (bans, now, player) = (bans(rules(&[])), Instant::now(), ip("192.0.2.1"));
    let stolen = || (Reporter::Edge(1), Some("waw1".into()));
    (0..9).for_each(|_| bans.count_reported(stolen(), player, now));
    let banned = |reporter| bans.check_reported(reporter, player, now).is_err();
    assert_eq!([Reporter::Edge(1), Reporter::Edge(2), Reporter::Socket].map(banned), [true, false, false]);
    assert_eq!(bans.list(now)[0].edge.as_deref(), Some("waw1"));
    // One through another edge is another one, and nothing counts towards it.
    (0..3).for_each(|_| bans.count_reported((Reporter::Edge(2), None), player, now));
    assert!(!banned(Reporter::Edge(2)));
    bans.count_reported((Reporter::Edge(2), None), player, now);
    assert!(banned(Reporter::Edge(2)) && !banned(Reporter::Socket));
    assert_eq!(bans.unban(net("192.0.2.0/24")).len(), 2);
    bans.count_reported(stolen(), player, now);
    assert!(!banned(Reporter::Edge(1)), "what was broken is forgotten");
    // The operator's word holds whoever reports it, and so does what an own socket has seen.
    bans.ban(net("192.0.2.1"), MINUTE, now);
    (0..4).for_each(|_| bans.count_violation(ip("198.51.100.1"), now));
    for address in ["192.0.2.1", "198.51.100.1"] {
        assert!(bans.check_reported(Reporter::Edge(1), ip(address), now).is_err(), "{address}");
    }
}

#[test]
fn what_was_open_before_makes_no_ban_longer() {
    let (bans, now) = (bans(rules(&[])), Instant::now());
    (0..4).for_each(|_| bans.count_violation(ip("192.0.2.1"), now));
    for _ in 0..100 {
        bans.count_violation(ip("192.0.2.1"), now + 5 * MINUTE);
    }
    assert!(listed(&bans, now + 10 * MINUTE).is_empty());
    assert_eq!(bans.metrics.made(BanReason::Rules), 1);
}

#[test]
fn none_bans_nobody_but_the_operator_does() {
    let (bans, now) = (bans(BanPolicy { after: None, ..rules(&[]) }), Instant::now());
    (0..100).for_each(|_| bans.count_violation(ip("192.0.2.1"), now));
    assert!(listed(&bans, now).is_empty());
    assert!(bans.ban(net("192.0.2.1"), MINUTE, now));
    assert_eq!(refused(&bans, &["192.0.2.1"], now).len(), 1);
    assert_eq!(bans.metrics.made(BanReason::Operator), 1);
}

#[test]
fn the_operator_bans_networks_of_any_length() {
    let (bans, now) = (bans(rules(&[])), Instant::now());
    // With bits behind the prefix, and with IPv4 written as IPv6.
    for network in ["10.9.0.0/8", "192.0.2.7", "::ffff:198.51.100.0/120", "2001:db8::/32", "2001:db9::1"] {
        assert!(bans.ban(net(network), MINUTE, now));
    }
    let all = ["10.255.0.1", "192.0.2.7", "198.51.100.9", "2001:db8:ffff::1", "2001:db9::1"];
    assert_eq!(refused(&bans, &all, now), all);
    assert!(refused(&bans, &["11.0.0.1", "192.0.2.6", "198.51.101.1", "2001:dba::", "2001:db9::2"], now).is_empty());
    assert_eq!(
        listed(&bans, now),
        ["10.0.0.0/8", "192.0.2.7/32", "198.51.100.0/24", "2001:db8::/32", "2001:db9::1/128"]
    );
    // The last word holds, longer or shorter.
    assert!(bans.ban(net("192.0.2.7"), MINUTE / 2, now));
    assert!(refused(&bans, &["192.0.2.7"], now + MINUTE / 2).is_empty());
    assert!(bans.ban(net("::/0"), Duration::MAX, now));
    assert_eq!(refused(&bans, &["::1", "11.0.0.1", "::ffff:11.0.0.1"], now + LONGEST_BAN - MINUTE), ["::1"]);
    assert!(refused(&bans, &["::1"], now + LONGEST_BAN).is_empty());
}

#[test]
fn unban_lifts_what_lies_in_a_network_and_forgets_what_was_broken() {
    let (bans, now) = (bans(rules(&[])), Instant::now());
    (0..4).for_each(|_| bans.count_violation(ip("192.0.2.1"), now));
    for network in ["192.0.2.0/28", "192.0.0.0/16", "2001:db8::/32"] {
        bans.ban(net(network), MINUTE, now);
    }
    assert_eq!(bans.unban(net("192.0.2.0/24")).len(), 2);
    assert_eq!(listed(&bans, now), ["192.0.0.0/16", "2001:db8::/32"]);
    assert_eq!(refused(&bans, &["192.0.2.1"], now).len(), 1, "the wider one holds");
    assert_eq!([0, 0].map(|_| bans.unban(net("0.0.0.0/0")).len()), [1, 0]);
    assert_eq!(bans.metrics.active.get(), 1);
    bans.count_violation(ip("192.0.2.1"), now);
    assert!(refused(&bans, &["192.0.2.1"], now).is_empty(), "the next small thing bans again");
}

#[test]
fn who_is_exempt_is_never_refused() {
    let (bans, now) = (bans(rules(&["10.1.0.0/16", "2001:db8::1"])), Instant::now());
    for _ in 0..100 {
        ["10.1.2.3", "2001:db8::1"].iter().for_each(|address| bans.count_violation(ip(address), now));
    }
    assert!(listed(&bans, now).is_empty(), "what they do is not counted");
    // The same holds for an operator's ban of the network around them, and for a neighbour in the same IPv6 /64.
    bans.ban(net("10.0.0.0/8"), MINUTE, now);
    (0..4).for_each(|_| bans.count_violation(ip("2001:db8::2"), now));
    assert_eq!(
        refused(&bans, &["10.1.2.3", "10.2.0.1", "2001:db8::1", "2001:db8::2"], now),
        ["10.2.0.1", "2001:db8::2"]
    );
    assert!(!bans.is_free_of_exempt(&net("10.0.0.0/8")) && !bans.is_free_of_exempt(&net("2001:db8::/64")));
    assert!(bans.is_free_of_exempt(&net("10.2.0.0/16")));
}

#[test]
fn other_rules_leave_bans_but_for_those_of_who_is_exempt_now() {
    let (bans, now) = (bans(rules(&[])), Instant::now());
    for address in ["192.0.2.1", "192.0.2.2"] {
        (0..4).for_each(|_| bans.count_violation(ip(address), now));
    }
    bans.ban(net("192.0.2.0/24"), MINUTE, now);
    (0..3).for_each(|_| bans.count_violation(ip("198.51.100.1"), now));
    let version = bans.version();
    bans.set(BanPolicy { lasting: MINUTE, ..rules(&["192.0.2.2"]) });
    assert_ne!(bans.version(), version);
    assert_eq!(listed(&bans, now), ["192.0.2.0/24", "192.0.2.1/32"]);
    assert!(refused(&bans, &["192.0.2.2"], now).is_empty());
    // Counts go on where `after` is the same, and the new time holds for new bans alone.
    bans.count_violation(ip("198.51.100.1"), now);
    assert_eq!(refused(&bans, &["192.0.2.1", "198.51.100.1"], now + MINUTE), ["192.0.2.1"]);
    bans.set(BanPolicy { after: Some(Quota::per(1, MINUTE)), ..rules(&[]) });
    (0..2).for_each(|_| bans.count_violation(ip("203.0.113.1"), now));
    assert_eq!(refused(&bans, &["203.0.113.1"], now).len(), 1);
    bans.set(BanPolicy { after: None, ..rules(&[]) });
    (0..9).for_each(|_| bans.count_violation(ip("203.0.113.2"), now));
    assert!(refused(&bans, &["203.0.113.2"], now).is_empty());
}

#[test]
fn a_full_table_has_room_for_what_ends_later_than_the_first_to_end() {
    let (bans, now) = (bans(rules(&[])), Instant::now());
    let address = |n: u32| IpAddr::V4(Ipv4Addr::from_bits(n));
    let count = BANS as u32;
    for n in 0..count {
        assert!(bans.ban(address(n).into(), MINUTE + Duration::from_secs(n.into()), now));
    }
    assert!(!bans.ban(net("::1"), MINUTE, now), "it would be the first to end");
    assert!(bans.ban(net("::1"), 2 * MINUTE, now));
    assert_eq!(bans.list(now).len(), BANS);
    assert_eq!(bans.check(address(0), now), Ok(()));
    assert_eq!(bans.check(address(1), now), Err(AdmissionError::Banned));
    assert!(bans.ban(address(1).into(), MINUTE, now), "one that is there needs no room");
    // An attacker with this many addresses cannot lift the operator's bans.
    assert!(bans.ban(net("203.0.113.0/24"), LONGEST_BAN, now));
    for n in 0..2 * count {
        let offender = IpAddr::V6(Ipv6Addr::from_bits(u128::from(n + 1) << 64));
        (0..4).for_each(|_| bans.count_violation(offender, now));
    }
    assert_eq!(refused(&bans, &["203.0.113.7"], now).len(), 1);
    let table = bans.read();
    assert_eq!(table.len(), BANS);
    assert!(table.capacity() <= 2 * BANS, "it goes on growing");
}

#[test]
fn threads_together_ban_once() {
    let (bans, now) = (bans(rules(&[])), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..1000).for_each(|n| bans.count_violation(IpAddr::V4(Ipv4Addr::from_bits(n % 3)), now)));
        }
    });
    assert_eq!((bans.list(now).len(), bans.metrics.made(BanReason::Rules)), (3, 3));
}

/// A random change of the bans.
#[derive(Debug, Clone)]
enum Step {
    Ban(IpNet, u64),
    Unban(IpNet),
    Pass(u64),
    Sweep,
}

fn network() -> impl Strategy<Value = IpNet> {
    // So few addresses that networks meet.
    let v4 = (0u32..16, 28u8..=32).prop_map(|(bits, prefix)| IpNet::new(Ipv4Addr::from_bits(bits).into(), prefix));
    let v6 = (0u128..8, 124u8..=128).prop_map(|(bits, prefix)| IpNet::new(Ipv6Addr::from_bits(bits).into(), prefix));
    prop_oneof![v4, v6].prop_map(|network| network.unwrap().trunc())
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (network(), 1u64..100).prop_map(|(network, seconds)| Step::Ban(network, seconds)),
        1 => network().prop_map(Step::Unban),
        2 => (0u64..50).prop_map(Step::Pass),
        1 => Just(Step::Sweep),
    ]
}

proptest! {
    #[test]
    fn as_a_list_of_all_bans_says(steps in prop::collection::vec(step(), 1..60)) {
        let (bans, mut now) = (bans(rules(&[])), Instant::now());
        let mut list: HashMap<IpNet, Instant> = HashMap::new();
        for step in steps {
            match step {
                Step::Ban(network, seconds) => {
                    let lasting = Duration::from_secs(seconds);
                    prop_assert!(bans.ban(network, lasting, now));
                    list.insert(network, now + lasting);
                }
                Step::Unban(network) => {
                    // Ended bans have no effect, whether they have been removed yet or not.
                    bans.unban(network);
                    list.retain(|other, _| !network.contains(other));
                }
                Step::Pass(seconds) => now += Duration::from_secs(seconds),
                Step::Sweep => {
                    bans.remove_ended(now);
                    list.retain(|_, until| *until > now);
                    prop_assert_eq!(bans.metrics.active.get(), list.len() as i64);
                }
            }
            let banned = |address: IpAddr| list.iter().any(|(net, until)| net.contains(&address) && *until > now);
            let v4 = (0..18).map(|n| IpAddr::V4(Ipv4Addr::from_bits(n)));
            for address in v4.chain((0..10).map(|n| IpAddr::V6(Ipv6Addr::from_bits(n)))) {
                prop_assert_eq!(bans.check(address, now).is_err(), banned(address), "{}", address);
            }
            let mut left: Vec<_> = list.iter().map(|(network, until)| (*network, *until)).collect();
            left.retain(|(_, until)| *until > now);
            left.sort_unstable();
            prop_assert_eq!(bans.list(now).iter().map(|ban| (ban.network, ban.until)).collect::<Vec<_>>(), left);
        }
    }
}

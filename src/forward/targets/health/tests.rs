use std::collections::HashMap;
use std::net::IpAddr;

use proptest::prelude::*;

use super::HealthChange::{Down, Up};
use super::*;
use otproxy_config::Destination;

const OFF: CheckConfig = CheckConfig::OFF;
const ON: CheckConfig = CheckConfig { kind: CheckKind::Tcp, inter: Duration::from_secs(5), fall: 3, rise: 2 };

/// Makes targets `1`, `2`, .., of which those with `true` are backups.
fn health(choice: TargetChoice, check: CheckConfig, backups: &[bool]) -> TargetHealth {
    let target = |(index, backup): (usize, &bool)| ForwardTarget {
        name: (index + 1).to_string(),
        destination: Destination::Core("links".to_owned()),
        backup: *backup,
        max_connections: None,
    };
    TargetHealth::new(choice, check, &backups.iter().enumerate().map(target).collect::<Vec<_>>())
}

fn player(number: u32) -> HostKey {
    HostKey::V4(number)
}

impl TargetHealth {
    /// Returns the targets in the order in which one connection would try them, if all failed and nothing was recorded.
    fn order(&mut self, who: HostKey, now: Instant) -> Vec<usize> {
        let mut tried = Vec::new();
        while let Some(next) = self.choose(who, &tried, now) {
            self.release(next.target);
            tried.push(next.target);
        }
        tried
    }

    fn fail(&mut self, target: usize, now: Instant) -> Option<HealthChange> {
        let failures = self.targets[target].failures;
        self.failed(Attempt { target, failures }, now)
    }
}

#[test]
fn first_is_the_order_of_the_file_and_backups_come_last() {
    let now = Instant::now();
    let mut health = health(TargetChoice::First, OFF, &[true, false, false]);
    assert_eq!(health.order(player(1), now), [1, 2, 0]);
    health.fail(1, now);
    assert_eq!(health.order(player(1), now), [2, 0, 1]);
    health.fail(2, now);
    assert_eq!(health.order(player(1), now), [0, 1, 2]);
    health.fail(0, now);
    assert_eq!(health.order(player(1), now), [1, 2, 0], "with nothing open all are tried all the same");
}

#[test]
fn without_checks_one_that_failed_is_tried_last_and_then_by_one_alone() {
    let start = Instant::now();
    let mut health = health(TargetChoice::First, OFF, &[false, false]);
    let mut now = start;
    for wait in [1, 2, 4, 8, 16, 30, 30, 30] {
        let tried = health.choose(player(1), &[], now).unwrap();
        assert_eq!(tried.target, 0, "{wait}");
        for other in 0..10 {
            let expected = usize::from(now != start);
            assert_eq!(health.choose(player(other), &[], now).unwrap().target, expected, "it is being found out");
        }
        let change = health.failed(tried, now);
        assert_eq!(change, (now == start).then_some(Down), "told once");
        let until = now + Duration::from_secs(wait);
        assert_eq!(health.order(player(1), now)[0], 1);
        assert_eq!(health.order(player(1), until - Duration::from_nanos(1))[0], 1);
        now = until;
    }
    let tried = health.choose(player(1), &[], now).unwrap();
    assert_eq!((tried.target, health.connected(tried)), (0, Some(Up)));
    let tried = health.choose(player(1), &[], now).unwrap();
    assert_eq!((tried.target, health.connected(tried)), (0, None));
    assert_eq!(health.failed(tried, now), Some(Down));
    assert_eq!(health.order(player(1), now + FIRST_WAIT)[0], 0, "it begins anew");
}

#[test]
fn who_was_to_find_out_and_left_costs_no_more_than_the_wait() {
    let now = Instant::now();
    let mut health = health(TargetChoice::First, OFF, &[false, false]);
    health.fail(0, now);
    let later = now + FIRST_WAIT;
    assert_eq!(health.choose(player(1), &[], later).unwrap().target, 0);
    health.release(0);
    assert_eq!(health.choose(player(1), &[], later).unwrap().target, 1);
    assert_eq!(health.choose(player(1), &[], later + FIRST_WAIT).unwrap().target, 0);
}

#[test]
fn many_that_fail_together_are_one_failure() {
    for check in [OFF, ON] {
        let now = Instant::now();
        let mut health = health(TargetChoice::First, check, &[false, false]);
        let tries: Vec<_> = (0..10).map(|n| health.choose(player(n), &[], now).unwrap()).collect();
        assert!(tries.iter().all(|tried| tried.target == 0));
        let changes: Vec<_> = tries.iter().filter_map(|tried| health.failed(*tried, now)).collect();
        assert_eq!((changes, health.targets[0].failures), (if check == OFF { vec![Down] } else { vec![] }, 1));
    }
}

#[test]
fn checks_have_it_fall_and_rise() {
    let now = Instant::now();
    let mut health = health(TargetChoice::First, ON, &[false, false]);
    let mut told = |passed: &str| -> Vec<Option<HealthChange>> {
        passed.chars().map(|passed| health.checked(0, passed == '+')).collect()
    };
    assert_eq!(told("--+--+"), [None; 6], "failures count in a row");
    assert_eq!(told("---"), [None, None, Some(Down)]);
    assert_eq!(told("--+-+-"), [None; 6], "and so do passes");
    assert_eq!(told("++"), [None, Some(Up)]);
    assert_eq!(told("--"), [None; 2]);
    assert_eq!(told("-"), [Some(Down)]);
    assert_eq!(told("+"), [None], "one pass of before does not count");
    assert_eq!(health.order(player(1), now), [1, 0]);
    assert_eq!(health.checked(0, true), Some(Up));
    assert_eq!(health.order(player(1), now), [0, 1]);
}

#[test]
fn with_checks_a_connect_that_failed_counts_as_one_and_nobody_else_tries_before_the_next_check() {
    let now = Instant::now();
    let mut health = health(TargetChoice::First, ON, &[false, false]);
    let tried = health.choose(player(1), &[], now).unwrap();
    assert_eq!(health.failed(tried, now), None);
    assert_eq!(health.order(player(1), now + LONGEST_WAIT * 10), [1, 0], "no clock opens it");
    // Chosen as the last resort: that it connects says nothing.
    let last = health.choose(player(1), &[1], now).unwrap();
    assert_eq!((last.target, health.connected(last)), (0, None));
    assert_eq!(health.order(player(1), now), [1, 0]);
    assert_eq!(health.checked(0, true), None);
    assert_eq!(health.order(player(1), now), [0, 1]);
    for change in [None, None, Some(Down)] {
        assert_eq!(health.fail(0, now), change);
    }
    // A target that is up and failed once comes before one that is down, backup or not.
    health.fail(1, now);
    assert_eq!(health.order(player(1), now), [1, 0]);
}

#[test]
fn who_is_not_ready_is_never_tried_and_a_backup_has_the_players() {
    let now = Instant::now();
    for check in [OFF, ON] {
        let mut health = health(TargetChoice::First, check, &[false, false, true]);
        for state in [TargetState::Drain, TargetState::Maint] {
            assert_eq!(health.set_state("1", state), Some((0, None)));
            assert_eq!(health.order(player(1), now), [1, 2]);
        }
        assert_eq!(health.set_state("2", TargetState::Drain), Some((1, None)));
        assert_eq!(health.order(player(1), now), [2]);
        assert_eq!(health.set_state("3", TargetState::Maint), Some((2, None)));
        assert_eq!(health.order(player(1), now), [0; 0], "not even with nothing else");
        assert_eq!(health.set_state("4", TargetState::Ready), None);
        assert_eq!(health.set_state("2", TargetState::Ready), Some((1, None)));
        assert_eq!(health.order(player(1), now), [1]);
    }
}

#[test]
fn out_of_maintenance_it_is_up_until_it_fails_and_a_drained_one_is_what_checks_say() {
    let now = Instant::now();
    for check in [OFF, ON] {
        let mut health = health(TargetChoice::First, check, &[false]);
        health.set_state("1", TargetState::Drain);
        for _ in 0..3 {
            health.fail(0, now);
        }
        assert_eq!(health.is_up(0), Some(false));
        assert_eq!(health.set_state("1", TargetState::Ready), Some((0, None)));
        assert_eq!(health.is_up(0), Some(false));
        health.set_state("1", TargetState::Maint);
        assert_eq!(health.set_state("1", TargetState::Drain), Some((0, Some(Up))));
        assert_eq!(health.set_state("1", TargetState::Ready), Some((0, None)));
        assert_eq!(health.fail(0, now), (check == OFF).then_some(Down), "as one of which nothing is known");
    }
}

#[test]
fn what_is_known_of_a_target_outlives_a_reload_and_nobody_takes_another_for_it() {
    let now = Instant::now();
    let target = |name: &str, host: &str| ForwardTarget {
        name: name.to_owned(),
        destination: Destination::Core(host.to_owned()),
        backup: false,
        max_connections: None,
    };
    let mut health = TargetHealth::new(TargetChoice::Least, OFF, &[target("1", "a"), target("2", "b")]);
    let tried: Vec<_> = (0..3).map(|n| health.choose(player(n), &[], now).unwrap()).collect();
    assert_eq!(tried.iter().map(|tried| tried.target).collect::<Vec<_>>(), [0, 1, 0]);
    assert_eq!(health.failed(tried[1], now), Some(Down));
    // One more in front changes all names.
    let numbers = health.set(TargetChoice::Least, OFF, &[target("1", "c"), target("2", "a"), target("3", "b")]);
    assert_eq!((numbers, health.is_up(1)), (vec![2, 0, 1], Some(false)));
    assert_eq!(health.order(player(1), now), [2, 0, 1], "connections count where they are");
    health.release(0);
    health.release(0);
    assert_eq!(health.targets[1].connections, 0);
    // A target that is removed and added again is a new one: its old connections report on the old one.
    health.set(TargetChoice::First, OFF, &[target("1", "a")]);
    assert_eq!((health.connected(tried[1]), health.checked(1, true), health.is_up(1)), (None, None, None));
    health.release(1);
    let numbers = health.set(TargetChoice::First, OFF, &[target("1", "a"), target("2", "b")]);
    assert_eq!((numbers, health.is_up(3)), (vec![0, 3], Some(true)));
    // Changed from tests by connections to checks, and back.
    assert_eq!(health.failed(Attempt { target: 3, failures: 0 }, now), Some(Down));
    health.set(TargetChoice::First, ON, &[target("1", "a"), target("2", "b")]);
    assert_eq!(health.order(player(1), now + LONGEST_WAIT), [0, 3], "only checks have it up again");
    assert_eq!((health.checked(3, true), health.checked(3, true)), (None, Some(Up)));
    health.checked(0, false);
    health.set(TargetChoice::First, OFF, &[target("1", "a"), target("2", "b")]);
    assert_eq!(health.order(player(1), now), [0, 3]);
}

#[test]
fn a_full_target_is_not_tried_until_a_connection_of_it_ends() {
    let now = Instant::now();
    let target = |name: &str, most: Option<usize>| ForwardTarget {
        name: name.to_owned(),
        destination: Destination::Core(name.to_owned()),
        backup: false,
        max_connections: most,
    };
    let mut health = TargetHealth::new(TargetChoice::First, OFF, &[target("a", Some(2)), target("b", Some(1))]);
    let next = |health: &mut TargetHealth| health.choose(player(1), &[], now).map(|chosen| chosen.target);
    assert_eq!([(); 4].map(|()| next(&mut health)), [Some(0), Some(0), Some(1), None]);
    health.release(0);
    assert_eq!([(); 2].map(|()| next(&mut health)), [Some(0), None]);
    health.set(TargetChoice::First, OFF, &[target("a", None), target("b", Some(1))]);
    assert_eq!([(); 2].map(|()| next(&mut health)), [Some(0), Some(0)]);
}

#[test]
fn what_the_operator_wants_outlives_a_reload() {
    let target = |name: &str, place: &str| ForwardTarget {
        name: name.to_owned(),
        destination: Destination::Core(place.to_owned()),
        backup: false,
        max_connections: None,
    };
    let mut health = TargetHealth::new(TargetChoice::First, OFF, &[target("1", "a"), target("2", "b")]);
    health.set_state("2", TargetState::Maint);
    let states = |health: &TargetHealth| health.list().iter().map(|view| view.state).collect::<Vec<_>>();
    // A new one in front, in a file without names: a target that moves on in the list stays the same.
    health.set(TargetChoice::First, OFF, &[target("1", "new"), target("2", "a"), target("3", "b")]);
    assert_eq!(states(&health), [TargetState::Ready, TargetState::Ready, TargetState::Maint]);
    // Another destination under the same name.
    health.set(TargetChoice::First, OFF, &[target("2", "a"), target("3", "moved"), target("4", "another")]);
    assert_eq!(states(&health), [TargetState::Ready, TargetState::Maint, TargetState::Ready]);
    health.set(TargetChoice::First, OFF, &[target("2", "a")]);
    health.set(TargetChoice::First, OFF, &[target("2", "a"), target("3", "moved")]);
    assert_eq!(states(&health), [TargetState::Ready; 2], "one that was gone is another one");
}

#[test]
fn the_list_says_what_is_known() {
    let (now, rtt) = (Instant::now(), Some(Duration::from_millis(7)));
    let mut health = health(TargetChoice::First, ON, &[false, true]);
    let check = LastCheck { result: CheckResult::Ok, at: now, round_trip: rtt };
    health.record_check(0, check);
    for _ in 0..3 {
        health.checked(1, false);
    }
    health.choose(player(1), &[], now).unwrap();
    let view = |name: &str| TargetSnapshot {
        name: name.to_owned(),
        destination: Destination::Core("links".to_owned()),
        up: true,
        state: TargetState::Ready,
        backup: false,
        connections: 0,
        check: None,
    };
    let first = TargetSnapshot { connections: 1, check: Some(check), ..view("1") };
    assert_eq!(health.list(), [first, TargetSnapshot { up: false, backup: true, ..view("2") }]);
}

#[test]
fn least_has_the_fewest_connections() {
    let now = Instant::now();
    let mut health = health(TargetChoice::Least, OFF, &[false, false, false, true]);
    let chosen: Vec<_> = (0..7).map(|n| health.choose(player(n), &[], now).unwrap().target).collect();
    assert_eq!(chosen, [0, 1, 2, 0, 1, 2, 0]);
    health.release(2);
    assert_eq!(health.choose(player(1), &[], now).unwrap().target, 2);
    health.release(2);
    health.release(1);
    // 3, 1, 1 and a backup with none.
    assert_eq!(health.order(player(1), now), [1, 2, 0, 3]);
    health.fail(1, now);
    assert_eq!(health.order(player(1), now), [2, 0, 3, 1]);
}

#[test]
fn source_spreads_players_and_counts_ipv6_by_64() {
    let now = Instant::now();
    let mut health = health(TargetChoice::Source, OFF, &[false; 4]);
    let mut counts = HashMap::new();
    for number in 0..10_000 {
        *counts.entry(health.choose(player(number), &[], now).unwrap().target).or_insert(0) += 1;
    }
    assert!(counts.len() == 4 && counts.values().all(|count| (2200..2800).contains(count)), "{counts:?}");
    let key = |address: &str| HostKey::from(address.parse::<IpAddr>().unwrap());
    let networks = |third: u32| key(&format!("2001:db8:0:{third:x}::1"));
    for third in 0..100 {
        let same = key(&format!("2001:db8:0:{third:x}:ffff::2"));
        assert_eq!(health.order(networks(third), now), health.order(same, now));
    }
    let firsts: std::collections::HashSet<_> = (0..100).map(|third| health.order(networks(third), now)[0]).collect();
    assert_eq!(firsts.len(), 4);
}

/// Checks that scores never change, as edges of different versions must agree.
#[test]
fn scores_stay_what_they_are() {
    assert_eq!(score("1", HostKey::V4(0xC000_0201)), 5_165_843_132_137_273_645);
    assert_eq!(score("waw", HostKey::V6(0x2001_0DB8_0000_0001)), 2_061_196_581_835_999_058);
}

proptest! {
    /// Checks that only the players of failed targets move, and that they come back.
    #[test]
    fn source_is_stable_when_others_fall(count in 2usize..8, fallen in any::<u8>(), number: u32, checked: bool) {
        let now = Instant::now();
        let mut health = health(TargetChoice::Source, if checked { ON } else { OFF }, &vec![false; count]);
        let before = health.order(player(number), now);
        let fallen = |target: usize| fallen >> target & 1 == 1;
        for target in (0..count).filter(|target| fallen(*target)) {
            for _ in 0..ON.fall {
                health.fail(target, now);
            }
        }
        let expected: Vec<_> = before.iter().copied().filter(|target| !fallen(*target)).collect();
        let after = health.order(player(number), now);
        prop_assert_eq!(&after[..expected.len()], expected);
        for target in (0..count).filter(|target| fallen(*target)) {
            let back = (0..ON.rise).find_map(|_| health.checked(target, true));
            prop_assert_eq!(back, Some(Up));
        }
        if checked {
            prop_assert_eq!(health.order(player(number), now), before);
        }
    }

    /// Checks that, whatever happens, a connection tries each target once, none that is open after one that is not, and
    /// no backup before another that is as good; that changes alternate, and that connections are counted.
    #[test]
    fn any_events(
        checked: bool, choice in 0usize..3, backups in prop::collection::vec(any::<bool>(), 1..6),
        events in prop::collection::vec((0usize..6, 0u8..5, 0u64..40), 0..200),
    ) {
        let (count, mut now) = (backups.len(), Instant::now());
        let choice = [TargetChoice::First, TargetChoice::Least, TargetChoice::Source][choice];
        let mut health = health(choice, if checked { ON } else { OFF }, &backups);
        let (mut held, mut up) = (Vec::<Attempt>::new(), vec![true; count]);
        for (target, event, seconds) in events {
            let target = target % count;
            now += Duration::from_secs(seconds);
            let (about, change) = match event {
                0 => {
                    held.extend(health.choose(player(target as u32), &[], now));
                    (target, None)
                }
                1 if !held.is_empty() => {
                    let tried = held.swap_remove(target % held.len());
                    health.release(tried.target);
                    (tried.target, health.failed(tried, now))
                }
                2 if !held.is_empty() => {
                    let tried = held[target % held.len()];
                    (tried.target, health.connected(tried))
                }
                3 | 4 if checked => (target, health.checked(target, event == 3)),
                _ => (target, None),
            };
            if let Some(change) = change {
                prop_assert_ne!(up[about], change == Up, "told twice");
                up[about] = change == Up;
            }
            for (target, standing) in health.targets.iter().enumerate() {
                prop_assert_eq!(standing.up, up[target]);
                prop_assert_eq!(standing.connections, held.iter().filter(|tried| tried.target == target).count());
            }
            let open: Vec<_> = health.targets.iter().map(|standing| standing.is_open(checked, now)).collect();
            let order = health.order(player(1), now);
            let ranks: Vec<_> = order.iter().map(|&target| (!open[target], open[target] && backups[target])).collect();
            prop_assert!(ranks.is_sorted(), "{order:?} {ranks:?}");
            let mut all = order.clone();
            all.sort_unstable();
            prop_assert_eq!(all, (0..count).collect::<Vec<_>>());
        }
    }
}

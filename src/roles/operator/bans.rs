//! Bans, as an operator lists and makes them.

use std::cmp::Reverse;
use std::time::{Duration, Instant, SystemTime};

use ipnet::IpNet;

use crate::admin::api::{self, ApiError, BannedBy, BansQuestion, Network, Time, Unbanned};
use crate::admission::{BanReason, Bans, LONGEST_BAN};

/// Returns present bans, the longest first.
pub(super) fn bans(bans: &Bans, asked: &BansQuestion, nftables: bool) -> api::BansView {
    let (now, clock) = (Instant::now(), SystemTime::now());
    let meets = |one: IpNet, other: IpNet| one.contains(&other) || other.contains(&one);
    let mut list = bans.list(now);
    list.retain(|ban| asked.address.is_none_or(|address| meets(address.0, ban.network)));
    let total = list.len() as u64;
    list.sort_by_key(|ban| (Reverse(ban.until), ban.network));
    list.truncate(asked.limit.get());
    let ban = |ban: &crate::admission::Ban| {
        let left = ban.until.saturating_duration_since(now);
        api::BanView {
            network: Network(ban.network),
            edge: ban.edge.as_deref().map(str::to_owned),
            until: Time(clock + left),
            seconds_left: left.as_secs(),
            by: match ban.reason {
                BanReason::Operator => BannedBy::Operator,
                BanReason::Rules => BannedBy::Rules,
            },
        }
    };
    api::BansView { total, nftables, bans: list.iter().map(ban).collect() }
}

/// Bans a network; returns the ban's last moment.
pub(super) fn ban(bans: &Bans, network: Network, lasts: Duration) -> Result<SystemTime, ApiError> {
    let lasts = lasts.min(LONGEST_BAN);
    if !bans.is_free_of_exempt(&network.0) {
        return Err(ApiError::conflict(
            format!("{network} has somebody in it who is never banned: an address of `bans.exempt`, or a trusted peer"),
            "ban a smaller network, or take the address out of `bans.exempt`",
        ));
    }
    if !bans.ban(network.0, lasts, Instant::now()) {
        return Err(ApiError::unavailable(
            "there are as many bans as there can be, and all of them last longer",
            "unban some, or put networks into `deny`",
        ));
    }
    Ok(SystemTime::now() + lasts)
}

/// Ends the bans of a network, and of all networks within it.
pub(super) fn unban(bans: &Bans, network: Network) -> Result<Unbanned, ApiError> {
    let networks: Vec<_> = bans.unban(network.0).into_iter().map(|ban| Network(ban.network)).collect();
    if networks.is_empty() {
        return Err(ApiError::not_found(not_banned(network), "see who is: `otproxy bans`"));
    }
    Ok(Unbanned { networks, edges: Vec::new() })
}

/// Returns the words of the refusal to end a ban that there is not.
pub(super) fn not_banned(network: Network) -> String {
    format!("{network} is not banned")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::api::PageSize;
    use crate::admission::{BanMetrics, BanPolicy};
    use crate::metrics::Metrics;
    use otproxy_config::AddressSet;
    use otproxy_protocol::quota::Quota;

    fn net(text: &str) -> Network {
        text.parse().unwrap()
    }

    fn table() -> std::sync::Arc<Bans> {
        let exempt: AddressSet = std::iter::once(net("10.0.0.1").0).collect();
        let after = Some(Quota::per(1, Duration::from_secs(60)));
        Bans::new(BanPolicy { after, lasting: Duration::from_secs(5000), exempt }, BanMetrics::new(&Metrics::new()))
    }

    #[test]
    fn bans_are_listed_longest_first_and_by_what_they_have_in_common_with_a_network() {
        let table = table();
        ban(&table, net("192.0.2.0/24"), Duration::from_secs(100)).unwrap();
        ban(&table, net("198.51.100.7"), Duration::from_secs(1000)).unwrap();
        let broken = "2001:db8::1".parse().unwrap();
        (0..2).for_each(|_| table.count_violation(broken, Instant::now()));
        let ask = |address: Option<&str>| {
            let asked = BansQuestion { address: address.map(net), ..BansQuestion::default() };
            let found = bans(&table, &asked, true);
            assert_eq!(found.total, found.bans.len() as u64);
            found.bans.iter().map(|ban| format!("{} {}", ban.network, ban.by)).collect::<Vec<_>>()
        };
        let all = ["2001:db8::/64 rules", "198.51.100.7 operator", "192.0.2.0/24 operator"];
        assert_eq!(ask(None), all);
        assert_eq!(ask(Some("192.0.2.9")), all[2..]);
        assert_eq!(ask(Some("192.0.0.0/8")), all[2..]);
        assert_eq!(ask(Some("2001:db8::7")), all[..1]);
        assert_eq!(ask(Some("203.0.113.1")), [""; 0]);
        let one = bans(&table, &BansQuestion { limit: PageSize::new(1).unwrap(), ..BansQuestion::default() }, false);
        assert_eq!((one.total, one.bans.len(), one.nftables), (3, 1, false));
        assert!((4990..=5000).contains(&one.bans[0].seconds_left), "{:?}", one.bans);
    }

    #[test]
    fn what_cannot_be_banned_is_refused_and_what_is_not_banned_not_lifted() {
        let table = table();
        assert!(ban(&table, net("10.0.0.0/8"), Duration::from_secs(1)).unwrap_err().error.contains("bans.exempt"));
        assert!(unban(&table, net("192.0.2.1")).unwrap_err().error.contains("192.0.2.1 is not banned"));
        ban(&table, net("192.0.2.1"), Duration::from_secs(100)).unwrap();
        ban(&table, net("192.0.2.2"), Duration::from_secs(100)).unwrap();
        let mut lifted = unban(&table, net("192.0.2.0/24")).unwrap().networks;
        lifted.sort_by_key(|network| network.0);
        assert_eq!(lifted, [net("192.0.2.1"), net("192.0.2.2")]);
        assert_eq!(bans(&table, &BansQuestion::default(), false).total, 0);
    }
}

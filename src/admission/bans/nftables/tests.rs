use super::*;
use crate::admission::{BanMetrics, BanPolicy, BanReason, LONGEST_BAN};
use crate::metrics::Metrics;
use otproxy_config::AddressSet;

const MINUTE: Duration = Duration::from_secs(60);

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn sets(elements: Option<BTreeMap<IpNet, Instant>>) -> Sets {
    Sets { table: NftTable { family: "inet".to_owned(), name: "otproxy".to_owned() }, elements }
}

fn all(networks: &[(&str, Instant)]) -> BTreeMap<IpNet, Instant> {
    networks.iter().map(|(network, until)| (net(network), *until)).collect()
}

#[test]
fn the_kernel_gets_no_network_in_another_and_none_with_somebody_exempt() {
    let now = Instant::now();
    let networks = [
        "10.0.0.0/8",
        "10.0.0.0/16",
        "10.1.2.3/32",
        "11.0.0.0/32",
        "192.0.2.0/24",
        "192.0.2.7/32",
        "2001:db8::/32",
        "2001:db8::/64",
        "2001:db9::/64",
    ];
    let ban = |network, reporter| {
        let (network, reason) = (net(network), BanReason::Operator);
        Ban { reporter, edge: None, network, until: now, reason }
    };
    let mut bans: Vec<Ban> = networks.iter().map(|network| ban(network, Reporter::Socket)).collect();
    // The kernel knows no edges.
    bans.insert(0, ban("0.0.0.0/0", Reporter::Edge(1)));
    assert!(bans.is_sorted_by_key(|ban| ban.network), "as a list of bans is");
    let exempt = net("192.0.2.1/32");
    let wanted: Vec<_> =
        wanted(&bans, |network| !network.contains(&exempt)).into_keys().map(|n| n.to_string()).collect();
    assert_eq!(wanted, ["10.0.0.0/8", "11.0.0.0/32", "192.0.2.7/32", "2001:db8::/32", "2001:db9::/64"]);
}

#[test]
fn what_is_not_known_is_told_whole() {
    let now = Instant::now();
    assert_eq!(
        sets(None).script(&BTreeMap::new(), now),
        "flush set inet otproxy banned4\nflush set inet otproxy banned6\n"
    );
    let wanted = all(&[
        ("192.0.2.1/32", now + MINUTE),
        ("192.0.2.2/32", now + Duration::from_millis(1999)),
        ("192.0.2.3/32", now + Duration::from_millis(999)),
        ("2001:db8::/64", now + LONGEST_BAN),
    ]);
    assert_eq!(
        sets(None).script(&wanted, now),
        "flush set inet otproxy banned4\n\
         flush set inet otproxy banned6\n\
         add element inet otproxy banned4 { 192.0.2.1/32 timeout 60s, 192.0.2.2/32 timeout 1s }\n\
         add element inet otproxy banned6 { 2001:db8::/64 timeout 2592000s }\n"
    );
}

#[test]
fn of_what_is_known_only_the_difference_is_told() {
    let now = Instant::now();
    let before = all(&[
        ("192.0.2.1/32", now + MINUTE),
        ("192.0.2.2/32", now + MINUTE),
        ("192.0.2.3/32", now),
        ("2001:db8::/64", now + MINUTE),
        ("2001:db8:0:1::/64", now + MINUTE),
    ]);
    assert_eq!(sets(Some(before.clone())).script(&before, now), "");
    let mut wanted = before.clone();
    wanted.remove(&net("192.0.2.2/32"));
    wanted.remove(&net("192.0.2.3/32"));
    wanted.insert(net("192.0.2.4/32"), now + MINUTE);
    wanted.insert(net("2001:db8::/64"), now + 2 * MINUTE);
    assert_eq!(
        sets(Some(before)).script(&wanted, now),
        "add element inet otproxy banned4 { 192.0.2.2/32 }\n\
         add element inet otproxy banned6 { 2001:db8::/64 }\n\
         delete element inet otproxy banned4 { 192.0.2.2/32 }\n\
         delete element inet otproxy banned6 { 2001:db8::/64 }\n\
         add element inet otproxy banned4 { 192.0.2.4/32 timeout 60s }\n\
         add element inet otproxy banned6 { 2001:db8::/64 timeout 120s }\n",
        "what has ended by itself is not deleted"
    );
}

#[test]
fn an_error_has_its_remedy() {
    let table = sets(None).table;
    let privilege = "`AmbientCapabilities=CAP_NET_ADMIN`, `CapabilityBoundingSet=CAP_NET_ADMIN`, `PrivateUsers=no`, \
        `RestrictAddressFamilies=AF_NETLINK`; then `systemctl restart otproxy-edge`";
    for error in [
        "Error: Could not process rule: Operation not permitted",
        "netlink.c:59: Unable to initialize Netlink socket: Address family not supported by protocol",
        "Unable to initialize Netlink socket: Permission denied",
    ] {
        let remedy = nft_remedy(&table, error);
        assert!(remedy.ends_with(privilege) && !remedy.contains("add set"), "{error}: {remedy}");
    }
    assert_eq!(nft_remedy(&table, "nft cannot be run: No such file or directory (os error 2)"), "apt install nftables");
    let remedy = nft_remedy(&table, "Error: No such file or directory");
    assert!(remedy.contains("nft 'add set inet otproxy banned4 { type ipv4_addr; flags interval,timeout; }'"));
    let other = nft_remedy(&table, "Error: syntax error");
    assert_eq!(other, "see as root what is there: nft list table inet otproxy");
    // The document has the same lines and commands.
    let document = include_str!("../../../../docs/security.md");
    for line in NFT_UNIT_LINES {
        assert!(document.contains(&format!("\n{line}\n")), "{line}");
    }
    let commands: Vec<_> = remedy.split("nft ").skip(1).map(|part| part.trim_end_matches("; ")).collect();
    assert_eq!(commands.len(), 6);
    for command in commands {
        assert!(document.contains(&format!("\nnft {command}\n")), "{command}");
    }
}

/// Checks a failure, for which a table that does not exist will do.
#[test]
fn a_failure_is_counted_and_tried_again_after_a_while() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let metrics = BanMetrics::new(&Metrics::new());
    let bans = Bans::new(BanPolicy { after: None, lasting: MINUTE, exempt: AddressSet::default() }, metrics.clone());
    let table = NftTable { family: "inet".to_owned(), name: "otproxy-that-is-not-there".to_owned() };
    let mut kernel = KernelBans::new(table, metrics.nftables_errors.clone());
    runtime.block_on(async {
        kernel.follow(&bans).await;
        assert_eq!((kernel.errors.get(), kernel.failures, kernel.version), (1, 1, None));
        kernel.follow(&bans).await;
        assert_eq!(kernel.errors.get(), 1, "not at once");
        kernel.not_before = None;
        kernel.follow(&bans).await;
        assert_eq!((kernel.errors.get(), kernel.failures), (2, 2));
    });
}

use super::*;
use crate::doctor::outside::edge::StatusError;
use crate::doctor::outside::{EdgeList, EdgePorts, ListedEdge};
use crate::doctor::passed;
use crate::probe::{PingFigures, Pinged, ProbeError};
use otproxy_config::HostPort;

const MS: Duration = Duration::from_millis(1);

/// Returns an edge that does all it should, with this ping.
fn edge(host: &str, address: &str, ping: u32) -> SeenEdge {
    let mut links = PingFigures::default();
    links.count(&Pinged { number: 1, connect: None, result: Ok(ping * MS) });
    let status = ServerStatus {
        name: "Antica".to_owned(),
        address: host.to_owned(),
        port: "7171".to_owned(),
        online: Some(12),
        max: Some(100),
    };
    let address: IpAddr = address.parse().unwrap();
    SeenEdge {
        listed: ListedEdge { at: HostPort { host: host.to_owned(), port: 7162 }, priority: 0 },
        addresses: vec![address],
        links,
        login: Ok(MS),
        status: Ok(status),
        shown: vec![address],
        games: Vec::new(),
    }
}

/// Has nothing of an edge work.
fn dead(mut edge: SeenEdge) -> SeenEdge {
    let error = ProbeError::Silent(MS);
    edge.links = PingFigures::default();
    edge.links.count(&Pinged { number: 1, connect: None, result: Err(error.clone()) });
    (edge.login, edge.status) = (Err(error), Err(StatusError::Closed));
    edge
}

fn checks(edges: &[SeenEdge]) -> Vec<DoctorCheck> {
    let ports = EdgePorts { login: 7171, status: 7171, games: Vec::new() };
    let outside = Outside { list: EdgeList::default(), ports, core: None };
    of(&outside, edges, &chosen(edges))
}

fn words(checks: &[DoctorCheck]) -> Vec<String> {
    checks.iter().map(|check| format!("{} {}", check.check, check.status.as_str())).collect()
}

fn find<'c>(checks: &'c [DoctorCheck], kind: &str) -> &'c DoctorCheck {
    checks.iter().find(|check| check.check == kind).unwrap()
}

#[test]
fn a_client_takes_the_two_with_the_least_ping_and_priority() {
    let mut edges = [
        edge("p1.example", "198.51.100.1", 30),
        edge("p2.example", "198.51.100.2", 20),
        edge("p3.example", "198.51.100.3", 10),
    ];
    assert_eq!(chosen(&edges), [2, 1]);
    edges[2].listed.priority = 50;
    assert_eq!(chosen(&edges), [1, 0]);
    let checks = checks(&edges);
    assert_eq!(
        find(&checks, "choice").message,
        "a client here plays over p2.example:7162 (20.0 ms) and p1.example:7162 (30.0 ms)"
    );
    assert!(checks.iter().all(|check| check.status == CheckStatus::Ok), "{checks:?}");
    assert_eq!(find(&checks, "status").message, "Antica: 12 of 100 players online, at p1.example:7171");
    edges[1] = dead(edge("p2.example", "198.51.100.2", 1));
    assert_eq!(chosen(&edges), [0, 2]);
}

#[test]
fn one_edge_that_fails_keeps_nobody_out_and_all_do() {
    let (good, bad) = (edge("p1.example", "198.51.100.1", 30), dead(edge("p2.example", "198.51.100.2", 1)));
    let mixed = checks(&[good, bad]);
    assert!(passed(&mixed), "{mixed:?}");
    assert_eq!(
        words(&mixed),
        ["link ok", "login ok", "status ok", "link warn", "login warn", "status warn", "choice warn"]
    );
    assert!(find(&mixed, "choice").message.contains("alone"), "{mixed:?}");

    let all = checks(&[dead(edge("p1.example", "198.51.100.1", 1)), dead(edge("p2.example", "198.51.100.2", 1))]);
    assert_eq!(
        words(&all),
        ["link fail", "login fail", "status fail", "link fail", "login fail", "status fail", "choice fail"]
    );
    assert!(all.iter().all(|check| check.remedy.as_ref().is_some_and(|remedy| !remedy.is_empty())), "{all:?}");

    // A name without an address is told once.
    let mut unresolved = dead(edge("p3.example", "198.51.100.1", 1));
    unresolved.addresses.clear();
    assert_eq!(words(&checks(&[unresolved])), ["link fail", "choice fail"]);

    // Without a status the game server is down, for all that can be told.
    let mut silent = edge("p1.example", "198.51.100.1", 1);
    silent.status = Err(StatusError::Silent(MS));
    assert!(!passed(&checks(&[silent])));
}

#[test]
fn one_host_under_two_names_is_one() {
    let edges = [edge("p1.example", "198.51.100.1", 1), edge("p2.example", "198.51.100.1", 1)];
    let choice = find(&checks(&edges), "choice").clone();
    assert_eq!(choice.status, CheckStatus::Warn);
    assert!(
        choice.message.ends_with("and both are 198.51.100.1: if that host fails, the game stands still"),
        "{choice:?}"
    );

    let mut two = edge("p1.example", "198.51.100.1", 1);
    two.addresses.push("198.51.100.2".parse().unwrap());
    let found = checks(&[two]);
    assert!(found[1].message.contains("198.51.100.1, 198.51.100.2: clients try the first"), "{found:?}");
}

#[test]
fn a_world_that_is_played_over_one_edge_keeps_nobody_out() {
    let with = |games: &[(u16, Result<Duration, GameError>)]| {
        let mut edge = edge("p1.example", "198.51.100.1", 1);
        edge.games = games.iter().map(|(port, first)| SeenGame { port: *port, first: first.clone() }).collect();
        edge
    };
    let games = |edges: &[SeenEdge]| {
        let mut checks = checks(edges);
        checks.retain(|check| check.check == "game");
        checks
    };
    let closed = || Err(GameError::Closed);
    let found = games(&[with(&[(7172, Ok(MS)), (7173, closed())]), with(&[(7172, closed()), (7173, closed())])]);
    assert_eq!(words(&found), ["game ok", "game fail", "game warn", "game fail"]);
    assert_eq!(found[0].message, "port 7172 leads to a game server, which speaks first, in 1.0 ms");
    let errors = [
        GameError::Connect(ProbeError::Silent(MS)),
        GameError::NoGame("`SSH-2.0-x`".to_owned()),
        GameError::Silent(MS),
        GameError::Untried,
    ];
    let found = games(&[with(&errors.map(|error| (7172, Err(error))))]);
    assert_eq!(words(&found), ["game fail", "game fail", "game warn", "game warn"]);
    assert!(found.iter().all(|check| check.remedy.as_ref().is_some_and(|remedy| !remedy.is_empty())), "{found:?}");
}

#[test]
fn a_status_of_any_length_is_shown_in_a_line() {
    let mut long = edge("p1.example", "198.51.100.1", 1);
    if let Ok(view) = &mut long.status {
        (view.name, view.address, view.port) = ("n".repeat(5000), "a.".repeat(5000), "9".repeat(5000));
    }
    long.shown.clear();
    let check = find(&checks(&[long]), "status").clone();
    assert!(check.message.starts_with(&format!("{}: 12 of 100", "n".repeat(64))), "{check:?}");
    assert!(check.message.len() < 4 * 64 + 100, "{check:?}");
}

#[test]
fn lost_pings_are_told() {
    let mut lossy = edge("p1.example", "198.51.100.1", 1);
    lossy.links.count(&Pinged { number: 2, connect: None, result: Err(ProbeError::Closed { first: false }) });
    let link = find(&checks(&[lossy]), "link").clone();
    assert_eq!(link.status, CheckStatus::Warn);
    assert!(
        link.message.starts_with("1 of 2 pings answered") && link.message.ends_with("; then it closed the link"),
        "{link:?}"
    );
    // An edge that cannot be tried from here is no failure.
    let mut untried = dead(edge("p1.example", "2001:db8::7", 1));
    untried.links = PingFigures::default();
    untried.links.count(&Pinged { number: 1, connect: None, result: Err(ProbeError::NoFamily) });
    assert_eq!(find(&checks(&[untried]), "link").status, CheckStatus::Warn);
}

#[test]
fn the_address_of_a_status_is_an_edges() {
    let shows = |address: &str, resolved: &[&str]| {
        let mut edges = [edge("p1.example", "198.51.100.1", 1), edge("p2.example", "10.0.0.7", 1)];
        if let Ok(view) = &mut edges[0].status {
            view.address = address.to_owned();
        }
        edges[0].shown = resolved.iter().map(|ip| ip.parse().unwrap()).collect();
        let check = find(&checks(&edges), "status").clone();
        (check.status == CheckStatus::Ok, check.message)
    };
    for (address, resolved) in [
        ("p1.example", &["198.51.100.1"][..]),
        ("P2.example", &[]),
        ("198.51.100.1", &["198.51.100.1"]),
        ("play.example", &["198.51.100.1", "203.0.113.9"]),
        // Edges of a network of one's own are edges.
        ("10.0.0.7", &["10.0.0.7"]),
        ("", &[]),
    ] {
        assert!(shows(address, resolved).0, "{address}");
    }
    for (address, resolved, says) in [
        ("127.0.0.1", &["127.0.0.1"][..], "nobody elsewhere reaches that address"),
        ("192.168.1.9", &["192.168.1.9"], "nobody elsewhere reaches that address"),
        ("fd00::1", &["fd00::1"], "nobody elsewhere reaches that address"),
        ("203.0.113.9", &["203.0.113.9"], "that is no edge of this list"),
        ("core.example", &["203.0.113.9"], "that is no edge of this list"),
        ("nowhere.example", &[], "that name does not resolve"),
    ] {
        let (ok, message) = shows(address, resolved);
        assert!(!ok && message.contains(says), "{address}: {message}");
    }
}

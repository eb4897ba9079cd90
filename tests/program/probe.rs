//! `otproxy probe`, run as users run it: against an edge with its core and a game server's status, and against what is none.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use serde_json::Value;

use crate::common::process::{failed, file, otproxy, text};
use crate::common::role_process::RoleProcess;

/// Runs it; returns its exit code, and what it says on stdout. It has nothing for stderr.
fn probe(arguments: &[&str]) -> (Option<i32>, String) {
    let arguments: Vec<_> = ["probe"].iter().chain(arguments).copied().collect();
    let output = otproxy(&arguments).output().expect("the program starts");
    assert_eq!(text(&output.stderr), "", "{arguments:?}");
    (output.status.code(), text(&output.stdout))
}

fn json(arguments: &[&str]) -> (Option<i32>, Value) {
    let (code, said) = probe(&[arguments, &["--json"]].concat());
    (code, serde_json::from_str(&said).expect("JSON"))
}

/// A game server that answers requests for the status for as long as it is asked.
fn game_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut request = [0; 8];
            if stream.read_exact(&mut request).is_ok() {
                let _ = stream.write_all(
                    b"<tsqp><serverinfo servername='Antica \x1b[31m' ip='203.0.113.9' port='7171'/><players online='12' max='100'/></tsqp>",
                );
            }
        }
    });
    address
}

/// A game server's port for games, where it speaks first: with these bytes.
fn speaks(first: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let _ = stream.write_all(first);
            // Until the other side has gone.
            let _ = stream.read(&mut [0]);
        }
    });
    address
}

/// A core, and an edge with two addresses for links and one for logins, which publishes this address.
fn core_and_edge(published: &str) -> (RoleProcess, RoleProcess) {
    let core = RoleProcess::with(
        "core",
        "edges: [{ name: a, address: 127.0.0.1 }]\n\
         listeners: [{ name: links, kind: relay, listen: '127.0.0.1:0' }]\n\
         game_servers: [{ port: 7172, address: '127.0.0.1:9' }]\n",
    );
    let edge = RoleProcess::edge(&format!(
        "listeners:\n\
         \x20 - {{ name: links, listen: '127.0.0.1:0', forward_to: '{to}', expect: links }}\n\
         \x20 - {{ name: more, listen: '127.0.0.2:0', forward_to: '{to}', expect: links }}\n\
         \x20 - {{ name: login, listen: '127.0.0.1:0', forward_to: '{}', send_proxy: none, expect: login, status: {{ address: {published} }} }}\n",
        game_server(),
        to = core.addr("links"),
    ));
    (core, edge)
}

/// The status of each check, as `link ok`.
fn words(said: &Value) -> Vec<String> {
    let word = |check: &Value, key: &str| check[key].as_str().expect("a word").to_owned();
    let checks = said["checks"].as_array().expect("a list");
    checks.iter().map(|check| format!("{} {}", word(check, "check"), word(check, "status"))).collect()
}

#[tokio::test]
async fn a_set_up_that_players_get_into() {
    let (core, edge) = core_and_edge("127.0.0.1");
    let [links, more] = ["links", "more"].map(|name| edge.addr(name).to_string());
    let port = edge.addr("login").port().to_string();
    let (code, said) = probe(&[&links, &more, "--login-port", &port]);
    assert_eq!(code, Some(0), "{said}");
    let lines: Vec<_> = said.lines().collect();
    assert!(
        lines[0].starts_with(&format!("ok    link {links}: 5 of 5 pings answered through to the core, in ")),
        "{said}"
    );
    assert!(lines[1].starts_with(&format!("ok    link {more}: 5 of 5 pings answered")), "{said}");
    assert!(lines[2].starts_with("ok    choice: a client here plays over 127.0.0."), "{said}");
    assert!(lines[3].starts_with(&format!("ok    login 127.0.0.1: port {port} takes connections, in ")), "{said}");
    // The second address has no login: a player gets in all the same.
    assert!(
        lines[4].starts_with(&format!("warn  login 127.0.0.2: port {port} refuses connections; remedy: ")),
        "{said}"
    );
    let status = "ok    status 127.0.0.1: Antica \\u{1b}[31m: 12 of 100 players online, at 127.0.0.1:7171";
    assert_eq!(lines[5], status, "{said}");
    assert!(lines[6].starts_with("warn  status 127.0.0.2: "), "{said}");
    assert_eq!(lines[7], "5 ok, 2 warnings, 0 failed", "{said}");

    // The same as a list, of which the second edge is a spare.
    let list = format!(
        "{{\"proxies\":[{{\"host\":\"{links}\",\"priority\":500}},{{\"host\":\"{more}\",\"priority\":0}},{{\"host\":\"p1.example\"}}]}}"
    );
    let list = file("probe.json", &list);
    let (code, said) = json(&["--list", list.to_str().expect("UTF-8"), "--login-port", &port]);
    assert_eq!((code, &said["ok"]), (Some(0), &Value::Bool(true)), "{said}");
    assert_eq!(
        words(&said),
        ["list warn", "link ok", "link ok", "choice ok", "login ok", "login warn", "status ok", "status warn"]
    );
    let edges = said["edges"].as_array().expect("a list");
    assert_eq!((&edges[0]["edge"], &edges[0]["priority"]), (&links.into(), &500.into()));
    assert_eq!((&edges[0]["pongs"], &edges[0]["chosen"], &edges[1]["chosen"]), (&5.into(), &true.into(), &true.into()));
    assert_eq!((&edges[0]["status"]["online"], &edges[1]["status"]), (&12.into(), &Value::Null));
    assert!(said["checks"][3]["message"].as_str().expect("text").contains(&format!("plays over {more} (")), "{said}");

    // Nothing of it is a session.
    use crate::common::metrics::Metered;
    assert_eq!(core.metric("otproxy_relay_sessions_opened_total", &[]).await, 0.0);
    edge.stop().await;
    core.stop().await;
}

#[tokio::test]
async fn what_gives_the_core_away() {
    let (core, edge) = core_and_edge("203.0.113.9");
    let (links, port) = (edge.addr("links").to_string(), edge.addr("login").port().to_string());
    let (code, said) = json(&[&links, "--login-port", &port]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(words(&said), ["link ok", "choice warn", "login ok", "status warn"]);
    assert!(
        said["checks"][3]["message"].as_str().expect("text").contains("and that is no edge of this list"),
        "{said}"
    );

    // A core that answers is a failure, though players get in.
    let core_at = core.addr("links").to_string();
    let (code, said) = probe(&[&links, "--login-port", &port, "--core", &core_at]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("fail  core 127.0.0.1: can be reached from here, at ") && said.contains(&core_at), "{said}");
    assert!(said.contains("; remedy: close these ports in the firewall"), "{said}");
    edge.stop().await;
    core.stop().await;
}

#[tokio::test]
async fn the_ports_of_worlds_for_players_without_links() {
    let closed = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    closed.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    let down = closed.local_addr().expect("bound").as_socket().expect("an address");
    let targets = [
        ("game", speaks(b"\x0C\0\x11\x02\xE9\x03\x06\0\x1F\x01\x02\x03\x04\x05")),
        ("ssh", speaks(b"SSH-2.0-x\r\n")),
        ("down", down),
    ];
    let listeners: String = targets
        .iter()
        .map(|(name, to)| {
            format!("  - {{ name: {name}, listen: '127.0.0.1:0', forward_to: '{to}', send_proxy: none }}\n")
        })
        .collect();
    let edge = RoleProcess::edge(&format!("listeners:\n{listeners}"));
    let port = |name: &str| edge.addr(name).port().to_string();
    let ports = ["game", "ssh", "down"].map(port);
    let [game, ssh, down] = &ports;
    let arguments = ["127.0.0.1:1", "--game-port", game, "--game-port", ssh, "--game-port", down];
    let (_, said) = json(&arguments);
    let checks: Vec<_> =
        said["checks"].as_array().expect("a list").iter().filter(|check| check["check"] == "game").collect();
    let found: Vec<_> =
        checks.iter().map(|check| (&check["status"], check["message"].as_str().expect("text"))).collect();
    assert_eq!(found.len(), 3, "{said}");
    assert_eq!(found[0].0, "ok", "{said}");
    assert!(found[0].1.starts_with(&format!("port {game} leads to a game server, which speaks first, in ")), "{said}");
    assert_eq!(
        found[1],
        (&"fail".into(), format!("port {ssh} answers, and not as a game server: `SSH-2.0-x`").as_str())
    );
    assert_eq!(
        found[2],
        (
            &"fail".into(),
            format!("port {down} takes the connection, and closes it in place of the game server's first packet")
                .as_str()
        )
    );
    let games = &said["edges"][0]["games"];
    assert_eq!(games[0]["port"].to_string(), *game);
    assert!(games[0]["seconds"].is_f64() && games[1]["seconds"].is_null(), "{said}");
    edge.stop().await;
}

#[test]
fn a_set_up_that_nobody_gets_into() {
    let closed = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    closed.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    let at = closed.local_addr().expect("bound").as_socket().expect("an address");
    let (code, said) = json(&[&at.to_string(), "nowhere.invalid", "--login-port", &at.port().to_string()]);
    assert_eq!((code, &said["ok"]), (Some(1), &Value::Bool(false)), "{said}");
    assert_eq!(words(&said), ["link fail", "link fail", "choice fail", "login fail", "status fail"]);
    let checks = said["checks"].as_array().expect("a list");
    assert!(checks.iter().all(|check| check["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty())), "{said}");
    assert_eq!(checks[1]["message"], "does not resolve");
    assert_eq!(said["edges"][1]["addresses"], Value::Array(Vec::new()));
}

#[test]
fn edges_come_from_a_topology_too() {
    let topology = file(
        "probe-topology.yaml",
        "edges:\n  - { name: waw1, address: 198.51.100.7, public: p1.invalid }\n  - { name: fra1, address: 198.51.100.9, public: \
         p2.invalid, revoked: true }\n  - { name: sto1, address: 198.51.100.11, public: 127.0.0.9 }\n\
         game_servers: [{ port: 7172, address: '127.0.0.1:7172' }, { port: 7171, address: '127.0.0.1:7173' }]\n",
    );
    let (code, said) = json(&["--topology", topology.to_str().expect("UTF-8")]);
    assert_eq!(code, Some(1), "{said}");
    let edges: Vec<_> = said["edges"].as_array().expect("a list").iter().map(|edge| &edge["edge"]).collect();
    assert_eq!(edges, ["p1.invalid:7162", "127.0.0.9:7162"]);
    // The ports of worlds that edges forward; a name without an address has none to try.
    let games = |said: &Value| {
        said["edges"][1]["games"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|game| game["port"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(games(&said), [7172]);
    assert_eq!(said["edges"][0]["games"], Value::Array(Vec::new()));
    let (_, said) = json(&["--topology", topology.to_str().expect("UTF-8"), "--game-port", "7173"]);
    assert_eq!(games(&said), [7173]);
}

#[test]
fn what_is_wrong_with_the_question() {
    let says = |arguments: &[&str], code: i32, what: &str| {
        let arguments: Vec<_> = ["probe"].iter().chain(arguments).copied().collect();
        let error = failed(&otproxy(&arguments).output().expect("the program starts"), code);
        assert!(error.contains(what), "{arguments:?}: {error}");
    };
    says(&[], 2, "required arguments were not provided");
    says(&["p1.example", "--list", "edges.json"], 2, "cannot be used with");
    says(&["p1.example/x"], 2, "write it as `p1.example`");
    let many: Vec<_> = (0..33).map(|number| format!("p{number}.invalid")).collect();
    says(
        &many.iter().map(String::as_str).collect::<Vec<_>>(),
        2,
        "33 edges are too many for a client; 32 are the most",
    );
    says(&["--list", "nowhere.json"], 1, "cannot read nowhere.json");
    let list = |name: &str, text: &str, what: &str| {
        let path = file(name, text);
        says(&["--list", path.to_str().expect("UTF-8")], 1, what);
    };
    list("probe-html.json", "<html>", "is no JSON: ");
    list("probe-empty.json", "{\"proxies\":[]}", "has no edge that clients can use");
    list("probe-long.json", &" ".repeat((64 << 10) + 1), "it has more than 65536 bytes");
    let topology = file("probe-wrong.yaml", "edges: []\n");
    says(&["--topology", topology.to_str().expect("UTF-8")], 78, "edges: is an empty list");
}

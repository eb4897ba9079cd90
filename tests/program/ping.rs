//! `otproxy ping`, run as users run it: against an edge with its core, and against what is none.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Stdio;
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::process::{otproxy, text};
use crate::common::role_process::RoleProcess;

/// Runs it; returns its exit code, and what it says on stdout. It has nothing for stderr.
fn ping(arguments: &[&str]) -> (Option<i32>, String) {
    let arguments: Vec<_> = ["ping"].iter().chain(arguments).copied().collect();
    let output = otproxy(&arguments).output().expect("the program starts");
    assert_eq!(text(&output.stderr), "", "{arguments:?}");
    (output.status.code(), text(&output.stdout))
}

fn json(arguments: &[&str]) -> (Option<i32>, Value) {
    let (code, said) = ping(&[arguments, &["--json"]].concat());
    (code, serde_json::from_str(&said).expect("JSON"))
}

/// A core, and an edge that leads links to it.
fn core_and_edge(edges: &str) -> (RoleProcess, RoleProcess) {
    let core = RoleProcess::with(
        "core",
        &format!(
            "edges: [{{ name: a, address: {edges} }}]\n\
             listeners: [{{ name: links, kind: relay, listen: '127.0.0.1:0' }}]\n\
             game_servers: [{{ port: 7172, address: '127.0.0.1:9' }}]\n"
        ),
    );
    let edge = RoleProcess::edge(&format!(
        "listeners: [{{ name: links, listen: '127.0.0.1:0', forward_to: '{}', expect: links }}]\n",
        core.addr("links")
    ));
    (core, edge)
}

const QUICK: [&str; 4] = ["--count", "3", "--interval", "10ms"];

#[tokio::test]
async fn the_way_of_a_player_to_the_core_and_back() {
    let (core, edge) = core_and_edge("127.0.0.1");
    let at = edge.addr("links").to_string();
    let (code, said) = ping(&[&QUICK[..], &[&at]].concat());
    assert_eq!(code, Some(0), "{said}");
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 6, "{said}");
    assert!(lines[0].starts_with(&format!("{at}: pong 1 after ")) && lines[0].contains(", link opened in "), "{said}");
    assert!(lines[2].starts_with(&format!("{at}: pong 3 after ")) && lines[2].ends_with(" ms"), "{said}");
    assert_eq!(lines[4], format!("--- {at} ---"));
    assert!(lines[5].starts_with("3 pings, 3 pongs, 0 % lost; round trip min/avg/max "), "{said}");

    // An edge's host can ask the core itself: as an edge, and not otherwise.
    let core_at = core.addr("links").to_string();
    let (code, said) = json(&[&QUICK[..], &[&core_at, "--send-proxy"]].concat());
    assert_eq!((code, &said["ok"]), (Some(0), &Value::Bool(true)), "{said}");
    assert_eq!((&said["edges"][0]["pings"], &said["edges"][0]["pongs"]), (&3.into(), &3.into()));
    let trips = &said["edges"][0]["round_trip_seconds"];
    assert!(trips["min"].as_f64() <= trips["avg"].as_f64() && trips["avg"].as_f64() <= trips["max"].as_f64(), "{said}");

    // Nothing of it counts as a session, or as a player's round trip.
    use crate::common::metrics::Metered;
    assert_eq!(core.metric("otproxy_relay_sessions_opened_total", &[]).await, 0.0);
    edge.stop().await;
    core.stop().await;
}

#[tokio::test]
async fn an_edge_that_its_core_does_not_trust() {
    let (core, edge) = core_and_edge("192.0.2.1");
    let at = edge.addr("links").to_string();
    let (code, said) = ping(&[&QUICK[..], &[&at]].concat());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("{at}: no pong 1: closes the connection in place of a pong\n")), "{said}");
    assert!(said.contains("\n3 pings, 0 pongs, 100 % lost\n"), "{said}");
    let remedy = "closes the connection in place of a pong (3 times); remedy: the log of the edge says why";
    assert!(said.contains(remedy) && said.contains("or the core does not trust it"), "{said}");
    edge.stop().await;
    core.stop().await;
}

#[test]
fn others_that_answer_or_do_not() {
    let banner = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let [banner_at, silent_at] =
        [&banner, &silent].map(|listener| listener.local_addr().expect("an address").to_string());
    let serving = thread::spawn(move || {
        let (mut stream, _) = banner.accept().expect("a connection");
        stream.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n\x1b[31m").expect("writable");
        let _ = stream.read(&mut [0; 1024]);
    });
    let closed = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    closed.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    let closed_at = closed.local_addr().expect("bound").as_socket().expect("an address").to_string();

    let targets = [banner_at.as_str(), &silent_at, &closed_at, "nowhere.invalid"];
    let (code, said) = json(&[&["--count", "1", "--timeout", "100ms"], &targets[..]].concat());
    assert_eq!((code, &said["ok"]), (Some(1), &Value::Bool(false)));
    let errors: Vec<_> = said["edges"].as_array().expect("a list").iter().map(|edge| &edge["errors"][0]).collect();
    let words: Vec<_> = errors.iter().map(|error| error["error"].as_str().expect("a word")).collect();
    assert_eq!(words, ["no_link", "no_pong", "refused", "resolve"]);
    assert!(errors.iter().all(|error| error["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty())), "{said}");
    assert_eq!(errors[0]["message"], "answers, and not as a link: `SSH-2.0-OpenSS`");
    assert_eq!(said["edges"][3]["address"], Value::Null);
    serving.join().expect("no panic");

    let (code, said) = ping(&["nowhere.invalid", "--count", "1"]);
    assert_eq!(code, Some(1));
    assert_eq!(
        said,
        "\n--- nowhere.invalid:7162 ---\ndoes not resolve; remedy: correct the name, or see why this host cannot look it up: \
         `getent hosts NAME`\n"
    );
}

#[tokio::test]
async fn without_a_count_it_goes_on_until_ctrl_c() {
    let (core, edge) = core_and_edge("127.0.0.1");
    let at = edge.addr("links").to_string();
    let mut command = otproxy(&["ping", &at, "--count", "0", "--interval", "10ms"]);
    let mut running = command.stdout(Stdio::piped()).spawn().expect("the program starts");
    let mut out = running.stdout.take().expect("piped");
    let mut said = String::new();
    while !said.contains("pong 7 after") {
        let mut part = [0; 1024];
        let len = out.read(&mut part).expect("readable");
        assert!(len > 0, "{said}");
        said += &text(&part[..len]);
    }
    kill_process(Pid::from_child(&running), Signal::INT).expect("it runs");
    out.read_to_string(&mut said).expect("readable");
    assert_eq!(running.wait().expect("ended").code(), Some(0), "{said}");
    assert!(said.contains(" pongs, 0 % lost; round trip min/avg/max "), "{said}");
    edge.stop().await;
    core.stop().await;
}

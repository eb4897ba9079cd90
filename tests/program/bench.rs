//! The load test as users run it, against a core and edges as `main` starts them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Deref;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self};
use std::time::Duration;

use otproxy_testkit::mock::game_server::CHALLENGE;
use otproxy_testkit::mock::message::Message;
use otproxy_testkit::mock::packet::split;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common;
use crate::common::metrics::Metered;
use crate::common::process::{failed, otproxy, text, through};
use crate::common::role::Role;

/// Seconds after which `timeout` ends a program that hangs.
const HANG: &str = "120";

/// An address that no other test listens on, nor another run of these: its port cannot be lost to anybody.
fn address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let process = std::process::id().to_le_bytes();
    let host = Ipv4Addr::new(127, 64 + process[1] % 128, process[0], NEXT.fetch_add(1, Ordering::Relaxed));
    (host, 7999).into()
}

fn command(arguments: &[&str]) -> Command {
    through(otproxy(&[&["bench"], arguments].concat()), "timeout", &[HANG])
}

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().expect("`timeout` of coreutils")
}

/// The JSON that it printed, and its exit code; nothing on stderr.
#[track_caller]
fn json(arguments: &[&str]) -> (Value, Option<i32>) {
    let output = run(&[arguments, &["--json"]].concat());
    assert_eq!(text(&output.stderr), "", "{arguments:?}");
    (serde_json::from_slice(&output.stdout).expect("JSON"), output.status.code())
}

/// What it says on stderr; stdout must be empty.
#[track_caller]
fn fails(arguments: &[&str], code: i32) -> String {
    failed(&run(arguments), code)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count"))
}

/// A role beside the test, which must end as it is asked to.
struct Beside(Option<Role>);

impl Beside {
    fn start(yaml: &str) -> Self {
        Self(Some(Role::start(&format!("{yaml}\nshutdown_timeout: 0s\n"))))
    }

    /// A core with game servers; `servers` are the entries.
    fn core(servers: &str) -> Self {
        Self::start(&format!(
            "role: core\nedges: [{{ name: a, address: 127.0.0.1 }}]\n\
             listeners: [{{ name: links, kind: relay, listen: '127.0.0.1:0' }}]\ngame_servers: [{servers}]"
        ))
    }

    fn edge(to: SocketAddr) -> Self {
        Self::start(&format!(
            "role: edge\nworkers: 1\nadmin: {{ listen: off }}\n\
             listeners: [{{ name: links, listen: '127.0.0.1:0', forward_to: '{to}' }}]"
        ))
    }
}

impl Deref for Beside {
    type Target = Role;

    fn deref(&self) -> &Role {
        self.0.as_ref().expect("it runs")
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Some(role) = self.0.take().filter(|_| !thread::panicking()) {
            common::run(role.stop());
        }
    }
}

/// Counts follow what they count: waits until this one is `value`.
fn comes_to(core: &Role, name: &str, label: &str, value: u64) {
    common::run(core.wait(name, &[label], value as f64));
}

/// A core with the stand-in behind port 7999, and edges.
fn topology(edges: usize) -> (SocketAddr, Beside, Vec<Beside>, String) {
    let game = address();
    let core = Beside::core(&format!("{{ port: 7999, address: '{game}' }}"));
    let edges: Vec<_> = (0..edges).map(|_| Beside::edge(core.addr("links"))).collect();
    let list = edges.iter().map(|edge| edge.addr("links").to_string()).collect::<Vec<_>>().join(",");
    (game, core, edges, list)
}

#[test]
fn all_packets_are_counted_as_the_core_counts_them() {
    let (game, core, _edges, list) = topology(2);
    let game = game.to_string();
    let flags = ["--players", "6", "--seconds", "2", "--warmup", "0", "--up", "10", "--down", "25", "--threads", "2"];
    let (json, code) = json(&[&["--edges", &list, "--port", "7999", "--serve", &game], &flags[..]].concat());
    assert_eq!((code, &json["passed"], &json["early"]), (Some(0), &true.into(), &false.into()), "{json}");
    let (up, down) = (&json["to_game"], &json["to_players"]);
    assert_eq!(number(&up["sent"]), 6 * 2 * 10, "an open load has a fixed number of packets: {json}");
    assert_eq!(up["sent"], up["delivered"]);
    assert_eq!(down["sent"], down["delivered"]);
    assert!(number(&down["sent"]) >= 6 * 2 * 25 - 6, "{json}");
    for fault in ["lost", "duplicated", "reordered", "alien"] {
        assert_eq!((&up[fault], &down[fault]), (&0.into(), &0.into()), "{fault}");
    }
    // Each player says its terms and asks at the end; it is challenged, welcomed and told the verdict.
    let (ups, downs) = (number(&up["delivered"]) + 2 * 6, number(&down["delivered"]) + 3 * 6);
    comes_to(&core, "otproxy_relay_packets_total", "direction=\"in\"", ups);
    comes_to(&core, "otproxy_relay_packets_total", "direction=\"out\"", downs);
    comes_to(&core, "otproxy_relay_sessions_opened_total", "port=\"7999\"", 6);
    comes_to(&core, "otproxy_relay_sessions_ended_total", "port=\"7999\"", 6);
    comes_to(&core, "otproxy_relay_links_active", "", 0);
    let paths = json["paths"].as_array().unwrap();
    assert_eq!(paths.len(), 2);
    assert_eq!(paths.iter().map(|path| number(&path["first"])).sum::<u64>(), downs);
    assert!(paths.iter().all(|path| path["links"] == 6 && path["links_lost"] == 0), "{json}");
    // One clock: both ways are known, of every answer.
    let latencies = &json["seconds"];
    assert_eq!(number(&latencies["round_trip"]["count"]), 120, "{json}");
    assert_eq!(latencies["to_game"]["count"], latencies["round_trip"]["count"]);
    assert!(number(&latencies["to_players"]["count"]) >= 120);
    let ordered = ["p50", "p90", "p99", "p99_9", "max"].map(|key| latencies["round_trip"][key].as_f64().unwrap());
    assert!(ordered[0] > 0.0 && ordered.is_sorted(), "{ordered:?}");
}

#[test]
fn the_stand_in_reads_every_form_of_the_players_address() {
    let game = address();
    let forms = ["otc", "otc_reversed", "proxy_v1", "proxy_v2", "none"];
    let server = |(index, form)| format!("{{ port: {}, address: '{game}', player_address: {form} }}", index + 1);
    let servers: Vec<_> = forms.iter().enumerate().map(server).collect();
    let core = Beside::core(&servers.join(", "));
    let (edge, game) = (core.addr("links").to_string(), game.to_string());
    for port in 1..=forms.len() {
        let port = port.to_string();
        let flags = ["--players", "2", "--seconds", "1", "--warmup", "0", "--send-proxy", "--serve", &game];
        let (json, code) = json(&[&["--edges", &edge, "--port", &port], &flags[..]].concat());
        assert_eq!(code, Some(0), "{json}");
    }
}

#[test]
fn plain_connections_measure_an_edge_alone() {
    let game = address();
    let forward = Beside::edge(game);
    let (edge, game) = (forward.addr("links").to_string(), game.to_string());
    let flags = ["--raw", "--players", "4", "--seconds", "1", "--warmup", "0"];
    let output = run(&[&["--edges", &edge, "--serve", &game], &flags[..]].concat());
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{shown}{}", text(&output.stderr));
    for words in [&format!("4 players over {edge}, plain connections\n"), "\nround trip ", "\nPASSED: "] {
        assert!(shown.contains(words), "no {words:?} in:\n{shown}");
    }
    assert!(shown.lines().all(|line| line.len() <= 80), "{shown}");
}

/// A game server alone, in a process of its own.
struct Serving(Child);

impl Serving {
    fn start(at: SocketAddr) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_otproxy"));
        command.args(["bench", "--serve", &at.to_string()]).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut line = String::new();
        BufReader::new(child.stderr.take().expect("piped")).read_line(&mut line).expect("readable stderr");
        let serving = Self(child);
        assert_eq!(line, format!("A stand-in game server listens on {at}, until Ctrl-C.\n"));
        serving
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_game_server_in_another_process_has_another_clock() {
    let (game, _core, _edges, list) = topology(1);
    let mut serving = Serving::start(game);
    let (json, code) = json(&["--edges", &list, "--port", "7999", "--players", "3", "--seconds", "1", "--warmup", "0"]);
    assert_eq!(code, Some(0), "{json}");
    assert_eq!((&json["seconds"]["to_game"], &json["seconds"]["to_players"]), (&Value::Null, &Value::Null));
    assert_eq!(number(&json["seconds"]["round_trip"]["count"]), 15, "{json}");
    kill_process(Pid::from_child(&serving.0), Signal::INT).expect("it runs");
    assert_eq!(serving.0.wait().expect("it ends").code(), Some(0));
}

#[test]
fn a_signal_ends_it_early_with_a_verdict() {
    let (game, core, _edges, list) = topology(1);
    let game = game.to_string();
    let arguments = ["--edges", &list, "--port", "7999", "--serve", &game, "--players", "2", "--seconds", "3600"];
    // Without `timeout`, which would get the signal.
    let mut command = Command::new(env!("CARGO_BIN_EXE_otproxy"));
    command.arg("bench").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("the program starts");
    // More than terms: they play.
    common::run(core.wait_until("otproxy_relay_packets_total", &["direction=\"in\""], |packets| packets >= 10.0));
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    let output = child.wait_with_output().expect("it ends");
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{shown}{}", text(&output.stderr));
    assert!(shown.contains("\nEnded early; this is the verdict so far.\nPASSED: "), "{shown}");
}

/// A forward between a player and the stand-in that does something to packets of the load on their
/// way to the game server: `meddle` gets how many came before, and says how often one goes on; `None`
/// ends both connections.
fn meddler(game: SocketAddr, meddle: fn(u64) -> Option<usize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    // It ends with the test's process.
    thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, Ok(mut server)) = (client.unwrap(), TcpStream::connect(game)) else { continue };
            let (mut back, mut from) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || drop(std::io::copy(&mut from, &mut back)));
            thread::spawn(move || {
                let (mut input, mut buffer, mut count) = (Vec::new(), [0; 4096], 0);
                while let Ok(read @ 1..) = client.read(&mut buffer) {
                    input.extend_from_slice(&buffer[..read]);
                    while let Some((packet, _)) = split(&input) {
                        let times = match Message::of(packet) {
                            Some(Message::Up { .. }) => {
                                count += 1;
                                meddle(count)
                            }
                            _ => Some(1),
                        };
                        let Some(times) = times else {
                            let _ = server.shutdown(std::net::Shutdown::Both);
                            let _ = client.shutdown(std::net::Shutdown::Both);
                            return;
                        };
                        if server.write_all(&packet.repeat(times)).is_err() {
                            return;
                        }
                        let length = packet.len();
                        input.drain(..length);
                    }
                }
                let _ = server.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    addr
}

#[test]
fn every_fault_is_found_and_is_exit_code_1() {
    let lose: fn(u64) -> _ = |count| Some(if count == 3 { 0 } else { 1 });
    let double: fn(u64) -> _ = |count| Some(if count == 3 { 2 } else { 1 });
    let end: fn(u64) -> _ = |count| (count < 3).then_some(1);
    for (meddle, lost, duplicated, ended) in [(lose, 1, 0, 0), (double, 0, 1, 0), (end, 3, 0, 1)] {
        let game = address();
        let (edge, game) = (meddler(game, meddle).to_string(), game.to_string());
        let flags = ["--raw", "--players", "1", "--seconds", "1", "--warmup", "0"];
        let (json, code) = json(&[&["--edges", &edge, "--serve", &game], &flags[..]].concat());
        assert_eq!((code, &json["passed"]), (Some(1), &false.into()), "{json}");
        assert_eq!(number(&json["sessions_ended"]), ended, "{json}");
        // Where the connection ended, how many were sent before a write failed is not known.
        let found = number(&json["to_game"]["lost"]);
        assert!(if ended == 0 { found == lost } else { (1..=lost).contains(&found) }, "{json}");
        assert_eq!(number(&json["to_game"]["duplicated"]), duplicated, "{json}");
    }
}

#[test]
fn a_pause_of_the_relay_is_in_the_latencies_of_all_packets_that_it_held_up() {
    let pause: fn(u64) -> _ = |count| {
        if count == 2 {
            thread::sleep(Duration::from_millis(600));
        }
        Some(1)
    };
    let game = address();
    let (edge, game) = (meddler(game, pause).to_string(), game.to_string());
    let flags = ["--raw", "--players", "1", "--up", "10", "--seconds", "1", "--warmup", "0"];
    let (json, code) = json(&[&["--edges", &edge, "--serve", &game], &flags[..]].concat());
    assert_eq!(code, Some(0), "{json}");
    let trips = &json["seconds"]["round_trip"];
    assert_eq!(number(&trips["count"]), 10, "the load does not slow down: {json}");
    // Packets 2 to 7 are held up for 600, 500 and so on to 100 ms, or more: so are six of ten.
    assert!(trips["max"].as_f64() >= Some(0.6) && trips["p50"].as_f64() >= Some(0.1), "{json}");
}

#[test]
fn errors_name_the_place_and_the_remedy() {
    let (game, _core, _edges, list) = topology(1);
    let free = address().to_string();
    let game = game.to_string();
    let error = fails(&["--edges", &free, "--port", "7999"], 1);
    assert!(error.contains(&format!("nobody answers at {free}: Connection refused")), "{error}");
    assert!(error.contains("firewall"), "{error}");
    let error = fails(&["--edges", &list, "--port", "7999", "--serve", &list], 1);
    assert!(error.contains(&format!("the game server cannot listen on {list}: ")), "{error}");
    assert!(error.contains("another process listens there"), "{error}");
    // A port that the core does not have, and one with nobody behind it.
    for arguments in [&["--port", "1", "--serve", &game][..], &["--port", "7999"]] {
        let error = fails(&[&["--edges", &list], arguments].concat(), 1);
        assert!(error.contains("1 of 1 players did not get into the game"), "{error}");
        assert!(error.contains("is the port in `game_servers`"), "{error}");
    }
    let error = fails(&["--edges", "p1.example", "--port", "7999"], 1);
    assert!(error.contains("`p1.example` is no address with a port"), "{error}");
    // The limits are those of a shell.
    let program = env!("CARGO_BIN_EXE_otproxy");
    let script = format!("ulimit -n 100; exec {program} bench --edges {list} --port 7999 --players 50");
    let output = Command::new("sh").args(["-c", &script]).output().expect("a shell");
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("need 114 open files, and only 100 are allowed") && error.contains("ulimit"), "{error}");
}

#[test]
fn players_who_are_refused_are_an_error_with_the_limit_to_raise() {
    let game = address();
    let core = Beside::core(&format!("{{ port: 7999, address: '{game}' }}"));
    // All players have one address here, as they have where a bench runs on another host.
    let edge = Beside::start(&format!(
        "role: edge\nworkers: 1\nadmin: {{ listen: off }}\nlisteners: \
         [{{ name: links, listen: '[::1]:0', forward_to: '{}' }}]\n",
        core.addr("links")
    ));
    let (to, game) = (edge.addr("links").to_string(), game.to_string());
    let error = fails(&["--edges", &to, "--port", "7999", "--serve", &game, "--players", "23"], 1);
    assert!(error.contains("3 of 23 players did not get into the game"), "{error}");
    assert!(error.contains("`sessions.max_per_address` and `sessions.opens_per_address`"), "{error}");
}

#[test]
fn a_real_game_server_is_left_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let core = Beside::core(&format!("{{ port: 7999, address: '{}' }}", listener.local_addr().unwrap()));
    let server = thread::spawn(move || {
        let (mut game, _) = listener.accept().unwrap();
        let mut other = CHALLENGE;
        other[13] ^= 1;
        game.write_all(&other).unwrap();
        let mut got = Vec::new();
        game.read_to_end(&mut got).unwrap();
        got
    });
    let error = fails(&["--edges", &core.addr("links").to_string(), "--port", "7999", "--send-proxy"], 1);
    assert!(error.contains("no stand-in game server but perhaps a real one"), "{error}");
    let got = server.join().unwrap();
    assert!(got.len() <= 6 + 2 + 1 + 3 * 8, "more than one packet of one player: {} bytes", got.len());
}

#[test]
fn wrong_flags_are_exit_code_2() {
    for (arguments, says) in [
        (&["--port", "1"][..], "--edges"),
        (&["--edges", "a:1"], "`--port`"),
        (&["--edges", "a:1", "--raw", "--port", "1"], "cannot be used with"),
        (&["--edges", "a:1", "--port", "1", "--links", "2"], "more `--links` than addresses"),
        (&["--edges", "a:1", "--port", "1", "--up", "11"], "`--up` is more than `--down`"),
        (&["--edges", "a:1", "--port", "1", "--up", "0", "--down", "0"], "30 s"),
        (&["--edges", "a:1", "--port", "1", "--size-up", "3"], "19 to 65521 bytes"),
        (&["--edges", "a:1", "--port", "1", "--size-down", "26"], "27 to 65521 bytes"),
        (&["--edges", "a:1", "--port", "1", "--up", "inf"], "from 0 to 1000"),
    ] {
        let error = fails(arguments, 2);
        assert!(error.contains(says), "{arguments:?}: {error}");
    }
}

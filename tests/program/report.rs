//! `otproxy report pull`, run as users run it: against edges that run, and against what is none.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use otproxy::report::{MD5, PLAYERS, SOCKETS, md5_line};
use serde_json::Value;

use crate::common::certificates::Certificates;
use crate::common::folder::Folder;
use crate::common::metrics::Metered;
use crate::common::process::{failed, otproxy, text};
use crate::common::role_process::RoleProcess;
use crate::common::sandbox::connect_from;
use crate::common::tunnel::free_address;
use crate::common::{eventually, run};

const TOKEN: &str = "a-token-of-the-operator";

/// Writes a token to a folder, and returns its file.
fn token(folder: &Path, name: &str, token: &str) -> String {
    let file = folder.join(name);
    fs::write(&file, token).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    file.to_str().unwrap().to_owned()
}

/// Starts an edge that writes one report into a folder, and waits for it. `more` are keys of its web listener.
fn edge(folder: &Path, more: &str) -> RoleProcess {
    let edge = RoleProcess::edge(&format!(
        "report: {{ dir: {}, every: 1h, listeners: [web] }}\n\
         listeners: [{{ name: web, kind: web, listen: '127.0.0.1:0', forward_to: '127.0.0.1:9', send_proxy: none, {more} }}]\n",
        folder.display()
    ));
    while !folder.join(PLAYERS).exists() {
        thread::sleep(Duration::from_millis(10));
    }
    edge
}

/// Runs it; returns its exit code, and what it says on stdout. It has nothing for stderr.
fn pull(into: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let all = [&["report", "pull", "--into", into.to_str().unwrap()], arguments].concat();
    let output = otproxy(&all).output().unwrap();
    assert_eq!(text(&output.stderr), "", "{arguments:?}");
    (output.status.code(), text(&output.stdout))
}

fn json(into: &Path, arguments: &[&str]) -> (Option<i32>, Value) {
    let (code, said) = pull(into, &[arguments, &["--json"]].concat());
    (code, serde_json::from_str(&said).unwrap())
}

/// An address at which nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A host that answers each request with this, after its head.
fn says(answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(mut stream), mut head) = (stream, Vec::new()) else { continue };
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read_exact(&mut byte).is_err() {
                    break;
                }
                head.push(byte[0]);
            }
            let _ = stream.write_all(&answer);
        }
    });
    address
}

fn files(folder: &Path) -> [String; 3] {
    [SOCKETS, MD5, PLAYERS].map(|file| fs::read_to_string(folder.join(file)).unwrap())
}

#[test]
fn what_can_be_fetched_is_there_and_the_rest_is_said() {
    let folder = Folder::new();
    let token = token(&folder, "token", TOKEN);
    let dir = |name: &str| folder.join(name);
    let good = edge(&dir("good"), &format!("report: {{ token_file: {token} }}"));
    let wrong = edge(&dir("wrong"), "report: { allow: 127.0.0.1 }");
    fs::write(dir("wrong").join(MD5), md5_line(b"another", SOCKETS)).unwrap();
    let other = edge(&dir("other"), "report: { allow: 192.0.2.7 }");
    let url = |name: &str, at: SocketAddr| format!("{name}=http://{at}");
    let hosts = [
        url("waw1", good.addr("web")),
        url("down1", nobody()),
        url("wrong1", wrong.addr("web")),
        url("other1", other.addr("web")),
    ];
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let into = dir("into");

    // Without a token all fail, and nothing is there.
    let (code, said) = pull(&into, &hosts);
    assert_eq!(code, Some(1));
    assert!(said.contains("report.txt.md5: status 401: it asks for a token; give --token-file"), "{said}");
    assert_eq!(fs::read_dir(&into).unwrap().count(), 1, "but the lock");

    let (code, said) = json(&into, &[&hosts[..], &["--token-file", &token]].concat());
    assert_eq!((code, &said["ok"]), (Some(1), &false.into()));
    let host = |name: &str| said["hosts"].as_array().unwrap().iter().find(|host| host["name"] == *name).unwrap();
    let waw1 = host("waw1");
    assert_eq!((&waw1["ok"], &waw1["counted"]), (&true.into(), &0.into()), "{waw1}");
    assert!(waw1["rows"].as_u64().unwrap() >= 1 && waw1["age_seconds"].as_u64().unwrap() < 3600, "{waw1}");
    for (name, error) in [
        ("down1", "cannot connect: Connection refused"),
        ("wrong1", "the MD5 is not that of the report"),
        ("other1", "report.txt.md5: status 404: its listener of `kind: web` has no `report`, or this host is not in"),
    ] {
        let host = host(name);
        assert!(host["ok"] == false && host["error"].as_str().unwrap().starts_with(error), "{host}");
        assert!(!into.join(name).exists(), "{name}");
    }
    assert_eq!(files(&into.join("waw1")), files(&dir("good")));
    let written = |folder: &Path| fs::metadata(folder.join(SOCKETS)).unwrap().modified().unwrap();
    let apart = written(&into.join("waw1")).duration_since(written(&dir("good"))).unwrap_or_default();
    assert!(apart < Duration::from_secs(60), "it has the report's own time: {apart:?}");

    // A table for people: a line for each host.
    let (code, said) = pull(&into, &[&hosts[..], &["--token-file", &token]].concat());
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!((code, lines.len()), (Some(1), 5), "{said}");
    assert!(lines[0].starts_with("HOST") && lines[1].starts_with("waw1") && lines[1].ends_with("ok"), "{said}");
    let (code, _) = pull(&into, &[hosts[0], "--token-file", &token]);
    assert_eq!(code, Some(0));
}

#[test]
fn an_old_report_never_looks_like_one_of_now() {
    let folder = Folder::new();
    let (dir, into) = (folder.join("edge"), folder.join("into"));
    let edge = edge(&dir, "report: { allow: 127.0.0.1 }");
    let host = format!("waw1=http://{}", edge.addr("web"));
    assert_eq!(pull(&into, &[&host]).0, Some(0));
    // It is down; what was fetched is still young.
    let down = format!("waw1=http://{}", nobody());
    let (code, said) = json(&into, &[&down, "--max-age", "1day"]);
    assert_eq!((code, said["hosts"][0]["kept_age_seconds"].is_u64()), (Some(1), true), "{said}");
    assert!(into.join("waw1").join(SOCKETS).exists());
    // It writes no more, and the other has got old.
    let ago = SystemTime::now() - Duration::from_secs(3600);
    for file in [dir.join(SOCKETS), into.join("waw1").join(SOCKETS)] {
        fs::File::options().write(true).open(file).unwrap().set_modified(ago).unwrap();
    }
    let (code, said) = json(&into, &[&host]);
    let error = said["hosts"][0]["error"].as_str().unwrap();
    assert!(code == Some(1) && error.starts_with("the report was written 1h"), "{said}");
    assert_eq!(said["hosts"][0]["removed"], true);
    let left: Vec<_> = fs::read_dir(into.join("waw1")).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left, [PLAYERS]);
}

#[test]
fn edges_of_a_topology_over_tls() {
    let certificates = Certificates::new();
    certificates.issue("localhost", Default::default());
    let folder = &certificates.folder;
    let token = token(folder, "token", TOKEN);
    let path = |name: &str| folder.join(name).display().to_string();
    let edge = edge(
        &folder.join("edge"),
        &format!(
            "tls: {{ cert: {}, key: {} }}, report: {{ token_file: {token} }}",
            path("localhost.pem"),
            path("localhost.key")
        ),
    );
    let topology = path("topology.yaml");
    let text = "edges: [{ name: waw1, address: 127.0.0.1, public: localhost }]\ncore: { address: 203.0.113.9 }\n\
                game_servers: [{ port: 7172, address: '127.0.0.1:7172' }]\n";
    fs::write(&topology, text).unwrap();
    let (into, port, ca) = (folder.join("into"), edge.addr("web").port().to_string(), path("ca.pem"));
    let of_topology = ["--topology", &topology, "--port", &port, "--https", "--token-file", &token];
    let (code, said) = json(&into, &[&of_topology[..], &["--ca", &ca]].concat());
    assert_eq!((code, &said["hosts"][0]["name"]), (Some(0), &"waw1".into()), "{said}");
    assert_eq!(files(&into.join("waw1")), files(&folder.join("edge")));
    // A certificate of somebody else, and of another name.
    let others = Certificates::new();
    let (code, said) =
        json(&into, &[&of_topology[..], &["--ca", others.folder.join("ca.pem").to_str().unwrap()]].concat());
    assert!(code == Some(1) && said["hosts"][0]["error"].as_str().unwrap().starts_with("TLS: "), "{said}");
    let (code, said) = json(&into, &[&format!("a=https://127.0.0.1:{port}"), "--token-file", &token, "--ca", &ca]);
    assert!(code == Some(1) && said["hosts"][0]["error"].as_str().unwrap().starts_with("TLS: "), "{said}");
}

#[test]
fn hosts_that_are_none_of_otproxy_fill_nothing() {
    let folder = Folder::new();
    let into = folder.join("into");
    let endless = || {
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n".to_vec();
        [head, vec![b'a'; 1 << 20]].concat()
    };
    let hosts = [
        ("endless", says(endless())),
        ("nothing", says(Vec::new())),
        ("game", says(b"\x06\0\x1b[31m\r\n".to_vec())),
        ("redirect", says(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n".to_vec())),
        ("busy", says(b"HTTP/1.1 503 No\r\nContent-Length: 24\r\n\r\n{\"error\":\"a\\u001b[31mb\"}".to_vec())),
        ("half", says(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf".to_vec())),
    ]
    .map(|(name, at)| format!("{name}=http://{at}"));
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let (code, said) = json(&into, &hosts);
    assert_eq!(code, Some(1));
    let all: Vec<&str> = said["hosts"].as_array().unwrap().iter().map(|host| host["error"].as_str().unwrap()).collect();
    assert!(all[0].contains("cut short, or has more than 256 bytes"), "{all:?}");
    assert!(all[1].contains("does not answer as otproxy does") && all[2].contains("does not answer"), "{all:?}");
    assert_eq!(all[3], "report.txt.md5: status 302");
    assert!(all[4].starts_with("report.txt.md5: status 503: a"), "{all:?}");
    assert!(all[5].contains("cut short"), "{all:?}");
    assert_eq!(fs::read_dir(&into).unwrap().count(), 1, "but the lock");
    let (_, said) = pull(&into, &hosts);
    assert!(!said.contains('\x1b'), "{said}");
}

#[test]
fn flags_and_files_that_are_wrong() {
    let folder = Folder::new();
    let into: PathBuf = folder.join("into");
    let into = into.to_str().unwrap();
    let help = otproxy(&["report", "pull", "--help"]).output().unwrap();
    let documented = include_str!("../../docs/otservlist.md");
    assert!(text(&help.stdout).contains("[default: 5m]") && documented.contains("too old, `5m` by default |"));
    let run = |arguments: &[&str]| otproxy(&[&["report", "pull"], arguments].concat()).output().unwrap();
    for (arguments, code, error) in [
        (&["--into", into][..], 2, "<NAME=URL>"),
        (&["a=http://127.0.0.1:9"], 2, "--into"),
        (&["--into", into, "http://127.0.0.1:9"], 2, "write it as NAME=URL"),
        (&["--into", into, "../a=http://127.0.0.1:9"], 2, "cannot be the name"),
        (&["--into", into, "a=http://127.0.0.1:9", "A=http://127.0.0.1:8"], 2, "two hosts have the name `a`"),
        (&["--into", into, "a=http://127.0.0.1:9/report/"], 2, "without a path"),
        (&["--into", into, "a=http://127.0.0.1:9", "--max-age", "1ms"], 2, "from 1s to 1day"),
        (&["--into", "/proc/none", "a=http://127.0.0.1:9"], 1, "/proc/none: "),
        (
            &["--into", into, "a=http://127.0.0.1:9", "--token-file", "/none"],
            1,
            "copy it from the file that `report.token_file`",
        ),
        (&["--into", into, "a=https://127.0.0.1:9", "--ca", "/none"], 1, "/none: "),
    ] {
        let error_said = failed(&run(arguments), code);
        assert!(error_said.contains(error), "{arguments:?}: {error_said}");
    }
}

/// Waits until the report in a folder satisfies a condition, and returns it.
async fn report(dir: &Path, condition: impl Fn(&str) -> bool) -> String {
    eventually("such a report", async || {
        let text = fs::read_to_string(dir.join(SOCKETS)).unwrap_or_default();
        condition(&text).then_some(text)
    })
    .await
}

#[test]
fn a_player_of_the_tunnel_has_a_row_at_either_end_with_the_same_port() {
    run(async {
        let (certificates, folder) = (Certificates::new(), Folder::new());
        // Its trunks come from the core's host, and the edge is another one.
        let (edge_host, target) = (free_address(), tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
        let dir = |role: &str| format!("report: {{ dir: {}/{role}, every: 1s }}", folder.display());
        let edge = RoleProcess::edge(&format!(
            "{}\ncore: {{ accept: '{edge_host}', tls: {} }}\n\
             listeners: [{{ name: login, listen: '{}:0', forward_to: core/login }}]\n",
            dir("edge"),
            certificates.tls("waw1"),
            edge_host.ip()
        ));
        let core = RoleProcess::with(
            "core",
            &format!(
                "{}\ntunnel: {{ tls: {} }}\nedges: [{{ name: waw1, dial: '{edge_host}' }}]\n\
                 listeners: [{{ name: login, forward_to: '{}', send_proxy: none }}]\n",
                dir("core"),
                certificates.tls("core"),
                target.local_addr().unwrap()
            ),
        );
        edge.wait_until("otproxy_tunnel_trunks", &["edge=\"waw1\""], |now| now >= 1.0).await;
        let (listener, mut players) = (edge.addr("login"), Vec::new());
        for _ in 0..3 {
            let player = connect_from("127.0.0.9", listener).await;
            players.push((player, target.accept().await.unwrap()));
        }
        for gone in 0..2 {
            players.truncate(3 - gone);
            let rows = |text: &str, port: u16| {
                let open = |row: &&str| row.contains(&format!(":{port}->")) && row.ends_with("(ESTABLISHED)");
                text.lines().filter(open).count()
            };
            let at_edge = report(&folder.join("edge"), |text| rows(text, listener.port()) == players.len()).await;
            let at_core = report(&folder.join("core"), |text| rows(text, 7171) == players.len()).await;
            for (player, _) in &players {
                let port = player.local_addr().unwrap().port();
                assert!(at_edge.contains(&format!(" {listener}->127.0.0.9:{port} (ESTABLISHED)\n")), "{at_edge}");
                let row = format!(" BACKEND_IP:7171->{}:{port} (ESTABLISHED)\n", edge_host.ip());
                assert!(at_core.contains(&row), "{row}\n{at_core}");
            }
            assert!(!at_edge.contains("->127.0.0.1:") && !at_core.contains("127.0.0.1:"), "{at_edge}{at_core}");
        }
        edge.stop().await;
        core.stop().await;
    });
}

//! The access log: a line for each connection and session that ended, wherever it was carried, and nothing held up by it.

use std::cell::RefCell;
use std::fs;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use otproxy::access_log::LAST_WAIT;
use otproxy_protocol::frame::{self, ClientId, SessionId};
use serde_json::Value;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::roles::real_haproxy::{self, HaProxy};
use crate::roles::sandbox::*;

/// A folder for the log of one test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("access-log-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self) -> PathBuf {
        self.0.join("access.log")
    }

    /// The YAML for it.
    fn yaml(&self, format: &str) -> String {
        format!("access_log: {{ format: {format}, file: {} }}", self.path().display())
    }

    /// The lines, once there are so many.
    async fn lines(&self, count: usize) -> Vec<String> {
        let lines = eventually("the lines are there", async || {
            let text = fs::read_to_string(self.path()).unwrap_or_default();
            let lines: Vec<_> = text.lines().map(str::to_owned).collect();
            (lines.len() >= count && text.ends_with('\n')).then_some(lines)
        })
        .await;
        assert_eq!(lines.len(), count, "{lines:#?}");
        lines
    }

    async fn json(&self, count: usize) -> Vec<Value> {
        let lines = self.lines(count).await;
        lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn each_connection_that_ends_has_its_line() {
    run(async {
        let folder = Folder::new();
        let ((game, to), (_held, dead)) = (target().await, refusing());
        let edge = Role::start(&format!(
            "role: edge\n{}\nlisteners:\n\
             - {{ name: a, listen: \"127.0.0.1:0\", forward_to: [\"{dead}\", \"{to}\"], send_proxy: none, limits: {{ connections: 1 }} }}\n\
             - {{ name: b, listen: \"127.0.0.1:0\", forward_to: \"{dead}\" }}",
            folder.yaml("json")
        ));
        let mut client = connect_from("127.0.0.7", edge.addr("a")).await;
        client.write_all(b"hello").await.unwrap();
        let mut server = accept(&game).await;
        read(&mut server, 5).await;
        server.write_all(b"abc").await.unwrap();
        read(&mut client, 3).await;
        // Refused while the other is there.
        let mut second = connect_from("127.0.0.8", edge.addr("a")).await;
        assert_eq!(read_to_close(&mut second).await, b"");
        let player = (client.local_addr().unwrap(), second.local_addr().unwrap());
        folder.json(1).await;
        drop((client, server));
        folder.json(2).await;
        let mut third = TcpStream::connect(edge.addr("b")).await.unwrap();
        assert_eq!(read_to_close(&mut third).await, b"");
        let lines = folder.json(3).await;
        let reasons: Vec<_> = lines.iter().map(|line| (line["event"].as_str(), line["reason"].as_str())).collect();
        let expected = [("rejected", "limit"), ("closed", "client"), ("closed", "connect_failed")];
        assert_eq!(reasons, expected.map(|(event, reason)| (Some(event), Some(reason))));
        assert_eq!(lines[0]["player"], player.1.to_string());
        assert_eq!((&lines[0]["listener"], &lines[0]["target"]), (&Value::from("a"), &Value::Null));
        assert_eq!(lines[1]["player"], player.0.to_string());
        assert_eq!(lines[1]["target"], to.to_string());
        assert_eq!((lines[1]["bytes_in"].as_u64(), lines[1]["bytes_out"].as_u64()), (Some(5), Some(3)));
        assert!(lines[1]["connect_seconds"].as_f64() <= lines[1]["seconds"].as_f64());
        assert_eq!((&lines[2]["listener"], &lines[2]["target"]), (&Value::from("b"), &Value::from(dead.to_string())));
        assert_eq!(lines[2]["connect_seconds"], Value::Null);
        assert_eq!(edge.series("otproxy_access_log_dropped_total").await, 0.0);
        edge.stop().await;
    });
}

#[test]
fn what_is_open_at_the_end_has_its_line_too() {
    run(async {
        let folder = Folder::new();
        let edge = Role::start(&format!(
            "role: edge\nshutdown_timeout: 0s\n{}\n\
             listeners: [{{ name: a, listen: \"127.0.0.1:0\", forward_to: \"{}\", send_proxy: none }}]",
            folder.yaml("text"),
            echo_target().await
        ));
        let mut clients = Vec::new();
        for _ in 0..20 {
            let mut client = TcpStream::connect(edge.addr("a")).await.unwrap();
            echoes(&mut client, b"hello").await;
            clients.push(client);
        }
        edge.stop().await;
        // It has been written by now: nobody is left who could.
        let text = fs::read_to_string(folder.path()).unwrap();
        let closed = text.lines().filter(|line| line.ends_with("bytes_in=5 bytes_out=5 reason=shutdown"));
        assert_eq!(closed.count(), 20, "{text}");
    });
}

#[test]
fn a_log_that_is_renamed_while_it_is_written_goes_on_in_a_new_file() {
    run(async {
        let folder = Folder::new();
        let edge = Role::start(&format!(
            "role: edge\n{}\nlisteners: [{{ name: a, listen: \"127.0.0.1:0\", forward_to: \"{}\", send_proxy: none }}]",
            folder.yaml("json"),
            echo_target().await
        ));
        let old = folder.0.join("access.log.1");
        for _ in 0..3 {
            echoes(&mut TcpStream::connect(edge.addr("a")).await.unwrap(), b"hello").await;
            folder.lines(1).await;
            fs::rename(folder.path(), &old).unwrap();
        }
        edge.stop().await;
        assert!(!folder.path().exists(), "a file without a line");
    });
}

/// A disk that never answers is a FIFO that nobody reads.
#[test]
fn a_log_that_is_not_written_holds_nobody_up() {
    run(async {
        let folder = Folder::new();
        assert!(Command::new("mkfifo").arg(folder.path()).status().unwrap().success());
        let core = Role::core(&format!(
            "{}\nlisteners: [{{ name: a, listen: \"127.0.0.1:0\", forward_to: \"{}\", accept_proxy: none, send_proxy: none, \
             limits: {{ connections: 1 }} }}]",
            folder.yaml("json"),
            echo_target().await
        ));
        let mut player = TcpStream::connect(core.addr("a")).await.unwrap();
        echoes(&mut player, b"before").await;
        // More are refused than may wait, and than the writer has taken already.
        let to = core.addr("a");
        let refused = tokio::spawn(async move {
            loop {
                let mut one = TcpStream::connect(to).await.unwrap();
                read_to_close(&mut one).await;
            }
        });
        core.wait_series("otproxy_access_log_dropped_total", |dropped| dropped >= 100.0).await;
        refused.abort();
        echoes(&mut player, b"after").await;
        drop(player);
        let began = Instant::now();
        core.stop().await;
        assert!(began.elapsed() >= LAST_WAIT, "the end did not wait for what could still be written");
        // The writer waits for a reader for ever: it is let go.
        drop(fs::File::open(folder.path()));
    });
}

#[test]
fn links_and_sessions_have_their_lines() {
    run(async {
        let folder = Folder::new();
        let (game, to) = target().await;
        let core = Role::core(&format!(
            "{}\nedges: [{{ name: waw1, address: 127.0.0.9 }}]\n\
             listeners: [{{ name: links, kind: relay, listen: \"127.0.0.1:0\", accept_proxy: optional }}]\n\
             game_servers: [{{ port: 7172, address: \"{to}\", player_address: none }}]\n\
             sessions: {{ leave_grace: 0s }}",
            folder.yaml("json")
        ));
        // What is no link.
        let mut scanner = TcpStream::connect(core.addr("links")).await.unwrap();
        scanner.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        read_to_close(&mut scanner).await;
        folder.lines(1).await;
        let mut link = connect_from("127.0.0.9", core.addr("links")).await;
        link.write_all(&v2("198.51.100.20:40001".parse().unwrap(), core.addr("links"))).await.unwrap();
        link.write_all(&frame::ping(ClientId(1000), 0)).await.unwrap();
        link.write_all(&frame::open(SessionId(7), 7172)).await.unwrap();
        link.write_all(&frame::data_header(SessionId(7), frame::PacketId(1), frame::PacketId(0), 4)).await.unwrap();
        link.write_all(&[2, 0, 1, 1]).await.unwrap();
        let mut server = accept(&game).await;
        assert_eq!(read(&mut server, 4).await, [2, 0, 1, 1]);
        server.write_all(&[4, 0, 1, 2, 3, 4]).await.unwrap();
        // The pong, and the packet, in whichever order.
        read(&mut link, 14 + 14 + 6).await;
        link.write_all(&frame::end(SessionId(7))).await.unwrap();
        folder.lines(2).await;
        drop(link);
        let lines = folder.json(3).await;
        let [scan, session, link] = &lines[..] else { panic!("{lines:#?}") };
        assert_eq!((&scan["kind"], &scan["reason"]), (&"connection".into(), &"no_ping".into()));
        assert_eq!((&session["kind"], &session["event"]), (&"session".into(), &"ended".into()));
        assert_eq!((&session["reason"], &session["player"]), (&"client_left".into(), &"198.51.100.20:40001".into()));
        assert_eq!(
            (&session["client"], &session["session"], &session["port"]),
            (&1000.into(), &7.into(), &7172.into())
        );
        assert_eq!((&session["packets_in"], &session["packets_out"]), (&1.into(), &1.into()));
        assert_eq!((&session["bytes_in"], &session["bytes_out"]), (&4.into(), &6.into()));
        assert_eq!((&session["listener"], &session["target"]), (&"links".into(), &to.to_string().into()));
        assert_eq!((&link["kind"], &link["reason"], &link["edge"]), (&"link".into(), &"client".into(), &"waw1".into()));
        assert_eq!((&link["player"], &link["client"]), (&"198.51.100.20:40001".into(), &1000.into()));
        core.stop().await;
    });
}

/// The player's port, dates and durations differ from run to run. A duration that is none is -1.
fn normal(line: &str) -> String {
    let fields: Vec<&str> = line.split(' ').collect();
    let [client, date, frontend, server, times, rest @ ..] = &fields[..] else { panic!("{line}") };
    let (host, port) = client.rsplit_once(':').unwrap();
    port.parse::<u16>().unwrap();
    let pattern: String = date.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    assert_eq!(pattern.replace(|c: char| c.is_ascii_alphabetic(), "m"), "[99/mmm/9999:99:99:99.999]", "{line}");
    let times: Vec<_> = times.split('/').map(|time| if time == "-1" { "-1" } else { "N" }).collect();
    format!("{host}:P [D] {frontend} {server} {} {}", times.join("/"), rest.join(" "))
}

/// Ends connections in each way that both know. `addrs`, asked before each, has the listeners: one that carries, an idle
/// one, one whose target refuses, and one with room for one. `line` waits for so many lines.
async fn end_in_each_way(
    addrs: impl AsyncFn() -> Vec<SocketAddr>,
    game: &tokio::net::TcpListener,
    line: impl AsyncFn(usize),
) {
    let begin = async |to: SocketAddr, local: &str| {
        let mut client = connect_from(local, to).await;
        client.write_all(b"hello").await.unwrap();
        let mut server = accept(game).await;
        assert_eq!(read(&mut server, 5).await, b"hello");
        server.write_all(b"abc").await.unwrap();
        assert_eq!(read(&mut client, 3).await, b"abc");
        (client, server)
    };
    let reset = |stream: &TcpStream| SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
    // The client, then the target; each in order, and with a reset.
    let (client, mut server) = begin(addrs().await[0], "127.0.0.9").await;
    drop(client);
    read_to_close(&mut server).await;
    drop(server);
    line(1).await;
    let (mut client, server) = begin(addrs().await[0], "127.0.0.9").await;
    drop(server);
    read_to_close(&mut client).await;
    drop(client);
    line(2).await;
    let (client, mut server) = begin(addrs().await[0], "127.0.0.9").await;
    reset(&client);
    drop(client);
    read_to_close(&mut server).await;
    line(3).await;
    let (mut client, server) = begin(addrs().await[0], "127.0.0.9").await;
    reset(&server);
    drop(server);
    read_to_close(&mut client).await;
    line(4).await;
    let (mut client, mut server) = begin(addrs().await[1], "127.0.0.9").await;
    read_to_close(&mut client).await;
    read_to_close(&mut server).await;
    line(5).await;
    let mut client = connect_from("127.0.0.9", addrs().await[2]).await;
    read_to_close(&mut client).await;
    line(6).await;
    let limited = addrs().await[3];
    let (client, mut server) = begin(limited, "127.0.0.9").await;
    let mut second = connect_from("127.0.0.9", limited).await;
    read_to_close(&mut second).await;
    line(7).await;
    drop(client);
    read_to_close(&mut server).await;
    drop(server);
    line(8).await;
}

#[test]
fn haproxys_lines_are_those_of_haproxy() {
    if !real_haproxy::is_here() {
        return;
    }
    run(async {
        let ((game, to), (_held, dead)) = (target().await, refusing());
        let listen = |name: &str, addr: SocketAddr, server: SocketAddr, more: &str| {
            format!(
                "listen {name}\n  bind {addr}\n  log stderr format raw daemon\n  option tcplog\n  retries 0\n{more}  \
                 server {server} {server}\n"
            )
        };
        let haproxy = HaProxy::start(4, |addrs| {
            [
                listen("carried", addrs[0], to, ""),
                listen("idle", addrs[1], to, "  timeout client 200ms\n  timeout server 200ms\n"),
                listen("refused", addrs[2], dead, ""),
                listen(
                    "limited",
                    addrs[3],
                    to,
                    "  stick-table type ip size 1k store conn_cur\n  tcp-request content track-sc0 src\n  \
                     tcp-request content reject if { sc0_conn_cur gt 1 }\n",
                ),
            ]
            .concat()
        })
        .await;
        let theirs =
            async || haproxy.log().lines().filter(|line| line.contains(" [")).map(str::to_owned).collect::<Vec<_>>();
        let has = async |count: usize| {
            eventually("haproxy's line", async || (theirs().await.len() >= count).then_some(())).await;
        };
        end_in_each_way(async || (0..4).map(|index| haproxy.addr(index)).collect(), &game, has).await;

        let folder = Folder::new();
        let yaml = format!(
            "role: edge\n{}\nlisteners:\n\
             - {{ name: carried, listen: \"127.0.0.1:0\", forward_to: \"{to}\", send_proxy: none }}\n\
             - {{ name: idle, listen: \"127.0.0.1:0\", forward_to: \"{to}\", send_proxy: none, timeouts: {{ idle: 200ms }} }}\n\
             - {{ name: refused, listen: \"127.0.0.1:0\", forward_to: \"{dead}\", send_proxy: none }}\n\
             - {{ name: limited, listen: \"127.0.0.1:0\", forward_to: \"{to}\", send_proxy: none, \
             limits: {{ connections_per_address: 1 }} }}",
            folder.yaml("haproxy")
        );
        let edge = RefCell::new(None::<Role>);
        // Anew each time: a connection has its line a moment before it counts as open no more, and the next tells the count.
        let start = async || {
            let before = edge.take();
            if let Some(before) = before {
                before.stop().await;
            }
            let started = Role::start(&yaml);
            let addrs = ["carried", "idle", "refused", "limited"].map(|name| started.addr(name)).to_vec();
            edge.replace(Some(started));
            addrs
        };
        end_in_each_way(start, &game, async |count| drop(folder.lines(count).await)).await;
        let in_file = folder.lines(8).await;
        edge.take().expect("it runs").stop().await;

        let prefix = format!(" test otproxy[{}]: ", std::process::id());
        let ours: Vec<&str> =
            in_file.iter().map(|line| line.split_once(&prefix).unwrap_or_else(|| panic!("{line}")).1).collect();
        let theirs = theirs().await;
        let both = |lines: &mut dyn Iterator<Item = &str>| lines.map(normal).collect::<Vec<_>>();
        assert_eq!(both(&mut ours.iter().copied()), both(&mut theirs.iter().map(String::as_str)));
        let codes = |line: &str| line.split(' ').nth(6).map(str::to_owned);
        assert_eq!(
            ours.iter().filter_map(|line| codes(line)).collect::<Vec<_>>(),
            ["--", "--", "CD", "SD", "cD", "SC", "PR", "--"]
        );
        // HAProxy's own reader makes the same of both.
        let theirs: Vec<String> = theirs.iter().zip(&in_file).map(|(line, own)| prefixed(line, own, &prefix)).collect();
        for options in [&["-c"][..], &["-H", "-c"], &["-v", "-H", "-c"], &["-time", "1000000000:4000000000", "-c"]] {
            assert_eq!(halog(options, &in_file).await.len(), halog(options, &theirs).await.len(), "{options:?}");
        }
        assert_eq!(halog(&["-c"], &in_file).await, ["8"]);
        assert_eq!(
            halog(&["-time", "1000000000:4000000000", "-c"], &in_file).await,
            ["8"],
            "each has a date that it reads"
        );
        assert_eq!(halog(&["-time", "1:1000000000", "-c"], &in_file).await, ["0"]);
    });
}

/// HAProxy's line behind the syslog prefix of one of ours.
fn prefixed(line: &str, own: &str, prefix: &str) -> String {
    format!("{}{prefix}{line}", own.split_once(prefix).unwrap().0)
}

/// What HAProxy's `halog` says of these lines.
async fn halog(options: &[&str], lines: &[String]) -> Vec<String> {
    let (options, lines) = (options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>(), lines.join("\n") + "\n");
    tokio::task::spawn_blocking(move || {
        use std::io::Write;
        let (input, mut write) = std::io::pipe().unwrap();
        write.write_all(lines.as_bytes()).unwrap();
        drop(write);
        let input = Stdio::from(OwnedFd::from(input));
        let output = Command::new("halog").arg("-q").args(&options).stdin(input).output().expect("halog, of HAProxy");
        assert!(output.status.success(), "{options:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    })
    .await
    .unwrap()
}

#[test]
fn the_metrics_of_haproxy_that_are_named_are_those_of_its_exporter() {
    if !real_haproxy::is_here() {
        return;
    }
    run(async {
        let haproxy = HaProxy::start(2, |addrs| {
            format!(
                "listen login\n  bind {}\n  server s 127.0.0.1:9 check\n\
                 frontend metrics\n  mode http\n  bind {}\n  http-request use-service prometheus-exporter\n",
                addrs[0], addrs[1]
            )
        })
        .await;
        let (status, metrics) = get(haproxy.addr(1), "/metrics").await.unwrap();
        assert_eq!(status, 200);
        let document = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/haproxy.md")).unwrap();
        let names: Vec<_> = document.split('`').filter(|word| word.starts_with("haproxy_")).collect();
        assert!(names.len() >= 25, "{names:?}");
        for name in names {
            assert!(metrics.contains(&format!("# TYPE {name} ")), "{name}");
        }
    });
}

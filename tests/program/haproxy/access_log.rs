//! HAProxy's form of the access log, beside the real one's lines; its metrics, beside its exporter's.

use std::cell::RefCell;
use std::fs;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::common::access_log::LogFile;
use crate::common::sandbox::*;
use crate::haproxy::real::{self, HaProxy};

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
    if !real::is_here() {
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

        let folder = LogFile::new();
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
    if !real::is_here() {
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

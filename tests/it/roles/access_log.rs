//! The access log: a line for each connection and session that ended, wherever it was carried, and nothing held up by it.

use std::fs;
use std::time::Instant;

use otproxy::access_log::LAST_WAIT;
use otproxy_protocol::frame::{self, ClientId, SessionId};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::common::access_log::LogFile;
use crate::common::admin::see;
use crate::common::sandbox::*;

#[test]
fn each_connection_that_ends_has_its_line() {
    run(async {
        let log = LogFile::new();
        let ((game, to), (_held, dead)) = (target().await, refusing());
        let edge = Role::start(&format!(
            "role: edge\n{}\nlisteners:\n\
             - {{ name: a, listen: \"127.0.0.1:0\", forward_to: [\"{dead}\", \"{to}\"], send_proxy: none, limits: {{ connections: 1 }} }}\n\
             - {{ name: b, listen: \"127.0.0.1:0\", forward_to: \"{dead}\" }}",
            log.yaml("json")
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
        log.json(1).await;
        drop((client, server));
        log.json(2).await;
        let mut third = TcpStream::connect(edge.addr("b")).await.unwrap();
        assert_eq!(read_to_close(&mut third).await, b"");
        let lines = log.json(3).await;
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
fn a_forward_names_the_edge_that_a_connection_came_through_by_its_address() {
    run(async {
        let log = LogFile::new();
        let core = Role::core(&format!(
            "{}\nedges: [{{ name: waw1, address: 127.0.0.9 }}]\n\
             listeners: [{{ name: a, listen: \"127.0.0.1:0\", forward_to: \"{}\", send_proxy: none, \
             trusted_peers: 127.0.0.0/8, deny: 192.0.2.66 }}]",
            log.yaml("json"),
            echo_target().await
        ));
        let header = |player: &str| v2(player.parse().unwrap(), "192.0.2.9:7171".parse().unwrap());
        for (local, edge) in [("127.0.0.9", Value::from("waw1")), ("127.0.0.8", Value::Null)] {
            let mut stream = connect_from(local, core.addr("a")).await;
            stream.write_all(&header("192.0.2.1:4000")).await.unwrap();
            echoes(&mut stream, b"hello").await;
            let open = see(&core, "connections").await;
            assert_eq!(open["connections"][0]["edge"], edge, "{open}");
            let mut refused = connect_from(local, core.addr("a")).await;
            refused.write_all(&header("192.0.2.66:4000")).await.unwrap();
            assert_eq!(read_to_close(&mut refused).await, b"");
        }
        let mut seen: Vec<_> =
            log.json(4).await.iter().map(|line| (line["event"].to_string(), line["edge"].clone())).collect();
        seen.sort_by_key(|(event, edge)| (event.clone(), edge.to_string()));
        let [closed, rejected] = ["closed", "rejected"].map(|event| format!("\"{event}\""));
        let (waw1, none) = (Value::from("waw1"), Value::Null);
        assert_eq!(
            seen,
            [(closed.clone(), waw1.clone()), (closed, none.clone()), (rejected.clone(), waw1), (rejected, none)]
        );
        core.stop().await;
    });
}

#[test]
fn what_is_open_at_the_end_has_its_line_too() {
    run(async {
        let log = LogFile::new();
        let edge = Role::start(&format!(
            "role: edge\nshutdown_timeout: 0s\n{}\n\
             listeners: [{{ name: a, listen: \"127.0.0.1:0\", forward_to: \"{}\", send_proxy: none }}]",
            log.yaml("text"),
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
        let text = fs::read_to_string(log.path()).unwrap();
        let closed = text.lines().filter(|line| line.ends_with("bytes_in=5 bytes_out=5 reason=shutdown"));
        assert_eq!(closed.count(), 20, "{text}");
    });
}

#[test]
fn a_log_that_is_renamed_while_it_is_written_goes_on_in_a_new_file() {
    run(async {
        let log = LogFile::new();
        let edge = Role::start(&format!(
            "role: edge\n{}\nlisteners: [{{ name: a, listen: \"127.0.0.1:0\", forward_to: \"{}\", send_proxy: none }}]",
            log.yaml("json"),
            echo_target().await
        ));
        let old = log.path().with_file_name("access.log.1");
        for _ in 0..3 {
            echoes(&mut TcpStream::connect(edge.addr("a")).await.unwrap(), b"hello").await;
            log.lines(1).await;
            fs::rename(log.path(), &old).unwrap();
        }
        edge.stop().await;
        assert!(!log.path().exists(), "a file without a line");
    });
}

/// A disk that never answers is a FIFO that nobody reads.
#[test]
fn a_log_that_is_not_written_holds_nobody_up() {
    run(async {
        let log = LogFile::new();
        mknodat(CWD, log.path(), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let core = Role::core(&format!(
            "{}\nlisteners: [{{ name: a, listen: \"127.0.0.1:0\", forward_to: \"{}\", accept_proxy: none, send_proxy: none, \
             limits: {{ connections: 1 }} }}]",
            log.yaml("json"),
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
        drop(fs::File::open(log.path()));
    });
}

#[test]
fn links_and_sessions_have_their_lines() {
    run(async {
        let log = LogFile::new();
        let (game, to) = target().await;
        let core = Role::core(&format!(
            "{}\nedges: [{{ name: waw1, address: 127.0.0.9 }}]\n\
             listeners: [{{ name: links, kind: relay, listen: \"127.0.0.1:0\", accept_proxy: optional }}]\n\
             game_servers: [{{ port: 7172, address: \"{to}\", player_address: none }}]\n\
             sessions: {{ leave_grace: 0s }}",
            log.yaml("json")
        ));
        // What is no link.
        let mut scanner = TcpStream::connect(core.addr("links")).await.unwrap();
        scanner.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        read_to_close(&mut scanner).await;
        log.lines(1).await;
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
        log.lines(2).await;
        drop(link);
        let lines = log.json(3).await;
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

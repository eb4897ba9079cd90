//! The ends of the tunnel as programs: what an edge tells of the core's address, and what a reload does.

use std::fs;
use std::net::SocketAddr;

use otproxy::certs::authority::IssueTerms;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::common::anybody::*;
use crate::common::role_process::RoleProcess;
use crate::common::tunnel::*;
use crate::common::{http, run};

/// No other address on the host begins so.
const HIDDEN: &str = "127.77.3.";
/// Nor is this a name that anything else has.
const HIDDEN_NAME: &str = "hidden-77-3.invalid";

/// An edge as a program that logs all there is to log. `core` is YAML.
fn edge_program(core: &str, log_core_address: bool) -> RoleProcess {
    RoleProcess::with(
        "edge",
        &format!(
            "log: {{ level: trace }}\nlog_core_address: {log_core_address}\ncore: {core}\n\
             listeners:\n- {{ name: login, listen: '127.0.0.1:0', forward_to: core/login, timeouts: {{ connect: 2s }} }}\n"
        ),
    )
}

/// Whether the core's address stands anywhere that the edge shows.
async fn shows_address(edge: &RoleProcess) -> bool {
    let mut shown = edge.log();
    for page in ["/", "/live", "/ready", "/metrics"] {
        let (status, text) = http::get(edge.admin(), page).await.unwrap();
        assert_eq!(status, 200, "{text}");
        shown += &text;
    }
    shown.contains(HIDDEN) || shown.contains(HIDDEN_NAME)
}

/// A player who is told that there is nobody.
async fn player_in_vain(edge: &RoleProcess) {
    in_vain(edge.addr("login")).await;
    edge.wait_for_line("no target can be reached").await;
}

#[test]
fn an_edge_that_connects_does_not_say_where() {
    run(async {
        let (ours, theirs) = (Certificates::new(), Certificates::new());
        let tls = ours.tls("waw1");
        for log in [false, true] {
            // Nobody listens there, and nobody can.
            let refusing = TcpSocket::new_v4().unwrap();
            refusing.bind(format!("{HIDDEN}9:0").parse().unwrap()).unwrap();
            let nobody = refusing.local_addr().unwrap().to_string();
            let no_name = format!("{HIDDEN_NAME}:7100");
            let listener = TcpListener::bind(format!("{HIDDEN}9:0")).await.unwrap();
            let impostor = listener.local_addr().unwrap().to_string();
            let papers = papers(&theirs, &["core"], Time::Now);
            let playing = tokio::spawn(async move {
                while let Ok((tcp, _)) = listener.accept().await {
                    let _ = Peer::accepted(tcp, server(papers.clone(), None)).shake().await;
                }
            });
            for (to, result) in [(&nobody, "refused"), (&no_name, "resolve"), (&impostor, "handshake")] {
                let edge = edge_program(&format!("{{ dial: '{to}', tls: {tls} }}"), log);
                let labels = ["edge=\"waw1\"", &format!("result=\"{result}\"")];
                edge.wait_until("otproxy_tunnel_dials_total", &labels, |now| now >= 2.0).await;
                let line = if result == "handshake" {
                    "tunnel handshake failed: unknown_ca".to_owned()
                } else {
                    format!("cannot connect to `core`: {result}")
                };
                edge.wait_for_line(&line).await;
                // Once, however often it tries.
                assert_eq!(edge.log().matches(&line).count(), 1, "{}", edge.log());
                player_in_vain(&edge).await;
                assert_eq!(shows_address(&edge).await, log, "{result}: {}", edge.log());
                edge.stop().await;
            }
            playing.abort();
        }
        // One that works.
        let listeners = "[{ name: login, forward_to: '127.0.0.1:9' }]";
        let yaml = core(&ours, "[{ name: waw1 }]", listeners, "").replace("127.0.0.1:0", &format!("{HIDDEN}9:0"));
        let core = Role::start(&yaml);
        let address = core.addr("tunnel");
        let edge = edge_program(&format!("{{ dial: '{address}', tls: {tls} }}"), false);
        core.trunks("waw1", 4).await;
        in_vain(edge.addr("login")).await;
        edge.wait_for_line("connection ended").await;
        core.stop().await;
        edge.wait_for_line("cannot connect to `core`").await;
        let core = Role::start(&yaml.replace(&format!("{HIDDEN}9:0"), &address.to_string()));
        edge.wait_for_line("connected to `core` again").await;
        core.stop().await;
        // Reading the file again ends nothing, and tells nothing.
        edge.reload("level: trace", "level: debug");
        edge.wait_for_line("\"configuration reloaded\"").await;
        edge.reload("log_core_address: false", "log_core_address: true");
        edge.wait_for_line("need a restart").await;
        assert!(edge.log().contains("\"keys\":\"log_core_address\""), "{}", edge.log());
        edge.reload("level: debug", "level: much");
        edge.wait_for_line("not reloaded").await;
        assert!(!shows_address(&edge).await, "{}", edge.log());
        edge.stop().await;
    });
}

/// A connection that comes from the core's address.
async fn from_core(edge: &RoleProcess) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{HIDDEN}10:0").parse().unwrap()).unwrap();
    socket.connect(edge.addr("tunnel")).await.unwrap()
}

#[test]
fn an_edge_that_is_connected_to_does_not_say_from_where() {
    run(async {
        let (ours, theirs) = (Certificates::new(), Certificates::new());
        let (tls, asked) = (ours.tls("waw1"), ours.asked("waw1"));
        for log in [false, true] {
            let edge = edge_program(&format!("{{ accept: '127.0.0.1:0', tls: {tls} }}"), log);
            let not_tls = "tunnel handshake failed: not_tls";
            for _ in 0..3 {
                from_core(&edge).await.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            }
            edge.wait_until("otproxy_tunnel_handshakes_total", &["result=\"not_tls\""], |now| now >= 3.0).await;
            edge.wait_for_line(not_tls).await;
            assert_eq!(edge.log().matches(not_tls).count(), 1, "{}", edge.log());
            drop(from_core(&edge).await);
            let wrong = client(Some(papers(&theirs, &["core"], Time::Now)), None);
            let _ = Peer::connected(from_core(&edge).await, wrong, &asked).shake().await;
            edge.wait_for_line("tunnel handshake failed: unknown_ca").await;
            let config = client(Some(papers(&ours, &["core"], Time::Now)), None);
            let mut peer = Peer::connected(from_core(&edge).await, config, &asked);
            peer.shake().await.unwrap();
            edge.wait_for_line("tunnel handshakes succeed again").await;
            let mut core = AnyTrunk::as_core(peer, &core_hello()).await.unwrap();
            let mut player = TcpStream::connect(edge.addr("login")).await.unwrap();
            player.write_all(b"hello").await.unwrap();
            while core.next().await.unwrap().expect("the trunk goes on").payload != b"hello" {}
            drop(core);
            assert_eq!(player.read(&mut [0]).await.unwrap_or(0), 0);
            edge.wait_for_line("connection ended").await;
            edge.wait_until("otproxy_tunnel_handshakes_total", &["result=\"closed\""], |now| now == 1.0).await;
            assert_eq!(shows_address(&edge).await, log, "{}", edge.log());
            edge.stop().await;
        }
    });
}

#[test]
fn a_reload_revokes_an_edge_and_what_is_wrong_changes_nothing() {
    run(async {
        let certificates = Certificates::new();
        let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target: SocketAddr = echo.local_addr().unwrap();
        let core = RoleProcess::with(
            "core",
            &format!(
                "tunnel: {{ accept: '127.0.0.1:0', tls: {} }}\nedges:\n- {{ name: waw1 }}\n- {{ name: fra1 }}\n\
                 listeners:\n- {{ name: login, forward_to: '{target}', send_proxy: none, trusted_peers: [192.0.2.0/24] }}\n",
                certificates.tls("core")
            ),
        );
        let login = "[{ name: login, listen: \"127.0.0.1:0\", forward_to: core/login }]";
        let (mut edges, mut players) = (Vec::new(), Vec::new());
        for name in ["waw1", "fra1"] {
            let edge = Role::start(&edge(&certificates, name, core.addr("tunnel"), login));
            let mut player = TcpStream::connect(edge.addr("login")).await.unwrap();
            player.write_all(b"1").await.unwrap();
            let mut behind = echo.accept().await.unwrap().0;
            assert_eq!(behind.read_u8().await.unwrap(), b'1');
            edges.push(edge);
            players.push((player, behind));
        }
        let trunks = "otproxy_tunnel_trunks";
        for edge in ["edge=\"waw1\"", "edge=\"fra1\""] {
            core.wait_until(trunks, &[edge], |now| now == 4.0).await;
        }

        core.reload("name: waw1", "name: waw1, revoked: true");
        core.wait_for_line("trusted no more").await;
        core.wait_for_line("\"configuration reloaded\"").await;
        let log = core.log();
        assert!(
            log.lines().any(|line| line.contains("\"edge\":\"waw1\"") && line.contains("trusted no more")),
            "{log}"
        );
        // Of the other edge it says that it is up, and nothing else.
        let other = |line: &&str| line.contains("\"edge\":\"fra1\"");
        assert!(
            log.lines().filter(other).all(|line| line.contains("\"edge is up\"")) && !log.contains("restart"),
            "{log}"
        );
        core.wait(trunks, &["edge=\"waw1\""], 0.0).await;
        core.wait("otproxy_connections_closed_total", &["reason=\"revoked\""], 1.0).await;
        core.wait_until("otproxy_tunnel_handshakes_total", &["result=\"revoked\""], |now| now >= 1.0).await;
        assert_eq!(players[0].0.read(&mut [0]).await.unwrap_or(0), 0);
        edges[0].handshakes("refused", 1).await;

        // What is wrong is told with its place, and changes nothing: not even what is right in the same file.
        core.reload("revoked: true", "revoked: perhaps");
        core.wait_for_line("not reloaded").await;
        let log = core.log();
        let line = log.lines().find(|line| line.contains("not reloaded")).unwrap();
        assert!(line.contains(".yaml:8") && line.contains("perhaps"), "{line}");
        core.reload("revoked: perhaps", "revoked: [");
        core.wait_for_lines("not reloaded", 2).await;

        // What takes a restart is said, again and again until there was one.
        core.reload("revoked: [", "revoked: true");
        core.wait_for_lines("\"configuration reloaded\"", 2).await;
        core.reload("name: test", "name: other");
        core.wait_for_lines("need a restart", 1).await;
        core.reload("name: other", "name: other");
        core.wait_for_lines("need a restart", 2).await;
        core.reload("name: other", "name: test");
        core.wait_for_lines("\"configuration reloaded\"", 3).await;
        core.reload("{ name: fra1 }", "{ name: fra1, address: 127.0.0.1 }");
        core.wait_for_lines("\"configuration reloaded\"", 4).await;

        // Trusted again it is served again; and the other was served all the time.
        core.reload(", revoked: true", "");
        core.wait_until(trunks, &["edge=\"waw1\""], |now| now == 4.0).await;
        let (player, behind) = &mut players[1];
        player.write_all(b"2").await.unwrap();
        assert_eq!(behind.read_u8().await.unwrap(), b'2');
        assert_eq!(core.metric("otproxy_connections_closed_total", &["listener=\"login\""]).await, 1.0);
        core.stop().await;
    });
}

#[test]
fn certificates_are_checked_with_the_file_and_used_at_once() {
    run(async {
        let certificates = Certificates::new();
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let core = RoleProcess::with(
            "core",
            &format!(
                "tunnel: {{ accept: '127.0.0.1:0', tls: {} }}\nedges: [{{ name: waw1 }}]\n\
                 listeners: [{{ name: login, forward_to: '{}', send_proxy: none }}]\n",
                certificates.tls("core"),
                target.local_addr().unwrap()
            ),
        );
        let login = "[{ name: login, listen: '127.0.0.1:0', forward_to: core/login }]";
        let edge = Role::start(&edge(&certificates, "waw1", core.addr("tunnel"), login));
        let mut old = stream(&edge, "login", &target).await;

        // What is right beside certificates that cannot be used is not used either.
        core.reload("/core.pem", "/waw1.pem");
        core.wait_for_lines("not reloaded", 1).await;
        assert!(core.log().contains("waw1.pem"), "{}", core.log());
        core.wait("otproxy_config_last_reload_successful", &[], 0.0).await;
        core.reload("[{ name: waw1 }]", "[{ name: fra1 }]");
        core.wait_for_lines("not reloaded", 2).await;
        goes_on(&mut old).await;
        goes_on(&mut stream(&edge, "login", &target).await).await;

        // Another one, under another name.
        let expiry = "otproxy_certificate_expiry_timestamp_seconds";
        let before = core.metric(expiry, &["certificate=\"own\""]).await;
        let folder = &certificates.folder;
        certificates.issue("core", IssueTerms { days: 50, new_key: false });
        fs::copy(folder.join("core.pem"), folder.join("new.pem")).unwrap();
        core.reload("/waw1.pem", "/new.pem");
        // The edge that was taken out in vain is out now.
        core.wait_for_line("\"configuration reloaded\"").await;
        core.wait("otproxy_config_last_reload_successful", &[], 1.0).await;
        core.wait_until(expiry, &["certificate=\"own\""], |now| now < before).await;
        assert_eq!(old.0.read(&mut [0]).await.unwrap_or(0), 0);
        core.stop().await;
    });
}

#[test]
fn reloads_leave_no_descriptor_behind() {
    run(async {
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = target.local_addr().unwrap();
        let b = format!("- {{ name: b, listen: '127.0.0.1:0', forward_to: '{to}', check: tcp, inter: 1h }}\n");
        let edge = RoleProcess::with(
            "edge",
            &format!("listeners:\n- {{ name: a, listen: '127.0.0.1:0', forward_to: '{to}' }}\n"),
        );
        let mut before = 0;
        for round in 0..50 {
            let (from, into) =
                if round % 2 == 0 { ("listeners:\n", format!("listeners:\n{b}")) } else { (&*b, String::new()) };
            edge.reload(from, &into);
            edge.wait_for_lines("\"configuration reloaded\"", round + 1).await;
            // Not all of it was there when it said that it is ready.
            if round == 1 {
                before = edge.descriptors();
            }
        }
        // Those of a check come and go.
        edge.wait_for_descriptors(|now| now < before + 10).await;
        edge.stop().await;
    });
}

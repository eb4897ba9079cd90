//! Plain streams through the tunnel: what a forward carries, and what its target is told.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::common::run;
use crate::common::tunnel::*;

const LOGIN: &str = "[{ name: login, listen: \"127.0.0.1:0\", forward_to: core/login }]";

/// A target that tells what it got up to the end of the stream, and answers with it backwards.
async fn target() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, format!("[{{ name: login, forward_to: \"{address}\", send_proxy: v1 }}]"))
}

/// One connection with this many bytes each way and an end of its own for each direction.
async fn exchange(edge: &Role, target: &TcpListener, bytes: usize) {
    let sent: Vec<u8> = (0..bytes).map(|n| (n * 31 % 251) as u8).collect();
    // Not 127.0.0.1, which a server on loopback sees without being told.
    let mut player = crate::common::sandbox::connect_from("127.0.0.9", edge.addr("login")).await;
    let from = player.local_addr().unwrap();
    let playing = async {
        let (mut read, mut write) = player.split();
        let writing = async {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let mut answer = Vec::new();
        let (_, count) = tokio::join!(writing, read.read_to_end(&mut answer));
        assert_eq!(count.unwrap(), bytes);
        answer
    };
    let serving = async {
        let (mut stream, _) = target.accept().await.unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        let header = format!("PROXY TCP4 127.0.0.9 127.0.0.1 {} {}\r\n", from.port(), edge.addr("login").port());
        let body = got.strip_prefix(header.as_bytes()).expect("the player's own address").to_vec();
        stream.write_all(&body.iter().rev().copied().collect::<Vec<_>>()).await.unwrap();
        stream.shutdown().await.unwrap();
        body
    };
    let (answer, got) = tokio::join!(playing, serving);
    assert_eq!(got, sent);
    assert!(answer.iter().eq(sent.iter().rev()));
}

#[test]
fn a_stream_goes_through_whoever_connects() {
    run(async {
        let certificates = Certificates::new();
        let (game, listeners) = target().await;
        let core_accepts = Role::start(&core(&certificates, "[{ name: waw1 }]", &listeners, ""));
        let dials = Role::start(&edge(&certificates, "waw1", core_accepts.addr("tunnel"), LOGIN));
        let accepts = Role::start(&edge_dialled(&certificates, "fra1", "127.0.0.1:0", LOGIN));
        let edges = format!("[{{ name: fra1, dial: \"{}\" }}]", accepts.addr("tunnel"));
        let core_dials =
            Role::start(&core(&certificates, &edges, &listeners, "").replace("accept: \"127.0.0.1:0\", ", ""));
        for (edge, name, core) in [(&dials, "waw1", &core_accepts), (&accepts, "fra1", &core_dials)] {
            edge.trunks(name, 4).await;
            core.trunks(name, 4).await;
            for bytes in [0, 1, 20_000, 3_000_000] {
                exchange(edge, &game, bytes).await;
            }
            // They were as many all the time.
            assert_eq!(edge.metric("otproxy_tunnel_trunks", &[]).await, 4.0);
            core.streams(0).await;
            assert_eq!(core.metric("otproxy_connections_accepted_total", &["listener=\"login\""]).await, 4.0);
            assert_eq!(core.metric("otproxy_tunnel_streams_refused_total", &[]).await, 0.0);
        }
        assert!(core_dials.metric("otproxy_tunnel_dials_total", &["edge=\"fra1\"", "result=\"ok\""]).await == 4.0);
        assert!(dials.metric("otproxy_tunnel_dials_total", &["edge=\"waw1\"", "result=\"ok\""]).await == 4.0);
    });
}

#[test]
fn a_crowd_shares_the_trunks() {
    run(async {
        let certificates = Certificates::new();
        let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listeners =
            format!("[{{ name: login, forward_to: \"{}\", send_proxy: none }}]", echo.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = echo.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        let accepts = Role::start(&edge_dialled(&certificates, "fra1", "127.0.0.1:0", LOGIN));
        let edges = format!("[{{ name: fra1, dial: \"{}\" }}, {{ name: waw1 }}]", accepts.addr("tunnel"));
        let core = Role::start(&core(&certificates, &edges, &listeners, ""));
        let dials = Role::start(&edge(&certificates, "waw1", core.addr("tunnel"), LOGIN));
        for edge in [&accepts, &dials] {
            let mut players = Vec::new();
            for _ in 0..60 {
                players.push(TcpStream::connect(edge.addr("login")).await.unwrap());
            }
            for (n, player) in players.iter_mut().enumerate() {
                player.write_all(&[n as u8]).await.unwrap();
            }
            for (n, player) in players.iter_mut().enumerate() {
                assert_eq!(player.read_u8().await.unwrap(), n as u8);
            }
            core.streams(60).await;
            drop(players);
            core.streams(0).await;
        }
    });
}

#[test]
fn without_a_core_a_player_is_told_and_with_one_again_served() {
    run(async {
        let certificates = Certificates::new();
        let (game, listeners) = target().await;
        let nobody = free_address();
        let edge = Role::start(&edge(&certificates, "waw1", nobody, LOGIN));
        let mut player = TcpStream::connect(edge.addr("login")).await.unwrap();
        assert_eq!(player.read(&mut [0]).await.unwrap_or(0), 0);
        edge.wait_until("otproxy_connections_closed_total", &["reason=\"connect_failed\""], |now| now >= 1.0).await;
        let yaml = core(&certificates, "[{ name: waw1 }]", &listeners, "").replace("127.0.0.1:0", &nobody.to_string());
        let mut core = Role::start(&yaml);
        for _ in 0..3 {
            edge.trunks("waw1", 4).await;
            core.trunks("waw1", 4).await;
            exchange(&edge, &game, 1000).await;
            let yaml = core.stop().await;
            edge.trunks("waw1", 0).await;
            core = Role::start(&yaml);
        }
    });
}

#[test]
fn the_cores_lists_limits_and_expectations_are_for_players_in_the_tunnel_too() {
    run(async {
        let certificates = Certificates::new();
        let game = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listeners = format!(
            "[{{ name: login, forward_to: \"{}\", send_proxy: none, expect: status, deny: 127.0.0.2, \
             limits: {{ rate_per_address: 2/1h }} }}]",
            game.local_addr().unwrap()
        );
        let core = Role::start(&core(&certificates, "[{ name: waw1 }]", &listeners, ""));
        let edge = Role::start(&edge(&certificates, "waw1", core.addr("tunnel"), LOGIN));
        let request = b"\x06\0\xFF\xFFinfo";
        for (from, sent, refused) in [
            ("127.0.0.2", &request[..], Some("denied")),
            ("127.0.0.1", b"GET / HTTP/1.1\r\n\r\n", Some("unexpected")),
            ("127.0.0.1", request, None),
            ("127.0.0.1", request, Some("rate")),
        ] {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
            let player = socket.connect(edge.addr("login")).await;
            let Some(reason) = refused else {
                player.unwrap().write_all(sent).await.unwrap();
                let (mut stream, _) = game.accept().await.unwrap();
                let mut got = vec![0; sent.len()];
                stream.read_exact(&mut got).await.unwrap();
                assert_eq!(got, sent);
                continue;
            };
            // He may be refused before he knows that he is connected.
            if let Ok(mut player) = player {
                let _ = player.write_all(sent).await;
                assert_eq!(player.read(&mut [0]).await.unwrap_or(0), 0, "{reason}");
            }
            let labels = ["listener=\"login\"", &format!("reason=\"{reason}\"")];
            core.wait_until("otproxy_connections_rejected_total", &labels, |count| count == 1.0).await;
        }
        assert_eq!(core.metric("otproxy_target_connects_total", &["listener=\"login\""]).await, 1.0);
    });
}

#[test]
fn the_status_is_asked_for_once_and_answered_at_either_end() {
    run(async {
        const REQUEST: &[u8] = b"\x06\0\xFF\xFFinfo";
        const STATUS: &str = ", status: { cache: 1h, address: play.example }";
        let game = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = game.local_addr().unwrap();
        for (on_edge, on_core) in [(STATUS, ""), ("", STATUS)] {
            let certificates = Certificates::new();
            let patient = ", timeouts: { connect: 1h, header: 1h, idle: 1h }";
            let listeners = format!("[{{ name: login, forward_to: \"{address}\", send_proxy: v1{patient}{on_core} }}]");
            let core = Role::start(&core(&certificates, "[{ name: waw1 }]", &listeners, ""));
            let login = LOGIN.replace(" }]", &format!("{patient}{on_edge} }}]"));
            let edge = Role::start(&edge(&certificates, "waw1", core.addr("tunnel"), &login));
            edge.trunks("waw1", 4).await;
            let ask = async || {
                let mut player = TcpStream::connect(edge.addr("login")).await.unwrap();
                player.write_all(REQUEST).await.unwrap();
                let mut answer = String::new();
                player.read_to_string(&mut answer).await.unwrap();
                answer
            };
            let serving = async {
                let (mut stream, _) = game.accept().await.unwrap();
                let mut got = Vec::new();
                while !got.ends_with(REQUEST) {
                    assert!(stream.read_buf(&mut got).await.unwrap() > 0, "{}", got.escape_ascii());
                }
                assert_eq!(got, REQUEST, "it comes from 127.0.0.1, and nothing tells so");
                stream.write_all(b"<serverinfo ip='10.0.0.1'/>").await.unwrap();
            };
            let (first, ()) = tokio::join!(ask(), serving);
            for answer in [first, ask().await, ask().await] {
                assert_eq!(answer, "<serverinfo ip='play.example'/>");
            }
            let streams = core.metric("otproxy_connections_accepted_total", &["listener=\"login\""]).await;
            assert_eq!(streams, if on_edge.is_empty() { 3.0 } else { 1.0 });
        }
    });
}

/// Whoever reads the access log of an edge does not learn where the core is.
#[test]
fn the_access_log_of_an_edge_names_the_core_and_not_its_address() {
    run(async {
        let certificates = Certificates::new();
        let (game, listeners) = target().await;
        for format in ["json", "text", "haproxy"] {
            let log = |role: &str| certificates.folder.join(format!("{role}-{format}.log"));
            let yaml = |role| format!("access_log: {{ format: {format}, file: {} }}\n", log(role).display());
            let core = Role::start(&core(&certificates, "[{ name: waw1 }]", &listeners, &yaml("core")));
            let address = core.addr("tunnel");
            let short = LOGIN.replace(" }]", ", timeouts: { connect: 200ms } }]");
            let edge = Role::start(&(edge(&certificates, "waw1", address, &short) + &yaml("edge")));
            edge.trunks("waw1", 4).await;
            exchange(&edge, &game, 1000).await;
            core.streams(0).await;
            core.stop().await;
            edge.trunks("waw1", 0).await;
            let mut player = TcpStream::connect(edge.addr("login")).await.unwrap();
            assert_eq!(player.read(&mut [0]).await.unwrap(), 0);
            edge.stop().await;
            // Both have ended, and written all.
            let [at_edge, at_core] = [log("edge"), log("core")].map(|log| std::fs::read_to_string(log).unwrap());
            assert_eq!(at_edge.matches("core/login").count(), 2, "{at_edge}");
            assert!(!at_edge.contains(&format!(":{}", address.port())), "{at_edge}");
            let named = ["\"edge\":\"waw1\"", " edge=waw1 ", " login/127.0.0.1:"];
            assert!(named.iter().any(|named| at_core.contains(named)), "{at_core}");
        }
    });
}

/// Connects to the edge from this address, says what is no login, and sees the end.
async fn breaks_a_rule(edge: &Role, local: &str) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{local}:0").parse().unwrap()).unwrap();
    // It may be told of the end before it knows that it is connected.
    if let Ok(mut player) = socket.connect(edge.addr("login")).await {
        let _ = player.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
        assert_eq!(player.read(&mut [0]).await.unwrap_or(0), 0);
    }
}

#[test]
fn a_player_is_banned_and_never_the_edge_that_he_came_through() {
    run(async {
        let certificates = Certificates::new();
        let listeners = "[{ name: login, forward_to: \"127.0.0.1:9\", expect: login }]";
        let edges = "[{ name: waw1, address: [127.0.0.1, 127.0.0.9] }]";
        let bans = "bans: { after: 1/1h, for: 1h }";
        let core = Role::start(&core(&certificates, edges, listeners, bans));
        let edge = Role::start(&edge(&certificates, "waw1", core.addr("tunnel"), LOGIN));
        edge.trunks("waw1", 4).await;
        let rejected = async |reason: &str, count: f64| {
            let reason = format!("reason=\"{reason}\"");
            let labels = ["listener=\"login\"", &reason];
            core.wait_until("otproxy_connections_rejected_total", &labels, |now| now == count).await;
        };
        for count in 1..=2 {
            breaks_a_rule(&edge, "127.0.0.2").await;
            rejected("unexpected", f64::from(count)).await;
        }
        for count in 1..=3 {
            breaks_a_rule(&edge, "127.0.0.2").await;
            rejected("banned", f64::from(count)).await;
        }
        breaks_a_rule(&edge, "127.0.0.3").await;
        rejected("unexpected", 3.0).await;
        // Nor is who has the address of an edge, which may be that edge.
        for count in 4..=6 {
            breaks_a_rule(&edge, "127.0.0.9").await;
            rejected("unexpected", f64::from(count)).await;
        }
        assert_eq!(core.metric("otproxy_bans_active", &[]).await, 1.0);
    });
}

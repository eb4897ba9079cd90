//! Several targets of one listener: which of them players reach, and how a listener learns which are up.

use std::net::SocketAddr;

use otproxy::forward::{CheckResult, TargetState};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::common::sandbox::*;

/// One listener called `a` with these targets and more keys.
fn edge(targets: &str, more: &str) -> Role {
    Role::edge(&format!("[{{ name: a, listen: \"127.0.0.1:0\", forward_to: [{targets}], {more} }}]"))
}

fn up(target: &str) -> String {
    format!("otproxy_target_up{{listener=a,target={target}}}")
}

fn checks(target: &str, result: &str) -> String {
    format!("otproxy_target_checks_total{{listener=a,result={result},target={target}}}")
}

fn connects(result: &str) -> String {
    format!("otproxy_target_connects_total{{listener=a,result={result}}}")
}

/// A target that says its name to each who connects, and keeps the connection until its end.
async fn named(name: u8, address: &str) -> SocketAddr {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address.parse().unwrap()).unwrap();
    let listener = socket.listen(1024).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(&[name]).await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    address
}

/// A player's connection, and the name of the target that it leads to; 0 where there is none.
async fn player_from(local: &str, edge: &Role) -> (TcpStream, u8) {
    let mut player = connect_from(local, edge.addr("a")).await;
    let name = player.read_u8().await.unwrap_or(0);
    (player, name)
}

async fn player(edge: &Role) -> (TcpStream, u8) {
    player_from("127.0.0.1", edge).await
}

/// A listener that takes no more connections, and does not refuse them either: its queue is full.
async fn make_silent(listener: &TcpListener) -> Vec<TcpStream> {
    SockRef::from(listener).listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    // The kernel keeps one more than it is told; those beyond are never answered.
    loop {
        let connecting = tokio::time::timeout(std::time::Duration::from_millis(500), TcpStream::connect(address));
        let Ok(connected) = connecting.await else { return held };
        held.push(connected.unwrap());
        assert!(held.len() < 100, "its queue has no end");
    }
}

#[test]
fn a_target_falls_and_rises_by_checks_and_a_backup_has_the_players_meanwhile() {
    run(async {
        let first = target().await;
        let backup = named(2, "127.0.0.1:0").await;
        let targets = format!("{{ address: \"{}\", name: main }}, {{ address: \"{backup}\", backup: true }}", first.1);
        let edge = edge(&targets, "send_proxy: none, check: tcp, inter: 10ms, fall: 3, rise: 2");
        edge.wait_series(&checks("main", "ok"), |count| count >= 3.0).await;
        assert_eq!((edge.series(&up("main")).await, edge.series(&up("2")).await), (1.0, 1.0));
        drop(first.0);
        edge.wait_for(&up("main"), 0).await;
        assert!(edge.series(&checks("main", "refused")).await >= 3.0);
        assert_eq!(player(&edge).await.1, 2);
        assert_eq!(edge.series(&connects("refused")).await, 0.0, "no player tried one that is known to be down");
        assert_eq!(named(1, &first.1.to_string()).await, first.1);
        edge.wait_for(&up("main"), 1).await;
        assert_eq!(player(&edge).await.1, 1);
        assert_eq!(edge.series(&up("2")).await, 1.0);
        edge.stop().await;
    });
}

#[test]
fn no_player_but_one_waits_for_a_target_that_has_gone() {
    run(async {
        let (gone, address) = target().await;
        let alive = named(2, "127.0.0.1:0").await;
        // The next check is far away: it is the first player who finds out.
        let more = "send_proxy: none, check: tcp, inter: 1h, timeouts: { connect: 200ms }";
        let edge = edge(&format!("\"{address}\", \"{alive}\""), more);
        edge.wait_for(&checks("1", "ok"), 1).await;
        drop(accept(&gone).await);
        let _held = make_silent(&gone).await;
        for count in 1..=10 {
            assert_eq!(player(&edge).await.1, 2);
            let now = (edge.series(&connects("timeout")).await, edge.series(&connects("ok")).await);
            assert_eq!(now, (1.0, f64::from(count)));
        }
        assert_eq!(edge.series(&up("1")).await, 1.0, "one failure is no fall");
        edge.stop().await;
    });
}

#[test]
fn without_checks_a_target_that_failed_is_shown_as_down_until_a_player_reaches_it() {
    run(async {
        let (socket, address) = refusing();
        let alive = named(2, "127.0.0.1:0").await;
        let edge = edge(&format!("\"{address}\", \"{alive}\""), "send_proxy: none");
        assert_eq!(edge.series(&up("1")).await, 1.0);
        assert_eq!(player(&edge).await.1, 2);
        edge.wait_for(&up("1"), 0).await;
        drop(socket);
        named(1, &address.to_string()).await;
        eventually("a player who finds out", async || (player(&edge).await.1 == 1).then_some(())).await;
        edge.wait_for(&up("1"), 1).await;
        assert_eq!(edge.series(&connects("timeout")).await, 0.0);
        assert!(!edge.all_series().await.contains_key(&checks("1", "ok")), "nothing checks it");
        edge.stop().await;
    });
}

#[test]
fn a_player_tries_each_target_once_and_not_for_ever() {
    run(async {
        let mut targets = Vec::new();
        for _ in 0..8 {
            let (listener, address) = target().await;
            let held = make_silent(&listener).await;
            targets.push((listener, address, held));
        }
        let list: Vec<_> = targets.iter().map(|(_, address, _)| format!("\"{address}\"")).collect();
        let edge = edge(&list.join(", "), "send_proxy: none, timeouts: { connect: 100ms }");
        assert_eq!(player(&edge).await.1, 0);
        edge.wait_for("otproxy_connections_closed_total{listener=a,reason=connect_failed}", 1).await;
        let timeouts = edge.series(&connects("timeout")).await;
        assert!((1.0..=3.0).contains(&timeouts), "{timeouts} targets in three times `timeouts.connect`");
        edge.stop().await;
    });
}

#[test]
fn nothing_is_sent_twice() {
    run(async {
        let ((first, one), (second, two)) = (target().await, target().await);
        let edge = edge(&format!("\"{one}\", \"{two}\""), "");
        let mut client = TcpStream::connect(edge.addr("a")).await.unwrap();
        client.write_all(b"login").await.unwrap();
        let mut server = accept(&first).await;
        let header = v2(client.local_addr().unwrap(), edge.addr("a"));
        assert_eq!(read(&mut server, 33).await, [&header[..], b"login"].concat());
        // It has had the player's bytes: no other may have them.
        drop(server);
        assert_eq!(read_to_close(&mut client).await, b"");
        drop(client);
        edge.wait_for("otproxy_connections_active{listener=a}", 0).await;
        let mut next = TcpStream::connect(edge.addr("a")).await.unwrap();
        next.write_all(b"again").await.unwrap();
        assert!(read(&mut accept(&first).await, 33).await.ends_with(b"again"), "nor is that one down for it");
        edge.stop_after(next).await;
        assert!(tokio::time::timeout(std::time::Duration::ZERO, second.accept()).await.is_err());
    });
}

#[test]
fn least_counts_the_connections_of_all_workers() {
    run(async {
        let (one, two) = (named(1, "127.0.0.1:0").await, named(2, "127.0.0.1:0").await);
        let edge = edge(&format!("\"{one}\", \"{two}\""), "send_proxy: none, choice: least");
        let mut players = Vec::new();
        for _ in 0..20 {
            players.push(player(&edge).await);
        }
        let of = |name: u8, players: &[(TcpStream, u8)]| players.iter().filter(|(_, to)| *to == name).count();
        assert_eq!((of(1, &players), of(2, &players)), (10, 10));
        players.retain(|(_, name)| *name == 1);
        edge.wait_for("otproxy_connections_active{listener=a}", 10).await;
        for _ in 0..10 {
            players.push(player(&edge).await);
        }
        assert_eq!((of(1, &players), of(2, &players)), (10, 10));
        edge.stop_after(players).await;
    });
}

#[test]
fn source_is_one_target_for_each_address_on_every_edge() {
    run(async {
        let (one, two) = (named(1, "127.0.0.1:0").await, named(2, "127.0.0.1:0").await);
        let more = "send_proxy: none, choice: source";
        // The names are what counts, in any order.
        let named = |first: (SocketAddr, u8), second: (SocketAddr, u8)| {
            edge(
                &[first, second]
                    .map(|(address, name)| format!("{{ address: \"{address}\", name: t{name} }}"))
                    .join(", "),
                more,
            )
        };
        let edges = [named((one, 1), (two, 2)), named((two, 2), (one, 1))];
        let mut seen = [0; 3];
        for host in 1..=30 {
            let address = format!("127.0.1.{host}");
            let (_, expected) = player_from(&address, &edges[0]).await;
            seen[usize::from(expected)] += 1;
            for edge in &edges {
                for _ in 0..2 {
                    assert_eq!(player_from(&address, edge).await.1, expected, "{address}");
                }
            }
        }
        assert!(seen[0] == 0 && seen[1] > 0 && seen[2] > 0, "{seen:?}");
        let [first, second] = edges;
        first.stop().await;
        second.stop().await;
    });
}

#[test]
fn a_relay_passes_a_ping_and_what_only_accepts_does_not() {
    run(async {
        let core = Role::core(
            "edges: [{ name: waw1, address: 127.0.0.1 }]\n\
             listeners: [{ name: links, kind: relay, listen: \"127.0.0.1:0\" }]\n\
             game_servers: [{ port: 7172, address: \"127.0.0.1:7172\" }]",
        );
        let other = echo_target().await;
        for send_proxy in ["v2", "v1"] {
            let targets = format!("{{ address: \"{other}\", name: echo }}, \"{}\"", core.addr("links"));
            let edge = edge(&targets, &format!("check: ping, inter: 10ms, send_proxy: {send_proxy}"));
            edge.wait_for(&up("echo"), 0).await;
            edge.wait_series(&checks("2", "ok"), |count| count >= 5.0).await;
            assert_eq!(edge.series(&up("2")).await, 1.0);
            for result in ["no_pong", "timeout", "error"] {
                assert_eq!(edge.series(&checks("2", result)).await, 0.0, "{result}");
            }
            let no_pong = edge.series(&checks("echo", "no_pong")).await;
            assert!(no_pong >= 3.0 && edge.series(&checks("echo", "ok")).await == 0.0);
            let rtt = edge.all_series().await;
            let count =
                |name: &str| rtt[&format!("otproxy_target_check_rtt_seconds_count{{listener=a,target={name}}}")];
            assert!(count("2") >= 5.0 && count("echo") == 0.0);
            edge.stop().await;
        }
        // It took them for links of the edge that sent nothing else, and has no player's round trip from them.
        core.wait_for("otproxy_relay_links_active{edge=waw1}", 0).await;
        assert_eq!(core.series("otproxy_connections_rejected_total{listener=links,reason=no_ping}").await, 0.0);
        assert_eq!(core.series("otproxy_relay_link_rtt_seconds_count{edge=waw1}").await, 0.0);
        core.stop().await;
    });
}

#[test]
fn with_all_down_players_are_let_through_to_who_may_be_back() {
    run(async {
        // It accepts, and is no relay: the check may be what is wrong.
        let address = named(1, "127.0.0.1:0").await;
        let edge = edge(&format!("\"{address}\""), "send_proxy: none, check: ping, inter: 10ms");
        edge.wait_for(&up("1"), 0).await;
        assert_eq!(player(&edge).await.1, 1);
        edge.stop().await;
    });
}

#[test]
fn a_name_is_looked_up_before_it_is_needed() {
    run(async {
        let address = named(1, "127.0.0.1:0").await;
        for resolve in ["30s", "0s"] {
            let edge =
                edge(&format!("\"localhost:{}\"", address.port()), &format!("send_proxy: none, resolve: {resolve}"));
            for _ in 0..3 {
                assert_eq!(player(&edge).await.1, 1);
            }
            edge.stop().await;
        }
    });
}

fn set(edge: &Role, target: &str, state: TargetState) -> bool {
    let targets = edge.control().targets();
    let (name, targets) = &targets[0];
    assert_eq!(name, "a");
    targets.set_state(target, state)
}

fn state(target: &str, state: &str) -> String {
    format!("otproxy_target_state{{listener=a,state={state},target={target}}}")
}

#[test]
fn a_target_that_is_drained_or_in_maintenance_has_no_new_connections_and_keeps_those_it_has() {
    run(async {
        let (first, second) = (named(1, "127.0.0.1:0").await, named(2, "127.0.0.1:0").await);
        let edge = edge(&format!("\"{first}\", \"{second}\""), "send_proxy: none, check: tcp, inter: 10ms");
        let (open, 1) = player(&edge).await else { panic!("the first has it") };
        assert!(set(&edge, "1", TargetState::Drain) && !set(&edge, "none", TargetState::Drain));
        let metrics = edge.all_series().await;
        let states = ["ready", "drain", "maint"].map(|word| metrics[&state("1", word)]);
        assert_eq!((states, metrics[&state("2", "ready")]), ([0.0, 1.0, 0.0], 1.0));
        assert_eq!(player(&edge).await.1, 2);
        // It is checked all the same.
        let so_far = edge.series(&checks("1", "ok")).await;
        edge.wait_series(&checks("1", "ok"), |count| count > so_far).await;

        assert!(set(&edge, "2", TargetState::Maint));
        let connected = edge.series(&connects("ok")).await;
        assert_eq!(player(&edge).await.1, 0, "none is ready");
        edge.wait_for("otproxy_connections_closed_total{listener=a,reason=connect_failed}", 1).await;
        assert_eq!(edge.series(&connects("ok")).await, connected);

        // One that is drained, and is away, is down; in maintenance nothing is known, and nothing asked.
        assert!(set(&edge, "1", TargetState::Ready));
        assert_eq!(player(&edge).await.1, 1);
        let list = edge.control().targets()[0].1.list();
        assert_eq!(list.iter().map(|view| view.state).collect::<Vec<_>>(), [TargetState::Ready, TargetState::Maint]);
        assert!(list[0].connections >= 1 && list[0].check.is_some_and(|check| check.result == CheckResult::Ok));
        drop(open);
        edge.stop().await;
    });
}

#[test]
fn in_maintenance_nothing_is_checked_and_out_of_it_a_target_is_up_until_it_fails() {
    run(async {
        let away = refusing();
        let backup = named(2, "127.0.0.1:0").await;
        let targets = format!("\"{}\", {{ address: \"{backup}\", backup: true }}", away.1);
        let edge = edge(&targets, "send_proxy: none, check: tcp, inter: 10ms, fall: 1, rise: 1");
        edge.wait_for(&up("1"), 0).await;
        assert!(set(&edge, "1", TargetState::Maint));
        // One may be under way; the other target's go on.
        let (mut before, mut still) = (f64::NAN, 0);
        while still < 3 {
            let so_far = edge.series(&checks("2", "ok")).await;
            edge.wait_series(&checks("2", "ok"), |count| count > so_far + 2.0).await;
            let now = edge.series(&checks("1", "refused")).await;
            still = if now == before { still + 1 } else { 0 };
            before = now;
        }
        assert!(set(&edge, "1", TargetState::Drain));
        edge.wait_series(&checks("1", "refused"), |count| count > before).await;
        edge.wait_for(&up("1"), 0).await;
        edge.stop().await;
    });
}

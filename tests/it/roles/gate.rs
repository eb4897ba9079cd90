//! Who gets in: lists, limits by rate and over the whole process, on real sockets.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::common::sandbox::*;

/// An edge with two listeners, `a` and `b`, and more YAML at the end of both and of the file.
fn edge(target: SocketAddr, of_a: &str, of_file: &str) -> Role {
    let listener = |name: &str, more: &str| {
        format!("- {{ name: {name}, listen: \"127.0.0.1:0\", forward_to: \"{target}\", send_proxy: none{more} }}\n")
    };
    let listeners = listener("a", of_a) + &listener("b", "");
    Role::start(&format!("role: edge\n{of_file}\nlisteners:\n{listeners}"))
}

fn rejected(listener: &str, reason: &str) -> String {
    format!("otproxy_connections_rejected_total{{listener={listener},reason={reason}}}")
}

fn connects(listener: &str) -> String {
    format!("otproxy_target_connects_total{{listener={listener},result=ok}}")
}

/// Connects from an address, and tells how the connection ends without a word from there: `None` for a
/// clean end.
async fn ends(local: &str, to: SocketAddr) -> Option<ErrorKind> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(local.parse::<IpAddr>().unwrap(), 0)).unwrap();
    // A reset may be there before the connection is known to stand.
    let mut stream = match socket.connect(to).await {
        Ok(stream) => stream,
        Err(error) => return Some(error.kind()),
    };
    match stream.read(&mut [0]).await {
        Ok(0) => None,
        Ok(_) => panic!("it is served"),
        Err(error) => Some(error.kind()),
    }
}

/// Connects and is served.
async fn served(local: &str, to: SocketAddr) -> TcpStream {
    let mut stream = connect_from(local, to).await;
    assert!(is_served(&mut stream).await, "{local} is refused");
    stream
}

#[test]
fn new_connections_over_the_rate_of_an_address_are_closed_and_reach_nothing() {
    run(async {
        let edge = edge(echo_target().await, ", limits: { rate_per_address: 3/1h }", "");
        for _ in 0..3 {
            drop(served("127.0.0.1", edge.addr("a")).await);
        }
        for count in 1..=5 {
            assert_eq!(ends("127.0.0.1", edge.addr("a")).await, None);
            edge.wait_for(&rejected("a", "rate"), count).await;
        }
        drop(served("127.0.0.2", edge.addr("a")).await);
        drop(served("127.0.0.1", edge.addr("b")).await);
        assert_eq!(edge.series(&connects("a")).await, 4.0, "a refused one made a connection to the target");
        edge.stop().await;
    });
}

#[test]
fn the_rate_counts_players_and_not_the_proxy_before_them() {
    run(async {
        let more = ", accept_proxy: optional, trusted_peers: 127.0.0.1/32, limits: { rate_per_address: 2/1h }";
        let edge = edge(echo_target().await, more, "");
        let to = edge.addr("a");
        for (player, within) in [
            ("192.0.2.1:1000", true),
            ("192.0.2.1:2000", true),
            ("[::ffff:192.0.2.1]:3000", false),
            ("192.0.2.2:1000", true),
            ("[2001:db8::1]:1000", true),
            ("[2001:db8::2]:1000", true),
            ("[2001:db8::ffff:1]:1000", false),
            ("[2001:db8:0:1::1]:1000", true),
        ] {
            let mut stream = TcpStream::connect(to).await.unwrap();
            stream.write_all(&v2(player.parse().unwrap(), "192.0.2.9:7172".parse().unwrap())).await.unwrap();
            assert_eq!(is_served(&mut stream).await, within, "{player}");
        }
        // A peer that is not believed is a player, and what it claims to be does not help it.
        for within in [true, true, false] {
            let mut stream = connect_from("127.0.0.3", to).await;
            assert_eq!(is_served(&mut stream).await, within);
        }
        assert_eq!(edge.series(&rejected("a", "rate")).await, 3.0);
        edge.stop().await;
    });
}

#[test]
fn the_process_counts_all_listeners_together() {
    run(async {
        for (limits, reason) in [
            ("connections: 2", "process_limit"),
            ("connections_per_address: 2", "process_address_limit"),
            ("rate_per_address: 2/1h", "process_rate"),
        ] {
            let edge = edge(echo_target().await, "", &format!("limits: {{ {limits} }}"));
            let open = [served("127.0.0.1", edge.addr("a")).await, served("127.0.0.1", edge.addr("b")).await];
            for listener in ["a", "b"] {
                assert_eq!(ends("127.0.0.1", edge.addr(listener)).await, None, "{reason}");
                edge.wait_for(&rejected(listener, reason), 1).await;
                assert_eq!(edge.series(&connects(listener)).await, 1.0);
            }
            edge.stop_after(open).await;
        }
    });
}

#[test]
fn the_relay_and_the_forwards_of_a_core_are_one_process() {
    run(async {
        let target = echo_target().await;
        let core = Role::core(&format!(
            "limits: {{ connections: 1 }}\n\
             listeners:\n\
             - {{ name: links, kind: relay, listen: \"127.0.0.1:0\", accept_proxy: none }}\n\
             - {{ name: login, listen: \"127.0.0.1:0\", accept_proxy: none, forward_to: \"{target}\", send_proxy: none }}\n\
             game_servers: [{{ port: 7172, address: \"{target}\" }}]"
        ));
        let login = served("127.0.0.1", core.addr("login")).await;
        assert_eq!(ends("127.0.0.2", core.addr("links")).await, None);
        core.wait_for(&rejected("links", "process_limit"), 1).await;
        core.stop_after(login).await;
    });
}

#[test]
fn a_refused_connection_is_reset_where_the_listener_says_so() {
    run(async {
        for (reset, end) in [("true", Some(ErrorKind::ConnectionReset)), ("false", None)] {
            let limits = format!(", limits: {{ connections_per_address: 1, reset: {reset} }}");
            let edge = edge(echo_target().await, &limits, "");
            let mut open = served("127.0.0.1", edge.addr("a")).await;
            assert_eq!(ends("127.0.0.1", edge.addr("a")).await, end);
            // Those that got in end as ever.
            open.shutdown().await.unwrap();
            assert_eq!(read_to_close(&mut open).await, b"");
            edge.wait_for("otproxy_connections_closed_total{listener=a,reason=client}", 1).await;
            edge.stop().await;
        }
    });
}

/// The header of a proxy in front of `player`.
fn header(player: &str) -> Vec<u8> {
    v2(player.parse().unwrap(), "192.0.2.9:7172".parse().unwrap())
}

#[test]
fn who_is_denied_or_not_allowed_reaches_nothing() {
    run(async {
        let of_a = ", deny: [127.0.0.2, 127.0.1.0/24], allow: [127.0.0.0/8]";
        let edge = edge(echo_target().await, of_a, "deny: 127.0.0.3\nallow: [127.0.0.0/16, 127.1.0.0/16]");
        for (local, listener, reason) in [
            ("127.0.0.2", "a", Some("denied")),
            ("127.0.1.7", "a", Some("denied")),
            ("127.0.0.3", "a", Some("denied")),
            ("127.0.0.3", "b", Some("denied")),
            ("127.2.0.1", "a", Some("not_allowed")),
            ("127.2.0.1", "b", Some("not_allowed")),
            ("127.0.0.1", "a", None),
            ("127.0.0.2", "b", None),
        ] {
            let to = edge.addr(listener);
            let Some(reason) = reason else {
                drop(served(local, to).await);
                continue;
            };
            let before = edge.series(&rejected(listener, reason)).await;
            assert_eq!(ends(local, to).await, None, "{local} at {listener}");
            edge.wait_series(&rejected(listener, reason), |count| count == before + 1.0).await;
        }
        assert_eq!((edge.series(&connects("a")).await, edge.series(&connects("b")).await), (1.0, 1.0));
        edge.stop().await;
    });
}

#[test]
fn behind_a_proxy_the_lists_are_for_players_and_deny_is_for_the_proxy_too() {
    run(async {
        let more = ", accept_proxy: required, trusted_peers: 127.0.0.0/8, \
                    deny: [192.0.2.1, \"2001:db8::/32\", 127.0.0.2], allow: [192.0.2.0/24, \"2001:db8::/32\"]";
        let edge = edge(echo_target().await, more, "");
        for (player, within) in [
            ("192.0.2.2:1", true),
            ("[::ffff:192.0.2.2]:1", true),
            ("192.0.2.1:1", false),
            ("[::ffff:192.0.2.1]:1", false),
            ("[2001:db8::1]:1", false),
            ("198.51.100.1:1", false),
        ] {
            let mut stream = connect_from("127.0.0.1", edge.addr("a")).await;
            stream.write_all(&header(player)).await.unwrap();
            assert_eq!(is_served(&mut stream).await, within, "{player}");
        }
        assert_eq!(edge.series(&rejected("a", "denied")).await, 3.0);
        assert_eq!(edge.series(&rejected("a", "not_allowed")).await, 1.0);
        // Without a byte from there: nobody waits for its header.
        assert_eq!(ends("127.0.0.2", edge.addr("a")).await, None);
        edge.wait_for(&rejected("a", "denied"), 4).await;
        edge.stop().await;
    });
}

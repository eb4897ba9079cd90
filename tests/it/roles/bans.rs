//! Who breaks the rules too often is refused for a while; so is whom the operator bans.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use otproxy::handover::Inheritance;
use otproxy::roles;
use otproxy_config as config;
use otproxy_config::Config;
use otproxy_protocol::frame::{ClientId, PONG, ping};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::common::sandbox::*;

const HOUR: Duration = Duration::from_secs(3600);

/// An edge with two listeners: `a` expects a login, and has more YAML at its end; `b` takes anything.
fn edge(target: SocketAddr, of_a: &str, bans: &str) -> Role {
    Role::start(&format!(
        "role: edge\nbans: {{ {bans} }}\nlisteners:\n\
         - {{ name: a, listen: \"127.0.0.1:0\", forward_to: \"{target}\", send_proxy: none, expect: login{of_a} }}\n\
         - {{ name: b, listen: \"127.0.0.1:0\", forward_to: \"{target}\", send_proxy: none }}\n"
    ))
}

fn rejected(listener: &str, reason: &str) -> String {
    format!("otproxy_connections_rejected_total{{listener={listener},reason={reason}}}")
}

fn header(player: &str) -> Vec<u8> {
    v2(player.parse().unwrap(), "192.0.2.9:7171".parse().unwrap())
}

/// Sends what is no login, and sees the end.
async fn break_a_rule(mut stream: TcpStream) {
    // It may be closed before it was sent.
    let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(read_to_close(&mut stream).await, b"");
}

async fn is_served_from(local: &str, to: SocketAddr) -> bool {
    is_served(&mut connect_from(local, to).await).await
}

#[test]
fn who_breaks_the_rules_too_often_is_refused_by_all_listeners_and_what_is_open_goes_on() {
    run(async {
        let edge = edge(echo_target().await, "", "after: 2/1h, for: 1h");
        let (a, b) = (edge.addr("a"), edge.addr("b"));
        let mut open = connect_from("127.0.0.1", b).await;
        echoes(&mut open, b"before").await;
        for count in 1..=3 {
            assert_eq!(edge.series("otproxy_bans_active").await, 0.0);
            break_a_rule(connect_from("127.0.0.1", a).await).await;
            edge.wait_for(&rejected("a", "unexpected"), count).await;
        }
        edge.wait_for("otproxy_bans_active", 1).await;
        for (listener, to) in [("a", a), ("b", b)] {
            for count in 1..=5 {
                let mut refused = connect_from("127.0.0.1", to).await;
                assert_eq!(read_to_close(&mut refused).await, b"");
                edge.wait_for(&rejected(listener, "banned"), count).await;
            }
        }
        echoes(&mut open, b"after").await;
        assert!(is_served_from("127.0.0.2", b).await);
        assert_eq!(edge.series("otproxy_target_connects_total{listener=b,result=ok}").await, 2.0);
        assert_eq!(edge.series("otproxy_bans_total{reason=rules}").await, 1.0);
        assert_eq!(edge.series("otproxy_bans_total{reason=operator}").await, 0.0);
        edge.stop_after(open).await;
    });
}

#[test]
fn with_none_nobody_is_banned() {
    run(async {
        let edge = edge(echo_target().await, "", "for: 1h");
        for count in 1..=20 {
            break_a_rule(connect_from("127.0.0.1", edge.addr("a")).await).await;
            edge.wait_for(&rejected("a", "unexpected"), count).await;
        }
        assert!(is_served_from("127.0.0.1", edge.addr("b")).await);
        edge.stop().await;
    });
}

#[test]
fn behind_a_proxy_the_player_is_banned_and_never_the_proxy() {
    run(async {
        let of_a = ", accept_proxy: required, trusted_peers: 127.0.0.1/32";
        let edge = edge(echo_target().await, of_a, "after: 1/1h, for: 1h");
        let a = edge.addr("a");
        let announced = async |player: &str| {
            let mut stream = connect_from("127.0.0.1", a).await;
            stream.write_all(&header(player)).await.unwrap();
            stream
        };
        for count in 1..=2 {
            break_a_rule(announced("192.0.2.1:1").await).await;
            edge.wait_for(&rejected("a", "unexpected"), count).await;
        }
        for count in 1..=3 {
            assert_eq!(read_to_close(&mut announced("[::ffff:192.0.2.1]:2").await).await, b"");
            edge.wait_for(&rejected("a", "banned"), count).await;
        }
        // What comes wrong from the proxy itself is not its own doing, on any listener.
        for count in 1..=3 {
            break_a_rule(connect_from("127.0.0.1", a).await).await;
            edge.wait_for(&rejected("a", "bad_header"), count).await;
        }
        edge.bans().ban("127.0.0.0/24".parse().unwrap(), HOUR, Instant::now());
        assert!(is_served_from("127.0.0.1", edge.addr("b")).await);
        assert_eq!(edge.series("otproxy_bans_total{reason=rules}").await, 1.0);
        break_a_rule(announced("192.0.2.2:1").await).await;
        edge.wait_for(&rejected("a", "unexpected"), 3).await;
        // An unknown peer where only proxies may connect is nobody's player.
        for count in 1..=2 {
            assert_eq!(read_to_close(&mut connect_from("127.0.1.1", a).await).await, b"");
            edge.wait_for(&rejected("a", "untrusted"), count).await;
        }
        assert!(!is_served_from("127.0.1.1", edge.addr("b")).await);
        edge.stop().await;
    });
}

#[test]
fn who_is_exempt_is_never_banned() {
    run(async {
        let edge = edge(echo_target().await, "", "after: 1/1h, for: 1h, exempt: 127.0.0.0/30");
        for count in 1..=9 {
            break_a_rule(connect_from("127.0.0.2", edge.addr("a")).await).await;
            edge.wait_for(&rejected("a", "unexpected"), count).await;
        }
        assert!(is_served_from("127.0.0.2", edge.addr("b")).await);
        edge.stop().await;
    });
}

#[test]
fn a_reload_changes_the_rules_and_leaves_the_bans() {
    run(async {
        let yaml = |bans: &str| {
            let listener = "{ name: a, listen: \"127.0.0.1:0\", forward_to: \"127.0.0.1:9\" }";
            format!("role: edge\nadmin: {{ listen: off }}\nbans: {{ {bans} }}\nlisteners: [{listener}]\n")
        };
        let config = |bans: &str| config::parse("edge.yaml", &yaml(bans)).unwrap();
        let Config::Edge(started) = config("after: none") else { panic!("an edge") };
        let service = roles::edge::bind(started, &mut Inheritance::default(), None).unwrap();
        let (bans, control, now) = (Arc::clone(service.bans()), service.control(), Instant::now());
        let running = tokio::spawn(service.run(std::future::pending()));
        bans.ban("192.0.2.0/24".parse().unwrap(), HOUR, now);
        control.reload_with(config("after: 1/1h, for: 1h, exempt: 192.0.2.7")).await.unwrap();
        let offender = "198.51.100.1".parse().unwrap();
        (0..2).for_each(|_| bans.count_violation(offender, now));
        let refused = |address: &str| bans.check(address.parse().unwrap(), now).is_err();
        assert!(refused("198.51.100.1") && refused("192.0.2.1") && !refused("192.0.2.7"));
        running.abort();
    });
}

#[test]
fn the_operator_bans_and_lifts() {
    run(async {
        let edge = edge(echo_target().await, "", "after: none");
        let (b, network) = (edge.addr("b"), "127.0.1.0/24".parse().unwrap());
        edge.bans().ban(network, HOUR, Instant::now());
        assert!(!is_served_from("127.0.1.7", b).await && is_served_from("127.0.2.7", b).await);
        assert_eq!(edge.series("otproxy_bans_total{reason=operator}").await, 1.0);
        assert_eq!(edge.bans().unban(network).len(), 1);
        assert!(is_served_from("127.0.1.7", b).await);
        // One that has ended is forgotten without anybody who asks for it.
        edge.bans().ban(network, Duration::ZERO, Instant::now());
        edge.wait_for("otproxy_bans_active", 0).await;
        edge.stop().await;
    });
}

#[test]
fn a_link_that_breaks_the_protocol_counts_as_well() {
    run(async {
        let core = Role::core(
            "bans: { after: 1/1h, for: 1h }\ngame_servers: [{ port: 7172, address: \"127.0.0.1:1\" }]\n\
             listeners: [{ name: links, kind: relay, listen: \"127.0.0.1:0\", accept_proxy: none }]",
        );
        for count in 1..=2 {
            let mut link = connect_from("127.0.0.1", core.addr("links")).await;
            link.write_all(&ping(ClientId(7), 0)).await.unwrap();
            assert_eq!(read(&mut link, PONG.len()).await, PONG);
            link.write_all(&[11, 0]).await.unwrap();
            assert_eq!(read_to_close(&mut link).await, b"");
            core.wait_for("otproxy_connections_closed_total{listener=links,reason=protocol_error}", count).await;
        }
        assert_eq!(read_to_close(&mut connect_from("127.0.0.1", core.addr("links")).await).await, b"");
        core.wait_for(&rejected("links", "banned"), 1).await;
        core.stop().await;
    });
}

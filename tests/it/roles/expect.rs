//! `expect`: nothing is connected to before a connection has begun as it should.

use std::net::SocketAddr;

use otproxy_protocol::frame::{ClientId, ping};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::common::sandbox::*;

const XML: &[u8] = b"\x06\0\xFF\xFFinfo";
/// Before which nothing that a test waits for can happen.
const LONG: &str = "timeouts: { first_bytes: 1h }";

/// An edge whose listener `a` has this `expect`, and more YAML at its end.
fn edge(target: SocketAddr, expect: &str, more: &str) -> Role {
    Role::edge(&format!(
        "[{{ name: a, listen: \"127.0.0.1:0\", forward_to: \"{target}\", send_proxy: none, expect: {expect}, {more} }}]"
    ))
}

fn rejected(reason: &str) -> String {
    format!("otproxy_connections_rejected_total{{listener=a,reason={reason}}}")
}

/// All attempts to connect to the target, however they ended.
async fn connects(edge: &Role) -> f64 {
    let metrics = edge.all_series().await;
    metrics.iter().filter(|(name, _)| name.starts_with("otproxy_target_connects_total")).map(|(_, value)| value).sum()
}

/// A login as of a client with a checksum, of `length` bytes by its leading u16.
fn login(length: u16) -> Vec<u8> {
    let mut body = pattern(length.into(), length.into());
    body[4] = 0x01;
    [&length.to_le_bytes()[..], &body].concat()
}

#[test]
fn what_is_expected_goes_on_whole_however_it_is_cut() {
    run(async {
        for (expect, first) in [
            ("links", ping(ClientId(7), 0).to_vec()),
            ("login", login(149)),
            ("login", login(700)),
            ("login", XML.to_vec()),
            ("status", XML.to_vec()),
        ] {
            let (game, addr) = target().await;
            let edge = edge(addr, expect, LONG);
            for cut in [1, first.len() / 2, first.len() - 1, first.len()] {
                let mut client = connect_from("127.0.0.1", edge.addr("a")).await;
                let (begin, rest) = first.split_at(cut);
                client.write_all(begin).await.unwrap();
                tokio::task::yield_now().await;
                client.write_all(&[rest, b"and more"].concat()).await.unwrap();
                let mut server = accept(&game).await;
                assert_eq!(read(&mut server, first.len() + 8).await, [&first[..], b"and more"].concat(), "{expect}");
                server.write_all(b"answer").await.unwrap();
                assert_eq!(read(&mut client, 6).await, b"answer");
            }
            edge.stop().await;
        }
    });
}

#[test]
fn anything_else_is_closed_at_once_and_the_target_never_hears_of_it() {
    run(async {
        for expect in ["links", "login", "status"] {
            let edge = edge(refusing().1, expect, LONG);
            let wrong: [&[u8]; 4] =
                [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\0\x01\0\x01\xFC\x03\x03", &[0; 100], b"SSH-2.0-x\r\n"];
            for (count, bytes) in (1..).zip(wrong) {
                let mut client = connect_from("127.0.0.1", edge.addr("a")).await;
                client.write_all(bytes).await.unwrap();
                assert_eq!(read_to_close(&mut client).await, b"", "{expect}");
                edge.wait_for(&rejected("unexpected"), count).await;
            }
            assert_eq!(connects(&edge).await, 0.0, "{expect}");
            edge.stop().await;
        }
    });
}

#[test]
fn one_kind_is_not_another() {
    run(async {
        let kinds = [("links", ping(ClientId(7), 0).to_vec()), ("login", login(149)), ("status", XML.to_vec())];
        for (expect, wrong) in [("links", 1), ("links", 2), ("login", 0), ("status", 0), ("status", 1)] {
            let edge = edge(refusing().1, expect, LONG);
            let mut client = connect_from("127.0.0.1", edge.addr("a")).await;
            client.write_all(&kinds[wrong].1).await.unwrap();
            assert_eq!(read_to_close(&mut client).await, b"", "{expect} takes {}", kinds[wrong].0);
            edge.wait_for(&rejected("unexpected"), 1).await;
            edge.stop().await;
        }
    });
}

#[test]
fn who_stays_silent_is_closed_and_the_target_never_hears_of_it() {
    run(async {
        for (expect, begin) in [("links", &[][..]), ("login", &login(149)[..100]), ("status", &XML[..7])] {
            let edge = edge(refusing().1, expect, "timeouts: { first_bytes: 50ms }");
            let mut client = connect_from("127.0.0.1", edge.addr("a")).await;
            client.write_all(begin).await.unwrap();
            assert_eq!(read_to_close(&mut client).await, b"");
            edge.wait_for(&rejected("silent"), 1).await;
            assert_eq!(connects(&edge).await, 0.0, "{expect}");
            edge.stop().await;
        }
    });
}

#[test]
fn who_leaves_before_it_said_anything_is_no_news() {
    run(async {
        let edge = edge(refusing().1, "links", LONG);
        drop(connect_from("127.0.0.1", edge.addr("a")).await);
        edge.wait_for(&rejected("closed"), 1).await;
        assert_eq!(connects(&edge).await, 0.0);
        edge.stop().await;
    });
}

#[test]
fn with_any_the_server_may_speak_first() {
    run(async {
        let (game, addr) = target().await;
        let edge = edge(addr, "any", LONG);
        let mut client = connect_from("127.0.0.1", edge.addr("a")).await;
        let mut server = accept(&game).await;
        server.write_all(b"challenge").await.unwrap();
        assert_eq!(read(&mut client, 9).await, b"challenge");
        edge.stop_after((client, server)).await;
    });
}

#[test]
fn behind_a_proxy_header_the_players_bytes_are_what_counts() {
    run(async {
        let (game, addr) = target().await;
        let edge = edge(addr, "login", &format!("accept_proxy: required, trusted_peers: 127.0.0.1/32, {LONG}"));
        let header = v2("192.0.2.1:1000".parse().unwrap(), "192.0.2.9:7171".parse().unwrap());
        for first in [&login(149)[..], XML] {
            let mut client = TcpStream::connect(edge.addr("a")).await.unwrap();
            client.write_all(&[&header[..], first].concat()).await.unwrap();
            let mut server = accept(&game).await;
            assert_eq!(read(&mut server, first.len()).await, first);
        }
        let mut client = TcpStream::connect(edge.addr("a")).await.unwrap();
        client.write_all(&[&header[..], b"GET / HTTP/1.1\r\n\r\n"].concat()).await.unwrap();
        assert_eq!(read_to_close(&mut client).await, b"");
        edge.wait_for(&rejected("unexpected"), 1).await;
        edge.stop().await;
    });
}

//! The edge's `forward` listeners.

use std::net::SocketAddr;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::sandbox::*;

/// One listener called `a`, on `127.0.0.1`, with more YAML at its end.
fn listener(forward_to: SocketAddr, more: &str) -> String {
    format!("[{{ name: a, listen: \"127.0.0.1:0\", forward_to: \"{forward_to}\"{more} }}]")
}

/// The same, without a PROXY header to the target.
fn plain(forward_to: SocketAddr, more: &str) -> String {
    listener(forward_to, &format!(", send_proxy: none{more}"))
}

fn closed(reason: &str) -> String {
    format!("otproxy_connections_closed_total{{listener=a,reason={reason}}}")
}

fn rejected(reason: &str) -> String {
    format!("otproxy_connections_rejected_total{{listener=a,reason={reason}}}")
}

fn connects(result: &str) -> String {
    format!("otproxy_target_connects_total{{listener=a,result={result}}}")
}

const ACTIVE: &str = "otproxy_connections_active{listener=a}";
const ACCEPTED: &str = "otproxy_connections_accepted_total{listener=a}";
const BYTES_IN: &str = "otproxy_bytes_total{direction=in,listener=a}";
const BYTES_OUT: &str = "otproxy_bytes_total{direction=out,listener=a}";

#[test]
fn bytes_come_back_and_are_counted() {
    run(async {
        let edge = Role::edge(&plain(echo_target().await, ""));
        let mut client = TcpStream::connect(edge.addr("a")).await.unwrap();
        for size in [1, 2, 1000, 65_535, 65_536, 200_000] {
            let bytes = pattern(size as u64, size);
            let (mut read, mut write) = client.split();
            let mut back = vec![0; size];
            let (sent, received) = tokio::join!(write.write_all(&bytes), read.read_exact(&mut back));
            sent.unwrap();
            received.unwrap();
            assert!(back == bytes, "{size} bytes came back different");
        }
        let all = 1 + 2 + 1000 + 65_535 + 65_536 + 200_000;
        edge.wait_for(BYTES_OUT, all).await;
        assert_eq!(edge.series(BYTES_IN).await, all as f64);
        assert_eq!((edge.series(ACCEPTED).await, edge.series(ACTIVE).await), (1.0, 1.0));
        drop(client);
        edge.wait_for(ACTIVE, 0).await;
        edge.wait_for(&closed("client"), 1).await;
        edge.stop().await;
    });
}

#[test]
fn the_two_directions_are_counted_apart_and_without_the_header() {
    run(async {
        let (game, addr) = target().await;
        let edge = Role::edge(&listener(addr, ""));
        let mut client = TcpStream::connect(edge.addr("a")).await.unwrap();
        let mut server = accept(&game).await;
        client.write_all(&[7; 1234]).await.unwrap();
        read(&mut server, 28 + 1234).await;
        server.write_all(&[8; 4321]).await.unwrap();
        read(&mut client, 4321).await;
        edge.wait_for(BYTES_IN, 1234).await;
        edge.wait_for(BYTES_OUT, 4321).await;
        edge.stop_after((client, server)).await;
    });
}

#[test]
fn the_target_receives_the_players_address_first() {
    run(async {
        for (local, listen) in [("127.0.0.7", "127.0.0.1:0"), ("::1", "[::1]:0")] {
            for version in ["v2", "v1", "none"] {
                let (game, addr) = target().await;
                let edge = Role::edge(&format!(
                    "[{{ name: a, listen: \"{listen}\", forward_to: \"{addr}\", send_proxy: {version} }}]"
                ));
                let mut client = connect_from(local, edge.addr("a")).await;
                let (player, reached) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
                client.write_all(b"hello").await.unwrap();
                client.shutdown().await.unwrap();
                let mut server = accept(&game).await;
                let header = match version {
                    "v2" => v2(player, reached),
                    "v1" => v1(player, reached),
                    _ => Vec::new(),
                };
                let expected = [&header[..], b"hello"].concat();
                assert_eq!(read_to_close(&mut server).await, expected, "{version} from {local}");
                drop(server);
                edge.stop_after(client).await;
            }
        }
    });
}

#[test]
fn the_header_does_not_wait_for_the_players_first_byte() {
    run(async {
        let (game, addr) = target().await;
        let edge = Role::edge(&listener(addr, ""));
        let mut client = TcpStream::connect(edge.addr("a")).await.unwrap();
        let mut server = accept(&game).await;
        assert_eq!(read(&mut server, 28).await, v2(client.local_addr().unwrap(), edge.addr("a")));
        server.write_all(b"challenge").await.unwrap();
        assert_eq!(read(&mut client, 9).await, b"challenge");
        edge.stop_after((client, server)).await;
    });
}

#[test]
fn a_listener_has_several_addresses() {
    run(async {
        let game = echo_target().await;
        let edge = Role::edge(&format!(
            "[{{ name: a, listen: [\"127.0.0.1:0\", \"127.0.0.2:0\", \"[::1]:0\"], forward_to: \"{game}\", send_proxy: none }}]"
        ));
        let addresses = edge.addrs("a").to_vec();
        assert_eq!(
            addresses.iter().map(|addr| addr.ip().to_string()).collect::<Vec<_>>(),
            ["127.0.0.1", "127.0.0.2", "::1"]
        );
        for addr in addresses {
            echoes(&mut TcpStream::connect(addr).await.unwrap(), b"hello").await;
        }
        assert_eq!(edge.series(ACCEPTED).await, 3.0);
        edge.stop().await;
    });
}

#[test]
fn one_port_serves_ipv4_and_ipv6_side_by_side() {
    run(async {
        // The kernel chose the port for IPv4; that it is free for IPv6 too is likely, not certain.
        let game = echo_target().await;
        let edge = eventually("a port free for both", async || {
            let port = target().await.1.port();
            let yaml = format!(
                "[{{ name: a, listen: [\"0.0.0.0:{port}\", \"[::]:{port}\"], forward_to: \"{game}\", send_proxy: none }}]"
            );
            std::panic::catch_unwind(|| Role::edge(&yaml)).ok()
        })
        .await;
        let port = edge.addr("a").port();
        for host in ["127.0.0.1", "[::1]"] {
            echoes(&mut TcpStream::connect(format!("{host}:{port}")).await.unwrap(), b"hello").await;
        }
        edge.stop().await;
    });
}

#[test]
fn targets_are_tried_in_order() {
    run(async {
        let (_held, dead) = refusing();
        let game = echo_target().await;
        let edge = Role::edge(&format!(
            "[{{ name: a, listen: \"127.0.0.1:0\", forward_to: [\"{dead}\", \"{game}\"], send_proxy: none }}]"
        ));
        for _ in 0..3 {
            echoes(&mut TcpStream::connect(edge.addr("a")).await.unwrap(), b"hello").await;
        }
        // The first is tried first, and then last for a while.
        assert!(edge.series(&connects("refused")).await >= 1.0);
        assert_eq!(edge.series(&connects("ok")).await, 3.0);
        edge.wait_for(&closed("client"), 3).await;
        edge.stop().await;
    });
}

#[test]
fn a_target_may_be_a_name() {
    run(async {
        let port = echo_target().await.port();
        let edge = Role::edge(&format!(
            "[{{ name: a, listen: \"127.0.0.1:0\", forward_to: \"localhost:{port}\", send_proxy: none }}]"
        ));
        echoes(&mut TcpStream::connect(edge.addr("a")).await.unwrap(), b"hello").await;
        edge.stop().await;
    });
}

#[test]
fn with_all_targets_dead_the_player_is_closed() {
    run(async {
        let ((_one, first), (_two, second)) = (refusing(), refusing());
        let edge =
            Role::edge(&format!("[{{ name: a, listen: \"127.0.0.1:0\", forward_to: [\"{first}\", \"{second}\"] }}]"));
        let mut client = TcpStream::connect(edge.addr("a")).await.unwrap();
        assert_eq!(read_to_close(&mut client).await, b"");
        edge.wait_for(&closed("connect_failed"), 1).await;
        assert_eq!((edge.series(&connects("refused")).await, edge.series(&connects("ok")).await), (2.0, 0.0));
        assert_eq!(edge.series(ACTIVE).await, 0.0);
        edge.stop().await;
    });
}

#[test]
fn each_direction_ends_by_itself() {
    run(async {
        let (game, addr) = target().await;
        let edge = Role::edge(&plain(addr, ""));
        // The player ends first, as in a status request.
        let mut client = TcpStream::connect(edge.addr("a")).await.unwrap();
        let mut server = accept(&game).await;
        client.write_all(b"request").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(read_to_close(&mut server).await, b"request");
        for part in [&b"ans"[..], b"wer"] {
            server.write_all(part).await.unwrap();
            assert_eq!(read(&mut client, 3).await, part);
        }
        drop(server);
        assert_eq!(read_to_close(&mut client).await, b"");
        edge.wait_for(&closed("client"), 1).await;
        // The target ends first.
        let mut client = TcpStream::connect(edge.addr("a")).await.unwrap();
        let mut server = accept(&game).await;
        server.write_all(b"bye").await.unwrap();
        server.shutdown().await.unwrap();
        assert_eq!(read_to_close(&mut client).await, b"bye");
        for part in [&b"one"[..], b"two"] {
            client.write_all(part).await.unwrap();
            assert_eq!(read(&mut server, 3).await, part);
        }
        drop(client);
        assert_eq!(read_to_close(&mut server).await, b"");
        edge.wait_for(&closed("target"), 1).await;
        edge.stop().await;
    });
}

#[test]
fn a_reset_on_one_side_ends_the_other() {
    run(async {
        let (game, addr) = target().await;
        let edge = Role::edge(&plain(addr, ""));
        // Bytes through all of it first: then both sides are connected, rather than about to be.
        let mut client = TcpStream::connect(edge.addr("a")).await.unwrap();
        let mut server = accept(&game).await;
        client.write_all(b"hello").await.unwrap();
        assert_eq!(read(&mut server, 5).await, b"hello");
        SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(client);
        assert_eq!(read_to_close(&mut server).await, b"");
        edge.wait_for(&closed("client_error"), 1).await;
        let mut client = TcpStream::connect(edge.addr("a")).await.unwrap();
        let mut server = accept(&game).await;
        client.write_all(b"hello").await.unwrap();
        assert_eq!(read(&mut server, 5).await, b"hello");
        SockRef::from(&server).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(server);
        assert_eq!(read_to_close(&mut client).await, b"");
        edge.wait_for(&closed("target_error"), 1).await;
        edge.stop().await;
    });
}

#[test]
fn much_data_both_ways_at_once_to_slow_readers() {
    const SIZE: usize = 8 << 20;
    run(async {
        let (game, addr) = target().await;
        SockRef::from(&game).set_recv_buffer_size(4096).unwrap();
        let edge = Role::edge(&plain(addr, ""));
        let client = TcpStream::connect(edge.addr("a")).await.unwrap();
        let server = accept(&game).await;
        let (up, down) = (pattern(1, SIZE), pattern(2, SIZE));
        let (client_read, client_write) = client.into_split();
        let (server_read, server_write) = server.into_split();
        async fn send(mut to: impl AsyncWriteExt + Unpin, bytes: &[u8]) {
            to.write_all(bytes).await.unwrap();
            to.shutdown().await.unwrap();
        }
        async fn slowly(mut from: impl AsyncReadExt + Unpin) -> Vec<u8> {
            let (mut all, mut some) = (Vec::new(), vec![0; 5000]);
            loop {
                match from.read(&mut some).await.unwrap() {
                    0 => return all,
                    count => all.extend_from_slice(&some[..count]),
                }
                // Others' turns: the writers run ahead and fill all buffers in between.
                tokio::task::yield_now().await;
            }
        }
        let ((), (), at_server, at_client) =
            tokio::join!(send(client_write, &up), send(server_write, &down), slowly(server_read), slowly(client_read));
        assert!(at_server == up && at_client == down, "{} {}", at_server.len(), at_client.len());
        edge.wait_for(BYTES_IN, SIZE as u64).await;
        edge.wait_for(BYTES_OUT, SIZE as u64).await;
        edge.stop().await;
    });
}

#[test]
fn a_reader_that_stands_still_holds_the_writer_up() {
    run(async {
        let (game, addr) = target().await;
        let edge = Role::edge(&plain(addr, ""));
        let client = TcpStream::connect(edge.addr("a")).await.unwrap();
        let mut server = accept(&game).await;
        // Without back pressure the edge would take all of this, and its memory would grow with it.
        let block = vec![1; 1 << 20];
        let mut sent = 0;
        let mut blocked_for = 0;
        while blocked_for < 50 && sent < 1 << 28 {
            match client.try_write(&block) {
                Ok(count) => (sent, blocked_for) = (sent + count, 0),
                Err(_) => blocked_for += 1,
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        assert!(sent < 1 << 28, "the edge took {sent} bytes that nobody reads");
        drop(client);
        let mut received = 0;
        let mut buffer = vec![0; 1 << 16];
        loop {
            match server.read(&mut buffer).await.unwrap() {
                0 => break,
                count => received += count,
            }
        }
        assert_eq!(received, sent);
        edge.stop_after(server).await;
    });
}

#[test]
fn an_idle_connection_is_closed_on_both_sides() {
    run(async {
        let (game, addr) = target().await;
        let edge = Role::edge(&plain(addr, ", timeouts: { idle: 200ms }"));
        let mut client = TcpStream::connect(edge.addr("a")).await.unwrap();
        let mut server = accept(&game).await;
        client.write_all(b"hello").await.unwrap();
        assert_eq!(read_to_close(&mut server).await, b"hello");
        assert_eq!(read_to_close(&mut client).await, b"");
        edge.wait_for(&closed("idle"), 1).await;
        assert_eq!(edge.series(ACTIVE).await, 0.0);
        edge.stop().await;
    });
}

/// Connects until the connection is served: a slot is free a moment after its connection's end.
async fn served(edge: &Role, local: &str) -> TcpStream {
    eventually("a free slot", async || {
        let mut stream = connect_from(local, edge.addr("a")).await;
        is_served(&mut stream).await.then_some(stream)
    })
    .await
}

#[test]
fn connections_over_the_limit_are_closed_and_counted() {
    run(async {
        let edge = Role::edge(&plain(echo_target().await, ", limits: { connections: 2 }"));
        let mut first = connect_from("127.0.0.1", edge.addr("a")).await;
        let mut second = connect_from("127.0.0.2", edge.addr("a")).await;
        assert!(is_served(&mut first).await && is_served(&mut second).await);
        for count in 1..=3 {
            let mut third = connect_from("127.0.0.3", edge.addr("a")).await;
            assert_eq!(read_to_close(&mut third).await, b"");
            edge.wait_for(&rejected("limit"), count).await;
        }
        echoes(&mut first, b"those within the limit go on").await;
        drop(first);
        let third = served(&edge, "127.0.0.3").await;
        let mut fourth = connect_from("127.0.0.4", edge.addr("a")).await;
        assert_eq!(read_to_close(&mut fourth).await, b"");
        edge.stop_after((second, third)).await;
    });
}

#[test]
fn connections_of_one_address_over_the_limit_are_closed_and_counted() {
    run(async {
        let edge = Role::edge(&plain(echo_target().await, ", limits: { connections_per_address: 1 }"));
        let mut first = connect_from("127.0.0.1", edge.addr("a")).await;
        assert!(is_served(&mut first).await);
        let mut again = connect_from("127.0.0.1", edge.addr("a")).await;
        assert_eq!(read_to_close(&mut again).await, b"");
        edge.wait_for(&rejected("address_limit"), 1).await;
        let mut other = connect_from("127.0.0.2", edge.addr("a")).await;
        assert!(is_served(&mut other).await, "another address has slots of its own");
        drop(first);
        let first = served(&edge, "127.0.0.1").await;
        edge.stop_after((first, other)).await;
    });
}

#[test]
fn players_are_counted_by_the_address_in_the_header_and_ipv6_by_network() {
    run(async {
        let more = ", accept_proxy: required, trusted_peers: [127.0.0.0/8], limits: { connections_per_address: 1 }";
        let edge = Role::edge(&plain(echo_target().await, more));
        let mut open = Vec::new();
        for (player, within) in [
            ("192.0.2.1:1000", true),
            ("192.0.2.2:1000", true),
            ("192.0.2.1:2000", false),
            ("[::ffff:192.0.2.2]:3000", false),
            ("[2001:db8::1]:1000", true),
            ("[2001:db8::ffff:1]:1000", false),
            ("[2001:db8:0:1::1]:1000", true),
        ] {
            let mut stream = TcpStream::connect(edge.addr("a")).await.unwrap();
            stream.write_all(&v2(player.parse().unwrap(), "192.0.2.9:7172".parse().unwrap())).await.unwrap();
            assert_eq!(is_served(&mut stream).await, within, "{player}");
            open.push(stream);
        }
        edge.wait_for(&rejected("address_limit"), 3).await;
        edge.stop_after(open).await;
    });
}

#[test]
fn the_players_address_survives_two_edges() {
    run(async {
        for version in ["v2", "v1"] {
            for (local, listen) in [("127.0.0.7", "127.0.0.1:0"), ("::1", "[::1]:0")] {
                let (game, addr) = target().await;
                let inner = Role::edge(&listener(
                    addr,
                    &format!(", accept_proxy: required, trusted_peers: 127.0.0.1/32, send_proxy: {version}"),
                ));
                let outer = Role::edge(&format!(
                    "[{{ name: a, listen: \"{listen}\", forward_to: \"{}\", send_proxy: {version} }}]",
                    inner.addr("a")
                ));
                let mut client = connect_from(local, outer.addr("a")).await;
                let (player, reached) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
                let expected = if version == "v2" { v2(player, reached) } else { v1(player, reached) };
                let mut server = accept(&game).await;
                assert_eq!(read(&mut server, expected.len()).await, expected);
                client.write_all(b"hello").await.unwrap();
                assert_eq!(read(&mut server, 5).await, b"hello");
                server.write_all(b"back").await.unwrap();
                assert_eq!(read(&mut client, 4).await, b"back");
                drop(server);
                outer.stop_after(client).await;
                inner.stop().await;
            }
        }
    });
}

#[test]
fn an_optional_header_is_believed_from_trusted_peers_and_missed_by_nobody() {
    run(async {
        let (game, addr) = target().await;
        let edge = Role::edge(&listener(addr, ", accept_proxy: optional, trusted_peers: 127.0.0.2/32"));
        let claimed = v2("192.0.2.1:1000".parse().unwrap(), "192.0.2.9:7172".parse().unwrap());
        // Trusted, with and without; then an untrusted peer, whose header is no more than its first bytes.
        for (local, sent) in [
            ("127.0.0.2", [&claimed[..], b"hello"].concat()),
            ("127.0.0.2", b"hello".to_vec()),
            ("127.0.0.1", claimed.clone()),
        ] {
            let mut client = connect_from(local, edge.addr("a")).await;
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
            let own = v2(client.local_addr().unwrap(), edge.addr("a"));
            let expected = if local == "127.0.0.2" && sent.len() > 28 { sent } else { [own, sent].concat() };
            assert_eq!(read_to_close(&mut accept(&game).await).await, expected);
        }
        edge.stop().await;
    });
}

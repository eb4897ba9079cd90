//! The core's `forward` listeners: a PROXY header in, exactly 28 bytes out to the game server.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::common::sandbox::*;

const PLAYER: &str = "192.0.2.33:50000";
const EDGE: &str = "198.51.100.7:7171";

/// A core whose listener `a` believes all of 127.0.0.0/8, with more YAML at the listener's end; and
/// the stand-in game server behind it.
async fn core(more: &str) -> (Role, TcpListener) {
    let (game, addr) = target().await;
    let core = Role::core(&format!(
        "edges: [{{ name: waw1, address: 127.0.0.0/8 }}]\n\
         listeners: [{{ name: a, listen: \"127.0.0.1:0\", forward_to: \"{addr}\"{more} }}]"
    ));
    (core, game)
}

fn rejected(reason: &str) -> String {
    format!("otproxy_connections_rejected_total{{listener=a,reason={reason}}}")
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Connects, sends `header` and a request, and ends; gives all that the game server receives.
async fn received(core: &Role, game: &TcpListener, header: &[u8]) -> (SocketAddr, Vec<u8>) {
    let mut edge = TcpStream::connect(core.addr("a")).await.unwrap();
    edge.write_all(&[header, b"request"].concat()).await.unwrap();
    edge.shutdown().await.unwrap();
    let mut server = accept(game).await;
    (edge.local_addr().unwrap(), read_to_close(&mut server).await)
}

/// The source and destination in a header as the game server reads it: 28 bytes, then the request.
fn as_a_game_server(bytes: &[u8]) -> (SocketAddr, SocketAddr) {
    assert_eq!(&bytes[..16], b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C");
    assert_eq!(&bytes[28..], b"request");
    let ip = |at: usize| IpAddr::from([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    (SocketAddr::new(ip(16), port(24)), SocketAddr::new(ip(20), port(26)))
}

#[test]
fn every_header_of_an_ipv4_player_goes_out_as_the_same_28_bytes() {
    run(async {
        let (core, game) = core("").await;
        let (player, edge) = (addr(PLAYER), addr(EDGE));
        let mapped = |addr: SocketAddr| format!("[::ffff:{}]:{}", addr.ip(), addr.port()).parse().unwrap();
        // A name (PP2_TYPE_AUTHORITY), a no-op, and a checksum that nobody checks.
        let tlvs = b"\x02\0\x0Bexample.com\x04\0\x03abc\x03\0\x04\0\0\0\0";
        for (what, header) in [
            ("v2", v2(player, edge)),
            ("v1", v1(player, edge)),
            ("v2 with TLVs", v2_with(player, edge, tlvs)),
            ("v2 with many TLVs", v2_with(player, edge, &[&b"\xE0\x0F\xA0"[..], &[7; 4000]].concat())),
            ("v2 with IPv4 in IPv6", v2(mapped(player), mapped(edge))),
            ("v1 with IPv4 in IPv6", v1(mapped(player), mapped(edge))),
        ] {
            let (_, bytes) = received(&core, &game, &header).await;
            assert_eq!(bytes, [&v2(player, edge)[..], b"request"].concat(), "{what}");
        }
        core.stop().await;
    });
}

#[test]
fn a_server_that_reads_addresses_backwards_is_told_them_so() {
    run(async {
        let (core, game) = core(", send_proxy: v2_reversed").await;
        let (_, bytes) = received(&core, &game, &v2(addr("203.0.113.7:50000"), addr(EDGE))).await;
        assert_eq!(as_a_game_server(&bytes), (addr("7.113.0.203:50000"), addr(EDGE)));
        let (_, bytes) = received(&core, &game, &v2(addr("[2001:db8:1:2::3]:50000"), addr("[2001:db8::7]:7171"))).await;
        let (source, _) = as_a_game_server(&bytes);
        let IpAddr::V4(source) = source.ip() else { panic!("{source}") };
        assert!(source.octets()[3] >= 240, "{source} is a pseudo address backwards");
        core.stop().await;
    });
}

#[test]
fn a_header_without_tcp_addresses_leaves_the_peers_own() {
    run(async {
        let (core, game) = core("").await;
        let datagram = v2(addr(PLAYER), addr(EDGE));
        for (what, header) in [
            ("LOCAL", v2_raw(0x20, 0x00, &[])),
            ("LOCAL with addresses", v2_raw(0x20, 0x11, &datagram[16..])),
            ("unspecified family", v2_raw(0x21, 0x00, &[])),
            ("unspecified family with bytes", v2_raw(0x21, 0x00, &[1; 50])),
            ("a datagram", v2_raw(0x21, 0x12, &datagram[16..])),
            ("a unix socket", v2_raw(0x21, 0x31, &[b'x'; 216])),
            ("UNKNOWN", b"PROXY UNKNOWN\r\n".to_vec()),
            ("UNKNOWN with addresses", b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec()),
        ] {
            let (peer, bytes) = received(&core, &game, &header).await;
            assert!(peer.ip().is_loopback() && bytes == b"request", "the game server sees that by itself: {what}");
        }
        core.stop().await;
    });
}

#[test]
fn an_ipv6_player_has_one_address_of_the_reserved_block() {
    run(async {
        let (core, game) = core("").await;
        let mut sources = Vec::new();
        for player in ["[2001:db8:1:2::3]:50000", "[2001:db8:1:2:ffff::4]:50001", "[2001:db8:1:3::3]:50002"] {
            for header in [v2(addr(player), addr("[2001:db8::7]:7171")), v1(addr(player), addr("[2001:db8::7]:7171"))] {
                let (_, bytes) = received(&core, &game, &header).await;
                let (source, destination) = as_a_game_server(&bytes);
                assert_eq!(source.port(), addr(player).port());
                assert!(destination.is_ipv4(), "{destination}");
                let IpAddr::V4(ip) = source.ip() else { panic!("{source}") };
                assert!(ip >= Ipv4Addr::new(240, 0, 0, 0) && ip != Ipv4Addr::BROADCAST, "{ip}");
                sources.push(ip);
            }
        }
        assert!(sources[..4].iter().all(|ip| *ip == sources[0]), "one /64 is one player: {sources:?}");
        assert!(sources[4] == sources[5] && sources[4] != sources[0], "another /64 is another: {sources:?}");
        core.stop().await;
    });
}

#[test]
fn the_game_server_may_be_told_by_v1_or_not_at_all() {
    run(async {
        for (send, expected) in [("v1", v1(addr(PLAYER), addr(EDGE))), ("none", Vec::new())] {
            let (core, game) = core(&format!(", send_proxy: {send}")).await;
            let (_, bytes) = received(&core, &game, &v2(addr(PLAYER), addr(EDGE))).await;
            assert_eq!(bytes, [&expected[..], b"request"].concat());
            core.stop().await;
        }
    });
}

#[test]
fn only_trusted_peers_are_let_in() {
    run(async {
        let (core, game) = core(", trusted_peers: [127.0.0.2/32]").await;
        let header = v2(addr(PLAYER), addr(EDGE));
        for (local, count) in [("127.0.0.1", 1), ("127.0.0.3", 2)] {
            let mut stranger = connect_from(local, core.addr("a")).await;
            // It may be closed already.
            let _ = stranger.write_all(&header).await;
            assert_eq!(read_to_close(&mut stranger).await, b"");
            core.wait_for(&rejected("untrusted"), count).await;
        }
        let mut edge = connect_from("127.0.0.2", core.addr("a")).await;
        edge.write_all(&header).await.unwrap();
        let mut server = accept(&game).await;
        assert_eq!(read(&mut server, 28).await, header, "no stranger came this far");
        assert_eq!(core.series("otproxy_connections_accepted_total{listener=a}").await, 3.0);
        core.stop_after((edge, server)).await;
    });
}

#[test]
fn what_is_no_header_is_refused() {
    run(async {
        let (core, game) = core("").await;
        let whole = v2(addr(PLAYER), addr(EDGE));
        let cases = [
            ("a login packet", b"\x06\0\xFF\xFFinfo".to_vec()),
            ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
            ("one wrong byte", b"\0".to_vec()),
            ("version 1 in binary", v2_raw(0x11, 0x11, &whole[16..])),
            ("an unknown command", v2_raw(0x22, 0x11, &whole[16..])),
            ("an unknown family", v2_raw(0x21, 0x41, &whole[16..])),
            ("addresses cut short", v2_raw(0x21, 0x11, &whole[16..27])),
            ("more than any header has", v2_raw(0x21, 0x11, &[0; 5000])),
            ("a line of v1 with too little", b"PROXY TCP4 192.0.2.33\r\n".to_vec()),
            ("a line of v1 with a wrong address", b"PROXY TCP4 192.0.2.333 1.2.3.4 1 2\r\n".to_vec()),
            ("a line of v1 with a wrong port", b"PROXY TCP4 192.0.2.33 1.2.3.4 1 65536\r\n".to_vec()),
            ("a line of v1 without end", [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat()),
            ("a line of v1 without CR", b"PROXY UNKNOWN\n".to_vec()),
        ];
        for (count, (what, header)) in (1..).zip(&cases) {
            let mut edge = TcpStream::connect(core.addr("a")).await.unwrap();
            edge.write_all(header).await.unwrap();
            assert_eq!(read_to_close(&mut edge).await, b"", "{what}");
            core.wait_for(&rejected("bad_header"), count).await;
        }
        // A header that ends early is a bad one; nothing at all is somebody who looked in.
        let mut edge = TcpStream::connect(core.addr("a")).await.unwrap();
        edge.write_all(&whole[..27]).await.unwrap();
        edge.shutdown().await.unwrap();
        assert_eq!(read_to_close(&mut edge).await, b"");
        core.wait_for(&rejected("bad_header"), cases.len() as u64 + 1).await;
        drop(TcpStream::connect(core.addr("a")).await.unwrap());
        core.wait_for(&rejected("closed"), 1).await;
        // All others go on.
        let (_, bytes) = received(&core, &game, &whole).await;
        assert_eq!(bytes.len(), 28 + 7);
        assert_eq!(core.series("otproxy_target_connects_total{listener=a,result=ok}").await, 1.0);
        core.stop().await;
    });
}

#[test]
fn a_header_must_be_whole_in_time() {
    run(async {
        let (core, _game) = core(", timeouts: { header: 200ms }").await;
        let whole = v2(addr(PLAYER), addr(EDGE));
        let halves = [&b""[..], &whole[..1], &whole[..13], &whole[..27], b"PROXY TCP4 192.0.2"];
        for (count, half) in (1..).zip(halves) {
            let mut edge = TcpStream::connect(core.addr("a")).await.unwrap();
            edge.write_all(half).await.unwrap();
            assert_eq!(read_to_close(&mut edge).await, b"");
            core.wait_for(&rejected("header_timeout"), count).await;
        }
        core.stop().await;
    });
}

#[test]
fn bytes_that_trickle_in_do_not_extend_the_time() {
    run(async {
        let (core, _game) = core(", timeouts: { header: 200ms }").await;
        let edge = TcpStream::connect(core.addr("a")).await.unwrap();
        let (mut read, mut write) = edge.into_split();
        // A line that would go on for longer than anybody waits.
        let trickle = tokio::spawn(async move {
            let line = [&b"PROXY UNKNOWN "[..], &[b'x'; 80]].concat();
            for byte in line.chunks(1) {
                if write.write_all(byte).await.is_err() {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            write
        });
        let _ = tokio::io::AsyncReadExt::read(&mut read, &mut [0]).await;
        core.wait_for(&rejected("header_timeout"), 1).await;
        trickle.abort();
        core.stop().await;
    });
}

#[test]
fn a_header_may_come_byte_by_byte() {
    run(async {
        let (core, game) = core("").await;
        let expected = [&v2(addr(PLAYER), addr(EDGE))[..], b"request"].concat();
        for header in [v2_with(addr(PLAYER), addr(EDGE), b"\x04\0\x03abc"), v1(addr(PLAYER), addr(EDGE))] {
            let mut edge = connect_from("127.0.0.1", core.addr("a")).await;
            for byte in [&header[..], b"request"].concat().chunks(1) {
                edge.write_all(byte).await.unwrap();
                tokio::task::yield_now().await;
            }
            edge.shutdown().await.unwrap();
            assert_eq!(read_to_close(&mut accept(&game).await).await, expected);
        }
        core.stop().await;
    });
}

#[test]
fn much_may_follow_a_header_in_one_segment() {
    run(async {
        let (core, game) = core("").await;
        let bytes = pattern(3, 40_000);
        let mut edge = TcpStream::connect(core.addr("a")).await.unwrap();
        edge.write_all(&[&v2(addr(PLAYER), addr(EDGE))[..], &bytes].concat()).await.unwrap();
        let mut server = accept(&game).await;
        assert_eq!(read(&mut server, 28).await, v2(addr(PLAYER), addr(EDGE)));
        assert!(read(&mut server, bytes.len()).await == bytes);
        core.wait_for("otproxy_bytes_total{direction=in,listener=a}", bytes.len() as u64).await;
        core.stop_after((edge, server)).await;
    });
}

#[test]
fn an_edge_before_the_core_tells_the_player() {
    run(async {
        for version in ["v2", "v1"] {
            let (core, game) = core("").await;
            let edge = Role::edge(&format!(
                "[{{ name: login, listen: [\"127.0.0.1:0\", \"[::1]:0\"], forward_to: \"{}\", send_proxy: {version} }}]",
                core.addr("a")
            ));
            let mut client = connect_from("127.0.0.9", edge.addr("login")).await;
            client.write_all(b"request").await.unwrap();
            client.shutdown().await.unwrap();
            let bytes = read_to_close(&mut accept(&game).await).await;
            assert_eq!(as_a_game_server(&bytes), (client.local_addr().unwrap(), edge.addr("login")), "{version}");
            let mut client = connect_from("::1", edge.addrs("login")[1]).await;
            client.write_all(b"request").await.unwrap();
            client.shutdown().await.unwrap();
            let (source, _) = as_a_game_server(&read_to_close(&mut accept(&game).await).await);
            assert!(matches!(source.ip(), IpAddr::V4(ip) if ip.octets()[0] >= 240), "{source}");
            edge.stop_after(client).await;
            core.stop().await;
        }
    });
}

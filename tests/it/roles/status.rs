//! Listeners with `status`: requests for the status are answered by the edge or the core.

use std::net::SocketAddr;

use otproxy_protocol::frame::ClientId;
use otproxy_protocol::status::ServerStatus;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::common::eventually;
use crate::common::game::*;
use crate::common::link::*;
use crate::common::sandbox::*;

const XML: &[u8] = b"\x06\0\xFF\xFFinfo";
/// Never too old while a test runs, and no second one is fetched.
const LONG: &str = "cache: 1h";
/// Too old at once.
const SHORT: &str = "cache: 1ms";

/// Where it is not about a time that is over, nothing is.
const PATIENT: &str = ", timeouts: { connect: 1h, header: 1h, idle: 1h }";

/// A binary request for parts.
fn parts(flags: u8) -> Vec<u8> {
    vec![4, 0, 0xFF, 1, flags, 0]
}

/// What a game server answers, with the address in it.
fn xml(address: &str) -> Vec<u8> {
    format!("<tsqp><serverinfo ip=\"{address}\" port=\"7171\"/><players online=\"3\"/></tsqp>").into_bytes()
}

fn binary(address: &str) -> Vec<u8> {
    let string = |text: &str| [&(text.len() as u16).to_le_bytes()[..], text.as_bytes()].concat();
    let body =
        [&[0x10][..], &string("A"), &string(address), &string("7171"), b"\x20\x03\0\0\0\x64\0\0\0\x09\0\0\0"].concat();
    [&(body.len() as u16).to_le_bytes()[..], &body].concat()
}

/// An edge whose listener `a` answers requests for the status, and the game server behind it, which the test plays.
async fn edge(status: &str, more: &str) -> (Role, TcpListener) {
    let (game, addr) = target().await;
    (edge_before(addr, status, more), game)
}

fn edge_before(game: SocketAddr, status: &str, more: &str) -> Role {
    let more = if more.contains("timeouts") { more.to_owned() } else { format!("{more}{PATIENT}") };
    Role::edge(&format!(
        "[{{ name: a, listen: \"127.0.0.1:0\", forward_to: \"{game}\", send_proxy: none{more}, \
         status: {{ address: play.example, {status} }} }}]"
    ))
}

fn requests(result: &str) -> String {
    format!("otproxy_status_requests_total{{listener=a,result={result}}}")
}

fn closed(reason: &str) -> String {
    format!("otproxy_connections_closed_total{{listener=a,reason={reason}}}")
}

fn rejected(reason: &str) -> String {
    format!("otproxy_connections_rejected_total{{listener=a,reason={reason}}}")
}

const CONNECTS: &str = "otproxy_target_connects_total{listener=a,result=ok}";
const ACTIVE: &str = "otproxy_connections_active{listener=a}";

async fn send(role: &Role, request: &[u8]) -> TcpStream {
    let mut client = connect_from("127.0.0.1", role.addr("a")).await;
    client.write_all(request).await.unwrap();
    client
}

/// What a client is told; nothing where it is closed.
async fn ask(role: &Role, request: &[u8]) -> Vec<u8> {
    read_to_close(&mut send(role, request).await).await
}

/// The game server takes the request on one connection, and answers.
async fn tell(game: &TcpListener, request: &[u8], answer: &[u8]) {
    let mut server = accept(game).await;
    assert_eq!(read(&mut server, request.len()).await, request);
    server.write_all(answer).await.unwrap();
}

#[test]
fn what_is_published_is_told_again_and_again_without_the_game_server() {
    run(async {
        let (edge, game) = edge(LONG, "").await;
        for (count, request, told, expected) in [
            (1, XML.to_vec(), xml("10.0.0.1"), xml("play.example")),
            (2, parts(0x09), binary("10.0.0.1"), binary("play.example")),
        ] {
            let (answer, ()) = tokio::join!(ask(&edge, &request), tell(&game, &request, &told));
            assert_eq!(answer, expected);
            for _ in 0..20 {
                assert_eq!(ask(&edge, &request).await, expected);
            }
            edge.wait_for(&requests("fresh"), count).await;
            edge.wait_for(&requests("cached"), 20 * count).await;
            assert_eq!(edge.series(CONNECTS).await, count as f64);
        }
        edge.wait_for(&closed("status"), 42).await;
        let bytes = 21 * (xml("play.example").len() + binary("play.example").len()) as u64;
        edge.wait_for("otproxy_bytes_total{direction=out,listener=a}", bytes).await;
        assert_eq!(edge.series("otproxy_bytes_total{direction=in,listener=a}").await, (21 * (8 + 6)) as f64);
        assert_eq!(edge.series(ACTIVE).await, 0.0);
        edge.stop().await;
    });
}

#[test]
fn a_thousand_at_once_are_one_to_the_game_server() {
    const CLIENTS: usize = 1000;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    run(async {
        let (edge, game) = edge(LONG, "").await;
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            clients.push(send(&edge, XML).await);
        }
        let mut server = accept(&game).await;
        assert_eq!(read(&mut server, XML.len()).await, XML);
        edge.wait_for(ACTIVE, CLIENTS as u64).await;
        assert_eq!(edge.series(CONNECTS).await, 1.0);
        server.write_all(&xml("10.0.0.1")).await.unwrap();
        drop(server);
        for client in &mut clients {
            assert_eq!(read_to_close(client).await, xml("play.example"));
        }
        drop(clients);
        edge.wait_for(ACTIVE, 0).await;
        assert_eq!(edge.series(&requests("fresh")).await, CLIENTS as f64);
        assert_eq!(edge.series(CONNECTS).await, 1.0);
        edge.stop().await;
    });
}

#[test]
fn a_flood_of_all_kinds_of_requests_reaches_the_game_server_a_few_times() {
    run(async {
        let (game, addr) = target().await;
        let edge = edge_before(addr, LONG, "");
        tokio::spawn(async move {
            loop {
                let mut server = accept(&game).await;
                let request = read(&mut server, 6).await;
                if request[3] == 1 {
                    server.write_all(&binary("10.0.0.1")).await.unwrap();
                } else {
                    read(&mut server, XML.len() - 6).await;
                    server.write_all(&xml("10.0.0.1")).await.unwrap();
                }
            }
        });
        for flags in 0..=255u8 {
            let expected = [binary("play.example"), binary("10.0.0.1")];
            let answer = ask(&edge, &parts(flags)).await;
            assert_eq!(answer.is_empty(), flags >= 16, "{flags}");
            assert!(answer.is_empty() || answer == expected[usize::from(flags & 1 == 0)], "{flags}");
        }
        for _ in 0..250 {
            assert_eq!(ask(&edge, XML).await, xml("play.example"));
        }
        edge.wait_for(&closed("status"), 256 + 250).await;
        assert_eq!(edge.series(&requests("refused")).await, 240.0);
        assert_eq!(edge.series(CONNECTS).await, 17.0);
        // What is longer than any request is none of the game server's business either.
        assert_eq!(ask(&edge, &[b"\xFF\x03\xFF\xFFinfo".to_vec(), vec![0; 1017]].concat()).await, b"");
        edge.wait_for(&requests("refused"), 241).await;
        assert_eq!(edge.series(CONNECTS).await, 17.0);
        edge.stop().await;
    });
}

/// A port that nobody else gets, whether a game server listens on it or not.
fn held_port() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

fn listen_beside(held: &TcpSocket) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(held.local_addr().unwrap()).unwrap();
    socket.listen(8).unwrap()
}

#[test]
fn while_the_game_server_is_down_its_last_answer_is_told_and_then_a_new_one() {
    run(async {
        let (held, addr) = held_port();
        let game = listen_beside(&held);
        let edge = edge_before(addr, &format!("{SHORT}, stale: 1h"), "");
        let told = xml("10.0.0.1");
        let (answer, ()) = tokio::join!(ask(&edge, XML), tell(&game, XML, &told));
        assert_eq!(answer, xml("play.example"));
        drop(game);
        eventually("an old answer", async || {
            assert_eq!(ask(&edge, XML).await, xml("play.example"));
            (edge.series(&requests("stale")).await > 0.0).then_some(())
        })
        .await;
        let game = listen_beside(&held);
        let new = b"<serverinfo ip=''/>".to_vec();
        let server = tokio::spawn(async move { tell(&game, XML, &new).await });
        let new = b"<serverinfo ip='play.example'/>";
        eventually("a new answer", async || (ask(&edge, XML).await == new).then_some(())).await;
        server.await.unwrap();
        assert_eq!(edge.series(&requests("failed")).await, 0.0);
        edge.stop().await;
    });
}

#[test]
fn who_asks_for_what_is_too_old_is_closed() {
    run(async {
        let (held, addr) = held_port();
        let game = listen_beside(&held);
        let edge = edge_before(addr, &format!("{SHORT}, stale: 0s"), "");
        let told = xml("10.0.0.1");
        let (answer, ()) = tokio::join!(ask(&edge, XML), tell(&game, XML, &told));
        assert_eq!(answer, xml("play.example"));
        drop(game);
        eventually("no answer", async || ask(&edge, XML).await.is_empty().then_some(())).await;
        edge.wait_series(&requests("failed"), |count| count >= 1.0).await;
        assert_eq!(edge.series(&requests("stale")).await, 0.0);
        edge.stop().await;
    });
}

#[test]
fn an_answer_that_is_none_is_not_told() {
    run(async {
        let short = b"\x20\0\x10\x01\0A\x01\0b".to_vec();
        for (request, answer) in [
            // As of a server that was asked by somebody else a moment ago.
            (XML.to_vec(), Vec::new()),
            (XML.to_vec(), b"<serverinfo ip=\"10.0.0.1".to_vec()),
            (XML.to_vec(), [xml("10.0.0.1"), vec![b' '; 100_000]].concat()),
            (parts(1), short),
            (parts(1), xml("10.0.0.1")),
        ] {
            let (edge, game) = edge(LONG, "").await;
            let play = async {
                let mut server = accept(&game).await;
                assert_eq!(read(&mut server, request.len()).await, request);
                // The edge may have had enough before all is written.
                let _ = server.write_all(&answer).await;
            };
            let (told, ()) = tokio::join!(ask(&edge, &request), play);
            assert_eq!(told, b"", "{}", answer.escape_ascii());
            edge.wait_for(&requests("failed"), 1).await;
            // It is not asked again for now.
            assert_eq!(ask(&edge, &request).await, b"");
            edge.wait_for(&requests("failed"), 2).await;
            assert_eq!(edge.series(CONNECTS).await, 1.0);
            edge.stop().await;
        }
    });
}

#[test]
fn a_game_server_that_hangs_holds_nobody_up_for_long() {
    run(async {
        let (edge, game) = edge(LONG, ", timeouts: { connect: 200ms }").await;
        let mut clients = Vec::new();
        for _ in 0..10 {
            clients.push(send(&edge, XML).await);
        }
        let mut server = accept(&game).await;
        // What has no end is no answer. It may be late already.
        let _ = server.write_all(b"<serverinfo ip='10.0.0.1'/>").await;
        for client in &mut clients {
            assert_eq!(read_to_close(client).await, b"");
        }
        edge.wait_for(&requests("failed"), 10).await;
        assert_eq!(edge.series(CONNECTS).await, 1.0);
        edge.stop_after(server).await;
    });
}

#[test]
fn a_client_that_does_not_close_has_its_time() {
    run(async {
        let (edge, game) = edge(LONG, ", timeouts: { idle: 200ms }").await;
        let mut client = send(&edge, XML).await;
        tell(&game, XML, &xml("10.0.0.1")).await;
        assert_eq!(read_to_close(&mut client).await, xml("play.example"));
        edge.wait_for(&closed("status"), 1).await;
        assert_eq!(edge.series(ACTIVE).await, 0.0);
        edge.stop_after(client).await;
    });
}

#[test]
fn who_goes_on_talking_gets_the_whole_answer() {
    run(async {
        let (edge, game) = edge(LONG, "").await;
        let long = [xml("10.0.0.1"), vec![b' '; 60_000]].concat();
        let mut client = send(&edge, &[XML, &[7; 50_000]].concat()).await;
        tell(&game, XML, &long).await;
        client.write_all(&[7; 50_000]).await.unwrap();
        assert_eq!(read_to_close(&mut client).await, [xml("play.example"), vec![b' '; 60_000]].concat());
        edge.stop_after(client).await;
    });
}

#[test]
fn a_request_may_come_byte_by_byte() {
    run(async {
        let (edge, game) = edge(LONG, "").await;
        let mut server = None;
        for (request, told, expected) in [
            (XML.to_vec(), xml("10.0.0.1"), xml("play.example")),
            (parts(1), binary("10.0.0.1"), binary("play.example")),
        ] {
            let mut client = connect_from("127.0.0.1", edge.addr("a")).await;
            for byte in request.chunks(1) {
                client.write_all(byte).await.unwrap();
                tokio::task::yield_now().await;
            }
            tell(&game, &request, &told).await;
            assert_eq!(read_to_close(&mut client).await, expected);
            server = Some(client);
        }
        edge.stop_after(server).await;
    });
}

#[test]
fn what_is_no_request_is_forwarded_from_its_first_byte_on() {
    run(async {
        let edge = edge_before(echo_target().await, LONG, "");
        // With an Adler-32 in front that begins like a binary request: the sum of all bytes, and one.
        let content = [&[1, 255, 254][..], &[0; 200]].concat();
        let (mut a, mut b) = (1u32, 0u32);
        for byte in &content {
            a += u32::from(*byte);
            b += a;
        }
        let sum = ((b % 65_521) << 16 | a).to_le_bytes();
        assert_eq!(sum[..2], [0xFF, 1]);
        let login = [&(204u16 + 3).to_le_bytes()[..], &sum, &content].concat();
        for bytes in [login, b"\x95\0\x01\x02\0\xF8\x02 an old login".to_vec(), pattern(1, 200_000)] {
            let mut client = connect_from("127.0.0.1", edge.addr("a")).await;
            let (mut read, mut write) = client.split();
            let mut back = vec![0; bytes.len()];
            // In pieces, none of which is enough to know what it is.
            let sending = async {
                for piece in [&bytes[..1], &bytes[1..6], &bytes[6..]] {
                    write.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            };
            let ((), received) = tokio::join!(sending, tokio::io::AsyncReadExt::read_exact(&mut read, &mut back));
            received.unwrap();
            assert!(back == bytes, "{} bytes came back different", bytes.len());
        }
        edge.wait_for(&closed("client"), 3).await;
        for result in ["cached", "fresh", "stale", "failed", "refused"] {
            assert_eq!(edge.series(&requests(result)).await, 0.0);
        }
        edge.stop().await;
    });
}

#[test]
fn who_says_nothing_or_half_in_time_is_closed_and_the_game_server_not_asked() {
    run(async {
        let (edge, game) = edge(LONG, ", timeouts: { header: 200ms }").await;
        for (count, half) in (1..).zip([&b""[..], b"\x06", &XML[..7], b"\x95\0\x01"]) {
            let mut client = send(&edge, half).await;
            assert_eq!(read_to_close(&mut client).await, b"");
            edge.wait_for(&rejected("header_timeout"), count).await;
        }
        assert_eq!(edge.series(CONNECTS).await, 0.0);
        edge.stop_after(game).await;
    });
}

#[test]
fn who_ends_before_it_has_asked_is_closed_and_the_game_server_not_asked() {
    run(async {
        let (edge, game) = edge(LONG, "").await;
        for (count, half) in (1..).zip([&b""[..], &XML[..7]]) {
            drop(send(&edge, half).await);
            edge.wait_for(&rejected("closed"), count).await;
        }
        assert_eq!(edge.series(CONNECTS).await, 0.0);
        edge.stop_after(game).await;
    });
}

#[test]
fn a_request_counts_as_a_connection_of_its_address() {
    run(async {
        let (edge, game) = edge(LONG, ", limits: { connections_per_address: 1 }").await;
        let mut first = send(&edge, XML).await;
        let mut server = accept(&game).await;
        assert_eq!(read(&mut server, XML.len()).await, XML);
        assert_eq!(ask(&edge, XML).await, b"");
        edge.wait_for(&rejected("address_limit"), 1).await;
        let mut other = connect_from("127.0.0.2", edge.addr("a")).await;
        other.write_all(XML).await.unwrap();
        server.write_all(&xml("10.0.0.1")).await.unwrap();
        drop(server);
        for client in [&mut first, &mut other] {
            assert_eq!(read_to_close(client).await, xml("play.example"));
        }
        edge.stop_after((first, other)).await;
    });
}

#[test]
fn the_game_server_is_asked_in_the_name_of_the_loopback_address_through_edge_and_core() {
    run(async {
        for (on_edge, on_core) in [(true, true), (true, false), (false, true)] {
            let status = |on: bool| {
                let status = if on { ", status: { address: play.example, port: 7000 }" } else { "" };
                format!("{PATIENT}{status}")
            };
            let (game, addr) = target().await;
            let core = Role::core(&format!(
                "edges: [{{ name: waw1, address: 127.0.0.0/8 }}]\n\
                 listeners: [{{ name: a, listen: \"127.0.0.1:0\", forward_to: \"{addr}\"{} }}]",
                status(on_core)
            ));
            // Players with IPv6 addresses must not make the header longer than game servers read.
            let edge = Role::edge(&format!(
                "[{{ name: a, listen: \"[::1]:0\", forward_to: \"{}\"{} }}]",
                core.addr("a"),
                status(on_edge)
            ));
            let mut client = connect_from("::1", edge.addr("a")).await;
            client.write_all(XML).await.unwrap();
            let mut server = accept(&game).await;
            // That is the address it sees, so nothing has to be told.
            assert!(server.peer_addr().unwrap().ip() == std::net::Ipv4Addr::LOCALHOST);
            assert_eq!(read(&mut server, XML.len()).await, XML);
            server.write_all(&xml("10.0.0.1")).await.unwrap();
            drop(server);
            let expected = String::from_utf8(xml("play.example")).unwrap().replace("7171", "7000");
            assert_eq!(read_to_close(&mut client).await, expected.as_bytes());
            edge.stop_after(client).await;
            core.stop().await;
        }
    });
}

#[test]
fn the_sessions_of_a_core_are_told_at_most_four_of_an_address() {
    run(async {
        let ((target, addr), game) = (target().await, Game::new().await);
        let core = Role::core(&format!(
            "edges: [{{ name: a, address: {EDGE_A} }}]\ngame_servers: [{{ port: {PORT}, address: \"{}\" }}]\n\
             listeners:\n- {{ name: links, kind: relay, listen: \"127.0.0.1:0\" }}\n\
             - {{ name: a, listen: \"127.0.0.1:0\", forward_to: \"{addr}\", send_proxy: none, accept_proxy: none{PATIENT}, \
             status: {{ address: play.example, {SHORT}, players: counted }} }}\n",
            game.addr
        ));
        let telling = tokio::spawn(async move {
            loop {
                tell(&target, XML, &xml("10.0.0.1")).await;
            }
        });
        let online = async || ServerStatus::read(&ask(&core, XML).await).unwrap().online;
        assert_eq!(online().await, Some(0));
        let mut playing = Vec::new();
        for (client, address, counted) in [(1, 1, 1), (2, 1, 2), (3, 1, 3), (4, 1, 4), (5, 1, 4), (6, 1, 4), (7, 2, 5)]
        {
            let mut link = Link::connect(core.addr("links"), EDGE_A, player(address), ClientId(client)).await;
            link.open(S, PORT).await;
            let server = game.accept_otc().await;
            link.sync().await;
            playing.push((link, server));
            // The answer of before is kept a moment.
            eventually("that many", async || (online().await == Some(counted)).then_some(())).await;
        }
        core.replace("counted }", "told }").await;
        assert_eq!(online().await, Some(3), "what the game server says");
        telling.abort();
        core.stop_after(playing).await;
    });
}

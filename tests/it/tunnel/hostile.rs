//! Whoever else comes to the tunnel's ports, or waits where an end of the tunnel connects: refused and counted by reason,
//! while players play on beside that.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;

use otproxy::tunnel::{FILES_PER_TRUNK, KNOWN_PER_ADDRESS, MAX_TRUNKS, UNAUTHENTICATED_PER_ADDRESS};
use otproxy_protocol::frame::{ClientId, HEADER_LEN, ping};
use otproxy_protocol::proxy_header::{LOCAL, MAX_LEN, write_v2_to};
use otproxy_protocol::trunk::{CoreWorkers, FrameKind, Hello, MAX_CONTROL, MAX_DATA, ResetReason};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use crate::common::anybody::*;
use crate::common::flood::{FILES, Flood};
use crate::common::role_process::may_open;
use crate::common::run;
use crate::common::tunnel::*;
use crate::tunnel::players::playing;

const LOGIN: &str = "[{ name: login, listen: \"127.0.0.1:0\", forward_to: core/login }]";
const REFUSED: &str = "otproxy_tunnel_streams_refused_total";
const CLOSED: &str = "otproxy_connections_closed_total";
/// Bytes that are more than all kernels on the way take.
const ENDLESS: usize = 64 * 1024 * 1024;

/// Echoes whatever comes, and ends when the other side does.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

/// A core to which `waw1` connects and which connects to `fra1`, with a player through each of both.
struct World {
    certificates: Certificates,
    core: Role,
    _waw1: Role,
    fra1: Role,
    players: Vec<TcpStream>,
    said: u8,
}

impl World {
    async fn start() -> Self {
        Self::with_target(echo().await).await
    }

    /// The same, with another target behind the core's listener `other`.
    async fn with_target(other: SocketAddr) -> Self {
        let certificates = Certificates::new();
        let fra1 = Role::start(&edge_dialled(&certificates, "fra1", "127.0.0.1:0", LOGIN));
        let edges = format!(
            "[{{ name: waw1 }}, {{ name: fra1, dial: \"{}\" }}, {{ name: liar }}, {{ name: bad1, revoked: true }}]",
            fra1.addr("tunnel")
        );
        let listeners = format!(
            "[{{ name: login, forward_to: \"{}\", send_proxy: none, timeouts: {{ idle: 10m }} }}, \
             {{ name: other, forward_to: \"{other}\", send_proxy: none }}]",
            echo().await
        );
        let core = Role::start(&core(&certificates, &edges, &listeners, ""));
        let waw1 = Role::start(&edge(&certificates, "waw1", core.addr("tunnel"), LOGIN));
        let mut players = Vec::new();
        // A player who comes before the trunks is kept waiting for `timeouts.connect`, and no longer.
        for (name, edge) in [("waw1", &waw1), ("fra1", &fra1)] {
            core.trunks(name, 4).await;
            players.push(TcpStream::connect(edge.addr("login")).await.unwrap());
        }
        let mut world = Self { certificates, core, _waw1: waw1, fra1, players, said: 0 };
        world.play_on().await;
        world
    }

    /// Each player says something, and has it back.
    async fn play_on(&mut self) {
        self.said = self.said.wrapping_add(1);
        for player in &mut self.players {
            player.write_all(&[self.said]).await.unwrap();
            assert_eq!(player.read_u8().await.unwrap(), self.said);
        }
    }

    /// An edge that the core knows, and that does what it likes.
    async fn liar(&self) -> AnyTrunk {
        AnyTrunk::as_edge(self.liar_without_hello().await, &edge_hello(), b"").await.unwrap()
    }

    /// The same, and it has shaken hands alone.
    async fn liar_without_hello(&self) -> Peer {
        shaken(&self.certificates, "liar", (&self.core, "core")).await
    }

    async fn refused(&self, reason: &str) -> f64 {
        self.core.metric(REFUSED, &["edge=\"liar\"", &format!("reason=\"{reason}\"")]).await
    }

    /// Waits until so many streams were refused, and no more.
    async fn wait_refused(&self, what: &str, reason: &str, count: f64) {
        let labels = ["edge=\"liar\"", &format!("reason=\"{reason}\"")];
        let now = self.core.wait_until(REFUSED, &labels, |now| now >= count).await;
        assert_eq!(now, count, "{what}");
    }

    /// Nobody but those who were hostile was disturbed.
    async fn end(mut self) {
        self.play_on().await;
        for process in [&self.core, &self.fra1] {
            assert_eq!(process.metric("otproxy_panics_total", &[]).await, 0.0);
        }
        assert_eq!(self.core.metric("otproxy_relay_links_active", &[]).await, 0.0);
        assert_eq!(self.core.metric("otproxy_connections_closed_total", &["listener=\"login\""]).await, 0.0);
        assert_eq!(self.fra1.metric("otproxy_connections_closed_total", &[]).await, 0.0);
    }
}

/// Shakes hands with the end of the tunnel of that name, in the name of another one.
async fn shaken(certificates: &Certificates, name: &str, (with, asked): (&Role, &str)) -> Peer {
    let config = client(Some(papers(certificates, &[name], Time::Now)), None);
    let mut peer = Peer::connect(with.addr("tunnel"), config, &certificates.asked(asked)).await;
    peer.shake().await.unwrap();
    peer
}

/// Somebody who connects, and how that is counted.
struct Stranger {
    papers: Option<Papers>,
    /// Whom he asks for.
    name: Option<String>,
    protocols: Option<&'static [&'static str]>,
    result: &'static str,
}

impl Stranger {
    fn with(papers: Papers, name: String, result: &'static str) -> Self {
        Self { papers: Some(papers), name: Some(name), protocols: None, result }
    }

    async fn comes(self, process: &Role) {
        let before = process.handshakes_so_far(self.result).await;
        let mut config = client(self.papers, self.protocols);
        config.enable_sni = self.name.is_some();
        let mut peer = Peer::connect(process.addr("tunnel"), config, self.name.as_deref().unwrap_or("nobody")).await;
        if peer.shake().await.is_ok() {
            // Perhaps he has not been refused yet: he tries to be taken for an edge.
            let _ = peer.send(&edge_hello().to_frame()).await;
            peer.expect_end().await;
        }
        assert_eq!(peer.tls.peer_certificates().is_some(), self.result != "stranger", "{}", self.result);
        process.handshakes(self.result, before + 1).await;
        assert_eq!(process.handshakes_so_far(self.result).await, before + 1);
    }
}

/// Sends `bytes` and ends; gives what comes back.
async fn answer_to(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset is an end as well.
    let _ = tcp.read_to_end(&mut answer).await;
    answer
}

/// A hello of TLS 1.2 with one cipher, and signature algorithms as the only extension.
fn old_hello() -> Vec<u8> {
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0xc0, 0x2b, 1, 0, 0, 8, 0, 13, 0, 4, 0, 2, 4, 3]].concat();
    let len = body.len() as u8;
    [&[22, 3, 1, 0, len + 4, 1, 0, 0, len][..], &body].concat()
}

#[test]
fn who_proves_nothing_is_refused_and_counted_as_what_he_is() {
    run(async {
        let mut world = World::start().await;
        let (ours, theirs) = (&world.certificates, Certificates::new());
        let now = |names: &[&str]| papers(ours, names, Time::Now);
        let mut strangers = Vec::new();
        for (at_core, own) in [(true, "core"), (false, "fra1")] {
            // Who is welcome there, but for what is wrong with him.
            let welcome = if at_core { "waw1" } else { "core" };
            let with = |papers, result| Stranger::with(papers, ours.asked(own), result);
            let mut come = vec![
                with(papers(&theirs, &[welcome], Time::Now), "unknown_ca"),
                with(papers(ours, &[welcome], Time::Past), "expired"),
                with(papers(ours, &[welcome], Time::Future), "not_yet_valid"),
                with(now(&[welcome, "fra1"]), "wrong_name"),
                with(now(&["fra1", welcome]), "wrong_name"),
                with(papers_of_other_use(ours, &[welcome]), "bad_certificate"),
                Stranger { papers: None, ..with(now(&[welcome]), "no_certificate") },
                Stranger { name: None, ..with(now(&[welcome]), "stranger") },
                Stranger { name: Some("example.org".to_owned()), ..with(now(&[welcome]), "stranger") },
                // The name in the certificate is not what is asked for: a scanner could guess it.
                Stranger { name: Some(own.to_owned()), ..with(now(&[welcome]), "stranger") },
                Stranger { name: Some(theirs.asked(own)), ..with(now(&[welcome]), "stranger") },
                Stranger { protocols: Some(&[]), ..with(now(&[welcome]), "stranger") },
                Stranger { protocols: Some(&["h2", "http/1.1"]), ..with(now(&[welcome]), "stranger") },
                // The version before.
                Stranger { protocols: Some(&["otproxy/1"]), ..with(now(&[welcome]), "no_alpn") },
            ];
            if at_core {
                come.push(with(now(&["core"]), "unknown_edge"));
                come.push(with(now(&["nobody"]), "unknown_edge"));
                come.push(with(now(&["WAW1"]), "unknown_edge"));
                come.push(with(now(&["bad1"]), "revoked"));
            } else {
                come.push(with(now(&["waw1"]), "wrong_name"));
                come.push(with(now(&["fra1"]), "wrong_name"));
            }
            strangers.extend(come.into_iter().map(|stranger| (at_core, stranger)));
        }
        assert_eq!(strangers.len(), 34);
        for (at_core, stranger) in strangers {
            stranger.comes(if at_core { &world.core } else { &world.fra1 }).await;
            world.play_on().await;
        }
        world.end().await;
    });
}

#[test]
fn who_does_not_speak_our_tls_is_told_no_more_than_that() {
    run(async {
        let mut world = World::start().await;
        let mut header = Vec::new();
        write_v2_to(&mut header, ([1, 2, 3, 4], 5).into(), ([5, 6, 7, 8], 9).into(), Some("login"));
        let hello = edge_hello().to_frame();
        let said: [(&[u8], &str); 7] = [
            (b"GET / HTTP/1.1\r\nHost: core\r\n\r\n", "not_tls"),
            (&header, "not_tls"),
            (&hello, "not_tls"),
            (b"\0\0\0\0\0\0\0\0", "not_tls"),
            (b"SSH-2.0-OpenSSH_9.9\r\n", "not_tls"),
            (&[22, 3, 1, 0xff, 0xff, 1], "not_tls"),
            (&old_hello(), "incompatible"),
        ];
        for (bytes, result) in said {
            for process in [&world.core, &world.fra1] {
                let before = process.handshakes_so_far(result).await;
                let answer = answer_to(process.addr("tunnel"), bytes).await;
                // An alert, which names nobody.
                assert!(answer.is_empty() || (answer.len() == 7 && answer[0] == 21), "{bytes:?}: {answer:?}");
                process.handshakes(result, before + 1).await;
            }
            world.play_on().await;
        }
        for process in [&world.core, &world.fra1] {
            drop(TcpStream::connect(process.addr("tunnel")).await.unwrap());
            process.handshakes("closed", 1).await;
        }
        world.end().await;
    });
}

#[test]
fn a_handshake_that_stalls_has_a_deadline() {
    run(async {
        let mut world = World::start().await;
        let mut stalled = Vec::new();
        for (process, name) in [(&world.core, "core"), (&world.fra1, "fra1")] {
            let address = process.addr("tunnel");
            let silent = TcpStream::connect(address).await.unwrap();
            let mut half = Peer::connect(address, client(None, None), &world.certificates.asked(name)).await;
            let mut hello = Vec::new();
            half.tls.write_tls(&mut hello).unwrap();
            half.tcp.write_all(&hello[..hello.len() / 2]).await.unwrap();
            let mut speechless = Peer::connect(address, client(None, None), &world.certificates.asked(name)).await;
            speechless.push().await.unwrap();
            // The answer's first record, the server's hello, and what follows at once.
            assert_eq!(speechless.tcp.read_u8().await.unwrap(), 22);
            stalled.extend([silent, half.tcp, speechless.tcp]);
        }
        for process in [&world.core, &world.fra1] {
            process.handshakes("timeout", 3).await;
            assert_eq!(process.handshakes_so_far("timeout").await, 3);
        }
        for mut tcp in stalled {
            let _ = tcp.read_to_end(&mut Vec::new()).await;
        }
        world.play_on().await;
        world.end().await;
    });
}

#[test]
fn an_address_that_is_known_has_a_limit_too() {
    const MORE: usize = KNOWN_PER_ADDRESS + 50;
    if !may_open(4 * MORE as u64) {
        return;
    }
    run(async {
        let mut world = World::start().await;
        // Where all edges are here.
        let mut all = Vec::new();
        for _ in 0..MORE {
            all.push(TcpStream::connect(world.core.addr("tunnel")).await.unwrap());
        }
        world.core.handshakes("limit", 1).await;
        world.play_on().await;
        for mut tcp in all {
            let _ = tcp.read(&mut [0]).await;
        }
        assert!(world.core.handshakes_so_far("limit").await < MORE - UNAUTHENTICATED_PER_ADDRESS, "it is known");
        world.end().await;
    });
}

/// A header of version 2 with this command and family, that claims to be `claimed` bytes longer than `payload`.
fn header(command: u8, family: u8, payload: &[u8], claimed: u16) -> Vec<u8> {
    let len = payload.len() as u16 + claimed;
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &len.to_be_bytes(), payload].concat()
}

/// 203.0.113.9:4000 to 192.0.2.1:7171, and a value of this type that claims to be so long.
fn payload(kind: u8, len: u16, value: &[u8]) -> Vec<u8> {
    [&[203, 0, 113, 9, 192, 0, 2, 1, 0x0f, 0xa0, 0x1c, 0x03, kind][..], &len.to_be_bytes(), value].concat()
}

/// Returns the opening of a stream to this listener.
fn opening(listener: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_v2_to(&mut bytes, ([203, 0, 113, 9], 4000).into(), ([192, 0, 2, 1], 7171).into(), Some(listener));
    bytes
}

/// Returns a frame that opens a stream to the listener `other`, whatever its number.
fn open(stream: u32) -> Vec<u8> {
    frame(FrameKind::Open, stream, &opening("other"))
}

fn data(stream: u32, bytes: &[u8]) -> Vec<u8> {
    frame(FrameKind::Data, stream, bytes)
}

fn end(stream: u32) -> Vec<u8> {
    frame(FrameKind::End, stream, b"")
}

/// Opens a stream of this number to `other`, where its words are echoed up to its end.
async fn is_served(liar: &mut AnyTrunk, stream: u32) {
    liar.send(&[open(stream), data(stream, b"hello"), end(stream)].concat()).await.unwrap();
    assert_eq!(liar.bytes(stream, 5).await, b"hello");
    let got = liar.next().await.unwrap().unwrap();
    assert!(got.is(FrameKind::End) && got.stream == stream, "{got:?}");
}

#[test]
fn an_opening_that_leads_nowhere_is_refused_alone() {
    use ResetReason::{BadHeader, UnknownListener};
    run(async {
        let mut world = World::start().await;
        let tcp = |payload: Vec<u8>| header(0x21, 0x11, &payload, 0);
        let said = [
            ("no such listener", tcp(payload(2, 4, b"nope")), UnknownListener),
            ("the tunnel's own", tcp(payload(2, 6, b"tunnel")), UnknownListener),
            ("no name", tcp(payload(2, 0, b"")), UnknownListener),
            ("more than the name", tcp(payload(2, 6, b"login\0")), UnknownListener),
            ("a name in other case", tcp(payload(2, 5, b"LOGIN")), UnknownListener),
            ("the longest name", tcp(payload(2, 255, &[b'l'; 255])), UnknownListener),
            ("nothing at all", Vec::new(), BadHeader),
            ("no authority", tcp(payload(5, 5, b"login")), BadHeader),
            ("no values at all", tcp(payload(2, 0, b"")[..12].to_vec()), BadHeader),
            ("a value that is cut", tcp(payload(2, 200, b"login")), BadHeader),
            ("a value's head that is cut", tcp(payload(2, 0, b"")[..14].to_vec()), BadHeader),
            ("no text", tcp(payload(2, 2, &[0xff, 0xfe])), BadHeader),
            ("addresses that are cut", tcp(vec![203, 0, 113, 9]), BadHeader),
            ("a header that is cut", header(0x21, 0x11, &payload(2, 5, b"login"), 1), BadHeader),
            ("more than a header", [opening("other"), b"G".to_vec()].concat(), BadHeader),
            ("two headers", opening("other").repeat(2), BadHeader),
            ("too long", header(0x21, 0x11, &payload(2, 5, b"login"), MAX_LEN as u16 - 16), BadHeader),
            ("the longest there is", header(0x21, 0x11, &[], u16::MAX), BadHeader),
            ("as long as a frame may be", vec![b'x'; MAX_CONTROL], BadHeader),
            ("about nobody", header(0x21, 0x00, &payload(2, 5, b"login"), 0), BadHeader),
            ("about a datagram", header(0x21, 0x12, &payload(2, 5, b"login"), 0), BadHeader),
            ("about a file", header(0x21, 0x31, &[&[b'x'; 216][..], &[2, 0, 5], b"login"].concat(), 0), BadHeader),
            ("a question", LOCAL.to_vec(), BadHeader),
            ("a question about somebody", header(0x20, 0x11, &payload(2, 5, b"login"), 0), BadHeader),
            ("an unknown command", header(0x22, 0x11, &payload(2, 5, b"login"), 0), BadHeader),
            ("version 3", header(0x31, 0x11, &payload(2, 5, b"login"), 0), BadHeader),
            ("version 1", b"PROXY TCP4 203.0.113.9 192.0.2.1 4000 7171\r\n".to_vec(), BadHeader),
            ("nonsense", b"GET / HTTP/1.1\r\n\r\n".to_vec(), BadHeader),
        ];
        let (mut liar, mut stream) = (world.liar().await, 0);
        for (what, opening, reason) in said {
            let before = world.refused(reason.as_str()).await;
            stream += 1;
            // What he says behind it is for nobody, whether he has heard of that or not.
            let late = [
                data(stream, b"password"),
                frame(FrameKind::Credit, stream, &[1, 0, 0, 0]),
                end(stream),
                data(stream, b"more"),
                frame(FrameKind::Reset, stream, &[0]),
            ]
            .concat();
            liar.send(&[frame(FrameKind::Open, stream, &opening), late.clone()].concat()).await.unwrap();
            assert_eq!(liar.goes_on().await, [Got::reset(stream, reason)], "{what}");
            liar.send(&late).await.unwrap();
            assert_eq!(liar.goes_on().await, [], "{what}");
            world.wait_refused(what, reason.as_str(), before + 1.0).await;
            stream += 1;
            is_served(&mut liar, stream).await;
            world.play_on().await;
        }
        let bad_headers = world.refused("bad_header").await;
        // The same behind the hello, before it is answered, where there is no other trunk of his.
        liar.peer.leave().await.unwrap();
        liar.ends().await;
        world.core.trunks("liar", 0).await;
        let early = [frame(FrameKind::Open, 1, b"nobody"), open(2), data(2, b"hello"), end(2)].concat();
        let peer = world.liar_without_hello().await;
        let mut liar = AnyTrunk::as_edge(peer, &edge_hello(), &early).await.unwrap();
        assert_eq!(liar.next().await.unwrap(), Some(Got::reset(1, BadHeader)));
        assert_eq!(liar.bytes(2, 5).await, b"hello");
        world.wait_refused("behind the hello", "bad_header", bad_headers + 1.0).await;
        for reason in ["too_many", "protocol"] {
            assert_eq!(world.refused(reason).await, 0.0, "{reason}");
        }
        world.end().await;
    });
}

#[test]
fn a_link_on_a_trunk_of_another_worker_is_refused_alone() {
    run(async {
        let certificates = Certificates::new();
        let more = "game_servers: [{ port: 7172, address: \"127.0.0.1:9\" }]";
        let core = Role::start(&core(&certificates, "[{ name: liar }]", "[{ name: links, kind: relay }]", more));
        let peer = shaken(&certificates, "liar", (&core, "core")).await;
        let mut liar = AnyTrunk::as_edge(peer, &edge_hello(), b"").await.unwrap();
        // A wish for a worker is for one that there is, or for none.
        for wish in [0, 1, 2, u16::MAX] {
            let peer = shaken(&certificates, "liar", (&core, "core")).await;
            let hello = Hello { wish: Some(wish), ..edge_hello() };
            let told = AnyTrunk::as_edge(peer, &hello, b"").await.unwrap().told;
            assert!(told.owner.is_some_and(|owner| owner.worker == wish || wish >= 2), "{told:?}");
        }
        assert_eq!((liar.told.workers, liar.told.links.clone()), (2, vec!["links".to_owned()]));
        let (mut own, mut foreign) = (0, 0);
        for stream in 1..=16 {
            let client = ClientId(stream);
            let link = [frame(FrameKind::Open, stream, &opening("links")), data(stream, &ping(client, 0))].concat();
            liar.send(&link).await.unwrap();
            if liar.told.is_for(client) {
                own += 1;
                assert_eq!(liar.bytes(stream, HEADER_LEN).await.len(), HEADER_LEN, "a pong");
            } else {
                foreign += 1;
                assert_eq!(liar.next().await.unwrap(), Some(Got::reset(stream, ResetReason::WrongWorker)));
            }
        }
        assert!(own > 0 && foreign > 0, "{own} and {foreign} of 16");
        core.wait("otproxy_relay_links_active", &["edge=\"liar\""], f64::from(own)).await;
        let labels = ["listener=\"links\"", "reason=\"wrong_worker\""];
        core.wait("otproxy_connections_rejected_total", &labels, f64::from(foreign)).await;
        assert_eq!(liar.goes_on().await, []);
    });
}

#[test]
fn what_no_edge_says_ends_its_trunk_and_disturbs_nobody_else() {
    run(async {
        let mut world = World::start().await;
        let of_nobody = |kind, payload: &[u8]| frame(kind, 6, payload);
        // Stream 5 is open before each.
        let said = [
            ("bytes of a stream that never was", data(6, b"x")),
            ("none of a stream that never was", data(6, b"")),
            ("bytes of the trunk", data(0, b"x")),
            ("credit of a stream that never was", of_nobody(FrameKind::Credit, &[0; 4])),
            ("the end of a stream that never was", of_nobody(FrameKind::End, b"")),
            ("a reset of a stream that never was", of_nobody(FrameKind::Reset, &[0])),
            ("a reset of the trunk", frame(FrameKind::Reset, 0, &[0])),
            ("a stream twice", open(5)),
            ("a stream again that is over", [frame(FrameKind::Reset, 5, &[0]), open(5)].concat()),
            ("a stream out of its turn", open(4)),
            ("a stream without a number", open(0)),
            ("an opening about nobody twice", frame(FrameKind::Open, 6, b"nobody").repeat(2)),
            ("bytes behind the end", [end(5), data(5, b"x")].concat()),
            ("an end behind the end", end(5).repeat(2)),
            ("credit that is cut", frame(FrameKind::Credit, 5, &[0; 3])),
            ("credit that is too long", frame(FrameKind::Credit, 5, &[0; 5])),
            ("a reset without a reason", frame(FrameKind::Reset, 5, b"")),
            ("a reset with two reasons", frame(FrameKind::Reset, 5, &[0, 0])),
            ("a question that is cut", frame(FrameKind::Ping, 0, &[0; 7])),
            ("a question about a stream", frame(FrameKind::Ping, 5, &[0; 8])),
            ("an answer that is cut", frame(FrameKind::Pong, 0, b"")),
            ("an answer about a stream", frame(FrameKind::Pong, 5, &[0; 8])),
            ("a hello again", edge_hello().to_frame()),
            ("a farewell to a stream", frame(FrameKind::GoAway, 5, b"")),
            ("kind 0", any_frame(0, 0, b"")),
            ("kind 10", any_frame(10, 5, b"x")),
            ("kind 127", any_frame(127, 0, b"")),
            ("bytes that are too many", data(5, &vec![0; MAX_DATA + 1])),
            ("an opening that is too long", frame(FrameKind::Open, 6, &vec![0; MAX_CONTROL + 1])),
            ("more than may be skipped", any_frame(200, 0, &vec![0; MAX_CONTROL + 1])),
            ("the header of the longest frame", data(5, &vec![0; u16::MAX.into()])[..7].to_vec()),
            ("another protocol", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ];
        let count = said.len() as f64;
        for (what, bytes) in said {
            let before = world.refused("protocol").await;
            let mut liar = world.liar().await;
            let mut other = world.liar().await;
            is_served(&mut other, 1).await;
            liar.send(&[open(5), data(5, b"?")].concat()).await.unwrap();
            assert_eq!(liar.bytes(5, 1).await, b"?");
            liar.send(&bytes).await.unwrap();
            liar.ends().await;
            world.wait_refused(what, "protocol", before + 1.0).await;
            // Not even another trunk of his.
            is_served(&mut other, 2).await;
            world.play_on().await;
        }
        let labels = ["listener=\"other\"", "reason=\"tunnel\""];
        world.core.wait(CLOSED, &labels, count).await;
        // What may be skipped is, and who leaves in whatever way is no news. A farewell lets what comes behind it go on.
        world.core.trunks("liar", 0).await;
        let before = world.core.metric(REFUSED, &[]).await;
        let mut liar = world.liar().await;
        liar.send(&[any_frame(128, 0, b""), any_frame(255, 9, &[7; MAX_CONTROL])].concat()).await.unwrap();
        is_served(&mut liar, 1).await;
        liar.send(&data(1, b"half")[..9]).await.unwrap();
        liar.peer.leave().await.unwrap();
        liar.ends().await;
        drop(world.liar().await);
        let mut liar = world.liar().await;
        liar.peer.tcp.write_all(NOBODY_SEALED).await.unwrap();
        liar.ends().await;
        let mut liar = world.liar().await;
        liar.send(&frame(FrameKind::GoAway, 0, b"")).await.unwrap();
        is_served(&mut liar, 1).await;
        drop(liar);
        world.core.trunks("liar", 0).await;
        assert_eq!(world.core.metric(REFUSED, &[]).await, before);
        world.end().await;
    });
}

/// A record that has the form of one, and that nobody sealed.
const NOBODY_SEALED: &[u8] = &[23, 3, 3, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn who_shook_hands_and_does_not_say_hello_has_no_trunk() {
    run(async {
        let mut world = World::start().await;
        let nowhere = Hello { owner: Some(CoreWorkers { worker: 1, key: [7; 16] }), ..edge_hello() }.to_frame();
        let (hello, field) = (edge_hello().to_frame(), |bytes: &[u8]| frame(FrameKind::Hello, 0, bytes));
        // Kinds of fields: 1 is the version, 2 the program's, 3 the credit, 4 the workers, 5 the owner, 7 the wish.
        let said: [(&str, &[u8], &str); 20] = [
            ("what was said before trunks", LOCAL, "no_hello"),
            ("another protocol", b"GET / HTTP/1.1\r\n\r\n", "no_hello"),
            ("a question", &frame(FrameKind::Ping, 0, &[0; 8]), "no_hello"),
            ("an opening", &frame(FrameKind::Open, 1, &opening("login")), "no_hello"),
            ("what others may skip", &any_frame(200, 0, b""), "no_hello"),
            ("the hello of a stream", &frame(FrameKind::Hello, 1, &hello[7..]), "no_hello"),
            ("one without a version", &field(b""), "no_hello"),
            ("one of version 0", &field(&[1, 0, 2, 0, 0, 0]), "no_hello"),
            ("a version that is cut", &field(&[1, 0, 1, 0, 2]), "no_hello"),
            ("a field that is cut", &field(&[1, 0, 2, 0, 2]), "no_hello"),
            ("a field's head that is cut", &field(&[1, 0, 2, 0, 2, 0, 3]), "no_hello"),
            ("no text", &field(&[1, 0, 2, 0, 2, 0, 2, 0, 1, 0, 0xff]), "no_hello"),
            ("credit that is cut", &field(&[1, 0, 2, 0, 2, 0, 3, 0, 1, 0, 9]), "no_hello"),
            ("a wish that is cut", &field(&[1, 0, 2, 0, 2, 0, 7, 0, 1, 0, 0]), "no_hello"),
            ("a worker that is none of theirs", &nowhere, "no_hello"),
            ("one that is too long", &field(&vec![9; MAX_DATA + 1]), "no_hello"),
            ("the longest there is", &[0xff, 0xff, 1, 0, 0, 0, 0], "no_hello"),
            ("half of one", &hello[..hello.len() - 1], "closed"),
            ("half of its header", &hello[..6], "closed"),
            ("nothing", b"", "closed"),
        ];
        for (at, name, asked) in [(&world.core, "liar", "core"), (&world.fra1, "core", "fra1")] {
            let trunks = at.metric("otproxy_tunnel_trunks", &[]).await;
            for (what, bytes, result) in said {
                let before = at.handshakes_so_far(result).await;
                let mut peer = shaken(&world.certificates, name, (at, asked)).await;
                let _ = peer.send(bytes).await;
                if result == "closed" {
                    peer.leave().await.unwrap();
                }
                // An edge has said its own.
                while peer.read().await.is_ok_and(|bytes| !bytes.is_empty()) {}
                at.handshakes(result, before + 1).await;
                assert_eq!(at.handshakes_so_far(result).await, before + 1, "{what}");
            }
            // A connection that is cut, and bytes that nobody sealed.
            for (bytes, result) in [(&b""[..], "closed"), (NOBODY_SEALED, "refused")] {
                let (before, ok) = (at.handshakes_so_far(result).await, at.handshakes_so_far("ok").await);
                let mut peer = shaken(&world.certificates, name, (at, asked)).await;
                // It is not to be a part of the handshake.
                at.handshakes("ok", ok + 1).await;
                peer.tcp.write_all(bytes).await.unwrap();
                peer.tcp.shutdown().await.unwrap();
                at.handshakes(result, before + 1).await;
            }
            let _silent = shaken(&world.certificates, name, (at, asked)).await;
            let mut half = shaken(&world.certificates, name, (at, asked)).await;
            half.send(&hello[..9]).await.unwrap();
            at.handshakes("timeout", 2).await;
            assert_eq!(at.metric("otproxy_tunnel_trunks", &[]).await, trunks);
        }
        assert_eq!(world.core.metric(REFUSED, &[]).await, 0.0);
        world.play_on().await;
        world.end().await;
    });
}

#[test]
fn an_edge_has_no_more_trunks_than_it_may() {
    if !may_open(FILES_PER_TRUNK * MAX_TRUNKS as u64) {
        return;
    }
    run(async {
        let mut world = World::start().await;
        let mut all = JoinSet::new();
        for _ in 0..MAX_TRUNKS {
            all.spawn(world.liar().await.stays());
        }
        world.core.trunks("liar", MAX_TRUNKS).await;
        for one_too_many in 1..=3 {
            let peer = world.liar_without_hello().await;
            assert!(AnyTrunk::as_edge(peer, &edge_hello(), b"").await.is_err(), "it is told nothing");
            world.wait_refused("a trunk", "too_many", f64::from(one_too_many)).await;
        }
        assert_eq!(all.len(), MAX_TRUNKS);
        assert!(all.try_join_next().is_none(), "it costs none of the others");
        // Others have places of their own.
        world.play_on().await;
        let peer = shaken(&world.certificates, "waw1", (&world.core, "core")).await;
        let mut another = AnyTrunk::as_edge(peer, &edge_hello(), b"").await.unwrap();
        is_served(&mut another, 1).await;
        all.shutdown().await;
        world.core.trunks("liar", 0).await;
        is_served(&mut world.liar().await, 1).await;
        world.end().await;
    });
}

/// Sends bytes of a stream until the trunk ends over that.
async fn sends_without_end(trunk: &mut AnyTrunk, stream: u32) {
    let (part, mut sent) = (data(stream, &[b'x'; MAX_DATA]), 0);
    while trunk.send(&part).await.is_ok() {
        sent += part.len();
        assert!(sent < ENDLESS, "nobody minds");
    }
}

/// Reads up to the end, which is a cut.
async fn is_cut(plain: &mut TcpStream) {
    let end = plain.read_to_end(&mut Vec::new()).await;
    assert_eq!(end.map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionReset));
}

#[test]
fn who_sends_more_than_credit_allows_loses_his_trunk() {
    run(async {
        let (target, mut streams) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Vec::new());
        let mut world = World::with_target(target.local_addr().unwrap()).await;
        // The target takes nothing: after what it and the kernels have, no more is allowed.
        let mut liar = world.liar().await;
        liar.send(&[open(1), open(2), data(2, b"all")].concat()).await.unwrap();
        streams.extend([target.accept().await.unwrap().0, target.accept().await.unwrap().0]);
        sends_without_end(&mut liar, 1).await;
        world.wait_refused("bytes", "protocol", 1.0).await;
        for stream in &mut streams {
            is_cut(stream).await;
        }
        world.play_on().await;
        world.end().await;
        // The same behind an edge.
        let certificates = Certificates::new();
        let (address, mut openings) = a_core(&certificates).await;
        let edge = Role::start(&edge(&certificates, "waw1", address, LOGIN));
        let mut player = TcpStream::connect(edge.addr("login")).await.unwrap();
        let (mut liar, stream) = openings.recv().await.unwrap();
        sends_without_end(&mut liar, stream).await;
        is_cut(&mut player).await;
        edge.wait(CLOSED, &["reason=\"tunnel\""], 1.0).await;
        // And he is connected to again.
        let mut player = TcpStream::connect(edge.addr("login")).await.unwrap();
        let (mut liar, stream) = openings.recv().await.unwrap();
        liar.send(&data(stream, b"hello")).await.unwrap();
        player.read_exact(&mut [0; 5]).await.unwrap();
    });
}

#[test]
fn nobody_is_sent_more_than_his_credit_allows() {
    run(async {
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut world = World::with_target(target.local_addr().unwrap()).await;
        let all: Vec<u8> = (0..50_000u32).map(|number| (number % 251) as u8).collect();
        let hello = Hello { credit: 1000, ..edge_hello() };
        let peer = world.liar_without_hello().await;
        let mut liar = AnyTrunk::as_edge(peer, &hello, &open(1)).await.unwrap();
        let mut stream = target.accept().await.unwrap().0;
        stream.write_all(&all).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut got = liar.bytes(1, 1000).await;
        for more in [1, 8_999, 20_000] {
            assert!(liar.goes_on().await.is_empty(), "there is no more credit");
            liar.send(&frame(FrameKind::Credit, 1, &u32::to_le_bytes(more))).await.unwrap();
            got.extend(liar.bytes(1, more as usize).await);
        }
        assert!(got == all[..30_000], "as much as was allowed, and nothing else");
        // More than there can be.
        liar.send(&frame(FrameKind::Credit, 1, &[0xff; 4]).repeat(3)).await.unwrap();
        got.extend(liar.bytes(1, 20_000).await);
        assert!(got == all);
        assert!(liar.next().await.unwrap().unwrap().is(FrameKind::End));
        world.play_on().await;
        world.end().await;
    });
}

/// What one side does at the end of a stream.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// Says that this was all.
    Said,
    /// Says so, and ends the connection without a word.
    SaidAndCut,
    /// Says that it ends in the middle.
    Reset,
    /// Says that the whole trunk ends.
    Left,
    /// Ends the connection without a word, as anybody on the way could.
    Cut,
    /// Sends what nobody sealed.
    Forged,
    /// Sends what the format does not allow.
    Malformed,
}

impl End {
    const ALL: [Self; 7] =
        [Self::Said, Self::SaidAndCut, Self::Reset, Self::Left, Self::Cut, Self::Forged, Self::Malformed];

    async fn of(self, trunk: &mut AnyTrunk, stream: u32) {
        match self {
            Self::Said => trunk.send(&end(stream)).await.unwrap(),
            Self::SaidAndCut => {
                trunk.send(&end(stream)).await.unwrap();
                trunk.peer.tcp.shutdown().await.unwrap();
            }
            Self::Reset => trunk.send(&frame(FrameKind::Reset, stream, &[0])).await.unwrap(),
            Self::Left => trunk.peer.leave().await.unwrap(),
            Self::Cut => trunk.peer.tcp.shutdown().await.unwrap(),
            Self::Forged => trunk.peer.tcp.write_all(NOBODY_SEALED).await.unwrap(),
            Self::Malformed => trunk.send(&any_frame(77, stream, b"")).await.unwrap(),
        }
    }

    /// What the plain side behind the tunnel sees of it.
    async fn is_seen(self, plain: &mut TcpStream) {
        let end = plain.read(&mut [0]).await;
        match self {
            Self::Said | Self::SaidAndCut => assert_eq!(end.unwrap(), 0, "{self:?}"),
            _ => assert_eq!(end.map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionReset), "{self:?}"),
        }
    }

    /// How it is counted if the stream alone has ended: otherwise it is the trunk's end.
    fn reason(self, said: &'static str, reset: &'static str) -> &'static str {
        match self {
            Self::Said => said,
            Self::Reset => reset,
            _ => "tunnel",
        }
    }
}

#[test]
fn what_is_cut_does_not_pass_for_an_end_behind_the_core() {
    run(async {
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut world = World::with_target(target.local_addr().unwrap()).await;
        let mut counted = HashMap::new();
        for end in End::ALL {
            let mut liar = world.liar().await;
            liar.send(&[open(1), data(1, b"all")].concat()).await.unwrap();
            let mut stream = target.accept().await.unwrap().0;
            let mut got = [0; 3];
            stream.read_exact(&mut got).await.unwrap();
            end.of(&mut liar, 1).await;
            end.is_seen(&mut stream).await;
            drop(stream);
            let reason = end.reason("client", "client_error");
            let count = counted.entry(reason).or_insert(0.0);
            *count += 1.0;
            world.core.wait(CLOSED, &["listener=\"other\"", &format!("reason=\"{reason}\"")], *count).await;
            if matches!(end, End::Said | End::Reset) {
                liar.goes_on().await;
            }
            world.play_on().await;
        }
        assert_eq!(counted, HashMap::from([("client", 1.0), ("client_error", 1.0), ("tunnel", 5.0)]));
        assert_eq!(world.core.metric(REFUSED, &[]).await, world.refused("protocol").await);
        world.wait_refused("what the format does not allow", "protocol", 1.0).await;
        world.end().await;
    });
}

/// Waits where an end of the tunnel connects, and has `play` do with each connection what it likes.
async fn wait_for_them<F>(play: impl Fn(TcpStream) -> F + Send + 'static) -> (SocketAddr, JoinHandle<()>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let playing = tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(play(tcp));
        }
    });
    (address, playing)
}

/// Plays the core, with the papers of one, for all who connect; gives each trunk on which a stream was opened, with that.
async fn a_core(certificates: &Certificates) -> (SocketAddr, mpsc::UnboundedReceiver<(AnyTrunk, u32)>) {
    let (sender, openings) = mpsc::unbounded_channel();
    let papers = papers(certificates, &["core"], Time::Now);
    let play = move |tcp| {
        let (papers, sender) = (papers.clone(), sender.clone());
        async move {
            let mut peer = Peer::accepted(tcp, server(papers, None));
            let Ok(()) = peer.shake().await else { return };
            let Ok(mut trunk) = AnyTrunk::as_core(peer, &core_hello()).await else { return };
            while let Ok(Some(got)) = trunk.next().await {
                if got.is(FrameKind::Open) {
                    let _ = sender.send((trunk, got.stream));
                    return;
                }
            }
        }
    };
    (wait_for_them(play).await.0, openings)
}

/// What somebody does who plays the core towards an edge that connects, or an edge towards a core that does.
#[derive(Clone)]
enum Play {
    /// Makes the handshake with these papers and protocols, and does as the core does.
    Core(Papers, Option<&'static [&'static str]>),
    /// Makes the handshake with these papers, and does as an edge does.
    Edge(Papers),
    /// Makes the handshake, and says nothing.
    Silent(Papers),
    /// Makes the handshake, and says something else.
    Wrong(Papers, &'static [u8]),
    /// Makes the handshake, and ends.
    Leaves(Papers),
    /// Sends this.
    Plain(&'static [u8]),
    /// Closes.
    Closes,
    /// Does nothing at all.
    Stalls,
}

impl Play {
    async fn with(self, mut tcp: TcpStream) {
        let (papers, protocols) = match &self {
            Self::Core(papers, protocols) => (papers.clone(), *protocols),
            Self::Edge(papers) | Self::Silent(papers) | Self::Wrong(papers, _) | Self::Leaves(papers) => {
                (papers.clone(), None)
            }
            Self::Plain(bytes) => {
                let _ = tcp.write_all(bytes).await;
                let _ = tcp.read_to_end(&mut Vec::new()).await;
                return;
            }
            Self::Closes => return,
            Self::Stalls => return std::future::pending().await,
        };
        let mut peer = Peer::accepted(tcp, server(papers, protocols));
        if peer.shake().await.is_err() {
            return;
        }
        match self {
            Self::Core(..) => {
                if let Ok(trunk) = AnyTrunk::as_core(peer, &core_hello()).await {
                    trunk.stays().await;
                }
                return;
            }
            Self::Edge(_) => {
                if let Ok(trunk) = AnyTrunk::as_edge(peer, &edge_hello(), b"").await {
                    trunk.stays().await;
                }
                return;
            }
            Self::Leaves(_) => return,
            Self::Wrong(_, bytes) => {
                let _ = peer.send(bytes).await;
            }
            _ => {}
        }
        while peer.read().await.is_ok_and(|bytes| !bytes.is_empty()) {}
    }
}

#[test]
fn an_edge_gives_its_players_to_nobody_but_the_core() {
    run(async {
        let (ours, theirs) = (Certificates::new(), Certificates::new());
        let now = |names: &[&str]| papers(&ours, names, Time::Now);
        let core = |papers| Play::Core(papers, None);
        let plays = [
            (core(papers(&theirs, &["core"], Time::Now)), "unknown_ca"),
            (core(papers(&ours, &["core"], Time::Past)), "expired"),
            (core(papers(&ours, &["core"], Time::Future)), "not_yet_valid"),
            (core(now(&["fra1"])), "wrong_name"),
            (core(now(&["waw1"])), "wrong_name"),
            (core(now(&["core", "fra1"])), "wrong_name"),
            (core(papers_of_other_use(&ours, &["core"])), "bad_certificate"),
            (Play::Core(now(&["core"]), Some(&[])), "no_alpn"),
            (Play::Core(now(&["core"]), Some(&["h2"])), "refused"),
            (Play::Core(now(&["core"]), Some(&["otproxy/1"])), "no_alpn"),
            (Play::Silent(now(&["core"])), "refused"),
            (Play::Wrong(now(&["core"]), LOCAL), "refused"),
            (Play::Wrong(now(&["core"]), &[0, 0, 1, 0, 0, 0, 0]), "refused"),
            (Play::Leaves(now(&["core"])), "refused"),
            (Play::Plain(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "not_tls"),
            (Play::Closes, "closed"),
            (Play::Stalls, "timeout"),
        ];
        for (play, result) in plays {
            let (address, waiting) = wait_for_them(move |tcp| play.clone().with(tcp)).await;
            let listeners = LOGIN.replace("forward_to", "timeouts: { connect: 1m }, forward_to");
            let edge = Role::start(&edge(&ours, "waw1", address, &listeners));
            // Its players are told at once that there is nobody, and nothing of them reaches who is there.
            in_vain(edge.addr("login")).await;
            edge.handshakes(result, 1).await;
            assert_eq!(edge.handshakes_so_far("ok").await, 0, "{result}");
            assert_eq!(edge.metric("otproxy_tunnel_trunks", &[]).await, 0.0, "{result}");
            let dials = ["edge=\"waw1\"", "result=\"handshake\""];
            edge.wait_until("otproxy_tunnel_dials_total", &dials, |now| now >= 1.0).await;
            assert_eq!(edge.metric("otproxy_tunnel_dials_total", &["result=\"ok\""]).await, 0.0, "{result}");
            waiting.abort();
            edge.stop().await;
        }
    });
}

#[test]
fn a_core_takes_nobody_for_the_edge_that_it_connects_to() {
    run(async {
        let (ours, theirs) = (Certificates::new(), Certificates::new());
        let now = |names: &[&str]| papers(&ours, names, Time::Now);
        let plays = [
            (Play::Edge(papers(&theirs, &["fra1"], Time::Now)), "unknown_ca"),
            (Play::Edge(papers(&ours, &["fra1"], Time::Past)), "expired"),
            (Play::Edge(now(&["waw1"])), "wrong_name"),
            (Play::Edge(now(&["core"])), "wrong_name"),
            (Play::Edge(now(&["fra1", "waw1"])), "wrong_name"),
            (Play::Wrong(now(&["fra1"]), LOCAL), "refused"),
            (Play::Wrong(now(&["fra1"]), &[0, 0, 1, 0, 0, 0, 0]), "refused"),
            (Play::Leaves(now(&["fra1"])), "refused"),
            (Play::Plain(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "not_tls"),
            (Play::Closes, "closed"),
            // Who is what he says is taken, so all others could be.
            (Play::Edge(now(&["fra1"])), "ok"),
        ];
        for (play, result) in plays {
            let (address, waiting) = wait_for_them(move |tcp| play.clone().with(tcp)).await;
            let edges = format!("[{{ name: fra1, dial: \"{address}\" }}, {{ name: waw1 }}]");
            let listeners = format!("[{{ name: login, forward_to: \"{}\" }}]", free_address());
            let core = Role::start(&core(&ours, &edges, &listeners, ""));
            core.handshakes(result, 1).await;
            let (dialled, trunks) = if result == "ok" { ("ok", 4.0) } else { ("handshake", 0.0) };
            let dials = ["edge=\"fra1\"", &format!("result=\"{dialled}\"")];
            core.wait_until("otproxy_tunnel_dials_total", &dials, |now| now >= 1.0).await;
            core.wait("otproxy_tunnel_trunks", &[], trunks).await;
            assert_eq!(core.handshakes_so_far("ok").await, trunks as usize, "{result}");
            waiting.abort();
            core.stop().await;
        }
    });
}

#[test]
fn what_is_cut_does_not_pass_for_an_end_behind_an_edge() {
    run(async {
        let certificates = Certificates::new();
        let (address, mut openings) = a_core(&certificates).await;
        let edge = Role::start(&edge(&certificates, "waw1", address, LOGIN));
        let mut counted = HashMap::new();
        for end in End::ALL {
            let mut player = TcpStream::connect(edge.addr("login")).await.unwrap();
            player.write_all(b"hello").await.unwrap();
            let (mut core, stream) = openings.recv().await.unwrap();
            assert_eq!(core.bytes(stream, 5).await, b"hello");
            core.send(&data(stream, b"all")).await.unwrap();
            let mut got = [0; 3];
            player.read_exact(&mut got).await.unwrap();
            end.of(&mut core, stream).await;
            end.is_seen(&mut player).await;
            drop(player);
            let reason = end.reason("target", "target_error");
            let count = counted.entry(reason).or_insert(0.0);
            *count += 1.0;
            edge.wait(CLOSED, &[&format!("reason=\"{reason}\"")], *count).await;
        }
        assert_eq!(counted, HashMap::from([("target", 1.0), ("target_error", 1.0), ("tunnel", 5.0)]));
        assert_eq!(edge.metric("otproxy_panics_total", &[]).await, 0.0);
    });
}

#[test]
fn what_no_core_says_ends_its_trunk_and_players_find_another() {
    run(async {
        let certificates = Certificates::new();
        let (address, mut openings) = a_core(&certificates).await;
        let edge = Role::start(&edge(&certificates, "waw1", address, LOGIN));
        type Said<'a> = (&'a str, &'a dyn Fn(u32) -> Vec<u8>);
        let said: [Said<'_>; 8] = [
            ("a stream", &|stream| open(stream + 1)),
            ("the stream again", &open),
            ("bytes of a stream that never was", &|stream| data(stream + 1, b"x")),
            ("bytes behind the end", &|stream| [end(stream), data(stream, b"x")].concat()),
            ("a hello again", &|_| core_hello().to_frame()),
            ("an answer that is cut", &|_| frame(FrameKind::Pong, 0, b"")),
            ("bytes that are too many", &|stream| data(stream, &vec![0; MAX_DATA + 1])),
            ("another protocol", &|_| b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
        ];
        let count = said.len() as f64;
        for (what, bytes) in said {
            let mut player = TcpStream::connect(edge.addr("login")).await.unwrap();
            player.write_all(b"hello").await.unwrap();
            let (mut core, stream) = openings.recv().await.unwrap();
            assert_eq!(core.bytes(stream, 5).await, b"hello", "{what}");
            core.send(&bytes(stream)).await.unwrap();
            core.ends().await;
            // Behind an end that was said there may be no cut.
            let _ = player.read_to_end(&mut Vec::new()).await;
        }
        edge.wait(CLOSED, &["reason=\"tunnel\""], count).await;
        assert_eq!(edge.metric("otproxy_panics_total", &[]).await, 0.0);
    });
}

/// Passes on what both sides say, and gives what who connects has said.
async fn tap(to: SocketAddr) -> (SocketAddr, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tapping = tokio::spawn(async move {
        let (mut from, mut to) = (listener.accept().await.unwrap().0, TcpStream::connect(to).await.unwrap());
        let ((mut from_read, mut from_write), (mut to_read, mut to_write)) = (from.split(), to.split());
        let mut said = Vec::new();
        let up = async {
            let mut passed_on = 0;
            while from_read.read_buf(&mut said).await.is_ok_and(|count| count > 0) {
                to_write.write_all(&said[passed_on..]).await.unwrap();
                passed_on = said.len();
            }
        };
        let down = async { drop(tokio::io::copy(&mut to_read, &mut from_write).await) };
        tokio::select! {
            () = up => {}
            () = down => {}
        }
        said
    });
    (address, tapping)
}

#[test]
fn what_was_recorded_gets_nobody_in() {
    run(async {
        let mut world = World::start().await;
        let (address, tapping) = tap(world.core.addr("tunnel")).await;
        let papers = papers(&world.certificates, &["liar"], Time::Now);
        let mut edge = Peer::connect(address, client(Some(papers), None), &world.certificates.asked("core")).await;
        edge.shake().await.unwrap();
        let mut edge = AnyTrunk::as_edge(edge, &edge_hello(), b"").await.unwrap();
        is_served(&mut edge, 1).await;
        drop(edge);
        let recorded = tapping.await.unwrap();
        world.core.trunks("liar", 0).await;
        let hello = 5 + usize::from(u16::from_be_bytes([recorded[3], recorded[4]]));
        assert!(recorded.starts_with(&[22, 3]) && recorded.len() > hello + 500, "a hello, a certificate and a stream");
        let ok = world.core.handshakes_so_far("ok").await;
        for (bytes, result) in
            [(&recorded[..], "error"), (&recorded[..recorded.len() - 1], "error"), (&recorded[..hello], "closed")]
        {
            let before = world.core.handshakes_so_far(result).await;
            let mut tcp = TcpStream::connect(world.core.addr("tunnel")).await.unwrap();
            tcp.write_all(bytes).await.unwrap();
            tcp.shutdown().await.unwrap();
            let mut answer = Vec::new();
            let _ = tcp.read_to_end(&mut answer).await;
            world.core.handshakes(result, before + 1).await;
            world.play_on().await;
        }
        assert_eq!(world.core.handshakes_so_far("ok").await, ok);
        assert_eq!(world.core.metric("otproxy_tunnel_trunks", &["edge=\"liar\""]).await, 0.0);
        assert_eq!(world.core.metric("otproxy_connections_accepted_total", &["listener=\"other\""]).await, 1.0);
        world.end().await;
    });
}

#[test]
fn thousands_of_half_open_handshakes_keep_no_edge_out_and_cost_players_nothing() {
    if !may_open(FILES) {
        return;
    }
    run(async {
        let certificates = Certificates::new();
        let (mut setup, mut game) = playing(&certificates).await;
        // At the core, where `waw1` connects, and at `fra1`, where the core does.
        let at = [&setup.core, setup.edges[1].as_ref().unwrap()].map(|process| process.addr("tunnel"));
        let floods = at.map(Flood::start);
        for _ in 0..3 {
            let (core, fra1) = (&setup.core, setup.edges[1].as_ref().unwrap());
            let before = (core.handshakes_so_far("limit").await, fra1.handshakes_so_far("limit").await);
            game.on(20, 1).await;
            core.handshakes("limit", before.0 + 1).await;
            fra1.handshakes("limit", before.1 + 1).await;
            let yaml = setup.edges[0].take().unwrap().stop().await;
            game.on(100, 1).await;
            setup.edges[0] = Some(Role::start(&yaml));
            game.on(100, 2).await;
            setup.core.trunks("waw1", 4).await;
        }
        for flood in floods {
            flood.end().await;
        }
        assert_eq!(setup.core.metric("otproxy_panics_total", &[]).await, 0.0);
        game.end().await;
    });
}

//! Whoever else comes to the tunnel's ports, or waits where an end of the tunnel connects: refused and counted by reason,
//! while players play on beside that.

use std::net::SocketAddr;

use otproxy::tunnel::{KNOWN_PER_ADDRESS, UNAUTHENTICATED_PER_ADDRESS};
use otproxy_protocol::proxy_header::{LOCAL, MAX_LEN, write_v2_to};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::common::anybody::*;
use crate::common::flood::{FILES, Flood};
use crate::common::role_process::may_open;
use crate::common::run;
use crate::common::tunnel::*;
use crate::tunnel::players::{Game, Setup, game_server};

const LOGIN: &str = "[{ name: login, listen: \"127.0.0.1:0\", forward_to: core/login }]";
const REFUSED: &str = "otproxy_tunnel_streams_refused_total";

/// Echoes whatever comes, and says `end` to who ends his side.
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
        for edge in [&waw1, &fra1] {
            players.push(TcpStream::connect(edge.addr("login")).await.unwrap());
        }
        for edge in ["waw1", "fra1"] {
            core.spares(edge, 3).await;
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
    async fn liar(&self) -> Peer {
        let papers = papers(&self.certificates, &["liar"], Time::Now);
        let mut peer =
            Peer::connect(self.core.addr("tunnel"), client(Some(papers), None), &self.certificates.asked("core")).await;
        peer.shake().await.unwrap();
        peer
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
            let _ = peer.send(LOCAL).await;
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
        assert_eq!(strangers.len(), 32);
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
        let said: [(&[u8], &str); 6] = [
            (b"GET / HTTP/1.1\r\nHost: core\r\n\r\n", "not_tls"),
            (&header, "not_tls"),
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

#[test]
fn an_edge_that_says_what_none_says_is_refused_by_reason() {
    run(async {
        let mut world = World::start().await;
        let tcp = |payload: Vec<u8>| header(0x21, 0x11, &payload, 0);
        let said = [
            ("no such listener", tcp(payload(2, 4, b"nope")), "unknown_listener"),
            ("the tunnel's own", tcp(payload(2, 6, b"tunnel")), "unknown_listener"),
            ("no name", tcp(payload(2, 0, b"")), "unknown_listener"),
            ("more than the name", tcp(payload(2, 6, b"login\0")), "unknown_listener"),
            ("no authority", tcp(payload(5, 5, b"login")), "bad_header"),
            ("no values at all", tcp(payload(2, 0, b"")[..12].to_vec()), "bad_header"),
            ("a value that is cut", tcp(payload(2, 200, b"login")), "bad_header"),
            ("a value's head that is cut", tcp(payload(2, 0, b"")[..14].to_vec()), "bad_header"),
            ("no text", tcp(payload(2, 2, &[0xff, 0xfe])), "bad_header"),
            ("addresses that are cut", tcp(vec![203, 0, 113, 9]), "bad_header"),
            ("too long", header(0x21, 0x11, &payload(2, 5, b"login"), MAX_LEN as u16 - 16), "bad_header"),
            ("the longest there is", header(0x21, 0x11, &[], u16::MAX), "bad_header"),
            ("about nobody", header(0x21, 0x00, &payload(2, 5, b"login"), 0), "bad_header"),
            ("about a datagram", header(0x21, 0x12, &payload(2, 5, b"login"), 0), "bad_header"),
            ("about a file", header(0x21, 0x31, &[&[b'x'; 216][..], &[2, 0, 5], b"login"].concat(), 0), "bad_header"),
            (
                "a question with a payload",
                header(0x20, 0x00, &[2, 0, 5, b'l', b'o', b'g', b'i', b'n'], 0),
                "bad_header",
            ),
            ("a question about somebody", header(0x20, 0x11, &payload(2, 5, b"login"), 0), "bad_header"),
            ("an unknown command", header(0x22, 0x11, &payload(2, 5, b"login"), 0), "bad_header"),
            ("version 3", header(0x31, 0x11, &payload(2, 5, b"login"), 0), "bad_header"),
            ("version 1", b"PROXY TCP4 203.0.113.9 192.0.2.1 4000 7171\r\n".to_vec(), "bad_header"),
            ("nonsense", b"GET / HTTP/1.1\r\n\r\n".to_vec(), "bad_header"),
        ];
        for (what, bytes, reason) in said {
            let before = world.refused(reason).await;
            for asks_first in [false, true] {
                let mut liar = world.liar().await;
                if asks_first {
                    liar.send(LOCAL).await.unwrap();
                    liar.expect(LOCAL).await;
                }
                // It may be closed before all is sent.
                let _ = liar.send(&bytes).await;
                liar.expect_end().await;
            }
            world.wait_refused(what, reason, before + 2.0).await;
            world.play_on().await;
        }
        // Half a header, and that was all.
        let before = world.refused("bad_header").await;
        let mut liar = world.liar().await;
        liar.send(&LOCAL[..7]).await.unwrap();
        liar.tls.send_close_notify();
        liar.push().await.unwrap();
        liar.expect_end().await;
        // Records that nobody sealed: before the stream begins, they are no header.
        for garbage in
            [&[23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20][..], b"HTTP/1.1"]
        {
            let mut liar = world.liar().await;
            liar.send(LOCAL).await.unwrap();
            liar.expect(LOCAL).await;
            liar.tcp.write_all(garbage).await.unwrap();
            liar.expect_end().await;
        }
        world.wait_refused("half a header, and garbage", "bad_header", before + 3.0).await;
        // Who comes and goes is no news.
        let before = world.core.metric(REFUSED, &[]).await;
        let mut liar = world.liar().await;
        liar.tls.send_close_notify();
        liar.push().await.unwrap();
        liar.expect_end().await;
        drop(world.liar().await);
        world.core.spares("liar", 0).await;
        assert_eq!(world.core.metric(REFUSED, &[]).await, before);
        world.end().await;
    });
}

/// The header of a stream to the listener `other`.
fn to_other() -> Vec<u8> {
    let mut bytes = Vec::new();
    write_v2_to(&mut bytes, ([203, 0, 113, 9], 4000).into(), ([192, 0, 2, 1], 7171).into(), Some("other"));
    bytes
}

/// What one side does at the end of a stream.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// Says that this was all.
    Said,
    /// Ends the connection without a word, as anybody on the way could.
    Cut,
    /// Sends what nobody sealed.
    Forged,
}

impl End {
    async fn of(self, peer: &mut Peer) {
        match self {
            Self::Said => {
                peer.tls.send_close_notify();
                peer.push().await.unwrap();
            }
            Self::Cut => {}
            Self::Forged => {
                peer.tcp.write_all(&[23, 3, 3, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await.unwrap()
            }
        }
        peer.tcp.shutdown().await.unwrap();
    }

    /// What the plain side behind the tunnel sees of it.
    async fn is_seen(self, plain: &mut TcpStream) {
        let end = plain.read(&mut [0]).await;
        match self {
            Self::Said => assert_eq!(end.unwrap(), 0),
            _ => assert_eq!(end.map_err(|error| error.kind()), Err(std::io::ErrorKind::ConnectionReset), "{self:?}"),
        }
    }
}

#[test]
fn what_is_cut_does_not_pass_for_an_end_behind_the_core() {
    run(async {
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut world = World::with_target(target.local_addr().unwrap()).await;
        for (n, end) in [End::Said, End::Cut, End::Forged].into_iter().enumerate() {
            let mut liar = world.liar().await;
            liar.send(&[to_other(), b"all".to_vec()].concat()).await.unwrap();
            let mut stream = target.accept().await.unwrap().0;
            let mut got = [0; 3];
            stream.read_exact(&mut got).await.unwrap();
            end.of(&mut liar).await;
            end.is_seen(&mut stream).await;
            drop(stream);
            let reason = if end == End::Said { "client" } else { "client_error" };
            let labels = ["listener=\"other\"", &format!("reason=\"{reason}\"")];
            world
                .core
                .wait_until("otproxy_connections_closed_total", &labels, |now| now == f64::max(1.0, n as f64))
                .await;
            world.play_on().await;
        }
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

/// What somebody does who plays the core towards an edge that connects, or an edge towards the core.
#[derive(Clone)]
enum Play {
    /// Makes the handshake with these papers and protocols, and does as the core does.
    Core(Papers, Option<&'static [&'static str]>),
    /// Makes the handshake, and says nothing.
    Silent(Papers),
    /// Makes the handshake, and answers with something else.
    Wrong(Papers),
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
            Self::Silent(papers) | Self::Wrong(papers) | Self::Leaves(papers) => (papers.clone(), None),
            Self::Plain(bytes) => {
                let _ = tcp.write_all(bytes).await;
                let _ = tcp.read_to_end(&mut Vec::new()).await;
                return;
            }
            Self::Closes => return,
            Self::Stalls => return std::future::pending().await,
        };
        let mut peer = Peer::accepted(tcp, server(papers, protocols));
        if peer.shake().await.is_err() || matches!(self, Self::Leaves(_)) {
            return;
        }
        while let Ok(bytes) = peer.read().await
            && !bytes.is_empty()
        {
            let answer = match self {
                Self::Core(..) => LOCAL.to_vec(),
                Self::Wrong(_) => LOCAL.iter().rev().copied().collect(),
                _ => continue,
            };
            if peer.send(&answer).await.is_err() {
                return;
            }
        }
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
            (Play::Silent(now(&["core"])), "refused"),
            (Play::Wrong(now(&["core"])), "refused"),
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
            assert_eq!(edge.metric("otproxy_tunnel_connections", &[]).await, 0.0, "{result}");
            let dials = ["edge=\"waw1\"", "result=\"handshake\""];
            edge.wait_until("otproxy_tunnel_dials_total", &dials, |now| now >= 1.0).await;
            assert_eq!(edge.metric("otproxy_tunnel_dials_total", &["result=\"ok\""]).await, 0.0, "{result}");
            waiting.abort();
            edge.stop().await;
        }
    });
}

#[test]
fn what_is_cut_does_not_pass_for_an_end_behind_an_edge() {
    run(async {
        let certificates = Certificates::new();
        let papers = papers(&certificates, &["core"], Time::Now);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let yaml = edge(&certificates, "waw1", listener.local_addr().unwrap(), LOGIN).replace("spare: 3", "spare: 1");
        let edge = Role::start(&yaml);
        for end in [End::Said, End::Cut, End::Forged] {
            let mut core = Peer::accepted(listener.accept().await.unwrap().0, server(papers.clone(), None));
            core.shake().await.unwrap();
            core.expect(LOCAL).await;
            core.send(LOCAL).await.unwrap();
            let mut player = TcpStream::connect(edge.addr("login")).await.unwrap();
            player.write_all(b"hello").await.unwrap();
            // The stream's header comes first.
            while !core.read().await.unwrap().ends_with(b"hello") {}
            core.send(b"all").await.unwrap();
            let mut got = [0; 3];
            player.read_exact(&mut got).await.unwrap();
            end.of(&mut core).await;
            end.is_seen(&mut player).await;
        }
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
        edge.send(LOCAL).await.unwrap();
        edge.expect(LOCAL).await;
        drop(edge);
        let recorded = tapping.await.unwrap();
        world.core.spares("liar", 0).await;
        let hello = 5 + usize::from(u16::from_be_bytes([recorded[3], recorded[4]]));
        assert!(
            recorded.starts_with(&[22, 3]) && recorded.len() > hello + 500,
            "a hello, a certificate and a question"
        );
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
        assert_eq!(world.core.metric("otproxy_tunnel_connections", &["edge=\"liar\""]).await, 0.0);
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
        let server = game_server().await;
        let mut setup = Setup::start(&certificates, &server);
        let mut game = Game::play(server, setup.paths.clone()).await;
        game.on(100, 2).await;
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
            setup.core.spares("waw1", 3).await;
        }
        for flood in floods {
            flood.end().await;
        }
        assert_eq!(setup.core.metric("otproxy_panics_total", &[]).await, 0.0);
        game.end().await;
    });
}

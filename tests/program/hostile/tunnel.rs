//! Handshakes of the tunnel that are begun and go no further, and edges that ask and do not listen: what they cost, and what
//! is left of them.

use std::net::SocketAddr;
use std::time::Instant;

use otproxy::admission::REFUSED_LINES;
use otproxy_net::pump::READ;
use otproxy_net::{LOG_WINDOW, OUTAGES};
use otproxy_protocol::proxy_header::write_v2_to;
use otproxy_protocol::trunk::{CREDIT, FrameKind, Hello, MAX_DATA, MAX_QUEUED, MAX_UNSENT};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::common::anybody::*;
use crate::common::certificates::Certificates;
use crate::common::flood::{self, CONNECTIONS, FILES};
use crate::common::metrics::Metered;
use crate::common::process::otproxy;
use crate::common::role_process::{KIB, MIB, RoleProcess, may_open};
use crate::common::run;

/// How often they come.
const ROUNDS: usize = 3;
/// What one handshake that goes no further may cost in memory.
const COST: usize = 16 * KIB;
const HANDSHAKES: &str = "otproxy_tunnel_handshakes_total";

#[test]
fn half_open_handshakes_leave_nothing_behind_and_an_edge_gets_in_between_them() {
    if !may_open(FILES) {
        return;
    }
    run(async {
        let certificates = Certificates::new();
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let core = RoleProcess::with(
            "core",
            &format!(
                "tunnel: {{ accept: '127.0.0.1:0', tls: {} }}\nedges: [{{ name: waw1 }}]\n\
                 listeners: [{{ name: login, forward_to: '{}', send_proxy: none }}]\n",
                certificates.tls("core"),
                target.local_addr().unwrap()
            ),
        );
        let (start, tunnel) = (Instant::now(), core.addr("tunnel"));
        let (mut descriptors, memory) = (0, core.memory());
        core.forget_peak();
        for number in 1..=ROUNDS {
            // Nobody is known there yet.
            let gets_in = async {
                let edge = RoleProcess::with(
                    "edge",
                    &format!(
                        "core: {{ dial: '{tunnel}', tls: {} }}\n\
                         listeners: [{{ name: login, listen: '127.0.0.1:0', forward_to: core/login }}]\n",
                        certificates.tls("waw1")
                    ),
                );
                let mut player = TcpStream::connect(edge.addr("login")).await.unwrap();
                player.write_all(b"?").await.unwrap();
                let mut stream = target.accept().await.unwrap().0;
                assert_eq!(stream.read_u8().await.unwrap(), b'?');
                edge.stop().await;
            };
            flood::round(tunnel, gets_in).await;
            let failed = async |result| core.metric(HANDSHAKES, &[&format!("result=\"{result}\"")]).await;
            while failed("timeout").await + failed("limit").await < (number * CONNECTIONS) as f64 {}
            assert!(failed("limit").await > 0.0, "there were never as many as may be");
            if number == 1 {
                // Those of all its threads are open now.
                descriptors = core.descriptors();
            }
            // A scrape has one of its own for a moment.
            core.wait_for_descriptors(|now| now <= descriptors).await;
        }
        let (peak, after) = (core.peak(), core.memory());
        eprintln!("{} KiB, {} KiB at most, {} KiB after", memory / KIB, peak / KIB, after / KIB);
        // As much as if all of one round had been there at once, whatever the number of rounds.
        assert!(peak <= memory + CONNECTIONS * COST + 2 * MIB);
        let windows = start.elapsed().as_secs() / LOG_WINDOW.as_secs() + 1;
        for result in ["timeout", "limit"] {
            let line = format!("tunnel handshake failed: {result}");
            let lines = core.log().lines().filter(|logged| logged.contains(&line)).count() as u64;
            assert!((1..=u64::from(REFUSED_LINES) * windows).contains(&lines), "{lines} lines of {line:?}");
        }
        core.stop().await;
    });
}

/// Memory that is nobody's in particular: code that is touched for the first time, metrics, logs.
const ALLOWANCE: usize = 6 * MIB;
const REFUSED: &str = "otproxy_tunnel_streams_refused_total";
/// Bytes of questions that an edge asks at the most.
const ASKED: usize = 64 * MIB;

/// A core with an edge `waw1`, through which somebody plays, and one that does what it likes.
struct World {
    certificates: Certificates,
    core: RoleProcess,
    waw1: RoleProcess,
    player: TcpStream,
}

impl World {
    /// Starts it, with this target behind the core's listener `other`.
    async fn start(other: SocketAddr) -> Self {
        let certificates = Certificates::new();
        let login = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let core = RoleProcess::with(
            "core",
            &format!(
                "tunnel: {{ accept: '127.0.0.1:0', tls: {} }}\nedges: [{{ name: waw1 }}, {{ name: liar }}]\n\
                 listeners: [{{ name: login, forward_to: '{}', send_proxy: none }}, \
                 {{ name: other, forward_to: '{other}', send_proxy: none, timeouts: {{ idle: 10m }} }}]\n\
                 limits: {{ connections: none }}\n",
                certificates.tls("core"),
                login.local_addr().unwrap()
            ),
        );
        let waw1 = RoleProcess::with(
            "edge",
            &format!(
                "core: {{ dial: '{}', tls: {} }}\n\
                 listeners: [{{ name: login, listen: '127.0.0.1:0', forward_to: core/login }}]\n",
                core.addr("tunnel"),
                certificates.tls("waw1")
            ),
        );
        tokio::spawn(async move {
            let mut stream = login.accept().await.unwrap().0;
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
        let player = TcpStream::connect(waw1.addr("login")).await.unwrap();
        let mut world = Self { certificates, core, waw1, player };
        world.play_on().await;
        world.core.forget_peak();
        world
    }

    /// The player says something, and has it back.
    async fn play_on(&mut self) {
        self.player.write_all(b"?").await.unwrap();
        assert_eq!(self.player.read_u8().await.unwrap(), b'?');
    }

    /// Connects as the other edge, whose kernel takes next to nothing: the sooner the core has to keep what it says.
    async fn liar(&self, hello: &Hello) -> AnyTrunk {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let tcp = socket.connect(self.core.addr("tunnel")).await.unwrap();
        let config = client(Some(papers(&self.certificates, &["liar"], Time::Now)), None);
        let mut peer = Peer::connected(tcp, config, &self.certificates.asked("core"));
        peer.shake().await.unwrap();
        AnyTrunk::as_edge(peer, hello, b"").await.unwrap()
    }

    async fn refused(&self, reason: &str) -> f64 {
        self.core.metric(REFUSED, &["edge=\"liar\"", &format!("reason=\"{reason}\"")]).await
    }

    /// Waits until the core has read all that its targets and edges sent, as far as it does.
    async fn rests(&mut self, liar: &mut AnyTrunk) {
        let mut before = f64::NAN;
        loop {
            let now = self.core.metric("otproxy_bytes_total", &["listener=\"other\""]).await;
            if now == before {
                return;
            }
            before = now;
            // What says nothing at all is given up.
            liar.send(&any_frame(200, 0, b"")).await.unwrap();
            // The player has his turn, and all others have theirs in the meantime.
            for _ in 0..100 {
                self.play_on().await;
            }
        }
    }

    /// The most memory since the start stays under what it was then and `bound`.
    #[track_caller]
    fn stays_under(&self, before: usize, bound: usize) {
        let grown = self.core.peak().saturating_sub(before);
        eprintln!("{} KiB more at most, and {} KiB are allowed", grown / KIB, (bound + ALLOWANCE) / KIB);
        assert!(grown <= bound + ALLOWANCE);
    }

    async fn end(mut self) {
        self.play_on().await;
        self.waw1.stop().await;
        self.core.stop().await;
    }
}

/// Returns a frame that opens a stream to this listener.
fn open(stream: u32, listener: &str) -> Vec<u8> {
    let mut header = Vec::new();
    write_v2_to(&mut header, ([203, 0, 113, 9], 4000).into(), ([192, 0, 2, 1], 7171).into(), Some(listener));
    frame(FrameKind::Open, stream, &header)
}

#[test]
fn an_edge_that_takes_no_answers_loses_its_trunk_before_they_are_many() {
    run(async {
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut world = World::start(nobody.local_addr().unwrap()).await;
        let before = world.core.memory();
        let about_nobody = |stream| frame(FrameKind::Open, stream, b"");
        let elsewhere = |stream| open(stream, "elsewhere");
        let openings: [&dyn Fn(u32) -> Vec<u8>; 2] = [&about_nobody, &elsewhere];
        for (number, opening) in (1..).zip(openings) {
            let mut liar = world.liar(&edge_hello()).await;
            let (mut sent, mut next) = (0, 1..);
            loop {
                let block: Vec<u8> = next.by_ref().take(1000).flat_map(opening).collect();
                if liar.send(&block).await.is_err() {
                    break;
                }
                sent += block.len();
                assert!(sent < ASKED, "it answers without end");
            }
            world.core.wait(REFUSED, &["edge=\"liar\"", "reason=\"protocol\""], f64::from(number)).await;
            // Where the answers wait, twice that as it grows.
            world.stays_under(before, 2 * MAX_QUEUED);
            world.play_on().await;
        }
        // Each of them has an answer of the least bytes, a reset, and they do not get to their bound sooner.
        assert!(world.refused("unknown_listener").await > (MAX_QUEUED / 8) as f64);
        let lines = world.core.log().lines().filter(|line| line.contains("refused in the tunnel")).count() as u64;
        assert!((1..=u64::from(OUTAGES)).contains(&lines), "{lines} lines");
        world.end().await;
    });
}

#[test]
fn questions_without_end_are_answered_without_memory() {
    run(async {
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut world = World::start(nobody.local_addr().unwrap()).await;
        let (mut liar, before) = (world.liar(&edge_hello()).await, world.core.memory());
        let block = frame(FrameKind::Ping, 0, &[0xff; 8]).repeat(10_000);
        for _ in 0..100 {
            liar.send(&block).await.unwrap();
        }
        world.play_on().await;
        // Now he listens: there are fewer answers than questions by far, and the last has one.
        let answers = liar.goes_on().await.len();
        assert!((1..100_000).contains(&answers), "{answers}");
        world.stays_under(before, 0);
        assert_eq!(world.refused("protocol").await, 0.0);
        world.end().await;
    });
}

#[test]
fn an_edge_that_opens_thousands_of_streams_and_never_reads_is_in_nobodys_way() {
    const STREAMS: usize = 2000;
    /// Bytes that each target says: far more than the core is to keep.
    const SAID: usize = 128 * KIB;
    /// What is kept of a stream besides bytes.
    const COST: usize = 8 * KIB;
    if !may_open(STREAMS as u64 + 1000) {
        return;
    }
    run(async {
        let loud = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut world = World::start(loud.local_addr().unwrap()).await;
        let (descriptors, before) = (world.core.descriptors(), world.core.memory());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = loud.accept().await {
                tokio::spawn(async move {
                    // It never reads, and says no more.
                    let _ = stream.write_all(&[b'x'; SAID]).await;
                    std::future::pending::<()>().await;
                });
            }
        });
        // He allows all that can be.
        let mut liar = world.liar(&Hello { credit: u32::MAX, ..edge_hello() }).await;
        let credit = vec![b'y'; CREDIT as usize];
        for stream in 1..=STREAMS as u32 {
            liar.send(&open(stream, "other")).await.unwrap();
            for part in credit.chunks(MAX_DATA) {
                liar.send(&frame(FrameKind::Data, stream, part)).await.unwrap();
            }
            if stream % 100 == 0 {
                world.play_on().await;
            }
        }
        let labels = ["listener=\"other\""];
        world.core.wait("otproxy_connections_active", &labels, STREAMS as f64).await;
        world.rests(&mut liar).await;
        let said = world.core.metric("otproxy_bytes_total", &["listener=\"other\"", "direction=\"out\""]).await;
        assert!(said < (STREAMS * SAID) as f64, "{said} bytes were read for somebody who takes none");
        world.stays_under(before, MAX_UNSENT + STREAMS * (READ + COST));
        drop(liar);
        world.core.wait("otproxy_connections_active", &labels, 0.0).await;
        world.core.wait("otproxy_tunnel_streams", &["edge=\"liar\""], 0.0).await;
        world.core.wait_for_descriptors(|now| now <= descriptors).await;
        assert_eq!(world.core.metric(REFUSED, &[]).await, 0.0);
        world.end().await;
    });
}

#[test]
fn an_edge_that_uses_up_all_descriptors_is_revoked_nevertheless() {
    run(async {
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let world = World::start(target.local_addr().unwrap()).await;
        let files = world.core.descriptors() as u64 + 100;
        world.core.limit_files(files);
        tokio::spawn(async move {
            let mut all = Vec::new();
            while let Ok((stream, _)) = target.accept().await {
                all.push(stream);
            }
        });
        let mut liar = world.liar(&edge_hello()).await;
        let mut streams = 1..;
        let (failed, labels) = ("otproxy_target_connects_total", ["listener=\"other\"", "result=\"error\""]);
        while world.core.metric(failed, &labels).await == 0.0 {
            let opens: Vec<u8> = streams.by_ref().take(10).flat_map(|stream| open(stream, "other")).collect();
            liar.send(&opens).await.unwrap();
        }
        world.core.wait_for_line("cannot connect, for a reason of this host").await;
        // The operator takes several at once: he looks, and the file is read again.
        world.core.reload("limits: { connections: none }", "limits: { connections: 100000 }");
        world.core.wait_for_line("configuration reloaded").await;
        let socket = world.core.socket();
        let revoked = otproxy(&["revoke", "liar", "--socket", &socket]).output().unwrap();
        assert!(revoked.status.success(), "{revoked:?}");
        world.core.wait("otproxy_connections_active", &["listener=\"other\""], 0.0).await;
        world.core.wait("otproxy_tunnel_trunks", &["edge=\"liar\""], 0.0).await;
        world.end().await;
    });
}

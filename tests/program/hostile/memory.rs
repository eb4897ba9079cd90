//! What peers cost in memory: each test has many of them exceed one limit, and watches the process.
//!
//! A bound is what the limit allows for each peer, twice, for what an allocator leaves between
//! pieces, and [`ALLOWANCE`]. Without the limit, the peers would have the process keep far more.

use otproxy_protocol::core::{MAX_ENDS, MAX_PONGS};
use otproxy_protocol::frame::{self, ClientId, MAX_PAYLOAD, PacketId, SessionId};
use otproxy_protocol::proxy_header;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::common::game::{Game, GameConn, packet};
use crate::common::link::*;
use crate::common::metrics::Metered;
use crate::common::role_process::{KIB, MIB, RoleProcess};
use crate::common::run;

/// Memory that is nobody's in particular: code that is touched for the first time, metrics, logs.
const ALLOWANCE: usize = 6 * MIB;

const REJECTED: &str = "otproxy_connections_rejected_total";
const ENDED: &str = "otproxy_relay_sessions_ended_total";
const ACTIVE: &str = "otproxy_connections_active";
const UNACKED: &str = "otproxy_relay_unacked_bytes";

fn core(game: &Game, sessions: &str) -> RoleProcess {
    let core = RoleProcess::core(&format!(
        "listeners: [{{ name: links, kind: relay, listen: '127.0.0.1:0', timeouts: {{ idle: 10m, header: 10m }} }}]\n\
         game_servers: [{{ port: {PORT}, address: '{}', max_packets_per_second: none }}]\nsessions: {{ {sessions} }}\n",
        game.addr
    ));
    core.forget_peak();
    core
}

/// The most memory since the start stays under what it was then and `bound`.
#[track_caller]
fn stays_under(core: &RoleProcess, before: usize, bound: usize) {
    let grown = core.peak().saturating_sub(before);
    eprintln!("{} KiB more at most, and {} KiB are allowed", grown / KIB, (bound + ALLOWANCE) / KIB);
    assert!(grown <= bound + ALLOWANCE);
}

/// A link of a client of its own, and its session on the game server.
async fn play(core: &RoleProcess, game: &Game, number: u32) -> (Link, GameConn) {
    let player = player(number as u8);
    let mut link = Link::connect(core.addr("links"), EDGE_A, player, ClientId(number)).await;
    link.open(S, PORT).await;
    (link, game.accept_otc().await.0)
}

#[test]
fn what_is_not_acknowledged() {
    const SESSIONS: usize = 20;
    const LIMIT: usize = 256 * KIB;
    /// Each game server sends 4 MiB.
    const PACKETS: u32 = 512;
    run(async {
        let game = Game::new().await;
        let core = core(&game, "unacked: 256KiB");
        let before = core.memory();
        let body = packet(&[7; 8190]);
        let (mut servers, mut clients) = (JoinSet::new(), JoinSet::new());
        let (release, released) = tokio::sync::watch::channel(false);
        for number in 0..SESSIONS {
            let (mut link, mut conn) = play(&core, &game, number as u32).await;
            // Its kernel is not to take all of it.
            SockRef::from(&conn.stream).set_send_buffer_size(64 * KIB).unwrap();
            let sent = body.clone();
            servers.spawn(async move {
                for _ in 0..PACKETS {
                    conn.send(&sent).await;
                }
                conn
            });
            let (body, mut released) = (body.clone(), released.clone());
            clients.spawn(async move {
                // It takes what comes; there is no end to it but the limit's.
                let mut received = 0;
                while !*released.borrow_and_update() {
                    tokio::select! {
                        _ = released.changed() => {}
                        seen = link.next() => {
                            received += 1;
                            assert_eq!(seen, data(received, 0, &body));
                        }
                    }
                }
                // From now on it says what it has.
                let mut said = 1;
                link.data(S, said, received, b"").await;
                while received < PACKETS {
                    received += 1;
                    assert!(matches!(link.next().await, Some(Seen::Data { packet, .. }) if packet == received));
                    if received % 8 == 0 || received == PACKETS {
                        said += 1;
                        link.data(S, said, received, b"").await;
                    }
                }
                link
            });
        }
        // Each is at its limit, or over it by one read.
        let most = SESSIONS * (LIMIT + 80 * KIB);
        let held = core.wait_until(UNACKED, &[], |held| held >= (SESSIONS * LIMIT) as f64).await;
        assert!(held <= most as f64, "{held}");
        assert!(servers.try_join_next().is_none(), "a game server has sent all, and nobody acknowledged it");
        stays_under(&core, before, 2 * most);
        release.send_replace(true);
        let _links = clients.join_all().await;
        let _conns = servers.join_all().await;
        core.wait(UNACKED, &[], 0.0).await;
        // All of it came, and at no time was there more.
        stays_under(&core, before, 2 * most);
        core.stop().await;
    });
}

#[test]
fn what_is_ahead_of_its_turn() {
    const SESSIONS: usize = 20;
    const LIMIT: usize = 128 * KIB;
    run(async {
        let game = Game::new().await;
        let core = core(&game, "reorder: 128KiB");
        let before = core.memory();
        let mut clients = JoinSet::new();
        for number in 0..SESSIONS {
            let (mut link, conn) = play(&core, &game, number as u32).await;
            clients.spawn(async move {
                // 4 MiB, and never the first one.
                for n in 2..1026 {
                    link.data(S, n, 0, &[9; 4096]).await;
                }
                assert_eq!(link.next().await, Some(Seen::End(S)));
                (link, conn)
            });
        }
        let _links = clients.join_all().await;
        core.wait(ENDED, &["reason=\"limit\""], SESSIONS as f64).await;
        stays_under(&core, before, 2 * SESSIONS * LIMIT);
        core.stop().await;
    });
}

#[test]
fn a_game_server_that_does_not_read() {
    const SESSIONS: usize = 8;
    /// `MAX_UPSTREAM` of src/relay/session.rs. A vector that grows is twice that at most.
    const LIMIT: usize = 2 * MIB;
    run(async {
        let game = Game::new().await;
        let core = core(&game, "");
        let before = core.memory();
        let mut clients = JoinSet::new();
        for number in 0..SESSIONS {
            let (link, conn) = play(&core, &game, number as u32).await;
            clients.spawn(async move {
                let (mut read, mut write) = link.stream.into_split();
                let sending = async {
                    // 16 MiB at most: kernels on the way take about 7.
                    for n in 1..=256 {
                        let header = frame::data_header(S, PacketId(n), PacketId(0), MAX_PAYLOAD);
                        write.write_all(&[&header[..], &[9; MAX_PAYLOAD]].concat()).await.unwrap();
                    }
                };
                let mut end = [0; frame::HEADER_LEN];
                let ended = async { read.read_exact(&mut end).await.unwrap() };
                tokio::join!(sending, ended);
                assert_eq!(end, frame::end(S));
                (read, write, conn)
            });
        }
        let _links = clients.join_all().await;
        core.wait(ENDED, &["reason=\"limit\""], SESSIONS as f64).await;
        stays_under(&core, before, 2 * SESSIONS * LIMIT);
        core.stop().await;
    });
}

#[test]
fn half_a_frame_on_many_links() {
    const LINKS: usize = 200;
    run(async {
        let game = Game::new().await;
        let core = core(&game, "");
        let before = core.memory();
        let mut first = 0;
        for round in 1..=3 {
            let mut links = Vec::new();
            for number in 0..LINKS {
                let mut link = Link::connect(core.addr("links"), EDGE_A, player(1), ClientId(number as u32)).await;
                // All but the last byte of the longest frame.
                let header = frame::data_header(S, PacketId(1), PacketId(0), MAX_PAYLOAD);
                link.send(&[&header[..], &[9; MAX_PAYLOAD - 1]].concat()).await;
                links.push(link);
            }
            let bytes = round * LINKS * (18 + frame::HEADER_LEN + MAX_PAYLOAD - 1);
            core.wait("otproxy_bytes_total", &["direction=\"in\""], bytes as f64).await;
            stays_under(&core, before, 2 * LINKS * 64 * KIB);
            drop(links);
            core.wait(ACTIVE, &[], 0.0).await;
            if round == 1 {
                first = core.peak();
            }
        }
        // What the first ones took was there for the later ones.
        // The kernel adds pages up for each CPU, so its peak may seem a little lower than before.
        let grown = core.peak().saturating_sub(first);
        assert!(grown <= LINKS * 64 * KIB / 4, "{} KiB more in the end", grown / KIB);
        core.stop().await;
    });
}

#[test]
fn half_a_header_on_many_connections() {
    const CONNECTIONS: usize = 400;
    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11";
    run(async {
        let game = Game::new().await;
        let core = core(&game, "");
        let before = core.memory();
        let mut kept = Vec::new();
        for number in 0..CONNECTIONS {
            // One that is as long as a header may be, less a byte, and one that says it will be the longest that
            // its length can say.
            let mut stream = TcpStream::connect(core.addr("links")).await.unwrap();
            stream.write_all(&[SIGNATURE, &4080u16.to_be_bytes(), &[0; 4079]].concat()).await.unwrap();
            kept.push(stream);
            let mut stream = TcpStream::connect(core.addr("links")).await.unwrap();
            // It is closed at the sixteenth byte.
            let _ = stream.write_all(&[SIGNATURE, &u16::MAX.to_be_bytes(), &[0; 65534]].concat()).await;
            let _ = stream.read(&mut [0]).await;
            core.wait(REJECTED, &["reason=\"bad_header\""], number as f64 + 1.0).await;
        }
        stays_under(&core, before, 2 * CONNECTIONS * proxy_header::MAX_LEN);
        // The others go on waiting: one more byte makes theirs whole.
        for (number, stream) in (1..).zip(&mut kept) {
            stream.write_all(&[0]).await.unwrap();
            // Each is a client of its own, as one has fewer links.
            stream.write_all(&frame::ping(ClientId(number), 0)).await.unwrap();
            stream.read_exact(&mut [0; frame::HEADER_LEN]).await.unwrap();
        }
        core.stop().await;
    });
}

#[test]
fn answers_that_nobody_reads() {
    const ASKED: u32 = 200_000;
    run(async {
        let game = Game::new().await;
        let core = core(&game, "");
        // The sooner it has to keep what it says.
        let mut link = Link::narrow(core.addr("links"), EDGE_A, player(1)).await;
        link.ping_first(CLIENT).await;
        let before = core.memory();
        // Pings without end, packets of sessions that never were, and sessions that end: as many as do not have the link
        // closed.
        let mut sent = 18;
        for block in 0..ASKED / 100 {
            let mut bytes = Vec::new();
            for n in 0..100 {
                let session = SessionId(1000 + block * 100 + n);
                bytes.extend(frame::ping(CLIENT, 20));
                if block == ASKED / 100 - 1 {
                    bytes.extend(frame::data_header(session, PacketId(1), PacketId(0), 0));
                    bytes.extend(frame::open(session, 1));
                }
            }
            sent += bytes.len();
            link.send(&bytes).await;
        }
        core.wait("otproxy_bytes_total", &["direction=\"in\""], sent as f64).await;
        stays_under(&core, before, 0);
        let in_kernel = core.metric("otproxy_bytes_total", &["direction=\"out\""]).await as usize;
        // Now it reads: what the kernels had, where the first pong is counted too, and then what waited.
        for _ in 1..in_kernel / frame::HEADER_LEN + MAX_PONGS + MAX_ENDS {
            assert!(matches!(link.next().await, Some(Seen::Pong | Seen::End(_))));
        }
        // All else was never kept. What is cut in the middle, or next to be written, counts as neither.
        link.open(S, 1).await;
        let mut more = 0;
        while link.next().await != Some(Seen::End(S)) {
            more += 1;
        }
        assert!(more <= 2, "{more} more");
        core.stop().await;
    });
}

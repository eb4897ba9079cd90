//! Peers that take their time: each costs a descriptor until its time is up, and players do not notice.

use std::cell::Cell;
use std::net::SocketAddr;

use otproxy_protocol::frame::{self, ClientId, PacketId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::common::game::{Game, GameConn, packet};
use crate::common::link::*;
use crate::common::metrics::LOOK;
use crate::common::metrics::Metered;
use crate::common::role_process::{KIB, MIB, RoleProcess, may_open};
use crate::common::run;

/// Slow peers of each kind at once.
const PEERS: usize = 700;
/// How often they come. What they leave behind would add up to more than [`COST`].
const ROUNDS: usize = 3;
/// What this process needs open, with the ends of its own and those of other tests beside it.
const FILES: u64 = 4000;
/// What one peer may cost in memory: its task, and what is known of it.
const COST: usize = 6 * KIB;

const REJECTED: &str = "otproxy_connections_rejected_total";
const CLOSED: &str = "otproxy_connections_closed_total";

/// One kind of slow peer.
struct Kind {
    to: SocketAddr,
    /// What it sends at once.
    first: Vec<u8>,
    /// The place of a client id in that, if it is to be a client of its own: one has not so many links.
    client: Option<usize>,
    /// Whether it then sends byte by byte.
    trickles: bool,
    /// What counts its end.
    counted: (&'static str, &'static str, &'static str),
}

/// Connects [`PEERS`] of each kind, and waits until all are closed and counted.
async fn flood(process: &RoleProcess, kinds: &[Kind], round: usize) {
    let mut peers = Vec::new();
    for kind in kinds {
        for number in 0..PEERS as u32 {
            let mut stream = TcpStream::connect(kind.to).await.unwrap();
            let mut first = kind.first.clone();
            if let Some(at) = kind.client {
                first[at..at + 4].copy_from_slice(&(1000 + number).to_le_bytes());
            }
            stream.write_all(&first).await.unwrap();
            peers.push((stream, kind.trickles));
        }
    }
    loop {
        let trickle = peers.iter().filter(|(_, trickles)| *trickles);
        trickle.for_each(|(stream, _)| drop(stream.try_write(&[0])));
        let mut all = true;
        for (name, listener, reason) in kinds.iter().map(|kind| kind.counted) {
            let labels = [format!("listener=\"{listener}\""), format!("reason=\"{reason}\"")];
            let alike = kinds.iter().filter(|kind| kind.counted == (name, listener, reason)).count();
            let value = process.metric(name, &[&labels[0], &labels[1]]).await;
            assert!(value <= (round * PEERS * alike) as f64);
            all &= value == (round * PEERS * alike) as f64;
        }
        if all {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    for (stream, _) in &mut peers {
        // To its end, or a reset where it had sent what nobody read. A pong may come before that.
        while stream.read(&mut [0; 64]).await.is_ok_and(|n| n > 0) {}
    }
}

/// Floods it in [`ROUNDS`], while `play` goes on; nothing is left of it.
async fn floods(process: &RoleProcess, kinds: &[Kind], mut play: impl AsyncFnMut()) {
    let done = Cell::new(false);
    let (descriptors, memory) = (process.descriptors(), process.memory());
    process.forget_peak();
    let flooding = async {
        for round in 1..=ROUNDS {
            flood(process, kinds, round).await;
            // A scrape has one of its own for a moment.
            process.wait_for_descriptors(|now| now == descriptors).await;
        }
        let (peak, after) = (process.peak(), process.memory());
        eprintln!("{} KiB, {} KiB at most, {} KiB after", memory / KIB, peak / KIB, after / KIB);
        // As much as if all of one round had been there at once, whatever the number of rounds.
        assert!(peak <= memory + kinds.len() * PEERS * COST + 2 * MIB);
        done.set(true);
    };
    let playing = async {
        while !done.get() {
            play().await;
        }
    };
    tokio::join!(flooding, playing);
}

/// One packet there and back.
async fn exchange(link: &mut Link, conn: &mut GameConn, number: &mut u32) {
    *number += 1;
    let body = packet(&number.to_le_bytes());
    link.data(S, *number, *number - 1, &body).await;
    conn.expect(&body).await;
    conn.send(&body).await;
    assert_eq!(link.next().await, data(*number, *number, &body));
}

/// The start of a PROXY header that would be as long as one may be.
const HALF_A_HEADER: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x0f\xf0";

#[test]
fn a_core_closes_them() {
    if !may_open(FILES) {
        return;
    }
    run(async {
        let game = Game::new().await;
        // The player's listener is one of the flooded ones, but for the one whose idle time is short.
        let core = RoleProcess::core(&format!(
            "listeners:\n\
             - {{ name: links, kind: relay, listen: '127.0.0.1:0', timeouts: {{ header: 500ms, idle: 10m }} }}\n\
             - {{ name: quick, kind: relay, listen: '127.0.0.1:0', timeouts: {{ idle: 500ms }} }}\n\
             - {{ name: login, listen: '127.0.0.1:0', forward_to: '127.0.0.1:9', timeouts: {{ header: 500ms }} }}\n\
             game_servers: [{{ port: {PORT}, address: '{}' }}]\n",
            game.addr
        ));
        let mut link = Link::connect(core.addr("links"), EDGE_A, player(1), CLIENT).await;
        link.open(S, PORT).await;
        let mut conn = game.accept_otc().await.0;
        let (links, quick, login) = (core.addr("links"), core.addr("quick"), core.addr("login"));
        let timeout = |listener| (REJECTED, listener, "header_timeout");
        let mut header = Vec::new();
        otproxy_protocol::proxy_header::write_v2(&mut header, player(9), quick);
        let half_a_ping = [&header[..], &frame::ping(ClientId(1), 0)[..7]].concat();
        let kinds = [
            Kind { to: links, first: Vec::new(), client: None, trickles: false, counted: timeout("links") },
            Kind { to: links, first: HALF_A_HEADER.to_vec(), client: None, trickles: true, counted: timeout("links") },
            Kind { to: login, first: HALF_A_HEADER.to_vec(), client: None, trickles: false, counted: timeout("login") },
            Kind {
                to: quick,
                first: half_a_ping,
                client: None,
                trickles: false,
                counted: (REJECTED, "quick", "no_ping"),
            },
        ];
        let mut number = 0;
        floods(&core, &kinds, async || exchange(&mut link, &mut conn, &mut number).await).await;
        assert!(number > 0);
        drop(link);
        core.stop().await;
    });
}

#[test]
fn a_link_that_trickles_half_a_frame_is_closed() {
    if !may_open(FILES) {
        return;
    }
    run(async {
        let game = Game::new().await;
        let core = RoleProcess::core(&format!(
            "listeners:\n\
             - {{ name: links, kind: relay, listen: '127.0.0.1:0' }}\n\
             - {{ name: quick, kind: relay, listen: '127.0.0.1:0', timeouts: {{ idle: 500ms }} }}\n\
             game_servers: [{{ port: {PORT}, address: '{}' }}]\n",
            game.addr
        ));
        let mut link = Link::connect(core.addr("links"), EDGE_A, player(1), CLIENT).await;
        link.open(S, PORT).await;
        let mut conn = game.accept_otc().await.0;
        let mut first = Vec::new();
        otproxy_protocol::proxy_header::write_v2(&mut first, player(9), core.addr("quick"));
        let client = Some(first.len() + 10);
        first.extend(frame::ping(ClientId(1), 0));
        first.extend(frame::data_header(S, PacketId(1), PacketId(0), 60_000));
        let kinds =
            [Kind { to: core.addr("quick"), first, client, trickles: true, counted: (CLOSED, "quick", "idle") }];
        let mut number = 0;
        floods(&core, &kinds, async || exchange(&mut link, &mut conn, &mut number).await).await;
        drop(link);
        core.stop().await;
    });
}

#[test]
fn an_edge_closes_them() {
    if !may_open(FILES) {
        return;
    }
    run(async {
        // A core that takes what comes and says nothing, but for one player.
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = target.local_addr().unwrap();
        let edge = RoleProcess::edge(&format!(
            "listeners:\n\
             - {{ name: links, listen: '127.0.0.1:0', forward_to: '{address}', timeouts: {{ idle: 500ms }} }}\n\
             - {{ name: behind, listen: '127.0.0.1:0', forward_to: '{address}', accept_proxy: required, \
             trusted_peers: 127.0.0.0/8, send_proxy: none, timeouts: {{ header: 500ms, idle: 10m }} }}\n"
        ));
        let mut player_end = TcpStream::connect(edge.addr("behind")).await.unwrap();
        let mut header = Vec::new();
        otproxy_protocol::proxy_header::write_v2(&mut header, player(1), edge.addr("behind"));
        player_end.write_all(&header).await.unwrap();
        let (mut core_end, _) = target.accept().await.unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = target.accept().await {
                tokio::spawn(async move { while stream.read(&mut [0; 64]).await.is_ok_and(|n| n > 0) {} });
            }
        });
        let timeout = (REJECTED, "behind", "header_timeout");
        let kinds = [
            Kind { to: edge.addr("behind"), first: Vec::new(), client: None, trickles: false, counted: timeout },
            Kind {
                to: edge.addr("behind"),
                first: HALF_A_HEADER.to_vec(),
                client: None,
                trickles: true,
                counted: timeout,
            },
            Kind {
                to: edge.addr("links"),
                first: Vec::new(),
                client: None,
                trickles: false,
                counted: (CLOSED, "links", "idle"),
            },
        ];
        let mut number = 0u32;
        let play = async || {
            number += 1;
            let mut answer = [0; 4];
            player_end.write_all(&number.to_le_bytes()).await.unwrap();
            core_end.read_exact(&mut answer).await.unwrap();
            core_end.write_all(&answer).await.unwrap();
            player_end.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, number.to_le_bytes());
        };
        floods(&edge, &kinds, play).await;
        edge.stop().await;
    });
}

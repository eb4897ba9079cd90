//! A process without a free descriptor for connections: it waits, counts, goes on with what it has, and hears its operator.

use std::time::{Duration, Instant};

use otproxy_net::descriptors::for_connections;
use otproxy_protocol::frame::{self, ClientId, SessionId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::common::game::{Game, packet};
use crate::common::link::*;
use crate::common::metrics::Metered;
use crate::common::role_process::RoleProcess;
use crate::common::run;

const ERRORS: &str = "otproxy_accept_errors_total";
const CONNECTS: &str = "otproxy_target_connects_total";
/// How long an accept loop waits after an error: `PAUSE` of src/net/listener.rs.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a process without descriptors is watched.
const WATCHED: Duration = Duration::from_secs(1);

/// Watches a process that is out of descriptors: it must not be busy with that.
async fn is_idle(process: &RoleProcess) {
    let (start, before) = (Instant::now(), process.cpu());
    tokio::time::sleep(WATCHED).await;
    let (used, elapsed) = (process.cpu() - before, start.elapsed());
    assert!(used < elapsed / 2, "{used:?} of processor time in {elapsed:?}");
}

/// Accepts may have failed once in each pause since `start`, and not more often.
async fn errors_since(process: &RoleProcess, start: Instant) -> f64 {
    let errors = process.metric(ERRORS, &[]).await;
    let most = start.elapsed().as_secs_f64() / PAUSE.as_secs_f64() + 1.0;
    assert!(errors <= most, "{errors} failed accepts, and {most} pauses");
    errors
}

#[test]
fn a_core_serves_its_players_and_those_who_wait_when_it_can() {
    const FILES: u32 = 64;
    const LINKS: usize = 100;
    run(async {
        let game = Game::new().await;
        let core = RoleProcess::core_with_files(
            &format!(
                "listeners: [{{ name: links, kind: relay, listen: '127.0.0.1:0', timeouts: {{ idle: 10m }} }}]\n\
                 game_servers: [{{ port: {PORT}, address: '{}' }}]\n",
                game.addr
            ),
            FILES,
        );
        let mut link = Link::connect(core.addr("links"), EDGE_A, player(1), CLIENT).await;
        link.open(S, PORT).await;
        let mut conn = game.accept_otc().await.0;
        let start = Instant::now();
        let mut links = JoinSet::new();
        for number in 0..LINKS {
            let mut link = Link::silent(core.addr("links"), EDGE_A, player(2)).await;
            link.send(&frame::ping(ClientId(number as u32), 0)).await;
            links.spawn(async move {
                assert_eq!(link.next().await, Some(Seen::Pong));
                link
            });
        }
        core.wait_for_line("cannot accept; raise LimitNOFILE").await;
        // The player goes on, packet by packet.
        for n in 1..=100u32 {
            let body = packet(&n.to_le_bytes());
            link.data(S, n, n - 1, &body).await;
            conn.expect(&body).await;
            conn.send(&body).await;
            assert_eq!(link.next().await, data(n, n, &body));
        }
        // A socket to the game server is not to be had: the client is told at once.
        let other = SessionId(8);
        link.open(other, PORT).await;
        assert_eq!(link.next().await, Some(Seen::End(other)));
        is_idle(&core).await;
        // Its operator can see that: some are held back. One that it was born with may be beyond the limit.
        assert!(core.descriptors() >= for_connections(FILES.into()) as usize);
        assert_eq!(core.metric("otproxy_relay_sessions_active", &[]).await, 1.0);
        // Those who are served give way to those who wait.
        for _ in 0..LINKS {
            drop(links.join_next().await.unwrap().unwrap());
        }
        assert!(errors_since(&core, start).await >= 1.0);
        core.wait("otproxy_relay_sessions_ended_total", &["reason=\"game_unreachable\""], 1.0).await;
        assert_eq!(core.metric(CONNECTS, &["result=\"error\""]).await, 1.0);
        // Under another id: the client was told that this one is over.
        link.open(SessionId(9), PORT).await;
        let _conn = game.accept_otc().await;
        link.sync().await;
        core.stop().await;
    });
}

#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Served,
    Closed,
    Waits,
}

/// What becomes of one more connection to an edge that had so many descriptors free before. With one it says that it
/// cannot accept as well, when it looks whether there is another connection.
async fn fate(edge: &RoleProcess, stream: &mut TcpStream, free: usize) -> Fate {
    stream.write_all(b"?").await.unwrap();
    if free == 0 {
        edge.wait_for_line("cannot accept; raise LimitNOFILE").await;
        return Fate::Waits;
    }
    if stream.read_u8().await.is_ok() { Fate::Served } else { Fate::Closed }
}

#[test]
fn an_edge_serves_whom_it_can_and_refuses_or_keeps_waiting_all_others() {
    run(async {
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = target.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = target.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        let mut fates = Vec::new();
        // A connection takes two descriptors: either the last one is good for an accept and the connect to the
        // target fails, or there is none left for the accept.
        for files in [40, 41] {
            let edge = RoleProcess::edge_with_files(
                &format!(
                    "listeners: [{{ name: a, listen: '127.0.0.1:0', forward_to: '{address}', send_proxy: none, \
                     timeouts: {{ idle: 10m }} }}]\nlimits: {{ connections: none }}\n"
                ),
                files,
            );
            let start = Instant::now();
            let mut served = Vec::new();
            let (fate_of_last, mut last) = loop {
                let free = edge.free_descriptors(for_connections(files.into()));
                let mut stream = TcpStream::connect(edge.addr("a")).await.unwrap();
                match fate(&edge, &mut stream, free).await {
                    Fate::Served => served.push(stream),
                    other => break (other, stream),
                }
            };
            assert!(served.len() >= 5);
            if fate_of_last == Fate::Waits {
                is_idle(&edge).await;
            }
            for stream in &mut served {
                stream.write_all(b"on").await.unwrap();
                let mut answer = [0; 2];
                stream.read_exact(&mut answer).await.unwrap();
                assert_eq!(answer, *b"on");
            }
            let at_the_end = edge.descriptors();
            served.truncate(2);
            if fate_of_last == Fate::Waits {
                // It is let in as soon as one descriptor is free. Where that is the only one at that moment, its target
                // cannot be reached, and it is told.
                match last.read_u8().await {
                    Ok(answer) => assert_eq!(answer, b'?'),
                    Err(_) => edge.wait("otproxy_connections_closed_total", &["reason=\"connect_failed\""], 1.0).await,
                }
            }
            // A scrape takes some of its own.
            edge.wait_for_descriptors(|now| now + 4 <= at_the_end).await;
            let errors = errors_since(&edge, start).await;
            if fate_of_last == Fate::Waits {
                assert!(errors >= 1.0);
            } else {
                assert_eq!(edge.metric(CONNECTS, &["result=\"error\""]).await, 1.0);
                edge.wait("otproxy_connections_closed_total", &["reason=\"connect_failed\""], 1.0).await;
            }
            let mut later = TcpStream::connect(edge.addr("a")).await.unwrap();
            later.write_all(b"!").await.unwrap();
            assert_eq!(later.read_u8().await.unwrap(), b'!');
            fates.push(fate_of_last);
            edge.stop().await;
        }
        fates.sort_by_key(|fate| *fate == Fate::Waits);
        assert_eq!(fates, [Fate::Closed, Fate::Waits]);
    });
}

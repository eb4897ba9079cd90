//! What a real client sent to the relay that otproxy replaces, sent to the core.
//! `tests/captures/README.md` tells what the recordings are.

use std::collections::BTreeMap;
use std::fs;

use otproxy_protocol::frame::{Frame, FromClient, FromCore, PacketId};

use crate::relay::harness::*;

struct Line {
    ms: u64,
    /// Edge and connection.
    link: (usize, u64),
    dir: String,
    bytes: Vec<u8>,
}

fn recording() -> Vec<Line> {
    let mut lines = Vec::new();
    for edge in 1..=3 {
        let path = format!("{}/tests/captures/edge{edge}.jsonl", env!("CARGO_MANIFEST_DIR"));
        for line in fs::read_to_string(path).unwrap().lines() {
            let line: serde_yaml::Value = serde_yaml::from_str(line).unwrap();
            let hex = line["hex"].as_str().unwrap_or_default();
            let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
            lines.push(Line {
                ms: line["ms"].as_u64().unwrap(),
                link: (edge, line["conn"].as_u64().unwrap()),
                dir: line["dir"].as_str().unwrap().to_owned(),
                bytes: bytes.collect(),
            });
        }
    }
    assert_eq!(lines.len(), 155);
    lines.sort_by_key(|line| line.ms);
    lines
}

/// The whole frames at the front of `bytes`, which are taken off.
fn each_frame(bytes: &mut Vec<u8>, mut see: impl FnMut(Frame<'_>)) {
    let mut rest = &bytes[..];
    while let Some((frame, next)) = Frame::split(rest).unwrap() {
        see(frame);
        rest = next;
    }
    *bytes = rest.to_vec();
}

#[test]
fn a_real_clients_session_from_its_first_ping_to_its_leave() {
    run(async {
        let lines = recording();
        let (mut to_client, mut to_server) = (BTreeMap::new(), BTreeMap::new());
        let mut streams = BTreeMap::<_, Vec<u8>>::new();
        for line in &lines {
            let stream = streams.entry((line.link, line.dir.clone())).or_default();
            stream.extend_from_slice(&line.bytes);
            each_frame(stream, |frame| match line.dir.as_str() {
                "s>c" => {
                    if let Some(FromCore::Data { packet, payload, .. }) = frame.from_core() {
                        to_client.insert(packet, payload.to_vec());
                    }
                }
                _ => {
                    if let FromClient::Data { packet, payload, .. } = frame.from_client() {
                        to_server.insert(packet, payload.to_vec());
                    }
                }
            });
        }
        assert_eq!((to_client.len(), to_server.len()), (35, 20));

        let game = Game::new().await;
        let core = Setup::to(&game, "").sessions("leave_grace: 100ms").start();
        let (mut links, mut partial, mut conn) = (BTreeMap::new(), BTreeMap::<_, Vec<u8>>::new(), None);
        let mut sent = PacketId::NONE;
        for line in &lines {
            match line.dir.as_str() {
                "open" => drop(links.insert(line.link, core.silent_link(EDGE_A, player(1)).await)),
                "c>s" => {
                    let (mut acked, mut opens) = (PacketId::NONE, false);
                    let partial = partial.entry(line.link).or_default();
                    partial.extend_from_slice(&line.bytes);
                    each_frame(partial, |frame| match frame.from_client() {
                        FromClient::Data { ack, .. } => acked = acked.max(ack),
                        FromClient::Open { .. } => opens = true,
                        FromClient::Leave { .. } | FromClient::Ping { .. } => {}
                    });
                    // The game has said by now what the client acknowledges.
                    if acked > sent {
                        let conn: &mut GameConn = conn.as_mut().expect("the session is open");
                        while sent < acked {
                            sent = sent.next();
                            conn.send(&to_client[&sent]).await;
                        }
                        core.wait("otproxy_relay_packets_total", &["direction=\"out\""], sent.0.into()).await;
                    }
                    links.get_mut(&line.link).unwrap().send(&line.bytes).await;
                    if opens && conn.is_none() {
                        conn = Some(game.accept_otc().await.0);
                    }
                }
                "s>c" => {}
                _ => drop(links.remove(&line.link)),
            }
        }
        let mut conn = conn.unwrap();
        conn.expect(&to_server.into_values().flatten().collect::<Vec<_>>()).await;
        conn.expect_end().await;
        core.ended("client_left").await;
        assert_eq!(core.metric("otproxy_relay_sessions_opened_total", &[]).await, 1.0);
        assert_eq!(core.metric("otproxy_relay_refused_total", &[]).await, 0.0);
        assert_eq!(core.metric("otproxy_relay_packets_total", &["direction=\"in\""]).await, 20.0);
        core.close().await;
    });
}

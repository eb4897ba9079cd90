//! What the recorded relay sent to a real client must be acceptable to the machine, whole or split
//! anywhere. `tests/captures/README.md` tells what the recordings are.

use std::fs;
use std::time::{Duration, Instant};

use otproxy_protocol::frame::{ClientId, Frame, FromClient, SessionId};
use otproxy_protocol::player::machine::SessionEvent;
use otproxy_protocol::player::{ClientClocks, ClientEndReason, LinkId, PathStats, PlayerCore, SessionStats};

const CLIENT: ClientId = ClientId(2_185_065_826);
const SESSION: SessionId = SessionId(1_890_420_046);
const PORT: u16 = 7172;

#[derive(Debug, Clone)]
struct Line {
    ms: u64,
    link: LinkId,
    dir: String,
    bytes: Vec<u8>,
}

/// All lines of all three files by time; of one file in its order.
fn recording() -> Vec<Line> {
    let mut lines = Vec::new();
    for link in 0..3 {
        let path = format!("{}/tests/captures/edge{}.jsonl", env!("CARGO_MANIFEST_DIR"), link + 1);
        for line in fs::read_to_string(path).unwrap().lines() {
            let line: serde_yaml::Value = serde_yaml::from_str(line).unwrap();
            let hex = line["hex"].as_str().unwrap();
            let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
            lines.push(Line {
                ms: line["ms"].as_u64().unwrap(),
                link: LinkId(link),
                dir: line["dir"].as_str().unwrap().to_owned(),
                bytes: bytes.collect(),
            });
        }
    }
    assert_eq!(lines.len(), 155);
    // A stable sort: lines of one edge stay in their order.
    lines.sort_by_key(|line| line.ms);
    lines
}

fn sent_by_client(lines: &[Line], link: LinkId) -> Vec<u8> {
    let of_link = lines.iter().filter(|line| line.link == link && line.dir == "c>s");
    of_link.flat_map(|line| line.bytes.clone()).collect()
}

/// Plays the relay's bytes into a machine, in chunks of at most `chunk`, and sends the recorded
/// packets at their times.
fn replay(chunk: usize) -> (Vec<Vec<u8>>, SessionStats, Vec<PathStats>) {
    let lines = recording();
    let start = Instant::now();
    // The machine makes its own choice of links; what matters here is that it takes each packet
    // from whatever link brings it, as the recorded client did.
    let mut player = PlayerCore::new(CLIENT, [Duration::ZERO; 3], 2, ClientClocks::default(), start);
    let mut received = Vec::new();
    let mut ended = None;
    let mut sent = 0;
    player.tick(start);
    for line in &lines {
        let now = start + Duration::from_millis(line.ms);
        match line.dir.as_str() {
            "open" => {
                // The check that connects comes when the recorded client's did.
                player.tick(now);
                player.connected(line.link, now);
                assert!(player.path_stats().nth(line.link.0).unwrap().connected);
            }
            "c>s" => {
                let mut rest = &line.bytes[..];
                while let Some((frame, next)) = Frame::split(rest).unwrap() {
                    rest = next;
                    match frame.from_client() {
                        FromClient::Open { port, .. } => {
                            assert_eq!(port, u32::from(PORT));
                            player.open(SESSION, PORT, now);
                        }
                        FromClient::Data { packet, payload, .. } if packet.0 == sent + 1 => {
                            player.send(SESSION, payload).unwrap();
                            sent += 1;
                        }
                        FromClient::Leave { .. } => player.leave(SESSION),
                        _ => {}
                    }
                }
            }
            "s>c" => line.bytes.chunks(chunk).for_each(|bytes| player.bytes(line.link, bytes, now)),
            _ => player.lost(line.link),
        }
        // The recorder saw the first edge die only as the absence of more.
        if (9000..13_000).contains(&line.ms) {
            player.lost(LinkId(0));
        }
        while let Some(event) = player.poll_event() {
            match event {
                SessionEvent::Packet(_, packet) => received.push(packet.to_vec()),
                SessionEvent::Ended(_, stats) => ended = Some(stats),
            }
        }
    }
    (received, ended.unwrap(), player.path_stats().collect())
}

#[test]
fn the_machine_accepts_what_a_real_client_accepted() {
    let (received, stats, paths) = replay(usize::MAX);
    assert_eq!((received.len(), stats.received, stats.sent), (35, 35, 20));
    assert_eq!((stats.gaps, stats.miscut, stats.bad_acks), (0, 0, 0));
    assert_eq!(stats.ended, Some(ClientEndReason::Left));
    assert!(stats.duplicates > 25, "two links carried nearly all of it: {stats:?}");
    assert_eq!(paths.iter().map(|path| path.first).sum::<u64>(), 35);
    assert_eq!(paths.iter().map(|path| path.duplicates).sum::<u64>(), stats.duplicates);
    assert_eq!(received[0].len(), 14, "the challenge comes first");
}

#[test]
fn and_so_it_does_byte_by_byte_and_in_any_chunks() {
    let whole = replay(usize::MAX);
    for chunk in 1..=60 {
        let (received, stats, _) = replay(chunk);
        assert_eq!((&received, stats), (&whole.0, whole.1), "chunks of {chunk}");
    }
}

#[test]
fn a_real_client_joins_as_the_machine_does() {
    // The third link's stream, from its connect on: pings, then a join with what is unacknowledged.
    let lines = recording();
    let stream = sent_by_client(&lines, LinkId(2));
    let mut rest = &stream[..];
    let mut first_data = None;
    let mut opened = false;
    let mut expected = None;
    while let Some((frame, next)) = Frame::split(rest).unwrap() {
        rest = next;
        match frame.from_client() {
            FromClient::Ping { client, .. } => assert_eq!(client, CLIENT),
            FromClient::Open { .. } => opened = true,
            FromClient::Data { packet, .. } => {
                assert!(opened);
                first_data.get_or_insert(packet.0);
                assert_eq!(packet.0, expected.unwrap_or(packet.0), "no gap on the link");
                expected = Some(packet.0 + 1);
            }
            FromClient::Leave { session } => assert_eq!(session, SESSION),
        }
    }
    assert!(rest.is_empty());
    assert_eq!((first_data, expected), (Some(10), Some(21)), "joined with packet 10, and carried all from there");
}

//! The seeds of each fuzz target: what it is worth to start from, each with a name that says what it is.

use std::fs;
use std::net::SocketAddr;

use otproxy_protocol::frame::{self, ClientId, MAX_PAYLOAD, PacketId, SessionId};
use otproxy_protocol::proxy_header::{write_v1, write_v2, write_v2_to};
use otproxy_protocol::trunk::{CREDIT, CoreWorkers, FrameKind, Hello, MAX_DATA, VERSION};

use super::bodies::{player::event as player_event, session_machine::event};

/// Names and contents.
pub type Seeds = Vec<(String, Vec<u8>)>;

/// A stream whole, and one that comes byte by byte: what [`super::bodies`] calls pieces.
const WHOLE: &[u8] = &[0];
const BYTEWISE: &[u8] = &[1, 0];

fn named<const N: usize>(seeds: [(&str, Vec<u8>); N]) -> Seeds {
    seeds.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}

/// What the files of the examples and of the tests of the configuration are not.
pub fn config() -> Seeds {
    named([
        ("aliases-that-multiply", b"a: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a]\nc: [*b, *b, *b, *b]\n".to_vec()),
        ("deep", [b"a: ".to_vec(), vec![b'['; 200]].concat()),
        ("no-end-of-line", b"role: [edge".to_vec()),
        ("old-ends-of-lines", b"role: edge\rlisteners: \xE2\x80\xA8 - x\n".to_vec()),
        ("byte-order-mark", b"\xEF\xBB\xBFrole: edge\n".to_vec()),
        ("control-character", b"role: edge\nname: \x01\n".to_vec()),
        ("long-key", [vec![b'k'; 3000], b": 1\n".to_vec()].concat()),
        ("many-keys", (0..200).flat_map(|n| format!("key{n}: {n}\n").into_bytes()).collect()),
    ])
}

/// One direction of one of the recorded edges.
fn captured(edge: u32, direction: &str) -> Vec<u8> {
    let path = format!("{}/tests/captures/edge{edge}.jsonl", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(path).expect("a recording");
    let lines = text.lines().map(|line| serde_yaml::from_str::<serde_yaml::Value>(line).expect("JSON"));
    let hex: String = lines
        .filter(|line| line["dir"] == direction)
        .map(|line| line["hex"].as_str().expect("hex").to_owned())
        .collect();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

fn data(session: u32, packet: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    [&frame::data_header(SessionId(session), PacketId(packet), PacketId(ack), payload.len())[..], payload].concat()
}

/// What is expected of connections, and what others send to every port that they find.
pub fn expect() -> Seeds {
    let login = |length: u16, extra: usize, kind_at: usize| {
        let mut body = vec![0xEE; usize::from(length) + extra];
        body[kind_at] = 1;
        [&length.to_le_bytes()[..], &body].concat()
    };
    named([
        ("nothing", Vec::new()),
        ("ping", frame::ping(ClientId(7), 42).to_vec()),
        ("ping-and-open", [&frame::ping(ClientId(7), 0)[..], &frame::open(SessionId(9), 7172)].concat()),
        ("ping-longest", data(0, 0, 7, &[0; frame::MAX_FIRST_PAYLOAD])),
        ("ping-too-long", data(0, 0, 7, &[0; frame::MAX_FIRST_PAYLOAD + 1])),
        ("open-first", frame::open(SessionId(9), 7172).to_vec()),
        ("login-bare", login(23, 0, 0)),
        ("login-checksum", login(149, 0, 4)),
        ("login-blocks", login(17, 7 * 17 + 4, 5)),
        ("login-longest", login(767, 0, 4)),
        ("status-xml", b"\x06\0\xFF\xFFinfo".to_vec()),
        ("status-binary", b"\x0C\0\xFF\x01\x10\0\x06\0Player".to_vec()),
        ("http", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("tls", b"\x16\x03\x01\x02\0\x01\0\x01\xFC\x03\x03".to_vec()),
    ])
}

/// Each kind of frame, wrong ones, and the recordings.
pub fn frames() -> Seeds {
    let streams = named([
        ("nothing", Vec::new()),
        ("ping", frame::ping(ClientId(7), 42).to_vec()),
        ("ping-without-round-trip", data(0, 0, 7, &[])),
        ("ping-unknown-round-trip", frame::ping(ClientId(7), 5000).to_vec()),
        ("pong", frame::PONG.to_vec()),
        ("open", frame::open(SessionId(9), 7172).to_vec()),
        ("open-of-no-port", data(9, 0, 65536, &[])),
        ("open-with-payload", data(9, 0, 7172, b"more")),
        ("leave", frame::end(SessionId(9)).to_vec()),
        ("leave-with-ack", data(9, u32::MAX, 3, &[])),
        ("data", data(9, 1, 0, b"\x04\0body")),
        ("data-empty", data(9, 2, 1, &[])),
        ("data-last-number", data(9, u32::MAX - 1, u32::MAX, b"x")),
        ("length-0", vec![0, 0]),
        ("length-11", [&[11, 0][..], &[1; 11]].concat()),
        ("half-a-header", frame::PONG[..9].to_vec()),
        ("half-a-payload", data(9, 1, 0, b"payload")[..17].to_vec()),
        (
            "three-then-a-wrong-one",
            [data(1, 1, 0, b"a"), data(2, 1, 0, b"b"), data(1, 2, 1, b"c"), vec![3, 0]].concat(),
        ),
    ]);
    let mut seeds: Seeds = Vec::new();
    for (name, stream) in streams {
        seeds.push((format!("{name}-bytewise"), [BYTEWISE, &stream].concat()));
        seeds.push((name, [WHOLE, &stream].concat()));
    }
    seeds.push(("longest".to_owned(), [WHOLE, &data(9, 1, 0, &vec![5; MAX_PAYLOAD])].concat()));
    for edge in 1..=3 {
        for (name, direction) in [("to-core", "c>s"), ("to-client", "s>c")] {
            let stream = captured(edge, direction);
            seeds.push((format!("captured-edge{edge}-{name}"), [&[3, 0, 13, 200][..], &stream].concat()));
        }
    }
    seeds
}

/// Streams of both framings, each also cut.
pub fn game_packet() -> Seeds {
    // As the target reads them: auto, bytes, blocks.
    let framings = [("auto", 0), ("bytes", 1), ("blocks", 2)];
    let in_bytes = |bodies: &[usize]| -> Vec<u8> {
        let packet = |len: &usize| [&(*len as u16).to_le_bytes()[..], &vec![7; *len]].concat();
        bodies.iter().flat_map(packet).collect()
    };
    let in_blocks = |blocks: &[u16]| -> Vec<u8> {
        let packet = |n: &u16| [&n.to_le_bytes()[..], &vec![7; 8 * usize::from(*n) + 4]].concat();
        blocks.iter().flat_map(packet).collect()
    };
    let streams = named([
        ("nothing", Vec::new()),
        ("half-a-length", vec![1]),
        ("challenge", in_bytes(&[12])),
        ("challenge-and-more", in_bytes(&[12, 0, 1, 300])),
        ("challenge-in-blocks", in_blocks(&[1])),
        ("challenge-in-blocks-and-more", in_blocks(&[1, 0, 37])),
        ("too-long", [in_bytes(&[3]), vec![0xF0, 0xFF]].concat()),
        ("too-long-in-blocks", [in_blocks(&[1]), vec![0xFE, 0x1F]].concat()),
    ]);
    let mut seeds: Seeds = Vec::new();
    for (name, stream) in streams {
        for (framing, choice) in framings {
            seeds.push((format!("{framing}-{name}"), [&[choice], WHOLE, &stream].concat()));
        }
        seeds.push((format!("auto-{name}-in-pieces"), [&[0][..], &[3, 0, 2, 250], &stream].concat()));
    }
    seeds.push(("bytes-longest".to_owned(), [&[1][..], WHOLE, &in_bytes(&[65519])].concat()));
    seeds.push(("blocks-longest".to_owned(), [&[2][..], &[1, 250], &in_blocks(&[8189])].concat()));
    seeds
}

/// A connection that stands and is pinged, for the player's first link.
const PLAYER_READY: &[u8] = &[
    0,
    player_event::WAIT,
    0,
    0,
    player_event::CONNECTED,
    0,
    player_event::PONG,
    0,
    player_event::OPEN,
    0,
    player_event::WAIT,
    0xF4,
    1,
];

/// A player's sessions, in short sequences of events.
pub fn player() -> Seeds {
    use player_event::{BYTES, CONNECTED, DATA, END, LEAVE, LOST, OPEN, PONG, SEND, WAIT, WROTE};
    let packet = |link: u8, number: u8, payload: &[u8]| {
        [&[DATA, link, 0, number, 0, 0, 0, 0, 0, 0, 0, payload.len() as u8][..], payload].concat()
    };
    let after = |events: &[&[u8]]| [PLAYER_READY, &events.concat()].concat();
    named([
        ("opens", PLAYER_READY.to_vec()),
        ("receives", after(&[&packet(0, 1, b"\x01\0a"), &packet(0, 2, b"\x01\0b")])),
        ("receives-twice", after(&[&packet(0, 1, b"\x01\0a"), &packet(0, 1, b"\x01\0a")])),
        ("receives-a-gap", after(&[&packet(0, 2, b"\x01\0b"), &packet(0, 1, b"\x01\0a")])),
        ("receives-miscut", after(&[&packet(0, 1, b"\x09\0a"), &packet(0, 2, b"")])),
        ("acknowledged", after(&[&[SEND, 0, 1], &[DATA, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]])),
        ("acknowledged-too-much", after(&[&[SEND, 0, 1], &[DATA, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0]])),
        (
            "sends-and-joins-again",
            after(&[&[SEND, 0, 2, LOST, 0, WAIT, 0xC4, 9, CONNECTED, 0, PONG, 0, WAIT, 0xF4, 1]]),
        ),
        ("two-links", after(&[&[CONNECTED, 1, PONG, 1, WAIT, 0xF4, 1, SEND, 0, 3], &packet(1, 1, b"\x01\0a")])),
        ("ended", after(&[&[END, 0, 0], &packet(0, 1, b"\x01\0a")])),
        ("leaves", after(&[&[SEND, 0, 1, LEAVE, 0, WROTE, 0, 200]])),
        ("opens-twice", after(&[&[OPEN, 0, OPEN, 1, LEAVE, 0, OPEN, 0]])),
        ("no-frame", after(&[&[BYTES, 0, 4, 3, 0, 1, 1], &packet(0, 1, b"\x01\0a")])),
        ("half-a-frame", after(&[&[BYTES, 0, 9, 12, 0, 0, 0, 0, 0, 0, 0, 0, BYTES, 0, 5, 0, 0, 0, 0, 0]])),
        ("silence", after(&[&[WAIT, 0x30, 0x75], &[WAIT, 0x30, 0x75]])),
        ("no-pong", vec![2, 0, 5, WAIT, 0, 0, CONNECTED, 2, WAIT, 0xD4, 0x30, WAIT, 0xD4, 0x30]),
        ("full", after(&[&[SEND, 0, 255].repeat(90)])),
    ])
}

/// Headers of each kind, and what is just none.
pub fn proxy_header() -> Seeds {
    let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
    let v2 = |version_command: u8, family: u8, payload: &[u8]| {
        let length = (payload.len() as u16).to_be_bytes();
        [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[version_command, family], &length, payload].concat()
    };
    let written = |write: fn(&mut Vec<u8>, SocketAddr, SocketAddr), source, destination| {
        let mut bytes = Vec::new();
        write(&mut bytes, address(source), address(destination));
        [&bytes[..], b"player"].concat()
    };
    let four = [192, 0, 2, 33, 198, 51, 100, 7, 0xC3, 0x50, 0x1C, 3];
    named([
        ("nothing", Vec::new()),
        ("neither", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("v1-tcp4", written(write_v1, "192.0.2.33:50000", "198.51.100.7:7171")),
        ("v1-tcp6", written(write_v1, "[2001:db8::3]:50000", "[2001:db8::7]:7171")),
        ("v1-mapped", b"PROXY TCP6 ::ffff:192.0.2.33 ::1 1 2\r\n".to_vec()),
        ("v1-unknown", b"PROXY UNKNOWN\r\nplayer".to_vec()),
        ("v1-unknown-and-more", b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n".to_vec()),
        ("v1-longest", [&b"PROXY UNKNOWN "[..], &[b'x'; 91], b"\r\n"].concat()),
        ("v1-too-long", [&b"PROXY UNKNOWN "[..], &[b'x'; 92], b"\r\n"].concat()),
        ("v1-no-cr", b"PROXY TCP4 192.0.2.33 198.51.100.7 50000 7171\n".to_vec()),
        ("v1-leading-zero", b"PROXY TCP4 192.0.2.33 198.51.100.7 050000 7171\r\n".to_vec()),
        ("v1-large-port", b"PROXY TCP4 192.0.2.33 198.51.100.7 50000 65536\r\n".to_vec()),
        ("v1-half", b"PROXY TCP4 192.0.2.3".to_vec()),
        ("v1-wrong-family", b"PROXY TCP6 192.0.2.33 198.51.100.7 1 2\r\n".to_vec()),
        ("v2-tcp4", written(write_v2, "192.0.2.33:50000", "198.51.100.7:7171")),
        ("v2-tcp6", written(write_v2, "[2001:db8::3]:50000", "[2001:db8::7]:7171")),
        ("v2-mapped", written(write_v2, "192.0.2.33:50000", "[2001:db8::7]:7171")),
        ("v2-tlvs", v2(0x21, 0x11, &[&four[..], b"\x04\0\x03abc\x02\0\x0Bexample.com"].concat())),
        ("v2-broken-tlvs", v2(0x21, 0x11, &[&four[..], &[0xEE, 0xFF, 0xFF]].concat())),
        ("v2-local", v2(0x20, 0, &[])),
        ("v2-local-with-anything", v2(0x20, 0xFF, b"anything")),
        ("v2-unspec", v2(0x21, 0, b"anything")),
        ("v2-datagram", v2(0x21, 0x12, &four)),
        ("v2-unix", v2(0x21, 0x31, &[b'x'; 216])),
        ("v2-short-addresses", v2(0x21, 0x21, &[0; 35])),
        ("v2-version-1", v2(0x11, 0x11, &four)),
        ("v2-command-2", v2(0x22, 0x11, &four)),
        ("v2-family-4", v2(0x21, 0x41, &four)),
        ("v2-longest", v2(0x21, 0x11, &[&four[..], &[0; 4084]].concat())),
        ("v2-too-long", v2(0x21, 0x11, &[0; 4097])),
        ("v2-half", v2(0x21, 0x11, &four)[..20].to_vec()),
    ])
}

/// Sessions in short sequences of events.
pub fn session_machine() -> Seeds {
    use event::{
        ANY_DATA, BREAK, CLOSE, DATA, FOREIGN, FREEZE, GAME_TAKES, HEARD, LEAVE, LOSE, OPEN, PING, PUSH, SILENT, STRAY,
        WAIT, WRITE, WRITE_ALL,
    };
    // 8 KiB unacknowledged, 4 KiB ahead of their turn, 1.5 s to come back, 200 ms after a leave.
    let usual: &[u8] = &[128, 255, 0x32, 0];
    let after = |limits: &[u8], events: &[&[u8]]| [limits, &events.concat()].concat();
    let (a, b, c) = (&[OPEN, 0, 0][..], &[OPEN, 1, 0][..], &[OPEN, 2, 0][..]);
    // The same, and 7.5 s to come back.
    let patient: &[u8] = &[128, 255, 0xF2, 0];
    named([
        (
            "lent-while-others-are-silent",
            after(
                usual,
                &[a, b, &[PUSH, 0, 3, 9, SILENT, 0, SILENT, 1, WRITE_ALL, HEARD, 0, PUSH, 0, 1, 9, WRITE_ALL]],
            ),
        ),
        (
            "back-without-an-open",
            after(patient, &[a, b, &[PUSH, 0, 3, 9, WRITE_ALL, LOSE, 0, LOSE, 1, DATA, 0, 0, 0, 1, 4, WRITE_ALL]]),
        ),
        (
            "back-with-a-hole",
            after(
                patient,
                &[
                    a,
                    b,
                    &[LOSE, 0, LOSE, 1, DATA, 0, 0, 2, 0, 4, DATA, 1, 0, 2, 0, 4, WAIT, 0x40, 6],
                    a,
                    &[DATA, 0, 0, 0, 0, 4, DATA, 0, 0, 0, 0, 4, WAIT, 0, 9],
                ],
            ),
        ),
        (
            "closed-until-it-opens",
            after(patient, &[a, b, c, &[LOSE, 0, LOSE, 1, LOSE, 2, WAIT, 0x40, 6, WAIT, 0, 10, WAIT, 0, 10], b]),
        ),
        (
            "another-process-without-links",
            after(
                patient,
                &[
                    a,
                    b,
                    &[DATA, 0, 0, 1, 0, 4, PUSH, 0, 3, 9, WRITE, 0, 30, 0, FREEZE, 7, PUSH, 0, 2, 9],
                    b,
                    &[DATA, 1, 0, 0, 1, 4, WRITE_ALL],
                ],
            ),
        ),
        (
            "another-process-with-all-links",
            after(
                usual,
                &[
                    a,
                    b,
                    &[
                        PUSH, 0, 5, 20, WRITE, 0, 90, 0, FREEZE, 0, CLOSE, 0, FREEZE, 2, WRITE, 0, 9, 0, FREEZE, 0,
                        WRITE_ALL,
                    ],
                ],
            ),
        ),
        ("opens", after(usual, &[a])),
        ("nobody-joins", after(usual, &[a, &[LEAVE, 0, 0, WAIT, 0, 16]])),
        ("two-links-carry-the-same", after(usual, &[a, b, &[PUSH, 0, 5, 20, WRITE_ALL]])),
        ("joins-late", after(usual, &[a, &[PUSH, 0, 5, 20, WRITE_ALL], b, &[WRITE_ALL]])),
        (
            "acknowledged-elsewhere",
            after(
                usual,
                &[a, b, &[PUSH, 0, 6, 20, WRITE, 1, 90, 0, WRITE, 0, 255, 255, DATA, 0, 0, 0, 2, 4, WRITE_ALL]],
            ),
        ),
        (
            "acknowledged-in-a-cut-frame",
            after(
                usual,
                &[
                    a,
                    b,
                    &[
                        PUSH, 0, 3, 60, WRITE, 0, 70, 0, WRITE, 1, 255, 255, DATA, 1, 0, 0, 0, 4, PUSH, 0, 2, 9,
                        WRITE_ALL,
                    ],
                ],
            ),
        ),
        ("pong-overtakes", after(usual, &[a, &[PUSH, 0, 7, 200, WRITE, 0, 50, 0, PING, 0, 3, WRITE_ALL]])),
        ("pongs-without-end", after(usual, &[a, &[PING, 0, 255, WRITE, 0, 20, 0, PING, 0, 255, WRITE_ALL]])),
        ("pong-behind-a-stray-end", after(usual, &[&[STRAY, 0, 2, WRITE, 0, 0, 0, PING, 0, 1, WRITE_ALL]])),
        (
            "unopened-until-the-next-ping",
            after(usual, &[&[STRAY, 0, 0, STRAY, 0, 0, WAIT, 0, 4, PING, 0, 2, PING, 0, 1], a]),
        ),
        (
            "unopened-ahead-of-the-open",
            after(usual, &[&[STRAY, 0, 0], b, &[PING, 0, 1, DATA, 0, 0, 0, 0, 4, WRITE_ALL]]),
        ),
        (
            "unopened-and-refused",
            after(
                usual,
                &[
                    &[a, b, &[CLOSE, 0, WRITE, 1, 255, 255]].concat().repeat(3),
                    &[STRAY, 1, 0],
                    a,
                    &[STRAY, 2, 0, PING, 1, 1, PING, 2, 1, WRITE_ALL],
                ],
            ),
        ),
        ("strays-without-end", after(usual, &[&[STRAY, 1, 255, WRITE, 1, 7, 0, STRAY, 1, 255, WRITE_ALL]])),
        ("out-of-order", after(usual, &[a, &[DATA, 0, 0, 2, 0, 9, DATA, 0, 0, 1, 0, 9, DATA, 0, 0, 0, 0, 9]])),
        ("twice", after(usual, &[a, b, &[DATA, 0, 0, 0, 0, 9, DATA, 1, 0, 255, 0, 9]])),
        ("reorder-limit", after(&[128, 16, 0x32, 0], &[a, &[DATA, 0, 0, 1, 0, 90, DATA, 0, 0, 2, 0, 90]])),
        (
            "unacked-limit",
            after(&[1, 255, 0x32, 0], &[a, &[PUSH, 0, 1, 40, PUSH, 0, 1, 40, WRITE_ALL, DATA, 0, 0, 0, 0, 1]]),
        ),
        ("ack-of-what-was-never-sent", after(usual, &[a, &[ANY_DATA, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 4, WRITE_ALL]])),
        ("last-number", after(usual, &[a, &[ANY_DATA, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 4]])),
        ("game-closes", after(usual, &[a, b, &[PUSH, 0, 3, 9, CLOSE, 0, WRITE, 0, 30, 0, WRITE_ALL]])),
        (
            "joins-what-is-over",
            after(usual, &[a, &[PUSH, 0, 3, 9, CLOSE, 0, WRITE_ALL], &[OPEN, 1, 2, OPEN, 0, 2, WRITE_ALL]]),
        ),
        ("opens-again", after(usual, &[a, &[CLOSE, 0, WRITE_ALL], a, &[PUSH, 0, 1, 9, WRITE_ALL]])),
        (
            "all-links-lost-and-back",
            after(
                usual,
                &[
                    a,
                    b,
                    &[PUSH, 0, 4, 40, WRITE, 0, 33, 0, WRITE, 1, 99, 0, LOSE, 0, LOSE, 1, WAIT, 0, 2],
                    c,
                    &[WRITE_ALL],
                ],
            ),
        ),
        ("all-links-lost-too-long", after(usual, &[a, &[LOSE, 0, WAIT, 0, 16], b])),
        ("join-before-leave", after(usual, &[a, b, &[LEAVE, 0, 0, DATA, 1, 0, 0, 0, 9]])),
        ("leave-before-join", after(usual, &[a, &[LEAVE, 0, 0, WAIT, 100, 0], b, &[DATA, 1, 0, 0, 0, 9]])),
        ("leaves-in-a-cut-frame", after(usual, &[a, &[PUSH, 0, 2, 40, WRITE, 0, 50, 0, LEAVE, 0, 0], a, &[WRITE_ALL]])),
        ("breaks", after(usual, &[a, b, &[PUSH, 0, 5, 60, BREAK, 0, 100, WRITE_ALL]])),
        ("another-player", after(usual, &[a, &[FOREIGN, 0, PUSH, 0, 1, 9, CLOSE, 0, WRITE_ALL, FOREIGN, 0]])),
        ("joins-after-the-grace", after(usual, &[a, &[CLOSE, 0, WRITE_ALL, WAIT, 200, 0, OPEN, 1, 2, PUSH, 0, 1, 9]])),
        (
            "carried-by-one-that-lags",
            after(usual, &[a, b, &[CLOSE, 0, WRITE, 0, 255, 0, WAIT, 200, 0, OPEN, 2, 2, OPEN, 1, 2, WRITE_ALL]]),
        ),
        (
            "game-takes-nothing",
            after(usual, &[a, &[GAME_TAKES, 0, 0], &[DATA, 0, 0, 0, 0, 255].repeat(17), &[WRITE_ALL]]),
        ),
        (
            "too-many-on-one-link",
            // Each session ends over the second link, so that the first still has its end to tell.
            after(usual, &[&[a, b, &[CLOSE, 0, WRITE, 1, 255, 255]].concat().repeat(3), a, &[WRITE_ALL], a]),
        ),
        (
            "two-sessions-take-turns",
            after(usual, &[a, &[OPEN, 0, 1, PUSH, 0, 7, 100, PUSH, 1, 2, 9, WRITE, 0, 44, 1, CLOSE, 1, WRITE_ALL]]),
        ),
        (
            "game-takes-little",
            after(usual, &[a, &[DATA, 0, 0, 0, 0, 90, GAME_TAKES, 0, 7, DATA, 0, 0, 0, 0, 90, GAME_TAKES, 0, 99]]),
        ),
        (
            "paced",
            after(
                &[128, 255, 0x32, 20],
                &[a, &[DATA, 0, 0, 0, 0, 9].repeat(12), &[GAME_TAKES, 0, 255, WAIT, 100, 0, GAME_TAKES, 0, 255]],
            ),
        ),
    ])
}

/// Logins of clients, what is just none, and answers: behind the choices of how they are told.
pub fn login() -> Seeds {
    let known = include_str!("../../../crates/protocol/src/login/fixtures/logins.txt");
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len()).step_by(2).filter_map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect()
    };
    let logins = known.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let [version, client, login, ..] = line.split(' ').collect::<Vec<_>>()[..] else { return None };
        Some((format!("login-{version}-{client}"), bytes(login)))
    });
    let text = |text: &str| [&(text.len() as u16).to_le_bytes()[..], text.as_bytes()].concat();
    let packet = |body: Vec<u8>| [&(body.len() as u16).to_le_bytes()[..], &body].concat();
    let old = [&[0x64, 1][..], &text("Knight"), &text("World"), &[203, 0, 113, 9, 4, 28, 0, 0]].concat();
    let new =
        [&[0x64, 1, 0][..], &text("World"), &text("203.0.113.9"), &[4, 28, 0, 1, 0], &text("Knight"), &[0; 6]].concat();
    // The version by its place, no checksum, no key, one edge, an OTCv8 or not, and the words of worlds.
    let told = |version: u8, otcv8: u8, worlds: u8, answer: &[u8]| {
        [&[version, 0, 0, 1, 0, 250, 27, 0, 0, otcv8, worlds][..], answer].concat()
    };
    let answers = [
        ("nothing", Vec::new()),
        ("old", told(0, 1, 0, &packet(old.clone()))),
        ("old-other", told(2, 0, 0, &packet(old))),
        ("new", told(7, 1, 0, &packet(new.clone()))),
        ("new-other", told(7, 0, 2, &packet(new.clone()))),
        ("new-listed", told(7, 1, 0, &packet([&new[..], &[0x6E, 1], &text("own"), &[1, 2, 3, 4]].concat()))),
        ("refused", told(7, 1, 0, &packet([&[0x0B][..], &text("No.")].concat()))),
        ("too-long", told(7, 1, 0, &[0xFF, 0xFF, 0x64])),
    ];
    logins.chain(answers.map(|(name, bytes)| (name.to_owned(), bytes))).collect()
}

/// Requests of known clients, what is just none, and answers: behind a byte that says to what.
pub fn status() -> Seeds {
    let packet = |body: &[u8]| [&(body.len() as u16).to_le_bytes()[..], body].concat();
    let strings = |texts: &[&str]| -> Vec<u8> { texts.iter().flat_map(|text| packet(text.as_bytes())).collect() };
    let server = packet(&[&[0x10][..], &strings(&["A", "10.0.0.1", "7171"]), b"\x20\x03\0\0\0"].concat());
    let to_xml = |text: &str| [&[0][..], text.as_bytes()].concat();
    let to_json = |text: &str| [&[1][..], text.as_bytes()].concat();
    named([
        ("nothing", Vec::new()),
        ("xml", b"\x06\0\xFF\xFFinfo".to_vec()),
        ("json", b"\x06\0\xFF\xFFjson".to_vec()),
        ("xml-cut", b"\x06\0\xFF\xFFinf".to_vec()),
        ("xml-and-more", b"\x0A\0\xFF\xFFinfomore".to_vec()),
        ("xml-with-checksum", b"\x0A\0\xAB\x03\x24\x0F\xFF\xFFinfo".to_vec()),
        ("other-word", b"\x06\0\xFF\xFFquit".to_vec()),
        ("parts", b"\x04\0\xFF\x01\x29\0".to_vec()),
        ("parts-in-a-byte", b"\x03\0\xFF\x01\x20".to_vec()),
        ("parts-with-name", b"\x09\0\xFF\x01\x40\0\x03\0Bob".to_vec()),
        ("too-long", b"\xFF\xFF\xFF\x01\0\0\0\0".to_vec()),
        ("login", [&b"\x95\0\xAB\xCD\x12\x34\x01\x02\0"[..], &[7; 142]].concat()),
        ("http", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("xml-answer", to_xml("<tsqp><serverinfo uptime=\"1\" ip=\"10.0.0.1\" port='1' x = \"a>b\"/></tsqp>")),
        ("xml-answer-twice", to_xml("<serverinfo ip='1' ip='2' port='3'><serverinfo ip='4'/>")),
        ("xml-answer-cut", to_xml("<serverinfo ip='10.0.0.1")),
        ("xml-answer-unquoted", to_xml("<serverinfo ip=1/>")),
        ("json-answer", to_json("{\"serverinfo\":{\"ip\":\"10.0.0.1\",\"port\":1},\"motd\":\"\\u00fc\"}")),
        ("json-answer-deep", to_json(&"[".repeat(200))),
        ("parts-answer", [&[2, 1][..], &server].concat()),
        ("parts-answer-cut", [&[2, 1][..], &server[..12]].concat()),
    ])
}

/// Each kind of frame of a trunk, to the core and to an edge, and what ends one.
pub fn trunk() -> Seeds {
    let frame = |kind: FrameKind, stream: u32, payload: &[u8]| {
        let length = (payload.len() as u16).to_le_bytes();
        [&length[..], &[kind as u8], &stream.to_le_bytes(), payload].concat()
    };
    let open = |stream| {
        let mut header = Vec::new();
        let [player, edge] = ["192.0.2.7:50001", "198.51.100.1:7162"].map(|text| text.parse().expect("an address"));
        write_v2_to(&mut header, player, edge, Some("links"));
        frame(FrameKind::Open, stream, &header)
    };
    let hello = Hello {
        version: VERSION,
        software: "0.1.0".to_owned(),
        credit: CREDIT,
        workers: 2,
        wish: None,
        owner: Some(CoreWorkers { worker: 1, key: [7; 16] }),
        links: vec!["links".to_owned()],
    };
    let data = frame(FrameKind::Data, 1, b"first words");
    let longest = frame(FrameKind::Data, 1, &[7; MAX_DATA]);
    let to_core = named([
        ("nothing", Vec::new()),
        ("open-and-data", [open(1), data.clone(), frame(FrameKind::End, 1, &[])].concat()),
        ("two-streams", [open(1), open(2), data.clone(), frame(FrameKind::Data, 2, b"other words")].concat()),
        ("reset-and-late-data", [open(1), frame(FrameKind::Reset, 1, &[3]), data.clone()].concat()),
        ("more-than-credit", [open(1), longest.repeat(5)].concat()),
        ("data-behind-the-end", [open(1), frame(FrameKind::End, 1, &[]), data.clone()].concat()),
        ("open-of-nobody", frame(FrameKind::Open, 1, b"no header")),
        ("out-of-turn", [open(2), open(1)].concat()),
        ("ping", frame(FrameKind::Ping, 0, &[9; 8])),
        ("go-away", frame(FrameKind::GoAway, 0, &[])),
        ("skipped", vec![3, 0, 200, 0, 0, 0, 0, 1, 2, 3]),
        ("unknown-kind", vec![0, 0, 77, 0, 0, 0, 0]),
        ("too-long", vec![0xFF, 0xFF, 6, 1, 0, 0, 0]),
        ("hello", hello.to_frame()),
        ("hello-of-an-edge", Hello { wish: Some(1), owner: None, links: Vec::new(), ..hello.clone() }.to_frame()),
        ("hello-cut", hello.to_frame().split_at(20).0.to_vec()),
    ]);
    // There one stream is open from the start.
    let to_edge = named([
        ("edge-data", [data.clone(), frame(FrameKind::Credit, 1, &9u32.to_le_bytes())].concat()),
        ("edge-reset", [data.clone(), frame(FrameKind::Reset, 1, &[1])].concat()),
        ("edge-pong", frame(FrameKind::Pong, 0, &[9; 8])),
        ("edge-open", open(1)),
        ("edge-credit-of-nothing", frame(FrameKind::Credit, 9, &[0; 4])),
        ("edge-much-read", longest.repeat(6)),
    ]);
    let sides = [(1, to_core), (0, to_edge)];
    sides
        .into_iter()
        .flat_map(|(side, seeds)| {
            seeds.into_iter().flat_map(move |(name, bytes)| {
                [("", WHOLE), ("-bytewise", BYTEWISE)]
                    .map(|(how, pieces)| (format!("{name}{how}"), [pieces, &[side], &bytes].concat()))
            })
        })
        .collect()
}

pub fn http_login() -> Seeds {
    let answer =
        |rest: &str| format!("\0{{\"session\":{{\"sessionkey\":\"k\"}},\"playdata\":{{{rest}}}}}").into_bytes();
    let world =
        "{\"id\":0,\"externaladdress\":\"192.0.2.1\",\"externalport\":7172,\"externaladdressprotected\":\"192.0.2.1\"}";
    let worlds =
        |worlds: &str| answer(&format!("\"worlds\":[{worlds}],\"characters\":[{{\"worldid\":0,\"name\":\"A\"}}]"));
    let to_edge = |mut bytes: Vec<u8>| {
        bytes[0] = 1;
        bytes
    };
    let text = |text: &str| [&[0], text.as_bytes()].concat();
    named([
        ("nothing", Vec::new()),
        ("answer", worlds(world)),
        ("answer-to-edge", to_edge(worlds(world))),
        ("answer-two-worlds", worlds(&[world, world].join(","))),
        (
            "answer-spaced",
            text("{ \"playdata\" :\r\n{\t\"worlds\" : [ {\"externaladdress\" : \"a\" } ] } , \"session\":{ } }\n"),
        ),
        ("answer-escaped-keys", worlds("{\"\\u0065xternaladdress\":\"a\",\"externaladdress\":\"b\"}")),
        ("answer-numbers", worlds(&format!("{world},{{\"a\":1e999,\"b\":123456789012345678901234567890.10}}"))),
        ("answer-address-null", worlds("{\"externaladdress\":null}")),
        ("answer-no-worlds", worlds("")),
        ("answer-world-number", worlds("1")),
        ("answer-worlds-null", answer("\"worlds\":null")),
        ("answer-no-list", answer(&format!("\"proxies\":[],\"worlds\":[{world}]"))),
        (
            "answer-of-otcv8",
            text(
                "{\"error\":\"\",\"session\":\"k\",\"characters\":[{\"name\":\"A\",\"worldIp\":\"192.0.2.1\",\"worldPort\":7172}],\"proxies\":null}",
            ),
        ),
        ("answer-listed", answer(&format!("\"worlds\":[{world}],\"proxies\":[1]"))),
        ("answer-deep", worlds(&format!("{world},{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200)))),
        ("answer-cut", worlds(world)[..80].to_vec()),
        ("error", text("{\"errorCode\":3,\"errorMessage\":\"Account name or password is not correct.\"}")),
        ("cacheinfo", text("{\"playersonline\":12,\"twitchstreams\":0}")),
        ("html", text("<html></html>")),
        (
            "request-otcv8",
            text(
                "{\"type\":\"login\",\"account\":\"n\",\"email\":\"n\",\"password\":\"p\",\"accountpassword\":\"p\",\"token\":\"\"}",
            ),
        ),
        (
            "request-redemption",
            text("{\"email\":\"n\",\"password\":\"p\",\"stayloggedin\":true,\"token\":\"1\",\"type\":\"login\"}"),
        ),
        ("request-official", text("{\"clientversion\":\"13\",\"email\":\"n\",\"password\":\"p\",\"type\":\"login\"}")),
        ("request-cacheinfo", text("{\"type\":\"cacheinfo\"}")),
    ])
}

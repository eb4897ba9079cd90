//! Tests of both sides of a trunk against each other, and against bytes that no side sends.

use std::collections::HashMap;
use std::io::IoSlice;
use std::net::SocketAddr;

use proptest::prelude::*;

use super::frame::{self, FrameKind};
use super::*;
use crate::frame::ClientId;

fn request(listener: &str) -> OpenRequest {
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    OpenRequest {
        listener: listener.to_owned(),
        player: address("192.0.2.7:50001"),
        destination: address("198.51.100.1:7162"),
    }
}

fn pair() -> (TrunkMachine<()>, TrunkMachine<()>) {
    (TrunkMachine::new(Side::Edge, CREDIT), TrunkMachine::new(Side::Core, CREDIT))
}

/// Moves all that one side has to write to the other; returns its events. The core accepts whatever is opened.
fn pump(from: &mut TrunkMachine<()>, to: &mut TrunkMachine<()>) -> Vec<TrunkEvent> {
    let bytes = from.outgoing().to_vec();
    from.written(bytes.len());
    take_all(to, &bytes).unwrap()
}

fn take_all(to: &mut TrunkMachine<()>, mut bytes: &[u8]) -> Result<Vec<TrunkEvent>, TrunkError> {
    let mut events = Vec::new();
    while let Some(event) = to.receive(&mut bytes)? {
        if let TrunkEvent::Open(id, _) = &event {
            to.accept(*id, ());
        }
        events.push(event);
    }
    assert!(bytes.is_empty(), "{} bytes are left", bytes.len());
    Ok(events)
}

fn send(on: &mut TrunkMachine<()>, id: StreamId, bytes: &[u8]) -> usize {
    on.send(id, &[IoSlice::new(bytes)]).unwrap()
}

fn read(on: &mut TrunkMachine<()>, id: StreamId) -> Vec<u8> {
    let mut all = vec![0; 2 * CREDIT as usize];
    let Received::Bytes(count) = on.read(id, &mut all) else { return Vec::new() };
    all.truncate(count);
    all
}

/// Makes a frame, of any content.
fn frame_of(kind: FrameKind, stream: u32, payload: &[u8]) -> Vec<u8> {
    [&frame::header(kind, StreamId(stream), payload.len())[..], payload].concat()
}

#[test]
fn a_stream_begins_talks_and_ends_in_both_directions() {
    let (mut edge, mut core) = pair();
    let id = edge.open(&request("links"), ()).unwrap();
    assert_eq!(send(&mut edge, id, b"first words"), 11);
    edge.end(id);
    let events = pump(&mut edge, &mut core);
    let readable = TrunkEvent::Readable(id);
    assert_eq!(events, [TrunkEvent::Open(id, request("links")), readable.clone(), readable.clone()]);
    assert_eq!(read(&mut core, id), b"first words");
    assert_eq!(core.read(id, &mut [0; 9]), Received::End);
    assert_eq!(send(&mut core, id, b"and an answer"), 13, "the other direction goes on");
    core.end(id);
    assert_eq!(core.send(id, &[IoSlice::new(b"more")]), Err(ResetReason::Aborted));
    core.reset(id, ResetReason::Aborted);
    assert_eq!(pump(&mut core, &mut edge), [readable.clone(), readable], "it is over, and so not reset");
    assert_eq!(read(&mut edge, id), b"and an answer");
    assert_eq!(edge.read(id, &mut [0; 9]), Received::End);
    edge.reset(id, ResetReason::Aborted);
    assert!(edge.is_empty() && core.is_empty() && edge.outgoing().is_empty());
}

#[test]
fn credit_stops_one_stream_and_no_other() {
    let (mut edge, mut core) = pair();
    let [full, other] = [0; 2].map(|_| edge.open(&request("links"), ()).unwrap());
    let bytes = vec![7; 3 * CREDIT as usize];
    let mut sent = 0;
    loop {
        let taken = send(&mut edge, full, &bytes[sent..]);
        assert!(taken <= QUANTUM);
        sent += taken;
        pump(&mut edge, &mut core);
        let mut given = 0;
        let waits = edge.next_writer(&mut given);
        assert_eq!(waits, (taken > 0 && sent < CREDIT as usize).then_some(full));
        if waits.is_none() {
            break;
        }
    }
    assert_eq!(sent, CREDIT as usize);
    assert_eq!(send(&mut edge, full, b"x"), 0);
    assert_eq!(send(&mut edge, other, b"x"), 1);
    pump(&mut edge, &mut core);
    assert_eq!((read(&mut core, full).len(), read(&mut core, other).len()), (CREDIT as usize, 1));
    assert_eq!(pump(&mut core, &mut edge), [TrunkEvent::Writable(full)], "one byte is not worth a frame");
    assert_eq!(send(&mut edge, full, b"x"), 1);
}

#[test]
fn a_stream_has_its_turn_and_then_others_have_theirs() {
    let (mut edge, mut core) = pair();
    let ids: Vec<_> = (0..20).map(|_| edge.open(&request("links"), ()).unwrap()).collect();
    pump(&mut edge, &mut core);
    let bytes = vec![7; CREDIT as usize];
    let taken: Vec<_> = ids.iter().map(|id| send(&mut edge, *id, &bytes)).collect();
    assert!(taken[..7].iter().all(|taken| *taken == QUANTUM), "{taken:?}");
    assert!(taken[8..].iter().all(|taken| *taken == 0), "{taken:?}");
    assert!(edge.outgoing().len() < MAX_UNSENT + QUANTUM);
    let mut order = Vec::new();
    while edge.has_waiting() && order.len() < 40 {
        pump(&mut edge, &mut core);
        let mut given = 0;
        while let Some(id) = edge.next_writer(&mut given) {
            assert!(send(&mut edge, id, &bytes) > 0);
            order.push(id);
        }
    }
    assert_eq!(order[..20], ids);
    assert_eq!(order[20..40], ids);
}

#[test]
fn a_reset_tells_the_reason_and_what_comes_behind_it_is_nothing() {
    let (mut edge, mut core) = pair();
    let id = edge.open(&request("links"), ()).unwrap();
    pump(&mut edge, &mut core);
    core.reset(id, ResetReason::WrongWorker);
    // On their way meanwhile.
    send(&mut edge, id, b"late");
    edge.end(id);
    let on_their_way = pump(&mut edge, &mut core);
    assert!(on_their_way.is_empty() && core.is_empty());
    assert_eq!(pump(&mut core, &mut edge), [TrunkEvent::Writable(id)]);
    assert_eq!(edge.read(id, &mut [0; 9]), Received::Reset(ResetReason::WrongWorker));
    assert_eq!(edge.send(id, &[IoSlice::new(b"x")]), Err(ResetReason::Aborted));
    edge.reset(id, ResetReason::Aborted);
    assert!(edge.is_empty() && edge.outgoing().is_empty(), "it is not answered");
    assert_eq!(ResetReason::from_wire(200), ResetReason::Aborted);
}

#[test]
fn a_ping_is_answered_once_and_a_flood_of_them_takes_no_memory() {
    let (mut edge, mut core) = pair();
    (0..100_000).for_each(|token| {
        edge.ping(token);
        pump(&mut edge, &mut core);
    });
    assert_eq!(pump(&mut core, &mut edge), [TrunkEvent::Pong(99_999)]);
    core.go_away();
    assert_eq!(pump(&mut core, &mut edge), [TrunkEvent::GoAway]);
}

#[test]
fn what_no_side_sends_ends_the_trunk() {
    let open = |id| {
        let mut edge = TrunkMachine::<()>::new(Side::Edge, CREDIT);
        let _ = edge.open(&request("links"), ());
        let mut frame = edge.outgoing().to_vec();
        frame[3..7].copy_from_slice(&u32::to_le_bytes(id));
        frame
    };
    let data = |stream, count| frame_of(FrameKind::Data, stream, &vec![0; count]);
    let full = data(1, MAX_DATA).repeat(CREDIT as usize / MAX_DATA);
    for (bytes, error) in [
        (data(1, 1), TrunkError::UnknownStream(1)),
        (data(0, 1), TrunkError::UnknownStream(0)),
        (frame_of(FrameKind::Credit, 9, &[0; 4]), TrunkError::UnknownStream(9)),
        (frame_of(FrameKind::End, 9, &[]), TrunkError::UnknownStream(9)),
        (frame_of(FrameKind::Reset, 9, &[0]), TrunkError::UnknownStream(9)),
        ([open(5), open(5)].concat(), TrunkError::OutOfTurn(5)),
        ([open(5), open(4)].concat(), TrunkError::OutOfTurn(4)),
        (open(0), TrunkError::Malformed(FrameKind::Open)),
        ([open(1), full, data(1, 1)].concat(), TrunkError::Overrun(1)),
        ([open(1), frame_of(FrameKind::End, 1, &[]), data(1, 1)].concat(), TrunkError::Overrun(1)),
        ([open(1), frame_of(FrameKind::End, 1, &[]).repeat(2)].concat(), TrunkError::Malformed(FrameKind::End)),
        ([open(1), frame_of(FrameKind::End, 1, &[0])].concat(), TrunkError::Malformed(FrameKind::End)),
        (frame_of(FrameKind::GoAway, 0, &[0]), TrunkError::Malformed(FrameKind::GoAway)),
        ([open(1), frame_of(FrameKind::Credit, 1, &[0; 3])].concat(), TrunkError::Malformed(FrameKind::Credit)),
        ([open(1), frame_of(FrameKind::Reset, 1, &[])].concat(), TrunkError::Malformed(FrameKind::Reset)),
        (frame_of(FrameKind::Ping, 0, &[0; 7]), TrunkError::Malformed(FrameKind::Ping)),
        (frame_of(FrameKind::Ping, 1, &[0; 8]), TrunkError::Malformed(FrameKind::Ping)),
        (frame_of(FrameKind::Pong, 0, &[]), TrunkError::Malformed(FrameKind::Pong)),
        (frame_of(FrameKind::Hello, 0, &[]), TrunkError::Malformed(FrameKind::Hello)),
        (vec![0, 0, 77, 0, 0, 0, 0], TrunkError::UnknownKind(77)),
        (vec![0xFF, 0xFF, 6, 1, 0, 0, 0], TrunkError::TooLong(0xFFFF)),
        (vec![1, 4, 5, 1, 0, 0, 0], TrunkError::TooLong(0x401)),
    ] {
        for piece in [1, bytes.len()] {
            let mut core = TrunkMachine::new(Side::Core, CREDIT);
            let result = bytes.chunks(piece).try_for_each(|piece| take_all(&mut core, piece).map(drop));
            assert_eq!(result, Err(error), "in pieces of {piece}");
        }
    }
    let mut edge = TrunkMachine::<()>::new(Side::Edge, CREDIT);
    assert_eq!(take_all(&mut edge, &open(1)), Err(TrunkError::Malformed(FrameKind::Open)));
}

#[test]
fn an_opening_about_nobody_is_refused_and_the_trunk_goes_on() {
    let mut core = TrunkMachine::<()>::new(Side::Core, CREDIT);
    let mut nobody = Vec::new();
    nobody.extend_from_slice(&frame_of(FrameKind::Open, 1, crate::proxy_header::LOCAL));
    nobody.extend_from_slice(&frame_of(FrameKind::Open, 2, b"hello"));
    nobody.extend_from_slice(&frame_of(FrameKind::Data, 2, b"more"));
    let refused = [1, 2].map(|id| TrunkEvent::BadOpen(StreamId(id)));
    assert_eq!(take_all(&mut core, &nobody), Ok(refused.to_vec()));
    let refusal = |id| frame_of(FrameKind::Reset, id, &[ResetReason::BadHeader.to_wire()]);
    assert_eq!(core.outgoing(), [refusal(1), refusal(2)].concat());
}

#[test]
fn kinds_of_later_versions_are_skipped() {
    let mut core = TrunkMachine::<()>::new(Side::Core, CREDIT);
    let mut later = vec![200, 0, 130, 0, 0, 0, 0];
    later.extend_from_slice(&[6; 200]);
    later.extend_from_slice(&frame_of(FrameKind::GoAway, 0, &[]));
    for piece in [1, 3, later.len()] {
        let events: Vec<_> = later.chunks(piece).flat_map(|piece| take_all(&mut core, piece).unwrap()).collect();
        assert_eq!(events, [TrunkEvent::GoAway]);
    }
}

#[test]
fn who_asks_and_takes_no_answers_is_bounded() {
    let mut core = TrunkMachine::<()>::new(Side::Core, CREDIT);
    let flood = (1..=200_000).flat_map(|id| frame_of(FrameKind::Open, id, b"nobody"));
    let flood: Vec<_> = flood.collect();
    assert_eq!(take_all(&mut core, &flood), Err(TrunkError::Unanswered));
    assert!(core.outgoing().len() < MAX_QUEUED + MAX_UNSENT);
}

#[test]
fn hellos_are_read_as_they_were_written() {
    let hello = Hello {
        version: VERSION,
        software: "1.2.3".to_owned(),
        credit: CREDIT,
        workers: 4,
        wish: Some(2),
        owner: Some(CoreWorkers { worker: 3, key: [9; 16] }),
        links: vec!["links".to_owned(), "more-links".to_owned()],
    };
    let frame = hello.to_frame();
    for cut in 0..frame.len() {
        assert_eq!(Hello::parse(&frame[..cut]), Ok(None), "{cut}");
    }
    let more = [&frame[..], b"more"].concat();
    assert_eq!(Hello::parse(&more), Ok(Some((hello.clone(), frame.len()))));
    let many = Hello { owner: None, links: vec!["l".repeat(200); 100], ..hello.clone() };
    let (read, _) = Hello::parse(&many.to_frame()).unwrap().unwrap();
    assert_eq!(read, Hello { links: vec!["l".repeat(200); 39], ..many }, "as many as there is room for");

    let malformed = Err(TrunkError::Malformed(FrameKind::Hello));
    assert_eq!(Hello::parse(b"\r\n\r\n"), malformed, "of the version before");
    assert_eq!(Hello::parse(&frame_of(FrameKind::Ping, 0, &[0; 8])), malformed);
    assert_eq!(Hello::parse(&frame_of(FrameKind::Hello, 0, &[])), malformed, "without a version");
    assert_eq!(Hello::parse(&frame_of(FrameKind::Hello, 0, &[1, 0, 9])), malformed);
    assert_eq!(Hello::parse(&frame_of(FrameKind::Hello, 0, &[1, 0, 9, 0, 1])), malformed);
    let nowhere = Hello { owner: Some(CoreWorkers { worker: 4, key: [9; 16] }), ..hello };
    assert_eq!(Hello::parse(&nowhere.to_frame()), malformed);
}

/// A step of the random exchange.
#[derive(Debug, Clone)]
enum Step {
    Open,
    Send { edge: bool, stream: usize, len: usize },
    Read { edge: bool, stream: usize, len: usize },
    End { edge: bool, stream: usize },
    Drop { edge: bool, stream: usize },
    Carry { edge: bool, len: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (side, stream) = (any::<bool>, || 0..8_usize);
    let step = prop_oneof![
        2 => Just(Step::Open),
        6 => (side(), stream(), 1..20_000_usize).prop_map(|(edge, stream, len)| Step::Send { edge, stream, len }),
        6 => (side(), stream(), 1..20_000_usize).prop_map(|(edge, stream, len)| Step::Read { edge, stream, len }),
        1 => (side(), stream()).prop_map(|(edge, stream)| Step::End { edge, stream }),
        1 => (side(), stream()).prop_map(|(edge, stream)| Step::Drop { edge, stream }),
        8 => (side(), 1..30_000_usize).prop_map(|(edge, len)| Step::Carry { edge, len }),
    ];
    prop::collection::vec(step, 1..200)
}

/// The bytes of one direction of a stream, as a model has them.
#[derive(Debug, Default)]
struct Direction {
    sent: usize,
    read: usize,
    ended: bool,
    /// The sender or the reader has gone.
    cut: bool,
}

/// Two sides, with a model of their streams: each byte tells its place in its stream.
struct Exchange {
    sides: [TrunkMachine<()>; 2],
    streams: Vec<StreamId>,
    model: HashMap<(bool, StreamId), Direction>,
}

impl Exchange {
    fn side(&mut self, edge: bool) -> &mut TrunkMachine<()> {
        &mut self.sides[usize::from(!edge)]
    }

    fn direction(&mut self, from_edge: bool, id: StreamId) -> &mut Direction {
        self.model.entry((from_edge, id)).or_default()
    }

    fn carry(&mut self, from_edge: bool, len: usize) {
        let out = self.side(from_edge).outgoing();
        let part = out[..len.min(out.len())].to_vec();
        self.side(from_edge).written(part.len());
        take_all(self.side(!from_edge), &part).unwrap();
        while self.side(from_edge).next_writer(&mut 0).is_some() {}
    }

    fn send(&mut self, edge: bool, id: StreamId, len: usize) {
        let at = self.direction(edge, id).sent;
        let bytes: Vec<u8> = (at..at + len).map(|place| place as u8).collect();
        let (front, back) = bytes.split_at(len / 3);
        if let Ok(count) = self.side(edge).send(id, &[IoSlice::new(front), IoSlice::new(back)]) {
            assert!(count <= QUANTUM);
            self.direction(edge, id).sent += count;
        }
    }

    fn read(&mut self, edge: bool, id: StreamId, len: usize) -> bool {
        let mut buffer = vec![0; len];
        match self.side(edge).read(id, &mut buffer) {
            Received::Bytes(count) => {
                let direction = self.direction(!edge, id);
                let right = (direction.read..).zip(&buffer[..count]).all(|(place, byte)| place as u8 == *byte);
                direction.read += count;
                assert!(right && direction.read <= direction.sent);
                return true;
            }
            Received::End => {
                let direction = self.direction(!edge, id);
                assert!(direction.ended && direction.read == direction.sent, "{direction:?}");
            }
            Received::Reset(_) => assert!(self.direction(edge, id).cut || self.direction(!edge, id).cut),
            Received::Nothing => {}
        }
        false
    }

    fn take(&mut self, step: &Step) {
        let id = |stream: &usize, streams: &[StreamId]| streams.get(*stream).copied();
        match step {
            Step::Open => {
                if self.streams.len() < 8 {
                    let id = self.side(true).open(&request("links"), ()).unwrap();
                    self.streams.push(id);
                }
            }
            Step::Carry { edge, len } => self.carry(*edge, *len),
            Step::Send { edge, stream, len } => {
                let Some(id) = id(stream, &self.streams) else { return };
                if !self.direction(*edge, id).ended && self.side(*edge).stream(id).is_some() {
                    self.send(*edge, id, *len);
                }
            }
            Step::Read { edge, stream, len } => {
                let Some(id) = id(stream, &self.streams) else { return };
                if self.side(*edge).stream(id).is_some() {
                    self.read(*edge, id, *len);
                }
            }
            Step::End { edge, stream } => {
                let Some(id) = id(stream, &self.streams) else { return };
                if self.side(*edge).stream(id).is_some() {
                    self.side(*edge).end(id);
                    self.direction(*edge, id).ended = true;
                }
            }
            Step::Drop { edge, stream } => {
                let Some(id) = id(stream, &self.streams) else { return };
                if self.side(*edge).stream(id).is_some() {
                    self.side(*edge).reset(id, ResetReason::Aborted);
                    self.direction(*edge, id).cut = true;
                    self.direction(!*edge, id).cut = true;
                }
            }
        }
    }

    /// Carries and reads until nothing moves.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            for edge in [true, false] {
                moved |= !self.side(edge).outgoing().is_empty();
                self.carry(edge, usize::MAX);
                for id in self.streams.clone() {
                    while self.side(edge).stream(id).is_some() && self.read(edge, id, 50_000) {
                        moved = true;
                    }
                }
            }
            if !moved {
                return;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_byte_arrives_once_and_in_its_place(steps in steps()) {
        let (edge, core) = pair();
        let mut exchange = Exchange { sides: [edge, core], streams: Vec::new(), model: HashMap::new() };
        for step in &steps {
            exchange.take(step);
        }
        exchange.settle();
        for ((_, id), direction) in &exchange.model {
            prop_assert!(direction.cut || direction.read == direction.sent, "{:?} {:?}", id, direction);
        }
        // After all that was sent was read, each stream takes more.
        for id in exchange.streams.clone() {
            for edge in [true, false] {
                let ended = exchange.direction(edge, id).ended || exchange.direction(edge, id).cut;
                if !ended {
                    let before = exchange.direction(edge, id).sent;
                    exchange.send(edge, id, 100);
                    prop_assert_eq!(exchange.direction(edge, id).sent, before + 100);
                    exchange.settle();
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_an_error_or_bounded(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
        let mut core = TrunkMachine::new(Side::Core, CREDIT);
        let mut rest = &bytes[..];
        while let Ok(Some(event)) = core.receive(&mut rest) {
            if let TrunkEvent::Open(id, _) = event {
                core.accept(id, ());
            }
        }
        prop_assert!(core.outgoing().len() <= 2 * bytes.len() + 16);
        let _ = Hello::parse(&bytes);
    }
}

#[test]
fn each_client_has_one_worker_and_workers_have_about_as_many() {
    let hello = |worker| Hello {
        version: VERSION,
        software: String::new(),
        credit: CREDIT,
        workers: 4,
        wish: None,
        owner: Some(CoreWorkers { worker, key: [7; 16] }),
        links: Vec::new(),
    };
    let mut clients = [0; 4];
    for client in (0..4000).map(ClientId) {
        let owners: Vec<_> = (0..4).filter(|worker| hello(*worker).is_for(client)).collect();
        assert_eq!(owners, [CoreWorkers::owner([7; 16], 4, client)]);
        clients[usize::from(owners[0])] += 1;
    }
    assert!(clients.iter().all(|count| (900..1100).contains(count)), "{clients:?}");
    assert_eq!(CoreWorkers::owner([7; 16], 0, ClientId(1)), 0);
    assert!(Hello { owner: None, ..hello(0) }.is_for(ClientId(1)));
}

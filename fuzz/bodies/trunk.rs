//! Trunks: any cut of what the other side sends yields the same streams, and no bytes of it take more memory than credit allows.

use std::collections::BTreeMap;

use arbitrary::Unstructured;
use otproxy_protocol::trunk::{
    CREDIT, Hello, MAX_DATA, OpenRequest, Received, ResetReason, Side, StreamId, TrunkError, TrunkEvent, TrunkMachine,
};

use super::pieces::{Pieces, read};

/// Takes [`Pieces`], the side that reads, and what the other side sends after its hello.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(pieces) = Pieces::take(&mut input) else { return };
    let Ok(is_core) = input.arbitrary() else { return };
    let sent = input.take_rest();
    check_hello(&pieces, sent);
    let side = if is_core { Side::Core } else { Side::Edge };
    let whole = Heard::of(side, [sent].into_iter());
    assert_eq!(Heard::of(side, pieces.of(sent)), whole, "{pieces:?}");
    // A reader that takes nothing: the sender is stopped by its credit, or the trunk ends.
    let mut machine = TrunkMachine::new(side, CREDIT);
    let mut rest = sent;
    while let Ok(Some(event)) = machine.receive(&mut rest) {
        if let TrunkEvent::Open(id, _) = event {
            machine.accept(id, ());
        }
        machine.written(machine.queued());
    }
    let mut buffer = vec![0; 2 * CREDIT as usize];
    for id in (1..=machine.len() as u32).map(StreamId) {
        if let Received::Bytes(count) = machine.read(id, &mut buffer) {
            assert!(count <= CREDIT as usize, "{count} bytes of {id:?} were kept");
        }
    }
}

/// All that a side heard, whose streams are read at once.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    opened: Vec<(StreamId, OpenRequest)>,
    bad: Vec<StreamId>,
    bytes: BTreeMap<StreamId, Vec<u8>>,
    ends: BTreeMap<StreamId, Option<ResetReason>>,
    pongs: Vec<u64>,
    gone_away: usize,
    error: Option<TrunkError>,
}

impl Heard {
    fn of<'s>(side: Side, pieces: impl Iterator<Item = &'s [u8]>) -> Self {
        let (mut heard, mut machine) = (Self::default(), TrunkMachine::new(side, CREDIT));
        if side == Side::Edge {
            open(&mut machine, 1);
        }
        for mut piece in pieces {
            loop {
                match machine.receive(&mut piece) {
                    Ok(Some(event)) => heard.hear(&mut machine, event),
                    Ok(None) => break,
                    Err(error) => {
                        heard.error = Some(error);
                        return heard;
                    }
                }
                assert!(machine.queued() < MAX_DATA, "{} bytes of answers to one frame", machine.queued());
                let answers = machine.outgoing().len();
                machine.written(answers);
            }
            assert!(piece.is_empty(), "{} bytes are left", piece.len());
            assert!(machine.len() <= heard.opened.len() + 1);
        }
        heard
    }

    fn hear(&mut self, machine: &mut TrunkMachine<()>, event: TrunkEvent) {
        match event {
            TrunkEvent::Open(id, request) => {
                machine.accept(id, ());
                self.opened.push((id, request));
            }
            TrunkEvent::BadOpen(id) => self.bad.push(id),
            TrunkEvent::Readable(id) | TrunkEvent::Writable(id) => self.read(machine, id),
            TrunkEvent::Pong(token) => self.pongs.push(token),
            TrunkEvent::GoAway => self.gone_away += 1,
        }
    }

    fn read(&mut self, machine: &mut TrunkMachine<()>, id: StreamId) {
        let mut buffer = [0; 1000];
        let end = loop {
            match machine.read(id, &mut buffer) {
                Received::Bytes(count) => self.bytes.entry(id).or_default().extend_from_slice(&buffer[..count]),
                Received::Nothing => return,
                Received::End => break None,
                Received::Reset(reason) => break Some(reason),
            }
        };
        self.ends.insert(id, end);
    }
}

/// Opens streams, as an edge does before it hears of them.
fn open(machine: &mut TrunkMachine<()>, count: usize) {
    let address = |text: &str| text.parse().expect("an address");
    let request = OpenRequest {
        listener: "links".to_owned(),
        player: address("192.0.2.7:50001"),
        destination: address("198.51.100.1:7162"),
    };
    for _ in 0..count {
        let _ = machine.open(&request, ());
    }
    let asked = machine.outgoing().len();
    machine.written(asked);
}

/// Reads hellos off the stream; one that was read says the same when it is written and read again.
fn check_hello(pieces: &Pieces, sent: &[u8]) {
    let longest = 7 + MAX_DATA;
    let whole = read([sent].into_iter(), longest, Hello::parse);
    assert_eq!(read(pieces.of(sent), longest, Hello::parse), whole, "{pieces:?}");
    for hello in whole.0 {
        let frame = hello.to_frame();
        // Fields that came twice, and empty ones, may be written in another number of bytes: then names are missing.
        let (again, len) = Hello::parse(&frame).expect("a hello").expect("a whole one");
        assert_eq!(len, frame.len());
        assert!(hello.links.starts_with(&again.links));
        assert_eq!(Hello { links: Vec::new(), ..again }, Hello { links: Vec::new(), ..hello });
    }
}

//! The model beside which a journal is run, and images of its file.

use std::collections::BTreeMap;
use std::io;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::layout::BUFFER;
use crate::recover::{Source, recover_from};
use crate::tests::Store;
use crate::{
    BLOCK, BLOCK_DATA, Contents, INLINE_IDENTITY, Journal, MAX_IDENTITY, Progress, Record, RecordError, Recovered,
    RecoveredRecord,
};

/// The records that a file should have, by their serials, and the one that read last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    pub records: BTreeMap<u64, RecoveredRecord>,
    pub reader: Option<u64>,
}

/// The bytes of a file.
pub struct Image(pub Vec<u8>);

impl Source for Image {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_exact_at(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        into.copy_from_slice(&self.0[at as usize..at as usize + into.len()]);
        Ok(())
    }
}

/// Returns the state that an image has. Each record must be whole.
pub fn state(image: &Image) -> State {
    state_of(recover_from(image).expect("a journal"), &image.0[BUFFER])
}

/// Returns the state that was found, beside a read buffer with these bytes. Each record must be whole.
pub fn state_of(found: Vec<Recovered>, buffer: &[u8]) -> State {
    let mut state = State::default();
    for Recovered { serial, record, .. } in found {
        let mut record = record.unwrap_or_else(|torn| panic!("record {serial}: {torn}"));
        if let Some(unread) = record.unread.take() {
            assert!(unread == buffer, "the read buffer of {serial}");
            assert_eq!(state.reader.replace(serial), None, "two that read last");
        }
        assert_eq!(state.records.insert(serial, record), None, "{serial} is there twice");
    }
    state
}

/// A part of a change.
#[derive(Debug, Clone)]
pub enum Part {
    Progress(u32),
    Append(usize),
    /// In 256ths of the bytes that are there.
    Acked(u8),
    Partial(usize),
    ExtendPartial(usize),
    ClearPartial,
    Identity(usize),
}

/// A step of the owner. Sessions are picked among those that are there.
#[derive(Debug, Clone)]
pub enum Step {
    Open { identity: usize },
    OpenWith { identity: usize, frames: usize, partial: usize },
    Change { session: usize, parts: Vec<Part>, commit: bool },
    Identify { session: usize, identity: usize },
    Close { session: usize },
    Read { session: usize, bytes: usize },
}

fn len() -> impl Strategy<Value = usize> {
    let near_a_block = (0..40_usize).prop_map(|n| BLOCK_DATA - 20 + n);
    prop_oneof![3 => 0..60_usize, 3 => 60..800_usize, 3 => near_a_block, 1 => 0..3 * BLOCK_DATA]
}

fn identity() -> impl Strategy<Value = usize> {
    prop_oneof![
        4 => 0..INLINE_IDENTITY,
        1 => INLINE_IDENTITY - 1..INLINE_IDENTITY + 2,
        4 => INLINE_IDENTITY..MAX_IDENTITY + 1,
        1 => MAX_IDENTITY + 1..MAX_IDENTITY + 3,
    ]
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        3 => any::<u32>().prop_map(Part::Progress),
        4 => len().prop_map(Part::Append),
        3 => any::<u8>().prop_map(Part::Acked),
        2 => Just(Part::Acked(u8::MAX)),
        2 => len().prop_map(Part::Partial),
        1 => len().prop_map(Part::ExtendPartial),
        1 => Just(Part::ClearPartial),
        1 => identity().prop_map(Part::Identity),
    ]
}

/// Returns steps of any kind.
pub fn step() -> impl Strategy<Value = Step> {
    let session = 0..6_usize;
    let opening = (identity(), len(), len());
    prop_oneof![
        2 => identity().prop_map(|identity| Step::Open { identity }),
        1 => opening.prop_map(|(identity, frames, partial)| Step::OpenWith { identity, frames, partial }),
        9 => (session.clone(), vec(part(), 0..5), prop::bool::weighted(0.9))
            .prop_map(|(session, parts, commit)| Step::Change { session, parts, commit }),
        1 => (session.clone(), identity()).prop_map(|(session, identity)| Step::Identify { session, identity }),
        1 => session.clone().prop_map(|session| Step::Close { session }),
        2 => (session, len()).prop_map(|(session, bytes)| Step::Read { session, bytes }),
    ]
}

/// A journal and its model.
pub struct Pair {
    pub journal: Journal,
    pub sessions: Vec<Record>,
    pub model: State,
    next_serial: u64,
    byte: u8,
}

impl Pair {
    pub fn new(journal: Journal) -> Self {
        Self { journal, sessions: Vec::new(), model: State::default(), next_serial: 1, byte: 0 }
    }

    /// Returns bytes that differ from all that were near.
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let bytes = (0..len).map(|_| {
            self.byte = self.byte.wrapping_mul(5).wrapping_add(113);
            self.byte
        });
        let bytes = bytes.collect();
        self.byte = self.byte.wrapping_add(1);
        bytes
    }

    /// Does a step on both. Returns the error of the journal's, of which the model knows nothing then.
    pub fn step(&mut self, step: &Step) -> Result<(), RecordError> {
        let pick = |session: usize, count: usize| (count > 0).then(|| session % count);
        match step {
            Step::Open { identity } => self.open(*identity, 0, 0),
            Step::OpenWith { identity, frames, partial } => self.open(*identity, *frames, *partial),
            Step::Identify { session, identity } => {
                let Some(at) = pick(*session, self.sessions.len()) else { return Ok(()) };
                let identity = self.bytes(*identity);
                self.journal.identify(&mut self.sessions[at], &identity)?;
                let there = self.model.records.get_mut(&self.sessions[at].serial());
                there.expect("in the model").identity = identity;
                Ok(())
            }
            Step::Close { session } => {
                let Some(at) = pick(*session, self.sessions.len()) else { return Ok(()) };
                let record = self.sessions.swap_remove(at);
                self.model.records.remove(&record.serial());
                self.model.reader = self.model.reader.filter(|reader| *reader != record.serial());
                self.journal.close(record);
                Ok(())
            }
            Step::Read { session, bytes } => {
                let Some(at) = pick(*session, self.sessions.len()) else { return Ok(()) };
                let read = self.bytes(*bytes);
                let buffer = self.journal.buffer_for(&self.sessions[at]);
                // As the kernel does it.
                buffer[..read.len()].copy_from_slice(&read);
                assert!(self.journal.read(read.len()) == read);
                if let Some(trace) = &mut self.journal.memory().trace {
                    trace.push(Store::Bytes { at: BUFFER.start, bytes: read });
                }
                self.model.reader = Some(self.sessions[at].serial());
                Ok(())
            }
            Step::Change { session, parts, commit } => {
                let Some(at) = pick(*session, self.sessions.len()) else { return Ok(()) };
                let serial = self.sessions[at].serial();
                let mut after = self.model.records[&serial].clone();
                let fill: Vec<_> = parts
                    .iter()
                    .map(|part| match part {
                        Part::Append(len) | Part::Partial(len) | Part::ExtendPartial(len) | Part::Identity(len) => {
                            self.bytes(*len)
                        }
                        Part::Progress(_) | Part::Acked(_) | Part::ClearPartial => Vec::new(),
                    })
                    .collect();
                let mut change = self.journal.change(&mut self.sessions[at]);
                for (part, bytes) in parts.iter().zip(fill) {
                    match part {
                        Part::Progress(n) => {
                            let long = u64::from(*n) << 20;
                            after.progress = Progress {
                                received: *n,
                                written: long + 1,
                                read: long + 2,
                                bytes_in: long + 3,
                                bytes_out: long + 4,
                                stage: *n as u8,
                            };
                            change.progress(&after.progress);
                        }
                        Part::Append(_) => {
                            after.frames.extend_from_slice(&bytes);
                            change.append(after.base, &bytes);
                        }
                        Part::Acked(of_256) => {
                            let bytes = after.frames.len() * (usize::from(*of_256) + 1) / 256;
                            after.frames.drain(..bytes);
                            after.base += 1;
                            change.acked(after.base, bytes);
                        }
                        Part::Partial(_) => {
                            change.partial(&bytes);
                            after.partial = bytes;
                        }
                        Part::ExtendPartial(_) => {
                            change.extend_partial(&bytes);
                            after.partial.extend_from_slice(&bytes);
                        }
                        Part::ClearPartial => {
                            change.clear_partial();
                            after.partial.clear();
                        }
                        Part::Identity(_) => {
                            change.identity(&bytes);
                            after.identity = bytes;
                        }
                    }
                }
                if *commit {
                    change.commit()?;
                    drop(change);
                    self.model.records.insert(serial, after);
                }
                Ok(())
            }
        }
    }

    fn open(&mut self, identity: usize, frames: usize, partial: usize) -> Result<(), RecordError> {
        let serial = self.next_serial;
        let (identity, frames, partial) = (self.bytes(identity), self.bytes(frames), self.bytes(partial));
        let progress = Progress { read: serial, ..Progress::default() };
        let record = if frames.is_empty() && partial.is_empty() {
            self.journal.open(serial, &identity, progress)?
        } else {
            let (one, two) = frames.split_at(frames.len() / 3);
            let frames = [one, two];
            let contents = Contents { identity: &identity, progress, base: 3, frames: &frames, partial: &partial };
            self.journal.open_with(serial, &contents)?
        };
        self.next_serial += 1;
        let base = record.base();
        self.sessions.push(record);
        self.model.records.insert(serial, RecoveredRecord { identity, progress, base, frames, partial, unread: None });
        Ok(())
    }

    /// Asserts that the journal takes no more memory than its records may.
    pub fn assert_memory(&self) {
        let chain = |bytes: usize| if bytes == 0 { 0 } else { (BLOCK_DATA - 1 + bytes).div_ceil(BLOCK_DATA) };
        let blocks = self.model.records.values().map(|record| {
            let identity = usize::from(record.identity.len() > INLINE_IDENTITY);
            1 + identity + chain(record.frames.len()) + chain(record.partial.len())
        });
        let most = blocks.sum::<usize>() * BLOCK;
        assert!(self.journal.used() <= most, "{} bytes are taken, and {most} are the most", self.journal.used());
    }

    /// Closes all sessions: no block is taken then.
    pub fn close_all(&mut self) {
        while !self.sessions.is_empty() {
            self.step(&Step::Close { session: 0 }).expect("closed");
        }
        assert_eq!(self.journal.used(), 0, "blocks that nobody has");
    }
}

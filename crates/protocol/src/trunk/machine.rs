//! One side of a trunk: frames in, events out, and the bytes that are to be written.

use std::collections::{HashMap, VecDeque};
use std::io::IoSlice;
use std::net::SocketAddr;

use super::frame::{self, FrameHeader, FrameKind, HEADER_LEN, MAX_DATA, StreamId, TrunkError};
use super::reason::ResetReason;
use super::stream::{Received, Stream};
use crate::byte_queue::ByteQueue;
use crate::proxy_header;

/// Bytes of data that wait in a trunk's buffer at the most: further ones wait at their owners.
pub const MAX_UNSENT: usize = 64 * 1024;
/// Bytes of one stream among them at the most: then other streams have their turn.
pub const QUANTUM: usize = 8 * 1024;
/// Bytes that may wait in all. Data cannot fill them: the other side causes answers, and takes none.
pub const MAX_QUEUED: usize = 1024 * 1024;
/// Bytes of a ping, which its pong repeats.
const TOKEN_LEN: usize = 8;

/// The side of a trunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It opens streams.
    Edge,
    /// It accepts them.
    Core,
}

/// The wish of an edge to open a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRequest {
    /// The name of the core's listener that it leads to.
    pub listener: String,
    /// The player.
    pub player: SocketAddr,
    /// The address that the player connected to.
    pub destination: SocketAddr,
}

/// An event that the owner of a machine reacts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrunkEvent {
    /// The edge opens a stream: the owner [accepts](TrunkMachine::accept) it before it takes the next event, and may
    /// [reset](TrunkMachine::reset) it then.
    Open(StreamId, OpenRequest),
    /// A stream that was to be opened is reset, as its opening says nothing about a player.
    BadOpen(StreamId),
    /// A reader of the stream finds more than before.
    Readable(StreamId),
    /// A writer of the stream may try again. After a reset, it learns of that.
    Writable(StreamId),
    /// The answer to a ping has come.
    Pong(u64),
    /// The other side wants no more streams on this trunk.
    GoAway,
}

/// One side of a trunk. `S` is the owner's part of each stream.
#[derive(Debug)]
pub struct TrunkMachine<S> {
    side: Side,
    /// Bytes that the other side lets each stream send at first.
    credit: u32,
    streams: HashMap<StreamId, Stream<S>>,
    /// The stream that was opened last.
    last: StreamId,
    /// The start of a frame that is not whole.
    partial: Vec<u8>,
    /// The stream and the missing bytes of the data frame that is coming.
    data: Option<(StreamId, usize)>,
    /// The rest of a frame that is skipped.
    skipped: usize,
    out: ByteQueue,
    /// Counts the times at which `out` was empty.
    round: u32,
    /// Streams that wait for room in `out`.
    waiting: VecDeque<StreamId>,
    /// The token of the last ping that was not answered yet.
    asked: Option<[u8; TOKEN_LEN]>,
}

impl<S> TrunkMachine<S> {
    /// Makes one side of a trunk, on which hellos were exchanged: that of the other side has told `credit`.
    pub fn new(side: Side, credit: u32) -> Self {
        Self {
            side,
            credit,
            streams: HashMap::new(),
            last: StreamId::TRUNK,
            partial: Vec::new(),
            data: None,
            skipped: 0,
            out: ByteQueue::default(),
            round: 0,
            waiting: VecDeque::new(),
            asked: None,
        }
    }

    /// Returns the number of streams.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Returns whether there is no stream.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Returns the owner's part of a stream.
    pub fn stream(&mut self, id: StreamId) -> Option<&mut S> {
        self.streams.get_mut(&id).map(|stream| &mut stream.owner)
    }

    /// Returns the owner's parts of all streams.
    pub fn streams(&mut self) -> impl Iterator<Item = &mut S> {
        self.streams.values_mut().map(|stream| &mut stream.owner)
    }

    /// Takes bytes of the other side off the front of `bytes`, until there is an event, or none are left.
    ///
    /// # Errors
    /// Returns the reason for which the trunk cannot go on.
    pub fn receive(&mut self, bytes: &mut &[u8]) -> Result<Option<TrunkEvent>, TrunkError> {
        loop {
            if self.skipped > 0 {
                self.skipped -= take(bytes, self.skipped).len();
            }
            if let Some((id, missing)) = self.data {
                let part = take(bytes, missing);
                let left = missing.saturating_sub(part.len());
                self.data = (left > 0).then_some((id, left));
                if part.is_empty() {
                    return Ok(None);
                }
                if self.on_data(id, part)? {
                    return Ok(Some(TrunkEvent::Readable(id)));
                }
                continue;
            }
            if self.partial.len() < HEADER_LEN {
                self.partial.extend_from_slice(take(bytes, HEADER_LEN - self.partial.len()));
            }
            let Some(header) = self.partial.first_chunk::<HEADER_LEN>() else { return Ok(None) };
            let FrameHeader { len, kind, stream } = FrameHeader::parse(header)?;
            match kind {
                Some(FrameKind::Data) => {
                    self.partial.clear();
                    self.check_opened(stream)?;
                    self.data = (len > 0).then_some((stream, len));
                }
                None => {
                    self.partial.clear();
                    self.skipped = len;
                }
                Some(kind) => {
                    let missing = (HEADER_LEN + len).saturating_sub(self.partial.len());
                    self.partial.extend_from_slice(take(bytes, missing));
                    if self.partial.len() < HEADER_LEN + len {
                        return Ok(None);
                    }
                    let frame = std::mem::take(&mut self.partial);
                    let event = self.on_frame(kind, stream, frame.get(HEADER_LEN..).unwrap_or_default())?;
                    self.partial = frame;
                    self.partial.clear();
                    if self.out.len() > MAX_QUEUED {
                        return Err(TrunkError::Unanswered);
                    }
                    if event.is_some() {
                        return Ok(event);
                    }
                }
            }
        }
    }

    /// Takes bytes of a stream; returns whether somebody is to read them.
    fn on_data(&mut self, id: StreamId, part: &[u8]) -> Result<bool, TrunkError> {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(false) };
        if stream.receive(part) { Ok(true) } else { Err(TrunkError::Overrun(id.0)) }
    }

    fn on_frame(&mut self, kind: FrameKind, id: StreamId, payload: &[u8]) -> Result<Option<TrunkEvent>, TrunkError> {
        let malformed = Err(TrunkError::Malformed(kind));
        let of_trunk = matches!(kind, FrameKind::Hello | FrameKind::Ping | FrameKind::Pong | FrameKind::GoAway);
        if of_trunk != (id == StreamId::TRUNK) {
            return malformed;
        }
        match kind {
            FrameKind::Hello | FrameKind::Data => malformed,
            FrameKind::GoAway | FrameKind::End if !payload.is_empty() => malformed,
            FrameKind::Ping => {
                let Ok(token) = payload.try_into() else { return malformed };
                // Of several that it could not answer, the last: so they take no memory.
                self.asked = Some(token);
                Ok(None)
            }
            FrameKind::Pong => match payload.try_into() {
                Ok(token) => Ok(Some(TrunkEvent::Pong(u64::from_le_bytes(token)))),
                Err(_) => malformed,
            },
            FrameKind::GoAway => Ok(Some(TrunkEvent::GoAway)),
            FrameKind::Open => self.on_open(id, payload),
            FrameKind::Credit => {
                let Ok(more) = payload.try_into().map(u32::from_le_bytes) else { return malformed };
                let Some(stream) = self.opened(id)? else { return Ok(None) };
                stream.credit = stream.credit.saturating_add(more);
                Ok(Some(TrunkEvent::Writable(id)))
            }
            FrameKind::End => {
                let Some(stream) = self.opened(id)? else { return Ok(None) };
                if !stream.end() && !stream.is_reset() {
                    return malformed;
                }
                Ok(Some(TrunkEvent::Readable(id)))
            }
            FrameKind::Reset => {
                let [reason] = payload else { return malformed };
                let Some(stream) = self.opened(id)? else { return Ok(None) };
                stream.reset(ResetReason::from_wire(*reason));
                Ok(Some(TrunkEvent::Writable(id)))
            }
        }
    }

    fn on_open(&mut self, id: StreamId, payload: &[u8]) -> Result<Option<TrunkEvent>, TrunkError> {
        if self.side == Side::Edge {
            return Err(TrunkError::Malformed(FrameKind::Open));
        }
        if id <= self.last {
            return Err(TrunkError::OutOfTurn(id.0));
        }
        self.last = id;
        match read_request(payload) {
            Some(request) => Ok(Some(TrunkEvent::Open(id, request))),
            None => {
                self.control(FrameKind::Reset, id, &[ResetReason::BadHeader.to_wire()]);
                Ok(Some(TrunkEvent::BadOpen(id)))
            }
        }
    }

    fn check_opened(&self, id: StreamId) -> Result<(), TrunkError> {
        if id == StreamId::TRUNK || id > self.last { Err(TrunkError::UnknownStream(id.0)) } else { Ok(()) }
    }

    /// Returns a stream that a frame is for; `None` if it is gone, and the frame was on its way.
    fn opened(&mut self, id: StreamId) -> Result<Option<&mut Stream<S>>, TrunkError> {
        self.check_opened(id)?;
        Ok(self.streams.get_mut(&id))
    }

    /// Opens a stream. `None` once there are no numbers left: another trunk has to carry it.
    pub fn open(&mut self, request: &OpenRequest, owner: S) -> Option<StreamId> {
        let id = StreamId(self.last.0.checked_add(1)?);
        let mut header = Vec::new();
        proxy_header::write_v2_to(&mut header, request.player, request.destination, Some(&request.listener));
        self.last = id;
        self.control(FrameKind::Open, id, &header);
        self.streams.insert(id, Stream::new(owner, self.credit));
        Some(id)
    }

    /// Accepts a stream that the edge opens.
    pub fn accept(&mut self, id: StreamId, owner: S) {
        self.streams.insert(id, Stream::new(owner, self.credit));
    }

    /// Reads from a stream.
    pub fn read(&mut self, id: StreamId, buffer: &mut [u8]) -> Received {
        let Some(stream) = self.streams.get_mut(&id) else { return Received::Reset(ResetReason::Aborted) };
        let (received, grant) = stream.read(buffer);
        if let Some(more) = grant {
            self.control(FrameKind::Credit, id, &more.to_le_bytes());
        }
        received
    }

    /// Takes bytes to be sent on a stream, as far as its credit and the room in the trunk go; returns how many. If that is not
    /// all, [`TrunkEvent::Writable`] or [`TrunkMachine::next_writer`] says when it may take more.
    ///
    /// # Errors
    /// Returns the reason if the stream is reset, or was ended by this side.
    pub fn send(&mut self, id: StreamId, slices: &[IoSlice<'_>]) -> Result<usize, ResetReason> {
        let Some(stream) = self.streams.get_mut(&id) else { return Err(ResetReason::Aborted) };
        if stream.ended || stream.is_reset() {
            return Err(ResetReason::Aborted);
        }
        if stream.round != self.round {
            (stream.round, stream.sent) = (self.round, 0);
        }
        let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
        let turn = QUANTUM.saturating_sub(stream.sent as usize);
        let room = turn.min(MAX_UNSENT.saturating_sub(self.out.len()));
        let count = wanted.min(room).min(stream.credit as usize);
        stream.credit -= count as u32;
        stream.sent += count as u32;
        if count < wanted && stream.credit > 0 && !stream.waits {
            stream.waits = true;
            self.waiting.push_back(id);
        }
        let (mut left, mut in_frame) = (count, 0);
        for slice in slices {
            let mut slice: &[u8] = slice;
            while left > 0 && !slice.is_empty() {
                if in_frame == 0 {
                    in_frame = left.min(MAX_DATA);
                    self.out.push(&frame::header(FrameKind::Data, id, in_frame));
                }
                let part = take(&mut slice, in_frame);
                self.out.push(part);
                in_frame -= part.len();
                left -= part.len();
            }
        }
        Ok(count)
    }

    /// Ends this side's direction of a stream.
    pub fn end(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.ended
            && !stream.is_reset()
        {
            stream.ended = true;
            self.control(FrameKind::End, id, &[]);
        }
    }

    /// Removes a stream, as its owner has gone; one that is not over ends in the middle.
    pub fn reset(&mut self, id: StreamId, reason: ResetReason) {
        if self.streams.remove(&id).is_some_and(|stream| !stream.is_over()) {
            self.control(FrameKind::Reset, id, &[reason.to_wire()]);
        }
    }

    /// Asks the other side for a pong with this token.
    pub fn ping(&mut self, token: u64) {
        self.control(FrameKind::Ping, StreamId::TRUNK, &token.to_le_bytes());
    }

    /// Tells the other side to open no more streams here.
    pub fn go_away(&mut self) {
        self.control(FrameKind::GoAway, StreamId::TRUNK, &[]);
    }

    fn control(&mut self, kind: FrameKind, id: StreamId, payload: &[u8]) {
        self.out.push(&frame::header(kind, id, payload.len()));
        self.out.push(payload);
    }

    /// Returns the number of bytes that are to be written, without pongs.
    pub fn queued(&self) -> usize {
        self.out.len()
    }

    /// Returns the bytes that are to be written.
    pub fn outgoing(&mut self) -> &[u8] {
        if let Some(token) = self.asked.take() {
            self.control(FrameKind::Pong, StreamId::TRUNK, &token);
        }
        self.out.rest()
    }

    /// Removes bytes that were written.
    pub fn written(&mut self, count: usize) {
        self.out.take(count);
        if self.out.is_empty() {
            self.round = self.round.wrapping_add(1);
        }
    }

    /// Returns a stream that waits for room and may try again, one after the other, as long as there is room for all that got
    /// their turn since the buffer was empty last: `given` counts them.
    pub fn next_writer(&mut self, given: &mut usize) -> Option<StreamId> {
        while (*given + 1) * QUANTUM <= MAX_UNSENT {
            let id = self.waiting.pop_front()?;
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.waits = false;
                *given += 1;
                return Some(id);
            }
        }
        None
    }

    /// Returns whether streams wait for room.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

fn read_request(payload: &[u8]) -> Option<OpenRequest> {
    let (header, len) = proxy_header::parse(payload).ok()??;
    let listener = proxy_header::authority(payload)?.to_owned();
    let (player, destination) = (header.source?, header.destination?);
    (len == payload.len()).then_some(OpenRequest { listener, player, destination })
}

/// Takes at most `count` bytes off the front.
fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (front, rest) = bytes.split_at(count.min(bytes.len()));
    *bytes = rest;
    front
}

//! The frames of a trunk.
//!
//! A frame is a header of seven bytes, little endian, and a payload: u16 length of the payload, u8 kind, u32 stream.

use thiserror::Error;

/// Bytes of a frame before its payload.
pub const HEADER_LEN: usize = 7;
/// The longest payload of a data frame, and of a hello, in bytes.
pub const MAX_DATA: usize = 8 * 1024;
/// The longest payload of any other frame, in bytes.
pub const MAX_CONTROL: usize = 1024;

/// A stream of a trunk. The edge counts them from 1, and uses no number twice; 0 is the trunk itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u32);

impl StreamId {
    /// The trunk itself.
    pub const TRUNK: Self = Self(0);
}

/// The kind of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// The first frame of each side.
    Hello = 1,
    /// Asks for a pong of the same payload.
    Ping = 2,
    /// Answers a ping.
    Pong = 3,
    /// Asks the other side to open no more streams on this trunk.
    GoAway = 4,
    /// Opens a stream.
    Open = 5,
    /// Bytes of a stream.
    Data = 6,
    /// Allows the other side to send so many bytes more on a stream.
    Credit = 7,
    /// Ends the sender's direction of a stream.
    End = 8,
    /// Ends a stream in the middle.
    Reset = 9,
}

/// The least number of a kind that whoever does not know it skips.
const OPTIONAL: u8 = 128;

impl FrameKind {
    const ALL: [Self; 9] = [
        Self::Hello,
        Self::Ping,
        Self::Pong,
        Self::GoAway,
        Self::Open,
        Self::Data,
        Self::Credit,
        Self::End,
        Self::Reset,
    ];

    fn from_wire(number: u8) -> Result<Option<Self>, TrunkError> {
        match Self::ALL.into_iter().find(|kind| *kind as u8 == number) {
            None if number < OPTIONAL => Err(TrunkError::UnknownKind(number)),
            kind => Ok(kind),
        }
    }
}

/// The reason for which a trunk cannot go on. More bytes never mend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TrunkError {
    /// A kind of frame that is neither known nor to be skipped.
    #[error("a frame of the unknown kind {0}")]
    UnknownKind(u8),
    /// A frame that says it is longer than it may be.
    #[error("a frame of {0} bytes, which is more than its kind may have")]
    TooLong(u16),
    /// A payload that says nothing, or a frame where none of its kind belongs.
    #[error("a malformed or misplaced {0:?} frame")]
    Malformed(FrameKind),
    /// A frame of a stream that was never opened.
    #[error("a frame of stream {0}, which was never opened")]
    UnknownStream(u32),
    /// A stream that is opened a second time, or out of its turn.
    #[error("stream {0} is opened out of its turn")]
    OutOfTurn(u32),
    /// More bytes of a stream than credit allowed, or behind its end.
    #[error("stream {0} has more bytes than it may")]
    Overrun(u32),
    /// The other side asks, and does not take the answers.
    #[error("the other side takes no answers")]
    Unanswered,
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    /// Bytes of payload.
    pub(super) len: usize,
    /// `None` is to be skipped.
    pub(super) kind: Option<FrameKind>,
    pub(super) stream: StreamId,
}

impl FrameHeader {
    /// Reads a header.
    ///
    /// # Errors
    /// Fails for a kind that must not be skipped, and a payload that is too long.
    pub(super) fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Self, TrunkError> {
        let [l0, l1, kind, s0, s1, s2, s3] = *bytes;
        let (len, kind) = (u16::from_le_bytes([l0, l1]), FrameKind::from_wire(kind)?);
        let longest = match kind {
            Some(FrameKind::Data | FrameKind::Hello) => MAX_DATA,
            _ => MAX_CONTROL,
        };
        if usize::from(len) > longest {
            return Err(TrunkError::TooLong(len));
        }
        Ok(Self { len: len.into(), kind, stream: StreamId(u32::from_le_bytes([s0, s1, s2, s3])) })
    }
}

/// Returns the header of a frame with `len` bytes of payload, at most [`MAX_DATA`].
pub(super) fn header(kind: FrameKind, stream: StreamId, len: usize) -> [u8; HEADER_LEN] {
    let ([l0, l1], [s0, s1, s2, s3]) = ((len as u16).to_le_bytes(), stream.0.to_le_bytes());
    [l0, l1, kind as u8, s0, s1, s2, s3]
}

//! One stream, as each side of a trunk keeps it: credit, ends, and the bytes that its reader has not taken.

use super::reason::ResetReason;
use crate::byte_queue::ByteQueue;

/// Bytes that the other side may send on a stream before its reader takes any. It bounds the memory of a stream whose reader
/// takes nothing.
pub const CREDIT: u32 = 32 * 1024;

/// The result of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// So many bytes are in the buffer.
    Bytes(usize),
    /// Nothing has come yet.
    Nothing,
    /// The other side has ended its direction, and everything before was read.
    End,
    /// The stream ended in the middle.
    Reset(ResetReason),
}

/// The state of a stream.
#[derive(Debug)]
pub(super) struct Stream<S> {
    /// The owner's part.
    pub(super) owner: S,
    /// Bytes that may be sent.
    pub(super) credit: u32,
    /// Bytes that were put into the trunk's buffer since that was empty last, in the `round` of that time.
    pub(super) sent: u32,
    pub(super) round: u32,
    /// True if it stands among those that wait for room in the trunk.
    pub(super) waits: bool,
    /// True once this side has ended its direction.
    pub(super) ended: bool,
    inbound: ByteQueue,
    /// Bytes that the other side may still send.
    granted: u32,
    /// Bytes that were read, and not granted anew yet.
    read: u32,
    closed: Option<Closed>,
}

/// The end of the other side's direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closed {
    End,
    Reset(ResetReason),
}

impl<S> Stream<S> {
    pub(super) fn new(owner: S, credit: u32) -> Self {
        Self {
            owner,
            credit,
            sent: 0,
            round: 0,
            waits: false,
            ended: false,
            inbound: ByteQueue::default(),
            granted: CREDIT,
            read: 0,
            closed: None,
        }
    }

    /// Takes bytes of the other side; returns whether it was allowed to send them.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> bool {
        match self.closed {
            // They were on their way when this side heard of nothing any more.
            Some(Closed::Reset(_)) => true,
            Some(Closed::End) => false,
            None => match self.granted.checked_sub(bytes.len() as u32) {
                Some(left) => {
                    self.granted = left;
                    self.inbound.push(bytes);
                    true
                }
                None => false,
            },
        }
    }

    /// Takes the end of the other side's direction; returns whether it was open.
    pub(super) fn end(&mut self) -> bool {
        let open = self.closed.is_none();
        self.closed = self.closed.or(Some(Closed::End));
        open
    }

    /// Takes a reset of the other side. What waits is lost: it is no whole anyway.
    pub(super) fn reset(&mut self, reason: ResetReason) {
        self.closed = Some(Closed::Reset(reason));
        self.inbound = ByteQueue::default();
    }

    /// Returns whether nothing more comes from the other side, and nothing goes there.
    pub(super) fn is_over(&self) -> bool {
        self.is_reset() || (self.closed.is_some() && self.ended)
    }

    pub(super) fn is_reset(&self) -> bool {
        matches!(self.closed, Some(Closed::Reset(_)))
    }

    /// Reads; also returns the bytes to be granted anew, once they are worth a frame.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> (Received, Option<u32>) {
        let count = self.inbound.take_into(buffer);
        if count == 0 {
            let nothing = match self.closed {
                _ if !self.inbound.is_empty() => Received::Bytes(0),
                None => Received::Nothing,
                Some(Closed::End) => Received::End,
                Some(Closed::Reset(reason)) => Received::Reset(reason),
            };
            return (nothing, None);
        }
        self.read += count as u32;
        let mut grant = None;
        if self.closed.is_none() && self.read >= CREDIT / 2 {
            self.granted += self.read;
            grant = Some(std::mem::take(&mut self.read));
        }
        (Received::Bytes(count), grant)
    }
}

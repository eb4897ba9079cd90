//! One session as the client sees it: numbers, acks and replay. Pure.
//!
//! A packet is framed once, when it is sent, with the ack of that moment; a replay sends the same
//! bytes again. The known clients do so too: an old ack does no harm, and all links share one buffer.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::frame::{self, HEADER_LEN, MAX_PAYLOAD, PacketId, SessionId};

use super::end::ClientEndReason;
use super::stats::SessionStats;

/// Bytes of frames that a session keeps for replay before it takes no more packets. Known clients
/// have no limit; a player that gets no acks must not take all memory.
pub const MAX_UNACKED: usize = 1 << 20;

/// The outcome for an arriving data frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceivedData {
    /// The next in order: its payload is for the game.
    New,
    /// Received before.
    Duplicate,
    /// Ahead of its turn: dropped, and counted as a violation.
    Gap,
}

/// The reason for which a packet was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SendError {
    /// The session is over, or never was.
    #[error("the session is over")]
    Ended,
    /// Too much is not acknowledged yet: see [`MAX_UNACKED`].
    #[error("too much is not acknowledged yet")]
    Full,
    /// More than a frame can hold.
    #[error("a packet of {0} bytes does not fit in a frame")]
    TooLong(usize),
}

/// The state of one session.
#[derive(Debug)]
pub struct PlayerSession {
    id: SessionId,
    port: u16,
    /// The number of the next packet to send.
    next: PacketId,
    /// Frames not acknowledged, the oldest first, numbered up to just before `next`.
    unacked: VecDeque<Bytes>,
    unacked_bytes: usize,
    /// The last packet received in order.
    received: PacketId,
    stats: SessionStats,
}

impl PlayerSession {
    /// Makes a session that is to be opened with `port` of the game host.
    pub fn new(id: SessionId, port: u16) -> Self {
        Self {
            id,
            port,
            next: PacketId::FIRST,
            unacked: VecDeque::new(),
            unacked_bytes: 0,
            received: PacketId::NONE,
            stats: SessionStats::default(),
        }
    }

    /// Returns its counters. Links and joins are its owner's to fill in.
    pub fn stats(&self) -> SessionStats {
        SessionStats { unacked: self.unacked.len(), ..self.stats }
    }

    /// Returns whether [`PlayerSession::send`] would take a packet.
    pub fn has_room(&self) -> bool {
        self.unacked_bytes < MAX_UNACKED && self.stats.ended.is_none()
    }

    /// Numbers and frames a packet; returns the frame, to be written to every link of the session.
    ///
    /// # Errors
    /// Returns [`SendError`]; then nothing has changed.
    pub fn send(&mut self, packet: &[u8]) -> Result<Bytes, SendError> {
        if packet.len() > MAX_PAYLOAD {
            return Err(SendError::TooLong(packet.len()));
        }
        if self.stats.ended.is_some() || self.next > PacketId::LAST {
            return Err(SendError::Ended);
        }
        if !self.has_room() {
            return Err(SendError::Full);
        }
        let mut frame = BytesMut::with_capacity(HEADER_LEN + packet.len());
        frame.put_slice(&frame::data_header(self.id, self.next, self.received, packet.len()));
        frame.put_slice(packet);
        let frame = frame.freeze();
        self.next = self.next.next();
        self.unacked_bytes += frame.len();
        self.unacked.push_back(frame.clone());
        self.stats.sent += 1;
        Ok(frame)
    }

    /// Returns the frames for a link that joins: the open, then all unacknowledged frames, in order.
    pub fn join(&self) -> impl Iterator<Item = Bytes> + '_ {
        std::iter::once(Bytes::copy_from_slice(&frame::open(self.id, self.port))).chain(self.unacked.iter().cloned())
    }

    /// Takes a data frame. Its ack counts whatever the packet is.
    pub fn on_data(&mut self, packet: PacketId, ack: PacketId, payload: &[u8]) -> ReceivedData {
        self.acked(ack);
        if packet <= self.received {
            self.stats.duplicates += 1;
            return ReceivedData::Duplicate;
        }
        if packet != self.received.next() {
            self.stats.gaps += 1;
            return ReceivedData::Gap;
        }
        self.received = packet;
        self.stats.received += 1;
        if !is_one_packet(payload) {
            self.stats.miscut += 1;
        }
        ReceivedData::New
    }

    fn acked(&mut self, ack: PacketId) {
        let last = self.next.previous();
        if ack > last {
            self.stats.bad_acks += 1;
            return;
        }
        // Unacknowledged frames end at `last`, so this many of them stay.
        let keep = (last.0 - ack.0) as usize;
        while self.unacked.len() > keep {
            if let Some(frame) = self.unacked.pop_front() {
                self.unacked_bytes -= frame.len();
            }
        }
    }

    /// Ends the session; the first reason stays. Nothing is kept for replay any more.
    pub fn end(&mut self, reason: ClientEndReason) {
        self.stats.ended.get_or_insert(reason);
        self.unacked.clear();
        self.unacked_bytes = 0;
    }
}

/// Returns whether a known client would read this payload as the one packet that it is.
fn is_one_packet(payload: &[u8]) -> bool {
    payload
        .split_first_chunk::<2>()
        .is_some_and(|(length, body)| usize::from(u16::from_le_bytes(*length)) == body.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Frame, FromClient};

    fn session() -> PlayerSession {
        PlayerSession::new(SessionId(7), 7172)
    }

    fn numbers(frames: impl Iterator<Item = Bytes>) -> Vec<(u32, u32)> {
        let number = |bytes: Bytes| {
            let (frame, _) = Frame::split(&bytes).unwrap().unwrap();
            (frame.packet, frame.ack)
        };
        frames.map(number).collect()
    }

    #[test]
    fn numbers_from_one_with_the_ack_of_the_moment() {
        let mut session = session();
        session.send(b"\x01\0a").unwrap();
        assert_eq!(session.on_data(PacketId(1), PacketId(0), b"\x01\0x"), ReceivedData::New);
        session.send(b"\x01\0b").unwrap();
        assert_eq!(numbers(session.join()), [(0, 7172), (1, 0), (2, 1)]);
        assert_eq!(session.stats().sent, 2);
    }

    #[test]
    fn acks_trim_the_replay_on_duplicates_too() {
        let mut session = session();
        for _ in 0..4 {
            session.send(b"\x01\0a").unwrap();
        }
        session.on_data(PacketId(1), PacketId(2), b"\0\0");
        assert_eq!(numbers(session.join()), [(0, 7172), (3, 0), (4, 0)]);
        assert_eq!(session.on_data(PacketId(1), PacketId(3), b"\0\0"), ReceivedData::Duplicate);
        assert_eq!(numbers(session.join()), [(0, 7172), (4, 0)]);
        session.on_data(PacketId(2), PacketId(1), b"\0\0");
        assert_eq!(session.stats().unacked, 1, "an older ack brings nothing back");
    }

    #[test]
    fn acks_of_what_was_never_sent_are_violations() {
        let mut session = session();
        session.send(b"\x01\0a").unwrap();
        session.on_data(PacketId(1), PacketId(2), b"\0\0");
        let stats = session.stats();
        assert_eq!((stats.bad_acks, stats.unacked), (1, 1));
    }

    #[test]
    fn a_gap_is_dropped_and_counted() {
        let mut session = session();
        assert_eq!(session.on_data(PacketId(2), PacketId(0), b"\0\0"), ReceivedData::Gap);
        assert_eq!(session.on_data(PacketId(1), PacketId(0), b"\0\0"), ReceivedData::New);
        assert_eq!(session.on_data(PacketId(2), PacketId(0), b"\0\0"), ReceivedData::New);
        assert_eq!(session.on_data(PacketId(2), PacketId(0), b"\0\0"), ReceivedData::Duplicate);
        let stats = session.stats();
        assert_eq!((stats.received, stats.duplicates, stats.gaps), (2, 1, 1));
    }

    #[test]
    fn payloads_that_a_client_would_cut_wrongly_are_counted() {
        let mut session = session();
        for (packet, payload) in [&b""[..], b"\0", b"\x02\0a", b"\x02\0abc", b"\x02\0ab"].into_iter().enumerate() {
            session.on_data(PacketId(packet as u32 + 1), PacketId(0), payload);
        }
        assert_eq!((session.stats().miscut, session.stats().received), (4, 5));
    }

    #[test]
    fn takes_no_more_than_it_may_keep_until_acked() {
        let mut session = session();
        let packet = vec![0; MAX_PAYLOAD];
        let mut sent = 0;
        while session.send(&packet).is_ok() {
            sent += 1;
        }
        assert_eq!(session.send(&packet), Err(SendError::Full));
        assert_eq!(sent, MAX_UNACKED.div_ceil(HEADER_LEN + MAX_PAYLOAD));
        session.on_data(PacketId(1), PacketId(1), b"\0\0");
        assert!(session.send(&packet).is_ok());
        assert_eq!(session.send(&[0; MAX_PAYLOAD + 1]), Err(SendError::TooLong(MAX_PAYLOAD + 1)));
    }

    #[test]
    fn the_first_reason_of_an_end_stays() {
        let mut session = session();
        session.send(b"\0\0").unwrap();
        session.end(ClientEndReason::Core);
        session.end(ClientEndReason::Left);
        assert_eq!(session.stats().ended, Some(ClientEndReason::Core));
        assert_eq!(session.send(b"\0\0"), Err(SendError::Ended));
        assert_eq!(numbers(session.join()).len(), 1);
    }

    #[test]
    fn what_it_sends_reads_as_what_it_is() {
        let mut session = session();
        let frame = session.send(b"\x02\0hi").unwrap();
        let parsed = Frame::split(&frame).unwrap().unwrap().0.from_client();
        assert_eq!(
            parsed,
            FromClient::Data { session: SessionId(7), packet: PacketId(1), ack: PacketId(0), payload: b"\x02\0hi" }
        );
    }
}

//! Frames: the units of the multi-path protocol on a link, in both directions.
//!
//! A frame is 14 bytes of header and a payload, little endian: u16 `length` of what follows it,
//! u32 session, u32 packet, u32 ack, payload. `docs/protocol.md` has the whole format.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

/// Bytes of a frame before its payload, the two of its length included.
pub const HEADER_LEN: usize = 14;
/// The least that a frame's length field may say: the header without the field itself.
pub const MIN_LENGTH: usize = HEADER_LEN - 2;
/// The longest payload of a frame that a client may send: what its u16 length can say.
pub const MAX_PAYLOAD: usize = u16::MAX as usize - MIN_LENGTH;
/// Payload of a first frame, which is a ping, at the most; clients send 0 or 4 bytes.
pub const MAX_FIRST_PAYLOAD: usize = 64;
/// The packet number that opens or joins a session.
const OPEN: u32 = 0;
/// The packet number that leaves or ends a session.
const END: u32 = u32::MAX;
/// The round trip that a client reports if it knows none: 5000 ms, after a reconnect.
const UNKNOWN_RTT_MS: u32 = 5000;

/// One client process, as it names itself in every ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub u32);

/// One game connection of one client. Unique only together with the [`ClientId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u32);

/// The number of a packet in its direction, from 1.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PacketId(pub u32);

impl PacketId {
    /// Before the first packet: as an ack, that nothing has arrived yet.
    pub const NONE: Self = Self(0);
    /// The first packet of a direction.
    pub const FIRST: Self = Self(1);
    /// The last number a packet can have; the next one means end.
    pub const LAST: Self = Self(END - 1);

    /// Returns the number after this one; saturates at the end mark.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Returns the number before this one; saturates at [`PacketId::NONE`].
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

macro_rules! display_as_number {
    ($($name:ident),+) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}
display_as_number!(ClientId, SessionId, PacketId);

/// The error of bytes that cannot be a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The length field says less than a header.
    #[error("a frame's length is {0}, and 12 is the least")]
    TooShort(u16),
}

/// A frame as it stands in a buffer: fields and payload, not yet given a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// 0 for the link's own ping and pong.
    pub session: u32,
    /// The packet's number, 0 for open, `0xFFFF_FFFF` for leave and end.
    pub packet: u32,
    /// The ack; on a ping the client id, on an open the port.
    pub ack: u32,
    /// The packet.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Returns the bytes of the whole frame on the wire.
    pub const fn wire_len(&self) -> usize {
        HEADER_LEN + self.payload.len()
    }

    /// Splits the first frame off `bytes`: the frame, and what follows it. `None` where it is not
    /// whole yet.
    ///
    /// # Errors
    /// [`FrameError::TooShort`] as soon as the length field is there and says under 12.
    pub fn split(bytes: &'a [u8]) -> Result<Option<(Self, &'a [u8])>, FrameError> {
        let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return Ok(None) };
        let length = u16::from_le_bytes(*length);
        if usize::from(length) < MIN_LENGTH {
            return Err(FrameError::TooShort(length));
        }
        let Some((frame, rest)) = rest.split_at_checked(usize::from(length)) else { return Ok(None) };
        let Some((header, payload)) = frame.split_first_chunk::<MIN_LENGTH>() else { return Ok(None) };
        let [s0, s1, s2, s3, p0, p1, p2, p3, a0, a1, a2, a3] = *header;
        let frame = Frame {
            session: u32::from_le_bytes([s0, s1, s2, s3]),
            packet: u32::from_le_bytes([p0, p1, p2, p3]),
            ack: u32::from_le_bytes([a0, a1, a2, a3]),
            payload,
        };
        Ok(Some((frame, rest)))
    }

    /// Returns the meaning of a frame that a client sent.
    pub fn from_client(self) -> FromClient<'a> {
        match (self.session, self.packet) {
            (0, _) => FromClient::Ping { client: ClientId(self.ack), rtt: reported_rtt(self.payload) },
            (id, OPEN) => FromClient::Open { session: SessionId(id), port: self.ack },
            (id, END) => FromClient::Leave { session: SessionId(id) },
            (id, packet) => FromClient::Data {
                session: SessionId(id),
                packet: PacketId(packet),
                ack: PacketId(self.ack),
                payload: self.payload,
            },
        }
    }

    /// Returns the meaning of a frame that the core sent; `None` if it has none for a client.
    pub fn from_core(self) -> Option<FromCore<'a>> {
        match (self.session, self.packet) {
            (0, _) => Some(FromCore::Pong),
            (_, OPEN) => None,
            (id, END) => Some(FromCore::End { session: SessionId(id) }),
            (id, packet) => Some(FromCore::Data {
                session: SessionId(id),
                packet: PacketId(packet),
                ack: PacketId(self.ack),
                payload: self.payload,
            }),
        }
    }
}

/// Returns the round trip that a ping reports; `None` if the client knows none, or sent none.
fn reported_rtt(payload: &[u8]) -> Option<Duration> {
    let ms = u32::from_le_bytes(*payload.first_chunk::<4>()?);
    (ms != 0 && ms < UNKNOWN_RTT_MS).then(|| Duration::from_millis(ms.into()))
}

/// A message of a client on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FromClient<'a> {
    /// Answer at once with a pong.
    Ping {
        /// The client that holds the link.
        client: ClientId,
        /// The last round trip that the client measured on this link, where it knows one.
        rtt: Option<Duration>,
    },
    /// Open the session, or join this link to it.
    Open {
        /// The session.
        session: SessionId,
        /// The port wanted on the game host; over 65535 is never one.
        port: u32,
    },
    /// One packet.
    Data {
        /// The session.
        session: SessionId,
        /// The packet's number.
        packet: PacketId,
        /// The highest packet that the client has received in order.
        ack: PacketId,
        /// The packet itself, forwarded as it is.
        payload: &'a [u8],
    },
    /// This link no longer carries the session.
    Leave {
        /// The session.
        session: SessionId,
    },
}

/// A message of the core on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FromCore<'a> {
    /// The answer to a ping.
    Pong,
    /// One packet.
    Data {
        /// The session.
        session: SessionId,
        /// The packet's number.
        packet: PacketId,
        /// The highest packet that the core has received in order.
        ack: PacketId,
        /// The packet itself.
        payload: &'a [u8],
    },
    /// The session is over, or never existed.
    End {
        /// The session.
        session: SessionId,
    },
}

/// Returns the 14 header bytes of a frame with `payload_len` bytes of payload (at most [`MAX_PAYLOAD`]).
fn header(session: u32, packet: u32, ack: u32, payload_len: usize) -> [u8; HEADER_LEN] {
    debug_assert!(payload_len <= MAX_PAYLOAD);
    let mut bytes = [0; HEADER_LEN];
    let length = (MIN_LENGTH + payload_len) as u16;
    bytes[0..2].copy_from_slice(&length.to_le_bytes());
    bytes[2..6].copy_from_slice(&session.to_le_bytes());
    bytes[6..10].copy_from_slice(&packet.to_le_bytes());
    bytes[10..14].copy_from_slice(&ack.to_le_bytes());
    bytes
}

/// A pong, whole.
pub const PONG: [u8; HEADER_LEN] = [MIN_LENGTH as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Returns a whole end (from the core) or leave (from a client): the two are equal.
pub fn end(session: SessionId) -> [u8; HEADER_LEN] {
    header(session.0, END, 0, 0)
}

/// Returns a whole open.
pub fn open(session: SessionId, port: u16) -> [u8; HEADER_LEN] {
    header(session.0, OPEN, port.into(), 0)
}

/// Returns a whole ping. `rtt_ms` is the last round trip that the client measured on this link.
pub fn ping(client: ClientId, rtt_ms: u32) -> [u8; HEADER_LEN + 4] {
    let mut bytes = [0; HEADER_LEN + 4];
    bytes[..HEADER_LEN].copy_from_slice(&header(0, 0, client.0, 4));
    bytes[HEADER_LEN..].copy_from_slice(&rtt_ms.to_le_bytes());
    bytes
}

/// Returns the header of a data frame, which a payload of `payload_len` bytes follows.
pub fn data_header(session: SessionId, packet: PacketId, ack: PacketId, payload_len: usize) -> [u8; HEADER_LEN] {
    header(session.0, packet.0, ack.0, payload_len)
}

/// The error of bytes that begin no link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the first frame is no ping")]
pub struct NoPing;

/// Returns the client whose link begins with `first`: the first frame is a ping. `None` if that is incomplete.
///
/// # Errors
/// Fails as soon as it cannot become a ping, or is longer than any is.
pub fn first_ping(first: &[u8]) -> Result<Option<ClientId>, NoPing> {
    let Some((length, rest)) = first.split_first_chunk::<2>() else { return Ok(None) };
    let length = usize::from(u16::from_le_bytes(*length));
    let session = rest.get(..4).unwrap_or(rest);
    if length > MIN_LENGTH + MAX_FIRST_PAYLOAD || session.iter().any(|byte| *byte != 0) {
        return Err(NoPing);
    }
    match Frame::split(first) {
        Ok(Some((frame, _))) => match frame.from_client() {
            FromClient::Ping { client, .. } => Ok(Some(client)),
            _ => Err(NoPing),
        },
        Ok(None) => Ok(None),
        Err(_) => Err(NoPing),
    }
}

/// Returns whether a connection whose client has sent `first` is a link, which begins with a whole ping.
pub fn begins_link(first: &[u8]) -> bool {
    matches!(first_ping(first), Ok(Some(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_begins_with_a_whole_ping() {
        assert!(begins_link(&ping(ClientId(1), 0)));
        let status = b"\x06\0\xFF\xFFinfo";
        for first in [&b""[..], status, &open(SessionId(1), 7172), &ping(ClientId(1), 0)[..10]] {
            assert!(!begins_link(first), "{first:?}");
        }
    }

    #[test]
    fn a_first_ping_is_known_by_its_last_byte_and_anything_else_as_early_as_can_be() {
        let bytes = ping(ClientId(9), 0);
        for cut in 0..bytes.len() {
            assert_eq!(first_ping(&bytes[..cut]), Ok(None), "cut at {cut}");
        }
        assert_eq!(first_ping(&[&bytes[..], b"more"].concat()), Ok(Some(ClientId(9))));
        let longest = [&header(0, 0, 9, MAX_FIRST_PAYLOAD)[..], &[0; MAX_FIRST_PAYLOAD]].concat();
        assert_eq!(first_ping(&longest), Ok(Some(ClientId(9))));
        assert_eq!(first_ping(&header(0, 0, 9, MAX_FIRST_PAYLOAD + 1)[..2]), Err(NoPing));
        assert_eq!(first_ping(&[11, 0]), Err(NoPing), "shorter than a header");
        assert_eq!(first_ping(&open(SessionId(1), 7172)[..3]), Err(NoPing), "of a session");
    }

    #[test]
    fn pong_is_the_fourteen_bytes_of_the_protocol() {
        assert_eq!(PONG, header(0, 0, 0, 0));
        let (frame, rest) = Frame::split(&PONG).unwrap().unwrap();
        assert_eq!(frame.from_core(), Some(FromCore::Pong));
        assert!(rest.is_empty());
    }

    #[test]
    fn split_waits_for_every_byte() {
        let bytes = [&data_header(SessionId(7), PacketId(3), PacketId(2), 5)[..], b"hello", b"next"].concat();
        for cut in 0..HEADER_LEN + 5 {
            assert_eq!(Frame::split(&bytes[..cut]), Ok(None), "cut at {cut}");
        }
        let (frame, rest) = Frame::split(&bytes).unwrap().unwrap();
        assert_eq!(
            frame.from_client(),
            FromClient::Data { session: SessionId(7), packet: PacketId(3), ack: PacketId(2), payload: b"hello" }
        );
        assert_eq!((frame.wire_len(), rest), (19, &b"next"[..]));
    }

    #[test]
    fn short_length_is_an_error_at_once() {
        for length in 0..12u16 {
            assert_eq!(Frame::split(&length.to_le_bytes()), Err(FrameError::TooShort(length)));
        }
    }

    #[test]
    fn longest_frame() {
        let bytes =
            [&data_header(SessionId(1), PacketId(1), PacketId(0), MAX_PAYLOAD)[..], &vec![9; MAX_PAYLOAD]].concat();
        assert_eq!(bytes.len(), 2 + 65535);
        let (frame, rest) = Frame::split(&bytes).unwrap().unwrap();
        assert_eq!((frame.payload.len(), rest.len()), (MAX_PAYLOAD, 0));
    }

    #[test]
    fn pings_report_known_round_trips_only() {
        for (ms, rtt) in [(0, None), (5000, None), (42, Some(Duration::from_millis(42)))] {
            let bytes = ping(ClientId(5), ms);
            let (frame, _) = Frame::split(&bytes).unwrap().unwrap();
            assert_eq!(frame.from_client(), FromClient::Ping { client: ClientId(5), rtt });
        }
        let (bare, _) = Frame { session: 0, packet: 0, ack: 5, payload: &[] }.into_split();
        assert_eq!(bare, FromClient::Ping { client: ClientId(5), rtt: None });
    }

    impl<'a> Frame<'a> {
        fn into_split(self) -> (FromClient<'a>, usize) {
            (self.from_client(), self.wire_len())
        }
    }

    #[test]
    fn opens_leaves_and_ends() {
        let bytes = open(SessionId(9), 7172);
        let frame = Frame::split(&bytes).unwrap().unwrap().0;
        assert_eq!(frame.from_client(), FromClient::Open { session: SessionId(9), port: 7172 });
        assert_eq!(frame.from_core(), None);
        let bytes = end(SessionId(9));
        let frame = Frame::split(&bytes).unwrap().unwrap().0;
        assert_eq!(frame.from_client(), FromClient::Leave { session: SessionId(9) });
        assert_eq!(frame.from_core(), Some(FromCore::End { session: SessionId(9) }));
    }
}

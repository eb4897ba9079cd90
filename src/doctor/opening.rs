//! The first bytes of somebody who speaks first: are they a game server's?

use otproxy_protocol::game_packet::{Framing, GamePacketDecoder, LENGTH_LEN};

/// Bytes that the first packet of a game server has at most. It has 14; text has more than 8000, read as a length.
pub(super) const MAX_OPENING: usize = 1024;
/// Bytes that are shown of what is no game packet.
const SHOWN: usize = 24;

/// A judgement of first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// A whole packet.
    Packet,
    /// It may become one.
    Part,
    /// No game server begins so.
    Other,
}

impl Opening {
    /// Judges bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let Some(length) = bytes.first_chunk::<LENGTH_LEN>() else { return Self::Part };
        match GamePacketDecoder::new(Framing::Auto).next(bytes) {
            _ if !(1..=MAX_OPENING).contains(&u16::from_le_bytes(*length).into()) => Self::Other,
            Ok(Some(_)) => Self::Packet,
            Ok(None) => Self::Part,
            Err(_) => Self::Other,
        }
    }
}

/// Formats bytes that are no game packet, for people.
pub(super) fn shown(bytes: &[u8]) -> String {
    crate::probe::shown(bytes.get(..SHOWN).unwrap_or(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_game_server_begins_with_a_short_packet() {
        let (in_bytes, in_blocks) = ([&[12, 0][..], &[7; 12]].concat(), [&[1, 0][..], &[7; 12]].concat());
        for packet in [&in_bytes, &in_blocks] {
            assert_eq!(Opening::of(packet), Opening::Packet);
            for end in 0..packet.len() {
                assert_eq!(Opening::of(&packet[..end]), Opening::Part, "{end}");
            }
            assert_eq!(Opening::of(&[&packet[..], b"and more"].concat()), Opening::Packet);
        }
        for other in [&b"SSH-2.0-x\r\n"[..], b"\0\0", b"HTTP/1.1 400 Bad Request", b"\r\n", b"\xFE\xFF\x7F"] {
            assert_eq!(Opening::of(other), Opening::Other, "{other:?}");
        }
        assert_eq!(shown(&[b'x'; 1 << 20]), format!("`{}`", "x".repeat(SHOWN)));
    }
}

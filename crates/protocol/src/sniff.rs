//! The sniffer of the first bytes of a connection, before anything is done about it.
//!
//! It tells players from others: scanners, and peers that speak HTTP, TLS or noise to a port of a game. Only the login
//! server can say if a login is right.

use super::frame;
use super::status::{self, FirstPacket, MAX_REQUEST};

/// Bytes that a first packet has at most. Once these have arrived, there is a result. A status request may be longer
/// than a login.
pub const MAX_FIRST: usize = MAX_REQUEST;

/// Values of the leading u16 of a login. In blocks the least is the size of its 128 encrypted bytes; in bytes no client
/// sends so little. The greatest is far beyond what the latest clients send, and less than the beginning of TLS (`16
/// 03`), which is 790.
const LOGIN_LENGTHS: std::ops::RangeInclusive<u16> = 17..=767;
/// The byte by which a game server tells a login, to the list of characters or into the game, from others.
const LOGIN_KINDS: [u8; 2] = [0x01, 0x0A];
/// Offsets in the body that this byte may have: in front; after a checksum or sequence number; after that and the count
/// of padding bytes, if lengths are in blocks.
const LOGIN_KIND_AT: [usize; 3] = [0, 4, 5];

crate::words! {
    /// The way in which connections begin.
    pub enum ProtocolSniffer {
        /// In any way, also with silence: the server may speak first.
        Any = "any",
        /// With a ping of the multi-path protocol.
        Links = "links",
        /// With a login, or with a request for the status: one port has both.
        Login = "login",
        /// With a request for the status.
        Status = "status",
    }
}

/// The result for a connection's first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sniffed {
    /// They are what is expected, whatever follows.
    Right,
    /// They may still become it.
    Incomplete,
    /// They are something else, whatever follows.
    Wrong,
}

impl ProtocolSniffer {
    /// Judges the first bytes of a connection.
    pub fn sniff(self, first: &[u8]) -> Sniffed {
        match self {
            Self::Any => Sniffed::Right,
            Self::Links => match frame::first_ping(first) {
                Ok(Some(_)) => Sniffed::Right,
                Ok(None) => Sniffed::Incomplete,
                Err(_) => Sniffed::Wrong,
            },
            Self::Login => status(first).or_else(|| login(first)),
            Self::Status => status(first),
        }
    }
}

impl Sniffed {
    /// Returns this result, unless it is wrong: then `other`.
    fn or_else(self, other: impl FnOnce() -> Self) -> Self {
        if self == Self::Wrong { other() } else { self }
    }
}

/// Splits a packet whose leading u16 is in `lengths`; returns the part of its body that has arrived, and its whole
/// length.
fn packet(first: &[u8], lengths: std::ops::RangeInclusive<u16>) -> Result<(&[u8], usize), Sniffed> {
    let (length, body) = first.split_first_chunk::<2>().ok_or(Sniffed::Incomplete)?;
    let length = u16::from_le_bytes(*length);
    if !lengths.contains(&length) {
        return Err(Sniffed::Wrong);
    }
    let length = usize::from(length);
    Ok((body.get(..length).unwrap_or(body), length))
}

/// Returns whether the body is whole. If the length counts blocks, the packet is longer than it says, and this much is
/// enough to know.
fn whole(body: &[u8], length: usize) -> Sniffed {
    if body.len() < length { Sniffed::Incomplete } else { Sniffed::Right }
}

fn login(first: &[u8]) -> Sniffed {
    let (body, length) = match packet(first, LOGIN_LENGTHS) {
        Ok(packet) => packet,
        Err(verdict) => return verdict,
    };
    let may_be_kind = |at: usize| body.get(at).is_none_or(|kind| LOGIN_KINDS.contains(kind));
    if LOGIN_KIND_AT.into_iter().any(may_be_kind) { whole(body, length) } else { Sniffed::Wrong }
}

fn status(first: &[u8]) -> Sniffed {
    match status::first(first) {
        None => Sniffed::Incomplete,
        Some(FirstPacket::Request(_)) => Sniffed::Right,
        Some(FirstPacket::TooLong | FirstPacket::Other) => Sniffed::Wrong,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::{ClientId, SessionId, open, ping};

    const STATUS_XML: &[u8] = b"\x06\0\xFF\xFFinfo";
    const ALL: [ProtocolSniffer; 3] = [ProtocolSniffer::Links, ProtocolSniffer::Login, ProtocolSniffer::Status];

    /// Makes a packet of `length` bytes by its leading u16, of which `extra` more are sent, with `kind` at `at`.
    fn login_of(length: u16, extra: usize, at: usize, kind: u8) -> Vec<u8> {
        let mut body = vec![0xEE; usize::from(length) + extra];
        body[at] = kind;
        [&length.to_le_bytes()[..], &body].concat()
    }

    /// Judges `bytes` as they come, one after the other: the first verdict, and how many it took.
    fn as_they_come(expect: ProtocolSniffer, bytes: &[u8]) -> (Sniffed, usize) {
        let verdicts = (0..=bytes.len()).map(|count| (expect.sniff(&bytes[..count]), count));
        verdicts
            .into_iter()
            .find(|(verdict, _)| *verdict != Sniffed::Incomplete)
            .unwrap_or((Sniffed::Incomplete, bytes.len()))
    }

    #[test]
    fn what_clients_send_is_right_once_it_is_whole() {
        let binary = b"\x06\0\xFF\x01\x10\0ab";
        for (bytes, right) in [
            (ping(ClientId(7), 0).to_vec(), &[ProtocolSniffer::Links][..]),
            (STATUS_XML.to_vec(), &[ProtocolSniffer::Login, ProtocolSniffer::Status]),
            (binary.to_vec(), &[ProtocolSniffer::Login, ProtocolSniffer::Status]),
            (b"\x04\0\xFF\x01\x09\0".to_vec(), &[ProtocolSniffer::Login, ProtocolSniffer::Status]),
            // Without a checksum, with one, and the largest.
            (login_of(23, 0, 0, 0x01), &[ProtocolSniffer::Login]),
            (login_of(149, 0, 4, 0x01), &[ProtocolSniffer::Login]),
            (login_of(767, 0, 4, 0x0A), &[ProtocolSniffer::Login]),
        ] {
            for expect in ALL {
                let (verdict, count) = as_they_come(expect, &bytes);
                if right.contains(&expect) {
                    assert_eq!((verdict, count), (Sniffed::Right, bytes.len()), "{expect:?} {bytes:02x?}");
                    assert_eq!(expect.sniff(&[&bytes[..], b"more"].concat()), Sniffed::Right);
                } else {
                    assert_ne!(verdict, Sniffed::Right, "{expect:?} {bytes:02x?}");
                }
            }
            assert_eq!(ProtocolSniffer::Any.sniff(&bytes), Sniffed::Right);
        }
        // In blocks: 8 x 17 + 4 bytes, and the kind behind a sequence number and the padding.
        let blocks = login_of(17, 7 * 17 + 4, 5, 0x01);
        assert_eq!(as_they_come(ProtocolSniffer::Login, &blocks).0, Sniffed::Right);
    }

    #[test]
    fn what_others_send_is_wrong_within_a_few_bytes() {
        let tls = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xFC, 0x03, 0x03];
        let others: [&[u8]; 12] = [
            b"GET / HTTP/1.1\r\n",
            b"POST /login HTTP/1.1\r\n",
            b"OPTIONS sip:a SIP/2.0\r\n",
            b"PRI * HTTP/2.0\r\n",
            b"SSH-2.0-x\r\n",
            b"\r\n\r\n\r\n\r\n",
            b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\x01\0\x08\0",
            &tls,
            &[0; 32],
            &[0xFF; 32],
            b"\x32\0nonsense of a length that could be",
            &open(SessionId(1), 7172),
        ];
        for bytes in others {
            for expect in ALL {
                let (verdict, count) = as_they_come(expect, bytes);
                assert!(verdict == Sniffed::Wrong && count <= 8, "{expect:?} {bytes:02x?}: {verdict:?} after {count}");
            }
            assert_eq!(ProtocolSniffer::Any.sniff(bytes), Sniffed::Right);
        }
        assert_eq!(ProtocolSniffer::Any.sniff(b""), Sniffed::Right, "nothing is waited for");
    }

    #[test]
    fn the_limits_of_a_login() {
        for (length, fits) in [(16, false), (17, true), (767, true), (768, false), (790, false), (u16::MAX, false)] {
            let verdict = ProtocolSniffer::Login.sniff(&login_of(length, 0, 0, 0x01));
            assert_eq!(verdict == Sniffed::Right, fits, "{length}");
        }
        assert!(2 + usize::from(*LOGIN_LENGTHS.end()) <= MAX_FIRST);
    }

    proptest! {
        #[test]
        fn a_verdict_once_given_stays_and_comes_in_time(
            mut bytes in prop::collection::vec(any::<u8>(), 0..1000),
            length in prop::option::of(0u16..800),
            kind in prop::sample::select(vec![0x01u8, 0x0A, 0xFF, 0x00]),
            at in 0usize..8,
        ) {
            if let (Some(length), Some(place)) = (length, bytes.get_mut(..2)) {
                place.copy_from_slice(&length.to_le_bytes());
            }
            if let Some(byte) = bytes.get_mut(2 + at) {
                *byte = kind;
            }
            for expect in ALL {
                let (first, count) = as_they_come(expect, &bytes);
                prop_assert!(count <= MAX_FIRST);
                for count in count..bytes.len() {
                    prop_assert_eq!(expect.sniff(&bytes[..count]), first);
                }
            }
        }
    }
}

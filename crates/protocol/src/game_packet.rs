//! Game packets: what a game server's byte stream is cut into, one for each data frame.
//!
//! A packet is a u16, little endian, and a body. The u16 counts the body's bytes or, from game
//! protocol 14.05 on, its blocks: `8 x n + 4` bytes follow. Clients cut by bytes, so a packet leaves
//! here with its byte count, whatever the game server counted.

use thiserror::Error;

use crate::frame::MAX_PAYLOAD;

/// Bytes of the leading u16.
pub const LENGTH_LEN: usize = 2;
/// The longest body. Clients read a frame, its length field included, into a buffer of 65535 bytes:
/// two less than the largest frame there is.
pub const MAX_BODY: usize = MAX_PAYLOAD - 2 - LENGTH_LEN;
/// The first packet of a server that counts blocks: one block, 12 bytes. In bytes it would be a
/// body of one byte, and no server starts with that.
const FIRST_IN_BLOCKS: u16 = 1;

crate::words! {
    /// The unit in which the leading u16 of a packet counts.
    pub enum Framing {
        /// Decided from the first packet of each connection.
        Auto = "auto",
        /// Bytes.
        Bytes = "bytes",
        /// Blocks: `8 x n + 4` bytes follow (14.05 and newer).
        Blocks = "blocks",
    }
}

/// The error of bytes that cannot be a game packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GamePacketError {
    /// The body does not fit a frame that clients can read.
    #[error("a game packet's body of {length} bytes, and clients can read {MAX_BODY} at most")]
    TooLong {
        /// Bytes of the body, by its leading u16.
        length: usize,
    },
}

/// One packet, as it is to be framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GamePacket<'a> {
    /// The leading u16 to put: the bytes of `body`.
    pub length: u16,
    /// All after the leading u16.
    pub body: &'a [u8],
}

/// Cuts the stream of one game connection.
#[derive(Debug, Clone)]
pub struct GamePacketDecoder {
    /// `Auto` until the first packet has come.
    framing: Framing,
}

impl GamePacketDecoder {
    /// Makes a decoder for a new connection.
    ///
    /// With [`Framing::Auto`] the first packet decides: `01 00` means blocks, anything else bytes. That holds for game
    /// ports, on which the server starts with a challenge of one block. A login server that counts blocks may start
    /// with more than one: set its framing.
    pub const fn new(framing: Framing) -> Self {
        Self { framing }
    }

    /// Returns the unit in which it counts: [`Framing::Auto`] until the first packet has come.
    #[must_use]
    pub const fn framing(&self) -> Framing {
        self.framing
    }

    /// Returns the first packet in `bytes`, and its length on the wire. `None` if it is incomplete.
    ///
    /// # Errors
    /// Returns [`GamePacketError::TooLong`] as soon as the leading u16 is there.
    pub fn next<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<(GamePacket<'a>, usize)>, GamePacketError> {
        let Some((count, rest)) = bytes.split_first_chunk::<LENGTH_LEN>() else { return Ok(None) };
        let count = u16::from_le_bytes(*count);
        if self.framing == Framing::Auto {
            self.framing = if count == FIRST_IN_BLOCKS { Framing::Blocks } else { Framing::Bytes };
        }
        let length = match self.framing {
            Framing::Blocks => 8 * usize::from(count) + 4,
            Framing::Bytes | Framing::Auto => usize::from(count),
        };
        if length > MAX_BODY {
            return Err(GamePacketError::TooLong { length });
        }
        // At most MAX_BODY, so it fits.
        let packet = |body| GamePacket { length: length as u16, body };
        Ok(rest.get(..length).map(|body| (packet(body), LENGTH_LEN + length)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `stream` in reads that end at `cuts`, as a game connection does: what is not whole waits.
    fn cut(framing: Framing, stream: &[u8], cuts: &[usize]) -> Result<Vec<(u16, Vec<u8>)>, GamePacketError> {
        let mut decoder = GamePacketDecoder::new(framing);
        let (mut packets, mut start) = (Vec::new(), 0);
        for &end in cuts.iter().chain([&stream.len()]) {
            while let Some((packet, len)) = decoder.next(&stream[start..end.max(start)])? {
                assert_eq!(len, LENGTH_LEN + packet.body.len());
                packets.push((packet.length, packet.body.to_vec()));
                start += len;
            }
        }
        assert_eq!(start, stream.len(), "nothing is left over");
        Ok(packets)
    }

    fn wire(framing: Framing, bodies: &[Vec<u8>]) -> Vec<u8> {
        let count = |body: &[u8]| match framing {
            Framing::Blocks => (body.len() as u16 - 4) / 8,
            _ => body.len() as u16,
        };
        bodies.iter().flat_map(|body| [&count(body).to_le_bytes()[..], body].concat()).collect()
    }

    fn expected(bodies: &[Vec<u8>]) -> Vec<(u16, Vec<u8>)> {
        bodies.iter().map(|body| (body.len() as u16, body.clone())).collect()
    }

    #[test]
    fn split_at_every_byte() {
        for (framing, bodies) in [
            (Framing::Bytes, vec![vec![1; 12], vec![], vec![2; 1], vec![3; 300]]),
            (Framing::Blocks, vec![vec![1; 12], vec![2; 4], vec![3; 308]]),
        ] {
            let stream = wire(framing, &bodies);
            for at in 0..=stream.len() {
                for framing in [framing, Framing::Auto] {
                    assert_eq!(cut(framing, &stream, &[at]).unwrap(), expected(&bodies), "{framing:?} cut at {at}");
                }
            }
            let every: Vec<_> = (0..stream.len()).collect();
            assert_eq!(cut(Framing::Auto, &stream, &every).unwrap(), expected(&bodies));
        }
    }

    #[test]
    fn auto_decides_on_the_first_packet_alone() {
        let challenge = [&[1, 0][..], &[7; 12]].concat();
        let mut decoder = GamePacketDecoder::new(Framing::Auto);
        assert_eq!(decoder.next(&challenge[..1]), Ok(None));
        let packet = GamePacket { length: 12, body: &[7; 12] };
        assert_eq!(decoder.next(&challenge), Ok(Some((packet, 14))));
        assert_eq!(decoder.next(&[2, 0]), Ok(None), "two blocks, 20 bytes");

        let mut decoder = GamePacketDecoder::new(Framing::Auto);
        assert_eq!(decoder.next(&[&[12, 0][..], &[7; 12]].concat()), Ok(Some((packet, 14))));
        let one = GamePacket { length: 1, body: &[9] };
        assert_eq!(decoder.next(&[1, 0, 9, 9]), Ok(Some((one, 3))), "one byte, not one block");
    }

    #[test]
    fn longest_body_fills_the_clients_buffer() {
        assert_eq!(MAX_BODY, 65519);
        let body = vec![5; MAX_BODY];
        let stream = wire(Framing::Bytes, std::slice::from_ref(&body));
        assert_eq!(cut(Framing::Bytes, &stream, &[]).unwrap(), expected(&[body]));
        assert_eq!(crate::frame::HEADER_LEN + stream.len(), 65535);
    }

    #[test]
    fn too_long_is_an_error_with_the_length() {
        let too_long = |length| Err(GamePacketError::TooLong { length });
        assert_eq!(GamePacketDecoder::new(Framing::Bytes).next(&65520u16.to_le_bytes()), too_long(65520));
        assert_eq!(GamePacketDecoder::new(Framing::Auto).next(&[0xFF, 0xFF]), too_long(65535));
        assert_eq!(GamePacketDecoder::new(Framing::Blocks).next(&8190u16.to_le_bytes()), too_long(65524));
        assert_eq!(GamePacketDecoder::new(Framing::Blocks).next(&[0xFF, 0xFF]), too_long(8 * 65535 + 4));
        assert_eq!(GamePacketDecoder::new(Framing::Blocks).next(&8189u16.to_le_bytes()), Ok(None), "65516 bytes");
    }

    fn bodies(framing: Framing) -> impl Strategy<Value = Vec<Vec<u8>>> {
        let body = (any::<u8>(), 0usize..600).prop_map(move |(fill, n)| match framing {
            Framing::Blocks => vec![fill; 8 * n + 4],
            _ => vec![fill; n],
        });
        prop::collection::vec(body, 0..8)
    }

    proptest! {
        #[test]
        fn packets_survive_any_split(
            (framing, bodies) in prop_oneof![Just(Framing::Bytes), Just(Framing::Blocks)]
                .prop_flat_map(|framing| (Just(framing), bodies(framing))),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        ) {
            let stream = wire(framing, &bodies);
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.sort_unstable();
            prop_assert_eq!(cut(framing, &stream, &cuts).unwrap(), expected(&bodies));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            for framing in [Framing::Auto, Framing::Bytes, Framing::Blocks] {
                let mut decoder = GamePacketDecoder::new(framing);
                let mut rest = &bytes[..];
                while let Ok(Some((packet, len))) = decoder.next(rest) {
                    prop_assert_eq!(usize::from(packet.length), packet.body.len());
                    rest = &rest[len..];
                }
            }
        }
    }
}

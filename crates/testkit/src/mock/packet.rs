//! Numbered packets: `u16 length + body`, as the game protocol has them, with a number inside.
//!
//! The body is one byte of [`PacketOrigin`], a u64 number from 1, both little endian, and filling.

/// The body before its filling.
const HEAD: usize = 1 + 8;
/// Bytes of the shortest packet: its length and the body's head.
pub const MIN_PACKET: usize = 2 + HEAD;
/// Bytes of the longest packet that fits the way to a client: a body of 65519.
pub const MAX_PACKET: usize = 2 + 65519;

/// The side that numbered a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PacketOrigin {
    /// The player; the game server sends it back as it is.
    Player,
    /// The game server, of its own accord.
    Server,
}

/// Makes a numbered packet of `size` bytes in all, held between [`MIN_PACKET`] and [`MAX_PACKET`].
pub fn numbered(origin: PacketOrigin, number: u64, size: usize) -> Vec<u8> {
    let size = size.clamp(MIN_PACKET, MAX_PACKET);
    let mut packet = Vec::with_capacity(size);
    packet.extend(((size - 2) as u16).to_le_bytes());
    packet.push(match origin {
        PacketOrigin::Player => b'P',
        PacketOrigin::Server => b'S',
    });
    packet.extend(number.to_le_bytes());
    packet.resize(size, b'.');
    packet
}

/// Returns the side that numbered a packet, its length included, and the number; `None` if it has none.
pub fn number(packet: &[u8]) -> Option<(PacketOrigin, u64)> {
    let (length, body) = packet.split_first_chunk::<2>()?;
    let (origin, rest) = body.split_first()?;
    let number = rest.first_chunk::<8>()?;
    let origin = match origin {
        b'P' => PacketOrigin::Player,
        b'S' => PacketOrigin::Server,
        _ => return None,
    };
    (usize::from(u16::from_le_bytes(*length)) == body.len()).then(|| (origin, u64::from_le_bytes(*number)))
}

/// Splits the first packet off `bytes`, its length included: it, and what follows. `None` where it
/// is not whole yet.
pub fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u16::from_le_bytes(*bytes.first_chunk::<2>()?);
    bytes.split_at_checked(2 + usize::from(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_the_way() {
        for (origin, size) in
            [(PacketOrigin::Player, 0), (PacketOrigin::Server, 100), (PacketOrigin::Player, usize::MAX)]
        {
            let packet = numbered(origin, 1 << 40, size);
            assert_eq!(packet.len(), size.clamp(MIN_PACKET, MAX_PACKET));
            assert_eq!(number(&packet), Some((origin, 1 << 40)));
        }
    }

    #[test]
    fn packets_are_cut_at_every_byte() {
        let bytes = [numbered(PacketOrigin::Player, 1, 20), numbered(PacketOrigin::Server, 2, 30)].concat();
        for cut in 0..20 {
            assert_eq!(split(&bytes[..cut]), None);
        }
        let (first, rest) = split(&bytes).unwrap();
        assert_eq!((number(first), number(rest)), (Some((PacketOrigin::Player, 1)), Some((PacketOrigin::Server, 2))));
    }

    #[test]
    fn what_is_not_numbered_has_no_number() {
        let mut long = numbered(PacketOrigin::Player, 1, 20);
        long.push(0);
        for packet in [&b""[..], b"\0\0", b"\x01\0P", b"\x09\0X12345678", &long] {
            assert_eq!(number(packet), None);
        }
    }
}

//! Messages between a load test's player and the mock game server, in packets of the game's form: `u16 length + body`,
//! little endian. A body is one byte for the kind, numbers of 8 bytes, and padding.
//!
//! A player sends its [`Message::Terms`] first, and is welcomed. From then on the server pushes by the terms and
//! answers each packet of the player's at once; pushes and answers are numbered together. At the end the player asks
//! for the result, which is the server's last packet.

use super::packet::MAX_PACKET;
use crate::delivery::Delivery;

/// Numbers in the longest message.
const FIELDS: usize = 7;
/// Bytes of the shortest packet that can be a [`Message::Up`].
pub const MIN_UP: usize = 2 + 1 + 2 * 8;
/// Bytes of the shortest packet that can be any message of the server's while it is measured.
pub const MIN_DOWN: usize = 2 + 1 + 3 * 8;

/// One message. Times are nanoseconds of the sender's [`super::clock`], except where said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// Player: what the server shall do on this connection.
    Terms {
        /// Nanoseconds from one push to the next; 0 for none.
        every: u64,
        /// Nanoseconds to the first push.
        first: u64,
        /// Bytes of each push and answer.
        size: u64,
    },
    /// Server: agreed.
    Welcome {
        /// The clock of its times: [`super::clock::id`].
        clock: u64,
    },
    /// Player: a packet of the load.
    Up {
        /// From 1.
        number: u64,
        /// The time at which it was to be sent.
        sent: u64,
    },
    /// Server: a packet of the load.
    Push {
        /// From 1, together with answers.
        number: u64,
        /// The time at which it was to be sent.
        sent: u64,
    },
    /// Server: an [`Message::Up`] has arrived.
    Answer {
        /// From 1, together with pushes.
        number: u64,
        /// The time at which the question arrived and this answer was sent.
        sent: u64,
        /// The question's `sent`: a time of the player's clock.
        asked: u64,
    },
    /// Player: no more from here; what has become of it?
    Question {
        /// Packets that it sent.
        sent: u64,
    },
    /// Server: no more from here.
    Verdict {
        /// Packets that it sent, pushes and answers.
        sent: u64,
        /// The result for the player's packets.
        received: Delivery,
    },
}

impl Message {
    /// Returns the packet: of `size` bytes, or as many as it needs.
    pub fn packet(&self, size: usize) -> Vec<u8> {
        let (kind, fields) = self.fields();
        let least = 2 + 1 + 8 * fields.len();
        let size = size.clamp(least, MAX_PACKET);
        let mut packet = Vec::with_capacity(size);
        packet.extend(((size - 2) as u16).to_le_bytes());
        packet.push(kind);
        fields.iter().for_each(|field| packet.extend(field.to_le_bytes()));
        packet.resize(size, b'.');
        packet
    }

    fn fields(&self) -> (u8, Fields) {
        match *self {
            Self::Terms { every, first, size } => (b't', Fields::of(&[every, first, size])),
            Self::Welcome { clock } => (b'w', Fields::of(&[clock])),
            Self::Up { number, sent } => (b'u', Fields::of(&[number, sent])),
            Self::Push { number, sent } => (b'p', Fields::of(&[number, sent])),
            Self::Answer { number, sent, asked } => (b'a', Fields::of(&[number, sent, asked])),
            Self::Question { sent } => (b'q', Fields::of(&[sent])),
            Self::Verdict { sent, received } => {
                let Delivery { delivered, lost, duplicated, reordered, alien, exact } = received;
                (b'v', Fields::of(&[sent, delivered, lost, duplicated, reordered, alien, exact.into()]))
            }
        }
    }

    /// Returns the message in a packet, its length included; `None` if it has none.
    pub fn of(packet: &[u8]) -> Option<Self> {
        let (length, body) = packet.split_first_chunk::<2>()?;
        let (kind, fields) = body.split_first()?;
        if usize::from(u16::from_le_bytes(*length)) != body.len() {
            return None;
        }
        let mut fields = fields.chunks_exact(8).map(|field| field.try_into().map_or(0, u64::from_le_bytes));
        let mut next = || fields.next();
        Some(match kind {
            b't' => Self::Terms { every: next()?, first: next()?, size: next()? },
            b'w' => Self::Welcome { clock: next()? },
            b'u' => Self::Up { number: next()?, sent: next()? },
            b'p' => Self::Push { number: next()?, sent: next()? },
            b'a' => Self::Answer { number: next()?, sent: next()?, asked: next()? },
            b'q' => Self::Question { sent: next()? },
            b'v' => Self::Verdict {
                sent: next()?,
                received: Delivery {
                    delivered: next()?,
                    lost: next()?,
                    duplicated: next()?,
                    reordered: next()?,
                    alien: next()?,
                    exact: next()? == 1,
                },
            },
            _ => return None,
        })
    }
}

/// The numbers of one message.
struct Fields {
    values: [u64; FIELDS],
    count: usize,
}

impl Fields {
    fn of(values: &[u64]) -> Self {
        let mut fields = Self { values: [0; FIELDS], count: values.len() };
        fields.values.iter_mut().zip(values).for_each(|(to, from)| *to = *from);
        fields
    }

    fn len(&self) -> usize {
        self.count
    }

    fn iter(&self) -> impl Iterator<Item = &u64> {
        self.values.iter().take(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> [Message; 7] {
        let received = Delivery { delivered: 9, lost: 1, duplicated: 2, reordered: 3, alien: 4, exact: true };
        [
            Message::Terms { every: 1, first: 2, size: 3 },
            Message::Welcome { clock: u64::MAX },
            Message::Up { number: 1, sent: 2 },
            Message::Push { number: 3, sent: 4 },
            Message::Answer { number: 5, sent: 6, asked: 7 },
            Message::Question { sent: 8 },
            Message::Verdict { sent: 1 << 40, received },
        ]
    }

    #[test]
    fn messages_survive_the_way_at_any_size() {
        for message in all() {
            for size in [0, 30, 120, MAX_PACKET, usize::MAX] {
                let packet = message.packet(size);
                assert!(packet.len() == size || packet.len() < 2 + 1 + 8 * 8 || size > MAX_PACKET);
                assert_eq!(Message::of(&packet), Some(message));
                assert_eq!(super::super::packet::split(&packet), Some((&packet[..], &b""[..])));
            }
        }
        assert_eq!(Message::Up { number: 1, sent: 1 }.packet(0).len(), MIN_UP);
        assert_eq!(Message::Answer { number: 1, sent: 1, asked: 1 }.packet(0).len(), MIN_DOWN);
    }

    #[test]
    fn half_a_message_and_a_strange_one_are_none() {
        for message in all() {
            let packet = message.packet(0);
            for cut in 0..packet.len() {
                assert_eq!(Message::of(&packet[..cut]), None);
            }
            // A length that fits, but too few numbers.
            let mut short = packet[..packet.len() - 1].to_vec();
            short[0] -= 1;
            assert_eq!(Message::of(&short), None);
        }
        assert_eq!(Message::of(b"\x09\0z12345678"), None);
        assert_eq!(Message::of(b"\x09\0P12345678"), None, "of the demo");
    }
}

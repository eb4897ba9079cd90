//! Packets of a game server: any cut yields the same ones, framed for clients.

use arbitrary::Unstructured;
use otproxy_config::Framing;
use otproxy_protocol::core::Batch;
use otproxy_protocol::frame::{Frame, FromCore, PacketId, SessionId};
use otproxy_protocol::game_packet::{GamePacketDecoder, GamePacketError, LENGTH_LEN, MAX_BODY};

use super::pieces::{Pieces, read};

/// Takes [`Framing`], [`Pieces`], then a game connection's stream.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let framings = [Framing::Auto, Framing::Bytes, Framing::Blocks];
    let Ok(framing) = input.choose(&framings) else { return };
    let Ok(pieces) = Pieces::take(&mut input) else { return };
    let stream = input.take_rest();
    let expected = as_the_format_says(*framing, stream);
    let cut = |pieces: &mut dyn Iterator<Item = &'_ [u8]>| {
        let mut decoder = GamePacketDecoder::new(*framing);
        read(pieces, LENGTH_LEN + MAX_BODY, |bytes| {
            let Some((packet, length)) = decoder.next(bytes)? else { return Ok(None) };
            assert_eq!(usize::from(packet.length), packet.body.len());
            check_framing(packet.length, packet.body);
            Ok(Some((packet.body.to_vec(), length)))
        })
    };
    assert_eq!(cut(&mut [stream].into_iter()), expected, "whole");
    assert_eq!(cut(&mut pieces.of(stream)), expected, "{pieces:?}");
}

/// Returns the bodies of a stream's packets, read once more in the plainest way.
fn as_the_format_says(framing: Framing, stream: &[u8]) -> (Vec<Vec<u8>>, Option<GamePacketError>) {
    let blocks = match framing {
        Framing::Auto => stream.starts_with(&[1, 0]),
        Framing::Bytes => false,
        Framing::Blocks => true,
    };
    let (mut bodies, mut at) = (Vec::new(), 0);
    while let Some(count) = stream.get(at..at + 2) {
        let count = usize::from(count[0]) + 256 * usize::from(count[1]);
        let length = if blocks { count * 8 + 4 } else { count };
        if length > 65519 {
            return (bodies, Some(GamePacketError::TooLong { length }));
        }
        let Some(body) = stream.get(at + 2..at + 2 + length) else { break };
        bodies.push(body.to_vec());
        at += 2 + length;
    }
    (bodies, None)
}

/// Checks that a packet becomes a frame that a client can read, as a packet of bytes.
fn check_framing(length: u16, body: &[u8]) {
    let mut batch = Batch::default();
    batch.push(SessionId(1), PacketId(2), PacketId(3), length, body);
    let mut outbox = otproxy_protocol::core::Outbox::default();
    outbox.push(batch);
    let mut slices = [std::io::IoSlice::new(&[])];
    assert_eq!(outbox.gather(&outbox.start(), &mut slices), 1);
    assert!(slices[0].len() <= 65535, "{} bytes, and clients have room for 65535", slices[0].len());
    let (frame, rest) = Frame::split(&slices[0]).expect("a frame").expect("a whole one");
    assert!(rest.is_empty());
    let Some(FromCore::Data { payload, .. }) = frame.from_core() else { panic!("{frame:?}") };
    assert_eq!((&payload[..2], &payload[2..]), (&length.to_le_bytes()[..], body));
}

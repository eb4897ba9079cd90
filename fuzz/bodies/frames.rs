//! Frames: any cut yields the same ones, and a frame that was read is written as it was.

use arbitrary::Unstructured;
use otproxy_protocol::frame::{self, Frame, FrameError, FromClient, FromCore, HEADER_LEN, MAX_PAYLOAD};

use super::pieces::{Pieces, read};

/// A frame's fields and payload.
type Fields = (u32, u32, u32, Vec<u8>);

/// Takes [`Pieces`], then a link's stream.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(pieces) = Pieces::take(&mut input) else { return };
    let stream = input.take_rest();
    let split = |bytes: &[u8]| {
        let Some((frame, rest)) = Frame::split(bytes)? else { return Ok(None) };
        assert_eq!(frame.wire_len() + rest.len(), bytes.len());
        check_writing(frame, &bytes[..frame.wire_len()]);
        let fields = (frame.session, frame.packet, frame.ack, frame.payload.to_vec());
        Ok(Some((fields, frame.wire_len())))
    };
    let expected = as_the_format_says(stream);
    assert_eq!(read([stream].into_iter(), HEADER_LEN + MAX_PAYLOAD, split), expected, "whole");
    assert_eq!(read(pieces.of(stream), HEADER_LEN + MAX_PAYLOAD, split), expected, "{pieces:?}");
}

/// Returns the frames of a stream, read once more in the plainest way.
fn as_the_format_says(mut stream: &[u8]) -> (Vec<Fields>, Option<FrameError>) {
    let mut frames = Vec::new();
    while stream.len() >= 2 {
        let length = u16::from_le_bytes([stream[0], stream[1]]);
        if length < 12 {
            return (frames, Some(FrameError::TooShort(length)));
        }
        let end = 2 + usize::from(length);
        if stream.len() < end {
            break;
        }
        let field = |at: usize| u32::from_le_bytes(stream[at..at + 4].try_into().expect("four bytes"));
        frames.push((field(2), field(6), field(10), stream[14..end].to_vec()));
        stream = &stream[end..];
    }
    (frames, None)
}

/// Writes what a frame means, in both directions: the same bytes, or else ones of the same meaning.
fn check_writing(frame: Frame<'_>, bytes: &[u8]) {
    let again = |written: &[u8], same: bool| {
        let (read, rest) = Frame::split(written).expect("a frame").expect("a whole one");
        assert!(rest.is_empty());
        if same {
            assert_eq!(written, bytes);
        }
        assert_eq!(read.from_client(), frame.from_client());
    };
    match frame.from_client() {
        FromClient::Ping { client, rtt } => {
            again(&frame::ping(client, rtt.map_or(0, |rtt| rtt.as_millis() as u32)), false);
        }
        FromClient::Open { session, port } => {
            if let Ok(port) = u16::try_from(port) {
                again(&frame::open(session, port), frame.payload.is_empty());
            }
        }
        FromClient::Data { session, packet, ack, payload } => {
            again(&[&frame::data_header(session, packet, ack, payload.len())[..], payload].concat(), true);
        }
        FromClient::Leave { session } => again(&frame::end(session), frame.payload.is_empty() && frame.ack == 0),
    }
    match (frame.from_core(), frame.from_client()) {
        (Some(FromCore::Pong), FromClient::Ping { .. }) | (None, FromClient::Open { .. }) => {}
        (Some(FromCore::End { session }), FromClient::Leave { session: same }) => assert_eq!(session, same),
        (
            Some(FromCore::Data { session, packet, ack, payload }),
            FromClient::Data { session: session_up, packet: packet_up, ack: ack_up, payload: payload_up },
        ) => assert_eq!((session, packet, ack, payload), (session_up, packet_up, ack_up, payload_up)),
        (down, up) => panic!("{down:?} from the core, and {up:?} from a client"),
    }
}

//! Status requests and answers: a verdict once given stays, and what is published is stable.

use arbitrary::{Result, Unstructured};
use otproxy_protocol::status::{FirstPacket, MAX_REQUEST, PublishedFields, StatusRequest, first};

/// Every prefix up to this many bytes is tried; further ones at a stride.
const ALL_PREFIXES: usize = 300;

/// Takes the beginning of a connection, and the answer of a game server.
pub fn run(data: &[u8]) {
    check_request(data);
    let mut input = Unstructured::new(data);
    if let Ok(request) = request(&mut input) {
        check_answer(&request, input.take_rest());
    }
}

fn check_request(bytes: &[u8]) {
    let verdict = first(bytes);
    let strided = (ALL_PREFIXES..bytes.len()).step_by(61);
    for cut in (0..bytes.len().min(ALL_PREFIXES)).chain(strided) {
        let early = first(&bytes[..cut]);
        assert!(early.is_none() || early == verdict, "{early:?} at {cut}, {verdict:?} in the end");
        assert!(early.is_some() || cut < MAX_REQUEST, "{cut} bytes, and no verdict");
    }
    if let Some(FirstPacket::Request(request)) = verdict {
        assert_eq!(first(&request.to_bytes()), Some(FirstPacket::Request(request)), "as it is sent on");
    }
}

fn check_answer(request: &StatusRequest, answer: &[u8]) {
    let published = PublishedFields { address: "play.example", port: Some(7171), online: Some(12) };
    let Ok(once) = request.publish(answer, published) else { return };
    let twice = request.publish(&once, published);
    // JSON may be rounded with each reading.
    assert!(if *request == StatusRequest::Json { twice.is_ok() } else { twice.as_ref() == Ok(&once) }, "{twice:?}");
}

fn request(input: &mut Unstructured<'_>) -> Result<StatusRequest> {
    Ok(match input.int_in_range(0..=2u8)? {
        0 => StatusRequest::Xml,
        1 => StatusRequest::Json,
        _ => StatusRequest::Parts { flags: input.arbitrary()?, name: Vec::new() },
    })
}

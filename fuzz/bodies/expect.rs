//! Beginnings of connections: a verdict once given stays, and comes in time.

use otproxy_protocol::frame::{Frame, FromClient, begins_link};
use otproxy_protocol::sniff::{Expect, MAX_FIRST, Verdict};

/// Sniffs the beginning of a connection.
pub fn run(bytes: &[u8]) {
    assert_eq!(Expect::Any.judge(bytes), Verdict::Right);
    for expect in [Expect::Links, Expect::Login, Expect::Status] {
        let mut known = None;
        for cut in 0..=bytes.len().min(MAX_FIRST + 10) {
            let verdict = expect.judge(&bytes[..cut]);
            match known {
                Some((first, at)) => assert_eq!(verdict, first, "{expect:?}: known at {at}, another at {cut}"),
                None if verdict != Verdict::Incomplete => known = Some((verdict, cut)),
                None => assert!(cut < MAX_FIRST, "{expect:?}: {cut} bytes, and no verdict"),
            }
        }
    }
    if Expect::Status.judge(bytes) == Verdict::Right {
        assert_eq!(Expect::Login.judge(bytes), Verdict::Right, "one port has both");
    }
    let links = Expect::Links.judge(bytes) == Verdict::Right;
    assert_eq!(begins_link(bytes), links);
    if links {
        let (first, _) = Frame::split(bytes).expect("a frame").expect("a whole one");
        assert!(matches!(first.from_client(), FromClient::Ping { .. }), "{first:?}");
    }
}

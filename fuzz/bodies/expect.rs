//! Beginnings of connections: a verdict once given stays, and comes in time.

use otproxy_protocol::frame::{Frame, FromClient, begins_link};
use otproxy_protocol::sniff::{MAX_FIRST, ProtocolSniffer, Sniffed};

/// Sniffs the beginning of a connection.
pub fn run(bytes: &[u8]) {
    assert_eq!(ProtocolSniffer::Any.sniff(bytes), Sniffed::Right);
    for expect in [ProtocolSniffer::Links, ProtocolSniffer::Login, ProtocolSniffer::Status] {
        let mut known = None;
        for cut in 0..=bytes.len().min(MAX_FIRST + 10) {
            let verdict = expect.sniff(&bytes[..cut]);
            match known {
                Some((first, at)) => assert_eq!(verdict, first, "{expect:?}: known at {at}, another at {cut}"),
                None if verdict != Sniffed::Incomplete => known = Some((verdict, cut)),
                None => assert!(cut < MAX_FIRST, "{expect:?}: {cut} bytes, and no verdict"),
            }
        }
    }
    if ProtocolSniffer::Status.sniff(bytes) == Sniffed::Right {
        assert_eq!(ProtocolSniffer::Login.sniff(bytes), Sniffed::Right, "one port has both");
    }
    let links = ProtocolSniffer::Links.sniff(bytes) == Sniffed::Right;
    assert_eq!(begins_link(bytes), links);
    if links {
        let (first, _) = Frame::split(bytes).expect("a frame").expect("a whole one");
        assert!(matches!(first.from_client(), FromClient::Ping { .. }), "{first:?}");
    }
}

//! PROXY headers: a verdict once given stays, and what is written is read back.

use std::net::SocketAddr;

use arbitrary::{Result, Unstructured};
use otproxy_protocol::proxy_header::{
    HeaderError, MAX_LEN, ProxyHeader, may_be_header, parse, unmap_socket, write_v1, write_v2,
};

/// Every prefix up to this many bytes is tried; further ones at a stride.
const ALL_PREFIXES: usize = 300;

/// Reads the beginning of a connection. The same bytes are also two addresses to be written.
pub fn run(data: &[u8]) {
    check_reading(data);
    let mut input = Unstructured::new(data);
    if let (Ok(source), Ok(destination)) = (address(&mut input), address(&mut input)) {
        check_writing(source, destination, input.take_rest());
    }
}

fn check_reading(bytes: &[u8]) {
    let verdict = parse(bytes);
    assert_eq!(may_be_header(bytes), verdict != Err(HeaderError::Signature));
    let strided = (ALL_PREFIXES..bytes.len()).step_by(61);
    let mut known = None;
    for cut in (0..bytes.len().min(ALL_PREFIXES)).chain(strided).chain([bytes.len()]) {
        let early = parse(&bytes[..cut]);
        match &known {
            Some((first, at)) => assert_eq!(early, *first, "known at {at}, another at {cut}"),
            None if early != Ok(None) => known = Some((early, cut)),
            None => assert!(cut < MAX_LEN, "{cut} bytes, and no verdict"),
        }
    }
    let Ok(Some((header, length))) = verdict else { return };
    assert!(length <= bytes.len() && length <= MAX_LEN, "{length} bytes of {}", bytes.len());
    assert_eq!(parse(&bytes[..length]), verdict, "what follows a header does not matter");
    assert!(parse(&bytes[..length - 1]) == Ok(None), "one byte less is not whole");
    assert_eq!(header.source.is_some(), header.destination.is_some());
    if let (Some(source), Some(destination)) = (header.source, header.destination) {
        assert_eq!((source, destination), (unmap_socket(source), unmap_socket(destination)), "v4-mapped");
        check_writing(source, destination, &bytes[length..]);
    }
}

fn check_writing(source: SocketAddr, destination: SocketAddr, behind: &[u8]) {
    let header = ProxyHeader { source: Some(unmap_socket(source)), destination: Some(unmap_socket(destination)) };
    for write in [write_v1, write_v2] {
        let mut bytes = b"before".to_vec();
        write(&mut bytes, source, destination);
        let mut bytes = bytes.split_off(6);
        let length = bytes.len();
        assert_eq!(parse(&bytes[..length - 1]), Ok(None));
        bytes.extend_from_slice(behind);
        assert_eq!(parse(&bytes), Ok(Some((header, length))));
    }
}

/// Takes a family, an address, and a port.
fn address(input: &mut Unstructured<'_>) -> Result<SocketAddr> {
    // A scope or a flow label cannot be expressed in a header.
    let ip = match input.int_in_range(0..=2u8)? {
        0 => input.arbitrary::<[u8; 4]>()?.into(),
        1 => std::net::Ipv4Addr::from(input.arbitrary::<[u8; 4]>()?).to_ipv6_mapped().into(),
        _ => input.arbitrary::<[u8; 16]>()?.into(),
    };
    Ok(SocketAddr::new(ip, input.arbitrary()?))
}

use proptest::prelude::*;

use super::*;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn v2_header(version_command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [SIGNATURE, &[version_command, family]].concat();
    bytes.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn addresses(source: &str, destination: &str) -> ProxyHeader {
    ProxyHeader { source: Some(source.parse().unwrap()), destination: Some(destination.parse().unwrap()) }
}

/// Parses `bytes` with more behind them, and every start of them, which must all be incomplete.
fn parse_whole(bytes: &[u8]) -> ProxyHeader {
    for cut in 0..bytes.len() {
        assert_eq!(parse(&bytes[..cut]), Ok(None), "cut at {cut} of {}", bytes.escape_ascii());
        assert!(may_be_header(&bytes[..cut]));
    }
    let followed = [bytes, b"\r\nplayer"].concat();
    let (header, len) = parse(&followed).unwrap().unwrap();
    assert_eq!(len, bytes.len(), "{}", bytes.escape_ascii());
    assert_eq!(parse(bytes), Ok(Some((header, len))));
    header
}

/// Returns the error of `bytes`, and how many of them it took to know.
fn error_at(bytes: &[u8]) -> (HeaderError, usize) {
    for cut in 0..=bytes.len() {
        match parse(&bytes[..cut]) {
            Ok(None) => {}
            Ok(Some(parsed)) => panic!("{} is {parsed:?}", bytes[..cut].escape_ascii()),
            Err(error) => return (error, cut),
        }
    }
    panic!("{} is incomplete", bytes.escape_ascii());
}

#[test]
fn v2_of_every_family() {
    let v4 = [192, 0, 2, 1, 198, 51, 100, 2, 0x1F, 0x90, 0x1C, 0x03];
    assert_eq!(parse_whole(&v2_header(0x21, 0x11, &v4)), addresses("192.0.2.1:8080", "198.51.100.2:7171"));

    let mut v6 = "2001:db8::1".parse::<Ipv6Addr>().unwrap().octets().to_vec();
    v6.extend("2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
    v6.extend([0, 1, 0, 2]);
    assert_eq!(parse_whole(&v2_header(0x21, 0x21, &v6)), addresses("[2001:db8::1]:1", "[2001:db8::2]:2"));

    for (family, payload) in [(0x00, &[][..]), (0x01, &[1, 2, 3]), (0x31, &[7; 216]), (0x12, &v4), (0x10, &v4)] {
        let header = parse_whole(&v2_header(0x21, family, payload));
        assert_eq!(header, ProxyHeader::NO_ADDRESSES, "{family:#x}");
    }
}

#[test]
fn v2_unwraps_mapped_addresses() {
    let mut payload = "::ffff:192.0.2.1".parse::<Ipv6Addr>().unwrap().octets().to_vec();
    payload.extend("2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
    payload.extend([0, 1, 0, 2]);
    assert_eq!(parse_whole(&v2_header(0x21, 0x21, &payload)), addresses("192.0.2.1:1", "[2001:db8::2]:2"));
}

#[test]
fn v2_skips_tlvs() {
    let v4 = [192, 0, 2, 1, 198, 51, 100, 2, 0, 1, 0, 2];
    let tlvs: &[&[u8]] = &[&[0x04, 0, 0], &[0x03, 0, 4, 1, 2, 3, 4], &[0xEE, 0xFF, 0xFF], &[0], &[9; 600]];
    for tlv in tlvs {
        let header = parse_whole(&v2_header(0x21, 0x11, &[&v4, *tlv].concat()));
        assert_eq!(header, addresses("192.0.2.1:1", "198.51.100.2:2"));
    }
}

#[test]
fn v2_local_is_valid_whatever_it_carries() {
    for (family, payload) in [(0x00, &[][..]), (0x11, &[]), (0x11, &[1; 12]), (0xFF, &[1, 2, 3]), (0x21, &[0; 3])] {
        let header = parse_whole(&v2_header(0x20, family, payload));
        assert_eq!(header, ProxyHeader::NO_ADDRESSES, "{family:#x}");
    }
}

#[test]
fn v2_errors_at_the_first_wrong_byte() {
    assert_eq!(error_at(b"\r\n\r\n\0\r\nQUIX\n"), (HeaderError::Signature, 11));
    assert_eq!(error_at(&v2_header(0x11, 0x11, &[])), (HeaderError::Version(1), 13));
    assert_eq!(error_at(&v2_header(0x22, 0x11, &[])), (HeaderError::Command(2), 13));
    assert_eq!(error_at(&v2_header(0x21, 0x41, &[])), (HeaderError::Family(0x41), 14));
    assert_eq!(error_at(&v2_header(0x21, 0x13, &[])), (HeaderError::Family(0x13), 14));
    assert_eq!(error_at(&v2_header(0x21, 0x11, &[0; 11])), (HeaderError::PayloadTooShort(11), 16));
    assert_eq!(error_at(&v2_header(0x21, 0x21, &[0; 35])), (HeaderError::PayloadTooShort(35), 16));
    assert_eq!(error_at(&v2_header(0x21, 0x31, &[0; 215])), (HeaderError::PayloadTooShort(215), 16));
}

#[test]
fn v2_payload_limit() {
    for version_command in [0x20, 0x21] {
        assert_eq!(parse_whole(&v2_header(version_command, 0x00, &[0; MAX_PAYLOAD])), ProxyHeader::NO_ADDRESSES);
        let bytes = v2_header(version_command, 0x00, &[0; MAX_PAYLOAD + 1]);
        assert_eq!(error_at(&bytes), (HeaderError::PayloadTooLong(MAX_PAYLOAD + 1), 16));
    }
}

#[test]
fn v1_lines() {
    assert_eq!(
        parse_whole(b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"),
        addresses("192.0.2.1:56324", "198.51.100.2:443")
    );
    assert_eq!(
        parse_whole(b"PROXY TCP6 2001:db8::1 2001:DB8::2 0 65535\r\n"),
        addresses("[2001:db8::1]:0", "[2001:db8::2]:65535")
    );
    assert_eq!(
        parse_whole(b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n"),
        addresses("192.0.2.1:1", "[::1]:2"),
        "mapped addresses are unwrapped"
    );
    let longest = [&b"PROXY UNKNOWN "[..], &[b'x'; 91], b"\r\n"].concat();
    assert_eq!(longest.len(), V1_MAX_LEN);
    let unknown: &[&[u8]] = &[
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN \r\n",
        b"PROXY UNKNOWN a b c d e f g h\r\n",
        b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n",
        b"PROXY UNKNOWN \xFF\0 \r not UTF-8\r\n",
        &longest,
    ];
    for line in unknown {
        assert_eq!(parse_whole(line), ProxyHeader::NO_ADDRESSES);
    }
}

#[test]
fn v1_errors() {
    // The line, and how many bytes of it show that it is wrong.
    let lines: &[(&str, usize)] = &[
        ("PROXY  TCP4", 7),
        ("PROXY TCP5", 10),
        ("PROXY UDP4", 8),
        ("PROXY tcp4", 7),
        ("PROXY \r\n", 7),
        ("PROXY UNKNOWNX\r\n", 14),
        ("PROXY UNKNOWN\n", 14),
        ("PROXY TCP4\r\n", 11),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n", 31),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\rx", 32),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n", 31),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", 29),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 1 \r\n", 30),
        ("PROXY TCP4 1.2.3.4 5.6.7.8  1 2\r\n", 28),
        ("PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n", 17),
        ("PROXY TCP4 1.2.3.400 5.6.7.8 1 2\r\n", 21),
        ("PROXY TCP4 ::1 ::1 1 2\r\n", 12),
        ("PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n", 19),
        ("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", 19),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n", 32),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 1 99999\r\n", 34),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n", 28),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n", 28),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 x 2\r\n", 28),
        // HAProxy lets leading zeros pass; the format forbids them.
        ("PROXY TCP4 1.2.3.4 5.6.7.8 080 2\r\n", 29),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 80 00\r\n", 32),
    ];
    for (line, at) in lines {
        assert_eq!(error_at(line.as_bytes()), (HeaderError::Line, *at), "{line:?}");
    }
    let endless = [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat();
    assert_eq!(error_at(&endless), (HeaderError::LineTooLong, V1_MAX_LEN));
}

#[test]
fn anything_else_is_no_header() {
    for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"\x06\x00\xFF\xFFinfo", b"PROXX", b"\r\n\r\r"] {
        assert!(!may_be_header(bytes));
        assert_eq!(parse(bytes), Err(HeaderError::Signature));
    }
    assert!(may_be_header(b""));
    assert!(may_be_header(b"PROXY nonsense"), "a bad header, and not a player's first bytes");
}

#[test]
fn written_headers_are_what_ppp_builds() {
    for (source, destination, len) in [
        ("192.0.2.1:1", "198.51.100.2:2", 28),
        ("[::ffff:192.0.2.1]:1", "198.51.100.2:2", 28),
        ("[2001:db8::1]:1", "[2001:db8::2]:2", 52),
        ("192.0.2.1:1", "[2001:db8::2]:2", 52),
        ("[2001:db8::1]:1", "198.51.100.2:2", 52),
    ] {
        let pair: (SocketAddr, SocketAddr) = (source.parse().unwrap(), destination.parse().unwrap());
        let mut bytes = Vec::new();
        write_v2(&mut bytes, pair.0, pair.1);
        let built = v2::Builder::with_addresses(
            v2::Version::Two | v2::Command::Proxy,
            v2::Protocol::Stream,
            one_family(pair.0, pair.1),
        );
        assert_eq!(bytes, built.build().unwrap());
        assert_eq!(bytes.len(), len);
    }
    let mut line = Vec::new();
    write_v1(&mut line, "192.0.2.1:1".parse().unwrap(), "[2001:db8::2]:2".parse().unwrap());
    assert_eq!(line.escape_ascii().to_string(), "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\\r\\n");
}

fn socket() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<([u8; 4], u16)>().prop_map(|(ip, port)| SocketAddr::new(ip.into(), port)),
        any::<([u8; 16], u16)>().prop_map(|(ip, port)| SocketAddr::new(ip.into(), port)),
        any::<([u8; 4], u16)>()
            .prop_map(|(ip, port)| SocketAddr::new(std::net::Ipv4Addr::from(ip).to_ipv6_mapped().into(), port)),
    ]
}

/// Generates bytes that get further into the parser than random ones do.
fn nearly_a_header() -> impl Strategy<Value = Vec<u8>> {
    let line = "PROXY (TCP4|TCP6|UNKNOWN)( (1\\.2\\.3\\.[0-9]{1,3}|::[0-9a-f]{1,4})){0,3}( [0-9]{0,6}){0,3}\r?\n?";
    let v2 = (0x1Fu8..0x23, prop::sample::select(vec![0u8, 0x11, 0x21, 0x31, 0x12, 0x44]), 0usize..300)
        .prop_map(|(command, family, len)| v2_header(command, family, &vec![5; len]));
    prop_oneof![any::<Vec<u8>>(), line.prop_map(String::into_bytes), v2]
}

proptest! {
    #[test]
    fn what_is_known_stays_so(bytes in nearly_a_header(), more in any::<Vec<u8>>(), cut in any::<prop::sample::Index>()) {
        let bytes = [bytes, more].concat();
        let verdict = parse(&bytes);
        let cut = &bytes[..cut.index(bytes.len() + 1)];
        let early = parse(cut);
        prop_assert!(early == Ok(None) || early == verdict, "{:?} of {}, then {:?}", early, cut.escape_ascii(), verdict);
        if let Ok(Some((_, len))) = verdict {
            prop_assert!(len <= bytes.len() && len <= MAX_LEN);
        }
        prop_assert_eq!(may_be_header(&bytes), verdict != Err(HeaderError::Signature));
    }

    #[test]
    fn written_headers_are_read_back(source in socket(), destination in socket(), tail in any::<Vec<u8>>()) {
        let expected = ProxyHeader { source: Some(unmap_socket(source)), destination: Some(unmap_socket(destination)) };
        for write in [write_v1, write_v2] {
            let mut bytes = Vec::new();
            write(&mut bytes, source, destination);
            let len = bytes.len();
            bytes.extend_from_slice(&tail);
            prop_assert_eq!(parse(&bytes), Ok(Some((expected, len))));
            prop_assert_eq!(parse(&bytes[..len - 1]), Ok(None));
        }
    }
}

#[test]
fn an_authority_is_read_where_it_was_written() {
    for (source, destination) in [("192.0.2.1:5", "192.0.2.2:6"), ("[2001:db8::1]:5", "[2001:db8::2]:6")] {
        for name in ["links", "", &"x".repeat(MAX_AUTHORITY)] {
            let mut bytes = Vec::new();
            write_v2_to(&mut bytes, source.parse().unwrap(), destination.parse().unwrap(), Some(name));
            let len = bytes.len();
            bytes.extend_from_slice(b"the player's own bytes");
            let (header, used) = parse(&bytes).unwrap().unwrap();
            assert_eq!((header.source.unwrap().to_string().as_str(), used), (source, len));
            assert_eq!(authority(&bytes), Some(name));
            assert_eq!(authority(&bytes[..len - 1]), None, "not whole");
        }
        let mut bytes = Vec::new();
        write_v2(&mut bytes, source.parse().unwrap(), destination.parse().unwrap());
        assert_eq!(authority(&bytes), None);
    }
    let mut cut = Vec::new();
    let address = "192.0.2.1:5".parse().unwrap();
    write_v2_to(&mut cut, address, address, Some(&"y".repeat(MAX_AUTHORITY + 1)));
    assert_eq!(authority(&cut).map(str::len), Some(MAX_AUTHORITY));
}

#[test]
fn an_authority_is_found_behind_others_and_not_in_what_is_malformed() {
    let of = |values: &[u8]| {
        let address = "192.0.2.1:5".parse().unwrap();
        let mut bytes = Vec::new();
        write_v2(&mut bytes, address, address);
        bytes[15] += values.len() as u8;
        bytes.extend_from_slice(values);
        authority(&bytes).map(str::to_owned)
    };
    assert_eq!(of(b"\x05\0\x02ab\x02\0\x05login").as_deref(), Some("login"));
    assert_eq!(of(b"\x02\0\x05login\x02\0\x05links").as_deref(), Some("login"));
    assert_eq!(of(b"\x02\0\x06login"), None, "longer than there is");
    assert_eq!(of(b"\x05\0\x09ab\x02\0\x05login"), None);
    assert_eq!(of(b"\x02\0\x02\xff\xfe"), None, "no text");
    assert_eq!(of(b"\x02\0"), None);
    assert_eq!(authority(LOCAL), None);
    assert_eq!(authority(b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n"), None);
}

#[test]
fn local_is_a_header_without_addresses() {
    assert_eq!(parse(LOCAL), Ok(Some((ProxyHeader::NO_ADDRESSES, LOCAL.len()))));
}

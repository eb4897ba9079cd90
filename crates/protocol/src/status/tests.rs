use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const PUBLISHED: PublishedFields<'_> = PublishedFields { address: "play.example", port: Some(7171), online: None };
const XML_REQUEST: &[u8] = b"\x06\0\xFF\xFFinfo";
const SERVER: &[u8] = br#"<?xml version="1.0"?><tsqp version="1.0"><serverinfo uptime="7" ip="10.0.0.1" servername="A &gt; B" port="7" location="" url="http://x/?ip=&quot;1&quot;" version="1.4" client="10.98"/><owner name="ip" email="port"/><players online="3" max="100" peak="9"/></tsqp>"#;

fn parts(flags: u8, name: &str) -> StatusRequest {
    StatusRequest::Parts { flags, name: name.as_bytes().to_vec() }
}

/// Makes `content` a packet, with the checksum in front that a login has.
fn with_checksum(content: &[u8]) -> Vec<u8> {
    packet(&[&adler32(content).to_le_bytes()[..], content].concat())
}

fn packet(content: &[u8]) -> Vec<u8> {
    [&length_of(content)[..], content].concat()
}

fn strings(texts: &[&str]) -> Vec<u8> {
    texts.iter().flat_map(|text| packet(text.as_bytes())).collect()
}

#[test]
fn adler32_is_that_of_rfc_1950() {
    assert_eq!(adler32(b""), 1);
    assert_eq!(adler32(b"Wikipedia"), 0x11E6_0398);
    // Sums beyond the modulus.
    assert_eq!(adler32(&[0xFF; 1022]), 0x822B_FA30);
}

#[test]
fn requests_of_known_clients() {
    let cases: [(&[u8], StatusRequest); 7] = [
        (XML_REQUEST, StatusRequest::Xml),
        (b"\x06\0\xFF\xFFjson", StatusRequest::Json),
        (b"\x04\0\xFF\x01\x29\0", parts(0x29, "")),
        (b"\x03\0\xFF\x01\x20", parts(0x20, "")),
        (b"\x09\0\xFF\x01\x40\0\x03\0Bob", parts(0x40, "Bob")),
        // Parts that servers ignore: the upper byte, a name that nobody asked for, one that is cut, trailing bytes.
        (b"\x09\0\xFF\x01\x01\x80\x03\0Bob", parts(0x01, "")),
        (b"\x08\0\xFF\x01\x40\0\x03\0Bo", parts(0x40, "")),
    ];
    for (bytes, request) in cases {
        let behind = [bytes, b"behind"].concat();
        assert_eq!(first(&behind), Some(FirstPacket::Request(request.clone())));
        for cut in 0..bytes.len() {
            assert_eq!(first(&bytes[..cut]), None, "{cut} bytes of {request:?}");
        }
        // The servers' own reading: a checksum may be in front, and what is behind the words does not matter.
        let summed = with_checksum(&bytes[2..]);
        assert_eq!(first(&summed), Some(FirstPacket::Request(request.clone())), "{request:?} with a checksum");
        for cut in 0..summed.len() {
            assert_eq!(first(&summed[..cut]), None, "{cut} bytes of {request:?} with a checksum");
        }
        assert_eq!(first(&request.to_bytes()), Some(FirstPacket::Request(request)));
    }
    assert_eq!(first(b"\x0A\0\xFF\xFFinfomore"), Some(FirstPacket::Request(StatusRequest::Xml)));
    assert_eq!(StatusRequest::Xml.to_bytes(), XML_REQUEST);
    assert_eq!(parts(0x41, "Bob").to_bytes(), b"\x09\0\xFF\x01\x41\0\x03\0Bob");
    assert_eq!(parts(0x01, "").to_bytes(), b"\x04\0\xFF\x01\x01\0");
}

#[test]
fn what_is_no_request_is_known_early() {
    // A login: a checksum, 01, and what is encrypted. Old clients have no checksum.
    let login = with_checksum(&[&[1, 2, 0, 0x3A, 4][..], &[0xAB; 140]].concat());
    for (bytes, known) in [
        (&login[..], 7),
        (b"\x95\0\x01\x02\0\xF8\x02xxxxxxx", 7),
        (b"GET / HTTP/1.1\r\n\r\n", 7),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xFC\x03\x03", 7),
        // Too short for a checksum and a request.
        (b"\x04\0\x01\x02\xFF\xFF", 3),
        (b"\0\0", 2),
        (b"\x06\0\xFF\xFEinfo", 7),
    ] {
        for cut in 0..=bytes.len() {
            let expected = (cut >= known).then_some(FirstPacket::Other);
            assert_eq!(first(&bytes[..cut]), expected, "{cut} bytes of {}", bytes.escape_ascii());
        }
    }
    // Bytes that begin like a request, and are none.
    for bytes in
        [&b"\x06\0\xFF\xFFinfx"[..], b"\x01\0\xFF", b"\x02\0\xFF\xFF", b"\x02\0\xFF\x01", b"\x05\0\xFF\xFFinfo"]
    {
        assert_eq!(first(bytes), Some(FirstPacket::Other), "{}", bytes.escape_ascii());
    }
}

#[test]
fn a_login_whose_checksum_begins_like_a_request_is_a_login() {
    // The lower half of an Adler-32 is the sum of all bytes, plus one: here 0x1FF.
    let login = with_checksum(&[&[1, 255, 254][..], &[0; 200]].concat());
    assert_eq!(login[2..4], [STATUS, PARTS]);
    assert_eq!(first(&login), Some(FirstPacket::Other));
    assert_eq!(first(&login[..login.len() - 1]), None, "it takes all of it to know");
    // With any other bit it is what a game server would take it for.
    let mut wrong = login.clone();
    wrong[100] ^= 1;
    assert_eq!(first(&wrong), Some(FirstPacket::Request(parts(wrong[4], ""))));
}

#[test]
fn a_packet_is_read_up_to_a_length() {
    let padded = |len: usize| [b"\xFF\xFFinfo".to_vec(), vec![0; len - LENGTH_LEN - 6]].concat();
    assert_eq!(first(&packet(&padded(MAX_REQUEST))), Some(FirstPacket::Request(StatusRequest::Xml)));
    assert_eq!(first(&with_checksum(&padded(MAX_REQUEST - 4))), Some(FirstPacket::Request(StatusRequest::Xml)));
    for long in [packet(&padded(MAX_REQUEST + 1)), with_checksum(&padded(MAX_REQUEST - 3))] {
        assert_eq!(first(&long), Some(FirstPacket::TooLong));
        // No more than this is ever kept.
        assert_eq!(first(&long[..8]), Some(FirstPacket::TooLong));
        assert_eq!(first(&long[..7]), None);
    }
}

fn xml(text: &str) -> Result<String, AnswerError> {
    StatusRequest::Xml.publish(text.as_bytes(), PUBLISHED).map(|bytes| String::from_utf8(bytes).unwrap())
}

#[test]
fn xml_with_what_is_published() {
    let text = str::from_utf8(SERVER).unwrap();
    let expected = text.replace("ip=\"10.0.0.1\"", "ip=\"play.example\"").replace("port=\"7\"", "port=\"7171\"");
    assert_eq!(xml(text).as_deref(), Ok(expected.as_str()));
    let kept = StatusRequest::Xml.publish(SERVER, PublishedFields { port: None, ..PUBLISHED }).unwrap();
    assert_eq!(kept, text.replace("ip=\"10.0.0.1\"", "ip=\"play.example\"").as_bytes());
    for (text, expected) in [
        ("<serverinfo/>", "<serverinfo/>"),
        ("<serverinfo ip=''/>", "<serverinfo ip='play.example'/>"),
        ("<serverinfo\n\tip = \"a>b'\" x='ip=\"1\"' />", "<serverinfo\n\tip = \"play.example\" x='ip=\"1\"' />"),
        ("<serverinfo ip='1' ip='2'>", "<serverinfo ip='play.example' ip='play.example'>"),
        ("<serverinfo zip='1' ips='2' IP='3' port='4'>", "<serverinfo zip='1' ips='2' IP='3' port='7171'>"),
    ] {
        assert_eq!(xml(text).as_deref(), Ok(expected));
    }
    // Not all is UTF-8.
    assert_eq!(
        StatusRequest::Xml.publish(b"\xFC<serverinfo servername='\xFC' ip='1'/>\xFC", PUBLISHED).unwrap(),
        b"\xFC<serverinfo servername='\xFC' ip='play.example'/>\xFC"
    );
    for cut in 0..text.find("/><owner").unwrap() {
        assert_eq!(xml(&text[..cut]), Err(AnswerError::NotStatus), "{cut}");
    }
    for wrong in [
        "<serverinfox ip='1'/>",
        "<serverinfo ip/>",
        "<serverinfo ip=1/>",
        "<serverinfo ='1'",
        "<serverinfo a='1'ip='2'/>",
        "{\"serverinfo\":{\"ip\":\"1\"}}",
    ] {
        assert_eq!(xml(wrong), Err(AnswerError::NotStatus), "{wrong}");
    }
}

#[test]
fn json_with_what_is_published() {
    let json = |text: &str| StatusRequest::Json.publish(text.as_bytes(), PUBLISHED);
    let text = r#"{"motd":"ü\n","players":{"online":3},"serverinfo":{"ip":"10.0.0.1","port":7,"servername":"A"}}"#;
    let expected = text.replace("10.0.0.1", "play.example").replace(":7,", ":7171,");
    assert_eq!(json(text).unwrap(), expected.as_bytes());
    assert_eq!(json(r#"{"serverinfo":{"port":"7"}}"#).unwrap(), br#"{"serverinfo":{"port":"7171"}}"#);
    let kept =
        StatusRequest::Json.publish(br#"{"serverinfo":{"port":7}}"#, PublishedFields { port: None, ..PUBLISHED });
    assert_eq!(kept.unwrap(), br#"{"serverinfo":{"port":7}}"#);
    for wrong in ["", "{", "{}", "[]", r#"{"serverinfo":[]}"#, "<serverinfo ip='1'/>", &"[".repeat(5000)] {
        assert_eq!(json(wrong), Err(AnswerError::NotStatus), "{wrong}");
    }
}

#[test]
fn parts_with_what_is_published() {
    let behind = b"\x20\x03\0\0\0\x64\0\0\0\x09\0\0\0";
    let answer = |texts: &[&str]| packet(&[&[ADDRESS_PART][..], &strings(texts), behind].concat());
    let server = answer(&["A", "10.0.0.1", "7"]);
    let asked = parts(0x09, "");
    assert_eq!(asked.publish(&server, PUBLISHED), Ok(answer(&["A", "play.example", "7171"])));
    let kept = asked.publish(&server, PublishedFields { port: None, ..PUBLISHED });
    assert_eq!(kept, Ok(answer(&["A", "play.example", "7"])));
    for cut in 0..server.len() {
        assert_eq!(asked.publish(&server[..cut], PUBLISHED), Err(AnswerError::NotStatus), "{cut}");
    }
    // Without the first part nothing in it is an address.
    let players = packet(behind);
    assert_eq!(parts(0x08, "").publish(&players, PUBLISHED), Ok(players.clone()));
    assert_eq!(asked.publish(&players, PUBLISHED), Err(AnswerError::NotStatus));
    let short = packet(&[&[ADDRESS_PART][..], &strings(&["A", "10.0.0.1"])].concat());
    assert_eq!(asked.publish(&short, PUBLISHED), Err(AnswerError::NotStatus));
    let full = packet(&[&[ADDRESS_PART][..], &strings(&["A", "b", "7"]), &vec![0; 65_535 - 10]].concat());
    assert_eq!(full.len(), MAX_ANSWER);
    assert_eq!(asked.publish(&full, PUBLISHED), Err(AnswerError::TooLong));
}

#[test]
fn the_players_that_are_counted_stand_in_each_form() {
    const COUNTED: PublishedFields<'_> = PublishedFields { online: Some(2), ..PUBLISHED };
    let told = StatusRequest::Xml.publish(SERVER, PUBLISHED).unwrap();
    let told = str::from_utf8(&told).unwrap();
    let counted = StatusRequest::Xml.publish(SERVER, COUNTED).unwrap();
    assert_eq!(str::from_utf8(&counted).unwrap(), told.replace("online=\"3\"", "online=\"2\""));
    assert_eq!(ServerStatus::read(&counted).unwrap().online, Some(2));
    for (xml, expected) in [
        (
            "<serverinfo/><players max='1' online='' peak='9'/>",
            Ok("<serverinfo/><players max='1' online='2' peak='9'/>"),
        ),
        ("<serverinfo/>", Ok("<serverinfo/>")),
        ("<serverinfo/><players max='1'/>", Ok("<serverinfo/><players max='1'/>")),
        ("<serverinfo/><players online=3/>", Err(AnswerError::NotStatus)),
    ] {
        let published = StatusRequest::Xml.publish(xml.as_bytes(), COUNTED);
        assert_eq!(published, expected.map(|xml| xml.as_bytes().to_vec()), "{xml}");
    }
    for (json, expected) in [
        (r#"{"players":{"max":9,"online":3},"serverinfo":{}}"#, r#"{"players":{"max":9,"online":2},"serverinfo":{}}"#),
        (r#"{"players":{"online":"3"},"serverinfo":{}}"#, r#"{"players":{"online":"2"},"serverinfo":{}}"#),
        (r#"{"players":[3],"serverinfo":{}}"#, r#"{"players":[3],"serverinfo":{}}"#),
    ] {
        assert_eq!(StatusRequest::Json.publish(json.as_bytes(), COUNTED).unwrap(), expected.as_bytes());
    }
}

#[test]
fn the_players_that_are_counted_stand_behind_the_parts_that_were_asked_for() {
    const COUNTED: PublishedFields<'_> = PublishedFields { online: Some(2), ..PUBLISHED };
    let players = |online: u8| [&[PLAYERS_PART, online, 0, 0, 0][..], b"\x64\0\0\0\x09\0\0\0"].concat();
    let parts_before: [(u8, Vec<u8>); 3] = [
        (0x01, [&[0x10][..], &strings(&["A", "10.0.0.1", "7"])].concat()),
        (0x02, [&[0x11][..], &strings(&["owner", "\x20mail"])].concat()),
        (0x04, [&[0x12][..], &strings(&["motd", "", "url"]), &[0x20; 8]].concat()),
    ];
    for flags in 0..8_u8 {
        let before: Vec<u8> =
            parts_before.iter().filter(|(flag, _)| flags & flag != 0).flat_map(|(_, part)| part.clone()).collect();
        let answer = |online| packet(&[&before[..], &players(online), b"\x30\x01"].concat());
        let request = parts(flags | 0x08, "");
        let expected = request.publish(&answer(2), PUBLISHED).unwrap();
        assert_eq!(request.publish(&answer(3), COUNTED), Ok(expected), "{flags}");
        // Without them in the question nothing in the answer is their number.
        let unasked = parts(flags, "");
        assert_eq!(unasked.publish(&answer(3), COUNTED), unasked.publish(&answer(3), PUBLISHED), "{flags}");
        for cut in 0..before.len() + 5 {
            let answer = packet(&[&before[..], &players(3)].concat()[..cut]);
            assert_eq!(request.publish(&answer, COUNTED), Err(AnswerError::NotStatus), "{flags} {cut}");
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_do_harm(bytes in vec(any::<u8>(), 0..300), flags: u8, port: Option<u16>, online: Option<u32>) {
        let known = first(&bytes);
        for cut in 0..bytes.len() {
            let early = first(&bytes[..cut]);
            prop_assert!(early.is_none() || early == known);
        }
        for request in [StatusRequest::Xml, StatusRequest::Json, parts(flags, "")] {
            let _ = request.publish(&bytes, PublishedFields { port, online, ..PUBLISHED });
        }
    }

    #[test]
    fn a_request_is_read_as_it_is_written(flags: u8, name in vec(any::<u8>(), 0..1000), checksum: bool) {
        let name = if flags & NAME_FLAG == 0 { Vec::new() } else { name };
        let request = StatusRequest::Parts { flags, name };
        let bytes = request.to_bytes();
        let bytes = if checksum { with_checksum(&bytes[2..]) } else { bytes };
        prop_assert_eq!(first(&bytes), Some(FirstPacket::Request(request)));
    }

    #[test]
    fn what_is_not_the_address_stays(before in "[a-z]{0,9}", value in "[^\"]{0,20}", behind in ".{0,50}") {
        let text = |ip: &str| format!("{before}<serverinfo x=\"{value}\" ip=\"{ip}\"/>{behind}");
        prop_assert_eq!(xml(&text(&value)), Ok(text("play.example")));
    }
}

#[test]
fn what_people_look_at_in_an_answer() {
    let view = ServerStatus::read(SERVER).unwrap();
    let ServerStatus { name, address, port, online, max } = view;
    assert_eq!((name.as_str(), address.as_str(), port.as_str()), ("A > B", "10.0.0.1", "7"));
    assert_eq!((online, max), (Some(3), Some(100)));
    let read = |xml: &str| ServerStatus::read(xml.as_bytes());
    assert_eq!(read("<serverinfo/>"), Some(ServerStatus::default()));
    assert_eq!(
        read("<serverinfo a='1' ip=\"10.0.0.1\" port='1'/>").map(|view| view.address).as_deref(),
        Some("10.0.0.1")
    );
    assert_eq!(read("<serverinfo servername='&amp;lt;'/>").map(|view| view.name).as_deref(), Some("&lt;"));
    assert_eq!(read("<serverinfo/><players online='many' max='-1'/>"), Some(ServerStatus::default()));
    for wrong in [
        "",
        "HTTP/1.1 400",
        "<serverinfo",
        "<serverinfo ip=1/>",
        "<serverinfo ip='1",
        "<serverinfo ip='1'",
        "ip='1'",
        "<serverinfo/><players online='3",
    ] {
        assert_eq!(read(wrong), None, "{wrong}");
    }
}

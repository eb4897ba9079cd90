use std::str::FromStr as _;

use proptest::prelude::*;

use super::Worlds;
use super::fields::put_text;
use super::*;
use crate::edge_list::{EdgeList, ListedEdge};

const KEY: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
/// One version of each form.
const ONE_OF_EACH: [u16; 10] = [760, 772, 840, 860, 971, 980, 1010, 1011, 1098, 1412];

fn edges() -> EdgeList {
    let edge = |host: &str, port, priority| ListedEdge { host: host.to_owned(), port, priority, datacenter: None };
    EdgeList(vec![edge("p1.example", 7162, 0), edge("198.51.100.7", 7163, 20)])
}

fn told(edges: &EdgeList, worlds: Worlds) -> Told<'_> {
    Told { edges, worlds }
}

fn key() -> XteaKey {
    XteaKey::from_bytes(KEY)
}

/// Makes the content of an answer, as a server does.
fn content(version: u16, hosts: &[&str], characters: &[(&str, u8)]) -> Vec<u8> {
    let mut out = vec![0x14];
    put_text(&mut out, "1\nWelcome");
    out.push(0x64);
    let port = 7172_u16.to_le_bytes();
    if version >= WORLDS {
        out.push(hosts.len() as u8);
        for (id, host) in (0..).zip(hosts) {
            out.push(id);
            put_text(&mut out, "World");
            put_text(&mut out, host);
            out.extend(port);
            out.push(0);
        }
    }
    out.push(characters.len() as u8);
    for (name, world) in characters {
        if version >= WORLDS {
            out.push(*world);
            put_text(&mut out, name);
            continue;
        }
        put_text(&mut out, name);
        put_text(&mut out, "World");
        out.extend(std::net::Ipv4Addr::from_str(hosts[usize::from(*world)]).unwrap().octets());
        out.extend(port);
        if version >= PREVIEW {
            out.push(0);
        }
    }
    out.extend(vec![0; if version >= PREMIUM_UNTIL { 6 } else { 2 }]);
    out
}

fn request(version: u16, otcv8: bool) -> LoginRequest {
    LoginRequest { framing: Framing::of(version), version, key: (version >= ENCRYPTED).then(key), otcv8 }
}

/// Seals `content` as the answer to a login of this version.
fn sealed(version: u16, content: &[u8]) -> Vec<u8> {
    let request = request(version, false);
    request.framing.seal(content, request.key.as_ref()).unwrap()
}

fn read(version: u16, bytes: &[u8]) -> ClassicAnswer {
    let request = request(version, false);
    ClassicAnswer::read(bytes, request.framing, request.key.as_ref(), version).unwrap().unwrap()
}

fn hosts(answer: &ClassicAnswer) -> Vec<&str> {
    answer.characters.as_ref().unwrap().worlds.iter().map(|world| world.host.as_str()).collect()
}

#[test]
fn logins_of_another_implementation_byte_for_byte() {
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    };
    let (rsa, edges, mut count) = (RsaKey::standard(), edges(), 0);
    for line in include_str!("fixtures/logins.txt").lines().filter(|line| !line.starts_with('#')) {
        let [version, client, login, answer, changed] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let (login, answer, changed) = (bytes(login), bytes(answer), bytes(changed));
        let request = first(&login, &rsa).unwrap().unwrap();
        assert_eq!((request.version.to_string(), request.otcv8), (version.to_owned(), client == "otcv8"));
        assert_eq!(request.key, (request.version >= ENCRYPTED).then(key), "{version}");
        let auto = told(&edges, Worlds::Auto);
        assert_eq!(rewrite(&answer, &request, auto), Ok(Some((changed, answer.len()))), "{version} {client}");
        for cut in 0..login.len() {
            assert_eq!(first(&login[..cut], &rsa), Ok(None), "{version}: {cut} bytes of {}", login.len());
        }
        for cut in 0..answer.len() {
            assert_eq!(rewrite(&answer[..cut], &request, auto), Ok(None), "{version}: {cut} bytes");
        }
        count += 1;
    }
    assert_eq!(count, 12);
}

#[test]
fn a_request_of_ours_is_read_as_one_of_a_client_that_is_no_otcv8() {
    let rsa = RsaKey::standard();
    for version in ONE_OF_EACH {
        let ours = ClassicRequest { version, account: "1234567", password: "secret", ..ClassicRequest::default() };
        let bytes = ours.to_bytes(&rsa.public(), &key()).unwrap();
        assert_eq!(first(&bytes, &rsa), Ok(Some(request(version, false))), "{version}");
        assert_eq!(crate::sniff::ProtocolSniffer::Login.sniff(&bytes), crate::sniff::Sniffed::Right, "{version}");
        let shown = format!("{ours:?} {:?}", first(&bytes, &rsa));
        assert!(!shown.contains("secret") && !shown.contains("1234567"), "{shown}");
    }
}

#[test]
fn a_request_that_does_not_fit_is_not_made() {
    let rsa = RsaKey::standard().public();
    let made = |version, account: &str, password: &str| {
        let request = ClassicRequest { version, account, password, ..ClassicRequest::default() };
        request.to_bytes(&rsa, &key()).map(drop)
    };
    assert_eq!(made(772, "name", "p"), Err(RequestError::AccountNumber));
    // 128 bytes without the zero, the key, and the lengths of two texts.
    assert_eq!(made(1098, &"a".repeat(50), &"p".repeat(57)), Ok(()));
    assert_eq!(made(1098, &"a".repeat(50), &"p".repeat(58)), Err(RequestError::TooLong));
}

#[test]
fn an_answer_is_read_as_a_client_reads_it() {
    for version in ONE_OF_EACH {
        let content =
            content(version, &["203.0.113.9", "203.0.113.10"], &[("Knight", 1), ("Druid", 0), ("M\u{e4}ge", 1)]);
        let answer = read(version, &sealed(version, &content));
        assert_eq!(answer.motd.as_deref(), Some("1\nWelcome"));
        let list = answer.characters.unwrap();
        let of: Vec<_> =
            list.characters.iter().map(|one| (one.name.as_str(), list.worlds[one.world].host.as_str())).collect();
        let expected = [("Knight", "203.0.113.10"), ("Druid", "203.0.113.9"), ("M\u{e4}ge", "203.0.113.10")];
        assert_eq!(of, expected, "{version}");
    }
}

#[test]
fn refusals_pass_and_are_read() {
    let text = |kind| {
        let mut part = vec![kind];
        put_text(&mut part, "No.");
        part
    };
    let message = || Refusal::Message("No.".to_owned());
    for (part, refusal) in [
        (text(0x0A), message()),
        (text(0x0B), message()),
        (vec![0x0D, 0], Refusal::Token),
        (text(0x11), Refusal::Update),
        (vec![0x1E], Refusal::Update),
    ] {
        for version in ONE_OF_EACH {
            let bytes = sealed(version, &part);
            assert_eq!(read(version, &bytes).refusal.as_ref(), Some(&refusal));
            let result = rewrite(&bytes, &request(version, true), told(&edges(), Worlds::Auto));
            assert_eq!(result, Err(LoginResult::Refused), "{version}");
        }
    }
}

#[test]
fn who_is_told_what() {
    let (some, none) = (edges(), EdgeList::default());
    let named = EdgeList(vec![ListedEdge { host: "p1.example".to_owned(), port: 7162, priority: 0, datacenter: None }]);
    // The worlds' host before 10.11 and from there on, and whether the edges are listed.
    for (worlds, otcv8, edges, v4, text, listed) in [
        (Worlds::Auto, true, &some, Some("127.0.0.1"), Some("127.0.0.1"), true),
        (Worlds::Auto, false, &some, Some("198.51.100.7"), Some("p1.example"), false),
        (Worlds::Auto, false, &named, None, Some("p1.example"), false),
        (Worlds::Auto, true, &none, None, None, false),
        (Worlds::Auto, false, &none, None, None, false),
        (Worlds::Links, true, &some, Some("127.0.0.1"), Some("127.0.0.1"), true),
        (Worlds::Links, false, &some, Some("127.0.0.1"), Some("127.0.0.1"), false),
        (Worlds::Links, true, &none, Some("127.0.0.1"), Some("127.0.0.1"), false),
        (Worlds::Edge, true, &some, Some("198.51.100.7"), Some("p1.example"), false),
        (Worlds::Edge, false, &none, None, None, false),
    ] {
        for version in ONE_OF_EACH {
            let bytes = sealed(version, &content(version, &["203.0.113.9"], &[("Knight", 0)]));
            let host = if version < WORLDS { v4 } else { text };
            let result = rewrite(&bytes, &request(version, otcv8), told(edges, worlds));
            let what = format!("{worlds} {otcv8} {version}");
            let Some(host) = host else {
                assert_eq!(result, Err(LoginResult::Unchanged), "{what}");
                continue;
            };
            let (changed, taken) = result.unwrap().unwrap();
            assert_eq!(taken, bytes.len());
            let answer = read(version, &changed);
            assert_eq!(hosts(&answer), [host], "{what}");
            assert_eq!(answer.edges.as_ref(), listed.then_some(edges), "{what}");
        }
    }
}

#[test]
fn a_list_of_the_servers_own_passes() {
    for version in ONE_OF_EACH {
        let mut content = content(version, &["203.0.113.9"], &[("Knight", 0)]);
        content.extend([0x6E, 1]);
        put_text(&mut content, "own.example");
        content.extend([0xFA, 0x1B, 0, 0]);
        let result = rewrite(&sealed(version, &content), &request(version, true), told(&edges(), Worlds::Auto));
        assert_eq!(result, Err(LoginResult::Listed), "{version}");
    }
}

#[test]
fn what_is_unknown_passes() {
    let edges = edges();
    let result = |version, bytes: &[u8]| rewrite(bytes, &request(version, true), told(&edges, Worlds::Auto));
    for version in ONE_OF_EACH {
        let good = content(version, &["203.0.113.9"], &[("Knight", 0)]);
        assert!(matches!(result(version, &sealed(version, &good)), Ok(Some(_))));
        // One byte too many, one too few, an unknown part, nothing, no list.
        for bad in
            [&[&good[..], &[0]].concat()[..], &good[..good.len() - 1], &[&[0x99], &good[..]].concat(), &[], &good[..12]]
        {
            assert_eq!(result(version, &sealed(version, bad)), Err(LoginResult::Unknown), "{version} {bad:02x?}");
        }
        if version >= ENCRYPTED {
            let other = XteaKey::from_bytes([7; 16]);
            let bytes = Framing::of(version).seal(&good, Some(&other)).unwrap();
            assert_eq!(result(version, &bytes), Err(LoginResult::Unknown), "{version}");
        }
    }
    // A character in a world that there is not.
    let lost = content(1098, &["203.0.113.9"], &[("Knight", 1)]);
    assert_eq!(result(1098, &sealed(1098, &lost)), Err(LoginResult::Unknown));
}

#[test]
fn limits() {
    let (edges, auto) = (edges(), Worlds::Auto);
    let answer = |length: usize| ((length - 2) as u16).to_le_bytes();
    let result = |bytes: &[u8]| rewrite(bytes, &request(1098, true), told(&edges, auto));
    assert_eq!(result(&answer(MAX_ANSWER)), Ok(None));
    assert_eq!(result(&answer(MAX_ANSWER + 1)), Err(LoginResult::TooLong));
    let rsa = RsaKey::standard();
    assert_eq!(first(&answer(MAX_REQUEST), &rsa), Ok(None));
    assert_eq!(first(&answer(MAX_REQUEST + 1), &rsa), Err(NotLogin::Other));

    let many = EdgeList(vec![edges.0[0].clone(); 300]);
    let bytes = sealed(1098, &content(1098, &["203.0.113.9"], &[("Knight", 0)]));
    let (changed, _) = rewrite(&bytes, &request(1098, true), told(&many, auto)).unwrap().unwrap();
    assert_eq!(read(1098, &changed).edges, Some(EdgeList(many.0[..255].to_vec())));
    // A list that no packet has room for.
    let far = ListedEdge { host: "x".repeat(300), ..edges.0[0].clone() };
    let result = rewrite(&bytes, &request(1098, true), told(&EdgeList(vec![far; 255]), auto));
    assert_eq!(result, Err(LoginResult::TooLong));
}

#[test]
fn what_is_no_login() {
    let rsa = RsaKey::standard();
    for other in [&b"\x06\0\xFF\xFFinfo"[..], b"GET / HTTP/1.1\r\n\r\n", &[0; 200], b"\x05\0\x01\x02\0\x02\x04"] {
        assert_eq!(first(other, &rsa), Err(NotLogin::Other), "{other:02x?}");
    }
    let own = RsaKey::from_pem(include_bytes!("fixtures/pkcs1.pem")).unwrap();
    let login = ClassicRequest { version: 1098, account: "a", password: "b", ..ClassicRequest::default() };
    let bytes = login.to_bytes(&own.public(), &key()).unwrap();
    assert_eq!(first(&bytes, &rsa), Err(NotLogin::OtherKey));
    assert!(matches!(first(&bytes, &own), Ok(Some(_))));
}

#[test]
fn keys() {
    let one = RsaKey::from_pem(include_bytes!("fixtures/pkcs1.pem")).unwrap();
    let same = RsaKey::from_pem(include_bytes!("fixtures/pkcs8.pem")).unwrap();
    assert!(one == same && one != RsaKey::standard());
    assert_eq!(format!("{one:?}"), "RsaKey(..)");
    let error = |pem: &[u8]| RsaKey::from_pem(pem).unwrap_err();
    assert_eq!(error(include_bytes!("fixtures/long.pem")), KeyError::Size(2048));
    assert_eq!(error(include_bytes!("fixtures/elliptic.pem")), KeyError::NoRsa);
    assert_eq!(error(b""), KeyError::NoKey);
    assert_eq!(error(b"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n"), KeyError::NoRsa);
}

fn arbitrary_told() -> impl Strategy<Value = (EdgeList, Worlds)> {
    let edge = ("[a-z0-9.]{0,20}", 1..=u16::MAX, any::<u16>()).prop_map(|(host, port, priority)| ListedEdge {
        host,
        port,
        priority,
        datacenter: None,
    });
    (prop::collection::vec(edge, 0..4).prop_map(EdgeList), prop::sample::select(Worlds::ALL))
}

proptest! {
    #[test]
    fn what_is_changed_is_read_again_and_grows_by_the_hosts_alone(
        version in prop::sample::select(&ONE_OF_EACH[..]),
        names in prop::collection::vec(("[A-Za-z ]{0,30}", 0..2_u8), 0..20),
        otcv8: bool,
        (edges, worlds) in arbitrary_told(),
    ) {
        let characters: Vec<_> = names.iter().map(|(name, world)| (name.as_str(), *world)).collect();
        let bytes = sealed(version, &content(version, &["203.0.113.9", "203.0.113.10"], &characters));
        let before = read(version, &bytes);
        match rewrite(&bytes, &request(version, otcv8), told(&edges, worlds)) {
            Err(result) => prop_assert_eq!(result, LoginResult::Unchanged),
            Ok(changed) => {
                let (changed, taken) = changed.unwrap();
                prop_assert_eq!(taken, bytes.len());
                prop_assert!(changed.len() <= bytes.len() + 2 * 24 + 2 + edges.0.len() * 26 + 8);
                let after = read(version, &changed);
                prop_assert_eq!(&after.motd, &before.motd);
                let (after, before) = (after.characters.unwrap(), before.characters.unwrap());
                let names = |list: &CharacterList| list.characters.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
                prop_assert_eq!(names(&after), names(&before));
                prop_assert_eq!(after.premium, before.premium);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes: Vec<u8>,
        version in prop::sample::select(&ONE_OF_EACH[..]),
        (edges, worlds) in arbitrary_told(),
    ) {
        let told = told(&edges, worlds);
        let _ = first(&bytes, &RsaKey::standard());
        let _ = rewrite(&bytes, &request(version, true), told);
        // As the content of a packet, too.
        let _ = rewrite(&sealed(version, &bytes), &request(version, true), told);
    }
}

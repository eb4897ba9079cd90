//! HAProxy as the judge of PROXY headers: what it takes and refuses, the parser takes and refuses,
//! with the same addresses, the known differences aside.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use otproxy_protocol::proxy_header;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::common::sandbox::*;
use crate::haproxy::real::{self, HaProxy};

/// What follows each header.
const REST: &[u8] = b"the player's first bytes";
/// Headers asked about at once.
const AT_ONCE: usize = 50;
/// Changed copies of each seed.
const COPIES: usize = 120;
/// Up to this length a seed is cut at every byte, beyond it at every so many.
const CUT_EVERYWHERE: usize = 120;
const CUT_STRIDE: usize = 97;

/// What became of a connection that began with a header.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// Closed, and nothing passed on.
    Refused,
    /// Passed on, from this source to this destination; `None` is the connection's own.
    Taken { addresses: Option<(SocketAddr, SocketAddr)>, rest: Vec<u8> },
}

/// Headers of which the verdicts differ, as docs/protocol.md has them, each with its reason.
const UNKNOWN: &str = "v1: `UNKNOWN` with more behind it";
const NUMBER: &str = "v1: a number that is absent, too large or begins with 0, in a port or an IPv4 address";
const NUL: &str = "v1: an IPv6 address with a NUL byte in it";
const FAMILY: &str = "v2: a family other than TCP over IPv4 or IPv6";
const TLVS: &str = "v2: what follows the addresses is no row of TLVs";
const PAYLOAD: &str = "v2: a payload of over 4096 bytes";
const DIFFERENCES: [&str; 6] = [UNKNOWN, NUMBER, NUL, FAMILY, TLVS, PAYLOAD];

/// Which of [`DIFFERENCES`] it is that the verdicts differ in.
fn known_difference(bytes: &[u8], ours: &Verdict, theirs: &Verdict) -> Option<&'static str> {
    let only_ours = *ours != Verdict::Refused && *theirs == Verdict::Refused;
    let only_theirs = *ours == Verdict::Refused && *theirs != Verdict::Refused;
    if let Some(line) = bytes.strip_prefix(b"PROXY ") {
        if only_ours && line.starts_with(b"UNKNOWN") && !line.starts_with(b"UNKNOWN\r\n") {
            return Some(UNKNOWN);
        }
        let fields = line.strip_prefix(b"TCP4 ").or(line.strip_prefix(b"TCP6 "))?.split(|&b| b == b'\r').next()?;
        if only_theirs && fields.contains(&0) {
            return Some(NUL);
        }
        let only_numbers = fields.iter().all(|&b| b.is_ascii_hexdigit() || b". :".contains(&b));
        return (only_theirs && only_numbers).then_some(NUMBER);
    }
    let [version_command, family, high, low] = *bytes.get(12..)?.first_chunk()?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if only_ours && version_command == 0x21 {
        let addresses = match family {
            0x11 => 12,
            0x21 => 36,
            _ => return Some(FAMILY),
        };
        if !are_tlvs(bytes.get(16 + addresses..16 + length)?) {
            return Some(TLVS);
        }
    }
    (only_theirs && length > 4096).then_some(PAYLOAD)
}

/// Whether bytes are TLVs, with nothing left over.
fn are_tlvs(mut bytes: &[u8]) -> bool {
    while let [_, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some(next) = rest.get(length..) else { return false };
        bytes = next;
    }
    bytes.is_empty()
}

fn ours(bytes: &[u8]) -> Verdict {
    match proxy_header::parse(bytes) {
        Ok(Some((header, len))) => {
            Verdict::Taken { addresses: header.source.zip(header.destination), rest: bytes[len..].to_vec() }
        }
        // The connection ends there: a header that is not whole never will be.
        Ok(None) | Err(_) => Verdict::Refused,
    }
}

/// Sends `bytes` through HAProxy to a target that sends back what it got: HAProxy's own v2 header,
/// and the rest.
///
/// Its header comes back as soon as its connection to the target stands, and only then this side is
/// half closed. HAProxy gives up a connection that it is still making for a client that is half
/// closed and left nothing to pass on: it would look like a refusal where no byte follows a header.
/// A header that is not whole in the first read it refuses at once, so all goes in one write.
async fn theirs(haproxy: SocketAddr, bytes: &[u8]) -> Verdict {
    let mut stream = TcpStream::connect(haproxy).await.unwrap();
    let own = (stream.local_addr().unwrap(), haproxy);
    // It may have seen enough before all is written.
    let _ = stream.write_all(bytes).await;
    let mut header = [0; 16 + 36];
    // Refused: closed without a byte, or reset where it had not read all.
    if stream.read_exact(&mut header[..16]).await.is_err() {
        return Verdict::Refused;
    }
    let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
    stream.read_exact(&mut header[16..16 + length]).await.unwrap();
    stream.shutdown().await.unwrap();
    let rest = read_to_close(&mut stream).await;
    let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let addresses = match (header[12], header[13]) {
        (0x21, 0x11) => {
            let ip = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&header[at..at + 4]).unwrap());
            Some((SocketAddr::from((ip(16), port(24))), SocketAddr::from((ip(20), port(26)))))
        }
        (0x21, 0x21) => {
            // IPv4 in IPv6 is IPv4 to us.
            let ip = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&header[at..at + 16]).unwrap()).to_canonical();
            Some((SocketAddr::from((ip(16), port(48))), SocketAddr::from((ip(32), port(50)))))
        }
        _ => None,
    };
    Verdict::Taken { addresses: addresses.filter(|addresses| *addresses != own), rest }
}

/// Valid headers of every kind, each followed by a player's bytes.
fn seeds() -> Vec<Vec<u8>> {
    let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
    let (player, edge) = (addr("192.0.2.33:50000"), addr("198.51.100.7:7171"));
    let (player6, edge6) = (addr("[2001:db8::3]:50000"), addr("[2001:db8::7]:7171"));
    let mapped = addr("[::ffff:192.0.2.33]:50000");
    let datagram = v2(player, edge)[16..].to_vec();
    vec![
        v2(player, edge),
        v2(player6, edge6),
        v2(mapped, edge6),
        v2_with(player, edge, b"\x04\0\x03abc\x02\0\x0Bexample.com"),
        v2_with(player6, edge6, b"\x04\0\0"),
        v2_with(player, edge, &[&b"\xE0\x03\xE8"[..], &[7; 1000]].concat()),
        v2_raw(0x20, 0x00, &[]),
        v2_raw(0x20, 0x11, &datagram),
        v2_raw(0x20, 0xFF, b"anything"),
        v2_raw(0x21, 0x00, &[]),
        v2_raw(0x21, 0x00, b"anything"),
        v2_raw(0x21, 0x01, b"anything"),
        v2_raw(0x21, 0x12, &datagram),
        v2_raw(0x21, 0x31, &[b'x'; 216]),
        v1(player, edge),
        v1(player6, edge6),
        v1(mapped, edge6),
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(),
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n".to_vec(),
        b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"
            .to_vec(),
        b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n".to_vec(),
        // What only one of the two takes, by what its author wrote.
        b"PROXY TCP4 192.0.2.33 198.51.100.7 050000 7171\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.33 198.51.100.7 50000 65536\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.33 198.51.100.7 50000 7171 more\r\n".to_vec(),
        b"PROXY TCP4 2001:db8::3 2001:db8::7 50000 7171\r\n".to_vec(),
        b"PROXY TCP6 192.0.2.33 198.51.100.7 50000 7171\r\n".to_vec(),
        b"PROXY tcp4 192.0.2.33 198.51.100.7 50000 7171\r\n".to_vec(),
        b"PROXY TCP6 2001:db8::3\0nothing 2001:db8::7 50000 7171\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.33 198.51.100.7 50000 \r\n".to_vec(),
        b"PROXY TCP4 192.0.2.033 198.51.100.7 50000 7171\r\n".to_vec(),
        b"PROXY TCP4 192.0.2 198.51.100.7 50000 7171\r\n".to_vec(),
        b"PROXY  TCP4 192.0.2.33 198.51.100.7 50000 7171\r\n".to_vec(),
        b"PROXY UDP4 192.0.2.33 198.51.100.7 50000 7171\r\n".to_vec(),
        b"PROXY UNKNOWNSOMETHING\r\n".to_vec(),
        b"PROXY \r\n".to_vec(),
        b"PROXY UNKNOWN\n".to_vec(),
        [&b"PROXY UNKNOWN "[..], &[b'x'; 91], b"\r\n"].concat(),
        [&b"PROXY UNKNOWN "[..], &[b'x'; 92], b"\r\n"].concat(),
        [&b"PROXY UNKNOWN "[..], &[b'x'; 200], b"\r\n"].concat(),
        v2_raw(0x22, 0x11, &datagram),
        v2_raw(0x11, 0x11, &datagram),
        v2_raw(0x21, 0x13, &datagram),
        v2_raw(0x21, 0x41, &datagram),
        v2_raw(0x21, 0x11, &datagram[..11]),
        v2_raw(0x21, 0x21, &[0; 35]),
        v2_raw(0x21, 0x31, &[0; 215]),
        v2_raw(0x21, 0x11, &[0; 5000]),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ]
}

/// The seeds, whole and cut, and changed: bits, bytes and lengths. The same each time: a difference can be
/// looked at again.
fn headers() -> Vec<Vec<u8>> {
    let seeds = seeds();
    let mut all = Vec::new();
    for (index, header) in seeds.iter().enumerate() {
        all.push([header, REST].concat());
        let stride = if header.len() <= CUT_EVERYWHERE { 1 } else { CUT_STRIDE };
        let cuts = (1..header.len()).filter(|cut| *cut <= 60 || cut % stride == 0 || *cut + 1 == header.len());
        // To the end as well: nothing follows the header then.
        all.extend(cuts.chain([header.len()]).map(|cut| header[..cut].to_vec()));
        let random = pattern(index as u64 + 1, COPIES * 16);
        for (copy, random) in random.chunks(16).enumerate() {
            let mut bytes = header.clone();
            for random in random.chunks(4).take(1 + copy % 4) {
                change(&mut bytes, random);
            }
            all.push([&bytes, REST].concat());
        }
    }
    all
}

/// Changes a header as four random bytes say.
fn change(bytes: &mut Vec<u8>, random: &[u8]) {
    // Mostly at the front, where the fields are.
    let at = usize::from(random[0]) % bytes.len().clamp(1, 120);
    let other = b"\0\r\n 0159:.Fx\xFF"[usize::from(random[1]) % 13];
    match random[3] % 6 {
        0 => bytes[at] = random[2],
        1 => bytes[at] = other,
        2 => bytes[at] ^= 1 << (random[2] % 8),
        3 if bytes.len() > 1 => drop(bytes.remove(at)),
        // The length of version 2.
        4 if bytes.len() >= 16 => {
            let byte = &mut bytes[14 + usize::from(random[2]) % 2];
            *byte = byte.wrapping_add(random[1] % 64).wrapping_sub(32);
        }
        _ => bytes.insert(at, other),
    }
}

#[test]
fn haproxy_takes_and_refuses_the_same_headers() {
    if !real::is_here() {
        return;
    }
    run(async {
        let echo = echo_target().await;
        let haproxy = HaProxy::start(1, |addrs| {
            format!("listen judge\n  bind {} accept-proxy\n  server s {echo} send-proxy-v2\n", addrs[0])
        })
        .await;
        let judge = haproxy.addr(0);
        let headers = headers();
        let (mut differences, mut known, mut taken) = (Vec::new(), BTreeMap::new(), 0);
        for some in headers.chunks(AT_ONCE) {
            let mut asked = JoinSet::new();
            for bytes in some.iter().cloned() {
                asked.spawn(async move { (theirs(judge, &bytes).await, bytes) });
            }
            for (theirs, bytes) in asked.join_all().await {
                let ours = ours(&bytes);
                taken += usize::from(theirs != Verdict::Refused);
                if ours == theirs {
                    continue;
                }
                match known_difference(&bytes, &ours, &theirs) {
                    Some(why) => *known.entry(why).or_insert(0) += 1,
                    None => {
                        differences.push(format!("{}\n  ours: {ours:?}\n  theirs: {theirs:?}", bytes.escape_ascii()))
                    }
                }
            }
        }
        eprintln!("{} headers, {taken} taken by HAProxy; known differences: {known:#?}", headers.len());
        assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
        assert!(taken > 100 && taken < headers.len() - 100, "the headers are of one kind only: {taken}");
        assert_eq!(known.len(), DIFFERENCES.len(), "a difference that is none any more");
    });
}

#[test]
fn users_are_told_what_haproxy_takes_and_refuses_otherwise() {
    let text = include_str!("../../../docs/protocol.md");
    let (_, rest) = text.split_once("\n## PROXY headers beside HAProxy\n").expect("the section");
    let section = rest.split("\n## ").next().expect("its text");
    for difference in DIFFERENCES {
        assert!(section.contains(&format!("\n| {difference} |")), "{difference}");
    }
    // A head and a rule stand above the rows.
    assert_eq!(section.matches("\n|").count(), 2 + DIFFERENCES.len());
}

//! HAProxy as the judge of PROXY headers: what it takes and refuses, the parser takes and refuses,
//! with the same addresses, the known differences aside.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use otproxy::wire::proxy_header;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::real_haproxy::{self, HaProxy};
use crate::sandbox::*;

/// How often a verdict that we do not share is asked for again, alone.
const ASK_AGAIN: usize = 2;

/// What follows each header.
const REST: &[u8] = b"the player's first bytes";
/// Headers asked about at once.
const AT_ONCE: usize = 50;

/// What became of a connection that began with a header.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// Closed, and nothing passed on.
    Refused,
    /// Passed on, from this source to this destination; `None` is the connection's own.
    Taken { addresses: Option<(SocketAddr, SocketAddr)>, rest: Vec<u8> },
}

/// Why the verdicts may differ for this header, where the difference is known and meant. In each of
/// these the parser does as the format says.
fn known_difference(bytes: &[u8], ours: &Verdict, theirs: &Verdict) -> Option<&'static str> {
    let only_ours = *ours != Verdict::Refused && *theirs == Verdict::Refused;
    let only_theirs = *ours == Verdict::Refused && *theirs != Verdict::Refused;
    if let Some(line) = bytes.strip_prefix(b"PROXY ") {
        if only_ours && line.starts_with(b"UNKNOWN") && !line.starts_with(b"UNKNOWN\r\n") {
            return Some("v1: what follows UNKNOWN is skipped; HAProxy refuses it");
        }
        let fields = line.strip_prefix(b"TCP4 ").or(line.strip_prefix(b"TCP6 "))?.split(|&b| b == b'\r').next()?;
        let only_numbers = fields.iter().all(|&b| b.is_ascii_hexdigit() || b". :".contains(&b));
        return (only_theirs && only_numbers)
            .then_some("v1: HAProxy takes numbers that are absent, too large or begin with 0");
    }
    let [version_command, family, high, low] = *bytes.get(12..)?.first_chunk()?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if only_ours && version_command == 0x21 {
        let addresses = match family {
            0x11 => 12,
            0x21 => 36,
            _ => return Some("v2: a family that is not TCP means no addresses; HAProxy refuses it"),
        };
        if !are_tlvs(bytes.get(16 + addresses..16 + length)?) {
            return Some("v2: TLVs are skipped, whatever is in them; HAProxy refuses malformed ones");
        }
    }
    if only_theirs && length > 4096 {
        return Some("v2: HAProxy takes as much payload as its buffer has room for");
    }
    None
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
async fn theirs(haproxy: SocketAddr, bytes: &[u8]) -> Verdict {
    let mut stream = TcpStream::connect(haproxy).await.unwrap();
    let own = (stream.local_addr().unwrap(), haproxy);
    // It may have seen enough before all is written.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let back = read_to_close(&mut stream).await;
    if back.is_empty() {
        return Verdict::Refused;
    }
    let length = 16 + usize::from(u16::from_be_bytes([back[14], back[15]]));
    let (header, rest) = back.split_at(length);
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
    Verdict::Taken { addresses: addresses.filter(|addresses| *addresses != own), rest: rest.to_vec() }
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

/// The seeds, and what becomes of each when a byte is changed, left out or put in, or the end is
/// missing. The same each time: a difference can be looked at again.
fn headers() -> Vec<Vec<u8>> {
    let seeds = seeds();
    let mut all: Vec<Vec<u8>> = seeds.iter().map(|header| [header, REST].concat()).collect();
    for (index, header) in seeds.iter().enumerate() {
        let random = pattern(index as u64 + 1, 20 * 8);
        for (round, random) in random.chunks(8).enumerate() {
            let mut bytes = header.clone();
            // Mostly at the front, where the fields are.
            let at = usize::from(random[0]) % bytes.len().min(120);
            let other = b"\0\r\n 0159:.Fx\xFF"[usize::from(random[1]) % 13];
            match round % 5 {
                0 => bytes[at] = random[2],
                1 => bytes[at] = other,
                2 => bytes[at] ^= 1 << (random[2] % 8),
                3 => drop(bytes.remove(at)),
                _ => bytes.insert(at, other),
            }
            all.push([&bytes, REST].concat());
        }
        all.extend([1, 5, 6, 12, 13, 15, 16, header.len() - 1].map(|end| header[..end.min(header.len())].to_vec()));
    }
    all
}

#[test]
fn haproxy_takes_and_refuses_the_same_headers() {
    if !real_haproxy::is_here() {
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
            for (first, bytes) in asked.join_all().await {
                let ours = ours(&bytes);
                let mut theirs = first;
                // Asked by many at once, HAProxy may also close early for reasons of its own, which looks
                // like a refusal. A verdict on the bytes is the same each time, asked alone.
                for _ in 0..ASK_AGAIN {
                    if ours == theirs {
                        break;
                    }
                    theirs = self::theirs(judge, &bytes).await;
                }
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
    });
}

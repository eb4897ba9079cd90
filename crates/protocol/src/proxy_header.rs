//! PROXY headers, versions 1 and 2, over the `ppp` crate.
//!
//! The format: <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>. This module adds to
//! `ppp`: a wrong byte is an error as soon as it is there, an incomplete header never is one; the
//! lengths are bounded; `LOCAL` is valid whatever its addresses; `UNKNOWN` may carry anything up to
//! the end of its line; and v4-mapped IPv6 addresses come out as the IPv4 addresses that they are.
//!
//! Where it decides otherwise than HAProxy: `docs/protocol.md`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ppp::{v1, v2};
use thiserror::Error;

/// Bytes of a version 2 header before its payload.
const V2_FIXED_LEN: usize = 16;
/// The longest version 2 payload accepted. Addresses take at most 216 bytes; what real senders add
/// to them (names, ids, certificates' subjects) stays far below this.
const MAX_PAYLOAD: usize = 4096;
/// The longest header accepted: no buffer for one needs more.
pub const MAX_LEN: usize = V2_FIXED_LEN + MAX_PAYLOAD;
/// Bytes of a value behind the addresses before the value itself: its type and its length.
const TLV_LEN: usize = 3;
/// The longest authority, by the format.
pub const MAX_AUTHORITY: usize = 255;
/// A version 2 header that is about no player: the sender itself has something to ask. With no payload.
pub const LOCAL: &[u8; V2_FIXED_LEN] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
/// The same of version 1, which has no word for it but that the player is unknown.
pub const UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";
/// The longest version 1 line, its CRLF included, by the format.
pub const V1_MAX_LEN: usize = 107;
/// The start of a version 1 line.
const V1_START: &[u8] = b"PROXY ";
/// The longest text of an IPv6 address, dotted tail included.
const MAX_ADDRESS_TEXT: usize = 45;

/// The addresses in a PROXY header.
///
/// Both are `None` if the header names no TCP addresses: `LOCAL` (the sender's own health check), `UNSPEC`, `UNKNOWN`,
/// a unix socket, a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The player.
    pub source: Option<SocketAddr>,
    /// The address that the player connected to.
    pub destination: Option<SocketAddr>,
}

impl ProxyHeader {
    const NO_ADDRESSES: Self = Self { source: None, destination: None };

    fn new(source: (impl Into<IpAddr>, u16), destination: (impl Into<IpAddr>, u16)) -> Self {
        Self {
            source: Some(SocketAddr::new(unmap(source.0.into()), source.1)),
            destination: Some(SocketAddr::new(unmap(destination.0.into()), destination.1)),
        }
    }
}

/// The reason for which bytes are no PROXY header. More bytes never mend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// Neither version's start.
    #[error("not a PROXY header")]
    Signature,
    /// Version 1: the line is not of the format.
    #[error("malformed PROXY line")]
    Line,
    /// Version 1: no end of line where the longest line ends.
    #[error("PROXY line of over {V1_MAX_LEN} bytes")]
    LineTooLong,
    /// The binary signature with a version other than 2.
    #[error("PROXY header of version {0}, and only 1 and 2 exist")]
    Version(u8),
    /// Version 2: neither `LOCAL` nor `PROXY`.
    #[error("unknown PROXY command {0}")]
    Command(u8),
    /// Version 2: the byte of address family and transport has no meaning.
    #[error("unknown PROXY address family and transport {0:#04x}")]
    Family(u8),
    /// Version 2: the payload is too short for its addresses.
    #[error("PROXY payload of {0} bytes is too short for its addresses")]
    PayloadTooShort(usize),
    /// Version 2: the payload is over the limit of this program.
    #[error("PROXY payload of {0} bytes, and {MAX_PAYLOAD} is the most accepted")]
    PayloadTooLong(usize),
}

/// Parses the header at the start of `bytes`.
///
/// `Ok(None)`: incomplete, read more. `Ok(Some((header, len)))`: the header took `len` bytes, at
/// most [`MAX_LEN`]; what follows them is the player's.
///
/// # Errors
/// As soon as no further byte could make `bytes` a header.
pub fn parse(bytes: &[u8]) -> Result<Option<(ProxyHeader, usize)>, HeaderError> {
    match (starts(bytes, v2::PROTOCOL_PREFIX), starts(bytes, V1_START)) {
        (Start::Whole(rest), _) => parse_v2(bytes, rest),
        (_, Start::Whole(_)) => parse_v1(bytes),
        (Start::Wrong, Start::Wrong) => Err(HeaderError::Signature),
        _ => Ok(None),
    }
}

/// Returns whether `bytes`, perhaps too few to tell, start as a PROXY header does.
///
/// With `accept_proxy: optional` all others are the player's own first bytes. Bytes that have a
/// header's whole start and go on wrong are a bad header, not a player without one.
pub fn may_be_header(bytes: &[u8]) -> bool {
    !matches!((starts(bytes, v2::PROTOCOL_PREFIX), starts(bytes, V1_START)), (Start::Wrong, Start::Wrong))
}

/// The result of comparing bytes with the start that they should have.
enum Start<'a> {
    /// They do; the rest.
    Whole(&'a [u8]),
    /// They end before that can be said.
    Short,
    /// They do not.
    Wrong,
}

fn starts<'a>(bytes: &'a [u8], with: &[u8]) -> Start<'a> {
    match bytes.strip_prefix(with) {
        Some(rest) => Start::Whole(rest),
        None if with.starts_with(bytes) => Start::Short,
        None => Start::Wrong,
    }
}

/// Parses version 2. `rest` is the part of `bytes` after the signature.
fn parse_v2(bytes: &[u8], rest: &[u8]) -> Result<Option<(ProxyHeader, usize)>, HeaderError> {
    let Some((&version_command, rest)) = rest.split_first() else { return Ok(None) };
    if version_command >> 4 != 2 {
        return Err(HeaderError::Version(version_command >> 4));
    }
    let local = match version_command & 0x0F {
        0 => true,
        1 => false,
        command => return Err(HeaderError::Command(command)),
    };
    let Some((&family, rest)) = rest.split_first() else { return Ok(None) };
    if !local && (family >> 4 > 3 || family & 0x0F > 2) {
        return Err(HeaderError::Family(family));
    }
    let Some((length, payload)) = rest.split_first_chunk::<2>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes(*length));
    if length > MAX_PAYLOAD {
        return Err(HeaderError::PayloadTooLong(length));
    }
    if local {
        // The format has a receiver skip all of it, so `ppp` is not asked whether it makes sense.
        return Ok((payload.len() >= length).then_some((ProxyHeader::NO_ADDRESSES, V2_FIXED_LEN + length)));
    }
    let header = match v2::Header::try_from(bytes) {
        Ok(header) => header,
        Err(v2::ParseError::Incomplete(_) | v2::ParseError::Partial(..)) => return Ok(None),
        Err(v2::ParseError::InvalidAddresses(length, _)) => return Err(HeaderError::PayloadTooShort(length)),
        Err(_) => return Err(HeaderError::Family(family)),
    };
    let parsed = match header.addresses {
        // A datagram's addresses say nothing about a TCP connection; HAProxy ignores them as well.
        _ if header.protocol != v2::Protocol::Stream => ProxyHeader::NO_ADDRESSES,
        v2::Addresses::IPv4(a) => {
            ProxyHeader::new((a.source_address, a.source_port), (a.destination_address, a.destination_port))
        }
        v2::Addresses::IPv6(a) => {
            ProxyHeader::new((a.source_address, a.source_port), (a.destination_address, a.destination_port))
        }
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => ProxyHeader::NO_ADDRESSES,
    };
    Ok(Some((parsed, header.len())))
}

fn parse_v1(bytes: &[u8]) -> Result<Option<(ProxyHeader, usize)>, HeaderError> {
    let bytes = bytes.get(..V1_MAX_LEN).unwrap_or(bytes);
    let (line, whole) = match bytes.iter().position(|&b| b == b'\n') {
        Some(end) => (bytes.get(..=end).unwrap_or(bytes), true),
        None => (bytes, false),
    };
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    if !line_may_continue(text) {
        return Err(HeaderError::Line);
    }
    if !whole {
        return if bytes.len() < V1_MAX_LEN { Ok(None) } else { Err(HeaderError::LineTooLong) };
    }
    if !text.ends_with(b"\r") {
        return Err(HeaderError::Line);
    }
    if matches!(starts(text, b"PROXY UNKNOWN"), Start::Whole(_)) {
        return Ok(Some((ProxyHeader::NO_ADDRESSES, line.len())));
    }
    // `ppp` calls some whole lines incomplete; here every line has its end, so all its errors count.
    let header = v1::Header::try_from(line).map_err(|_| HeaderError::Line)?;
    let parsed = match header.addresses {
        v1::Addresses::Tcp4(a) => {
            ProxyHeader::new((a.source_address, a.source_port), (a.destination_address, a.destination_port))
        }
        v1::Addresses::Tcp6(a) => {
            ProxyHeader::new((a.source_address, a.source_port), (a.destination_address, a.destination_port))
        }
        v1::Addresses::Unknown => ProxyHeader::NO_ADDRESSES,
    };
    Ok(Some((parsed, line.len())))
}

/// Returns whether a line without its LF, perhaps cut anywhere, has no error so far.
fn line_may_continue(line: &[u8]) -> bool {
    let Start::Whole(rest) = starts(line, V1_START) else { return false };
    let (fields, v6) = match (starts(rest, b"TCP4 "), starts(rest, b"TCP6 "), starts(rest, b"UNKNOWN")) {
        (Start::Whole(fields), ..) => (fields, false),
        (_, Start::Whole(fields), _) => (fields, true),
        // Anything that follows is to be skipped, but the word must end.
        (_, _, Start::Whole(rest)) => return matches!(rest.first(), None | Some(b' ' | b'\r')),
        (Start::Wrong, Start::Wrong, Start::Wrong) => return false,
        _ => return true,
    };
    let mut fields = fields.split(|&b| b == b' ').enumerate().peekable();
    while let Some((index, field)) = fields.next() {
        let ends = fields.peek().is_some();
        let fine = match (index, field.strip_suffix(b"\r")) {
            (0 | 1, _) if ends => is_address(field, v6),
            (0 | 1, _) => may_be_address(field, v6),
            (2, _) if ends => is_port(field),
            (3, Some(field)) if !ends => is_port(field),
            (2 | 3, _) if !ends => field.is_empty() || is_port(field),
            _ => false,
        };
        if !fine {
            return false;
        }
    }
    true
}

fn is_address(text: &[u8], v6: bool) -> bool {
    match str::from_utf8(text).map(str::parse) {
        Ok(Ok(address)) => v6 == matches!(address, IpAddr::V6(_)),
        _ => false,
    }
}

fn may_be_address(text: &[u8], v6: bool) -> bool {
    text.len() <= MAX_ADDRESS_TEXT
        && text.iter().all(|&b| match b {
            b'0'..=b'9' | b'.' => true,
            b'a'..=b'f' | b'A'..=b'F' | b':' => v6,
            _ => false,
        })
}

/// Digits alone, without the sign and the leading zeros that number parsers let pass. Every start
/// of a port is one as well.
fn is_port(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_digit)
        && (text == b"0" || !text.starts_with(b"0"))
        && str::from_utf8(text).is_ok_and(|text| text.parse::<u16>().is_ok())
}

/// Appends a version 2 header: 28 bytes for IPv4, 52 for IPv6, no TLVs.
///
/// v4-mapped addresses count as IPv4. Where the families still differ the header is IPv6, with the
/// IPv4 address v4-mapped: the format has no other way to keep both.
pub fn write_v2(out: &mut Vec<u8>, source: SocketAddr, destination: SocketAddr) {
    write_v2_to(out, source, destination, None);
}

/// Appends a version 2 header with an authority, which names the connection's purpose; of a longer one only the first
/// 255 bytes.
pub fn write_v2_to(out: &mut Vec<u8>, source: SocketAddr, destination: SocketAddr, authority: Option<&str>) {
    let authority = authority.map(|name| name.as_bytes().get(..MAX_AUTHORITY).unwrap_or(name.as_bytes()));
    let more = authority.map_or(0, |name| TLV_LEN + name.len()) as u16;
    out.extend_from_slice(v2::PROTOCOL_PREFIX);
    out.push(v2::Version::Two | v2::Command::Proxy);
    let (source_port, destination_port) = match one_family(source, destination) {
        (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
            out.push(v2::AddressFamily::IPv4 | v2::Protocol::Stream);
            out.extend_from_slice(&(12 + more).to_be_bytes());
            out.extend_from_slice(&source.ip().octets());
            out.extend_from_slice(&destination.ip().octets());
            (source.port(), destination.port())
        }
        (source, destination) => {
            out.push(v2::AddressFamily::IPv6 | v2::Protocol::Stream);
            out.extend_from_slice(&(36 + more).to_be_bytes());
            out.extend_from_slice(&as_v6(source.ip()).octets());
            out.extend_from_slice(&as_v6(destination.ip()).octets());
            (source.port(), destination.port())
        }
    };
    out.extend_from_slice(&source_port.to_be_bytes());
    out.extend_from_slice(&destination_port.to_be_bytes());
    if let Some(name) = authority {
        out.extend_from_slice(&[v2::Type::Authority as u8, 0, name.len() as u8]);
        out.extend_from_slice(name);
    }
}

/// Returns the authority of the version 2 header that `bytes` begin with. `None` if the header is incomplete, has none
/// that is text, or is of version 1.
pub fn authority(bytes: &[u8]) -> Option<&str> {
    let header = v2::Header::try_from(bytes).ok()?;
    let at = bytes.get(..header.len())?;
    // Of all, the first; those behind a malformed one are not looked for.
    let mut rest = at.get(header.len() - header.tlv_bytes().len()..)?;
    loop {
        let (&[kind, high, low], behind) = rest.split_first_chunk::<TLV_LEN>()?;
        let (value, next) = behind.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        if kind == v2::Type::Authority as u8 {
            return str::from_utf8(value).ok();
        }
        rest = next;
    }
}

/// Appends a version 1 line. Families as in [`write_v2`].
pub fn write_v1(out: &mut Vec<u8>, source: SocketAddr, destination: SocketAddr) {
    let line = v1::Addresses::from(one_family(source, destination)).to_string();
    out.extend_from_slice(line.as_bytes());
}

/// Returns both addresses in one family: IPv4 if both can be, IPv6 otherwise.
fn one_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    match (unmap_socket(source), unmap_socket(destination)) {
        (source, destination) if source.is_ipv4() == destination.is_ipv4() => (source, destination),
        (source, destination) => (
            SocketAddr::new(as_v6(source.ip()).into(), source.port()),
            SocketAddr::new(as_v6(destination.ip()).into(), destination.port()),
        ),
    }
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// Returns the IPv4 address of a v4-mapped IPv6 one, as sockets that listen on `::` report them; any other address as
/// it is.
pub fn unmap(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Applies [`unmap`], and keeps the port.
pub fn unmap_socket(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => SocketAddr::new(unmap(v6.into()), address.port()),
        _ => address,
    }
}

#[cfg(test)]
mod tests;

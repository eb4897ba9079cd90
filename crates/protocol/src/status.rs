//! Status of a game server, as server lists and web sites ask for it: requests recognised, and answers changed to
//! name what the operator publishes.
//!
//! A request is the first packet of a connection: a u16, little endian, and so many bytes. These begin with `FF`, the
//! number of the protocol; in front of it there may be a checksum of the rest, Adler-32 in 4 bytes, as a login has one
//! in front of `01`. Then:
//!
//! | request | behind the `FF` | answer |
//! |---|---|---|
//! | [`StatusRequest::Xml`] | `FF`, `info` | XML, until the end of the stream |
//! | [`StatusRequest::Json`] | `FF`, `json` (Canary) | JSON, the same |
//! | [`StatusRequest::Parts`] | `01`, flags in a u16 of which the lower byte counts, perhaps a name | a packet: a u16 and so many bytes |

use std::borrow::Cow;

use adler2::adler32_slice as adler32;
use serde_json::Value;
use thiserror::Error;

mod view;
mod xml;

pub use view::ServerStatus;

use xml::Attributes;

/// The longest packet that may hold a request, its length field included. Logins are a third of that.
pub const MAX_REQUEST: usize = 1024;
/// The longest answer: as long as a packet can be, its length field included.
pub const MAX_ANSWER: usize = LENGTH_LEN + u16::MAX as usize;
/// Bytes of a leading u16.
const LENGTH_LEN: usize = 2;
/// Bytes of a checksum.
const CHECKSUM_LEN: usize = 4;
/// The number of the protocol.
const STATUS: u8 = 0xFF;
/// The byte that asks for a text; others ask for parts.
const TEXT: u8 = 0xFF;
const PARTS: u8 = 0x01;
/// The flag that asks for the first part, which has the address, and the number that this part begins with.
const ADDRESS_FLAG: u8 = 0x01;
const ADDRESS_PART: u8 = 0x10;
/// The flag that asks for the numbers of players, and the number that this part begins with: those online, the most that may be, and the
/// most that have been, each a u32.
const PLAYERS_FLAG: u8 = 0x08;
const PLAYERS_PART: u8 = 0x20;
/// The parts that come before: their flags, their numbers, their strings, and the bytes behind those.
const PARTS_BEFORE_PLAYERS: [(u8, u8, usize, usize); 3] =
    [(ADDRESS_FLAG, ADDRESS_PART, 3, 0), (0x02, 0x11, 2, 0), (0x04, 0x12, 3, size_of::<u64>())];
/// The flag that asks whether somebody is online: a name comes with it.
const NAME_FLAG: u8 = 0x40;

/// The kind of a connection's first packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstPacket {
    /// A request for the status.
    Request(StatusRequest),
    /// A packet that may be such a request, and is longer than any.
    TooLong,
    /// Something else.
    Other,
}

/// A request for the status, without what game servers ignore in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatusRequest {
    /// All as XML.
    Xml,
    /// All as JSON.
    Json,
    /// Parts, each with a flag.
    Parts {
        /// The flags of the requested parts.
        flags: u8,
        /// Of whom to say whether they are online; empty without that flag.
        name: Vec<u8>,
    },
}

/// The error of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AnswerError {
    /// It is not what was asked for: nobody can tell whether there is an address in it.
    #[error("the game server's answer is no status")]
    NotStatus,
    /// The packet has no room for the published address.
    #[error("the game server's status and the published address are longer than a packet")]
    TooLong,
}

/// The values that are published in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishedFields<'a> {
    /// The address for players: a name or an address, with no character that XML or JSON have to quote.
    pub address: &'a str,
    /// And the port; `None` leaves it as the game server says.
    pub port: Option<u16>,
    /// The number of players online; `None` leaves it as the game server says.
    pub online: Option<u32>,
}

/// Returns the kind of first packet in `bytes`; `None` if that is not known yet.
///
/// Checksums are read as game servers do it: bytes count as a checksum if it is right, and otherwise the packet begins
/// without one.
pub fn first(bytes: &[u8]) -> Option<FirstPacket> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_LEN>()?;
    let length = usize::from(u16::from_le_bytes(*length));
    let body = rest.get(..length).unwrap_or(rest);
    let behind_checksum = body.get(CHECKSUM_LEN..).unwrap_or_default();
    let may_have_checksum = length > CHECKSUM_LEN && may_be_request(behind_checksum);
    if length == 0 || !(may_be_request(body) || may_have_checksum) {
        return Some(FirstPacket::Other);
    }
    if LENGTH_LEN + length > MAX_REQUEST {
        // By then both ways to begin are known.
        return (behind_checksum.len() >= 2).then_some(FirstPacket::TooLong);
    }
    if body.len() < length {
        return None;
    }
    let content = match body.split_first_chunk::<CHECKSUM_LEN>() {
        Some((sum, content)) if u32::from_le_bytes(*sum) == adler32(content) => content,
        _ => body,
    };
    Some(request(content).map_or(FirstPacket::Other, FirstPacket::Request))
}

/// Returns whether a request may begin in this way. A login's checksum does so once in 65521 times.
fn may_be_request(content: &[u8]) -> bool {
    matches!(content, [] | [STATUS] | [STATUS, TEXT | PARTS, ..])
}

fn request(content: &[u8]) -> Option<StatusRequest> {
    match content {
        [STATUS, TEXT, b'i', b'n', b'f', b'o', ..] => Some(StatusRequest::Xml),
        [STATUS, TEXT, b'j', b's', b'o', b'n', ..] => Some(StatusRequest::Json),
        // Some clients send one byte of flags.
        [STATUS, PARTS, flags, rest @ ..] => {
            let name = match rest.get(1..).and_then(string) {
                Some((name, _)) if flags & NAME_FLAG != 0 => name.to_vec(),
                _ => Vec::new(),
            };
            Some(StatusRequest::Parts { flags: *flags, name })
        }
        _ => None,
    }
}

impl StatusRequest {
    /// Returns the bytes that are sent to a game server.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut content = match self {
            Self::Xml => vec![STATUS, TEXT, b'i', b'n', b'f', b'o'],
            Self::Json => vec![STATUS, TEXT, b'j', b's', b'o', b'n'],
            Self::Parts { flags, .. } => vec![STATUS, PARTS, *flags, 0],
        };
        if let Self::Parts { flags, name } = self
            && flags & NAME_FLAG != 0
        {
            content.extend(length_of(name));
            content.extend(name);
        }
        [&length_of(&content)[..], &content].concat()
    }

    /// Returns the game server's answer with `published` in it, and everything else as it is.
    ///
    /// # Errors
    /// Fails if it is no answer to this request.
    pub fn publish(&self, answer: &[u8], published: PublishedFields<'_>) -> Result<Vec<u8>, AnswerError> {
        match self {
            Self::Xml => publish_xml(answer, published).ok_or(AnswerError::NotStatus),
            Self::Json => publish_json(answer, published).ok_or(AnswerError::NotStatus),
            Self::Parts { flags, .. } => publish_parts(answer, *flags, published),
        }
    }
}

/// Changes `ip` and `port` of `serverinfo`, and `online` of `players`, as far as it has them.
fn publish_xml(xml: &[u8], published: PublishedFields<'_>) -> Option<Vec<u8>> {
    let port = published.port.map(|port| port.to_string());
    let server = with_attributes(xml, Attributes::of(xml, b"<serverinfo")?, |name| match name {
        b"ip" => Some(published.address),
        b"port" => port.as_deref(),
        _ => None,
    })?;
    let Some(online) = published.online.map(|online| online.to_string()) else { return Some(server) };
    let Some(players) = Attributes::of(&server, b"<players") else { return Some(server) };
    with_attributes(&server, players, |name| (name == b"online").then_some(online.as_str()))
}

/// Changes the values of a tag for which `new` has others.
fn with_attributes<'n>(xml: &[u8], mut tag: Attributes<'_>, new: impl Fn(&[u8]) -> Option<&'n str>) -> Option<Vec<u8>> {
    let (mut out, mut copied) = (Vec::with_capacity(xml.len()), 0);
    while let Some((name, value)) = tag.read_next().ok()? {
        if let Some(new) = new(name) {
            out.extend_from_slice(xml.get(copied..value.start)?);
            out.extend_from_slice(new.as_bytes());
            copied = value.end;
        }
    }
    out.extend_from_slice(xml.get(copied..)?);
    Some(out)
}

/// Publishes in JSON. The result is equal, and byte for byte so if the answer came without spaces and with its keys in
/// order, as servers write it.
fn publish_json(json: &[u8], published: PublishedFields<'_>) -> Option<Vec<u8>> {
    let mut status: Value = serde_json::from_slice(json).ok()?;
    let server = status.get_mut("serverinfo")?.as_object_mut()?;
    if let Some(ip) = server.get_mut("ip") {
        *ip = published.address.into();
    }
    if let (Some(old), Some(port)) = (server.get_mut("port"), published.port) {
        *old = if old.is_string() { port.to_string().into() } else { port.into() };
    }
    if let (Some(old), Some(online)) = (status.pointer_mut("/players/online"), published.online) {
        *old = if old.is_string() { online.to_string().into() } else { online.into() };
    }
    serde_json::to_vec(&status).ok()
}

/// Changes the second and the third string of the first part, if that was asked for: the address and the port; and the number of players
/// online.
fn publish_parts(answer: &[u8], flags: u8, published: PublishedFields<'_>) -> Result<Vec<u8>, AnswerError> {
    let (length, body) = answer.split_first_chunk::<LENGTH_LEN>().ok_or(AnswerError::NotStatus)?;
    if usize::from(u16::from_le_bytes(*length)) != body.len() {
        return Err(AnswerError::NotStatus);
    }
    let mut body = Cow::Borrowed(body);
    if let Some(online) = published.online.filter(|_| flags & PLAYERS_FLAG != 0) {
        let at = online_at(&body, flags).ok_or(AnswerError::NotStatus)?;
        if let Some(old) = body.to_mut().get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
            *old = online.to_le_bytes();
        }
    }
    if flags & ADDRESS_FLAG == 0 {
        return Ok([&length[..], &body].concat());
    }
    let (name, port, rest) = address_part(&body).ok_or(AnswerError::NotStatus)?;
    let port = published.port.map_or(Cow::Borrowed(port), |port| Cow::Owned(port.to_string().into_bytes()));
    let mut changed = vec![ADDRESS_PART];
    for text in [name, published.address.as_bytes(), &port] {
        changed.extend(length_of(text));
        changed.extend_from_slice(text);
    }
    changed.extend_from_slice(rest);
    let length = u16::try_from(changed.len()).map_err(|_| AnswerError::TooLong)?;
    Ok([&length.to_le_bytes()[..], &changed].concat())
}

/// Returns the name of the server and its port in the first part, and the bytes after that part.
fn address_part(body: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name, rest) = string(body.strip_prefix(&[ADDRESS_PART])?)?;
    let (_, rest) = string(rest)?;
    let (port, rest) = string(rest)?;
    Some((name, port, rest))
}

/// Returns the place of the number of players online, which stands behind the parts that were asked for before it.
fn online_at(body: &[u8], flags: u8) -> Option<usize> {
    let mut rest = body;
    for (flag, part, strings, more) in PARTS_BEFORE_PLAYERS {
        if flags & flag == 0 {
            continue;
        }
        rest = rest.strip_prefix(&[part])?;
        for _ in 0..strings {
            rest = string(rest)?.1;
        }
        rest = rest.get(more..)?;
    }
    let numbers = rest.strip_prefix(&[PLAYERS_PART])?;
    (numbers.len() >= size_of::<u32>()).then(|| body.len() - numbers.len())
}

/// Returns a string, which has its length in front, and the bytes after it.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_LEN>()?;
    rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))
}

/// Returns the length of bytes from a packet or from the configuration, which fits.
fn length_of(bytes: &[u8]) -> [u8; LENGTH_LEN] {
    u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_le_bytes()
}

#[cfg(test)]
mod tests;

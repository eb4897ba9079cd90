//! The changes that a gateway in front of a login server makes in an answer: addresses of worlds, and the list of edges.

use std::net::Ipv4Addr;

use super::AnswerError;
use super::Worlds;
use super::answer::{AddressAt, EDGES, parse};
use super::fields::put_text;
use super::request::LoginRequest;
use crate::edge_list::EdgeList;

/// The address that has a client play over its links.
const OVER_LINKS: Ipv4Addr = Ipv4Addr::LOCALHOST;

crate::words! {
    /// The course that a login took.
    pub enum LoginResult {
        /// The answer is changed.
        Rewritten = "rewritten",
        /// The server refuses the login, which passes unchanged. So does the answer in all that follow.
        Refused = "refused",
        /// There was nothing to change: no edge is told, or none fits.
        Unchanged = "unchanged",
        /// The server has a list of edges of its own.
        Listed = "listed",
        /// The connection begins with something else, or in an unknown form.
        NotLogin = "not_login",
        /// The login is encrypted for another key.
        OtherKey = "other_key",
        /// The answer has an unknown form.
        Unknown = "unknown_answer",
        /// The answer is too long.
        TooLong = "too_long",
        /// There was no whole answer in time, or the connection ended before.
        Unanswered = "unanswered",
    }
}

/// All that players are to be told.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// The edges that clients are to use now.
    pub edges: &'a EdgeList,
    /// The address of the worlds.
    pub worlds: Worlds,
}

/// Changes the answer at the beginning of `bytes`, to this login. Returns the changed one, and how many of the bytes it is in place of. `None`
/// if it is incomplete.
///
/// # Errors
/// Returns the reason for which it is to pass unchanged; bytes further on change nothing about that.
pub fn rewrite(bytes: &[u8], request: &LoginRequest, told: Told<'_>) -> Result<Option<(Vec<u8>, usize)>, LoginResult> {
    let mut framing = request.framing;
    let Some((content, length)) = framing.open(bytes, request.key.as_ref())? else { return Ok(None) };
    let (answer, addresses) = parse(&content, request.version).ok_or(LoginResult::Unknown)?;
    if answer.refusal.is_some() {
        return Err(LoginResult::Refused);
    }
    if answer.edges.is_some() {
        return Err(LoginResult::Listed);
    }
    let list = request.otcv8 && told.worlds != Worlds::Edge && !told.edges.0.is_empty();
    let host = if list || told.worlds == Worlds::Links { Host::Links } else { Host::Edge(told.edges) };
    let mut changed = host.put_in(&content, &addresses).ok_or(LoginResult::Unknown)?;
    if list {
        put_edges(&mut changed, told.edges);
    }
    if changed == content {
        return Err(LoginResult::Unchanged);
    }
    let sealed = framing.seal(&changed, request.key.as_ref()).ok_or(LoginResult::TooLong)?;
    Ok(Some((sealed, length)))
}

impl From<AnswerError> for LoginResult {
    fn from(error: AnswerError) -> Self {
        match error {
            AnswerError::Unknown => Self::Unknown,
            AnswerError::TooLong => Self::TooLong,
        }
    }
}

/// The host that is told in place of a world's own.
enum Host<'a> {
    Links,
    Edge(&'a EdgeList),
}

impl Host<'_> {
    /// Copies an answer's content with this host at all `addresses`, which are in order; one that does not fit is left.
    fn put_in(&self, content: &[u8], addresses: &[AddressAt]) -> Option<Vec<u8>> {
        let (mut out, mut copied) = (Vec::with_capacity(content.len()), 0);
        for at in addresses {
            let (AddressAt::Text(range) | AddressAt::V4(range)) = at;
            out.extend(content.get(copied..range.start)?);
            copied = range.end;
            let put = match at {
                AddressAt::Text(_) => self.name().map(|name| put_text(&mut out, &name)),
                AddressAt::V4(_) => self.address().map(|address| out.extend(address.octets())),
            };
            if put.is_none() {
                out.extend(content.get(range.clone())?);
            }
        }
        out.extend(content.get(copied..)?);
        Some(out)
    }

    fn name(&self) -> Option<String> {
        match self {
            Self::Links => Some(OVER_LINKS.to_string()),
            Self::Edge(edges) => edges.first().map(|edge| edge.host.clone()),
        }
    }

    /// Returns the address, of the best edge that is told by one.
    fn address(&self) -> Option<Ipv4Addr> {
        match self {
            Self::Links => Some(OVER_LINKS),
            Self::Edge(edges) => {
                let addresses = edges.0.iter().filter_map(|edge| Some((edge.priority, edge.host.parse().ok()?)));
                addresses.min_by_key(|(priority, _)| *priority).map(|(_, address)| address)
            }
        }
    }
}

/// Appends the part with the list of edges, of which it has room for 255.
fn put_edges(out: &mut Vec<u8>, edges: &EdgeList) {
    let told = edges.0.iter().take(u8::MAX.into());
    // At most u8::MAX.
    out.extend([EDGES, told.len() as u8]);
    for edge in told {
        put_text(out, &edge.host);
        out.extend([edge.port, edge.priority].map(u16::to_le_bytes).concat());
    }
}

//! Answers to logins: read, as a client reads them.

use std::net::Ipv4Addr;
use std::ops::Range;

use super::fields::Fields;
use super::packet::Framing;
use super::xtea::XteaKey;
use super::{AnswerError, PREMIUM_UNTIL, PREVIEW, WORLDS};
use crate::edge_list::{EdgeList, ListedEdge};

/// The kinds of parts.
const ERROR: u8 = 0x0A;
const NEW_ERROR: u8 = 0x0B;
const TOKEN_RIGHT: u8 = 0x0C;
const TOKEN_WRONG: u8 = 0x0D;
const UPDATE: u8 = 0x11;
const MOTD: u8 = 0x14;
const UPDATE_NEEDED: u8 = 0x1E;
const SESSION_KEY: u8 = 0x28;
const CHARACTERS: u8 = 0x64;
/// The kind of the part that has a list of edges.
pub(super) const EDGES: u8 = 0x6E;

/// The answer to a login: what its parts say.
///
/// | kind | part |
/// |---|---|
/// | `0A`, `0B` | a text: the login is refused, in the first form up to 10.75 |
/// | `0C`, `0D` | a byte: the token of an authenticator is right, or is missing |
/// | `11`, `1E` | the client is too old: a text, or nothing |
/// | `14` | a text: the message of the day, behind its number and a new line |
/// | `28` | a text: the key of the session, which the client shows in the game login |
/// | `64` | the list of characters |
/// | `6E` | the list of edges: a byte with their count, and of each the host (text), port and priority (u16 each) |
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClassicAnswer {
    /// The reason for which there is no list of characters.
    pub refusal: Option<Refusal>,
    /// The message of the day, behind its number and a new line.
    pub motd: Option<String>,
    /// The key that the client shows in the game login.
    pub session_key: Option<SessionKey>,
    /// The list of characters.
    pub characters: Option<CharacterList>,
    /// The list of edges.
    pub edges: Option<EdgeList>,
}

/// The reason for which a login is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The text that the server has the client show.
    Message(String),
    /// The token of an authenticator is missing or wrong.
    Token,
    /// The client is too old.
    Update,
}

/// The key of a session. Many servers have account and password in it, so it is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionKey(pub String);

/// The characters of an account, and the worlds that they are in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CharacterList {
    /// The worlds.
    pub worlds: Vec<World>,
    /// The characters.
    pub characters: Vec<Character>,
    /// How long the account is premium.
    pub premium: Premium,
}

/// A world, as the list says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    /// Its number, which is 0 before 10.11.
    pub id: u8,
    /// Its name.
    pub name: String,
    /// Its host: from 10.11 on a name or an address, before that an IPv4 address.
    pub host: String,
    /// The port of its game server.
    pub port: u16,
}

/// A character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Character {
    /// Its name.
    pub name: String,
    /// The place of its world in the list of worlds.
    pub world: usize,
}

/// How long an account is premium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Premium {
    /// So many days more, up to 10.77.
    Days(u16),
    /// From 10.78 on.
    Until {
        /// The account's status: 0 is in order, 1 frozen, 2 suspended.
        status: u8,
        /// True if it is premium now.
        now: bool,
        /// When that ends, in seconds since 1970; 0 for never, or if it is not premium. Some servers say days here.
        at: u32,
    },
}

impl Default for Premium {
    fn default() -> Self {
        Self::Days(0)
    }
}

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionKey(..)")
    }
}

/// The place of a world's address in an answer's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AddressAt {
    /// A text, with its length.
    Text(Range<usize>),
    /// The four bytes of an IPv4 address.
    V4(Range<usize>),
}

impl ClassicAnswer {
    /// Reads the answer at the beginning of `bytes`, to a login of this version, in the same framing and with the key that it named.
    /// `None` if it is incomplete.
    ///
    /// # Errors
    /// Returns why it cannot be read.
    pub fn read(
        bytes: &[u8],
        mut framing: Framing,
        key: Option<&XteaKey>,
        version: u16,
    ) -> Result<Option<Self>, AnswerError> {
        let Some((content, _)) = framing.open(bytes, key)? else { return Ok(None) };
        parse(&content, version).map(|(answer, _)| Some(answer)).ok_or(AnswerError::Unknown)
    }
}

/// Reads all parts of an answer's content. `None` if one is unknown or not whole.
pub(super) fn parse(content: &[u8], version: u16) -> Option<(ClassicAnswer, Vec<AddressAt>)> {
    let (mut fields, mut answer, mut addresses) = (Fields::new(content), ClassicAnswer::default(), Vec::new());
    while !fields.is_empty() {
        match fields.u8()? {
            ERROR | NEW_ERROR => answer.refusal = Some(Refusal::Message(fields.text()?)),
            TOKEN_RIGHT => {
                fields.u8()?;
            }
            TOKEN_WRONG => {
                fields.u8()?;
                answer.refusal = Some(Refusal::Token);
            }
            UPDATE => {
                fields.raw_text()?;
                answer.refusal = Some(Refusal::Update);
            }
            UPDATE_NEEDED => answer.refusal = Some(Refusal::Update),
            MOTD => answer.motd = Some(fields.text()?),
            SESSION_KEY => answer.session_key = Some(SessionKey(fields.text()?)),
            CHARACTERS if answer.characters.is_none() => {
                answer.characters = Some(characters(&mut fields, version, &mut addresses)?);
            }
            EDGES => answer.edges = Some(edges(&mut fields)?),
            _ => return None,
        }
    }
    (answer.refusal.is_some() || answer.characters.is_some()).then_some((answer, addresses))
}

fn characters(fields: &mut Fields<'_>, version: u16, addresses: &mut Vec<AddressAt>) -> Option<CharacterList> {
    let mut list = CharacterList::default();
    if version >= WORLDS {
        for _ in 0..fields.u8()? {
            let (id, name, from) = (fields.u8()?, fields.text()?, fields.position());
            let host = fields.text()?;
            addresses.push(AddressAt::Text(from..fields.position()));
            let port = fields.u16()?;
            let _preview = fields.u8()?;
            list.worlds.push(World { id, name, host, port });
        }
    }
    for _ in 0..fields.u8()? {
        if version >= WORLDS {
            let id = fields.u8()?;
            let world = list.worlds.iter().position(|world| world.id == id)?;
            list.characters.push(Character { name: fields.text()?, world });
            continue;
        }
        let (name, world, from) = (fields.text()?, fields.text()?, fields.position());
        let host = Ipv4Addr::from(fields.array::<4>()?).to_string();
        addresses.push(AddressAt::V4(from..fields.position()));
        let world = World { id: 0, name: world, host, port: fields.u16()? };
        if version >= PREVIEW {
            fields.u8()?;
        }
        let known = list.worlds.iter().position(|other| *other == world);
        let world = known.unwrap_or_else(|| {
            list.worlds.push(world);
            list.worlds.len() - 1
        });
        list.characters.push(Character { name, world });
    }
    list.premium = if version >= PREMIUM_UNTIL {
        Premium::Until { status: fields.u8()?, now: fields.u8()? != 0, at: fields.u32()? }
    } else {
        Premium::Days(fields.u16()?)
    };
    Some(list)
}

fn edges(fields: &mut Fields<'_>) -> Option<EdgeList> {
    let count = fields.u8()?;
    let mut edge =
        || Some(ListedEdge { host: fields.text()?, port: fields.u16()?, priority: fields.u16()?, datacenter: None });
    (0..count).map(|_| edge()).collect::<Option<_>>().map(EdgeList)
}

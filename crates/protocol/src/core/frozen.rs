//! A client's sessions and links as bytes, so that another process can go on with them.
//!
//! The owner [freezes](ClientMachine::freeze) a machine between two events, and another one [thaws](ClientMachine::thaw) it:
//! nothing has changed then for the client and the game server, but for the links that were left out, which count as lost
//! at that moment. The owner's parts, connections and places within limits, are not in it; sessions and links
//! have the same keys as before, by which the owner knows which is which.
//!
//! The bytes begin with [`FORMAT`]. They are for a process that follows within seconds: times are relative to the
//! moment of the freeze, and go on with the thaw.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::client::{ClientMachine, Link};
use super::keys::{LinkKey, SessionKey};
use super::lend::Lending;
use super::link_writer::LinkWriter;
use super::machine::{SessionLimits, Standing};
use super::owner::ClientOwner;
use super::reason::EndReason;
use super::session::{Session, Sessions};
use super::slots::Slots;
use crate::frame::SessionId;
use crate::game_packet::Framing;
use crate::reassembly::ReassemblyBuffer;
use crate::words::Word;

/// The number of this format: another one for each change of what is in it. Nothing reads those of other formats.
pub const FORMAT: u16 = 2;
/// Links and sessions that a client may have: more than any limit lets it have.
const MAX_KEYS: u32 = 1 << 16;

/// The error of bytes that cannot be thawed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrozenError {
    /// They are of another format.
    #[error("it is of format {0}, and this program reads format {FORMAT}")]
    Format(u16),
    /// They are none, or not whole.
    #[error("it is damaged")]
    Damaged,
}

/// A point in time, as nanoseconds after the moment of the freeze.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct FrozenInstant(i64);

impl FrozenInstant {
    pub fn new(at: Instant, now: Instant) -> Self {
        let nanos = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        Self(if at >= now { nanos(at - now) } else { -nanos(now - at) })
    }

    pub fn at(self, now: Instant) -> Instant {
        let time = Duration::from_nanos(self.0.unsigned_abs());
        let at = if self.0 >= 0 { now.checked_add(time) } else { now.checked_sub(time) };
        at.unwrap_or(now)
    }
}

/// Writes a value that is one of a few words as its word, which stays when others are added.
mod word {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Word;

    pub fn serialize<W: Word, S: Serializer>(word: &W, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(word.as_str())
    }

    pub fn deserialize<'de, W: Word, D: Deserializer<'de>>(from: D) -> Result<W, D::Error> {
        let text = <&str>::deserialize(from)?;
        W::ALL.iter().find(|word| word.as_str() == text).copied().ok_or_else(|| D::Error::custom("an unknown word"))
    }
}

/// A reason, by its word.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FrozenReason(#[serde(with = "word")] pub EndReason);

/// An [`Inbox`](super::Inbox).
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FrozenInbox {
    pub next: u32,
    pub held: Vec<(u32, Bytes)>,
}

/// An [`Outbox`](super::Outbox).
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FrozenOutbox {
    /// The first packet that is not acknowledged.
    pub base: u32,
    /// Whole frames.
    pub chunks: Vec<Bytes>,
}

/// A [`Machine`](super::Machine), but for its links.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FrozenMachine {
    pub id: u32,
    pub unsent: u32,
    pub inbox: FrozenInbox,
    pub outbox: FrozenOutbox,
    pub deadline: Option<(FrozenInstant, FrozenReason)>,
    pub ended: Option<FrozenReason>,
    pub end_sent: bool,
}

/// An [`Upstream`](super::Upstream).
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FrozenUpstream {
    pub bytes: Bytes,
    pub position: u64,
    /// Bytes of the packets to come that the game server has.
    pub skip: u64,
    pub closed: bool,
    /// The packets of this period may all have gone, and nothing tells when.
    pub spent: bool,
    pub pacer: Option<FrozenPacer>,
}

/// The state of the limit on packets in a second.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FrozenPacer {
    pub limit: u32,
    pub left: u32,
    pub opened: Vec<FrozenInstant>,
    pub waiting: Vec<u16>,
    pub allowed: u32,
    pub next: Option<FrozenInstant>,
}

/// A [`Settled`](super::session::Settled).
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct FrozenSettled {
    pub received: u32,
    pub written: u64,
    pub bytes_in: u64,
}

/// The part of a session that outlives its end.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FrozenClosed {
    No,
    Until(FrozenInstant),
    Over,
}

/// A session, but for what its owner has of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FrozenSession {
    pub key: u32,
    pub born: u64,
    pub listed: bool,
    /// The links that carry it, in the order in which they joined.
    pub links: Vec<u32>,
    /// A link was left out that brought all that the client sends.
    pub lost: bool,
    pub machine: FrozenMachine,
    pub upstream: FrozenUpstream,
    pub settled: FrozenSettled,
    #[serde(with = "word")]
    pub framing: Framing,
    /// A game packet that is not whole.
    pub partial: Bytes,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub connected: bool,
    pub hurried: bool,
    pub unheard: bool,
    pub closed: FrozenClosed,
    pub rejoin_at: Option<FrozenInstant>,
    pub closes: u32,
    pub joins: Option<FrozenInstant>,
}

/// A session that a link carries.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FrozenJoined {
    pub session: u32,
    pub standing: Standing,
    /// The packet that the link writes next.
    pub packet: u32,
}

/// A place at which a link stood.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FrozenStood {
    pub born: u64,
    pub packet: u32,
    pub told: bool,
}

/// A [`LinkWriter`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FrozenWriter {
    pub cut: Bytes,
    pub pongs: u32,
    pub turn: u32,
    pub joined: Vec<FrozenJoined>,
    pub ends: Vec<u32>,
    pub kept_off: Vec<u32>,
    pub stood: Vec<FrozenStood>,
    pub unopened: Option<u32>,
}

/// A link, but for what its owner has of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FrozenLink {
    key: u32,
    input: Bytes,
    silent: bool,
    writer: FrozenWriter,
}

/// The links and sessions of one client, as bytes can hold them.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct FrozenClient {
    pub(super) links: Vec<FrozenLink>,
    pub(super) sessions: Vec<FrozenSession>,
    pub(super) born: u64,
    pub(super) recent: Vec<u32>,
}

/// The owner's part of a session that goes on.
#[derive(Debug)]
pub struct ThawedSession<S, P> {
    /// The owner's part of it.
    pub session: S,
    /// The player that opened it.
    pub player: P,
    /// Others from whose addresses links have joined it.
    pub elsewhere: Vec<P>,
    /// Limits and times, from now on.
    pub limits: SessionLimits,
    /// Packets a second to the game server at the most.
    pub max_packets_per_second: Option<u32>,
}

impl FrozenClient {
    /// Returns the bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Serializing to a vector fails for nothing that is in it.
        postcard::to_extend(self, FORMAT.to_le_bytes().to_vec()).unwrap_or_default()
    }

    /// Reads the bytes.
    ///
    /// # Errors
    /// Fails if they are of another format, or none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FrozenError> {
        let (format, rest) = bytes.split_first_chunk::<2>().ok_or(FrozenError::Damaged)?;
        match u16::from_le_bytes(*format) {
            FORMAT => postcard::from_bytes(rest).map_err(|_| FrozenError::Damaged),
            format => Err(FrozenError::Format(format)),
        }
    }

    /// Returns the links in it.
    pub fn links(&self) -> impl Iterator<Item = LinkKey> {
        self.links.iter().map(|link| LinkKey(link.key))
    }

    /// Returns the sessions in it.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, SessionKey)> {
        self.sessions.iter().map(|session| (SessionId(session.machine.id), SessionKey(session.key)))
    }
}

impl<O: ClientOwner> ClientMachine<O> {
    /// Returns all that it has, but for links that `keeps` leaves out, and sessions that nothing but these needs. To be called
    /// between two events, when nothing more is to be polled.
    pub fn freeze(&self, now: Instant, keeps: impl Fn(LinkKey) -> bool) -> FrozenClient {
        let kept = |link: LinkKey| self.links.get(link.0).is_some() && keeps(link);
        let (mut sessions, mut links) = (Vec::new(), Vec::new());
        for (key, session) in self.sessions.all() {
            let carried = session.links.iter().copied();
            let lost = carried.clone().filter(|link| !kept(*link)).any(|link| self.is_complete(link, key));
            let carried: Vec<_> = carried.filter(|link| kept(*link)).map(|link| link.0).collect();
            if session.is_listed() || !carried.is_empty() {
                sessions.push(session.freeze(key, carried, lost, now));
            }
        }
        for link in (0..self.links.end()).map(LinkKey).filter(|link| kept(*link)) {
            let Some(Link { writer, input, silent, .. }) = self.links.get(link.0) else { continue };
            let writer = writer.freeze(|session| Some(self.sessions.get(session)?.machine.outbox()));
            links.push(FrozenLink {
                key: link.0,
                input: Bytes::copy_from_slice(input.kept()),
                silent: *silent,
                writer,
            });
        }
        let recent = self.recent.iter().map(|session| session.0).collect();
        FrozenClient { links, sessions, born: self.sessions.born(), recent }
    }

    /// Makes the machine that was frozen. `link` and `session` give the owner's part of each; a link for which they have none
    /// is lost, and a session for which they have none, or that is damaged, is over: links that carry it tell the client,
    /// and its key is among those that are returned.
    pub fn thaw(
        frozen: FrozenClient,
        now: Instant,
        mut link: impl FnMut(LinkKey) -> Option<O::Link>,
        mut session: impl FnMut(SessionKey) -> Option<ThawedSession<O::Session, O::Player>>,
    ) -> (Self, Vec<SessionKey>) {
        let FrozenClient { links, sessions, born, recent } = frozen;
        let mut machine = Self {
            links: Slots::default(),
            sessions: Sessions::after(born),
            lending: Lending::default(),
            recent: recent.into_iter().map(SessionId).collect(),
        };
        // The sessions that are over, with their ids.
        let (mut over, mut lost) = (Vec::new(), Vec::new());
        for frozen in sessions {
            let (key, id, listed) = (SessionKey(frozen.key), SessionId(frozen.machine.id), frozen.listed);
            let carried: Vec<_> = frozen.links.iter().copied().map(LinkKey).collect();
            if frozen.lost {
                lost.push(key);
            }
            let owned = if frozen.key < MAX_KEYS { session(key) } else { None };
            let thawed = owned.and_then(|owned| Session::thaw(frozen, owned, now).ok());
            if !thawed.is_some_and(|session| machine.sessions.put(key, session, carried, listed)) {
                over.push((key, id));
            }
        }
        for FrozenLink { key, input, silent, writer } in links {
            let key = LinkKey(key);
            let owned = if key.0 < MAX_KEYS { link(key) } else { None };
            let complete = writer.joined.iter().filter(|joined| joined.standing == Standing::Complete);
            let complete: Vec<_> = complete.map(|joined| SessionKey(joined.session)).collect();
            let put = owned.is_some_and(|owned| {
                let mut thawed = LinkWriter::thaw(writer, &mut machine.sessions, key);
                over.iter().filter(|(session, _)| thawed.missing.contains(session)).for_each(|(_, id)| {
                    // An end of that id would be the end of the one that goes on.
                    if machine.sessions.find(*id).is_none() {
                        thawed.writer.end(*id);
                    }
                });
                let link = Link { owned, writer: thawed.writer, input: ReassemblyBuffer::of(&input), silent };
                machine.links.put(key.0, link)
            });
            if !put {
                machine.sessions.forget(key);
                lost.extend(complete);
            }
        }
        machine.sessions.keep_carried(|session, link| {
            machine
                .links
                .get(link.0)
                .is_some_and(|link| link.writer.carried().iter().any(|joined| joined.session == session))
        });
        for key in lost {
            if let Some(session) = machine.sessions.get_mut(key) {
                session.machine.lost_before(now);
            }
            machine.hasten(key);
        }
        over.iter().for_each(|(_, id)| machine.remember(*id));
        machine.lending.look();
        (machine, over.into_iter().map(|(key, _)| key).collect())
    }

    /// Returns whether a link brings all that the client sends of a session.
    fn is_complete(&self, link: LinkKey, session: SessionKey) -> bool {
        self.links.get(link.0).is_some_and(|link| {
            let mut carried = link.writer.carried().iter();
            carried.any(|joined| joined.session == session && joined.standing == Standing::Complete)
        })
    }
}

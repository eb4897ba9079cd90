//! The frames of a link, and the decision about each.

use std::borrow::Cow;

use super::client::{ClientMachine, MAX_LINKS};
use super::keys::{LinkKey, SessionKey};
use super::owner::{ClientOwner, Effect, FrameCounts};
use super::reason::OpenError;
use crate::frame::{Frame, FrameError, FromClient, PacketId, SessionId};

/// Bytes that came over a link, and how far they are done with. See [`ClientMachine::receive`].
#[derive(Debug)]
pub struct ReceivedBytes<'a> {
    link: LinkKey,
    bytes: Cow<'a, [u8]>,
    used: usize,
    /// Frames that may still be done with in this turn.
    left: u32,
    state: State,
}

#[derive(Debug, Default)]
struct State {
    counts: FrameCounts,
    /// The session that has something for its game server, and packets of it that are not counted yet.
    touched: Option<SessionKey>,
    packets: u32,
    /// The link itself has something to write.
    answer: bool,
    /// A whole frame was seen.
    heard: bool,
    /// All frames are done with, or as many as may be.
    over: bool,
    /// Whole frames are left for another turn.
    paused: bool,
    error: Option<FrameError>,
    /// An effect that comes after the one returned before.
    later: Option<Effect>,
}

impl<'a> ReceivedBytes<'a> {
    pub(super) fn new(link: LinkKey, bytes: Cow<'a, [u8]>) -> Self {
        Self { link, bytes, used: 0, left: u32::MAX, state: State::default() }
    }

    /// Limits the frames that are done with in this turn, so that other links have theirs. The rest is kept.
    #[must_use]
    pub fn at_most(self, frames: u32) -> Self {
        Self { left: frames, ..self }
    }

    /// Returns whether whole frames were kept for another turn. It begins with [`ClientMachine::receive`] of no bytes,
    /// before more is read from the link.
    pub fn is_paused(&self) -> bool {
        self.state.paused
    }

    /// Returns whether a whole frame was among the bytes: a link that brings none is silent.
    pub fn heard(&self) -> bool {
        self.state.heard
    }

    /// Returns what is to be counted since the last time.
    pub fn take_counts(&mut self) -> FrameCounts {
        std::mem::take(&mut self.state.counts)
    }
}

impl State {
    /// Notes that `session` has something for its game server; the one before it writes now.
    fn touch(&mut self, session: SessionKey) -> Option<Effect> {
        if self.touched == Some(session) {
            return None;
        }
        let before = self.touched.replace(session)?;
        Some(Effect::WriteGame { session: before, packets: std::mem::take(&mut self.packets) })
    }
}

impl<O: ClientOwner> ClientMachine<O> {
    /// Goes on with the bytes of `turn` until there is something to do, which is returned; `None` once all whole frames
    /// are done with. The rest is kept for the next turn.
    pub fn next_effect(&mut self, turn: &mut ReceivedBytes<'_>, owner: &O) -> Option<Effect> {
        let ReceivedBytes { link, bytes, used, left, state } = turn;
        if state.later.is_some() {
            return state.later.take();
        }
        while !state.over {
            match Frame::split(bytes.get(*used..).unwrap_or_default()) {
                Ok(Some(_)) if *left == 0 => {
                    (state.over, state.paused) = (true, true);
                    if let Some(link) = self.links.get_mut(link.0) {
                        link.input.keep(std::mem::take(bytes), *used);
                    }
                }
                Ok(Some((frame, _))) => {
                    *left -= 1;
                    *used += frame.wire_len();
                    state.heard = true;
                    let effect = self.on_frame(*link, state, frame.from_client(), owner);
                    if effect.is_some() {
                        return effect;
                    }
                }
                Ok(None) => {
                    state.over = true;
                    // Most reads end with a whole frame, and began with one.
                    let kept = *used < bytes.len() || matches!(bytes, Cow::Owned(_));
                    if kept && let Some(link) = self.links.get_mut(link.0) {
                        link.input.keep(std::mem::take(bytes), *used);
                    }
                }
                Err(error) => (state.over, state.error) = (true, Some(error)),
            }
        }
        if let Some(session) = state.touched.take() {
            return Some(Effect::WriteGame { session, packets: std::mem::take(&mut state.packets) });
        }
        if std::mem::take(&mut state.answer) {
            return Some(Effect::WriteLink(*link));
        }
        state.error.take().map(Effect::Close)
    }

    fn on_frame(&mut self, link: LinkKey, state: &mut State, frame: FromClient<'_>, owner: &O) -> Option<Effect> {
        match frame {
            FromClient::Data { session, packet, ack, payload } => {
                self.on_data(link, state, session, (packet, ack, payload), owner)
            }
            // The first ping said whose link this is; what later ones say changes nothing.
            FromClient::Ping { client: _, rtt } => {
                state.answer = true;
                self.links.get_mut(link.0)?.writer.pong();
                rtt.map(Effect::RoundTrip)
            }
            FromClient::Open { session, port } => {
                state.answer = true;
                self.on_open(link, session, port, owner)
            }
            FromClient::Leave { session } => self.on_leave(link, session, owner),
        }
    }

    /// Takes a packet and an acknowledgement.
    fn on_data(
        &mut self,
        link: LinkKey,
        state: &mut State,
        id: SessionId,
        (packet, ack, payload): (PacketId, PacketId, &[u8]),
        owner: &O,
    ) -> Option<Effect> {
        let Some(key) = self.links.get(link.0)?.writer.get(id) else {
            state.answer = true;
            return self.on_stray(link, id, owner);
        };
        let before = state.touch(key);
        let session = self.sessions.get_mut(key)?;
        let effect = match session.take(packet, ack, payload, &mut state.counts, &mut state.packets) {
            Ok(false) => return before,
            Ok(true) => Effect::Changed(key),
            Err(error) => {
                session.machine.end(error.reason());
                Effect::Ended { session: key, error }
            }
        };
        state.later = before;
        Some(effect)
    }

    /// Refuses data for a session that the link does not carry.
    fn on_stray(&mut self, link: LinkKey, id: SessionId, owner: &O) -> Option<Effect> {
        // A client takes a link for one that has joined, if no end says otherwise, and sends all packets on it too.
        if self.links.get(link.0)?.writer.is_kept_off(id) && self.goes_on(id) {
            return None;
        }
        match self.find(self.link(link)?, id, owner) {
            Ok(Some(_)) => Some(Effect::Refused { session: id, error: OpenError::NotJoined }),
            Ok(None) => self.refuse(link, id, OpenError::UnknownSession),
            Err(error) => self.refuse(link, id, error),
        }
    }

    /// Opens a session, or joins the link to the one that there is.
    fn on_open(&mut self, link: LinkKey, id: SessionId, port: u32, owner: &O) -> Option<Effect> {
        let writer = &self.links.get(link.0)?.writer;
        if writer.get(id).is_some() {
            return None;
        }
        if writer.sessions() >= owner.rules().max_per_link {
            return self.refuse(link, id, OpenError::LinkSessions);
        }
        let (session, new) = match self.find(self.link(link)?, id, owner) {
            Ok(Some(session)) => (session, None),
            Ok(None) => match self.create(link, id, port, owner) {
                Ok(session) => (session?, session.map(Effect::Connect)),
                Err(error) => return self.refuse(link, id, error),
            },
            Err(error) => return self.refuse(link, id, error),
        };
        if self.sessions.get(session)?.links.len() >= MAX_LINKS {
            return self.refuse(link, id, OpenError::SessionLinks);
        }
        let elsewhere = match self.meet(session, link, owner) {
            Ok(elsewhere) => elsewhere.then_some(Effect::JoinedElsewhere(session)),
            Err(error) => return self.refuse(link, id, error),
        };
        let joined = self.sessions.get_mut(session)?;
        joined.links.push(link);
        self.links.get_mut(link.0)?.writer.join(session, &mut joined.machine);
        new.or(elsewhere)
    }

    /// Takes the link off a session.
    fn on_leave(&mut self, link: LinkKey, id: SessionId, owner: &O) -> Option<Effect> {
        let key = self.links.get_mut(link.0)?.writer.remove(id)?;
        let session = self.sessions.get_mut(key)?;
        session.machine.left(owner.now());
        session.links.retain(|other| *other != link);
        self.sessions.drop_unused(key);
        Some(Effect::Changed(key))
    }

    /// Refuses a request, and tells the client that the session is over; but not if it goes on: an end on any link would
    /// be its end on all of them.
    fn refuse(&mut self, link: LinkKey, session: SessionId, error: OpenError) -> Option<Effect> {
        let goes_on = self.goes_on(session);
        let writer = &mut self.links.get_mut(link.0)?.writer;
        if goes_on {
            writer.keep_off(session)
        } else {
            writer.end(session)
        }
        Some(Effect::Refused { session, error })
    }
}

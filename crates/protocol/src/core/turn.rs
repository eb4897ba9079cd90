//! The frames of a link, and the decision about each.

use std::borrow::Cow;

use super::client::{ClientMachine, Link, MAX_LINKS};
use super::keys::{LinkKey, SessionKey};
use super::link_writer::Joined;
use super::machine::Standing;
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
    /// The frame is to be looked at again, after the effect.
    again: bool,
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
                    let len = frame.wire_len();
                    *used += len;
                    state.heard = true;
                    let effect = self.on_frame(*link, state, frame.from_client(), owner);
                    if effect.is_some() {
                        if std::mem::take(&mut state.again) {
                            (*left, *used) = (*left + 1, *used - len);
                        }
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
                let writer = &mut self.links.get_mut(link.0)?.writer;
                writer.pong();
                if let Some(session) = writer.take_unopened() {
                    self.close_unopened(link, session);
                }
                rtt.map(Effect::RoundTrip)
            }
            FromClient::Open { session, port } => {
                state.answer = true;
                match self.on_open(link, session, port, owner) {
                    Ok(effect) => effect,
                    Err(error) => {
                        // Its packets may be on their way.
                        self.remember(session);
                        self.refuse(link, session, error)
                    }
                }
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
        let (key, standing) = match self.links.get(link.0)?.writer.get(id) {
            Some(joined) => (joined.session, joined.standing),
            None => {
                state.answer = true;
                match self.on_stray(link, state, (id, ack), owner) {
                    Ok(session) => (session, Standing::Used),
                    Err(effect) => return effect,
                }
            }
        };
        let before = state.touch(key);
        let session = self.sessions.get_mut(key)?;
        let effect = match session.take(packet, ack, payload, &mut state.counts, &mut state.packets) {
            Ok(resumes) => {
                if standing != Standing::Complete {
                    self.used(link, key, packet);
                }
                if !resumes {
                    return before;
                }
                Effect::Changed(key)
            }
            Err(error) => {
                session.machine.end(error.reason());
                Effect::Ended { session: key, error }
            }
        };
        state.later = before;
        Some(effect)
    }

    /// Has a link join a session of which data came over it: the client counts it as joined, as it was lost and back
    /// before the client noticed. What comes late for a session that is over changes nothing. Refuses other data for
    /// sessions that the link does not carry; without an end, if its open may be lost or on its way.
    ///
    /// # Errors
    /// The effect, if the data is not to be taken, or not before it.
    fn on_stray(
        &mut self,
        link: LinkKey,
        state: &mut State,
        (id, ack): (SessionId, PacketId),
        owner: &O,
    ) -> Result<SessionKey, Option<Effect>> {
        let Link { owned, writer, .. } = self.links.get(link.0).ok_or(None)?;
        let kept_off = writer.is_kept_off(id);
        let error = match self.find(owned, id, owner) {
            Ok(Some(key)) => {
                let ended = self.sessions.get_mut(key).filter(|session| session.machine.ended().is_some());
                if let Some(session) = ended.filter(|session| writer.stood_in(session.born)) {
                    let _ = session.take(PacketId::NONE, ack, &[], &mut state.counts, &mut state.packets);
                    return Err(None);
                }
                match self.join(link, key, Standing::Used, owner) {
                    Ok(false) => return Ok(key),
                    Ok(true) => {
                        state.again = true;
                        return Err(Some(Effect::JoinedElsewhere(key)));
                    }
                    Err(error) => error,
                }
            }
            Ok(None) if self.recent.contains(&id) => {
                self.reject(link, id);
                return Err(None);
            }
            Ok(None) if ack == PacketId::NONE => {
                self.links.get_mut(link.0).ok_or(None)?.writer.note_unopened(id);
                return Err(Some(Effect::Refused { session: id, error: OpenError::UnknownSession }));
            }
            Ok(None) => OpenError::UnknownSession,
            Err(error) => error,
        };
        // A client takes a link for one that has joined, if no end says otherwise, and sends all packets on it too.
        if kept_off && self.goes_on(id) { Err(None) } else { Err(self.refuse(link, id, error)) }
    }

    /// Opens a session, or joins the link to the one that there is. Returns what is to be done.
    ///
    /// # Errors
    /// It is to be refused.
    fn on_open(&mut self, link: LinkKey, id: SessionId, port: u32, owner: &O) -> Result<Option<Effect>, OpenError> {
        let Some(Link { owned, writer, .. }) = self.links.get(link.0) else { return Ok(None) };
        if let Some(joined) = writer.get(id) {
            let session = joined.session;
            self.complete(link, session);
            return Ok(None);
        }
        if writer.sessions() >= owner.rules().max_per_link {
            return Err(OpenError::LinkSessions);
        }
        let (session, new) = match self.find(owned, id, owner)? {
            Some(session) => (session, None),
            None => match self.create(link, id, port, owner)? {
                Some(session) => (session, Some(Effect::Connect(session))),
                None => return Ok(None),
            },
        };
        let elsewhere = self.join(link, session, Standing::Complete, owner)?;
        Ok(new.or(elsewhere.then_some(Effect::JoinedElsewhere(session))))
    }

    /// Has a link carry a session. Returns whether it comes from an address from which none came before.
    ///
    /// # Errors
    /// It is over a limit, and does not.
    pub(super) fn join(
        &mut self,
        link: LinkKey,
        session: SessionKey,
        standing: Standing,
        owner: &O,
    ) -> Result<bool, OpenError> {
        if self.carried_by(link) >= owner.rules().max_per_link {
            return Err(OpenError::LinkSessions);
        }
        if self.sessions.get(session).is_none_or(|session| session.links.len() >= MAX_LINKS) {
            return Err(OpenError::SessionLinks);
        }
        if standing != Standing::Lent
            && let Some(joined) = self.sessions.get_mut(session)
        {
            joined.count_join(owner.now())?;
        }
        let elsewhere = self.meet(session, link, owner)?;
        if let (Some(carrier), Some(joined)) = (self.links.get_mut(link.0), self.sessions.get_mut(session)) {
            joined.links.push(link);
            carrier.writer.join(session, joined.born, &mut joined.machine, standing);
            if standing == Standing::Complete {
                (joined.rejoin_at, joined.closes) = (None, 0);
            }
        }
        // Links that were lent may not be needed any more; or this one does not suffice.
        self.lending.look();
        Ok(elsewhere)
    }

    /// Takes the link off a session.
    fn on_leave(&mut self, link: LinkKey, id: SessionId, owner: &O) -> Option<Effect> {
        let Joined { session: key, standing, .. } = self.links.get_mut(link.0)?.writer.remove(id)?;
        let session = self.sessions.get_mut(key)?;
        session.machine.left(standing, owner.now());
        self.lending.look();
        session.links.retain(|other| *other != link);
        self.sessions.drop_unused(key);
        Some(Effect::Changed(key))
    }

    /// Refuses a request for a session.
    fn refuse(&mut self, link: LinkKey, session: SessionId, error: OpenError) -> Option<Effect> {
        self.reject(link, session);
        Some(Effect::Refused { session, error })
    }

    /// Tells the client that a session is over; but not if it goes on: an end on any link would be its end on all of them.
    fn reject(&mut self, link: LinkKey, session: SessionId) {
        let goes_on = self.goes_on(session);
        let Some(Link { writer, .. }) = self.links.get_mut(link.0) else { return };
        if !goes_on {
            return writer.end(session);
        }
        writer.keep_off(session);
        if let Some(key) = self.sessions.find(session) {
            self.hasten(key);
        }
    }
}

//! The clients of one worker: their machines, and the effects carried out on sockets.

use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::time::Instant;

use super::link::RelayLink;
use super::session::SessionTask;
use super::{FRAMES_PER_TURN, MAX_CLIENT_LINKS, Relay};
use crate::admission::{AddressKey, FairShare};
use crate::connection::{CloseReason, Closing, ConnectionHandle};
use otproxy_protocol::core::{self, Effect, EndReason, FrameCounts, LinkDuty, LinkKey, SessionKey};
use otproxy_protocol::frame::ClientId;

/// The machine of a client, with the connections that it decides about.
pub(super) type RelayMachine = core::ClientMachine<Relay>;

/// A client on the worker that owns it. It is there as long as it has links or sessions.
pub struct RelayClient {
    pub(super) id: ClientId,
    /// Borrowed for a call, and for all effects of one read; never while something waits.
    pub(super) machine: RefCell<RelayMachine>,
}

impl RelayClient {
    /// Returns a client that goes on with this machine.
    pub(super) fn thawed(id: ClientId, machine: RelayMachine) -> Self {
        Self { id, machine: RefCell::new(machine) }
    }

    /// Returns whether one more link may be this client's. If it has as many as it may, those of one network make room for
    /// another one that has fewer: the rule is that of connections. An edge that claims many addresses counts as one.
    pub(super) fn has_room_for(&self, newcomer: &ConnectionHandle, key: AddressKey) -> bool {
        let machine = self.machine.borrow();
        let links = || machine.links().filter(|link| link.handle.closing().is_none());
        if links().count() < MAX_CLIENT_LINKS {
            return true;
        }
        let evicted_by = |part: fn(AddressKey) -> AddressKey, of: &dyn Fn(AddressKey) -> bool| {
            let mut shares = FairShare::default();
            links().filter(|link| of(link.key())).for_each(|link| shares.add(part(link.key()), link.handle.id()));
            shares.add(part(key), newcomer.id());
            shares.evicted_by(part(key))
        };
        let evicted = evicted_by(AddressKey::of_reporter, &|_| true);
        let evicted = evicted.or_else(|| evicted_by(|key| key, &|other| other.reporter == key.reporter));
        let evicted = evicted.and_then(|evicted| links().find(|link| link.handle.id() == evicted));
        evicted.is_some_and(|link| link.handle.close(Closing::Evicted))
    }
}

impl Relay {
    /// Returns the client of that id, a new one if it has nothing here yet.
    pub(super) fn client(&self, id: ClientId) -> Rc<RelayClient> {
        let new = || Rc::new(RelayClient { id, machine: RefCell::default() });
        Rc::clone(self.clients.borrow_mut().entry(id).or_insert_with(new))
    }

    /// Forgets a client that has nothing here any more, or in a drain lets go what it cannot use. It is called as tasks are dropped, perhaps by a panic: a second one
    /// would end the process.
    pub(super) fn forget_unused(&self, client: &Rc<RelayClient>) {
        self.let_go(client);
        if client.machine.try_borrow().is_ok_and(|machine| machine.is_empty())
            && let Ok(mut clients) = self.clients.try_borrow_mut()
            && let Entry::Occupied(there) = clients.entry(client.id)
            && Rc::ptr_eq(there.get(), client)
        {
            there.remove();
        }
    }

    /// Takes bytes that came over a link, and carries out their effects. Returns whether so many frames came that some are
    /// left: then this is to be called again, without bytes, once other links have had their turn.
    ///
    /// # Errors
    /// Returns the reason for which the link must be closed: they are no frame, or too many were refused.
    pub(super) fn receive(
        self: &Rc<Self>,
        client: &Rc<RelayClient>,
        (key, link): (LinkKey, &Rc<RelayLink>),
        bytes: &[u8],
    ) -> Result<bool, CloseReason> {
        let mut machine = client.machine.borrow_mut();
        let mut turn = machine.receive(key, bytes).at_most(FRAMES_PER_TURN);
        let mut closing = None;
        while let Some(effect) = machine.next_effect(&mut turn, &**self) {
            self.count(link, turn.take_counts());
            match effect {
                Effect::WriteGame { session, packets } => {
                    if let Some(session) = machine.session(session) {
                        session.port.packets_in.inc_by(packets.into());
                    }
                    flush_game(&mut machine, session);
                    self.count_memory(&machine, session);
                }
                Effect::WriteLink(link) => flush_link(&mut machine, link),
                Effect::Changed(session) => wake(&machine, session),
                Effect::RoundTrip(told) => link.tell_round_trip(told),
                Effect::Connect(session) => {
                    let Some(owned) = machine.session(session).cloned() else { continue };
                    let task = SessionTask::new(Rc::clone(self), Rc::clone(client), session, owned);
                    self.tasks.spawn(task.run());
                }
                Effect::JoinedElsewhere(session) => {
                    self.metrics.relay_joined_elsewhere.inc();
                    self.record_joined(client.id, &machine, session);
                    if let Some(session) = machine.session(session) {
                        self.log_joined_elsewhere(client.id, link, session);
                    }
                }
                Effect::Refused { session, error } => {
                    self.refused.inc(error);
                    self.warn(link.player(), (client.id, session), &format_args!("refused: {error}"));
                    if !link.may_be_refused(Instant::now()) {
                        closing = Some(CloseReason::Refused);
                    }
                }
                Effect::Ended { session, error } => {
                    if let Some(session) = machine.session(session) {
                        self.warn(session.player, (client.id, session.id), &error);
                    }
                    tell(&mut machine, session);
                }
                Effect::Close(_) => closing = Some(CloseReason::ProtocolError),
            }
        }
        self.count(link, turn.take_counts());
        if turn.heard() {
            link.sign.hear(self.signs.now(), &link.edge.signs, || machine.sessions().next().is_some());
            if self.idle_watch.heard(link) {
                machine.heard(key);
            }
        }
        self.serve_links(&mut machine);
        closing.map_or(Ok(turn.is_paused()), Err)
    }

    /// Has the tasks of links write, or close them, where something is to be done that their clients did not ask for.
    pub(super) fn serve_links(&self, machine: &mut RelayMachine) {
        while let Some((key, duty)) = machine.poll_link(self) {
            let Some(link) = machine.link(key) else { continue };
            match duty {
                LinkDuty::Write => link.block(),
                LinkDuty::Close => link.close(CloseReason::Rejoin),
            }
        }
        wake_changed(machine);
    }

    fn count(&self, link: &RelayLink, counts: FrameCounts) {
        let FrameCounts { first, duplicate, freed } = counts;
        if first > 0 {
            link.edge.in_first.inc_by(first.into());
        }
        if duplicate > 0 {
            link.edge.in_duplicate.inc_by(duplicate.into());
        }
        if freed > 0 {
            self.metrics.relay_unacked_bytes.sub(freed as i64);
        }
    }

    /// Takes no new links, as the process is told to end, and keeps only what a session still needs: links of clients that
    /// have none are closed, and sessions are kept no longer once they have ended and their clients are told.
    pub fn drain(&self) {
        self.draining.cancel();
        let clients: Vec<_> = self.clients.borrow().values().cloned().collect();
        for client in clients {
            let mut machine = client.machine.borrow_mut();
            let sessions: Vec<_> = machine.sessions().collect();
            sessions.into_iter().for_each(|(_, session)| machine.keep_no_longer(session));
            wake_changed(&mut machine);
            drop(machine);
            self.let_go(&client);
        }
    }

    /// In a drain: closes the links of a client without sessions, and ends the sessions of a client without links, to which
    /// no link can come any more. It is called as tasks are dropped, perhaps by a panic.
    pub(super) fn let_go(&self, client: &RelayClient) {
        if !self.draining.is_cancelled() {
            return;
        }
        let Ok(mut machine) = client.machine.try_borrow_mut() else { return };
        let sessions: Vec<_> = machine.sessions().map(|(_, session)| session).collect();
        if sessions.is_empty() {
            machine.links().for_each(|link| link.close(CloseReason::Shutdown));
        } else if machine.links().next().is_none() {
            for session in sessions {
                machine.keep_no_longer(session);
                machine.give_up(session, EndReason::Shutdown);
                wake(&machine, session);
            }
        }
    }

    /// Ends all sessions and tells their clients, as far as their links take it at once.
    pub fn shut_down(&self) {
        for client in &*self.clients.borrow() {
            let mut machine = client.1.machine.borrow_mut();
            let sessions: Vec<_> = machine.sessions().collect();
            for (_, session) in sessions {
                machine.end(session, EndReason::Shutdown);
                machine.keep_no_longer(session);
                tell(&mut machine, session);
            }
        }
    }
}

/// Writes at once what waits on a link, as far as its socket takes it.
pub(super) fn flush_link(machine: &mut RelayMachine, key: LinkKey) {
    let Some(link) = machine.link(key) else { return };
    if link.blocked.get() || link.closing.get().is_some() {
        return;
    }
    let blocked = write_stream(machine, key);
    let Some(link) = machine.link(key) else { return };
    match blocked {
        Ok(false) => {}
        Ok(true) => link.block(),
        Err(_) => link.close(CloseReason::ClientError),
    }
}

/// Writes what waits on a link; returns whether the socket takes no more, or not all that the stream took.
///
/// # Errors
/// Returns the errors of the stream.
pub(super) fn write_stream(machine: &mut RelayMachine, key: LinkKey) -> io::Result<bool> {
    let written = machine.write_link(key, |link, slices| link.stream.try_write(slices));
    wake_changed(machine);
    let written = written?;
    let Some(link) = machine.link(key) else { return Ok(false) };
    link.count(written);
    Ok(written.blocked || link.stream.holds_back())
}

/// Writes at once what waits for the game server of a session, as far as its socket takes it.
pub(super) fn flush_game(machine: &mut RelayMachine, key: SessionKey) {
    if machine.session(key).is_none_or(|session| session.game_blocked.get()) {
        return;
    }
    let blocked = write_game_stream(machine, key);
    let paced = machine.paced_until(key).is_some();
    let Some(session) = machine.session(key) else { return };
    // The task waits for the socket, or for the time.
    session.game_blocked.set(blocked);
    if blocked || paced {
        session.task.wake();
    }
}

/// Writes what waits for the game server of a session; returns whether its socket takes no more for now.
pub(super) fn write_game_stream(machine: &mut RelayMachine, key: SessionKey) -> bool {
    machine.write_game(key, Instant::now, |session, bytes| match &*session.game.borrow() {
        Some(game) => game.try_write(&[IoSlice::new(bytes)]),
        None => Err(io::ErrorKind::NotConnected.into()),
    })
}

/// Writes on all links of a session.
pub(super) fn flush_links(machine: &mut RelayMachine, session: SessionKey) {
    let mut links = 0;
    while let Some(link) = machine.links_of(session, links) {
        flush_link(machine, link);
        links += 1;
    }
}

/// Has the client of a session that has ended told so.
pub(super) fn tell(machine: &mut RelayMachine, session: SessionKey) {
    flush_links(machine, session);
    wake(machine, session);
}

/// Has the task of a session look at what changed.
pub(super) fn wake(machine: &RelayMachine, session: SessionKey) {
    if let Some(session) = machine.session(session) {
        session.task.wake();
    }
}

/// Has the tasks of all sessions look at which something changed.
pub(super) fn wake_changed(machine: &mut RelayMachine) {
    while let Some(session) = machine.poll_changed() {
        wake(machine, session);
    }
}

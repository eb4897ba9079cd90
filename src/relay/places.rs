//! The places of sessions within `sessions.max` and `sessions.max_per_address`, over all workers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Relay;
use super::client::tell;
use crate::admission::{AddressKey, AdmissionLimits, LimitExceeded, Slot, Slots, TakenSlot};
use crate::sharded::Sharded;
use otproxy_config::SessionsConfig;
use otproxy_protocol::core::EndReason;
use otproxy_protocol::frame::{ClientId, SessionId};

/// The places of all sessions. They are shared fairly by network, as those of connections are.
#[derive(Debug)]
pub(super) struct SessionPlaces {
    next: AtomicU64,
    slots: Arc<Slots>,
    /// The holder of each place, by its number.
    holders: Sharded<HashMap<u64, SessionHolder>>,
}

/// The session that holds a place: the worker that carries it, and its name there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionHolder {
    /// The index of the worker.
    pub worker: usize,
    /// The client.
    pub client: ClientId,
    /// The session.
    pub session: SessionId,
    /// The number of the place, which no other session has or had.
    pub place: u64,
}

/// The place of a session. Dropping it frees the place, unless it was given to another session before.
#[derive(Debug)]
pub(super) struct SessionPlace {
    places: Arc<SessionPlaces>,
    pub number: u64,
    _slot: Slot,
}

impl Drop for SessionPlace {
    fn drop(&mut self) {
        self.places.holders.lock(self.number).remove(&self.number);
    }
}

fn limits(sessions: &SessionsConfig) -> AdmissionLimits {
    AdmissionLimits {
        connections: Some(sessions.max),
        connections_per_address: Some(sessions.max_per_address),
        fair_share: true,
        ..AdmissionLimits::default()
    }
}

impl SessionPlaces {
    /// Makes places that are all free.
    pub fn new(sessions: &SessionsConfig) -> Arc<Self> {
        let slots = Slots::new(&limits(sessions));
        Arc::new(Self { next: AtomicU64::new(0), slots, holders: Sharded::default() })
    }

    /// Changes the limits. Sessions keep their places.
    pub fn set(&self, sessions: &SessionsConfig) {
        self.slots.set(&limits(sessions));
    }

    /// Returns the number of sessions.
    pub fn total(&self) -> usize {
        self.slots.taken()
    }

    /// Checks that an address may have one more session.
    ///
    /// # Errors
    /// [`LimitExceeded::Address`]
    pub fn check_address(&self, player: AddressKey) -> Result<(), LimitExceeded> {
        self.slots.check_address(player)
    }

    /// Takes a place for a session of `player`. Returns the session that it was taken from too, which must end: the
    /// newest of the address with the most sessions, in the network with the most.
    ///
    /// # Errors
    /// Returns the limit that is reached, where nobody has more sessions.
    pub fn enter(
        self: &Arc<Self>,
        player: AddressKey,
        holder: impl FnOnce(u64) -> SessionHolder,
    ) -> Result<(SessionPlace, Option<SessionHolder>), LimitExceeded> {
        let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        // Before the slot: once that is taken, another worker may find whose it is.
        self.holders.lock(number).insert(number, holder(number));
        let taken = self.slots.take(number, Some(player));
        let TakenSlot { slot, evicted } = taken.inspect_err(|_| {
            self.holders.lock(number).remove(&number);
        })?;
        let evicted = evicted.and_then(|evicted| self.holders.lock(evicted).get(&evicted).copied());
        Ok((SessionPlace { places: Arc::clone(self), number, _slot: slot }, evicted))
    }
}

impl Relay {
    /// Ends a session of this worker, if it still holds its place, and tells its client.
    pub(super) fn end_session(&self, holder: SessionHolder, reason: EndReason) {
        let Some(client) = self.clients.borrow().get(&holder.client).cloned() else { return };
        let mut machine = client.machine.borrow_mut();
        let key = machine.sessions().find(|(id, _)| *id == holder.session).map(|(_, key)| key);
        if let Some(key) = key
            && machine.session(key).is_some_and(|session| session.place.number == holder.place)
        {
            machine.end(key, reason);
            tell(&mut machine, key);
        }
    }
}

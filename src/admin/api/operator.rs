//! The trait of a running role, which answers requests and acts on them.

use std::pin::Pin;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Addresses, AddressesQuestion, Banned, Bans, BansQuestion, Connections, ConnectionsQuestion, Disconnect,
    Disconnected, Drained, Listeners, Network, Reloaded, Sessions, SessionsQuestion, Status, Target, TargetState,
    Targets, Unbanned,
};

/// The future of an answer for which workers or files have to be asked.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T, Refusal>> + Send + 'a>>;

/// A running role, as an operator sees it. Every method is called from the main thread's runtime and must not block it.
/// The form of each request has been checked before.
pub trait Operator: Send + Sync {
    /// Returns the state of the whole process.
    fn status(&self) -> Status;

    /// Returns all listeners: forwards in the order of the file, then relays, then listeners that were removed from it
    /// and still have connections.
    fn listeners(&self) -> Listeners;

    /// Returns the targets of all forwards.
    fn targets(&self) -> Targets;

    /// Returns open connections, newest first.
    fn connections(&self, asked: &ConnectionsQuestion) -> Connections;

    /// Returns sessions, newest first. An edge has none: it refuses, and says where to ask ([`Refusal::not_found`]).
    fn sessions(&self, asked: &SessionsQuestion) -> Later<'_, Sessions>;

    /// Returns the top talkers.
    fn addresses(&self, asked: &AddressesQuestion) -> Addresses;

    /// Returns bans, the longest first.
    fn bans(&self, asked: &BansQuestion) -> Bans;

    /// Reads the file again. An invalid one changes nothing ([`Refusal::wrong_file`]); a call during another reload
    /// waits for it.
    fn reload(&self) -> Later<'_, Reloaded>;

    /// Refuses new connections of this listener, or of all, and closes the remaining ones after `deadline`. Draining
    /// again is no error: the new deadline holds.
    ///
    /// # Errors
    /// Fails if there is no such listener.
    fn drain(&self, listener: Option<String>, deadline: Option<Duration>) -> Later<'_, Drained>;

    /// Lets this listener, or all, accept connections again. A listener that is not drained is no error.
    ///
    /// # Errors
    /// Fails if there is no such listener, or if the process is ending ([`Refusal::conflict`]).
    fn undrain(&self, listener: Option<String>) -> Later<'_, Drained>;

    /// Bans a network for this long, or for `bans.for`, and replaces an existing ban of the same network. Refuses a
    /// network that contains an address of `bans.exempt` ([`Refusal::conflict`]), and one ban too many
    /// ([`Refusal::unavailable`]).
    fn ban(&self, network: Network, lasts: Option<Duration>, disconnect: bool) -> Later<'_, Banned>;

    /// Ends the bans of a network, and of all networks within it.
    ///
    /// # Errors
    /// Fails if there are none ([`Refusal::not_found`]).
    fn unban(&self, network: Network) -> Result<Unbanned, Refusal>;

    /// Closes connections and ends sessions. A connection, listener, client or session that does not exist is refused
    /// ([`Refusal::not_found`]); an address without connections is not.
    fn disconnect(&self, what: Disconnect) -> Later<'_, Disconnected>;

    /// Sets the wanted state of a target, and returns the target as it is then.
    ///
    /// # Errors
    /// Fails if there is no such listener, or if it has no such target.
    fn set_target(&self, listener: &str, target: &str, state: TargetState) -> Result<Target, Refusal>;
}

/// Why something was not done, and what to do about it. This is also the body of each answer that is not 200.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{error}")]
pub struct Refusal {
    /// What is wrong.
    pub error: String,
    /// What to do.
    pub remedy: String,
    /// Where a file is wrong: everything that is, each with its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// What the status of the answer is made of.
    #[serde(skip)]
    pub kind: RefusalKind,
}

/// The kind of a refusal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RefusalKind {
    /// 404: it does not exist.
    NotFound,
    /// 409: the present state does not allow it.
    Conflict,
    /// 422: the values are invalid.
    #[default]
    Invalid,
    /// 503: it is not possible now.
    Unavailable,
}

impl Refusal {
    fn new(kind: RefusalKind, error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { error: error.into(), remedy: remedy.into(), errors: Vec::new(), kind }
    }

    /// Makes the refusal of something that does not exist.
    pub fn not_found(error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(RefusalKind::NotFound, error, remedy)
    }

    /// Makes the refusal of something that the present state does not allow.
    pub fn conflict(error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(RefusalKind::Conflict, error, remedy)
    }

    /// Makes the refusal of invalid values.
    pub fn invalid(error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(RefusalKind::Invalid, error, remedy)
    }

    /// Makes the refusal of something that is not possible now.
    pub fn unavailable(error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(RefusalKind::Unavailable, error, remedy)
    }

    /// Makes the refusal of an invalid file, with all of its errors; nothing has changed.
    pub fn wrong_file(errors: Vec<String>) -> Self {
        let refusal = Self::invalid("the file is wrong, and all goes on as before", "correct it, and reload again");
        Self { errors, ..refusal }
    }
}

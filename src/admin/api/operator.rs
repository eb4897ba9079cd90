//! Who answers and acts: a role that runs.

use std::pin::Pin;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Addresses, AddressesQuestion, Banned, Bans, BansQuestion, Connections, ConnectionsQuestion, Disconnect,
    Disconnected, Drained, Listeners, Network, Reloaded, Sessions, SessionsQuestion, Status, Target, TargetState,
    Targets, Unbanned,
};

/// An answer for which workers, or files, have to be asked.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T, Refusal>> + Send + 'a>>;

/// A role that runs, as an operator sees it. Every method is called from the main thread's runtime and must not block it; what
/// is asked for has been checked for its form already.
pub trait Operator: Send + Sync {
    /// The process as a whole.
    fn status(&self) -> Status;

    /// All listeners: forwards in the order of the file, then relays; behind them those that were taken out of it and have
    /// connections left.
    fn listeners(&self) -> Listeners;

    /// The targets of all forwards.
    fn targets(&self) -> Targets;

    /// Open connections, newest first.
    fn connections(&self, asked: &ConnectionsQuestion) -> Connections;

    /// Sessions, newest first. An edge has none: it refuses, and says where to ask ([`Refusal::not_found`]).
    fn sessions(&self, asked: &SessionsQuestion) -> Later<'_, Sessions>;

    /// Top talkers.
    fn addresses(&self, asked: &AddressesQuestion) -> Addresses;

    /// Bans, those that last the longest first.
    fn bans(&self, asked: &BansQuestion) -> Bans;

    /// Reads the file again. A wrong one changes nothing ([`Refusal::wrong_file`]); while another reload runs, it waits for it.
    fn reload(&self) -> Later<'_, Reloaded>;

    /// Refuses new connections of this listener, or of all; after `deadline` it closes those that are left. To drain
    /// again is no error, and its deadline is the one that holds.
    ///
    /// # Errors
    /// There is no such listener.
    fn drain(&self, listener: Option<String>, deadline: Option<Duration>) -> Later<'_, Drained>;

    /// Has this listener, or all, take connections again. One that is not drained is no error.
    ///
    /// # Errors
    /// There is no such listener, or the process ends ([`Refusal::conflict`]).
    fn undrain(&self, listener: Option<String>) -> Later<'_, Drained>;

    /// Bans a network for this long, or for `bans.for`; a ban of the same network that is there already is replaced. Refuses
    /// one that has an address of `bans.exempt` in it ([`Refusal::conflict`]), or where there are too many
    /// ([`Refusal::unavailable`]).
    fn ban(&self, network: Network, lasts: Option<Duration>, disconnect: bool) -> Later<'_, Banned>;

    /// Ends the bans of a network, and of all in it.
    ///
    /// # Errors
    /// There are none ([`Refusal::not_found`]).
    fn unban(&self, network: Network) -> Result<Unbanned, Refusal>;

    /// Closes connections and ends sessions. A connection, a listener, a client or a session that does not exist is
    /// refused ([`Refusal::not_found`]); an address without any is not.
    fn disconnect(&self, what: Disconnect) -> Later<'_, Disconnected>;

    /// Says what is wanted of a target, and gives it as it is then.
    ///
    /// # Errors
    /// There is no such listener, or it has no such target.
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

/// Which kind of refusal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RefusalKind {
    /// 404: what is named does not exist.
    NotFound,
    /// 409: as things are, it cannot be done.
    Conflict,
    /// 422: the values make no sense.
    #[default]
    Invalid,
    /// 503: it cannot be done now.
    Unavailable,
}

impl Refusal {
    fn new(kind: RefusalKind, error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { error: error.into(), remedy: remedy.into(), errors: Vec::new(), kind }
    }

    /// What is named does not exist.
    pub fn not_found(error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(RefusalKind::NotFound, error, remedy)
    }

    /// As things are, it cannot be done.
    pub fn conflict(error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(RefusalKind::Conflict, error, remedy)
    }

    /// The values make no sense.
    pub fn invalid(error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(RefusalKind::Invalid, error, remedy)
    }

    /// It cannot be done now.
    pub fn unavailable(error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(RefusalKind::Unavailable, error, remedy)
    }

    /// The file is wrong, in each of these ways; nothing has changed.
    pub fn wrong_file(errors: Vec<String>) -> Self {
        let refusal = Self::invalid("the file is wrong, and all goes on as before", "correct it, and reload again");
        Self { errors, ..refusal }
    }
}

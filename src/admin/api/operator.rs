//! The trait of a running role, which answers requests and acts on them.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::{
    AddressesQuestion, AddressesView, ApiError, Banned, BansQuestion, BansView, ConnectionsQuestion, ConnectionsView,
    Disconnect, Disconnected, Drained, EdgeRequest, EdgeView, EdgesView, ListenersView, Network, Probed, Reloaded,
    Revoked, SessionsQuestion, SessionsView, StatusView, TargetState, TargetView, TargetsView, TrafficView, Unbanned,
    UpgradeBegun, UpgradeRequest, VisitedEdge,
};

use crate::events::EventLog;
use crate::history::History;

/// The future of an answer for which workers or files have to be asked.
pub type ApiFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, ApiError>> + Send + 'a>>;

/// A running role, as an operator sees it. Every method is called from the main thread's runtime and must not block it.
/// The form of each request has been checked before.
pub trait Operator: Send + Sync {
    /// Returns the state of the whole process.
    fn status(&self) -> StatusView;

    /// Returns all listeners: forwards in the order of the file, then relays, then listeners that were removed from it
    /// and still have connections.
    fn listeners(&self) -> ListenersView;

    /// Returns the log of events.
    fn events(&self) -> Arc<EventLog>;

    /// Returns the history of figures.
    fn history(&self) -> Arc<History>;

    /// Returns the targets of all forwards.
    fn targets(&self) -> TargetsView;

    /// Returns open connections, newest first.
    ///
    /// # Errors
    /// Fails if the listener that is asked for does not exist, and no connection of such a one is left.
    fn connections(&self, asked: &ConnectionsQuestion) -> Result<ConnectionsView, ApiError>;

    /// Returns sessions, newest first. An edge has none: it refuses, and says where to ask ([`ApiError::not_found`]).
    fn sessions(&self, asked: &SessionsQuestion) -> ApiFuture<'_, SessionsView>;

    /// Returns the edges that the core knows. An edge knows none: it refuses, and says where to ask
    /// ([`ApiError::not_found`]).
    ///
    /// # Errors
    /// Fails on an edge.
    fn edges(&self) -> Result<EdgesView, ApiError>;

    /// Returns the top talkers.
    fn addresses(&self, asked: &AddressesQuestion) -> AddressesView;

    /// Returns bans, the longest first.
    fn bans(&self, asked: &BansQuestion) -> BansView;

    /// Reads the file again. An invalid one changes nothing ([`ApiError::wrong_file`]); a call during another reload
    /// waits for it.
    fn reload(&self) -> ApiFuture<'_, Reloaded>;

    /// Refuses new connections of this listener, or of all, and closes the remaining ones after `deadline`. Draining
    /// again is no error: the new deadline holds.
    ///
    /// # Errors
    /// Fails if there is no such listener.
    fn drain(&self, listener: Option<String>, deadline: Option<Duration>) -> ApiFuture<'_, Drained>;

    /// Lets this listener, or all, accept connections again. A listener that is not drained is no error.
    ///
    /// # Errors
    /// Fails if there is no such listener, or if the process is ending ([`ApiError::conflict`]).
    fn undrain(&self, listener: Option<String>) -> ApiFuture<'_, Drained>;

    /// Has an edge refuse new connections, as [`Operator::drain`] does here.
    ///
    /// # Errors
    /// Fails on an edge, if there is no such edge or listener of it, or if the edge cannot be asked ([`ApiError::unavailable`]).
    fn drain_edge(&self, edge: String, listener: Option<String>, deadline: Option<Duration>) -> ApiFuture<'_, Drained>;

    /// Has an edge accept connections again.
    ///
    /// # Errors
    /// Fails as [`Operator::drain_edge`] does.
    fn undrain_edge(&self, edge: String, listener: Option<String>) -> ApiFuture<'_, Drained>;

    /// Bans a network for this long, or for `bans.for`, and replaces an existing ban of the same network. Refuses a
    /// network that contains an address of `bans.exempt` ([`ApiError::conflict`]), and one ban too many
    /// ([`ApiError::unavailable`]). At a core its edges ban it as well.
    fn ban(&self, network: Network, lasts: Option<Duration>, disconnect: bool) -> ApiFuture<'_, Banned>;

    /// Ends the bans of a network, and of all networks within it.
    ///
    /// # Errors
    /// Fails if there are none ([`ApiError::not_found`]).
    fn unban(&self, network: Network) -> ApiFuture<'_, Unbanned>;

    /// Returns the metrics of all edges that answer, in the text format of Prometheus, by name; none where they are not wanted.
    fn edges_metrics(&self) -> ApiFuture<'_, Vec<(String, String)>>;

    /// Refuses an edge from now on and closes what it has open, whatever the file says; with `undo` goes by the file again. No
    /// file is read. An edge that the file refuses stays refused ([`ApiError::conflict`]).
    ///
    /// # Errors
    /// Fails if there is no such edge, and on an edge.
    fn revoke(&self, edge: String, undo: bool) -> ApiFuture<'_, Revoked>;

    /// Goes by an operator's word on an edge, for so long if a time is given, and returns the edge as it is then. It is kept over
    /// restarts where there is a place for it.
    ///
    /// # Errors
    /// Fails on an edge, if there is no such edge, and if the word cannot be kept.
    fn order_edge(&self, request: EdgeRequest) -> ApiFuture<'_, EdgeView>;

    /// Visits edges over their public addresses, as a player's client does it. Only an edge does so, as others would learn the
    /// address of its host.
    ///
    /// # Errors
    /// Fails on a core.
    fn probe(&self, edges: Vec<VisitedEdge>, within: Duration) -> ApiFuture<'_, Probed>;

    /// Returns the traffic of the host from a day on.
    ///
    /// # Errors
    /// Fails on a core, which counts none, and for what is no day.
    fn traffic(&self, since: Option<String>) -> ApiFuture<'_, TrafficView>;

    /// Closes connections and ends sessions. A connection, listener, edge, client or session that does not exist is refused
    /// ([`ApiError::not_found`]); an address without connections is not.
    fn disconnect(&self, what: Disconnect) -> ApiFuture<'_, Disconnected>;

    /// Goes to the process that waits, and begins to hand everything over to it.
    ///
    /// # Errors
    /// Fails if that one is to have another role, if it cannot be reached, and if this process is one whose end others would notice
    /// ([`ApiError::conflict`]).
    fn upgrade(&self, request: UpgradeRequest) -> ApiFuture<'_, UpgradeBegun>;

    /// Sets the wanted state of a target, and returns the target as it is then.
    ///
    /// # Errors
    /// Fails if there is no such listener, or if it has no such target.
    fn set_target(&self, listener: &str, target: &str, state: TargetState) -> Result<TargetView, ApiError>;
}

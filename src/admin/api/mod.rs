//! The admin API's types, as JSON: what an operator can see and do. The server, the commands, the API's document and
//! the role that answers all share them, so they cannot disagree.
//!
//! Times are RFC 3339 in UTC; names that end in `_seconds` hold a number of seconds. Words of logs and metrics are the
//! same here.

mod action;
mod course;
mod operator;
mod question;
mod refusal;
mod view;
mod words;

pub use action::{
    Banned, Disconnect, DisconnectRequest, Disconnected, DrainRequest, Drained, DrainedListener, EdgeAnswer,
    EdgeRequest, LONGEST_BAN, LONGEST_DRAIN, LONGEST_ORDER, LONGEST_VISIT, LONGEST_WHY, MAX_VISITS, NewBan,
    ProbeRequest, Probed, ReloadRequest, Reloaded, RevokeRequest, Revoked, TargetRequest, UnbanRequest, Unbanned,
    UndrainRequest, UpgradeBegun, UpgradeRequest, Visit, VisitedEdge,
};
pub use course::{
    EventView, EventsQuestion, EventsView, FigureNames, FigureValue, FiguresView, HistoryQuestion, HistoryStep,
    HistoryView,
};
pub use operator::{ApiFuture, Operator};
pub use question::{
    AddressesQuestion, BansQuestion, ConnectionsQuestion, MOST, NoQuestion, PageSize, SessionsQuestion, Top,
    TrafficQuestion,
};
pub use refusal::{ApiError, ApiErrorKind};
pub use view::{
    AddressesView, BanView, BansView, CheckView, ConnectionView, ConnectionsView, Count, EdgeCertificateView,
    EdgeErrorView, EdgeOrderView, EdgeProbeView, EdgeTrafficView, EdgeView, EdgesView, ListenerView, ListenersView,
    ReloadView, SessionLinkView, SessionView, SessionsView, StatusView, TalkerView, TargetView, TargetsView,
    TrafficView, TrunkView,
};
pub use words::{
    BannedBy, ConnectionState, EdgeOrder, EdgeState, ListenerKind, ListenerState, Network, RevokedBy, Role,
    SessionState, TargetState, Time,
};

/// The prefix of all paths.
pub const PREFIX: &str = "/api/v1";

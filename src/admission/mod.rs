//! Admission: from an accepted socket to a known player within all limits.
//!
//! - [`Inbound`]: one worker's part of a listener: trust, the PROXY header, the first bytes, and the counters.
//! - [`AdmissionControl`] and [`ListenerAdmission`]: access lists, slots and rates of a listener and of the process.
//!   [`Bans`]: addresses that are refused for a while.
//! - [`Slots`]: connections or sessions at once, shared fairly by network. [`ConnectQueue`]: connects that wait for their
//!   turn, likewise; [`ConnectQueues`] has one for each host.
//! - [`AdaptiveTimeout`]: time limits that shrink while slots run out.
//! - [`Carrier`]: the part of a listener of any kind that carries its connections. [`TunnelledStream`]: a stream of the
//!   tunnel in place of a socket.

mod access_list;
mod adaptive_timeout;
mod attack;
pub mod bans;
mod by_address;
mod carrier;
mod connect_queue;
mod connect_queues;
mod control;
mod fair_queue;
mod fair_share;
mod first_ping;
mod inbound;
mod keyed_limit;
mod limits;
mod metrics;
mod pressure;
mod rate_limit;
mod slots;
mod tunnelled;

pub use access_list::AccessList;
pub use adaptive_timeout::AdaptiveTimeout;
pub use attack::{ATTACK_QUIET, ATTACK_REFUSALS, ATTACK_SECONDS, AttackNews, AttackWatch};

pub use bans::{BANS, Ban, BanMetrics, BanPolicy, BanReason, Bans, LONGEST_BAN};
pub use by_address::{AddressKey, HostKey, Reporter};
pub use carrier::Carrier;
pub use connect_queue::{ConnectPlace, ConnectQueue, QueueFull};
pub use connect_queues::{CONNECT_BURST, CONNECT_INTERVAL, ConnectQueues};
pub use control::{AdmissionControl, AdmissionGuard, ListenerAdmission, ProcessAdmission};
pub use fair_share::{FairShare, Network};
pub use first_ping::{FirstPingError, read_first_ping};
pub use inbound::{AdmittedConnection, CarriedGuard, Inbound, InboundShared, PeerInfo};
pub use keyed_limit::{KeyedGuard, KeyedLimit, LimitExceeded};
pub use limits::AdmissionLimits;
pub use metrics::ListenerMetrics;
pub use pressure::{PRESSURE_FROM, PRESSURE_IDLE, PRESSURE_LEAST, PRESSURE_OVER, PressureWatch};
pub use rate_limit::{ADDRESSES, RateLimit};
pub use slots::{HEADERLESS, Slot, Slots, TakenSlot};
pub use tunnelled::{AuthenticatedEdge, TunnelOrigin, TunnelledStream, lost, unfinished};

/// Lines about refusals and broken rules, for each listener and for the sessions, in each window of a rate-limited log.
pub const REFUSED_LINES: u16 = 5;
/// Lines about connections and sessions that have ended, likewise. No server has so many for long, unless connections
/// are opened and closed on purpose.
pub const ENDED_LINES: u16 = 1000;

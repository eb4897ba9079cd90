//! The edges of a core as one fleet: asked and told over the tunnel, judged by what is seen of them, and listed for clients.

mod engine;
mod errands;
mod evidence;
mod gather;
mod keeper;
mod orders;

pub use engine::{
    EdgeCause, EdgeState, EdgeVerdict, FleetEngine, GRACE, LEAST_EXCESS, LOST_LEAST, LOST_SHARE, NORMAL_WITHIN,
    PRIORITY_CHANGE, PRIORITY_STEP, QUIET, SLOW_ROUNDS, SOFT_TRAFFIC, STATE_CHANGE, WINDOW,
};
pub use errands::{Fleet, FleetError};
pub use evidence::{EdgeEvidence, EdgeProbe};
pub use gather::{EvidenceGatherer, ROUND_WITHIN, TRAFFIC_EVERY, TrafficCount, VISIT_WITHIN};
pub use keeper::{EdgeReport, FleetKeeper};
pub use orders::{EdgeOrders, GivenOrder};

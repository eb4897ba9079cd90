//! Open connections: a handle on each, the registry of all, and why they end.

mod handle;
mod reason;
mod registry;

pub use handle::{Attended, Leads, Presence};
pub use reason::{CloseReason, Closing, RejectReason};
pub use registry::{Present, Roster};

//! Open connections: the handle of each, the registry of all, the edges that they come through, and the reasons for which
//! they end.

mod edges;
mod handle;
mod reason;
mod registry;
mod source;

pub use edges::{
    EDGE_LINES, EdgeCertificate, EdgeDecision, EdgeError, EdgeRegistry, EdgeSnapshot, EdgeStanding, TrunkPresence,
    TrunkSnapshot,
};
pub use handle::{ConnectionHandle, Route, RunUntilClosed};
pub use reason::{AdmissionError, CloseReason, Closing};
pub use registry::{ConnectionRegistry, Registration};
pub use source::source_for;

//! Open connections: the handle of each, the registry of all, and the reasons for which they end.

mod handle;
mod reason;
mod registry;

pub use handle::{ConnectionHandle, Route, RunUntilClosed};
pub use reason::{AdmissionError, CloseReason, Closing};
pub use registry::{ConnectionRegistry, Registration};

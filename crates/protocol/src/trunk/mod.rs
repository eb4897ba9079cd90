//! Trunks: connections between an edge and the core that carry the streams of many players side by side.
//!
//! A trunk is a byte stream, under TLS, of frames in both directions. Each side begins with a [`Hello`], the edge first. From then
//! on a [`TrunkMachine`] at each side speaks for its streams: the edge opens them, each with the addresses of its player and
//! the name of the listener that it leads to, and both sides send what credit allows. `docs/tunnel.md` has the format.

mod frame;
mod hello;
mod machine;
mod reason;
mod stream;
#[cfg(test)]
mod tests;

pub use frame::{FrameKind, HEADER_LEN, MAX_CONTROL, MAX_DATA, StreamId, TrunkError};
pub use hello::{CoreWorkers, Hello, VERSION};
pub use machine::{MAX_QUEUED, MAX_UNSENT, OpenRequest, QUANTUM, Side, TrunkEvent, TrunkMachine};
pub use reason::ResetReason;
pub use stream::{CREDIT, Received};

//! The edges of a core as one fleet: asked and told over the tunnel, judged by what is seen of them, and listed for clients.

mod errands;
mod evidence;

pub use errands::{Fleet, FleetError};
pub use evidence::{EdgeEvidence, EdgeProbe};

//! What each role starts, from a checked configuration. Nothing else knows about roles.

pub mod core;
pub mod edge;
mod service;

pub use service::{Service, StartError};

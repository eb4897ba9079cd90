//! What each role starts, from a checked configuration. Nothing else knows about roles.

pub mod core;
pub mod edge;
mod service;

pub use service::{Reloader, Service, StartError};

use crate::certs::CertError;
use crate::certs::identity::{Identity, Own};
use crate::config::Config;

/// Whether the certificates that a configuration names, if it does, can be used.
///
/// # Errors
/// Names the file, what is wrong with it, and the remedy.
pub fn check_certificates(config: &Config) -> Result<(), CertError> {
    let (files, own) = match config {
        Config::Edge(edge) => (edge.tunnel.as_ref().map(|tunnel| &tunnel.tls), Own::Edge),
        Config::Core(core) => (core.tunnel.as_ref().map(|tunnel| &tunnel.tls), Own::Core),
    };
    files.map_or(Ok(()), |files| Identity::load(files, own).map(drop))
}

//! What each role starts, from a checked configuration, and how that changes while it runs. Nothing else knows about roles.

mod control;
pub mod core;
pub mod edge;
mod listeners;
mod service;
mod worker;

pub use control::{Control, ReloadError, Reloaded};
pub use service::{Service, StartError};

use crate::certs::CertError;
use crate::certs::identity::Own;
use crate::certs::watch::Watch;
use crate::config::Config;

/// Whether the certificates that a configuration names, if it does, can be used.
///
/// # Errors
/// Names the file, what is wrong with it, and the remedy.
pub fn check_certificates(config: &Config) -> Result<(), CertError> {
    certificates(config).map(drop)
}

/// The certificates that a configuration names, if it does.
fn certificates(config: &Config) -> Result<Option<Watch>, CertError> {
    let (files, own) = match config {
        Config::Edge(edge) => (edge.tunnel.as_ref().map(|tunnel| &tunnel.tls), Own::Edge),
        Config::Core(core) => (core.tunnel.as_ref().map(|tunnel| &tunnel.tls), Own::Core),
    };
    files.map(|files| Watch::load(files.clone(), own)).transpose()
}

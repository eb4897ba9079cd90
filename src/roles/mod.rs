//! The roles: the start of each from a checked configuration, and its changes while it runs. No other module knows
//! about roles.

mod control;
pub mod core;
mod drain;
pub mod edge;
mod listeners;
mod operator;
mod service;
mod worker;

pub use control::{Control, ReloadError, Reloaded};
pub use drain::SPREAD;
pub use service::{Service, StartError};

use crate::admin;
use crate::certs::CertError;
use crate::certs::identity::Own;
use crate::certs::watch::Watch;
use crate::config::Config;

/// Checks that the files that a configuration names can be used: certificates of the tunnel, tokens and certificates of
/// admin.
///
/// # Errors
/// The error names the file, its problem and the remedy.
pub fn check_files(config: &Config) -> Result<(), StartError> {
    certificates(config)?;
    Ok(admin::check_files(&config.process().admin)?)
}

/// Loads the certificates that a configuration names, if any.
fn certificates(config: &Config) -> Result<Option<Watch>, CertError> {
    let (files, own) = match config {
        Config::Edge(edge) => (edge.tunnel.as_ref().map(|tunnel| &tunnel.tls), Own::Edge),
        Config::Core(core) => (core.tunnel.as_ref().map(|tunnel| &tunnel.tls), Own::Core),
    };
    files.map(|files| Watch::load(files.clone(), own)).transpose()
}

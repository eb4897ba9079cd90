//! What each role starts, from a checked configuration, and how that changes while it runs. Nothing else knows about roles.

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

/// Whether the files can be used that a configuration names: certificates of the tunnel, tokens and certificates of admin.
///
/// # Errors
/// Names the file, what is wrong with it, and the remedy.
pub fn check_files(config: &Config) -> Result<(), StartError> {
    certificates(config)?;
    Ok(admin::check_files(&config.process().admin)?)
}

/// The certificates that a configuration names, if it does.
fn certificates(config: &Config) -> Result<Option<Watch>, CertError> {
    let (files, own) = match config {
        Config::Edge(edge) => (edge.tunnel.as_ref().map(|tunnel| &tunnel.tls), Own::Edge),
        Config::Core(core) => (core.tunnel.as_ref().map(|tunnel| &tunnel.tls), Own::Core),
    };
    files.map(|files| Watch::load(files.clone(), own)).transpose()
}

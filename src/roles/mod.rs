//! What each role starts, from a checked configuration. Nothing else knows about roles.

pub mod core;
pub mod edge;
mod service;

pub use service::{Reloader, Service, StartError};

use crate::admin;
use crate::certs::identity::{Identity, Own};
use crate::config::Config;

/// Whether the files can be used that a configuration names: certificates of the tunnel, tokens and certificates of admin.
///
/// # Errors
/// Names the file, what is wrong with it, and the remedy.
pub fn check_files(config: &Config) -> Result<(), StartError> {
    let (files, own) = match config {
        Config::Edge(edge) => (edge.tunnel.as_ref().map(|tunnel| &tunnel.tls), Own::Edge),
        Config::Core(core) => (core.tunnel.as_ref().map(|tunnel| &tunnel.tls), Own::Core),
    };
    files.map_or(Ok(()), |files| Identity::load(files, own).map(drop))?;
    Ok(admin::check_files(&config.process().admin)?)
}

//! The roles: the start of each from a checked configuration, and its changes while it runs. No other module knows
//! about roles.

mod control;
pub mod core;
mod drain;
pub mod edge;
mod listeners;
mod operator;
mod report;
mod revoked;
mod running;
mod sampler;
mod service;
mod succession;
mod worker;

pub use control::{Control, ReloadError, ReloadResult};
pub use drain::{LAST_SPREAD, SPREAD};
pub use service::{Service, StartError};

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::SystemTime;

use crate::admin;
use crate::certs::CertError;
use crate::certs::certificate::DAYS_LEFT;
use crate::certs::identity::IdentityKind;
use crate::certs::watch::IdentityWatch;
use crate::handover::Inheritance;
use crate::web;
use otproxy_config as config;
use otproxy_config::Config;
use otproxy_testkit::role::{BoundRole, RunningRole};

/// Binds all sockets of the role that a configuration is for.
///
/// # Errors
/// Returns the first address that cannot be bound, or certificates that cannot be used.
pub fn bind(config: Config) -> Result<Service, StartError> {
    succeed(config, Inheritance::default())
}

/// Binds all sockets of the role that a configuration is for, and takes over what a predecessor has left: a listening socket of
/// the same address in place of a new one. Sockets of other addresses are closed.
///
/// # Errors
/// Returns the first address that cannot be bound, or certificates that cannot be used.
pub fn succeed(config: Config, left: Inheritance) -> Result<Service, StartError> {
    match config {
        Config::Edge(edge) => edge::bind(edge, left),
        Config::Core(core) => core::bind(core, left),
    }
}

/// Starts the role of a YAML text in this process, on a thread with that name.
///
/// # Errors
/// Returns all errors of the text, or the reason why its role cannot start.
pub fn start(name: &str, yaml: &str) -> Result<RunningRole, Box<dyn Error + Send + Sync>> {
    let service = bind(config::parse(name, yaml)?)?;
    Ok(RunningRole::start(name, service)?)
}

impl BoundRole for Service {
    fn listeners(&self) -> Vec<(String, Vec<SocketAddr>)> {
        self.listeners().map(|(name, addresses)| (name.to_owned(), addresses.to_vec())).collect()
    }

    fn admin(&self) -> Option<SocketAddr> {
        self.admin_address()
    }

    async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        Self::run(self, shutdown).await
    }
}

/// Checks that the files that a configuration names can be used: certificates of the tunnel, tokens and certificates of
/// admin.
///
/// Returns what is to be done soon, as some of these certificates end.
///
/// # Errors
/// The error names the file, its problem and the remedy.
pub fn check_files(config: &Config) -> Result<Vec<String>, StartError> {
    let mut soon = Vec::new();
    let (now, tunnel) = (SystemTime::now(), config.tunnel_files());
    if let (Some(files), Some(certificates)) = (tunnel, certificates(config)?) {
        let days = certificates.identity().expiry().days_left(now);
        if days < DAYS_LEFT {
            let file = files.cert.display();
            soon.push(format!("{file}: it, or its authority, ends in {days} days; issue it anew with `otproxy cert`"));
        }
    }
    soon.extend(web::check_files(config)?);
    for dated in admin::check_files(&config.process().admin, tunnel.map(|files| files.ca.as_path()))? {
        let (file, days, remedy) = (dated.file.display(), dated.days_left(now), dated.remedy());
        soon.push(format!("{file}: ends in {days} days; {remedy}"));
    }
    Ok(soon)
}

/// Loads the certificates that a configuration names, if any.
fn certificates(config: &Config) -> Result<Option<IdentityWatch>, CertError> {
    let own = match config {
        Config::Edge(_) => IdentityKind::Edge,
        Config::Core(_) => IdentityKind::Core,
    };
    config.tunnel_files().map(|files| IdentityWatch::load(files.clone(), own)).transpose()
}

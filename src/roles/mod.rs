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
mod upgrade;
mod worker;

pub use control::{Control, ReloadError, ReloadResult};
pub use drain::{LAST_SPREAD, SPREAD};
pub use service::{GOES_ON, Service, StartError};

use succession::{Legacy, Outliving};

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::time::SystemTime;

use crate::admin;
use crate::certs::CertError;
use crate::certs::certificate::DAYS_LEFT;
use crate::certs::identity::IdentityKind;
use crate::certs::watch::IdentityWatch;
use crate::handover::{DescriptorStore, Inheritance, Left, Predecessor};
use crate::relay::RecoveredSessions;
use crate::web;
use otproxy_config as config;
use otproxy_config::Config;
use otproxy_testkit::role::{BoundRole, RunningRole};
use tracing::info;

/// Binds all sockets of the role that a configuration is for.
///
/// # Errors
/// Returns the first address that cannot be bound, or certificates that cannot be used.
pub fn bind(config: Config) -> Result<Service, StartError> {
    succeed(config, Left::Nothing, None)
}

/// Binds all sockets of the role that a configuration is for, and takes over what a predecessor has left: a listening socket of
/// the same address in place of a new one. Sockets of other addresses are closed.
///
/// # Errors
/// Returns the first address that cannot be bound, or certificates that cannot be used. Everything is left in the `store` again
/// then, for the next start.
pub fn succeed(config: Config, left: Left, store: Option<DescriptorStore>) -> Result<Service, StartError> {
    let (mut left, survivors) = match left {
        Left::Nothing => (Inheritance::default(), None),
        Left::Inheritance(left) => (left, None),
        Left::Survivors(survivors) => (Inheritance::default(), Some(survivors)),
    };
    // Sessions of a process that was killed stay in the store in any case.
    let (survived, tail) = survivors.map(RecoveredSessions::of).unzip();
    let outliving = Outliving::begin(&config, store.clone(), tail.flatten());
    let legacy = store.and_then(|store| Legacy::again(store, &left, &config));
    let lifeline = outliving.lifeline.clone().filter(|_| survived.is_none());
    let bound = bind_with(config, &mut left, None, outliving);
    if bound.is_err() {
        legacy.into_iter().for_each(|legacy| legacy.give_back(std::mem::take(&mut left)));
        // Nothing is on it yet.
        lifeline.iter().for_each(|lifeline| lifeline.end());
    }
    let mut service = bound?;
    if survived.is_some() {
        info!("the process before was killed");
        service.go_on_with(survived);
    }
    Ok(service)
}

fn bind_with(
    config: Config,
    left: &mut Inheritance,
    admin: Option<UnixListener>,
    outliving: Outliving,
) -> Result<Service, StartError> {
    match config {
        Config::Edge(edge) => edge::bind(edge, left, admin),
        Config::Core(core) => core::bind(core, left, admin, outliving),
    }
}

/// Binds all sockets of the role that a configuration is for, beside a process that runs: those that it has too are its own, copied.
/// Then takes what it leaves, and is ready to run. That process goes on until [`Service::run`], and longer if that fails.
///
/// # Errors
/// Returns the first address that cannot be bound, certificates that cannot be used, or the reason why nothing can be taken over.
pub fn succeed_beside(config: Config, predecessor: Predecessor) -> Result<Service, StartError> {
    let offered = predecessor.offered().map_err(StartError::NotOffered)?;
    let admin = offered.sockets.into_iter().next().map(UnixListener::from);
    let mut left = Inheritance { listeners: offered.listeners, ..Inheritance::default() };
    let mut service = bind_with(config, &mut left, admin, Outliving::default())?;
    service.take_over_from(predecessor)?;
    Ok(service)
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

//! The core: the relay, and forwards for login and status.

use std::os::unix::net::UnixListener;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::service::{Service, ServiceParts, StartError};
use super::succession::{Outliving, sessions_of};
use super::worker::{Worker, WorkerTrunks, worker_name};
use crate::admission::ConnectQueues;
use crate::forward::{HeaderFor, TargetWays};
use crate::handover::Inheritance;
use crate::relay::{Relay, RelayShared};
use crate::tunnel::{EdgeErrands, TunnelPeers, TunnelServer};
use otproxy_config as config;
use otproxy_config::Config;
use otproxy_net::host_key;
use otproxy_protocol::player_address::PseudoIpv4;

/// Binds all sockets of a core, but for those that are left to it; `admin` is the unix socket of a process that runs, and sessions are
/// recorded in what is `outliving`.
///
/// # Errors
/// Returns the first address that cannot be bound, or certificates that cannot be used.
pub fn bind(
    config: config::CoreConfig,
    left: &mut Inheritance,
    admin: Option<UnixListener>,
    outliving: Outliving,
) -> Result<Service, StartError> {
    let pseudo_ipv4 = PseudoIpv4::new(host_key());
    let tunnel = config.tunnel.clone();
    let whole = Config::Core(config.clone());
    let connects = ConnectQueues::new(&whole);
    let (shared, commands) = RelayShared::new(&config, pseudo_ipv4.clone(), Arc::clone(&connects));
    let config = whole;
    let certificates = super::certificates(&config)?.map(watch::Sender::new);
    let presented = certificates.as_ref().map(watch::Sender::subscribe);
    // The edges and listeners arrive with the first change.
    let (known, knows) = watch::channel(TunnelPeers { edges: Vec::new(), links: Vec::new() });
    let parts = ServiceParts {
        header_for: HeaderFor::GameServer(pseudo_ipv4.clone()),
        ways: TargetWays { pool: None, connects, pseudo_ipv4 },
        relay: Some(Arc::clone(&shared)),
        known: Some(known),
        certificates,
        inherited: std::mem::take(&mut left.listeners),
        admin,
    };
    let (mut service, plans) = Service::bind(config, parts)?;
    let errands = Arc::new(EdgeErrands::default());
    let (to_workers, trunks): (Vec<_>, Vec<_>) = plans.iter().map(|_| mpsc::unbounded_channel()).unzip();
    if let (Some(tunnel), Some(presented)) = (tunnel, presented) {
        let sockets = service.listen_tunnel(&tunnel.accept)?;
        service.ask_edges(Arc::clone(&errands));
        let (knows, owner_key) = ((knows, service.edges()), shared.owner_key());
        service.run_tunnel(move |metrics, scratch, tasks| {
            TunnelServer::run(presented, knows, (to_workers, owner_key), sockets, metrics, (scratch, tasks))
        });
    }
    let Outliving { journals, lifeline } = outliving;
    service.hold(lifeline);
    let mut journals = journals.into_iter();
    for (index, ((plans, commands), trunks)) in plans.into_iter().zip(commands).zip(trunks).enumerate() {
        let journal = journals.next();
        let Some(metrics) = service.metrics().get(index).map(Arc::clone) else { continue };
        let (shared, errands, host) = (Arc::clone(&shared), Arc::clone(&errands), service.host());
        service.add_worker(Box::new(move |stop| {
            Box::pin(async move {
                let worker = Worker::new(Arc::clone(&metrics), stop);
                worker.keep_ticking(worker_name(index), host);
                let (scratch, tasks) = (Rc::clone(&worker.scratch), worker.tasks.clone());
                let relay = Relay::new(shared, index, metrics, scratch, tasks, journal);
                tokio::task::spawn_local(Rc::clone(&relay).run_commands(commands));
                tokio::task::spawn_local(Rc::clone(&relay).watch_idle());
                let ending = Rc::clone(&relay);
                worker
                    .serve(Some(relay), plans, Some(WorkerTrunks::Core(trunks, errands)), || ending.shut_down())
                    .await;
                Ok(())
            })
        }));
    }
    // Nothing can fail any more, and lose it.
    service.go_on_with(sessions_of(std::mem::take(left)));
    Ok(service)
}

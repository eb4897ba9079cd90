//! The edge: forwards links, login and status to the core.

use std::os::unix::net::UnixListener;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::service::{Service, ServiceParts, StartError};
use super::worker::{Worker, WorkerTrunks, worker_name};
use crate::admission::ConnectQueues;
use crate::forward::{HeaderFor, TargetWays};
use crate::handover::Inheritance;
use crate::tunnel::{EdgeTrunks, TrunkPool, TunnelClient, WAITING};
use otproxy_config as config;
use otproxy_config::{Config, Reach};
use otproxy_net::host_key;
use otproxy_protocol::player_address::PseudoIpv4;

/// Binds all sockets of an edge, but for those that are left to it; `admin` is the unix socket of a process that runs.
///
/// # Errors
/// Returns the first address that cannot be bound, or certificates that cannot be used.
pub fn bind(
    config: config::EdgeConfig,
    left: &mut Inheritance,
    admin: Option<UnixListener>,
) -> Result<Service, StartError> {
    let (tunnel, log_core) = (config.tunnel.clone(), config.log_core_address);
    let config = Config::Edge(config);
    let certificates = super::certificates(&config)?.map(watch::Sender::new);
    let presented = certificates.as_ref().map(watch::Sender::subscribe);
    let workers = config.process().workers.get();
    let name = presented.as_ref().map(|presented| presented.borrow().identity().name().to_owned());
    let (pool, trunks) = name.map(|name| TrunkPool::new(&name, workers)).unzip();
    let trunks = trunks.unwrap_or_default().into_iter().map(Some).chain(std::iter::repeat_with(|| None));
    let (connects, pseudo_ipv4) = (ConnectQueues::new(&config), PseudoIpv4::new(host_key()));
    let ways = TargetWays { pool: pool.clone(), connects, pseudo_ipv4 };
    let parts = ServiceParts {
        header_for: HeaderFor::Proxy,
        ways,
        relay: None,
        known: None,
        certificates,
        inherited: std::mem::take(&mut left.listeners),
        admin,
    };
    let (mut service, plans) = Service::bind(config, parts)?;
    if let (Some(tunnel), Some(presented), Some(carried)) = (tunnel, presented, pool.clone()) {
        let sockets = match tunnel.reach() {
            Reach::Accept(addresses) => service.listen_tunnel(addresses)?,
            Reach::Dial(_) => Vec::new(),
        };
        service.run_tunnel(move |metrics, scratch, tasks| {
            TunnelClient::run((tunnel, log_core), presented, carried, sockets, metrics, (scratch, tasks))
        });
    }
    let (errands, taken) = mpsc::channel(WAITING);
    if pool.is_some() {
        service.take_errands(taken);
    }
    let mut errands = Some(errands);
    for (index, (plans, new)) in plans.into_iter().zip(trunks).enumerate() {
        let Some(metrics) = service.metrics().get(index).map(Arc::clone) else { continue };
        let (pool, errands, host) = (pool.clone(), errands.take(), service.host());
        service.add_worker(Box::new(move |stop| {
            Box::pin(async move {
                let trunks = new.zip(pool);
                let trunks =
                    trunks.map(|(new, pool)| WorkerTrunks::Edge(EdgeTrunks::new(pool, &metrics), new, errands));
                // A link may be closed at any time without loss, so there is nobody to notify.
                let worker = Worker::new(metrics, stop);
                worker.keep_ticking(worker_name(index), host);
                worker.serve(None, plans, trunks, || {}).await;
                Ok(())
            })
        }));
    }
    Ok(service)
}

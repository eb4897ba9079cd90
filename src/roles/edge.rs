//! The edge: forwards links, login and status to the core.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

use super::service::{Service, ServiceParts, StartError};
use super::worker::Worker;
use crate::admission::ConnectQueues;
use crate::forward::{HeaderFor, TargetWays};
use crate::tunnel::{SparePool, TunnelClient};
use otproxy_config as config;
use otproxy_config::{Config, Reach};
use otproxy_net::host_key;
use otproxy_protocol::player_address::PseudoIpv4;

/// Binds all sockets of an edge.
///
/// # Errors
/// Returns the first address that cannot be bound, or certificates that cannot be used.
pub fn bind(config: config::EdgeConfig) -> Result<Service, StartError> {
    let (tunnel, log_core) = (config.tunnel.clone(), config.log_core_address);
    let config = Config::Edge(config);
    let certificates = super::certificates(&config)?.map(watch::Sender::new);
    let (presented, wanted) = (certificates.as_ref().map(watch::Sender::subscribe), Arc::new(Notify::new()));
    let pool = tunnel.is_some().then(|| SparePool::new(Arc::clone(&wanted)));
    let (connects, pseudo_ipv4) = (ConnectQueues::new(&config), PseudoIpv4::new(host_key()));
    let ways = TargetWays { pool: pool.clone(), connects, pseudo_ipv4 };
    let parts = ServiceParts { header_for: HeaderFor::Proxy, ways, relay: None, known: None, certificates };
    let (mut service, plans) = Service::bind(config, parts)?;
    if let (Some(tunnel), Some(presented), Some(pool)) = (tunnel, presented, pool) {
        let sockets = match tunnel.reach() {
            Reach::Accept(addresses) => service.listen_tunnel(addresses)?,
            Reach::Dial { .. } => Vec::new(),
        };
        service.run_tunnel(move |metrics, scratch, tasks| {
            TunnelClient::run((tunnel, log_core), presented, (pool, wanted), sockets, metrics, (scratch, tasks))
        });
    }
    for (index, plans) in plans.into_iter().enumerate() {
        let Some(metrics) = service.metrics().get(index).map(Arc::clone) else { continue };
        service.add_worker(Box::new(move |stop| {
            Box::pin(async move {
                // A link may be closed at any time without loss, so there is nobody to notify.
                Worker::new(metrics, stop).serve(None, plans, None, || {}).await;
                Ok(())
            })
        }));
    }
    Ok(service)
}

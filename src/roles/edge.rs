//! The edge: forwards links, login and status to the core.

use std::sync::Arc;

use tokio::sync::Notify;

use super::service::{Service, StartError, WorkerContext};
use crate::certs::identity::Own;
use crate::certs::watch::Watch;
use crate::config::{self, Reach};
use crate::forward::HeaderFor;
use crate::tunnel::{EdgeEnd, Pool};

/// Binds all sockets of an edge.
///
/// # Errors
/// The first address that cannot be had, or certificates that cannot be used.
pub fn bind(config: config::Edge) -> Result<Service, StartError> {
    let mut service = Service::bind("edge", &config.process)?;
    let pool = match config.tunnel {
        Some(tunnel) => Some(bind_tunnel(&mut service, tunnel)?),
        None => None,
    };
    let forwards = service.listen_forwards(config.listeners, &HeaderFor::Proxy, pool.as_ref())?;
    for (index, forwards) in forwards.into_iter().enumerate() {
        let Some(metrics) = service.metrics().get(index).map(Arc::clone) else { continue };
        service.add_worker(Box::new(move |stop| {
            Box::pin(async move {
                let worker = WorkerContext::new(metrics, stop);
                worker.start_forwards(forwards);
                // A link may be closed at any time without loss: there is nobody to tell.
                worker.serve(|| {}).await;
                Ok(())
            })
        }));
    }
    Ok(service)
}

/// Binds the edge's end of the tunnel; gives where connections to the core come from.
fn bind_tunnel(service: &mut Service, tunnel: config::EdgeTunnel) -> Result<Arc<Pool>, StartError> {
    let certificates = Watch::load(tunnel.tls.clone(), Own::Edge)?;
    let sockets = match &tunnel.reach {
        Reach::Accept(addresses) => service.listen_tunnel(addresses)?,
        Reach::Dial { .. } => Vec::new(),
    };
    let wanted = Arc::new(Notify::new());
    let pool = Pool::new(Arc::clone(&wanted));
    let offered = Arc::clone(&pool);
    service.run_tunnel(move |metrics, scratch, tasks| {
        EdgeEnd::run(tunnel, certificates, (offered, wanted), sockets, metrics, (scratch, tasks))
    });
    Ok(pool)
}

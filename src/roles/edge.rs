//! The edge: forwards links, login and status to the core.

use std::sync::Arc;

use super::service::{Service, StartError, WorkerContext};
use crate::config;
use crate::forward::HeaderFor;

/// Binds all sockets of an edge.
///
/// # Errors
/// The first address that cannot be had.
pub fn bind(config: config::Edge) -> Result<Service, StartError> {
    let mut service = Service::bind("edge", &config.process)?;
    let forwards = service.listen_forwards(config.listeners, &HeaderFor::Proxy)?;
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

//! The core: the relay, and forwards for login and status.

use std::rc::Rc;
use std::sync::Arc;

use super::service::{Service, StartError, WorkerContext};
use crate::config;
use crate::forward::HeaderFor;
use crate::net::host_key;
use crate::relay::{OTHER_EDGE, Relay, RelayShared};
use crate::wire::player_address::PseudoIpv4;

/// Binds all sockets of a core.
///
/// # Errors
/// The first address that cannot be had.
pub fn bind(mut config: config::Core) -> Result<Service, StartError> {
    let pseudo_ipv4 = PseudoIpv4::new(host_key());
    let mut service = Service::bind("core", &config.process)?;
    let forwards = std::mem::take(&mut config.forwards);
    let forwards = service.listen_forwards(forwards, &HeaderFor::GameServer(pseudo_ipv4.clone()))?;
    // relays[worker][listener]
    let mut relays: Vec<Vec<_>> = forwards.iter().map(|_| Vec::new()).collect();
    for relay in &config.relays {
        for (worker, sockets) in relays.iter_mut().zip(service.listen(&relay.inbound)?) {
            worker.push(sockets);
        }
    }
    // As in `Service::listen`: the zeros are there before the workers are.
    for metrics in service.metrics() {
        config
            .edges
            .iter()
            .map(|edge| edge.name.as_str())
            .chain([OTHER_EDGE])
            .for_each(|edge| drop(metrics.edge(edge)));
        config.game_servers.iter().for_each(|server| drop(metrics.port(server.port)));
    }
    let (shared, handovers) = RelayShared::new(&config, pseudo_ipv4, service.gate());
    for (index, ((forwards, relays), handovers)) in forwards.into_iter().zip(relays).zip(handovers).enumerate() {
        let Some(metrics) = service.metrics().get(index).map(Arc::clone) else { continue };
        let shared = Arc::clone(&shared);
        service.add_worker(Box::new(move |stop| {
            Box::pin(async move {
                let worker = WorkerContext::new(Arc::clone(&metrics), stop);
                worker.start_forwards(forwards);
                let relay = Relay::new(shared, index, metrics, Rc::clone(&worker.scratch), worker.tasks.clone());
                tokio::task::spawn_local(Rc::clone(&relay).take_handovers(handovers));
                tokio::task::spawn_local(Rc::clone(&relay).watch_idle());
                for (listener, sockets) in relays.into_iter().enumerate() {
                    let Some(inbound) = relay.inbound(listener) else { continue };
                    let accepting = Rc::clone(&relay);
                    worker.accept(&inbound.config().name, sockets, inbound.metrics(), move |stream, peer| {
                        Rc::clone(&accepting).carry(listener, stream, peer)
                    });
                }
                worker.serve(|| relay.shut_down()).await;
                Ok(())
            })
        }));
    }
    Ok(service)
}

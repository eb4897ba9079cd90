//! The core: the relay, and forwards for login and status.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::service::{Service, StartError, WorkerContext};
use crate::certs::identity::Own;
use crate::certs::watch::Watch;
use crate::config;
use crate::forward::{Forward, HeaderFor};
use crate::net::host_key;
use crate::net::worker::Tasks;
use crate::relay::{OTHER_EDGE, Relay, RelayShared};
use crate::tunnel::{Carriers, CoreEnd, Listener, Streams};
use crate::wire::player_address::PseudoIpv4;

/// Binds all sockets of a core.
///
/// # Errors
/// The first address that cannot be had.
pub fn bind(mut config: config::Core) -> Result<Service, StartError> {
    let pseudo_ipv4 = PseudoIpv4::new(host_key());
    let mut service = Service::bind("core", &config.process)?;
    let forwards = std::mem::take(&mut config.forwards);
    let listeners = listeners(&config, &forwards);
    let forwards = service.listen_forwards(forwards, &HeaderFor::GameServer(pseudo_ipv4.clone()), None)?;
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
    let streams = bind_tunnel(&mut service, &config, listeners)?;
    let (shared, handovers) = RelayShared::new(&config, pseudo_ipv4, service.gate(), service.access_log());
    shared.show(service.own_metrics());
    let workers = forwards.into_iter().zip(relays).zip(handovers).zip(streams);
    for (index, (((forwards, relays), handovers), streams)) in workers.enumerate() {
        let Some(metrics) = service.metrics().get(index).map(Arc::clone) else { continue };
        let shared = Arc::clone(&shared);
        service.add_worker(Box::new(move |stop| {
            Box::pin(async move {
                let worker = WorkerContext::new(Arc::clone(&metrics), stop);
                let forwards = worker.start_forwards(forwards);
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
                tokio::task::spawn_local(take_streams(streams, Rc::clone(&relay), forwards, worker.tasks.clone()));
                worker.serve(|| relay.shut_down()).await;
                Ok(())
            })
        }));
    }
    Ok(service)
}

/// The listeners as streams of the tunnel name them.
fn listeners(config: &config::Core, forwards: &[config::Forward]) -> HashMap<String, Listener> {
    let relays = config.relays.iter().enumerate();
    let relays = relays.map(|(index, relay)| (relay.inbound.name.clone(), Listener::Relay(index)));
    let forwards = forwards.iter().enumerate();
    let forwards = forwards.map(|(index, forward)| (forward.inbound.name.clone(), Listener::Forward(index)));
    relays.chain(forwards).collect()
}

/// Binds the core's end of the tunnel, where it has one; gives the streams for each worker.
fn bind_tunnel(
    service: &mut Service,
    config: &config::Core,
    listeners: HashMap<String, Listener>,
) -> Result<Vec<Streams>, StartError> {
    let (workers, streams) = service.metrics().iter().map(|_| mpsc::unbounded_channel()).unzip();
    if let Some(tunnel) = config.tunnel.clone() {
        let certificates = Watch::load(tunnel.tls.clone(), Own::Core)?;
        let sockets = service.listen_tunnel(&tunnel.accept)?;
        let trusted = service.trust(config.edges.clone());
        let carriers = Carriers { listeners, workers };
        service.run_tunnel(move |metrics, scratch, tasks| {
            CoreEnd::run(tunnel, certificates, carriers, trusted, sockets, metrics, (scratch, tasks))
        });
    }
    Ok(streams)
}

/// Carries the streams of the tunnel that this worker is given, each as a task of its own.
async fn take_streams(mut streams: Streams, relay: Rc<Relay>, forwards: Vec<Rc<Forward>>, tasks: Tasks) {
    while let Some((listener, tunnelled)) = streams.recv().await {
        match listener {
            Listener::Relay(index) => tasks.spawn(Rc::clone(&relay).carry_tunnelled(index, tunnelled)),
            Listener::Forward(index) => {
                if let Some(forward) = forwards.get(index) {
                    tasks.spawn(Rc::clone(forward).carry_tunnelled(tunnelled));
                }
            }
        }
    }
}

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::LocalOptions;
use tokio::time::Instant as Clock;

use super::*;
use crate::admission::{AdmissionLimits, BanMetrics, Bans};
use otproxy_config::{Config, parse};
use otproxy_net::worker::scratch;

/// Returns how long a silent connection is kept on a listener with this YAML and one slot, which it takes.
async fn kept(yaml: &str) -> Duration {
    let text = format!(
        "role: edge\nlisteners:\n- {{ name: a, listen: '127.0.0.1:0', forward_to: '127.0.0.1:1', {yaml}, \
         timeouts: {{ header: 10h, first_bytes: 5h }} }}\n"
    );
    let Ok(Config::Edge(edge)) = parse("test.yaml", &text) else { panic!("{text}") };
    let config = edge.listeners[0].inbound().clone();
    let metrics = Metrics::new();
    let bans = Bans::new((&edge.process.bans).into(), BanMetrics::new(&metrics));
    let process = ProcessAdmission::new(AdmissionControl::new(AdmissionLimits::default(), Arc::default()), bans);
    let inbound = Inbound::new(
        InboundShared::new(config, process, None),
        ListenerMetrics::new(&metrics, "a"),
        Rc::new(scratch()),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _silent = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, peer) = listener.accept().await.unwrap();
    let began = Clock::now();
    assert!(inbound.admit(stream, peer, &Rc::default()).await.is_none());
    began.elapsed()
}

#[test]
fn the_silent_have_less_time_where_places_run_out() {
    // The clock jumps whenever nothing else is to be done.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build_local(LocalOptions::default())
        .unwrap();
    for (waits_for, hours) in [("expect: links", 5), ("accept_proxy: required, trusted_peers: 127.0.0.1", 10)] {
        for (limits, part) in [("connections: 2", 5), ("connections: 1", 1), ("connections: 1, pressure: false", 5)] {
            let kept = runtime.block_on(kept(&format!("{waits_for}, limits: {{ {limits} }}")));
            let expected = Duration::from_secs(3600 * hours * part / 5);
            assert!((expected..expected * 11 / 10).contains(&kept), "{waits_for}, {limits}: {kept:?}");
        }
    }
}

//! Relays that go on with the clients of another one.

use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};

use super::*;
use crate::admission::{
    AdmissionControl, AdmissionLimits, BanMetrics, BanPolicy, Bans, InboundShared, ProcessAdmission,
};
use crate::metrics::Metrics;
use crate::relay::RecoveredSessions;
use otproxy_config as config;
use otproxy_config::Config;
use otproxy_net::worker::{Tasks, scratch};
use otproxy_protocol::frame::{self, ClientId, HEADER_LEN, SessionId};
use otproxy_protocol::player_address::PseudoIpv4;

const CLIENT: ClientId = ClientId(5);

/// The relay of a process with one worker, its listener, and the commands to it.
fn relay(config: &Config) -> (Rc<Relay>, Arc<InboundShared>, super::super::WorkerCommands) {
    let Config::Core(core) = config else { panic!("a core") };
    let metrics = Arc::new(Metrics::new());
    let bans = Bans::new(BanPolicy::off(), BanMetrics::new(&metrics));
    let process = ProcessAdmission::new(AdmissionControl::new(AdmissionLimits::default(), Arc::default()), bans);
    let inbound = InboundShared::new(core.listeners[0].inbound().clone(), process, None);
    let (shared, mut commands) = RelayShared::new(core, PseudoIpv4::new([1; 16]), Arc::default());
    let tasks = Tasks::new(metrics.on_panic());
    (Relay::new(shared, 0, metrics, Rc::new(scratch()), tasks, None), inbound, commands.remove(0))
}

/// Has `relay` go on with the clients of another one, of which no task has a turn in this call.
fn go_on(relay: &Rc<Relay>, inbound: &Arc<InboundShared>, config: &Config, left: FrozenWorker) {
    let FrozenWorker { clients, sockets, without } = left;
    assert_eq!(without, 0);
    let state = FrozenState { at: monotonic(), clients };
    let state = postcard::to_extend(&state, FORMAT.to_le_bytes().to_vec()).unwrap();
    let listeners = [("links".to_owned(), Arc::clone(inbound))].into_iter().collect();
    let sessions = RecoveredSessions::read(&state, sockets).unwrap();
    relay.shared.thaw(sessions, config, listeners, &relay.metrics, None);
}

#[test]
fn restarts_that_follow_each_other_at_once_lose_nothing() {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    let test = async {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let text = format!(
            "role: core\nworkers: 1\nlisteners: [{{ name: links, kind: relay, listen: '127.0.0.1:1', accept_proxy: none }}]\n\
             game_servers: [{{ port: 7172, address: '{}', player_address: none }}]\n",
            server.local_addr().unwrap()
        );
        let config = config::parse("core.yaml", &text).unwrap();
        let (first, inbound, _commands) = relay(&config);
        let links = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(links.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = links.accept().await.unwrap();
        tokio::task::spawn_local(Rc::clone(&first).carry(first.inbound(&inbound), stream, peer));
        client.write_all(&[&frame::ping(CLIENT, 0)[..], &frame::open(SessionId(1), 7172)].concat()).await.unwrap();
        let (mut game, _) = server.accept().await.unwrap();
        game.write_all(b"\x02\0hi").await.unwrap();
        let mut bytes = [0; HEADER_LEN * 2 + 4];
        client.read_exact(&mut bytes).await.unwrap();

        let (mut left, mut last) = (first.freeze(), None);
        for _ in 0..3 {
            let (next, inbound, mut commands) = relay(&config);
            go_on(&next, &inbound, &config, left);
            while let Ok(command) = commands.try_recv() {
                let WorkerCommand::Thaw(order) = command else { panic!("nothing else is to be done") };
                next.thaw(order.0, &order.1);
            }
            // Before any of its tasks had a turn.
            left = next.freeze();
            assert_eq!((left.clients.len(), left.sockets.len()), (1, 2));
            last = Some((next, commands));
        }
        // The last one goes on, and nothing of the others moves any more.
        drop((left, first));
        let (last, _commands) = last.unwrap();
        game.write_all(b"\x02\0yo").await.unwrap();
        let mut packet = [0; HEADER_LEN + 4];
        client.read_exact(&mut packet).await.unwrap();
        assert!(packet.ends_with(b"yo"));
        assert_eq!(last.sessions(|_, _, _| true).len(), 1);
    };
    let bounded = async { tokio::time::timeout(std::time::Duration::from_secs(60), test).await.expect("it hangs") };
    runtime.block_on(bounded);
}

#[test]
fn all_clients_come_in_one_turn_however_many_there_are() {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let text = "role: core\nworkers: 1\nlisteners: [{ name: links, kind: relay, listen: '127.0.0.1:1', accept_proxy: none }]\n\
                    game_servers: [{ port: 7172, address: '127.0.0.1:9', player_address: none }]\n";
        let (relay, _, commands) = relay(&config::parse("core.yaml", text).unwrap());
        let done = Arc::new(AtomicUsize::new(0));
        for _ in 0..1000 {
            let done = Arc::clone(&done);
            let ask = move |_: &Relay| {
                done.fetch_add(1, Ordering::Relaxed);
            };
            relay.shared.commands[0].send(WorkerCommand::Ask(Box::new(ask))).unwrap();
        }
        tokio::task::spawn_local(Rc::clone(&relay).run_commands(commands));
        tokio::task::yield_now().await;
        assert_eq!(done.load(Ordering::Relaxed), 1000);
    });
}

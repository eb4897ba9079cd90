//! A session whose task fails by a defect.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};

use super::log::SessionLogGuard;
use super::*;
use crate::admission::{
    AdmissionControl, AdmissionLimits, BanMetrics, BanPolicy, Bans, InboundShared, ListenerAdmission, ProcessAdmission,
};
use crate::metrics::{BuildInfo, Metrics, render};
use crate::relay::link_task::LinkTask;
use crate::relay::{EdgeMetrics, OTHER_EDGE, RelayShared};
use otproxy_config as config;
use otproxy_config::Config;
use otproxy_net::worker::{Tasks, scratch};
use otproxy_protocol::core::Effect;
use otproxy_protocol::frame::{self, ClientId, PONG};
use otproxy_protocol::player_address::PseudoIpv4;

const CLIENT: ClientId = ClientId(5);

#[test]
fn a_panic_ends_its_session_tells_the_client_and_harms_no_other() {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), panics()).await.expect("it hangs") });
}

async fn panics() {
    let game_server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let text = format!(
        "role: core\nworkers: 1\nlisteners:\n\
         - {{ name: links, kind: relay, listen: '127.0.0.1:0', accept_proxy: none }}\n\
         game_servers:\n- {{ port: 7172, address: '{}', player_address: none }}\n",
        game_server.local_addr().unwrap()
    );
    let Config::Core(core) = config::parse("core.yaml", &text).unwrap() else { panic!("not a core") };
    let metrics = Arc::new(Metrics::new());
    let tasks = Tasks::new(metrics.on_panic());
    let bans = Bans::new(BanPolicy::off(), BanMetrics::new(&metrics));
    let process = ProcessAdmission::new(AdmissionControl::new(AdmissionLimits::default(), Arc::default()), bans);
    let (shared, _) = RelayShared::new(&core, PseudoIpv4::new([1; 16]), Arc::default());
    let relay = Relay::new(shared, 0, Arc::clone(&metrics), Rc::new(scratch()), tasks.clone(), None);

    let links = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(links.local_addr().unwrap()).await.unwrap();
    let (stream, player) = links.accept().await.unwrap();
    let inbound = InboundShared::new(core.listeners[0].inbound().clone(), Arc::clone(&process), None);
    let inbound = relay.inbound(&inbound);
    let edge = Rc::new(EdgeMetrics::new(&metrics, OTHER_EDGE));
    let gates =
        ListenerAdmission::new("links", AdmissionControl::new(AdmissionLimits::default(), Arc::default()), process);
    let counted = gates.admit_peer(player).unwrap();
    let (stream, handle) = (Stream::new(stream).unwrap(), Arc::clone(counted.handle()));
    let link = Rc::new(RelayLink::new(stream, (handle, player.ip().into()), CLIENT, edge, None, inbound));
    let player = relay.client(CLIENT);
    let task = LinkTask::new(Rc::clone(&relay), Rc::clone(&player), link, Vec::new(), counted);

    // As `Relay::receive` does it, but for a task that fails in the middle of everything.
    let (key, session) = {
        let mut machine = player.machine.borrow_mut();
        let open = frame::open(SessionId(1), 7172);
        let mut turn = machine.receive(task.key, &open);
        let Some(Effect::Connect(key)) = machine.next_effect(&mut turn, &relay) else { panic!("it is let in") };
        (key, machine.session(key).cloned().unwrap())
    };
    tasks.spawn(task);
    let failing = SessionTask::new(Rc::clone(&relay), player, key, session);
    tasks.spawn(async move {
        let _entry = TableEntry(&failing);
        let _account = SessionLogGuard::new(&failing);
        let (_scratch, _clients) = (failing.relay.scratch.borrow_mut(), failing.relay.clients.borrow_mut());
        let _machine = failing.client.machine.borrow_mut();
        panic!("on purpose");
    });

    let mut answer = [0; frame::HEADER_LEN];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, frame::end(SessionId(1)));
    // The link goes on, and a session can be opened on it: nothing of the worker is in use for ever.
    client.write_all(&[&frame::ping(CLIENT, 0)[..], &frame::open(SessionId(2), 7172)].concat()).await.unwrap();
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, PONG);
    let (mut game, _) = game_server.accept().await.unwrap();
    game.write_all(b"\x02\0hi").await.unwrap();
    let mut data = [0; frame::HEADER_LEN + 4];
    client.read_exact(&mut data).await.unwrap();
    assert_eq!(data[frame::HEADER_LEN..], *b"\x02\0hi");

    let views = relay.sessions(|_, _, _| true);
    let known: Vec<_> = views.iter().map(|view| (view.client, view.session)).collect();
    assert_eq!(known, [(CLIENT, SessionId(2))]);
    assert_eq!(relay.shared.sessions.total(), 1, "what it counted against the limits is free again");
    let text = render(&[metrics], BuildInfo { version: "0", role: "core" });
    for line in [
        "otproxy_panics_total 1\n",
        "otproxy_relay_sessions_ended_total{port=\"7172\",reason=\"panic\"} 1\n",
        "otproxy_relay_sessions_active{port=\"7172\"} 1\n",
        "otproxy_relay_links_active{edge=\"other\"} 1\n",
    ] {
        assert!(text.contains(line), "no {line:?} in:\n{text}");
    }
}

//! A session whose task fails by a defect.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};

use super::*;
use crate::admission::{BanMetrics, BanRules, Bans, Gate, GateLimits, Gates, InboundShared, ProcessGate};
use crate::metrics::{BuildInfo, Metrics, render};
use crate::relay::link_task::LinkTask;
use crate::relay::{OTHER_EDGE, RelayShared};
use otproxy_config as config;
use otproxy_config::Config;
use otproxy_net::worker::{Tasks, scratch};
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
    let bans = Bans::new(BanRules::off(), BanMetrics::new(&metrics));
    let process = ProcessGate::new(Gate::new(GateLimits::default(), Arc::default()), bans);
    let (shared, _) = RelayShared::new(&core, PseudoIpv4::new([1; 16]));
    let relay = Relay::new(shared, 0, Arc::clone(&metrics), Rc::new(scratch()), tasks.clone());

    let links = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(links.local_addr().unwrap()).await.unwrap();
    let (stream, player) = links.accept().await.unwrap();
    let inbound = InboundShared::new(core.listeners[0].inbound().clone(), Arc::clone(&process), None);
    let (inbound, settings) = (relay.inbound(&inbound), relay.shared.settings());
    let edge = Rc::new(EdgeMetrics::new(&metrics, OTHER_EDGE));
    let gates = Gates::new("links", Gate::new(GateLimits::default(), Arc::default()), process);
    let counted = gates.enter(player).unwrap();
    let (stream, presence) = (Stream::new(stream).unwrap(), Arc::clone(counted.presence()));
    let link = Rc::new(Link::new(stream, presence, CLIENT, edge, None, inbound));
    let (carried, by) = (Rc::clone(&link), Rc::clone(&relay));
    tasks.spawn(LinkTask::new(by, carried, Vec::new(), counted));

    // As `Relay::create` does it, but for a task that fails in the middle of everything.
    let guard = relay.shared.sessions.try_acquire(AddressKey::from(player.ip())).unwrap();
    let session =
        Session::new(&relay, &link, SessionId(1), (&settings, settings.server(7172).unwrap()), Instant::now(), guard);
    relay.sessions.borrow_mut().insert(session.key(), Rc::clone(&session));
    session.join(&link);
    let by = Rc::clone(&relay);
    tasks.spawn(async move {
        let _listed = Listed { session: &session, relay: &by };
        let _record = Record::new(&session, &by);
        let (_scratch, _sessions) = (by.scratch.borrow_mut(), by.sessions.borrow_mut());
        let (_machine, _links) = (session.machine.borrow_mut(), session.links.borrow_mut());
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

    let known: Vec<SessionKey> = relay.sessions.borrow().keys().copied().collect();
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

//! Logins while edges and login services are killed one after the other: none of those that clients try is lost.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::common::tunnel::*;
use crate::common::{eventually, run};

const NAMES: [&str; 2] = ["waw1", "fra1"];
/// Every connection here is from one address.
const FREE: &str = "limits: { connections_per_address: none, rate_per_address: none }";
/// Logins of each kind that clients make after each fault.
const SOME: usize = 5;
/// The words of a login service.
const DONE: &str = "done";

/// The ways to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Http,
    Classic,
}

const WAYS: [Way; 2] = [Way::Http, Way::Classic];

/// A login service.
struct Service {
    way: Way,
    at: SocketAddr,
    serving: Option<JoinHandle<()>>,
}

impl Service {
    fn new(way: Way) -> Self {
        Self { way, at: free_address(), serving: None }
    }

    async fn start(&mut self) {
        let (listener, way) = (TcpListener::bind(self.at).await.unwrap(), self.way);
        self.serving = Some(tokio::spawn(async move {
            let mut answers = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                answers.spawn(answer(stream, way));
                while answers.try_join_next().is_some() {}
            }
        }));
    }

    async fn kill(&mut self) {
        let serving = self.serving.take().expect("it runs");
        serving.abort();
        let _ = serving.await;
    }
}

async fn answer(mut stream: TcpStream, way: Way) {
    let (mut asked, mut buffer) = (Vec::new(), [0; 1024]);
    while !asked.ends_with(login(way).1) {
        match stream.read(&mut buffer).await {
            Ok(count) if count > 0 => asked.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    }
    let says = match way {
        Way::Http => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{DONE}", DONE.len()),
        Way::Classic => DONE.to_owned(),
    };
    let _ = stream.write_all(says.as_bytes()).await;
}

/// Returns the bytes of a login, and how they end.
fn login(way: Way) -> (Vec<u8>, &'static [u8]) {
    match way {
        Way::Http => (b"POST /login HTTP/1.1\r\nHost: p1.example\r\nContent-Length: 2\r\n\r\n{}".to_vec(), b"{}"),
        // A packet of 10.98, as `expect: login` takes it.
        Way::Classic => {
            let mut packet = vec![149, 0, 0, 0, 0, 0, 1, 2, 0, 74, 4];
            packet.resize(149, 7);
            packet.extend(b"{}");
            (packet, b"{}")
        }
    }
}

/// Logs in at an edge, over a connection of its own. Returns whether a login service answered.
async fn logs_in(edge: SocketAddr, way: Way) -> bool {
    let Ok(mut stream) = TcpStream::connect(edge).await else { return false };
    if stream.write_all(&login(way).0).await.is_err() {
        return false;
    }
    let mut told = Vec::new();
    let _ = stream.read_to_end(&mut told).await;
    told.ends_with(DONE.as_bytes())
}

/// Logs in over and over as clients do: over HTTP at all edges at once, otherwise at one edge after the other.
struct Clients {
    done: [AtomicUsize; 2],
    lost: Mutex<Vec<String>>,
    /// The step of the test at the time.
    now: Mutex<String>,
    end: AtomicBool,
}

impl Clients {
    async fn play(self: Arc<Self>, way: Way, edges: [SocketAddr; 2]) {
        let count = &self.done[usize::from(way == Way::Classic)];
        while !self.end.load(Ordering::Relaxed) {
            let before = self.now.lock().unwrap().clone();
            let is_in = match way {
                Way::Http => {
                    let (first, second) = tokio::join!(logs_in(edges[0], way), logs_in(edges[1], way));
                    first || second
                }
                Way::Classic => logs_in(edges[0], way).await || logs_in(edges[1], way).await,
            };
            if !is_in {
                self.lost.lock().unwrap().push(format!("{way:?}, from `{before}` on"));
            }
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes what has happened, and waits until both kinds of clients have logged in after it.
    async fn go_on(&self, what: String) {
        self.now.lock().unwrap().clone_from(&what);
        let seen = || [0, 1].map(|way| self.done[way].load(Ordering::Relaxed));
        let before = seen();
        let both = async || seen().iter().zip(before).all(|(now, before)| *now >= before + SOME).then_some(());
        eventually(&what, both).await;
    }
}

/// The addresses of an edge, for each way.
type Doors = [SocketAddr; 2];

async fn start_edge(certificates: &Certificates, name: &str, core: SocketAddr, [web, classic]: Doors) -> Role {
    let listeners = format!(
        "[{{ name: web, kind: web, listen: \"{web}\", forward_to: core/web, {FREE} }}, \
         {{ name: login, listen: \"{classic}\", forward_to: core/login, expect: login, {FREE} }}]"
    );
    let edge = Role::start(&edge(certificates, name, core, &listeners));
    edge.trunks(name, 4).await;
    edge
}

/// Logs in by each way at each of these edges: all of them live, so each login succeeds.
async fn all_log_in(edges: &[Doors], what: &str) {
    for doors in edges {
        for (door, way) in doors.iter().zip(WAYS) {
            for _ in 0..SOME {
                assert!(logs_in(*door, way).await, "{what}: {way:?} at {door}");
            }
        }
    }
}

#[test]
fn logins_go_on_while_each_edge_and_each_login_service_is_killed() {
    run(async {
        let certificates = Certificates::new();
        let mut services = [Way::Http, Way::Http, Way::Classic, Way::Classic].map(Service::new);
        for service in &mut services {
            service.start().await;
        }
        let [first, second, third, fourth] = [0, 1, 2, 3].map(|index: usize| services[index].at);
        let listeners = format!(
            "[{{ name: web, kind: web, forward_to: [\"{first}\", \"{second}\"], routes: {{ login: [/login] }}, {FREE} }}, \
             {{ name: login, forward_to: [\"{third}\", \"{fourth}\"], send_proxy: none, {FREE} }}]"
        );
        let core = Role::start(&core(&certificates, "[{ name: waw1 }, { name: fra1 }]", &listeners, ""));
        let tunnel = core.addr("tunnel");
        let doors: [Doors; 2] = [(); 2].map(|()| [free_address(), free_address()]);
        let mut edges = Vec::new();
        for (name, doors) in NAMES.iter().zip(doors) {
            edges.push(start_edge(&certificates, name, tunnel, doors).await);
        }
        all_log_in(&doors, "all live").await;

        let clients = Arc::new(Clients {
            done: Default::default(),
            lost: Mutex::default(),
            now: Mutex::new("all live".to_owned()),
            end: AtomicBool::new(false),
        });
        let playing = WAYS
            .iter()
            .enumerate()
            .map(|(index, way)| tokio::spawn(Arc::clone(&clients).play(*way, doors.map(|doors: Doors| doors[index]))));
        let playing: Vec<_> = playing.collect();

        for index in 0..edges.len() {
            let what = format!("{} is killed", NAMES[index]);
            let edge = edges.remove(index);
            edge.abort();
            let _ = edge.ended().await;
            all_log_in(&doors[1 - index..2 - index], &what).await;
            clients.go_on(what).await;
            edges.insert(index, start_edge(&certificates, NAMES[index], tunnel, doors[index]).await);
            all_log_in(&doors, "it is back").await;
            clients.go_on(format!("{} is back", NAMES[index])).await;
        }
        for (index, service) in services.iter_mut().enumerate() {
            let what = format!("login service {index} is killed");
            service.kill().await;
            all_log_in(&doors, &what).await;
            clients.go_on(what).await;
            service.start().await;
            all_log_in(&doors, "it is back").await;
            clients.go_on(format!("login service {index} is back")).await;
        }

        clients.end.store(true, Ordering::Relaxed);
        for playing in playing {
            playing.await.unwrap();
        }
        let lost = clients.lost.lock().unwrap().clone();
        assert!(lost.is_empty(), "{lost:?}");
        for edge in edges {
            edge.stop().await;
        }
        core.stop().await;
        for service in &mut services {
            service.kill().await;
        }
    });
}

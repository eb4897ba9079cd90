//! Restarts with a service manager that keeps what a process leaves.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use otproxy_testkit::mock::game_server::MockGameServer;
use rustix::process::Signal;

use crate::common::certificates::Certificates;
use crate::common::crew::{Crew, pushing};
use crate::common::folder::Folder;
use crate::common::process::{Running, otproxy};
use crate::common::role::Role;
use crate::common::service_manager::ServiceManager;
use crate::common::{link, tunnel};

mod crash;
mod listeners;
mod sessions;
mod upgrade;

/// Has a core with a tunnel, which `start` starts, be replaced three times while players play over two edges: nothing may be lost.
/// Returns how often each player lost a link.
async fn over_the_tunnel<C>(start: impl FnOnce(&str) -> C, mut replace: impl FnMut(&mut C)) -> Vec<u64> {
    let (game, certificates, accept) = (pushing().await, Certificates::new(), tunnel::free_address());
    let servers =
        format!("game_servers: [{{ port: {}, address: '{}', player_address: none }}]\n", link::PORT, game.addr());
    let yaml =
        tunnel::core(&certificates, "[{ name: waw1 }, { name: fra1 }]", "[{ name: links, kind: relay }]", &servers);
    let mut core = start(&yaml.replace("role: core\n", "").replace("127.0.0.1:0", &accept.to_string()));
    let edge = |name| {
        let links = "[{ name: links, listen: '127.0.0.1:0', forward_to: core/links }]";
        Role::start(&tunnel::edge(&certificates, name, accept, links))
    };
    let edges = [edge("waw1"), edge("fra1")];
    let mut crew = Crew::start(5, &edges.each_ref().map(|edge| edge.addr("links"))).await;
    replaced(&mut crew, |_| replace(&mut core)).await;
    let lost = crew.lost_nothing().await;
    same_connections(&game, 5);
    crew.leave().await;
    for edge in edges {
        edge.stop().await;
    }
    lost
}

/// Has players play, a core be replaced by one with another number of workers, and their links come back: three times.
async fn replaced(crew: &mut Crew, mut replace: impl FnMut(usize)) {
    for workers in [1, 3, 2] {
        for _ in 0..20 {
            crew.play().await;
        }
        replace(workers);
        crew.rejoin().await;
    }
}

/// The game server had one connection for each player all the time, and each of their packets once.
fn same_connections(game: &MockGameServer, players: usize) {
    let connections = game.connections();
    assert_eq!(connections.len(), players, "one for each player all the time");
    assert!(connections.iter().all(|connection| connection.received.perfect()), "{connections:?}");
}

/// A role and its manager.
struct Service {
    manager: ServiceManager,
    folder: Folder,
    role: &'static str,
    running: Option<Running>,
}

impl Service {
    fn new(role: &'static str) -> Self {
        Self { manager: ServiceManager::new(), folder: Folder::new(), role, running: None }
    }

    /// Starts a core.
    fn core(yaml: &str) -> Self {
        let mut service = Self::new("core");
        service.write(yaml);
        service.go();
        service
    }

    fn write(&self, yaml: &str) {
        let text = format!("role: {}\nname: test\nadmin: {{ listen: off }}\n{yaml}", self.role);
        fs::write(self.folder.join("role.yaml"), text).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.folder.join("role.yaml")
    }

    fn command(&self) -> Command {
        let file = self.file();
        self.manager.service(otproxy(&[self.role, "-c", file.to_str().unwrap(), "--log-format", "json"]))
    }

    fn go(&mut self) {
        let (running, _) = Running::start(self.command());
        self.running = Some(running);
    }

    /// Starts it; it logs this before it is ready.
    fn starts_with(&mut self, what: &str) {
        let mut running = Running::of(self.command().spawn().unwrap());
        running.line_with(what);
        self.running = Some(running);
    }

    /// Ends it as the manager does; returns its log.
    fn end(&mut self) -> String {
        let running = self.running.take().unwrap();
        running.signal(Signal::TERM);
        let (code, log) = running.end();
        assert_eq!(code, Some(0), "{log}");
        log
    }

    fn restart(&mut self) -> String {
        let log = self.end();
        assert_eq!(self.manager.kept(), ["otproxy"], "{log}");
        self.go();
        self.manager.forgets();
        log
    }
}

impl Drop for Service {
    /// Shows the log of a role whose test fails.
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take().filter(|_| std::thread::panicking()) {
            running.kill();
            eprintln!("{}", running.end().1);
        }
    }
}

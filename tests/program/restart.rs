//! A core that is restarted while people play, with a service manager that keeps what it leaves.

use std::fs;

use rustix::process::Signal;

use crate::common::crew::{Crew, pushing};
use crate::common::folder::Folder;
use crate::common::process::{Running, otproxy};
use crate::common::run;
use crate::common::service_manager::ServiceManager;

/// A core and its manager.
struct Service {
    manager: ServiceManager,
    folder: Folder,
    running: Option<Running>,
}

impl Service {
    fn start(yaml: &str) -> Self {
        let mut service = Self { manager: ServiceManager::new(), folder: Folder::new(), running: None };
        service.write(yaml);
        service.go();
        service
    }

    fn write(&self, yaml: &str) {
        fs::write(self.folder.join("core.yaml"), format!("role: core\nadmin: {{ listen: off }}\n{yaml}")).unwrap();
    }

    fn go(&mut self) {
        let file = self.folder.join("core.yaml");
        let command = otproxy(&["core", "-c", file.to_str().unwrap(), "--log-format", "json"]);
        let (running, _) = Running::start(self.manager.service(command));
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
        assert!(self.manager.kept().is_empty(), "the successor has it");
        log
    }
}

fn yaml(listen: &str, workers: usize, game: std::net::SocketAddr) -> String {
    format!(
        "workers: {workers}\nlisteners: [{{ name: links, kind: relay, listen: '{listen}', accept_proxy: none }}]\n\
         game_servers: [{{ port: 7172, address: '{game}', player_address: none }}]\n"
    )
}

#[test]
fn sessions_and_plain_links_go_on() {
    run(async {
        let game = pushing().await;
        let listen = "127.0.71.1:7162";
        let mut core = Service::start(&yaml(listen, 2, game.addr()));
        let mut crew = Crew::start(10, &[listen.parse().unwrap(); 2]).await;
        for workers in [1, 3, 2] {
            for _ in 0..20 {
                crew.play().await;
            }
            core.write(&yaml(listen, workers, game.addr()));
            let log = core.restart();
            assert!(log.contains("left the sessions to the next process"), "{log}");
        }
        crew.play().await;
        let lost = crew.lost_nothing().await;
        assert_eq!(lost, vec![0; 10], "not even a link");
        let connections = game.connections();
        assert_eq!(connections.len(), 10, "one for each player all the time");
        assert!(connections.iter().all(|connection| connection.received.perfect()), "{connections:?}");
        crew.leave().await;
    });
}

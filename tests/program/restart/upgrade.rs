//! Upgrades without a service manager: a process that is started beside the one that runs takes over.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use otproxy::handover::{Successor, receive};
use otproxy_testkit::player::ClientClocks;
use rustix::process::Signal;
use serde_json::Value;
use tokio::net::TcpListener;

use super::listeners::{connect, served, server};
use super::sessions::{play, reaches};
use super::{Service, listeners, over_the_tunnel, replaced, same_connections, sessions};
use crate::common::certificates::Certificates;
use crate::common::crew::{Crew, pushing};
use crate::common::folder::Folder;
use crate::common::process::{Running, failed, otproxy, text};
use crate::common::role::Role;
use crate::common::{HANG, link, run, tunnel};

/// A role that no service manager runs.
struct Alone {
    folder: Folder,
    role: &'static str,
    running: Option<Running>,
}

impl Alone {
    /// Starts it.
    fn start(role: &'static str, yaml: &str) -> Self {
        let mut alone = Self { folder: Folder::new(), role, running: None };
        alone.write(yaml);
        let file = alone.file();
        let (running, _) = Running::start(otproxy(&[role, "-c", file.to_str().unwrap(), "--log-format", "json"]));
        alone.running = Some(running);
        alone
    }

    fn file(&self) -> PathBuf {
        self.folder.join("role.yaml")
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("admin.sock")
    }

    fn write(&self, yaml: &str) {
        let admin = if yaml.contains("admin:") { "" } else { "admin: { listen: off, socket: admin.sock }\n" };
        fs::write(self.file(), format!("role: {}\nname: test\n{admin}{yaml}", self.role)).unwrap();
    }

    fn upgrade(&self) -> Command {
        otproxy(&["upgrade", "-c", self.file().to_str().unwrap(), "--log-format", "json"])
    }

    /// Has a new process take over; returns the log of the one before, when it has ended.
    fn upgraded(&mut self) -> String {
        let before = self.begin_upgrade();
        let (code, log) = before.end();
        assert_eq!(code, Some(0), "{log}");
        log
    }

    /// The same, but returns the process before, which may have something left to do.
    fn begin_upgrade(&mut self) -> Running {
        let mut after = Running::of(self.upgrade().spawn().unwrap());
        after.line_with("took over from the process that ran");
        after.line_with("ready");
        self.running.replace(after).unwrap()
    }

    /// Tries to upgrade, in vain; returns what it says.
    fn fails_to_upgrade(&self, code: i32) -> String {
        failed(&self.upgrade().output().unwrap(), code)
    }

    /// Reads its log up to that.
    fn says(&mut self, what: &str) {
        self.running.as_mut().unwrap().line_with(what);
    }

    /// Asks it to hand over to a process that waits there; returns the whole answer.
    fn ask(&self, place: &str) -> String {
        let body = serde_json::json!({ "role": self.role, "place": place, "takes_socket": true }).to_string();
        let mut socket = UnixStream::connect(self.socket()).unwrap();
        let head = "POST /api/v1/upgrade HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n";
        write!(socket, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Begins to take over from it, by hand.
    fn meet(&self) -> UnixStream {
        let place = self.folder.join("by-hand");
        let _ = fs::remove_file(&place);
        let listener = UnixListener::bind(&place).unwrap();
        let answer = self.ask("by-hand");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        listener.accept().unwrap().0
    }

    /// Returns the number of the process that answers at its socket.
    fn answers(&self) -> u64 {
        let output = otproxy(&["status", "--json", "--socket", self.socket().to_str().unwrap()]).output().unwrap();
        let status: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
        status["pid"].as_u64().unwrap()
    }

    fn id(&self) -> u64 {
        self.running.as_ref().unwrap().id().into()
    }

    /// Returns the names of the sockets in its folder.
    fn sockets(&self) -> Vec<String> {
        let names = fs::read_dir(&*self.folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name != "role.yaml").collect();
        names.sort();
        names
    }

    fn end(&mut self) -> String {
        let running = self.running.take().unwrap();
        running.signal(Signal::TERM);
        let (code, log) = running.end();
        assert_eq!(code, Some(0), "{log}");
        log
    }
}

#[test]
fn sessions_and_plain_links_go_on() {
    run(async {
        let game = pushing().await;
        let listen = tunnel::free_address();
        let yaml = |workers| sessions::yaml(listen, workers, &[game.addr()]);
        let mut core = Alone::start("core", &yaml(2));
        // With clocks as clients have them, a machine that is busy for a moment looks like no dead link.
        let mut crew = Crew::with(10, &[listen; 2], ClientClocks::default()).await;
        replaced(&mut crew, |workers| {
            core.write(&yaml(workers));
            let log = core.upgraded();
            assert!(log.contains("another process has taken over") && log.contains("\"sessions\":10"), "{log}");
            assert!(log.contains("stopped"), "{log}");
            assert_eq!(core.answers(), core.id());
            assert_eq!(core.sockets(), ["admin.sock"]);
        })
        .await;
        crew.play().await;
        let lost = crew.lost_nothing().await;
        assert_eq!(lost, vec![0; 10], "not even a link");
        same_connections(&game, 10);
        crew.leave().await;
        core.end();
        assert!(core.sockets().is_empty(), "the last one takes its socket with it");
    });
}

#[test]
fn links_of_the_tunnel_come_back_and_nothing_is_lost() {
    run(async {
        over_the_tunnel(|yaml| Alone::start("core", yaml), |core| drop(core.upgraded())).await;
    });
}

#[test]
fn an_edge_is_upgraded_and_players_of_its_links_come_back() {
    run(async {
        let (game, certificates) = (pushing().await, Certificates::new());
        let servers =
            format!("game_servers: [{{ port: {}, address: '{}', player_address: none }}]\n", link::PORT, game.addr());
        let accept = tunnel::free_address();
        let core =
            tunnel::core(&certificates, "[{ name: waw1 }, { name: fra1 }]", "[{ name: links, kind: relay }]", &servers);
        let core = Role::start(&core.replace("127.0.0.1:0", &accept.to_string()));
        let listen = ["waw1", "fra1"].map(|name| (name, tunnel::free_address()));
        let mut edges = listen.map(|(name, listen)| {
            let links = format!("[{{ name: links, listen: '{listen}', forward_to: core/links }}]");
            let yaml = tunnel::edge(&certificates, name, accept, &links).replace("role: edge\n", "");
            // Closing its links is spread over half of this.
            Alone::start("edge", &yaml.replace("shutdown_timeout: 0s", "shutdown_timeout: 1s"))
        });
        let mut crew = Crew::start(5, &listen.map(|(_, listen)| listen)).await;
        for _ in 0..2 {
            for edge in &mut edges {
                for _ in 0..20 {
                    crew.play().await;
                }
                let before = edge.begin_upgrade();
                crew.rejoin().await;
                let (code, log) = before.end();
                assert_eq!(code, Some(0), "{log}");
                assert!(log.contains("another process has taken over"), "{log}");
                crew.rejoin().await;
            }
        }
        crew.play().await;
        crew.lost_nothing().await;
        assert_eq!(game.connections().len(), 5, "one for each player all the time");
        crew.leave().await;
        core.stop().await;
    });
}

#[test]
fn those_who_connect_meanwhile_are_served_and_what_is_there_has_its_time() {
    let target = server();
    // A target that answers when it is told to.
    let slow = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for role in ["edge", "core"] {
        let (listen, other, admin) = (tunnel::free_address(), tunnel::free_address(), tunnel::free_address());
        let yaml = |workers: usize| {
            listeners::yaml(
                listen,
                target,
                &format!("workers: {workers}\nadmin: {{ listen: '{admin}', socket: admin.sock }}\n"),
            )
            .replace("shutdown_timeout: 0s", "shutdown_timeout: 60s")
            .replace(
                "listeners: [",
                &format!(
                    "listeners: [{{ name: slow, listen: '{other}', forward_to: '{}', accept_proxy: none }}, ",
                    slow.local_addr().unwrap()
                ),
            )
        };
        let mut alone = Alone::start(role, &yaml(2));
        for workers in [3, 1, 2] {
            alone.write(&yaml(workers));
            let mut client = connect(other);
            client.write_all(b"x").unwrap();
            let (mut answering, _) = slow.accept().unwrap();
            let done = std::sync::atomic::AtomicBool::new(false);
            let before = thread::scope(|scope| {
                let connecting = scope.spawn(|| {
                    let mut count = 0;
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        // At a core, a connection that its process had taken ends with that.
                        assert!(served(&connect(listen)) || role == "core", "nobody is refused");
                        count += 1;
                    }
                    count
                });
                let before = alone.begin_upgrade();
                done.store(true, std::sync::atomic::Ordering::Relaxed);
                assert!(connecting.join().unwrap() > 0);
                before
            });
            assert_eq!(alone.answers(), alone.id());
            let status = otproxy(&["status", "--json", "--url", &format!("http://{admin}")]).output().unwrap();
            let status: Value = serde_json::from_slice(&status.stdout).unwrap();
            assert_eq!(status["pid"], alone.id(), "the address is handed over, too");
            assert!(served(&connect(listen)));
            if role == "edge" && workers == 2 {
                before.signal(Signal::TERM);
                assert!(!served(&client), "it was told to end");
            } else if role == "edge" {
                answering.write_all(b"!").unwrap();
                drop(answering);
                assert!(served(&client), "it may end in its time");
            } else {
                assert!(!served(&client), "all stands still at a core, and so it ends");
            }
            drop(client);
            let (code, log) = before.end();
            assert_eq!(code, Some(0), "{log}");
        }
        alone.end();
    }
}

#[test]
fn the_one_that_runs_goes_on_wherever_the_other_ends() {
    run(async {
        let game = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = tunnel::free_address();
        let mut core = Alone::start("core", &sessions::yaml(listen, 2, &[game.local_addr().unwrap()]));
        let (mut link, mut game) = play(listen, &game, 7172, 1).await;
        let goes_on = "so this one goes on";
        let nobody = core.ask("nobody");
        assert!(nobody.starts_with("HTTP/1.1 503 ") && nobody.contains("cannot be reached"), "{nobody}");
        reaches(&mut game, &mut link).await;
        // It is gone at once; with the listening sockets; when it has bound its own; with everything, of which it says
        // nothing; and before its last word.
        for stage in 0..5 {
            let mut other = core.meet();
            if stage > 0 {
                assert_eq!(receive(&other).unwrap().listeners.len(), 2, "one for each worker");
            }
            if stage > 1 {
                other.write_all(b"+").unwrap();
            }
            if stage > 2 {
                let left = receive(&other).unwrap();
                assert_eq!((left.sockets.len(), left.state.is_empty()), (2, false));
            }
            if stage > 3 {
                other.write_all(b"+").unwrap();
                let mut word = [0];
                other.read_exact(&mut word).unwrap();
                assert_eq!(word, *b"Y");
            }
            drop(other);
            core.says(goes_on);
            reaches(&mut game, &mut link).await;
            assert_eq!(core.answers(), core.id());
        }
        // Something else than a word.
        let mut other = core.meet();
        receive(&other).unwrap();
        other.write_all(b"?").unwrap();
        core.says(goes_on);
        reaches(&mut game, &mut link).await;
        // Two at once.
        let held = core.meet();
        assert!(core.fails_to_upgrade(1).contains("another upgrade is under way"));
        drop(held);
        core.says(goes_on);
        core.upgraded();
        reaches(&mut game, &mut link).await;
    });
}

#[test]
fn what_cannot_take_over_says_why_and_changes_nothing() {
    run(async {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (listen, taken) = (tunnel::free_address(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let yaml = sessions::yaml(listen, 2, &[server.local_addr().unwrap()]);
        let mut core = Alone::start("core", &yaml);
        let (mut link, mut game) = play(listen, &server, 7172, 1).await;
        let more =
            format!("- {{ name: more, kind: relay, listen: '{}', accept_proxy: none }}\n", taken.local_addr().unwrap());
        let two = yaml.replace("listeners: [", "listeners:\n- ").replace("}]\n", &format!("}}\n{more}"));
        for (yaml, code, says) in [
            ("listeners: nonsense\n", 78, "listeners"),
            (&two, 1, "listener `more`: cannot listen on"),
            (&format!("{yaml}admin: {{ listen: off }}\n"), 1, "without `admin.socket` there is no way"),
            (
                &format!("{yaml}admin: {{ listen: off, socket: none.sock }}\n"),
                1,
                "if none does, start it with `otproxy core`",
            ),
        ] {
            core.write(yaml);
            let said = core.fails_to_upgrade(code);
            assert!(said.contains(says), "{said}");
            reaches(&mut game, &mut link).await;
        }
        let edge = "role: edge
admin: { listen: off, socket: admin.sock }
\
                    listeners: [{ name: a, listen: '127.0.0.1:0', forward_to: '127.0.0.1:9' }]
";
        fs::write(core.file(), edge).unwrap();
        let said = core.fails_to_upgrade(1);
        assert!(said.contains("this is the process of the core, and the file is that of the edge"), "{said}");
        reaches(&mut game, &mut link).await;
        // Nothing is left of them, and the next one takes over, at another socket.
        assert_eq!(core.sockets(), ["admin.sock"]);
        core.write(&format!("{yaml}admin: {{ listen: off, socket: other.sock }}\n"));
        let mut command = core.upgrade();
        command.arg("--socket").arg(core.socket());
        let (after, _) = Running::start(command);
        let (code, log) = core.running.replace(after).unwrap().end();
        assert_eq!(code, Some(0), "{log}");
        assert_eq!(core.sockets(), ["other.sock"]);
        reaches(&mut game, &mut link).await;
    });
}

#[test]
fn a_process_that_is_to_leave_nothing_leaves_nothing() {
    let listen = tunnel::free_address();
    let yaml = sessions::yaml(listen, 1, &[([127, 0, 0, 1], 9).into()]);
    let mut core = Alone::start("core", &format!("{yaml}restart: end\n"));
    core.write(&yaml);
    assert!(core.fails_to_upgrade(1).contains("its file says `restart: end`"));
    core.end();
    // Under a service manager its end would be that of the service.
    let mut core = Service::new("core");
    core.write(&yaml);
    let text = fs::read_to_string(core.file()).unwrap();
    fs::write(core.file(), text.replace("listen: off", "listen: off, socket: admin.sock")).unwrap();
    core.go();
    let command = || otproxy(&["upgrade", "-c", core.file().to_str().unwrap()]);
    let said = failed(&command().output().unwrap(), 1);
    assert!(said.contains("a service manager runs this process") && said.contains("systemctl restart"), "{said}");
    let mut managed = command();
    managed.env("NOTIFY_SOCKET", "/nonexistent");
    let said = failed(&managed.output().unwrap(), 1);
    assert!(said.contains("have the unit run `otproxy core`"), "{said}");
    core.end();
}

/// Plays the process that runs, up to the first word of the other one. Gives the other one, and the way to it.
async fn played(folder: &Folder, yaml: &str) -> (Running, Successor, std::net::TcpListener) {
    let file = folder.join("role.yaml");
    fs::write(&file, format!("role: core\nadmin: {{ listen: off, socket: admin.sock }}\n{yaml}")).unwrap();
    let admin = UnixListener::bind(folder.join("admin.sock")).unwrap();
    let other =
        Running::of(otproxy(&["upgrade", "-c", file.to_str().unwrap(), "--log-format", "json"]).spawn().unwrap());
    let (mut asks, _) = admin.accept().unwrap();
    asks.set_read_timeout(Some(HANG)).unwrap();
    let mut asked = String::new();
    while !asked.ends_with('}') {
        let mut some = [0; 1024];
        let length = asks.read(&mut some).unwrap();
        assert_ne!(length, 0, "{asked}");
        asked += std::str::from_utf8(&some[..length]).unwrap();
    }
    let (head, body) = asked.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /api/v1/upgrade "), "{head}");
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!((&body["role"], &body["takes_socket"]), (&"core".into(), &true.into()));
    let successor = Successor::at(&folder.join(body["place"].as_str().unwrap())).await.unwrap();
    let answer = r#"{"pid":1,"version":"0.0.0"}"#;
    write!(asks, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len()).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    successor.offer(b"", &[listener.as_fd()], &[admin.as_fd()]).unwrap();
    (other, successor, listener)
}

#[test]
fn one_that_does_not_understand_what_it_is_given_touches_nothing() {
    run(async {
        let game = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = tunnel::free_address();
        let yaml = sessions::yaml(listen, 1, &[game.local_addr().unwrap()]);
        let core = Alone::start("core", &yaml);
        let (mut link, mut game) = play(listen, &game, 7172, 1).await;
        // The state that a core really leaves.
        let mut other = core.meet();
        receive(&other).unwrap();
        other.write_all(b"+").unwrap();
        let left = receive(&other).unwrap();
        let copies: Vec<BorrowedFd<'_>> = left.sockets.iter().map(|socket| socket.as_fd()).collect();
        let mut newer = left.state.clone();
        newer[0] = 99;
        let cut = &left.state[..left.state.len() - 1];
        for (state, sockets, says) in [
            (&newer[..], &copies[..], "it is of format 99"),
            (cut, &copies, "it is damaged"),
            (b"", &copies, "it is damaged"),
            (&left.state, &copies[..1], "it is damaged"),
        ] {
            let folder = Folder::new();
            let (new, successor, _) = played(&folder, &yaml.replace(&listen.to_string(), "127.0.0.1:0")).await;
            successor.offer(state, &[], sockets).unwrap_err();
            let (code, log) = new.end();
            assert_eq!(code, Some(1), "{log}");
            assert!(log.contains(says) && log.contains("the process that runs goes on"), "{log}");
            assert!(folder.join("admin.sock").exists(), "it is not its own");
        }
        // It understands all of it, and then has no last word.
        let folder = Folder::new();
        let (new, successor, listener) = played(&folder, &yaml.replace(&listen.to_string(), "127.0.0.1:0")).await;
        successor.offer(&left.state, &[], &copies).unwrap();
        drop(successor);
        let (code, log) = new.end();
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains("the process that runs goes on") && !log.contains("goes on with"), "{log}");
        assert!(std::net::TcpStream::connect(listener.local_addr().unwrap()).is_ok());
        drop(other);
        reaches(&mut game, &mut link).await;
        assert!(folder.join("admin.sock").exists());
    });
}

//! Restarts under a service manager that keeps descriptors, which the test plays: connections that wait meanwhile are served.

use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::Signal;

use crate::common::folder::Folder;
use crate::common::process::{Running, otproxy, text, through};

/// The time after which something hangs.
const HANG: Duration = Duration::from_secs(60);

/// A service manager with a store.
struct Manager {
    socket: UnixDatagram,
    /// What it keeps, with the names.
    store: Vec<(String, OwnedFd)>,
    folder: Folder,
}

impl Manager {
    fn new() -> Self {
        let folder = Folder::new();
        let socket = UnixDatagram::bind(folder.join("notify")).unwrap();
        socket.set_read_timeout(Some(HANG)).unwrap();
        Self { socket, store: Vec::new(), folder }
    }

    fn file(&self, yaml: &str) -> PathBuf {
        let file = self.folder.join("role.yaml");
        std::fs::write(&file, yaml).unwrap();
        file
    }

    /// Starts a role, which gets what the store has: a descriptor at the most, as its stdin and as number 3.
    fn start(&mut self, role: &str, yaml: &str) -> (Running, String) {
        let file = self.file(yaml);
        let command = otproxy(&[role, "-c", file.to_str().unwrap(), "--log-format", "json"]);
        let mut command = match self.store.pop() {
            Some((name, descriptor)) => {
                let hand_over = "LISTEN_PID=$$ exec \"$0\" \"$@\" 3<&0 </dev/null";
                let mut command = through(command, "sh", &["-c", hand_over]);
                command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", name).stdin(descriptor);
                command
            }
            None => command,
        };
        Running::start(self.told(&mut command))
    }

    fn told(&self, command: &mut Command) -> Command {
        command.env("NOTIFY_SOCKET", self.folder.join("notify")).env("FDSTORE", "8");
        std::mem::replace(command, Command::new("false"))
    }

    /// Does what it is told, up to a message with these words, as systemd does.
    fn until(&mut self, what: &str) {
        loop {
            let (message, descriptors) = self.next();
            let name = message.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or_default();
            if message.contains("FDSTOREREMOVE=1") {
                self.store.retain(|(kept, _)| kept != name);
            } else if message.contains("FDSTORE=1") {
                assert!(message.contains("FDPOLL=0"), "{message}");
                self.store.extend(descriptors.into_iter().map(|descriptor| (name.to_owned(), descriptor)));
            }
            if message.contains(what) {
                return;
            }
        }
    }

    fn next(&self) -> (String, Vec<OwnedFd>) {
        let mut bytes = [0; 1024];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut beside, RecvFlags::CMSG_CLOEXEC).unwrap();
        let mut descriptors = Vec::new();
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = message {
                descriptors.extend(some);
            }
        }
        (text(&bytes[..received.bytes]), descriptors)
    }

    /// Ends a role that leaves something, and returns its log.
    fn end(&mut self, running: Running) -> String {
        running.signal(Signal::TERM);
        self.until("BARRIER=1");
        let (code, log) = running.end();
        assert_eq!(code, Some(0), "{log}");
        log
    }
}

/// Returns a server that answers each connection with one byte.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(b"!");
        }
    });
    address
}

/// Returns a free address, which the next process binds; one that no other test uses.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.77.1:0").unwrap().local_addr().unwrap()
}

fn yaml(role: &str, listen: SocketAddr, to: SocketAddr, more: &str) -> String {
    format!(
        "role: {role}\nname: test\nadmin: {{ listen: off }}\nshutdown_timeout: 0s\n{more}\
         listeners: [{{ name: login, listen: '{listen}', forward_to: '{to}', accept_proxy: none }}]\n"
    )
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("nobody is refused");
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream
}

fn served(mut stream: &TcpStream) -> bool {
    matches!(stream.read(&mut [0]), Ok(1))
}

#[test]
fn who_connects_while_a_role_restarts_is_served_by_the_next_process() {
    let target = server();
    for role in ["edge", "core"] {
        let (mut manager, listen) = (Manager::new(), free());
        let mut waiting = Vec::<TcpStream>::new();
        // One after the other: more workers, fewer of them, and again.
        for workers in [2, 3, 1, 2] {
            let (running, ready) = manager.start(role, &yaml(role, listen, target, &format!("workers: {workers}\n")));
            manager.until("READY=1");
            assert!(manager.store.is_empty(), "{ready}");
            assert!(waiting.iter().all(served), "{role} with {workers} workers");
            waiting = (0..20).map(|_| connect(listen)).collect();
            assert!(waiting.iter().all(served), "{role} with {workers} workers");

            let log = manager.end(running);
            assert!(log.contains("left to the next process"), "{log}");
            assert_eq!(manager.store.len(), 1);
            // No process is there.
            waiting = (0..20).map(|_| connect(listen)).collect();
        }
    }
}

#[test]
fn what_the_file_has_no_more_is_closed_and_what_is_told_to_end_is_not_kept() {
    let (target, mut manager) = (server(), Manager::new());
    let (before, after) = (free(), free());
    let (running, _) = manager.start("edge", &yaml("edge", before, target, "workers: 1\n"));
    manager.until("READY=1");
    manager.end(running);
    let (running, _) = manager.start("edge", &yaml("edge", after, target, "workers: 1\nrestart: end\n"));
    manager.until("READY=1");
    assert!(TcpStream::connect(before).is_err());
    assert!(served(&connect(after)));
    // Another process that binds the same port is still found, whatever this one has taken over.
    let file = manager.folder.join("other.yaml");
    std::fs::write(&file, yaml("edge", after, target, "")).unwrap();
    let other = otproxy(&["edge", "-c", file.to_str().unwrap()]).output().unwrap();
    assert!(text(&other.stderr).contains("another process listens there"), "{}", text(&other.stderr));
    running.signal(Signal::TERM);
    let (code, log) = running.end();
    assert_eq!((code, log.contains("left to the next process")), (Some(0), false), "{log}");
    assert!(manager.store.is_empty() && TcpStream::connect(after).is_err());
}

#[test]
fn a_descriptor_that_no_otproxy_has_left_ends_nothing() {
    let (target, mut manager, listen) = (server(), Manager::new(), free());
    for name in ["otproxy", "something else"] {
        // Its other end is closed, and nothing was written.
        let descriptor = std::os::unix::net::UnixStream::pair().unwrap().0.into();
        manager.store.push((name.to_owned(), descriptor));
        let (running, _) = manager.start("edge", &yaml("edge", listen, target, "restart: end\n"));
        manager.until("READY=1");
        assert!(served(&connect(listen)));
        running.signal(Signal::TERM);
        assert_eq!(running.end().0, Some(0));
    }
}

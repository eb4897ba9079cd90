//! Listening sockets over a restart: those who connect meanwhile are served.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;

use super::Service;
use crate::common::process::{otproxy, text};
use crate::common::{HANG, tunnel};

/// Returns a server that answers each connection with one byte.
pub fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(b"!");
        }
    });
    address
}

pub fn yaml(listen: SocketAddr, to: SocketAddr, more: &str) -> String {
    format!(
        "shutdown_timeout: 0s\n{more}\
         listeners: [{{ name: login, listen: '{listen}', forward_to: '{to}', accept_proxy: none }}]\n"
    )
}

pub fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("nobody is refused");
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream
}

pub fn served(mut stream: &TcpStream) -> bool {
    matches!(stream.read(&mut [0]), Ok(1))
}

#[test]
fn those_who_connect_while_a_role_restarts_are_served_by_the_next_process() {
    let target = server();
    for role in ["edge", "core"] {
        let (mut service, listen) = (Service::new(role), tunnel::free_address());
        let mut waiting = Vec::<TcpStream>::new();
        // One after the other: more workers, fewer of them, and again.
        for workers in [2, 3, 1, 2] {
            service.write(&yaml(listen, target, &format!("workers: {workers}\n")));
            service.go();
            service.manager.forgets();
            assert!(waiting.iter().all(served), "{role} with {workers} workers");
            waiting = (0..20).map(|_| connect(listen)).collect();
            assert!(waiting.iter().all(served), "{role} with {workers} workers");

            let log = service.end();
            assert!(log.contains("to the next process"), "{log}");
            assert_eq!(service.manager.kept(), ["otproxy"], "{log}");
            // No process is there.
            waiting = (0..20).map(|_| connect(listen)).collect();
        }
    }
}

#[test]
fn what_the_file_has_no_more_is_closed_and_what_is_told_to_end_is_not_kept() {
    let (target, mut service) = (server(), Service::new("edge"));
    let (before, after) = (tunnel::free_address(), tunnel::free_address());
    service.write(&yaml(before, target, "workers: 1\n"));
    service.go();
    service.end();
    service.write(&yaml(after, target, "workers: 1\nrestart: end\n"));
    service.go();
    assert!(TcpStream::connect(before).is_err());
    assert!(served(&connect(after)));
    // Another process that binds the same port is still found, whatever this one has taken over.
    let other = otproxy(&["edge", "-c", service.file().to_str().unwrap()]).output().unwrap();
    assert!(text(&other.stderr).contains("another process listens there"), "{}", text(&other.stderr));
    let log = service.end();
    assert!(!log.contains("to the next process"), "{log}");
    assert!(service.manager.kept().is_empty() && TcpStream::connect(after).is_err());
}

#[test]
fn a_descriptor_that_no_otproxy_has_left_ends_nothing() {
    let (target, mut service, listen) = (server(), Service::new("edge"), tunnel::free_address());
    for name in ["otproxy", "something else"] {
        // Its other end is closed, and nothing was written.
        service.manager.keep(name, UnixStream::pair().unwrap().0.into());
        service.write(&yaml(listen, target, "restart: end\n"));
        service.go();
        assert!(served(&connect(listen)));
        service.end();
        service.manager.forget();
    }
}

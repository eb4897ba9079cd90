//! The admin socket and the commands of a process that runs.

#[path = "common/mod.rs"]
mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use common::process::{Running, failed, otproxy, text, through};

/// A directory of a test, which is removed with it. Short, as the paths of sockets are.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("otproxy-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// Writes the file of an edge, whose `admin` has these keys too.
    fn edge(&self, admin: &str) -> String {
        let text = format!(
            "role: edge\nname: here\nadmin: {{ listen: '127.0.0.1:0', {admin} }}\nlog: {{ format: json }}\n\
             listeners: [{{ name: login, listen: '127.0.0.1:0', forward_to: [{{ address: '127.0.0.1:9', name: first }}] }}]\n"
        );
        fs::write(self.path("edge.yaml"), text).expect("writable file");
        self.path("edge.yaml")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What the socket answers to a GET.
fn get(socket: &str, path: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

#[test]
fn the_socket_is_there_for_its_user_and_group_and_goes_with_the_process() {
    let directory = Directory::new("socket");
    let file = directory.edge("socket: admin.sock");
    let socket = directory.path("admin.sock");
    // In a shell in which everybody may use new files.
    let command = through(otproxy(&["edge", "-c", &file]), "sh", &["-c", "umask 0; exec \"$@\"", "sh"]);
    let (running, ready) = Running::start(command);
    assert!(ready.contains(&format!("\"admin_socket\":\"{socket}\"")), "{ready}");
    let made = fs::symlink_metadata(&socket).expect("a socket");
    assert!(made.file_type().is_socket());
    assert_eq!(made.mode() & 0o7777, 0o660);
    assert!(get(&socket, "/ready").starts_with("HTTP/1.1 200 "));

    // One that lives keeps its place.
    let second = otproxy(&["edge", "-c", &file]).output().expect("the program starts");
    let error = failed(&second, 1);
    assert!(
        error.contains(&format!("admin.socket: cannot use {socket}: a process that runs answers there")),
        "{error}"
    );
    assert!(get(&socket, "/live").ends_with("live\n"));

    running.signal(Signal::TERM);
    assert_eq!(running.end().0, Some(0));
    assert!(!Path::new(&socket).exists());
}

#[test]
fn the_socket_of_a_dead_process_gives_way() {
    let directory = Directory::new("dead");
    let file = directory.edge("socket: admin.sock");
    let socket = directory.path("admin.sock");
    let (running, _) = Running::start(otproxy(&["edge", "-c", &file]));
    running.signal(Signal::KILL);
    running.end();
    assert!(Path::new(&socket).exists());
    let (running, _) = Running::start(otproxy(&["edge", "-c", &file]));
    assert!(get(&socket, "/live").ends_with("live\n"));
    running.signal(Signal::TERM);
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn under_systemd_it_is_in_the_directory_of_the_unit() {
    let directory = Directory::new("unit");
    let file = directory.edge("");
    let mut command = otproxy(&["edge", "-c", &file]);
    command.env("RUNTIME_DIRECTORY", &directory.0);
    let (running, ready) = Running::start(command);
    let socket = directory.path("admin.sock");
    assert!(ready.contains(&format!("\"admin_socket\":\"{socket}\"")), "{ready}");
    running.signal(Signal::TERM);
    assert_eq!(running.end().0, Some(0));
    // Elsewhere there is none.
    let mut command = otproxy(&["edge", "-c", &file]);
    command.env_remove("RUNTIME_DIRECTORY");
    let (_running, ready) = Running::start(command);
    assert!(ready.contains("\"admin_socket\":\"off\""), "{ready}");
}

#[test]
fn check_reads_the_tokens() {
    let directory = Directory::new("tokens");
    let file = directory.edge("token_file: token");
    let check = || otproxy(&["check", "-c", &file]).output().expect("the program starts");
    let error = failed(&check(), 78);
    assert!(error.starts_with(&format!("{file}: admin: {}: cannot be read: ", directory.path("token"))), "{error}");
    assert!(error.contains("make one: `(umask 077; openssl rand -hex 32 > "), "{error}");
    fs::write(directory.path("token"), "short").expect("writable file");
    assert!(failed(&check(), 78).contains("can be read or written by everybody"));
    let remedy = format!("umask 077; rm {0}; openssl rand -hex 32 > {0}", directory.path("token"));
    assert!(Command::new("sh").args(["-c", &remedy]).status().expect("a shell").success());
    let output = check();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

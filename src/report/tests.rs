//! The report beside what `lsof` itself prints.

use std::net::{TcpListener, TcpStream};
use std::process::Command;

use otproxy_config::RoleKind;

use super::hidden::Hidden;
use super::lsof;
use super::rows::rows;
use super::sockets::{own, process};

#[test]
fn it_is_what_lsof_itself_prints_of_this_process() {
    let listening = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("[::1]:0").unwrap()];
    let both = TcpListener::bind("[::]:0").unwrap();
    let mut held = Vec::new();
    for listener in &listening {
        for _ in 0..3 {
            held.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
            held.push(listener.accept().unwrap().0);
        }
    }
    held.push(TcpStream::connect(("127.0.0.1", both.local_addr().unwrap().port())).unwrap());
    held.push(both.accept().unwrap().0);
    // One side has ended.
    held.last().unwrap().shutdown(std::net::Shutdown::Write).unwrap();
    for listener in listening.iter().chain([&both]) {
        let port = listener.local_addr().unwrap().port();
        let pid = std::process::id().to_string();
        let asked = Command::new("lsof").args(["-nP", "-a", "-p", &pid, "-i", &format!("TCP:{port}")]).output();
        let Ok(printed) = asked else {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "lsof is missing: apt-get install lsof");
            eprintln!("skipped: the program lsof is missing (apt-get install lsof)");
            return;
        };
        let sockets = own().unwrap();
        let ours = lsof::print(&process(), &rows(&sockets, &[port], RoleKind::Edge), &Hidden::default());
        // The far ends of connections that this process made itself are the backend's.
        let hidden = |line: &str| match line.split_once("->") {
            Some((near, far)) if far.contains(&format!(":{port} ")) => {
                let host = if far.starts_with('[') { "[BACKEND_IP]" } else { "BACKEND_IP" };
                format!("{near}->{host}:{port} {}\n", far.rsplit(' ').next().unwrap())
            }
            _ => format!("{line}\n"),
        };
        let printed: String = String::from_utf8(printed.stdout).unwrap().lines().map(hidden).collect();
        assert_eq!(ours, printed);
    }
}

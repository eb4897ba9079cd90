//! Processes of a benchmark: starting them, and what they take.

#![allow(dead_code, reason = "no benchmark uses all of it")]

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// Processes, ended with this.
pub struct Started(pub Vec<Child>);

impl Drop for Started {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts a role of the program with this file.
pub fn role(program: &Path, role: &str, file: &Path) -> Child {
    let mut command = Command::new(program);
    command.args([role, "--log-level", "error", "-c"]).arg(file).stdout(Stdio::null());
    command.spawn().expect("it runs")
}

/// Returns a port that nobody has, and that no connection is given meanwhile: the kernel's own begin at 32768.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(21_000);
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Waits until somebody listens on a port. Nobody is connected to: a core would take that for an edge.
pub fn wait_for(port: u16) {
    let suffix = format!(":{port:04X}");
    for _ in 0..500 {
        let sockets = fs::read_to_string("/proc/net/tcp").expect("Linux");
        let listens = |line: &str| {
            let mut fields = line.split_whitespace().skip(1);
            fields.next().is_some_and(|local| local.ends_with(&suffix)) && fields.nth(1) == Some("0A")
        };
        if sockets.lines().any(listens) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("nobody listens on port {port}");
}

/// Returns the processor time of processes, in seconds.
pub fn cpu(processes: &Started) -> f64 {
    let of_one = |child: &Child| {
        let text = fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("it runs");
        let fields: Vec<f64> =
            text.rsplit_once(')').unwrap().1.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
        // What `proc` shows is in hundredths of a second.
        (fields[11] + fields[12]) / 100.0
    };
    processes.0.iter().map(of_one).sum()
}

/// Returns the resident memory of a process, in MiB.
pub fn memory(child: &Child) -> f64 {
    let text = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").trim().parse::<f64>().expect("KiB") / 1024.0
}

/// Returns the number of open files of a process.
pub fn descriptors(child: &Child) -> usize {
    fs::read_dir(format!("/proc/{}/fd", child.id())).expect("it runs").count()
}

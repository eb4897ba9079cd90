//! A core or an edge as a process of its own, and what the system tells of it.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, prlimit, setrlimit};

use super::folder::Folder;
use super::metrics::{LOOK, Metered};
use super::process::{Log, Running, otproxy, through};

/// The name of its file.
const YAML: &str = "role.yaml";

pub const KIB: usize = 1024;
pub const MIB: usize = 1024 * KIB;

/// Listens on free ports of loopback, with one worker and an admin address.
pub struct RoleProcess {
    running: Running,
    addresses: HashMap<String, SocketAddr>,
    admin: SocketAddr,
    log: Log,
    folder: Folder,
}

impl RoleProcess {
    /// Starts a role with this YAML, its `role` aside.
    pub fn with(role: &str, yaml: &str) -> Self {
        Self::start(role, yaml, |command| command)
    }

    /// Starts a core with this YAML, its `role` aside. Every address of loopback is an edge.
    pub fn core(yaml: &str) -> Self {
        Self::start("core", &core(yaml), |command| command)
    }

    /// Starts an edge with this YAML, its `role` aside.
    pub fn edge(yaml: &str) -> Self {
        Self::start("edge", yaml, |command| command)
    }

    /// Starts a core that may have so many files open.
    pub fn core_with_files(yaml: &str, files: u32) -> Self {
        Self::start("core", &core(yaml), |command| with_files(command, files))
    }

    /// Starts an edge that may have so many files open.
    pub fn edge_with_files(yaml: &str, files: u32) -> Self {
        Self::start("edge", yaml, |command| with_files(command, files))
    }

    /// Starts a core by another program, which gets its command behind its own arguments.
    pub fn core_through(yaml: &str, program: &str, arguments: &[&str]) -> Self {
        Self::start("core", &core(yaml), |command| through(command, program, arguments))
    }

    fn start(role: &str, yaml: &str, started_by: impl FnOnce(Command) -> Command) -> Self {
        let folder = Folder::new();
        let socket = folder.join("admin.sock");
        let text = format!(
            "role: {role}\nname: test\nworkers: 1\nshutdown_timeout: 0s\n\
             admin: {{ listen: '127.0.0.1:0', socket: '{}' }}\n{yaml}",
            socket.display()
        );
        let file = folder.join(YAML);
        fs::write(&file, text).unwrap();
        let arguments = [role, "-c", file.to_str().unwrap(), "--log-format", "json"];
        let (mut running, ready) = Running::start(started_by(otproxy(&arguments)));
        let ready: serde_yaml::Value = serde_yaml::from_str(&ready).unwrap();
        let listeners = ready["listeners"].as_str().unwrap().split(", ");
        // One that is reached through the tunnel alone has none.
        let addresses = listeners.filter_map(|listener| listener.split_once(' '));
        let addresses = addresses.map(|(name, address)| (name.to_owned(), address.parse().unwrap()));
        let addresses = addresses.collect();
        let admin = ready["admin"].as_str().unwrap().parse().unwrap();
        let log = running.follow();
        Self { running, addresses, admin, log, folder }
    }

    pub fn addr(&self, listener: &str) -> SocketAddr {
        self.addresses[listener]
    }

    /// Returns its file.
    pub fn file(&self) -> String {
        self.folder.join(YAML).to_str().unwrap().to_owned()
    }

    /// Returns its admin socket.
    pub fn socket(&self) -> String {
        self.folder.join("admin.sock").to_str().unwrap().to_owned()
    }

    /// Sets how many files it may have open from now on.
    pub fn limit_files(&self, files: u64) {
        prlimit(Some(self.running.pid()), Resource::Nofile, Rlimit { current: Some(files), maximum: Some(files) })
            .unwrap();
    }

    /// Returns the resident memory now, in bytes.
    pub fn memory(&self) -> usize {
        self.status("VmRSS")
    }

    /// Returns the most resident memory since [`RoleProcess::forget_peak`], in bytes.
    pub fn peak(&self) -> usize {
        self.status("VmHWM")
    }

    /// Counts the peak from now on.
    pub fn forget_peak(&self) {
        fs::write(self.proc("clear_refs"), "5").unwrap();
    }

    fn status(&self, key: &str) -> usize {
        let text = fs::read_to_string(self.proc("status")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
        line.trim().strip_suffix(" kB").unwrap().trim().parse::<usize>().unwrap() * KIB
    }

    /// Returns the number of open descriptors now.
    pub fn descriptors(&self) -> usize {
        self.running.descriptors()
    }

    /// Returns the number of descriptors that it may still open, of those below `limit`. Inherited ones can be beyond that.
    pub fn free_descriptors(&self, limit: u64) -> usize {
        let numbers = fs::read_dir(self.proc("fd")).unwrap().map(|file| file.unwrap().file_name());
        let numbers = numbers.map(|name| name.to_str().unwrap().parse::<u64>().unwrap());
        limit as usize - numbers.filter(|number| *number < limit).count()
    }

    /// Waits until it has so many descriptors.
    pub async fn wait_for_descriptors(&self, condition: impl Fn(usize) -> bool) {
        while !condition(self.descriptors()) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Returns the processor time used so far.
    pub fn cpu(&self) -> Duration {
        let text = fs::read_to_string(self.proc("stat")).unwrap();
        let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        // What `proc` shows is in hundredths of a second, whatever the kernel counts in.
        Duration::from_millis(ticks * 10)
    }

    fn proc(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.running.id())
    }

    /// Replaces `from` by `to` in its file, and has it read that again.
    pub fn reload(&self, from: &str, to: &str) {
        let file = self.folder.join(YAML);
        let yaml = fs::read_to_string(&file).unwrap();
        assert!(yaml.contains(from), "{yaml}");
        fs::write(&file, yaml.replace(from, to)).unwrap();
        self.running.signal(Signal::HUP);
    }

    /// Returns its log so far, `ready` aside.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Waits until it has logged so many lines with that.
    pub async fn wait_for_lines(&self, what: &str, count: usize) {
        while self.log().lines().filter(|line| line.contains(what)).count() < count {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits for a line in the log.
    pub async fn wait_for_line(&self, what: &str) {
        while !self.log.text().contains(what) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends it as an operator does. It must have met no defect.
    pub async fn stop(self) {
        assert_eq!(self.metric("otproxy_panics_total", &[]).await, 0.0);
        self.running.signal(Signal::TERM);
        assert_eq!(self.running.end().0, Some(0), "{}", self.log.text());
    }
}

impl Metered for RoleProcess {
    fn admin(&self) -> SocketAddr {
        self.admin
    }
}

/// Returns a command that may have so many files open. The limit must hold before the program starts, and setting it in a child
/// of this process takes code that is not safe: a shell does it.
fn with_files(command: Command, files: u32) -> Command {
    through(command, "sh", &["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\"")])
}

fn core(yaml: &str) -> String {
    format!("edges: [{{ name: a, address: 127.0.0.0/8 }}]\n{yaml}")
}

/// Returns whether this process may open `files` files, after raising its own limit if it can. If it may
/// not, a test has nothing to do and says so; in CI, which sets `CI=true`, it fails.
pub fn may_open(files: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    if current.is_none_or(|current| current >= files) {
        return true;
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "`ulimit -Hn` must be {files}, and is {current:?}");
    eprintln!("skipped: it takes {files} open files, and `ulimit -Hn` is {current:?}");
    false
}

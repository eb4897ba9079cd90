//! A host: a network namespace, and what runs in it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Protocol, Socket, Type};

/// What the namespaces of all runs are called, before the id of the process that made them.
const PREFIX: &str = "otproxy";

/// Whether hosts can be made here. Where the machine does not allow it, which no installing mends, a
/// test has nothing to do and says so. In CI, which sets `CI=true`, the program it takes must be there; and where `.ci/run`
/// found that the machine allows it, it sets `OTPROXY_NETWORKS=must`, and a test fails rather than do nothing.
pub fn can_be_made() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(try_to_make)
}

fn try_to_make() -> bool {
    let in_ci = std::env::var("CI").as_deref() == Ok("true");
    assert!(!in_ci || Command::new("ip").arg("-V").output().is_ok(), "ip is missing: apt-get install iproute2");
    let tun = || OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    let missing = if !geteuid().is_root() {
        "root's privileges are missing".to_owned()
    } else if let Err(error) = tun() {
        format!("/dev/net/tun cannot be opened: {error}")
    } else if let Err(error) = ip(&["netns", "add", &name("probe")]) {
        format!("no network namespace can be made (apt-get install iproute2): {error}")
    } else {
        drop(Host { namespace: name("probe") });
        return true;
    };
    assert_ne!(std::env::var("OTPROXY_NETWORKS").as_deref(), Ok("must"), "{missing}");
    eprintln!("skipped: {missing}");
    false
}

/// Whether there is nft. Where it is missing, a test has nothing to do; in CI it fails.
pub fn nft_is_here() -> bool {
    let Err(error) = Command::new("nft").arg("-v").output() else { return true };
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "nft is missing: apt-get install nftables");
    eprintln!("skipped: nft cannot be run (apt-get install nftables): {error}");
    false
}

/// Removes what runs that were killed have left behind.
pub fn remove_leftovers() {
    let Ok(list) = ip(&["netns", "list"]) else { return };
    for namespace in list.lines().filter_map(|line| line.split(' ').next()) {
        let mut parts = namespace.split('-');
        if parts.next() == Some(PREFIX)
            && let Some(Ok(process)) = parts.next().map(str::parse::<u32>)
            && !Path::new(&format!("/proc/{process}")).exists()
        {
            drop(Host { namespace: namespace.to_owned() });
        }
    }
}

fn name(host: &str) -> String {
    format!("{PREFIX}-{}-{host}", std::process::id())
}

/// Runs `ip`; gives what it prints.
fn ip(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

/// A host. Dropping it ends what runs on it.
#[derive(Debug)]
pub struct Host {
    namespace: String,
}

impl Host {
    /// A host with nothing but loopback. `name` is unique in this process.
    pub fn make(name: &str) -> Self {
        let namespace = self::name(name);
        ip(&["netns", "add", &namespace]).unwrap();
        let host = Self { namespace };
        host.ip("link set lo up\n");
        host
    }

    /// Joins it to another host by a line, whose ends are named by who is at the other one.
    pub fn join(&self, name: &str, other: &Host, other_name: &str) {
        let there = &other.namespace;
        self.ip(&format!("link add to-{other_name} type veth peer name to-{name} netns {there}\n"));
        self.ip(&format!("link set to-{other_name} up\n"));
        other.ip(&format!("link set to-{name} up\n"));
    }

    /// Runs commands of `ip` on it, one on each line.
    pub fn ip(&self, commands: &str) {
        let mut child =
            Command::new("ip").args(["-n", &self.namespace, "-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{}: {commands}", self.namespace);
    }

    /// Loads rules of nftables on it.
    pub fn load_rules(&self, rules: &str) {
        self.inside(|| {
            let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
            child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
            assert!(child.wait().unwrap().success(), "{rules}");
        });
    }

    /// Sets a variable of its kernel, by its path under `/proc/sys`.
    pub fn set(&self, variable: &str, value: &str) {
        self.inside(|| std::fs::write(Path::new("/proc/sys").join(variable), value).unwrap());
    }

    /// Has its kernel forget all connections that rules with `ct state`, or masquerading, have it follow.
    pub fn forget_connections(&self) {
        const REQUEST_AND_ACK: u16 = 1 | 4;
        // The subsystem 1 is the table of connections, and its message 2 deletes: without a further word, all.
        let kind = 1 << 8 | 2_u16;
        let mut message = Vec::from(20_u32.to_ne_bytes());
        message.extend([kind.to_ne_bytes(), REQUEST_AND_ACK.to_ne_bytes()].concat());
        // A number, the sender, and the header of the subsystem: any family.
        message.extend([0; 12]);
        let answer = self.inside(|| {
            let (netlink, netfilter) = (Domain::from(16), Protocol::from(12));
            let mut socket = Socket::new(netlink, Type::from(3), Some(netfilter)).unwrap();
            socket.send(&message).unwrap();
            let mut answer = [0; 64];
            let count = socket.read(&mut answer).unwrap();
            answer[..count].to_vec()
        });
        assert_eq!(answer.get(16..20), Some(&[0; 4][..]), "an error of the kernel: {answer:?}");
    }

    /// What moves the thread that calls it to this host.
    pub fn entrance(&self) -> impl FnOnce() + Send + use<> {
        let file = File::open(format!("/var/run/netns/{}", self.namespace)).unwrap();
        move || move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap()
    }

    /// Runs `f` on it, on a thread of its own; processes and threads that it starts are there too.
    pub fn inside<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let enter = self.entrance();
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter();
                f()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Only what this host was made for runs on it.
        for pid in ip(&["netns", "pids", &self.namespace]).unwrap_or_default().split_whitespace() {
            if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw)
                && pid != rustix::process::getpid()
            {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let _ = ip(&["netns", "del", &self.namespace]);
    }
}

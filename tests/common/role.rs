//! An edge or a core in this process, from YAML as an operator writes it: what is not said is as it ships.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use otproxy::admission::Bans;
use otproxy::roles::{self, Control, ReloadError, ReloadResult};
use otproxy_config as config;
use otproxy_config::Config;
use otproxy_testkit::role::RunningRole;

use super::metrics::Metered;

/// The keys that tests leave out most often, as they are then.
const REST: [(&str, &str); 3] =
    [("name", "test"), ("workers", "2"), ("admin", "{ listen: \"127.0.0.1:0\", socket: SOCKET }")];

/// A role that runs on a thread of its own. Dropping it shuts it down.
pub struct Role {
    yaml: String,
    /// The socket that it has if the YAML says nothing of one.
    socket: PathBuf,
    running: RunningRole,
    control: Control,
    bans: Arc<Bans>,
}

impl Role {
    /// Starts an edge with these `listeners` (the YAML of the list).
    pub fn edge(listeners: &str) -> Self {
        Self::start(&format!("role: edge\nlisteners: {listeners}\n"))
    }

    /// Starts a core with this YAML, its `role` aside.
    pub fn core(yaml: &str) -> Self {
        Self::start(&format!("role: core\n{yaml}\n"))
    }

    /// Starts the role of this YAML. Unless it says otherwise, it has two workers, a free port for admin and a socket of
    /// its own.
    pub fn start(yaml: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("otproxy-role-{}-{}.sock", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let socket = std::env::temp_dir().join(name);
        let service = roles::bind(parsed(yaml, &socket)).expect("a role that can start");
        let (control, bans) = (service.control(), Arc::clone(service.bans()));
        let running = RunningRole::start("role", service).expect("a thread");
        Self { yaml: yaml.to_owned(), socket, running, control, bans }
    }

    /// Returns the first address of a listener.
    #[track_caller]
    pub fn addr(&self, listener: &str) -> SocketAddr {
        *self.addrs(listener).first().unwrap_or_else(|| panic!("no {listener}"))
    }

    /// Returns all addresses of a listener.
    pub fn addrs(&self, listener: &str) -> &[SocketAddr] {
        self.running.addresses(listener)
    }

    /// Returns the addresses that a listener has now; none if there is no such listener.
    pub fn addrs_now(&self, listener: &str) -> Vec<SocketAddr> {
        let now = self.control.addresses().into_iter().find(|(name, _)| name == listener);
        now.map(|(_, addrs)| addrs).unwrap_or_default()
    }

    /// Changes it while it runs to what this YAML says, completed as that which it was started with.
    pub async fn reload(&self, yaml: &str) -> Result<ReloadResult, ReloadError> {
        let (control, config) = (self.control.clone(), parsed(yaml, &self.socket));
        // Tasks that begin with a reload are to end with the role, and not with the test's runtime.
        self.running.runtime().spawn(async move { control.reload_with(config).await }).await.expect("the role runs")
    }

    /// Changes it while it runs to what it was started with, but with `from` replaced by `to`.
    pub async fn replace(&self, from: &str, to: &str) {
        assert!(self.yaml.contains(from), "{}", self.yaml);
        self.reload(&self.yaml.replace(from, to)).await.unwrap();
    }

    /// Returns what changes it while it runs.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Returns the socket at which it is steered.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Returns the bans.
    pub fn bans(&self) -> &Bans {
        &self.bans
    }

    /// Asks it to shut down, and does not wait.
    pub fn shut_down(&self) {
        self.running.shut_down();
    }

    /// Drops it while it runs, without a shutdown.
    pub fn abort(&self) {
        self.running.abort();
    }

    /// Waits for its end, and returns what running it ended with.
    pub async fn ended(self) -> io::Result<()> {
        self.running.ended().await
    }

    /// Shuts it down and waits for its end. Returns the YAML that it was started with.
    pub async fn stop(self) -> String {
        self.running.stop().await.expect("a clean end");
        self.yaml
    }

    /// Closes `connections`, shuts it down and waits for its end.
    pub async fn stop_after<T>(self, connections: T) {
        drop(connections);
        self.stop().await;
    }
}

impl Metered for Role {
    fn admin(&self) -> SocketAddr {
        self.running.admin().expect("an admin address")
    }
}

impl AsRef<Self> for Role {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// Parses a configuration, completed by the keys of [`REST`] that it lacks.
fn parsed(yaml: &str, socket: &Path) -> Config {
    let mut text = format!("{yaml}\n");
    for (key, value) in REST {
        if !yaml.lines().any(|line| line.split_once(':').is_some_and(|(before, _)| before == key)) {
            text += &format!("{key}: {}\n", value.replace("SOCKET", &socket.display().to_string()));
        }
    }
    config::parse("test.yaml", &text).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

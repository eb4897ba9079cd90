//! An authority, a core and edges with a tunnel between them, on loopback.

use std::net::SocketAddr;

use otproxy::config::{self, Config};
use otproxy::roles::{self, Control, Service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use crate::common::certificates::Certificates;
use crate::common::metrics;

/// A core or an edge that runs.
pub struct Process {
    yaml: String,
    addresses: Vec<(String, Vec<SocketAddr>)>,
    admin: SocketAddr,
    control: Control,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Process {
    /// Starts what this YAML says, `role: core` or `role: edge`.
    pub fn start(yaml: &str) -> Self {
        let yaml = format!("{yaml}\nworkers: 2\nshutdown_timeout: 0s\nadmin: {{ listen: \"127.0.0.1:0\" }}\n");
        let service = bind(&yaml);
        let addresses = service.listeners().map(|(name, addresses)| (name.to_owned(), addresses.to_vec())).collect();
        let (admin, control) = (service.admin_address().unwrap(), service.control());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(service.run(async { drop(stopped.await) }));
        Self { yaml, addresses, admin, control, stop, task }
    }

    pub fn addr(&self, listener: &str) -> SocketAddr {
        self.addresses.iter().find(|(name, _)| name == listener).unwrap_or_else(|| panic!("no {listener}")).1[0]
    }

    /// Reloads its YAML with `from` replaced by `to`.
    pub async fn reload(&self, from: &str, to: &str) {
        assert!(self.yaml.contains(from), "{}", self.yaml);
        let yaml = self.yaml.replace(from, to);
        let config = config::parse("reloaded.yaml", &yaml).unwrap_or_else(|e| panic!("{e}"));
        self.control.reload_with(config).await.unwrap();
    }

    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        metrics::metric(self.admin, name, labels).await
    }

    pub async fn wait(&self, name: &str, labels: &[&str], condition: impl Fn(f64) -> bool) -> f64 {
        metrics::wait_until(self.admin, name, labels, condition).await
    }

    /// Waits until so many spare connections are there.
    pub async fn spares(&self, edge: &str, count: usize) {
        let edge = format!("edge=\"{edge}\"");
        self.wait("otproxy_tunnel_connections", &[&edge, "state=\"spare\""], |now| now == count as f64).await;
    }

    /// How many handshakes ended so.
    pub async fn handshakes_so_far(&self, result: &str) -> usize {
        self.metric("otproxy_tunnel_handshakes_total", &[&format!("result=\"{result}\"")]).await as usize
    }

    /// Waits until handshakes ended so, so many times.
    pub async fn handshakes(&self, result: &str, count: usize) {
        let result = format!("result=\"{result}\"");
        self.wait("otproxy_tunnel_handshakes_total", &[&result], |now| now >= count as f64).await;
    }

    /// Closes all and ends; gives its YAML, to be started again.
    pub async fn kill(self) -> String {
        let _ = self.stop.send(());
        self.task.await.unwrap().unwrap();
        let own = self.yaml.find("\nworkers: 2\n").unwrap();
        self.yaml[..own].to_owned()
    }
}

fn bind(yaml: &str) -> Service {
    match config::parse("test.yaml", yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}")) {
        Config::Core(core) => roles::core::bind(core).unwrap(),
        Config::Edge(edge) => roles::edge::bind(edge).unwrap(),
    }
}

/// A core that edges connect to; `edges` and `listeners` are YAML lists.
pub fn core(certificates: &Certificates, edges: &str, listeners: &str, more: &str) -> String {
    format!(
        "role: core\ntunnel: {{ accept: \"127.0.0.1:0\", tls: {}, spare: 3 }}\nedges: {edges}\nlisteners: {listeners}\n{more}",
        certificates.tls("core")
    )
}

/// An edge that connects to a core; `listeners` is a YAML list.
pub fn edge(certificates: &Certificates, name: &str, core: SocketAddr, listeners: &str) -> String {
    format!(
        "role: edge\ncore: {{ dial: \"{core}\", tls: {}, spare: 3 }}\nlisteners: {listeners}\n",
        certificates.tls(name)
    )
}

/// An edge that the core connects to.
pub fn edge_dialled(certificates: &Certificates, name: &str, accept: &str, listeners: &str) -> String {
    format!("role: edge\ncore: {{ accept: \"{accept}\", tls: {} }}\nlisteners: {listeners}\n", certificates.tls(name))
}

/// An address on loopback that nobody has, until somebody takes it.
pub fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A player who is told that there is nobody to play with. He may be told before he knows that he is connected.
pub async fn in_vain(edge: SocketAddr) {
    if let Ok(mut player) = TcpStream::connect(edge).await {
        let _ = player.write_all(b"password").await;
        assert_eq!(player.read(&mut [0]).await.unwrap_or(0), 0);
    }
}

//! An authority, a core and edges with a tunnel between them, on loopback.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub use super::certificates::Certificates;
pub use super::metrics::Metered;
pub use super::role::Role;

/// A role at an end of the tunnel.
pub trait TunnelEnd: Metered {
    /// Waits until so many trunks are there.
    async fn trunks(&self, edge: &str, count: usize) {
        let edge = format!("edge=\"{edge}\"");
        self.wait_until("otproxy_tunnel_trunks", &[&edge], |now| now == count as f64).await;
    }

    /// Waits until so many streams are there.
    async fn streams(&self, count: usize) {
        self.wait_until("otproxy_tunnel_streams", &[], |now| now == count as f64).await;
    }

    /// Returns the number of handshakes that ended so.
    async fn handshakes_so_far(&self, result: &str) -> usize {
        self.metric("otproxy_tunnel_handshakes_total", &[&format!("result=\"{result}\"")]).await as usize
    }

    /// Waits until handshakes ended so, so many times.
    async fn handshakes(&self, result: &str, count: usize) {
        let result = format!("result=\"{result}\"");
        self.wait_until("otproxy_tunnel_handshakes_total", &[&result], |now| now >= count as f64).await;
    }
}

impl TunnelEnd for Role {}

/// Returns the YAML of a core that edges connect to; `edges` and `listeners` are YAML lists.
pub fn core(certificates: &Certificates, edges: &str, listeners: &str, more: &str) -> String {
    format!(
        "role: core\nworkers: 2\nshutdown_timeout: 0s\ntunnel: {{ accept: \"127.0.0.1:0\", tls: {} }}\nedges: {edges}\nlisteners: {listeners}\n{more}",
        certificates.tls("core")
    )
}

/// Returns the YAML of an edge that connects to a core; `listeners` is a YAML list.
pub fn edge(certificates: &Certificates, name: &str, core: SocketAddr, listeners: &str) -> String {
    format!(
        "role: edge\nworkers: 2\nshutdown_timeout: 0s\ncore: {{ dial: \"{core}\", tls: {} }}\nlisteners: {listeners}\n",
        certificates.tls(name)
    )
}

/// Returns the YAML of an edge that the core connects to.
pub fn edge_dialled(certificates: &Certificates, name: &str, accept: &str, listeners: &str) -> String {
    format!(
        "role: edge\nworkers: 2\nshutdown_timeout: 0s\ncore: {{ accept: \"{accept}\", tls: {} }}\nlisteners: {listeners}\n",
        certificates.tls(name)
    )
}

/// Returns an address on loopback that nobody has, until it is taken. Its host is nobody else's: at 127.0.0.1 the kernel could give
/// the port to a connection meanwhile.
pub fn free_address() -> SocketAddr {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let (process, count) = (std::process::id() % (50 * 250), COUNT.fetch_add(1, Ordering::Relaxed) % 250);
    let host = format!("127.{}.{}.{}:0", 200 + process / 250, 1 + process % 250, 1 + count);
    std::net::TcpListener::bind(host).unwrap().local_addr().unwrap()
}

/// Connects as a player who is told that there is nobody to play with, perhaps before he knows that he is connected.
pub async fn in_vain(edge: SocketAddr) {
    if let Ok(mut player) = TcpStream::connect(edge).await {
        let _ = player.write_all(b"password").await;
        assert_eq!(player.read(&mut [0]).await.unwrap_or(0), 0);
    }
}

/// Connects a player at a listener of an edge, and returns the connection behind him too.
pub async fn stream(edge: &Role, listener: &str, target: &TcpListener) -> (TcpStream, TcpStream) {
    let mut player = TcpStream::connect(edge.addr(listener)).await.unwrap();
    player.write_all(b"0").await.unwrap();
    let mut behind = target.accept().await.unwrap().0;
    assert_eq!(behind.read_u8().await.unwrap(), b'0');
    (player, behind)
}

/// Passes a byte each way.
pub async fn goes_on((player, behind): &mut (TcpStream, TcpStream)) {
    player.write_all(b"1").await.unwrap();
    assert_eq!(behind.read_u8().await.unwrap(), b'1');
    behind.write_all(b"2").await.unwrap();
    assert_eq!(player.read_u8().await.unwrap(), b'2');
}

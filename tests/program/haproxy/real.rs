//! The real HAProxy, as Debian packages it, for the tests that stand beside it.

use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};

use tokio::net::{TcpListener, TcpStream};

use crate::common::eventually;
use crate::common::folder::Folder;

/// Ports of this address are for HAProxy alone: they are chosen free, and bound a moment later.
const HOST: &str = "127.0.0.50";

/// Whether HAProxy is there. Where it is not, a test has nothing to do and says so; in CI, which
/// sets `CI=true`, it fails.
pub fn is_here() -> bool {
    let found = Command::new("haproxy").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return true;
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "haproxy is missing: apt-get install haproxy");
    eprintln!("skipped: the program haproxy is missing (apt-get install haproxy)");
    false
}

/// A running HAProxy. Dropping it ends it.
pub struct HaProxy {
    child: Child,
    folder: Folder,
    addresses: Vec<SocketAddr>,
}

impl HaProxy {
    /// Starts HAProxy on `count` free addresses, which `config` writes its `listen` sections with:
    /// the defaults are there already.
    pub async fn start(count: usize, config: impl Fn(&[SocketAddr]) -> String) -> Self {
        eventually("haproxy runs", async || Self::try_start(count, &config).await).await
    }

    /// The addresses, as `config` got them.
    pub fn addr(&self, index: usize) -> SocketAddr {
        self.addresses[index]
    }

    /// `None` where another process was quicker to take a port.
    async fn try_start(count: usize, config: impl Fn(&[SocketAddr]) -> String) -> Option<Self> {
        let mut held = Vec::new();
        for _ in 0..count + 1 {
            held.push(TcpListener::bind((HOST, 0)).await.unwrap());
        }
        let mut addresses: Vec<_> = held.iter().map(|listener| listener.local_addr().unwrap()).collect();
        drop(held);
        let ready = addresses.pop().unwrap();
        let folder = Folder::new();
        let file = folder.join("haproxy.cfg");
        // It binds all addresses before it serves any: the last one tells that all are there, and no
        // connection of ours goes where a test would see it.
        let text = format!(
            "global\n  maxconn 500\n  nbthread 1\n\
             defaults\n  mode tcp\n  timeout connect 10s\n  timeout client 60s\n  timeout server 60s\n\
             {}\n\
             frontend ready\n  mode http\n  bind {ready}\n  http-request return status 200\n",
            config(&addresses)
        );
        std::fs::write(&file, &text).unwrap();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let child =
            Command::new("haproxy").args(["-db", "-f"]).arg(&file).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut haproxy = Self { child, folder, addresses };
        let status = eventually("haproxy listens", async || match haproxy.exited() {
            Some(status) => Some(Err(status)),
            None => TcpStream::connect(ready).await.is_ok().then_some(Ok(())),
        })
        .await;
        let log = std::fs::read_to_string(haproxy.folder.join("log")).unwrap();
        match status {
            Ok(()) => Some(haproxy),
            Err(_) if log.contains("cannot bind socket") => None,
            Err(status) => panic!("haproxy: {status}\n{log}\n{text}"),
        }
    }

    /// What it has logged to stderr so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap()
    }

    fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

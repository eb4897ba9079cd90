//! The model core on real sockets: any number of paths on 127.0.0.1, each of which can be cut off
//! and brought back.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::player::model_core::{Conn, ModelCore};

#[derive(Clone)]
struct Shared {
    core: Arc<Mutex<ModelCore>>,
    conns: Arc<Mutex<usize>>,
    /// Counts changes: each link looks for output after each.
    changed: watch::Sender<u64>,
}

pub struct FakeCore {
    shared: Shared,
}

/// One way to the core.
pub struct FakePath {
    pub addr: SocketAddr,
    shared: Shared,
    stop: Arc<Notify>,
    task: JoinHandle<()>,
}

impl FakeCore {
    pub fn new(echo: bool) -> Self {
        let shared = Shared {
            core: Arc::new(Mutex::new(ModelCore::new(echo))),
            conns: Arc::default(),
            changed: watch::channel(0).0,
        };
        Self { shared }
    }

    pub fn path(&self) -> FakePath {
        FakePath::listen("127.0.0.1:0".parse().unwrap(), self.shared.clone())
    }

    pub fn lock(&self) -> MutexGuard<'_, ModelCore> {
        self.shared.core.lock().unwrap()
    }

    /// Does something to the core, and lets the links write what came of it.
    pub fn with<T>(&self, action: impl FnOnce(&mut ModelCore) -> T) -> T {
        let result = action(&mut self.lock());
        self.shared.changed.send_modify(|changes| *changes += 1);
        result
    }

    /// Waits until the core satisfies a condition.
    pub async fn wait_until(&self, condition: impl Fn(&ModelCore) -> bool) {
        let mut changed = self.shared.changed.subscribe();
        while !condition(&self.lock()) {
            changed.changed().await.unwrap();
        }
    }
}

impl FakePath {
    fn listen(addr: SocketAddr, shared: Shared) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(addr).unwrap();
        let listener = socket.listen(64).unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = Arc::new(Notify::new());
        let task = tokio::spawn(accept(listener, shared.clone(), stop.clone()));
        Self { addr, shared, stop, task }
    }

    /// Cuts the path off: listener and connections are gone when this returns.
    pub async fn cut(self) -> CutPath {
        self.stop.notify_one();
        self.task.await.unwrap();
        CutPath { addr: self.addr, shared: self.shared }
    }
}

/// A path that is down.
pub struct CutPath {
    addr: SocketAddr,
    shared: Shared,
}

impl CutPath {
    pub fn restore(self) -> FakePath {
        FakePath::listen(self.addr, self.shared)
    }
}

async fn accept(listener: TcpListener, shared: Shared, stop: Arc<Notify>) {
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.notified() => break,
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                links.spawn(link(stream, shared.clone()));
            }
        }
    }
    links.shutdown().await;
}

/// Forgets the connection even where its task is aborted.
struct Connected(Conn, Shared);

impl Drop for Connected {
    fn drop(&mut self) {
        self.1.core.lock().unwrap().lost(self.0);
        self.1.changed.send_modify(|changes| *changes += 1);
    }
}

async fn link(mut stream: TcpStream, shared: Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let conn = {
        let mut conns = shared.conns.lock().unwrap();
        *conns += 1;
        Conn(*conns)
    };
    shared.core.lock().unwrap().connected(conn);
    let _connected = Connected(conn, shared.clone());
    let mut changed = shared.changed.subscribe();
    let mut output = Vec::new();
    let mut buffer = [0; 4096];
    let (mut reader, writer) = stream.split();
    loop {
        output.extend(shared.core.lock().unwrap().take_output(conn));
        tokio::select! {
            read = reader.read(&mut buffer) => {
                let count = read?;
                if count == 0 {
                    return Ok(());
                }
                shared.core.lock().unwrap().bytes(conn, &buffer[..count]);
                shared.changed.send_modify(|changes| *changes += 1);
            }
            writable = writer.writable(), if !output.is_empty() => {
                writable?;
                match writer.try_write(&output) {
                    Ok(count) => drop(output.drain(..count)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            _ = changed.changed() => {}
        }
    }
}

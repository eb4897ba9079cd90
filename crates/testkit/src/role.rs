//! A role of the program that runs in this process, on a thread of its own.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// A role whose sockets are bound: what the program makes of a configuration.
pub trait BoundRole: Send + 'static {
    /// Returns all listeners with their addresses.
    fn listeners(&self) -> Vec<(String, Vec<SocketAddr>)>;

    /// Returns the address of metrics and the admin API, if there is one.
    fn admin(&self) -> Option<SocketAddr>;

    /// Runs until `shutdown`, and until what it carries has ended.
    fn run(self, shutdown: impl Future<Output = ()>) -> impl Future<Output = io::Result<()>>;
}

/// The starter of roles, which the program provides: it gets a name for the role's thread and its YAML.
pub type Starter = fn(&str, &str) -> Result<RunningRole, Box<dyn Error + Send + Sync>>;

/// A role that runs. Dropping it shuts it down.
pub struct RunningRole {
    listeners: Vec<(String, Vec<SocketAddr>)>,
    admin: Option<SocketAddr>,
    runtime: Handle,
    shutdown: CancellationToken,
    abort: CancellationToken,
    ended: Option<oneshot::Receiver<io::Result<()>>>,
}

impl RunningRole {
    /// Runs a role on a thread with that name.
    ///
    /// # Errors
    /// Fails if there is no thread or no runtime.
    pub fn start(name: &str, role: impl BoundRole) -> io::Result<Self> {
        let (listeners, admin) = (role.listeners(), role.admin());
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (shutdown, abort) = (CancellationToken::new(), CancellationToken::new());
        let (asked, aborted) = (shutdown.clone().cancelled_owned(), abort.clone());
        let (sender, ended) = oneshot::channel();
        let main = move || {
            let result = runtime.block_on(aborted.run_until_cancelled(role.run(asked)));
            // All its sockets are closed before anybody is told.
            drop(runtime);
            // Nobody waits for a role that was dropped.
            let _ = sender.send(result.unwrap_or(Ok(())));
        };
        thread::Builder::new().name(name.to_owned()).spawn(main)?;
        Ok(Self { listeners, admin, runtime: handle, shutdown, abort, ended: Some(ended) })
    }

    /// Returns the addresses that a listener had at the start; none if there is no such listener.
    pub fn addresses(&self, listener: &str) -> &[SocketAddr] {
        self.listeners.iter().find(|(name, _)| name == listener).map_or(&[], |(_, addresses)| addresses)
    }

    /// Returns the address of metrics and the admin API, if there is one.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Returns the runtime that the role's own tasks are on.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Asks it to shut down, and does not wait.
    pub fn shut_down(&self) {
        self.shutdown.cancel();
    }

    /// Drops it while it runs, without a shutdown.
    pub fn abort(&self) {
        self.abort.cancel();
    }

    /// Waits until it has ended and all its sockets are closed.
    ///
    /// # Errors
    /// Returns the reason why it did not run, or not to its end.
    pub async fn ended(mut self) -> io::Result<()> {
        match self.ended.take() {
            Some(ended) => ended.await.unwrap_or_else(|_| Err(io::Error::other("the role panicked"))),
            None => Ok(()),
        }
    }

    /// Shuts it down and waits for its end.
    ///
    /// # Errors
    /// Returns the reason why it did not run, or not to its end.
    pub async fn stop(self) -> io::Result<()> {
        self.shut_down();
        self.ended().await
    }
}

impl Drop for RunningRole {
    fn drop(&mut self) {
        self.shut_down();
    }
}

//! The addresses of a target, resolved before a connection needs them.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use otproxy_config as config;
use otproxy_net::{Backoff, ConnectResult, OutageLog, Source};

/// The first wait after a failed look-up without an earlier answer; it doubles up to `resolve`.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// A target's name, and the addresses that it resolves to.
#[derive(Debug)]
pub struct ResolvedAddresses {
    target: config::HostPort,
    /// The interval of look-ups; zero means one for each connection.
    every: Duration,
    known: watch::Sender<Known>,
}

#[derive(Debug, Clone)]
enum Known {
    /// The first answer is still to come.
    Awaited,
    /// No look-up has succeeded yet.
    Failed,
    /// The last good answer.
    Answer(Arc<Answer>),
}

/// Addresses in the order of the resolver.
#[derive(Debug)]
struct Answer {
    addresses: Vec<SocketAddr>,
    /// The index of the address that is tried first, as those before it could not be reached.
    first: AtomicUsize,
}

impl ResolvedAddresses {
    /// Makes the addresses of `target`, looked up at this interval.
    pub fn new(target: config::HostPort, every: Duration) -> Self {
        let known = target.literal().map_or(Known::Awaited, |address| Known::Answer(Answer::new(vec![address])));
        Self { target, every, known: watch::Sender::new(known) }
    }

    /// Returns the same name with its known addresses, looked up at this interval.
    #[must_use]
    pub fn looked_up_each(&self, every: Duration) -> Self {
        let known = watch::Sender::new(self.known.borrow().clone());
        Self { target: self.target.clone(), every, known }
    }

    /// Connects to the first address that answers, each within that time; from `source`, to addresses of its family alone.
    /// Also returns that address.
    ///
    /// # Errors
    /// Returns the result of the last attempt.
    pub async fn connect(&self, source: Source, within: Duration) -> Result<(TcpStream, SocketAddr), ConnectResult> {
        let answer = self.answer(within).await?;
        let (before, after) = answer.addresses.split_at(answer.first.load(Relaxed).min(answer.addresses.len()));
        let order: Vec<_> = after.iter().chain(before).copied().collect();
        let (stream, address) = otproxy_net::connect_forward(order, source, within).await?;
        if let Some(first) = answer.addresses.iter().position(|other| *other == address) {
            answer.first.store(first, Relaxed);
        }
        Ok((stream, address))
    }

    async fn answer(&self, within: Duration) -> Result<Arc<Answer>, ConnectResult> {
        if self.every.is_zero() && self.target.literal().is_none() {
            return otproxy_net::resolve((&self.target.host, self.target.port), within).await.map(Answer::new);
        }
        let mut known = self.known.subscribe();
        let known = timeout(within, known.wait_for(|known| !matches!(known, Known::Awaited))).await;
        let known = known.map_err(|_| ConnectResult::Resolve)?.map_err(|_| ConnectResult::Resolve)?;
        if let Known::Answer(answer) = &*known { Ok(Arc::clone(answer)) } else { Err(ConnectResult::Resolve) }
    }

    /// Looks the name up with `lookup`, again and again. Returns at once if there is no name.
    pub async fn refresh<F>(&self, listener: &str, lookup: impl Fn(config::HostPort) -> F)
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>>,
    {
        if self.every.is_zero() || self.target.literal().is_some() {
            return;
        }
        let backoff = Backoff::new(FIRST_WAIT, self.every);
        let (mut failures, outage) = (0u32, OutageLog::new());
        loop {
            let answer = match lookup(self.target.clone()).await {
                Ok(found) if found.is_empty() => Err(io::Error::other("it has no address")),
                answer => answer,
            };
            let host = &self.target.host;
            match &answer {
                Ok(_) => {
                    if let Some(seconds) = outage.worked(Instant::now()) {
                        info!(listener, host, seconds, "the name resolves again");
                    }
                }
                Err(error) => {
                    if let Some(suppressed) = outage.failed(error.kind(), Instant::now()) {
                        warn!(listener, host, %error, suppressed, "the name cannot be looked up");
                    }
                }
            }
            failures = if answer.is_ok() { 0 } else { failures.saturating_add(1) };
            if self.learn(answer.ok()) {
                sleep(self.every).await;
            } else {
                sleep(backoff.wait(failures)).await;
            }
        }
    }

    /// Takes an answer; without one, keeps the last. Returns whether there is any.
    fn learn(&self, found: Option<Vec<SocketAddr>>) -> bool {
        self.known.send_if_modified(|known| {
            let new = match (&known, found) {
                // The same addresses in another order change nothing: the one that answers is remembered.
                (Known::Answer(old), Some(found)) if old.is_of(&found) => return false,
                (_, Some(found)) => Known::Answer(Answer::new(found)),
                (Known::Awaited, None) => Known::Failed,
                (_, None) => return false,
            };
            *known = new;
            true
        });
        matches!(*self.known.borrow(), Known::Answer(_))
    }
}

impl Answer {
    fn new(addresses: Vec<SocketAddr>) -> Arc<Self> {
        Arc::new(Self { addresses, first: AtomicUsize::new(0) })
    }

    fn is_of(&self, addresses: &[SocketAddr]) -> bool {
        let set = |addresses: &[SocketAddr]| addresses.iter().copied().collect::<HashSet<_>>();
        set(&self.addresses) == set(addresses)
    }
}

#[cfg(test)]
mod tests;

//! The addresses of a target, known before a connection needs them.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::config;
use crate::net::{self, Backoff};
use crate::reason::ConnectResult;

/// The first wait after a look-up that failed where there was no answer yet; it doubles until it is `resolve`.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// A target's name, and what it resolves to.
#[derive(Debug)]
pub struct Addresses {
    target: config::Target,
    /// How often it is looked up; zero is for each connection.
    every: Duration,
    known: watch::Sender<Known>,
}

#[derive(Debug, Clone)]
enum Known {
    /// The first answer is to come.
    Awaited,
    /// There was none yet.
    Failed,
    /// The last good answer.
    Answer(Arc<Answer>),
}

/// Addresses in the order of the resolver.
#[derive(Debug)]
struct Answer {
    addresses: Vec<SocketAddr>,
    /// The place of the one that is tried first: it was reached when those before it could not be.
    first: AtomicUsize,
}

impl Addresses {
    /// Of `target`, looked up so often.
    pub fn new(target: config::Target, every: Duration) -> Self {
        let known = target.literal().map_or(Known::Awaited, |address| Known::Answer(Answer::new(vec![address])));
        Self { target, every, known: watch::Sender::new(known) }
    }

    /// The same name, with what it resolves to as far as it is known, looked up so often.
    #[must_use]
    pub fn looked_up_each(&self, every: Duration) -> Self {
        let known = watch::Sender::new(self.known.borrow().clone());
        Self { target: self.target.clone(), every, known }
    }

    /// Connects to the first address that answers, each within that time. Gives which it was.
    ///
    /// # Errors
    /// What the last try ended with.
    pub async fn connect(&self, within: Duration) -> Result<(TcpStream, SocketAddr), ConnectResult> {
        let answer = self.answer(within).await?;
        let (before, after) = answer.addresses.split_at(answer.first.load(Relaxed).min(answer.addresses.len()));
        let order: Vec<_> = after.iter().chain(before).copied().collect();
        let (stream, address) = net::connect_forward(order, within).await?;
        if let Some(first) = answer.addresses.iter().position(|other| *other == address) {
            answer.first.store(first, Relaxed);
        }
        Ok((stream, address))
    }

    async fn answer(&self, within: Duration) -> Result<Arc<Answer>, ConnectResult> {
        if self.every.is_zero() && self.target.literal().is_none() {
            return net::resolve(&self.target, within).await.map(Answer::new);
        }
        let mut known = self.known.subscribe();
        let known = timeout(within, known.wait_for(|known| !matches!(known, Known::Awaited))).await;
        let known = known.map_err(|_| ConnectResult::Resolve)?.map_err(|_| ConnectResult::Resolve)?;
        if let Known::Answer(answer) = &*known { Ok(Arc::clone(answer)) } else { Err(ConnectResult::Resolve) }
    }

    /// Looks the name up, by `lookup`, again and again. Where there is none to look up, there is nothing to do.
    pub async fn keep<F>(&self, listener: &str, lookup: impl Fn(config::Target) -> F)
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>>,
    {
        if self.every.is_zero() || self.target.literal().is_some() {
            return;
        }
        let backoff = Backoff::new(FIRST_WAIT, self.every);
        let mut failures = 0u32;
        loop {
            let answer = match lookup(self.target.clone()).await {
                Ok(found) if found.is_empty() => Err(io::Error::other("it has no address")),
                answer => answer,
            };
            let host = &self.target.host;
            match &answer {
                Ok(_) if failures > 0 => info!(listener, host, "the name resolves again"),
                Err(error) if failures == 0 => warn!(listener, host, %error, "the name cannot be looked up"),
                _ => {}
            }
            failures = if answer.is_ok() { 0 } else { failures.saturating_add(1) };
            if self.learn(answer.ok()) {
                sleep(self.every).await;
            } else {
                sleep(backoff.wait(failures)).await;
            }
        }
    }

    /// Takes an answer; without one, the last is kept. Gives whether there is any.
    fn learn(&self, found: Option<Vec<SocketAddr>>) -> bool {
        self.known.send_if_modified(|known| {
            let new = match (&known, found) {
                // In another order it is the same: which one answers is remembered.
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

//! SIGTERM and SIGINT: the first asks for an orderly end, the second ends at once. SIGHUP asks to read the configuration
//! again.

use std::io;
use std::process;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::warn;

/// The signals, caught.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches those that end the process from now on, for the rest of its life.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn catch() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the first that ends the process, which itself ends at the second. At each SIGHUP until then it calls
    /// `on_hangup`.
    pub async fn caught_but_hangups(mut self, mut hangups: Signal, mut on_hangup: impl FnMut()) {
        loop {
            tokio::select! {
                _ = self.next() => break,
                _ = hangups.recv() => on_hangup(),
            }
        }
        self.end_at_next();
    }

    /// Waits for the first; the process ends at the second.
    pub async fn caught(mut self) {
        self.next().await;
        self.end_at_next();
    }

    fn end_at_next(mut self) {
        tokio::spawn(async move {
            let kind = self.next().await;
            warn!("ends at once, at the second signal");
            // What a shell makes of a process that the signal itself has ended.
            process::exit(128 + kind.as_raw_value());
        });
    }

    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        }
    }
}

/// SIGHUP, caught from now on.
///
/// # Errors
/// Where the system refuses.
pub(super) fn hangups() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

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

    /// Waits for the first; the process ends at the second.
    pub async fn caught(mut self) {
        self.next().await;
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

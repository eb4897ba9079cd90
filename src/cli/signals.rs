//! SIGTERM and SIGINT: the first asks for an orderly end, the second ends the process at once. SIGHUP asks for a reload
//! of the configuration.

use std::io;
use std::process;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::warn;

/// The caught signals.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches the signals that end the process from now on, for the rest of its life.
    ///
    /// # Errors
    /// Fails if the system refuses.
    pub fn catch() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the first signal; the second ends the process.
    pub async fn caught(mut self) {
        self.next().await;
        tokio::spawn(async move {
            let kind = self.next().await;
            warn!("ends at once, at the second signal");
            // The exit code that a shell reports for a process that the signal itself has ended.
            #[expect(clippy::disallowed_methods, reason = "nothing is waited for any more")]
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

/// Catches SIGHUP from now on.
///
/// # Errors
/// Fails if the system refuses.
pub(super) fn hangups() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

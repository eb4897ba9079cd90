//! SIGTERM and SIGINT: the first asks for an orderly end, the second ends the process at once. SIGHUP and SIGUSR2 ask for a
//! reload of the configuration. SIGUSR1, which would end the process otherwise, is answered by a log line.

use std::io;
use std::process;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::stderr;

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
            stderr::flush();
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

/// The caught signals that ask a running role for something else than its end.
pub(super) struct Requests {
    hangup: Signal,
    user1: Signal,
    user2: Signal,
}

impl Requests {
    /// Catches these signals from now on, for the rest of the process's life. One that comes before it is waited for
    /// is kept.
    ///
    /// # Errors
    /// Fails if the system refuses.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for the next request to reload. Requests that arrive meanwhile count as one.
    pub async fn reload(&mut self) {
        loop {
            tokio::select! {
                _ = self.hangup.recv() => return,
                // HAProxy's, for the same.
                _ = self.user2.recv() => return,
                // Other programs reopen their logs at it, or end softly: neither may end this one by surprise.
                _ = self.user1.recv() => info!(
                    "SIGUSR1 changes nothing: the access log follows a renamed file by itself; \
                     SIGTERM or `otproxy drain` ends connections softly, SIGHUP or SIGUSR2 reloads"
                ),
            }
        }
    }
}

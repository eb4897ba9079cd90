//! The access log: one line for each connection and session that ended, and for each connection that was refused.
//!
//! Whoever carries a connection hands over an [`Entry`] and goes on. A thread of its own makes lines of them and writes
//! those, so that a disk that is slow, full or gone holds nobody up: what does not fit into the queue is dropped and
//! counted.

mod entry;
mod fields;
pub mod haproxy;
mod output;

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use prometheus::IntCounter;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::config::{self, AccessLogFormat};

pub use entry::{Entry, Forwarded, LinkEnd, Open, SessionEnd, What};
pub use fields::{Field, fields};
pub use output::FILE_MODE;

use haproxy::Tcplog;
use output::Output;

/// Lines that may wait to be written.
pub const QUEUE: usize = 8192;
/// How long the end of the process waits for what is still to be written.
pub const LAST_WAIT: Duration = Duration::from_secs(1);
/// Bytes after which lines that wait are written, rather than collected further.
const BATCH: usize = 64 * 1024;

/// Where entries are handed over. Clones are the same log.
#[derive(Debug, Clone)]
pub struct AccessLog {
    entries: SyncSender<Entry>,
    dropped: IntCounter,
}

impl AccessLog {
    /// Starts the log of the process `name`. Lines that are lost are counted in `dropped`.
    ///
    /// # Errors
    /// Where the system gives no thread. A file that cannot be written is none: it is tried again with each line.
    pub fn start(config: config::AccessLog, name: &str, dropped: IntCounter) -> io::Result<(Self, Written)> {
        let (entries, waiting) = sync_channel(QUEUE);
        let (done, written) = oneshot::channel();
        let (format, output) = (Format::new(&config, name), Output::new(config.file));
        let lost = dropped.clone();
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            write_all(&waiting, &format, output, &lost);
            // Nobody may wait for it.
            let _ = done.send(());
        })?;
        Ok((Self { entries, dropped }, Written(written)))
    }

    /// Has the entry written, or counts it where too many wait. Never waits itself.
    pub fn write(&self, entry: Entry) {
        if self.entries.try_send(entry).is_err() {
            self.dropped.inc();
        }
    }
}

/// The end of the log.
#[derive(Debug)]
pub struct Written(oneshot::Receiver<()>);

impl Written {
    /// Waits until all is written that was handed over before the last [`AccessLog`] was dropped, for [`LAST_WAIT`] at
    /// the most.
    pub async fn wait(self) {
        let _ = timeout(LAST_WAIT, self.0).await;
    }
}

/// Writes until nobody is left who could hand anything over.
fn write_all(waiting: &Receiver<Entry>, format: &Format, mut output: Output, dropped: &IntCounter) {
    let mut lines = String::new();
    while let Ok(entry) = waiting.recv() {
        lines.clear();
        format.line(&entry, &mut lines);
        while lines.len() < BATCH
            && let Ok(entry) = waiting.try_recv()
        {
            format.line(&entry, &mut lines);
        }
        dropped.inc_by(output.write(lines.as_bytes()));
    }
}

/// How entries become lines.
enum Format {
    Json,
    Text,
    Haproxy(Tcplog),
}

impl Format {
    fn new(config: &config::AccessLog, name: &str) -> Self {
        match config.format {
            AccessLogFormat::Json => Self::Json,
            AccessLogFormat::Text => Self::Text,
            AccessLogFormat::Haproxy => Self::Haproxy(Tcplog::new(&config.file, name)),
        }
    }

    /// Adds the entry's line, with its end.
    fn line(&self, entry: &Entry, out: &mut String) {
        match self {
            Self::Json => fields::json(entry, out),
            Self::Text => fields::text(entry, out),
            Self::Haproxy(tcplog) => tcplog.line(entry, out),
        }
        out.push('\n');
    }
}

#[cfg(test)]
mod tests;

//! The access log: one line for each connection and session that ended, and for each connection that was refused.
//!
//! The task that carries a connection hands over an [`AccessLogEntry`] and goes on. A thread of its own formats and
//! writes the lines, so a slow, full or missing disk delays nobody: an entry that does not fit into the queue is
//! dropped and counted.

mod entry;
mod fields;
pub mod haproxy;
mod output;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use prometheus::IntCounter;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use otproxy_config::{AccessLogFile, AccessLogFormat};

pub use entry::{AccessLogEntry, Ended, Forwarded, LinkEnd, OpenCounts, SessionEnd};
pub use fields::{LogField, fields};
pub use output::FILE_MODE;

use haproxy::Tcplog;
use output::LogOutput;

/// Lines that may wait to be written.
pub const QUEUE: usize = 8192;
/// The time for which the end of the process waits for lines that are still to be written.
pub const LAST_WAIT: Duration = Duration::from_secs(1);
/// From one look whether all is written to the next.
const LOOK: Duration = Duration::from_millis(5);
/// Bytes at which collected lines are written, even if more are waiting.
const BATCH: usize = 64 * 1024;

/// The handle that entries are given to. All clones write to the same log.
#[derive(Debug, Clone)]
pub struct AccessLog {
    entries: SyncSender<AccessLogEntry>,
    dropped: IntCounter,
    /// Entries that are queued, or being written.
    waiting: Arc<AtomicUsize>,
}

impl AccessLog {
    /// Starts the log of the process `name`. Lost lines are counted in `dropped`.
    ///
    /// # Errors
    /// Fails if the system gives no thread. A file that cannot be written is no error: each line tries it again.
    pub fn start(
        format: AccessLogFormat,
        file: AccessLogFile,
        name: &str,
        dropped: IntCounter,
    ) -> io::Result<(Self, LogFlushed)> {
        let (entries, waiting) = sync_channel(QUEUE);
        let (done, written) = oneshot::channel();
        let (format, output) = (Format::new(format, &file, name), LogOutput::new(file));
        let (lost, queued) = (dropped.clone(), Arc::new(AtomicUsize::new(0)));
        let left = Arc::clone(&queued);
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            write_all(&waiting, &format, output, (&lost, &left));
            // Perhaps nobody waits for it.
            let _ = done.send(());
        })?;
        let flushed = LogFlushed { ended: written, waiting: Arc::clone(&queued) };
        Ok((Self { entries, dropped, waiting: queued }, flushed))
    }

    /// Queues the entry to be written, or counts it as dropped if the queue is full. Never waits.
    pub fn write(&self, entry: AccessLogEntry) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if self.entries.try_send(entry).is_err() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.dropped.inc();
        }
    }
}

/// The signal that the log has ended.
#[derive(Debug)]
pub struct LogFlushed {
    ended: oneshot::Receiver<()>,
    waiting: Arc<AtomicUsize>,
}

impl LogFlushed {
    /// Waits until all entries are written that were handed over before the last [`AccessLog`] was dropped, but no
    /// longer than [`LAST_WAIT`].
    pub async fn wait(self) {
        let _ = timeout(LAST_WAIT, self.ended).await;
    }

    /// Waits until all entries are written that were handed over until now, but no longer than [`LAST_WAIT`]: for a
    /// process that ends while others still hold the log.
    pub async fn caught_up(&self) {
        let catching_up = async {
            while self.waiting.load(Ordering::Relaxed) > 0 {
                sleep(LOOK).await;
            }
        };
        let _ = timeout(LAST_WAIT, catching_up).await;
    }
}

/// Writes entries until no sender is left.
fn write_all(
    waiting: &Receiver<AccessLogEntry>,
    format: &Format,
    mut output: LogOutput,
    (dropped, left): (&IntCounter, &AtomicUsize),
) {
    let mut lines = String::new();
    while let Ok(entry) = waiting.recv() {
        lines.clear();
        let mut entries = 1;
        format.line(&entry, &mut lines);
        while lines.len() < BATCH
            && let Ok(entry) = waiting.try_recv()
        {
            format.line(&entry, &mut lines);
            entries += 1;
        }
        dropped.inc_by(output.write(lines.as_bytes()));
        left.fetch_sub(entries, Ordering::Relaxed);
    }
}

/// The format of the lines.
enum Format {
    Json,
    Text,
    Haproxy(Tcplog),
}

impl Format {
    fn new(format: AccessLogFormat, file: &AccessLogFile, name: &str) -> Self {
        match format {
            AccessLogFormat::Json => Self::Json,
            AccessLogFormat::Text => Self::Text,
            AccessLogFormat::Haproxy => Self::Haproxy(Tcplog::new(file, name)),
        }
    }

    /// Appends the entry's line, with its line end.
    fn line(&self, entry: &AccessLogEntry, out: &mut String) {
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

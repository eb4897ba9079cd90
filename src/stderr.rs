//! The lines of this process on stderr: a bounded queue, and the one thread that writes them.
//!
//! A reader that stops reading fills its pipe, and then each write to it waits. So no thread that serves anybody writes
//! there: it hands its lines over and goes on, and lines that do not fit are lost and counted.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::mem;
use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use prometheus::IntCounter;
use tracing::warn;

/// Bytes of lines that may wait to be written.
pub const QUEUE: usize = 1 << 20;
/// The time for which [`flush`] waits for a reader.
pub const LAST_WAIT: Duration = Duration::from_secs(1);

/// The queue of this process, once [`start`] was called.
static STDERR: OnceLock<Arc<LineQueue>> = OnceLock::new();

/// Has a thread write the lines from now on. Without it each is written at once, by its own thread.
///
/// # Errors
/// Fails if the system gives no thread or descriptor.
pub fn start() -> io::Result<()> {
    // A descriptor of our own: std's has a lock, which a write that waits would keep.
    let mut to = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let queue = Arc::new(LineQueue::default());
    if STDERR.set(Arc::clone(&queue)).is_ok() {
        std::thread::Builder::new().name("stderr".to_owned()).spawn(move || queue.write_all(&mut to))?;
    }
    Ok(())
}

/// Writes whole lines, sooner or later. Returns how many are known to be lost. Never waits once [`start`] was called.
pub fn write(lines: &[u8]) -> u64 {
    match STDERR.get() {
        Some(queue) => queue.push(lines),
        None => {
            let mut rest = lines;
            // Nobody could be told.
            let _ = write_rest(&mut io::stderr().lock(), &mut rest);
            count(rest)
        }
    }
}

/// Counts the lines that are lost in `lost`, those included that were lost before.
pub fn count_lost(lost: &IntCounter) {
    if let Some(queue) = STDERR.get() {
        queue.waiting.lock().count_in(lost.clone());
    }
}

/// Waits until all lines are written, but no longer than [`LAST_WAIT`]. To be called before the process ends.
pub fn flush() {
    if let Some(queue) = STDERR.get() {
        queue.flush(LAST_WAIT);
    }
}

/// Writes all of `rest`, and leaves in it the part that was not written.
pub(crate) fn write_rest(to: &mut impl Write, rest: &mut &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        match to.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => *rest = rest.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Returns the number of line ends in `lines`.
pub(crate) fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Lines that wait for their writer.
#[derive(Default)]
struct LineQueue {
    waiting: Mutex<Waiting>,
    /// Lines have come.
    come: Condvar,
    /// The writer is done with what it took.
    written: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    /// The writer has taken lines that it has not written yet.
    writing: bool,
    /// Lines lost that no line has told of yet.
    lost: u64,
    /// The counter of all lines lost; the lines lost before there was one.
    counter: Option<IntCounter>,
    before: u64,
}

impl Waiting {
    fn lose(&mut self, lines: u64) {
        self.lost += lines;
        match &self.counter {
            Some(counter) => counter.inc_by(lines),
            None => self.before += lines,
        }
    }

    fn count_in(&mut self, counter: IntCounter) {
        counter.inc_by(mem::take(&mut self.before));
        self.counter = Some(counter);
    }
}

impl LineQueue {
    fn push(&self, lines: &[u8]) -> u64 {
        let mut waiting = self.waiting.lock();
        if waiting.lines.len() + lines.len() > QUEUE {
            let lost = count(lines);
            waiting.lose(lost);
            return lost;
        }
        waiting.lines.extend_from_slice(lines);
        self.come.notify_one();
        0
    }

    /// Writes all lines to `to`, forever.
    fn write_all(&self, to: &mut impl Write) {
        let mut lines = Vec::new();
        loop {
            self.take(&mut lines);
            let lost = self.write_once(to, &lines);
            lines.clear();
            if lost > 0 {
                // It waits in the queue like others, with the form and the level of others.
                warn!(lost, "lines of this log were lost, because nobody read them");
            }
        }
    }

    /// Waits for lines, and takes all of them.
    fn take(&self, lines: &mut Vec<u8>) {
        let mut waiting = self.waiting.lock();
        self.come.wait_while(&mut waiting, |waiting| waiting.lines.is_empty());
        mem::swap(&mut waiting.lines, lines);
        waiting.writing = true;
    }

    /// Writes lines that were taken. Returns how many were lost until now, if there is a reader to be told.
    fn write_once(&self, to: &mut impl Write, lines: &[u8]) -> u64 {
        let mut rest = lines;
        let result = write_rest(to, &mut rest);
        let mut waiting = self.waiting.lock();
        waiting.writing = false;
        waiting.lose(count(rest));
        self.written.notify_all();
        if result.is_ok() { mem::take(&mut waiting.lost) } else { 0 }
    }

    fn flush(&self, within: Duration) {
        let until = Instant::now() + within;
        let busy = |waiting: &mut Waiting| waiting.writing || !waiting.lines.is_empty();
        self.written.wait_while_until(&mut self.waiting.lock(), busy, until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter() -> IntCounter {
        IntCounter::new("lost", "lost").unwrap()
    }

    #[test]
    fn lines_go_out_whole_and_in_order() {
        let (queue, mut out, mut lines) = (LineQueue::default(), Vec::new(), Vec::new());
        assert_eq!((queue.push(b"one\n"), queue.push(b"two\nthree\n")), (0, 0));
        queue.take(&mut lines);
        assert_eq!(queue.push(b"four\n"), 0);
        assert_eq!(queue.write_once(&mut out, &lines), 0);
        lines.clear();
        queue.take(&mut lines);
        assert_eq!(queue.write_once(&mut out, &lines), 0);
        assert_eq!(out, b"one\ntwo\nthree\nfour\n");
    }

    #[test]
    fn lines_that_do_not_fit_are_lost_counted_and_told_of_once() {
        let (queue, counter) = (LineQueue::default(), counter());
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        for _ in 0..QUEUE / line.len() {
            assert_eq!(queue.push(&line), 0);
        }
        assert_eq!(queue.push(b"a\nb\n"), 2, "nothing more fits");
        queue.waiting.lock().count_in(counter.clone());
        assert_eq!(counter.get(), 2, "what was lost before there was a counter counts");
        assert_eq!(queue.push(b"c\n"), 1);
        assert_eq!(counter.get(), 3);
        let (mut out, mut lines) = (Vec::new(), Vec::new());
        queue.take(&mut lines);
        assert_eq!((queue.write_once(&mut out, &lines), out.len()), (3, QUEUE));
        lines.clear();
        assert_eq!(queue.push(b"d\n"), 0, "there is room again");
        queue.take(&mut lines);
        assert_eq!(queue.write_once(&mut out, &lines), 0, "they are told of once");
    }

    #[test]
    fn what_a_closed_reader_did_not_take_is_lost() {
        let (queue, counter) = (LineQueue::default(), counter());
        queue.waiting.lock().count_in(counter.clone());
        queue.push(b"one\ntwo\nthree\n");
        let mut lines = Vec::new();
        queue.take(&mut lines);
        let mut short = [0; 6];
        assert_eq!(queue.write_once(&mut &mut short[..], &lines), 0, "nobody is there to be told");
        assert_eq!(counter.get(), 2, "the line that was cut counts");
    }
}

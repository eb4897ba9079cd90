//! Logs: on stderr, for people or for machines.

use std::env;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::panic::{self, PanicHookInfo};

use tracing::{Level, Metadata, error};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

use crate::stderr;
use otproxy_config::{LogFormat, LogLevel};

/// Starts logging, including panics. To be called once, before anything is logged. Returns a handle that changes the
/// level.
pub(super) fn start(format: LogFormat, level: LogLevel) -> LogControl {
    // Without a thread for it, each line is written by the thread that has it.
    let queued = stderr::start();
    let terminal = io::stderr().is_terminal();
    let text = match format {
        LogFormat::Auto => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let (filter, now) = reload::Layer::new(filter(level));
    // A closed stderr must not end the process, so its errors are not reported to stderr again.
    let lines = fmt::layer().with_target(false).with_writer(Lines::new()).log_internal_errors(false);
    let logs = tracing_subscriber::registry().with(filter);
    // This fails only if logging was started before, and then goes on unchanged.
    let _ = if text {
        logs.with(lines.with_ansi(terminal)).try_init()
    } else {
        logs.with(lines.json().flatten_event(true).with_current_span(false).with_span_list(false)).try_init()
    };
    panic::set_hook(Box::new(log_panic));
    if let Err(error) = queued {
        error!(%error, "no thread for this log: a reader that stops reading will hold up everything");
    }
    LogControl(now)
}

/// A handle of the log level, to change it while the process runs.
pub(super) struct LogControl(reload::Handle<LevelFilter, Registry>);

impl LogControl {
    pub fn set_level(&self, level: LogLevel) {
        // This fails only if logging was started before, and then goes on unchanged.
        let _ = self.0.reload(filter(level));
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// The way of log lines to stderr.
struct Lines {
    /// The journal reads stderr, and takes the level of a line from its beginning.
    journal: bool,
}

impl Lines {
    fn new() -> Self {
        let stderr = io::stderr().as_fd().try_clone_to_owned().and_then(|fd| File::from(fd).metadata());
        let journal = stderr.is_ok_and(|stderr| {
            env::var("JOURNAL_STREAM").is_ok_and(|of| of == format!("{}:{}", stderr.dev(), stderr.ino()))
        });
        Self { journal }
    }

    fn line(&self, level: Level) -> Line {
        Line(if self.journal { priority(level) } else { "" })
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        self.line(Level::INFO)
    }

    fn make_writer_for(&self, metadata: &Metadata<'_>) -> Line {
        self.line(*metadata.level())
    }
}

/// Returns what has the journal, or syslog, know the level of a line: see sd-daemon(3).
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

/// The writer of one line, which is given whole to each `write`; its beginning.
struct Line(&'static str);

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            stderr::write(line);
        } else {
            stderr::write(&[self.0.as_bytes(), line].concat());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Logs a panic. It ends its task or thread and nothing else, so it is a line like others.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let payload = panic.payload();
    let message =
        payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let message = message.unwrap_or("a panic without words");
    let thread = std::thread::current();
    error!(location, thread = thread.name().unwrap_or_default(), "a defect of this program: {message}");
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Panics in a process of its own, which the next test starts: the hook and the logger belong to the process.
    #[test]
    #[ignore = "started by `a_panic_is_one_line_with_its_place`"]
    fn panics_on_purpose() {
        start(LogFormat::Json, LogLevel::Error);
        let thread = std::thread::Builder::new().name("worker-7".to_owned());
        let panicked = thread.spawn(|| panic!("on purpose, at {}", line!())).unwrap().join();
        assert!(panicked.is_err());
        stderr::flush();
    }

    #[test]
    fn a_panic_is_one_line_with_its_place() {
        let test = std::env::current_exe().unwrap();
        let child = ["--exact", "--ignored", "cli::log::tests::panics_on_purpose"];
        let output = Command::new(test).args(child).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{stderr}");
        let lines: Vec<_> = stderr.lines().collect();
        let [line] = lines[..] else { panic!("{stderr}") };
        let line: serde_yaml::Value = serde_yaml::from_str(line).unwrap();
        let message = line["message"].as_str().unwrap();
        let place = message.strip_prefix("a defect of this program: on purpose, at ").expect(message);
        assert!(line["location"].as_str().unwrap().starts_with(&format!("src/cli/log.rs:{place}:")), "{line:?}");
        assert_eq!((line["level"].as_str(), line["thread"].as_str()), (Some("ERROR"), Some("worker-7")));
    }
}

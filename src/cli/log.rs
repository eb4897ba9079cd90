//! Logs: on stderr, for people or for machines.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::env;
use std::fmt::{Debug, Write as _};
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::panic::{self, PanicHookInfo};

use tracing::field::{Field, debug};
use tracing::{Level, Metadata, error};
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

use super::colours;
use crate::stderr;
use otproxy_config::{LogFormat, LogLevel};
use otproxy_protocol::printable::{Escaping, printable_json};

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
    let lines = fmt::layer().with_target(false).with_writer(Lines::new(!text)).log_internal_errors(false);
    let logs = tracing_subscriber::registry().with(filter);
    // This fails only if logging was started before, and then goes on unchanged.
    let _ = if text {
        logs.with(lines.fmt_fields(debug_fn(field).delimited(" ")).with_ansi(colours(&io::stderr()))).try_init()
    } else {
        logs.with(lines.json().flatten_event(true).with_current_span(false).with_span_list(false)).try_init()
    };
    panic::set_hook(Box::new(log_panic));
    if let Err(error) = queued {
        error!(%error, "no thread for this log: a reader that stops reading will hold up everything");
    }
    LogControl(now)
}

/// Writes a field of a text line. Its value may come from a peer, and stays one line of text.
fn field(line: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> std::fmt::Result {
    match field.name() {
        "message" => {}
        name if line.has_ansi_escapes() => write!(line, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m")?,
        name => write!(line, "{name}=")?,
    }
    write!(Escaping(line), "{value:?}")
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
    /// They are JSON.
    json: bool,
    /// The journal reads stderr, and takes the level of a line from its beginning.
    journal: bool,
}

impl Lines {
    fn new(json: bool) -> Self {
        let stderr = io::stderr().as_fd().try_clone_to_owned().and_then(|fd| File::from(fd).metadata());
        let journal = stderr.is_ok_and(|stderr| {
            env::var("JOURNAL_STREAM").is_ok_and(|of| of == format!("{}:{}", stderr.dev(), stderr.ino()))
        });
        Self { json, journal }
    }

    fn line(&self, level: Level) -> Line {
        Line { json: self.json, before: if self.journal { priority(level) } else { "" } }
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

/// The writer of one line, which is given whole to each `write`.
struct Line {
    json: bool,
    before: &'static str,
}

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // JSON is escaped already, but for what some terminals obey beyond ASCII.
        let safe = std::str::from_utf8(line).ok().filter(|_| self.json).map(printable_json);
        let text = safe.as_deref().map_or(line, str::as_bytes);
        if self.before.is_empty() {
            stderr::write(text);
        } else {
            stderr::write(&[self.before.as_bytes(), text].concat());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Logs a panic. It ends its task or thread and nothing else, so it is a line like others. `RUST_BACKTRACE` has it say the
/// calls that led there, too.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let payload = panic.payload();
    let message =
        payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let message = message.unwrap_or("a panic without words");
    let thread = std::thread::current();
    let calls = Backtrace::capture();
    // Its short form has no line feeds.
    let backtrace = (calls.status() == BacktraceStatus::Captured).then(|| debug(calls));
    error!(location, thread = thread.name().unwrap_or_default(), backtrace, "a defect of this program: {message}");
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing::info;

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

    /// A log that a test reads.
    #[derive(Clone, Default)]
    struct Text(Arc<Mutex<Vec<u8>>>);

    impl Write for Text {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_peer_says_begins_no_line_and_orders_no_terminal() {
        let text = Text::default();
        let to = text.clone();
        let lines = fmt::layer().with_target(false).without_time().with_writer(move || to.clone());
        let lines = lines.fmt_fields(debug_fn(field).delimited(" ")).with_ansi(false);
        let peer = "a\n INFO an operator has acted\r\u{9b}2J\x1b]0;x\x07";
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            info!(reason = %peer, quoted = peer, count = 7, "refused {peer}");
        });
        let text = String::from_utf8(text.0.lock().clone()).unwrap();
        let said = "a\\n INFO an operator has acted\\r\\u{9b}2J\\u{1b}]0;x\\u{7}";
        assert_eq!(text, format!(" INFO refused {said} reason={said} quoted=\"{said}\" count=7\n"));
    }

    #[test]
    fn a_panic_is_one_line_with_its_place() {
        let test = std::env::current_exe().unwrap();
        let child = ["--exact", "--ignored", "cli::log::tests::panics_on_purpose"];
        let line = |backtrace| -> serde_yaml::Value {
            let output = Command::new(&test).args(child).env("RUST_BACKTRACE", backtrace).output().unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success(), "{stderr}");
            let lines: Vec<_> = stderr.lines().collect();
            let [line] = lines[..] else { panic!("{stderr}") };
            serde_yaml::from_str(line).unwrap()
        };
        let calls = line("1")["backtrace"].as_str().unwrap().to_owned();
        assert!(calls.contains("panics_on_purpose") && calls.contains("log.rs"), "{calls}");
        let line = line("0");
        assert!(line.get("backtrace").is_none(), "{line:?}");
        let message = line["message"].as_str().unwrap();
        let place = message.strip_prefix("a defect of this program: on purpose, at ").expect(message);
        assert!(line["location"].as_str().unwrap().starts_with(&format!("src/cli/log.rs:{place}:")), "{line:?}");
        assert_eq!((line["level"].as_str(), line["thread"].as_str()), (Some("ERROR"), Some("worker-7")));
    }
}

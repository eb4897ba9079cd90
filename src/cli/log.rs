//! Logs: on stderr, for people or for machines.

use std::io::{self, IsTerminal};
use std::panic::{self, PanicHookInfo};

use tracing::error;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

use otproxy_config::{LogFormat, LogLevel};

/// Starts logging, including panics. To be called once, before anything is logged. Returns a handle that changes the
/// level.
pub(super) fn start(format: LogFormat, level: LogLevel) -> Level {
    let terminal = io::stderr().is_terminal();
    let text = match format {
        LogFormat::Auto => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let (filter, now) = reload::Layer::new(filter(level));
    // A closed stderr must not end the process, so its errors are not reported to stderr again.
    let lines = fmt::layer().with_target(false).with_writer(io::stderr).log_internal_errors(false);
    let logs = tracing_subscriber::registry().with(filter);
    // This fails only if logging was started before, and then goes on unchanged.
    let _ = if text {
        logs.with(lines.with_ansi(terminal)).try_init()
    } else {
        logs.with(lines.json().flatten_event(true).with_current_span(false).with_span_list(false)).try_init()
    };
    panic::set_hook(Box::new(log_panic));
    Level(now)
}

/// A handle of the log level, to change it while the process runs.
pub(super) struct Level(reload::Handle<LevelFilter, Registry>);

impl Level {
    pub fn set(&self, level: LogLevel) {
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

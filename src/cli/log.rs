//! Logs: on stderr, for people or for machines.

use std::io::{self, IsTerminal};
use std::panic::{self, PanicHookInfo};

use tracing::error;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt;

use crate::config::{LogFormat, LogLevel};

/// Starts logging, of panics too. To be called once, before anything is logged.
pub(super) fn start(format: LogFormat, level: LogLevel) {
    let terminal = io::stderr().is_terminal();
    let text = match format {
        LogFormat::Auto => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // A stderr that is gone must not end the process: its errors are not reported to stderr again.
    let logs = fmt().with_max_level(level).with_target(false).with_writer(io::stderr).log_internal_errors(false);
    // It fails only where logging was started before, and then it goes on as it is.
    let _ = if text {
        logs.with_ansi(terminal).try_init()
    } else {
        logs.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    };
    panic::set_hook(Box::new(log_panic));
}

/// A panic ends its task or thread, and nothing else; so it is one line among others.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let payload = panic.payload();
    let message =
        payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let message = message.unwrap_or("a panic without words");
    let thread = std::thread::current();
    error!(location, thread = thread.name().unwrap_or_default(), "a defect of this program: {message}");
}

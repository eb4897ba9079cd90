//! `log` and `access_log`.

use std::path::{Path, PathBuf};

use otproxy_protocol::words;

use super::declare::{Read, section};
use super::formats;
use super::scope::Scope;
use super::takes::{Format, value, word};
use super::tree::Node;

section! {
    /// `log`
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct LogConfig {
        /// `auto` is text on a terminal and JSON elsewhere
        format: LogFormat = word().or("auto").restart(),
        /// how much is logged; each level includes those before it
        level: LogLevel = word().or("info"),
    }
}

words! {
    /// `log.format`, `--log-format`
    #[derive(clap::ValueEnum)]
    pub enum LogFormat {
        /// Text on a terminal, JSON otherwise.
        Auto = "auto",
        /// One line for people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

words! {
    /// `log.level`, `--log-level`
    #[derive(clap::ValueEnum)]
    pub enum LogLevel {
        /// Only what needs a person.
        Error = "error",
        /// Also hostile peers and limits.
        Warn = "warn",
        /// Also one line for each connection and session at its end.
        Info = "info",
        /// Also each link and connect.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

section! {
    /// `access_log`: one line for each connection and session that ended or was refused.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct AccessLogConfig from AccessLogKeys {
        /// how a line of the access log looks; `haproxy` is the `tcplog` line of HAProxy
        format: AccessLogFormat = word().or("json"),
        /// where each connection and session that ended or was refused has its line; the file may be renamed at any time
        file: Option<AccessLogFile> = value(FILE).or("off").example("access.log"),
    }
}

words! {
    /// `access_log.format`
    pub enum AccessLogFormat {
        /// One JSON object a line.
        Json = "json",
        /// `key=value` for people.
        Text = "text",
        /// The `tcplog` line of HAProxy.
        Haproxy = "haproxy",
    }
}

/// `access_log.file`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogFile {
    /// The place of the other logs.
    Stderr,
    /// A file, which is made where it is not there.
    Path(PathBuf),
}

const FILE: Format<Option<AccessLogFile>> =
    Format::new("path, `stderr` or `off`", file).seen_from(|file, folder| file.map(|file| file.seen_from(folder)));

impl AccessLogFile {
    fn seen_from(self, folder: &Path) -> Self {
        match self {
            Self::Path(path) => Self::Path(folder.join(path)),
            Self::Stderr => self,
        }
    }
}

impl Read for AccessLogConfig {
    fn read(section: &Scope<'_>) -> Option<Self> {
        let keys = AccessLogKeys::read(section);
        if keys.format.is_some() && section.has("format") && !section.has("file") {
            section.wrong("format", "says how lines look that go nowhere; give `file` too, as in `file: stderr`");
        }
        keys.complete()
    }
}

/// Reads the path of a file, or a word.
fn file(node: &Node) -> Result<Option<AccessLogFile>, String> {
    let path = formats::path(node).map_err(|message| format!("{message}; write one, or `stderr`, or `off`"))?;
    match path.to_str() {
        Some("off") => Ok(None),
        Some("stderr") => Ok(Some(AccessLogFile::Stderr)),
        _ => Ok(Some(AccessLogFile::Path(path))),
    }
}

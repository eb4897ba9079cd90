//! The output of lines: stderr, or a file that may be renamed, removed, full or gone.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Instant;

use tracing::{error, info};

use crate::stderr;
use otproxy_config::AccessLogFile;
use otproxy_net::OutageLog;

/// The mode of a new file. Players' addresses are not for everybody to read.
pub const FILE_MODE: u32 = 0o640;

pub(super) struct LogOutput {
    to: AccessLogFile,
    file: Option<File>,
    /// True if the file ends within a line.
    torn: bool,
    /// A full disk accepts a few bytes now and then.
    pub(super) outage: OutageLog<io::ErrorKind>,
}

impl LogOutput {
    pub(super) fn new(to: AccessLogFile) -> Self {
        Self { to, file: None, torn: false, outage: OutageLog::new() }
    }

    /// Writes whole lines; returns how many were lost.
    pub(super) fn write(&mut self, lines: &[u8]) -> u64 {
        let mut rest = lines;
        let result = match &self.to {
            // It has a queue of its own, with the lines of the other log.
            AccessLogFile::Stderr => return stderr::write(lines),
            AccessLogFile::Path(path) => current(&mut self.file, path).and_then(|(mut file, is_new)| {
                if self.torn && !is_new {
                    file.write_all(b"\n")?;
                }
                self.torn = false;
                stderr::write_rest(&mut file, &mut rest)
            }),
        };
        let written = lines.len() - rest.len();
        if let Some(last) = lines.get(..written).and_then(<[u8]>::last) {
            self.torn = *last != b'\n';
        }
        self.report(result);
        stderr::count(rest)
    }

    /// Logs failures to write, and the first success after them.
    fn report(&mut self, result: io::Result<()>) {
        let AccessLogFile::Path(path) = &self.to else { return };
        match result {
            Ok(()) => {
                if let Some(seconds) = self.outage.worked(Instant::now()) {
                    info!(file = %path.display(), seconds, "the access log is written again");
                }
            }
            Err(error) => {
                if let Some(suppressed) = self.outage.failed(error.kind(), Instant::now()) {
                    error!(
                        file = %path.display(),
                        %error,
                        suppressed,
                        "cannot write the access log; its lines are dropped and counted"
                    );
                }
            }
        }
    }
}

/// Returns the file that is at `path` now, created if needed, and whether it replaces an earlier one. It looks at the
/// path with every write, so a program that rotates logs has nothing to signal.
fn current<'f>(open: &'f mut Option<File>, path: &Path) -> io::Result<(&'f File, bool)> {
    let is_same = |file: &File| {
        let (held, named) = (file.metadata()?, fs::metadata(path)?);
        io::Result::Ok((held.dev(), held.ino()) == (named.dev(), named.ino()))
    };
    match open.take().filter(|file| is_same(file).unwrap_or(false)) {
        Some(same) => Ok((open.insert(same), false)),
        None => Ok((open.insert(opened(path)?), true)),
    }
}

fn opened(path: &Path) -> io::Result<File> {
    match OpenOptions::new().append(true).create_new(true).mode(FILE_MODE).open(path) {
        Ok(file) => {
            // The mode is set whatever the umask says: that of the units lets nobody else read.
            file.set_permissions(Permissions::from_mode(FILE_MODE))?;
            Ok(file)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => OpenOptions::new().append(true).open(path),
        Err(error) => Err(error),
    }
}

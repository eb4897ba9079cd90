//! Reports in their folders.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};

use super::OldReport;
use crate::report;

/// The file that tells another command that one is under way.
const LOCK: &str = ".pull.lock";

/// The reason why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It cannot be written to.
    #[error("{}: {error}", folder.display())]
    Io {
        /// The folder.
        folder: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// Another command is at it.
    #[error("{}: another `otproxy report pull` is under way there", .0.display())]
    Busy(PathBuf),
}

/// A folder of reports that no other command changes meanwhile.
#[derive(Debug)]
pub struct FolderLock {
    folder: PathBuf,
    _lock: File,
}

impl FolderLock {
    /// Makes the folder, if it is not there, and keeps others out until dropped.
    ///
    /// # Errors
    /// Fails if it cannot be written to, or if another command is at it.
    pub fn take(folder: &Path) -> Result<Self, FolderError> {
        let failed = |error| FolderError::Io { folder: folder.to_owned(), error };
        fs::create_dir_all(folder).map_err(failed)?;
        let lock = File::options().create(true).truncate(false).write(true).open(folder.join(LOCK)).map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { folder: folder.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(FolderError::Busy(folder.to_owned())),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Returns the folder of a host.
    pub(super) fn of(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Puts the files of a report into a folder. They have the time at which the report was written.
pub(super) fn put(
    folder: &Path,
    sockets: &str,
    players: Option<&[u8]>,
    written: SystemTime,
) -> Result<(), FolderError> {
    let put = || {
        // Readers of the report look for the players there.
        players.map(|players| report::put(folder, report::PLAYERS, players, Some(written))).transpose()?;
        report::put_sockets(folder, sockets, Some(written))
    };
    put().map_err(|error| FolderError::Io { folder: folder.to_owned(), error })
}

/// Looks at the report that lies in a folder while there is no newer one, and removes it if it is older than `oldest`. The numbers of players
/// stay, which have their times in them.
pub(super) fn look(folder: &Path, now: SystemTime, oldest: Duration) -> Result<OldReport, FolderError> {
    let look = || {
        let written = match fs::metadata(folder.join(report::SOCKETS)) {
            Ok(metadata) => metadata.modified()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(OldReport::None),
            Err(error) => return Err(error),
        };
        // One of the future is from before the clock was set, so its age is not known.
        match now.duration_since(written) {
            Ok(age) if age <= oldest => Ok(OldReport::Kept(age)),
            _ => {
                // Nobody takes sockets without an MD5 for a report.
                for file in [report::MD5, report::SOCKETS] {
                    match fs::remove_file(folder.join(file)) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                        _ => {}
                    }
                }
                Ok(OldReport::Removed)
            }
        }
    };
    look().map_err(|error| FolderError::Io { folder: folder.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("otproxy-pull-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    #[test]
    fn a_report_stays_as_long_as_it_is_young() {
        let (folder, now) = (folder("look"), SystemTime::now());
        assert_eq!(look(&folder, now, MINUTE).unwrap(), OldReport::None);
        put(&folder, "sockets\n", Some(b"players\n"), now - MINUTE).unwrap();
        assert_eq!(fs::metadata(folder.join(report::MD5)).unwrap().modified().unwrap(), now - MINUTE);
        assert_eq!(look(&folder, now, MINUTE).unwrap(), OldReport::Kept(MINUTE));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 3);
        assert_eq!(look(&folder, now + MINUTE, MINUTE).unwrap(), OldReport::Removed);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "the players stay");
        assert_eq!(look(&folder, now + MINUTE, MINUTE).unwrap(), OldReport::None);
        put(&folder, "sockets\n", None, now + MINUTE).unwrap();
        assert_eq!(look(&folder, now, MINUTE).unwrap(), OldReport::Removed, "it is of no time");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn one_command_at_a_time() {
        let folder = folder("lock");
        let first = FolderLock::take(&folder).unwrap();
        assert!(matches!(FolderLock::take(&folder), Err(FolderError::Busy(_))));
        drop(first);
        FolderLock::take(&folder).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert!(matches!(FolderLock::take(Path::new("/proc/none")), Err(FolderError::Io { .. })));
    }
}

//! Detection of changed files: renewed certificates, new tokens.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::error::CertError;
use super::identity::{Identity, IdentityKind};
use otproxy_config::TlsFiles;

/// A value that was read from files, with a watch over them. Its owner decides when to look. A clone looks for itself.
#[derive(Debug, Clone)]
pub struct Watched<T> {
    files: Vec<PathBuf>,
    seen: Vec<Option<FileStamp>>,
    value: T,
    failing: bool,
}

/// The result of a look at the files.
#[derive(Debug)]
pub enum WatchResult<E> {
    /// Nothing has changed since the last report.
    None,
    /// There is a new value.
    Renewed,
    /// The files have changed, and cannot be used. The previous value stays. Reported once for each change, but every look
    /// tries again until it is repaired.
    Unusable(E),
}

impl<T> Watched<T> {
    /// Reads a value by `read`, which reads `files`.
    ///
    /// # Errors
    /// Fails as `read` does.
    pub fn load<E>(files: Vec<PathBuf>, read: impl FnOnce() -> Result<T, E>) -> Result<Self, E> {
        // Stamped before they are read: a change in between is found at the next look.
        let seen = stamps(&files);
        let value = read()?;
        Ok(Self { files, seen, value, failing: false })
    }

    /// Returns the value that was read last.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// Replaces the value that was read, until the next one is.
    pub fn set(&mut self, value: T) {
        self.value = value;
    }

    /// Looks at the files, and reads them by `read` if one has changed. It blocks for as long as the file system does.
    pub fn look<E>(&mut self, read: impl FnOnce() -> Result<T, E>) -> WatchResult<E> {
        let found = stamps(&self.files);
        let changed = found != self.seen;
        // A mode is repaired, and a certificate becomes valid, without any change of the file's content.
        if !changed && !self.failing {
            return WatchResult::None;
        }
        self.seen = found;
        match read() {
            Ok(value) => {
                self.value = value;
                self.failing = false;
                WatchResult::Renewed
            }
            Err(error) => {
                self.failing = true;
                if changed { WatchResult::Unusable(error) } else { WatchResult::None }
            }
        }
    }
}

/// An identity with a watch over its files.
#[derive(Debug, Clone)]
pub struct IdentityWatch {
    files: TlsFiles,
    own: IdentityKind,
    identity: Watched<Identity>,
}

impl IdentityWatch {
    /// Loads an identity, as [`Identity::load`] does.
    ///
    /// # Errors
    /// Fails as that does.
    pub fn load(files: TlsFiles, own: IdentityKind) -> Result<Self, CertError> {
        let TlsFiles { ca, cert, key } = files.clone();
        let identity = Watched::load(vec![ca, cert, key], || Identity::load(&files, own))?;
        Ok(Self { files, own, identity })
    }

    /// Returns the identity that was loaded last.
    pub fn identity(&self) -> &Identity {
        self.identity.value()
    }

    /// Looks at the files, and reads them if one has changed. It blocks for as long as the file system does.
    pub fn look(&mut self) -> WatchResult<CertError> {
        self.look_at(SystemTime::now())
    }

    /// Looks at the files as of a given time.
    pub(super) fn look_at(&mut self, now: SystemTime) -> WatchResult<CertError> {
        self.identity.look(|| Identity::load_at(&self.files, self.own, now))
    }
}

/// The metadata that tells one content of a file from another, and one right to read it from another, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
    /// The time of the last change to content or metadata, which no program can set back.
    changed: (i64, i64),
    mode: u32,
    owner: (u32, u32),
}

/// Returns the stamp of each file as it is now; `None` for one that is not there.
fn stamps(files: &[PathBuf]) -> Vec<Option<FileStamp>> {
    files.iter().map(|file| FileStamp::of(file)).collect()
}

impl FileStamp {
    /// Returns the stamp of a file as it is now; `None` if it does not exist.
    fn of(file: &Path) -> Option<Self> {
        let file = fs::metadata(file).ok()?;
        Some(Self {
            device: file.dev(),
            inode: file.ino(),
            len: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
            mode: file.mode(),
            owner: (file.uid(), file.gid()),
        })
    }
}

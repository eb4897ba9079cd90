//! Detection of renewed certificates.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use super::error::CertError;
use super::identity::{Identity, Own};
use crate::config::TlsFiles;

/// A watch over the files of an identity. Its owner decides when to look. A clone looks for itself.
#[derive(Debug, Clone)]
pub struct Watch {
    files: TlsFiles,
    own: Own,
    identity: Identity,
    seen: [Option<Stamp>; 3],
    failing: bool,
}

/// The result of a look at the files.
#[derive(Debug)]
pub enum Change {
    /// Nothing has changed since the last report.
    None,
    /// There is a new identity.
    Renewed,
    /// The files have changed, and cannot be used. The previous identity stays. Reported once for each change, but
    /// every look tries again until it is repaired.
    Unusable(CertError),
}

/// The metadata that tells one content of a file from another, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

impl Watch {
    /// Loads an identity, as [`Identity::load`] does.
    ///
    /// # Errors
    /// Fails as that does.
    pub fn load(files: TlsFiles, own: Own) -> Result<Self, CertError> {
        // Stamped before they are read: a change in between is found at the next look.
        let seen = stamps(&files);
        let identity = Identity::load(&files, own)?;
        Ok(Self { files, own, identity, seen, failing: false })
    }

    /// Returns the identity that was loaded last.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Looks at the files, and reads them if one has changed. It blocks for as long as the file system does.
    pub fn look(&mut self) -> Change {
        self.look_at(SystemTime::now())
    }

    /// Looks at the files as of a given time.
    pub(super) fn look_at(&mut self, now: SystemTime) -> Change {
        let found = stamps(&self.files);
        let changed = found != self.seen;
        // A certificate that is not valid yet becomes so without any change of its file.
        if !changed && !self.failing {
            return Change::None;
        }
        self.seen = found;
        match Identity::load_at(&self.files, self.own, now) {
            Ok(identity) => {
                self.identity = identity;
                self.failing = false;
                Change::Renewed
            }
            Err(error) => {
                self.failing = true;
                if changed { Change::Unusable(error) } else { Change::None }
            }
        }
    }
}

fn stamps(TlsFiles { ca, cert, key }: &TlsFiles) -> [Option<Stamp>; 3] {
    [ca, cert, key].map(|file| Stamp::of(file))
}

impl Stamp {
    /// Returns the stamp of a file as it is now; `None` if it does not exist.
    pub fn of(file: &Path) -> Option<Self> {
        let file = fs::metadata(file).ok()?;
        let modified = (file.mtime(), file.mtime_nsec());
        Some(Self { device: file.dev(), inode: file.ino(), len: file.len(), modified })
    }
}

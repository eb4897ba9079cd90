//! The folder that is filled: files that are written, and files that are left alone.
//!
//! A manifest beside the files has the hash of each as it was last generated. A file that still has that hash may be
//! replaced by the program; one with another hash was edited, and belongs to the owner.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::hash::Hasher;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use siphasher::sip128::{Hasher128, SipHasher24};

use super::{InitError, failed};
use otproxy_config::without_byte_order_mark;

/// The file of the manifest.
pub(super) const MANIFEST: &str = ".otproxy-init.json";
/// The suffix of a file that is put beside an edited one.
pub const NEW: &str = ".new";

/// The outcome for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileOutcome {
    /// It is new.
    Created,
    /// It already had this content.
    Unchanged,
    /// It was as generated before, and is now as generated.
    Changed,
    /// It was edited by hand, and there was nothing new to write.
    Edited,
    /// It was edited by hand, so the new content is in a file of its own.
    Beside,
}

impl fmt::Display for FileOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Created => "created",
            Self::Unchanged => "unchanged",
            Self::Changed => "changed",
            Self::Edited => "edited",
            Self::Beside => "edited",
        })
    }
}

/// A map of paths to hashes.
type Manifest = BTreeMap<String, String>;

/// The folder, open for one run.
pub(super) struct Folder {
    root: PathBuf,
    manifest: Manifest,
}

impl Folder {
    /// Opens the folder; creates it if needed, for its owner alone, as it holds keys.
    pub fn open(root: &Path) -> Result<Self, InitError> {
        make_folder(root)?;
        let path = root.join(MANIFEST);
        let manifest = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(without_byte_order_mark(&text))
                .map_err(|error| InitError::Manifest { path, error })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Manifest::default(),
            Err(error) => return Err(failed(&path, error)),
        };
        Ok(Self { root: root.to_owned(), manifest })
    }

    /// Returns the folders below it that have or had generated files.
    pub fn folders(&self) -> BTreeSet<&str> {
        self.manifest.keys().filter_map(|path| path.split_once('/')).map(|(folder, _)| folder).collect()
    }

    /// Returns the path of this name in the folder.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Ensures that `path` has this text, unless its owner has edited it.
    pub fn put(&mut self, path: &str, text: &str) -> Result<FileOutcome, InitError> {
        let file = self.path(path);
        if let Some(folder) = file.parent() {
            make_folder(folder)?;
        }
        let hash = hash(text.as_bytes());
        let before = self.manifest.insert(path.to_owned(), hash.clone());
        let there = match fs::read(&file) {
            Ok(there) => there,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                replace(&file, text)?;
                return Ok(FileOutcome::Created);
            }
            Err(error) => return Err(failed(&file, error)),
        };
        if there == text.as_bytes() {
            Ok(FileOutcome::Unchanged)
        } else if before.as_ref() == Some(&self::hash(&there)) {
            replace(&file, text)?;
            Ok(FileOutcome::Changed)
        } else if before == Some(hash) {
            Ok(FileOutcome::Edited)
        } else {
            replace(&self.path(&format!("{path}{NEW}")), text)?;
            Ok(FileOutcome::Beside)
        }
    }

    /// Writes the manifest, once and not after each file: a file written without it counts as unchanged the next time.
    pub fn close(mut self) -> Result<(), InitError> {
        // Files that the owner has removed for good are forgotten.
        let root = self.root.clone();
        self.manifest.retain(|path, _| root.join(path).exists());
        let path = self.path(MANIFEST);
        let mut text =
            serde_json::to_string_pretty(&self.manifest).map_err(io::Error::from).map_err(|e| failed(&path, e))?;
        text.push('\n');
        if fs::read(&path).is_ok_and(|there| there == text.as_bytes()) { Ok(()) } else { replace(&path, &text) }
    }
}

fn make_folder(folder: &Path) -> Result<(), InitError> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| failed(folder, error))
}

/// Writes a file atomically: a reader finds either the old content or the new one.
fn replace(file: &Path, text: &str) -> Result<(), InitError> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = file.with_file_name(name);
    let write = || {
        let mut opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&part)?;
        opened.write_all(text.as_bytes())?;
        opened.sync_all()?;
        fs::rename(&part, file)
    };
    write().map_err(|error| failed(file, error))
}

/// Hashes a text, to tell edited files from others. Forging is no concern, as the folder belongs to its owner.
fn hash(text: &[u8]) -> String {
    let mut hasher = SipHasher24::new();
    hasher.write(text);
    format!("{:032x}", u128::from(hasher.finish128()))
}

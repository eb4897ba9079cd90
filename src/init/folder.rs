//! The folder that is filled: what is written, and what is left alone.
//!
//! A list beside the files has the hash of each as it was generated last. A file that still has that hash is the
//! program's to replace; one that has another was edited, and is the owner's.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::hash::Hasher;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use siphasher::sip128::{Hasher128, SipHasher24};

use super::{InitError, failed};

/// The list of hashes.
const MANIFEST: &str = ".otproxy-init.json";
/// What stands behind the name of a file that is put beside an edited one.
const NEW: &str = ".new";

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was not there.
    Created,
    /// It is as it was.
    Unchanged,
    /// It was as generated before, and is now as generated.
    Changed,
    /// It was edited by hand, and nothing new was to be written.
    Edited,
    /// It was edited by hand: what is new is in a file of its own.
    Beside,
}

impl fmt::Display for Outcome {
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

/// Path to hash.
type Manifest = BTreeMap<String, String>;

/// The folder, open for one run.
pub(super) struct Folder {
    root: PathBuf,
    manifest: Manifest,
}

impl Folder {
    /// Makes it where it is not there: for its owner alone, as there are keys in it.
    pub fn open(root: &Path) -> Result<Self, InitError> {
        make_folder(root)?;
        let path = root.join(MANIFEST);
        let manifest = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| InitError::Manifest { path, error })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Manifest::default(),
            Err(error) => return Err(failed(&path, error)),
        };
        Ok(Self { root: root.to_owned(), manifest })
    }

    /// Folders below it that it has or had files of the set-up in.
    pub fn folders(&self) -> BTreeSet<&str> {
        self.manifest.keys().filter_map(|path| path.split_once('/')).map(|(folder, _)| folder).collect()
    }

    /// The file or folder of this name.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Sees to it that `path` has this text, unless its owner wanted another.
    pub fn put(&mut self, path: &str, text: &str) -> Result<Outcome, InitError> {
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
                return Ok(Outcome::Created);
            }
            Err(error) => return Err(failed(&file, error)),
        };
        if there == text.as_bytes() {
            Ok(Outcome::Unchanged)
        } else if before.as_ref() == Some(&self::hash(&there)) {
            replace(&file, text)?;
            Ok(Outcome::Changed)
        } else if before == Some(hash) {
            Ok(Outcome::Edited)
        } else {
            replace(&self.path(&format!("{path}{NEW}")), text)?;
            Ok(Outcome::Beside)
        }
    }

    /// Writes the list down. Not at each file: what was written without it counts as unchanged the next time.
    pub fn close(mut self) -> Result<(), InitError> {
        // What the owner has removed for good is forgotten.
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

/// Writes a file in one step: who reads it meanwhile finds the one or the other.
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

/// Tells edited files from others. Nobody is kept from forging it: the folder is its owner's.
fn hash(text: &[u8]) -> String {
    let mut hasher = SipHasher24::new();
    hasher.write(text);
    format!("{:032x}", u128::from(hasher.finish128()))
}

//! State that is kept over restarts: named files of JSON in one folder, each written whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::warn;

/// Bytes of a file that are read at the most. A file of more is as good as broken.
pub const MAX_STATE: u64 = 1 << 20;

/// The folder of what is kept, or none: then nothing is read, and nothing is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir(Option<PathBuf>);

/// The reason why something was not kept.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be written: {source}; {}", path.display(), remedy(source))]
pub struct StateError {
    path: PathBuf,
    source: io::Error,
}

/// Returns what to do about an error.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            "make that folder, or leave `state_dir` to systemd's StateDirectory"
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "give the folder to the user of the service; in the shipped unit leave `state_dir` out, or add ReadWritePaths="
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room there: `df -h`",
        _ => "see the folder and its file system",
    }
}

impl StateDir {
    /// Returns what is kept in `folder`.
    #[must_use]
    pub fn new(folder: Option<&Path>) -> Self {
        Self(folder.map(Path::to_owned))
    }

    /// Returns its folder, if there is one.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        self.0.as_deref()
    }

    /// Reads what was kept under this name, a file's. A broken file is set aside, as `NAME.broken`, with a warning.
    #[must_use]
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let path = self.0.as_ref()?.join(name);
        let broken = match read_limited(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(kept) => return Some(kept),
                Err(error) => io::Error::from(error),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => error,
        };
        let file = path.display();
        // A file that cannot be read may be whole: nothing is done to it.
        if !matches!(broken.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) {
            warn!(%file, error = %broken, "what was kept cannot be read; give the file to the user of the service");
            return None;
        }
        let aside = beside(&path, ".broken");
        match fs::rename(&path, &aside) {
            Ok(()) => warn!(%file, aside = %aside.display(), error = %broken, "what was kept is broken, and set aside"),
            Err(failed) => warn!(%file, error = %broken, %failed, "what was kept is broken"),
        }
        None
    }

    /// Keeps `value` under this name, in place of what was there. A reader finds either that or this.
    ///
    /// # Errors
    /// Returns the reason, with its remedy; what was kept before is there still.
    pub fn write(&self, name: &str, value: &impl Serialize) -> Result<(), StateError> {
        let Some(folder) = &self.0 else { return Ok(()) };
        let (path, part) = (folder.join(name), folder.join(format!(".{name}.part")));
        let written = serde_json::to_vec(value).map_err(io::Error::from).and_then(|text| {
            create(&part, &text)?;
            fs::rename(&part, &path)?;
            // The name is kept as well. Not every file system can say so.
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
            Ok(())
        });
        written.map_err(|source| {
            let _ = fs::remove_file(&part);
            StateError { path, source }
        })
    }

    /// Tries whether anything can be kept.
    ///
    /// # Errors
    /// Returns the reason why not, with its remedy.
    pub fn check(&self) -> Result<(), StateError> {
        let Some(folder) = &self.0 else { return Ok(()) };
        let trial = folder.join(format!(".trial.{}", std::process::id()));
        let written = create(&trial, b"{}");
        let _ = fs::remove_file(&trial);
        written.map_err(|source| StateError { path: folder.clone(), source })
    }
}

fn read_limited(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_STATE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_STATE {
        return Err(io::Error::new(ErrorKind::InvalidData, format!("it has more than {MAX_STATE} bytes")));
    }
    Ok(bytes)
}

fn create(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder that is removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("otproxy-state-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir(&folder).unwrap();
            Self(folder)
        }

        fn state(&self) -> StateDir {
            StateDir::new(Some(&self.0))
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<_> =
                fs::read_dir(&self.0).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = Folder::new("whole");
        let state = folder.state();
        assert_eq!(state.read::<Vec<u32>>("a.json"), None, "nothing was kept");
        state.check().unwrap();
        for kept in [vec![1, 2, 3], vec![4]] {
            state.write("a.json", &kept).unwrap();
            assert_eq!(state.read("a.json"), Some(kept));
        }
        assert_eq!(folder.names(), ["a.json"]);
    }

    #[test]
    fn without_a_folder_nothing_is_kept() {
        let state = StateDir::new(None);
        state.check().unwrap();
        state.write("a.json", &1).unwrap();
        assert_eq!(state.read::<u32>("a.json"), None);
    }

    #[test]
    fn a_broken_file_is_set_aside() {
        let folder = Folder::new("broken");
        let long = " ".repeat(MAX_STATE as usize) + "1";
        for text in ["", "{", "\"text\"", "\0\0\0\0", &long] {
            fs::write(folder.0.join("a.json"), text).unwrap();
            assert_eq!(folder.state().read::<u32>("a.json"), None);
            assert_eq!(folder.names(), ["a.json.broken"]);
        }
        folder.state().write("a.json", &1).unwrap();
        assert_eq!(folder.state().read("a.json"), Some(1u32));
    }

    #[test]
    fn a_folder_that_is_none_is_said_with_a_remedy() {
        let folder = Folder::new("none");
        let state = StateDir::new(Some(&folder.0.join("missing")));
        for error in [state.check().unwrap_err(), state.write("a.json", &1).unwrap_err()] {
            let text = error.to_string();
            assert!(text.contains("missing") && text.contains("; make that folder"), "{text}");
        }
        fs::write(folder.0.join("file"), "").unwrap();
        let text = StateDir::new(Some(&folder.0.join("file"))).check().unwrap_err().to_string();
        assert!(text.contains("; make that folder"), "{text}");
    }

    #[test]
    fn a_full_disk_leaves_what_was_kept() {
        let folder = Folder::new("full");
        folder.state().write("a.json", &1).unwrap();
        symlink("/dev/full", folder.0.join(".a.json.part")).unwrap();
        let text = folder.state().write("a.json", &2).unwrap_err().to_string();
        assert!(text.contains("; make room there"), "{text}");
        assert_eq!(folder.state().read("a.json"), Some(1u32));
        assert_eq!(folder.names(), ["a.json"]);
    }

    #[test]
    fn a_folder_without_rights_is_said_with_a_remedy() {
        let error = StateError { path: "/x".into(), source: ErrorKind::PermissionDenied.into() };
        assert!(error.to_string().contains("; give the folder to the user of the service"), "{error}");
    }
}

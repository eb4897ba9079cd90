//! A folder of one test, and files of the repository that are held against what is made.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// An empty folder, which is removed with this. Its path is short, as those of sockets are.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("otproxy-test-{}-{number}", std::process::id()));
        // What an earlier process of that number has left.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).expect("writable");
        Self(path)
    }
}

impl Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for Folder {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Compares a file of the repository with what the program made, or writes it there.
pub fn assert_golden(path: &Path, made: &str) {
    if std::env::var_os("OTPROXY_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
        std::fs::write(path, made).expect("writable");
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(made, expected, "{} differs; OTPROXY_BLESS=1 rewrites it", path.display());
}

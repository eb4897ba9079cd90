//! Certificates of each kind, and handshakes with them in memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use super::authority::{Authority, IssueTerms, KeyFile};
use super::certificate::{Certificate, Validity, days};
use super::identity::{Identity, IdentityKind};
use super::name::Name;
use super::{CertError, certificates};
use otproxy_config::TlsFiles;

mod handshakes;
mod issuing;
mod loading;
mod operators;
mod watching;

/// A directory of a test's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("otproxy-certs-{}-{number}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn tls(&self, name: &str) -> TlsFiles {
        TlsFiles {
            ca: self.file("ca.pem"),
            cert: self.file(&format!("{name}.pem")),
            key: self.file(&format!("{name}.key")),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An authority, with certificates for the core and the edge `waw1`.
struct Operator {
    folder: Folder,
    authority: Authority,
}

impl Operator {
    fn new() -> Self {
        let folder = Folder::new();
        let authority = Authority::create(&folder.0, 10).unwrap();
        let operator = Self { folder, authority };
        operator.issue(&Name::core());
        operator.issue(&edge("waw1"));
        operator
    }

    fn issue(&self, name: &Name) {
        self.authority.issue(name, &self.folder.0, IssueTerms::default()).unwrap();
    }

    fn identity(&self, own: IdentityKind) -> Result<Identity, CertError> {
        Identity::load(&self.folder.tls(own_file(own)), own)
    }

    /// Loads an identity that is valid only at another time.
    fn identity_at(&self, own: IdentityKind, now: SystemTime) -> Identity {
        let name = if own == IdentityKind::Core { Name::core() } else { edge("waw1") };
        self.authority.issue_at(&name, &self.folder.0, IssueTerms::default(), now).unwrap();
        Identity::load_at(&self.folder.tls(own_file(own)), own, now).unwrap()
    }
}

fn own_file(own: IdentityKind) -> &'static str {
    if own == IdentityKind::Core { "core" } else { "waw1" }
}

fn edge(name: &str) -> Name {
    Name::edge(name).unwrap()
}

fn facts(file: &Path) -> Certificate {
    Certificate::parse(&certificates(file).unwrap()[0]).unwrap()
}

fn text(file: &Path) -> String {
    fs::read_to_string(file).unwrap()
}

//! The owner's authority, and a certificate with its key for each host.
//!
//! Valid files stay. A certificate that expires soon is issued anew, for the existing key.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::folder::{FileOutcome, Folder};
use super::host::Host;
use super::{InitError, failed};
use crate::certs::authority::{Authority, IssueTerms, KeyFile, YEARS};

/// The authority's folder.
const FOLDER: &str = "ca";
/// Days before its expiry from which on a certificate is issued anew.
pub const RENEW_DAYS: u64 = 90;

/// The authority, for one run.
pub(super) struct Certificates {
    authority: Authority,
    /// Its certificate, which every host gets.
    pub ca: String,
    created: bool,
}

impl Certificates {
    /// Opens the authority of a folder; creates one if there is none.
    pub fn open(folder: &Folder) -> Result<Self, InitError> {
        let directory = folder.path(FOLDER);
        let [certificate, key] = ["ca.pem", "ca.key"].map(|file| directory.join(file));
        let created = !Authority::exists(&directory);
        if !created && !key.exists() {
            return Err(InitError::NoKey(key));
        }
        let authority = if created { Authority::create(&directory, YEARS)? } else { Authority::open(&directory)? };
        let ca = fs::read_to_string(&certificate).map_err(|error| failed(&certificate, error))?;
        Ok(Self { authority, ca, created })
    }

    /// Returns the authority's own files, with their outcomes.
    pub fn own(&self) -> [(String, FileOutcome); 2] {
        let outcome = if self.created { FileOutcome::Created } else { FileOutcome::Unchanged };
        ["ca.pem", "ca.key"].map(|file| (format!("{FOLDER}/{file}"), outcome))
    }

    /// Ensures that a host has a certificate with its key; returns both files with their outcomes.
    pub fn issue(&self, host: &Host<'_>, folder: &Folder) -> Result<[(String, FileOutcome); 2], InitError> {
        let name = host.name();
        let directory = folder.path(&host.folder());
        let (certificate, key) = if self.authority.is_current(&name, &directory, self.renew_before()) {
            (FileOutcome::Unchanged, FileOutcome::Unchanged)
        } else {
            let there = directory.join(format!("{name}.pem")).exists();
            let issued = self.authority.issue(&name, &directory, IssueTerms::default())?;
            let key = match issued.key_file {
                KeyFile::Made => FileOutcome::Created,
                KeyFile::Kept => FileOutcome::Unchanged,
                KeyFile::Replaced => FileOutcome::Changed,
            };
            (if there { FileOutcome::Changed } else { FileOutcome::Created }, key)
        };
        let file = |ending| format!("{}/{name}.{ending}", host.folder());
        Ok([(file("pem"), certificate), (file("key"), key)])
    }

    /// Returns the time left below which a certificate is renewed. One that ends together with its authority would gain
    /// nothing from it.
    fn renew_before(&self) -> Duration {
        let left = self.authority.certificate().not_after.duration_since(SystemTime::now()).unwrap_or_default();
        left.min(Duration::from_secs(RENEW_DAYS * 24 * 60 * 60))
    }

    /// Returns notes about the authority for the owner.
    pub fn notes(&self) -> Option<String> {
        let left = self.authority.certificate().days_left(SystemTime::now());
        let soon = i64::try_from(RENEW_DAYS).is_ok_and(|days| left < days);
        soon.then(|| format!("the authority in {FOLDER}/ ends in {left} days, and all certificates with it"))
    }
}

/// Returns the remedy if other users than the owner may read a key.
pub(super) fn exposed(path: &Path) -> Result<Option<String>, InitError> {
    match fs::metadata(path) {
        Ok(file) if file.permissions().mode() & 0o077 != 0 => {
            Ok(Some(format!("others can read {0}: chmod 600 {0}", path.display())))
        }
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path, error)),
    }
}

//! The unit of systemd that runs a role: its user, and the files that this user cannot read.
//!
//! A person tries a file as root, and the service then reads it as somebody else. So `check` and `doctor` look at files with
//! the eyes of the unit's user, and errors name the remedy that fits that user: one that exists owns its secrets, one that
//! systemd makes at each start gets them as credentials.

mod account;
mod files;
mod reader;
mod settings;

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

pub use files::{NamedFile, files};
pub use reader::SecretReader;

use account::{Account, Accounts, FileMode};
use otproxy_config::{Config, RoleKind};
use settings::UnitSettings;

/// The user that a unit runs as.
#[derive(Debug)]
pub struct UnitUser {
    unit: String,
    name: String,
    /// Its ids; `None` for a user that systemd makes when the unit starts.
    account: Option<Account>,
    /// Groups of the unit beside those of the user.
    groups: Vec<u32>,
    /// The credentials that systemd hands over, by name.
    credentials: Vec<String>,
}

/// A file that the unit's user cannot read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableFile {
    /// The file.
    pub file: PathBuf,
    /// The problem.
    pub problem: String,
    /// The remedy.
    pub remedy: String,
}

impl fmt::Display for UnreadableFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.file.display(), self.problem, self.remedy)
    }
}

/// Returns the name of a role's unit.
pub fn name(role: RoleKind) -> String {
    format!("otproxy-{role}.service")
}

/// Returns the files of a configuration that its unit's user cannot read, the configuration's own file first. None if the
/// unit runs another file, if there is no unit, or if it is not for this user to say: only root sees all files.
pub fn unreadable(config: &Config, file: &Path) -> Vec<UnreadableFile> {
    if !geteuid().is_root() {
        return Vec::new();
    }
    UnitUser::under(Path::new("/"), config.role(), file).map(|user| user.unreadable(config, file)).unwrap_or_default()
}

impl UnitUser {
    /// Returns the user of the unit that runs this configuration file, as the files below `root` say; `None` if there is no
    /// such unit, or if it runs as root.
    pub fn under(root: &Path, role: RoleKind, config: &Path) -> Option<Self> {
        let unit = name(role);
        let settings = UnitSettings::read(root, &unit)?;
        let same = |path: &str| path == config.as_os_str() || same_file(Path::new(path), config);
        if !settings.configs().any(same) {
            return None;
        }
        let accounts = Accounts::read(root);
        let name = settings.user.clone().or_else(|| settings.dynamic.then(|| unit.replace(".service", "")))?;
        let account = accounts.user(&name);
        if account.as_ref().is_some_and(|account| account.uid == 0) {
            return None;
        }
        let groups = settings.groups.iter().filter_map(|group| accounts.group(group)).collect();
        Some(Self { unit, name, account, groups, credentials: settings.credentials })
    }

    /// Returns the files of a configuration that this user cannot read, the configuration's own file first.
    pub fn unreadable(&self, config: &Config, file: &Path) -> Vec<UnreadableFile> {
        let own = NamedFile { path: file.to_owned(), secret: false };
        [own].into_iter().chain(files(config)).filter_map(|file| self.cannot_read(&file)).collect()
    }

    /// Returns the reason why this user cannot read a file, and the remedy. A file that is not there is no such reason.
    pub fn cannot_read(&self, file: &NamedFile) -> Option<UnreadableFile> {
        let path = file.path.as_path();
        let credential = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if file.secret && self.credentials.iter().any(|name| name == credential) {
            return None;
        }
        let real = fs::canonicalize(path).ok()?;
        let shown = path.display();
        let by = format!("the user `{}`, as which {} runs", self.name, self.unit);
        let unreadable = |problem, remedy| Some(UnreadableFile { file: path.to_owned(), problem, remedy });
        let folders: Vec<_> = real.ancestors().skip(1).collect();
        if let Some(closed) = folders.into_iter().rev().find(|folder| !self.may(folder, FileMode::ENTER)) {
            let problem = format!("its folder {} cannot be entered by {by}", closed.display());
            return unreadable(problem, format!("run `chmod a+x {}`", closed.display()));
        }
        if self.may(&real, FileMode::READ) {
            return None;
        }
        let remedy = match (file.secret, &self.account) {
            (false, _) => format!("run `chmod a+r {shown}`"),
            (true, Some(_)) => SecretReader::Account(self.name.clone()).give(path),
            (true, None) => SecretReader::Dynamic.give(path),
        };
        unreadable(format!("cannot be read by {by}"), remedy)
    }

    /// Returns whether the user may do this with a file, or may have a right that its mode does not tell.
    fn may(&self, path: &Path, wanted: u32) -> bool {
        let Ok(meta) = fs::metadata(path) else { return true };
        let mode = FileMode { uid: meta.uid(), gid: meta.gid(), mode: meta.mode() };
        mode.allows(self.account.as_ref(), &self.groups, wanted) || account::has_list(path)
    }
}

/// Returns whether two paths lead to the same file.
fn same_file(one: &Path, other: &Path) -> bool {
    matches!((fs::canonicalize(one), fs::canonicalize(other)), (Ok(one), Ok(other)) if one == other)
}

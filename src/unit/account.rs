//! Accounts of a host, and what the mode of a file allows them.

use std::fs;
use std::path::Path;

use rustix::io::Errno;

/// A user with the groups that it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub uid: u32,
    pub gids: Vec<u32>,
}

/// The users and groups of a host, as its files list them. A user that systemd makes for a running service is in neither.
#[derive(Debug)]
pub(super) struct Accounts {
    passwd: String,
    group: String,
}

impl Accounts {
    /// Reads `etc/passwd` and `etc/group` below `root`.
    pub fn read(root: &Path) -> Self {
        let text = |file: &str| fs::read_to_string(root.join("etc").join(file)).unwrap_or_default();
        Self { passwd: text("passwd"), group: text("group") }
    }

    /// Returns a user by name, or by number if no user has that name.
    pub fn user(&self, name: &str) -> Option<Account> {
        let by = |field: usize| rows(&self.passwd).find(move |row| row.get(field) == Some(&name));
        let row = by(0).or_else(|| by(2))?;
        let (name, uid, gid) = (row.first()?, row.get(2)?.parse().ok()?, row.get(3)?.parse().ok()?);
        let lists =
            |row: &Vec<&str>| row.get(3).is_some_and(|members| members.split(',').any(|member| member == *name));
        let more = rows(&self.group).filter(lists).filter_map(|row| row.get(2)?.parse().ok());
        Some(Account { uid, gids: [gid].into_iter().chain(more).collect() })
    }

    /// Returns the number of a group.
    pub fn group(&self, name: &str) -> Option<u32> {
        let found = rows(&self.group).find(|row| row.first() == Some(&name));
        found.and_then(|row| row.get(2)?.parse().ok()).or_else(|| name.parse().ok())
    }

    /// Returns the name of a user.
    pub fn name(&self, uid: u32) -> Option<&str> {
        let uid = uid.to_string();
        rows(&self.passwd).find(|row| row.get(2) == Some(&uid.as_str()))?.first().copied()
    }
}

fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

/// The owner and the mode of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileMode {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
}

impl FileMode {
    /// The right to read a file.
    pub const READ: u32 = 0o4;
    /// The right to enter a folder.
    pub const ENTER: u32 = 0o1;

    /// Returns whether it gives this right to a user. As in the kernel the first of owner, group and others that fits
    /// decides alone.
    pub fn allows(&self, user: Option<&Account>, groups: &[u32], wanted: u32) -> bool {
        let in_group = groups.contains(&self.gid) || user.is_some_and(|user| user.gids.contains(&self.gid));
        let shift = match user {
            Some(user) if user.uid == self.uid => 6,
            _ if in_group => 3,
            _ => 0,
        };
        (self.mode >> shift) & wanted == wanted
    }
}

/// Returns whether a file has a list of access rights beside its mode.
pub(super) fn has_list(path: &Path) -> bool {
    // Only the size is asked for. A file system that has no such lists, and a file without one, is an error.
    let size: Result<usize, Errno> = rustix::fs::getxattr(path, c"system.posix_acl_access", &mut [0u8; 0]);
    size.is_ok_and(|size| size > 0)
}

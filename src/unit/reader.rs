//! The user that reads secret files, and the commands that give them to it.

use std::env;
use std::path::Path;

use rustix::process::geteuid;

use super::account::Accounts;
use super::settings::UnitSettings;
use otproxy_config::RoleKind;

/// The user that the units run as, if it exists.
const USER: &str = "otproxy";

/// The user that is to read secret files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretReader {
    /// A user of the host, which owns them.
    Account(String),
    /// A user that systemd makes while the service runs. It can own no file, and gets them as credentials.
    Dynamic,
}

impl SecretReader {
    /// Returns the user of this process; or of the service, if it is root who looks.
    pub fn here() -> Self {
        let uid = geteuid().as_raw();
        Self::of(Path::new("/"), uid, env::var_os("INVOCATION_ID").is_some())
    }

    /// Returns the same for a process of this user, on the host below `root`. systemd may have started it.
    pub(super) fn of(root: &Path, uid: u32, by_systemd: bool) -> Self {
        let accounts = Accounts::read(root);
        if uid != 0 {
            return match accounts.name(uid) {
                Some(name) => Self::Account(name.to_owned()),
                None if by_systemd => Self::Dynamic,
                None => Self::Account(uid.to_string()),
            };
        }
        if accounts.user(USER).is_some() {
            return Self::Account(USER.to_owned());
        }
        let units = [RoleKind::Edge, RoleKind::Core]
            .into_iter()
            .filter_map(|role| UnitSettings::read(root, &super::name(role)));
        match units.into_iter().next() {
            Some(UnitSettings { user: Some(user), .. }) if accounts.user(&user).is_some() => Self::Account(user),
            Some(UnitSettings { dynamic: true, .. }) => Self::Dynamic,
            _ => Self::Account("root".to_owned()),
        }
    }

    /// Returns how to make a token that this user, and nobody else, can read.
    pub fn make(&self, file: &Path) -> String {
        let shown = file.display();
        match self {
            Self::Account(user) => {
                format!("make one: `install -m 600 -o {user} /dev/null {shown} && openssl rand -hex 32 > {shown}`")
            }
            Self::Dynamic => format!("make one: `openssl rand -hex 32 > {shown}`; then {}", self.give(file)),
        }
    }

    /// Returns how to let this user, and nobody else, read a secret that is there.
    pub fn give(&self, file: &Path) -> String {
        let shown = file.display();
        match self {
            Self::Account(user) => format!("run `chown {user} {shown} && chmod 600 {shown}`"),
            Self::Dynamic => {
                let name = file.file_name().unwrap_or_default().display();
                format!(
                    "run `chmod 600 {shown}`, and have systemd hand it over, as its own user can own no file: \
                     `LoadCredential={name}:{shown}` under `[Service]` of the unit (`systemctl edit`)"
                )
            }
        }
    }
}

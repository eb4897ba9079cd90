//! The settings of a unit that decide which files its service can read.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The folders of units, the first of which overrides the others.
const FOLDERS: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];

/// The settings of a unit, of its file and of all its drop-ins.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct UnitSettings {
    pub user: Option<String>,
    /// True if systemd makes the user where there is none of that name.
    pub dynamic: bool,
    /// `Group=` and `SupplementaryGroups=`
    pub groups: Vec<String>,
    /// The names of its credentials.
    pub credentials: Vec<String>,
    /// The words of its command lines.
    commands: Vec<String>,
}

impl UnitSettings {
    /// Reads a unit of this name below `root`; `None` if there is none.
    pub fn read(root: &Path, unit: &str) -> Option<Self> {
        let mut settings = Self::default();
        settings.take(&FOLDERS.iter().find_map(|folder| fs::read_to_string(root.join(folder).join(unit)).ok())?);
        // A drop-in is overridden by one of the same name in an earlier folder, and all are in the order of their names.
        let mut drop_ins = BTreeMap::new();
        for folder in FOLDERS.iter().rev() {
            let entries = fs::read_dir(root.join(folder).join(format!("{unit}.d"))).into_iter().flatten().flatten();
            let entries = entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "conf"));
            drop_ins.extend(entries.map(|entry| (entry.file_name(), entry.path())));
        }
        drop_ins.values().filter_map(|file| fs::read_to_string(file).ok()).for_each(|text| settings.take(&text));
        Some(settings)
    }

    /// Takes up the settings of one file.
    pub fn take(&mut self, text: &str) {
        let joined = text.replace("\\\n", " ");
        let mut section = "";
        for line in joined.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
            if line.starts_with('[') {
                section = line;
            } else if let Some((key, value)) = line.split_once('=')
                && section == "[Service]"
            {
                self.set(key.trim(), value.trim());
            }
        }
    }

    fn set(&mut self, key: &str, value: &str) {
        let name = || value.split_once(':').map_or(value, |(name, _)| name).to_owned();
        // What is empty takes back all that was said before.
        let list = match key {
            "User" => return self.user = (!value.is_empty()).then(|| value.to_owned()),
            "DynamicUser" => {
                return self.dynamic = ["yes", "true", "on", "1"].contains(&value.to_ascii_lowercase().as_str());
            }
            "Group" | "SupplementaryGroups" => &mut self.groups,
            "ExecStart" => &mut self.commands,
            "LoadCredential" | "LoadCredentialEncrypted" | "SetCredential" | "SetCredentialEncrypted" => {
                &mut self.credentials
            }
            _ => return,
        };
        match key {
            _ if value.is_empty() => list.clear(),
            "Group" | "SupplementaryGroups" | "ExecStart" => list.extend(value.split_whitespace().map(str::to_owned)),
            _ => list.push(name()),
        }
    }

    /// Returns the configuration files that its command lines name.
    pub fn configs(&self) -> impl Iterator<Item = &str> {
        let words = self.commands.iter().map(String::as_str);
        words.clone().zip(words.skip(1)).filter_map(|(flag, file)| match flag {
            "-c" | "--config" => Some(file),
            _ => file.strip_prefix("--config="),
        })
    }
}

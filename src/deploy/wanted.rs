//! The files and the program that a host is to have, and those that are missing there.

use std::path::Path;

use ring::digest::{Context, SHA256};

use super::found::Found;
use super::plan::{DeployOptions, FirewallChoice, ProgramChoice, Step};
use super::script::{NEW_PROGRAM, PROGRAM, RULES_FILE};
use crate::init::{Host, NEW, RULES, installed, unit_place};
use otproxy_config::Topology;

/// The table of the rules that `otproxy init` makes.
const TABLE: &str = "table inet otproxy";

/// A host as it is to be.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    program: ProgramChoice,
    /// Each file's place, and its hash.
    files: Vec<(String, String)>,
    /// The unit's place. A package brings a unit of its own, and `install.sh` leaves it that one.
    unit: String,
    rules: Option<WantedRules>,
}

#[derive(Debug, Clone)]
struct WantedRules {
    text: String,
    /// Ports that the rules close on purpose: those of the game server, which edges lead to.
    closed: Vec<u16>,
    replaces: bool,
    /// The file, for messages.
    file: String,
}

/// The reason why a host's files cannot be copied as they are, with the remedy.
pub(super) type Obstacle = String;

impl Wanted {
    /// Reads the files of a host.
    pub fn read(
        topology: &Topology,
        host: &Host<'_>,
        folder: &Path,
        options: &DeployOptions,
    ) -> Result<Self, Obstacle> {
        let read = |name: &str| {
            let path = folder.join(name);
            let waiting = folder.join(format!("{name}{NEW}"));
            if waiting.exists() {
                return Err(format!(
                    "{} was edited by hand, and {} has new text for it; take over what is new, and remove that file",
                    path.display(),
                    waiting.display()
                ));
            }
            std::fs::read(&path).map_err(|error| format!("{}: {error}; run `otproxy init` again", path.display()))
        };
        let installed = installed(host).into_iter();
        let files =
            installed.map(|file| Ok((file.place, sha256(&read(&file.name)?)))).collect::<Result<_, Obstacle>>()?;
        let unit = unit_place(host);
        let rules = match options.firewall_of(host) {
            FirewallChoice::Leave => None,
            choice => Some(WantedRules {
                text: String::from_utf8_lossy(&read(RULES)?).into_owned(),
                closed: closed(topology, host),
                replaces: choice == FirewallChoice::Replace,
                file: folder.join(RULES).display().to_string(),
            }),
        };
        Ok(Self { program: options.program.clone(), files, unit, rules })
    }

    /// Returns which steps are needed on a host.
    pub fn missing(&self, found: &Found) -> Result<Vec<Step>, Obstacle> {
        if !found.is_root {
            return Err("commands do not run as root there; log in as root, or give `--sudo`".to_owned());
        }
        let (program, has_new) = match &self.program {
            ProgramChoice::File { sha256, machine, .. } => {
                if let Some(machine) = machine.filter(|machine| !found.is_machine(machine)) {
                    return Err(format!(
                        "its machine is {}, and this program is for {machine}; give one that was built for it with `--program FILE`, and \
                         the host with `--edge` or `--core`",
                        found.machine
                    ));
                }
                (!found.has(PROGRAM, sha256), found.has(NEW_PROGRAM, sha256))
            }
            ProgramChoice::Package { version, .. } => (version.is_none() || found.package != *version, false),
        };
        let is_packaged = self.program.is_package() || found.package.is_some();
        let own = self.files.iter().filter(|(place, _)| !(is_packaged && *place == self.unit));
        let files = program || !found.is_active || own.into_iter().any(|(place, hash)| !found.has(place, hash));
        let mut steps = Vec::new();
        if program && !has_new {
            steps.push(if self.program.is_package() { Step::Package } else { Step::Program });
        }
        if files {
            steps.extend([Step::Files, Step::Install]);
        }
        if let Some(rules) = &self.rules
            && !(found.has(RULES_FILE, &sha256(rules.text.as_bytes()))
                && found.rules_at_boot
                && found.tables.iter().any(|table| table == TABLE))
        {
            rules.examine(found)?;
            steps.extend([Step::Load, Step::Confirm]);
        }
        Ok(steps)
    }
}

impl WantedRules {
    /// Returns an error if the rules would take away something that the host has and nobody has looked at.
    fn examine(&self, found: &Found) -> Result<(), Obstacle> {
        if self.replaces {
            return Ok(());
        }
        let file = &self.file;
        let lost: Vec<_> = found.tables.iter().filter(|table| !self.text.contains(table.as_str())).cloned().collect();
        if !lost.is_empty() {
            return Err(format!(
                "its firewall has more than {file} has: {}; add what is needed of it there, then give `--replace-firewall`; or leave \
                 the firewall alone with `--no-firewall`",
                lost.join(", ")
            ));
        }
        // Once they are loaded, what they close is closed.
        let is_first = found.tables.iter().all(|table| table != TABLE);
        let named = |port: &u16| {
            let words = self.text.split(|c: char| !c.is_ascii_digit());
            words.into_iter().any(|word| word == port.to_string()) || self.closed.contains(port)
        };
        let closes: Vec<_> = found.listens.iter().filter(|port| is_first && !named(port)).map(u16::to_string).collect();
        if !closes.is_empty() {
            return Err(format!(
                "programs listen there at ports that {file} closes: {}; add those that others need, then give `--replace-firewall`; or \
                 leave the firewall alone with `--no-firewall`",
                closes.join(", ")
            ));
        }
        Ok(())
    }
}

impl Found {
    /// Returns whether it is a machine of this name, as Rust calls it.
    fn is_machine(&self, name: &str) -> bool {
        let same = match name {
            "x86" => &["i386", "i486", "i586", "i686"][..],
            "arm" => &["armv6l", "armv7l", "armv8l"],
            "powerpc64" => &["ppc64", "ppc64le"],
            _ => &[],
        };
        self.machine == name || same.contains(&self.machine.as_str())
    }
}

/// Returns the ports of the game server on the core's host. Players come through the edges.
fn closed(topology: &Topology, host: &Host<'_>) -> Vec<u16> {
    let Host::Core = host else { return Vec::new() };
    let own = [Some(&topology.login), topology.status.as_ref()].into_iter().flatten();
    own.chain(topology.worlds.iter().map(|world| &world.address)).map(|address| address.port).collect()
}

/// Returns a SHA-256 as `sha256sum` writes it.
pub(super) fn sha256(bytes: &[u8]) -> String {
    let mut context = Context::new(&SHA256);
    context.update(bytes);
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

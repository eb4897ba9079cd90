//! The plan: for each host the commands in their order.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use otproxy_protocol::words;

use super::command::{Input, LocalCommand};
use super::error::DeployError;
use super::quote::quoted;
use super::reach::Way;
use super::script;
use super::wanted::Wanted;
use crate::init::{Host, INSTALL, RULES, installed, unit_name};
use otproxy_config::Topology;

words! {
    /// A step of a host.
    pub enum Step {
        /// It is asked what it has.
        Look = "look",
        /// The program is copied.
        Program = "program",
        /// The package is copied and installed.
        Package = "package",
        /// The files are copied.
        Files = "files",
        /// The files are put in place, and the service is started.
        Install = "install",
        /// The firewall is loaded, for a minute.
        Load = "firewall",
        /// The firewall is confirmed.
        Confirm = "confirm",
        /// The firewall is taken back.
        Undo = "undo",
        /// The host is tried as it was set up.
        Doctor = "doctor",
    }
}

impl Step {
    /// Returns what there is in its place where it is not needed; `None` if another step says so.
    pub(super) fn in_place(self) -> Option<&'static str> {
        match self {
            Self::Program => Some("the program is"),
            Self::Package => Some("the package is"),
            Self::Files => Some("the files are"),
            Self::Load => Some("the firewall is"),
            Self::Look | Self::Install | Self::Confirm | Self::Undo | Self::Doctor => None,
        }
    }

    /// Returns what it does, for people.
    pub(super) fn does(self) -> &'static str {
        match self {
            Self::Look => "looks what is in place",
            Self::Program => "copies the program",
            Self::Package => "copies the package and installs it",
            Self::Files => "copies the files",
            Self::Install => "installs the files",
            Self::Load => "loads the firewall, which the host undoes unless it is confirmed",
            Self::Confirm => "confirms the firewall over a new connection",
            Self::Undo => "takes the firewall back",
            Self::Doctor => "tries whether all is well",
        }
    }
}

/// The hosts to deploy to.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// The names of edges.
    pub edges: Vec<String>,
    /// The core.
    pub core: bool,
}

impl Selection {
    /// Returns whether a host is among them. Without any, all are.
    fn has(&self, host: &Host<'_>) -> bool {
        let all = self.edges.is_empty() && !self.core;
        let name = host.name();
        all || match host {
            Host::Core => self.core,
            Host::Edge(_) => self.edges.iter().any(|edge| edge == name.as_str()),
        }
    }
}

/// The program that hosts get.
#[derive(Debug, Clone)]
pub enum ProgramChoice {
    /// A program, copied as it is.
    File {
        /// The file.
        path: PathBuf,
        /// Its hash.
        sha256: String,
        /// The machine that it is for, where that is known.
        machine: Option<&'static str>,
    },
    /// A package of Debian's kind.
    Package {
        /// The file.
        path: PathBuf,
        /// Its hash.
        sha256: String,
        /// Its version and architecture, as `0.1.0_amd64`, where the file's name has them.
        version: Option<String>,
    },
}

impl ProgramChoice {
    /// Reads a program. `machine` is what it is for, where that is known.
    ///
    /// # Errors
    /// Fails if it cannot be read.
    pub fn file(path: &Path, machine: Option<&'static str>) -> std::io::Result<Self> {
        let sha256 = super::wanted::sha256(&std::fs::read(path)?);
        Ok(Self::File { path: path.to_owned(), sha256, machine })
    }

    /// Reads a package.
    ///
    /// # Errors
    /// Fails if it cannot be read.
    pub fn package(path: &Path) -> std::io::Result<Self> {
        let sha256 = super::wanted::sha256(&std::fs::read(path)?);
        // As in otproxy_0.1.0_amd64.deb.
        let name = path.file_name().and_then(|name| name.to_str());
        let version = name.and_then(|name| name.strip_prefix("otproxy_")?.strip_suffix(".deb")).map(str::to_owned);
        Ok(Self::Package { path: path.to_owned(), sha256, version })
    }

    pub(super) fn is_package(&self) -> bool {
        matches!(self, Self::Package { .. })
    }
}

/// The way in which firewalls are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FirewallChoice {
    /// They are loaded, unless that would take away something that nobody has looked at.
    #[default]
    Load,
    /// They are loaded, whatever the host had.
    Replace,
    /// They stay as they are.
    Leave,
}

/// The operator's choices.
#[derive(Debug, Clone)]
pub struct DeployOptions {
    /// The hosts.
    pub selection: Selection,
    /// The name of the host that this is: it is reached without ssh.
    pub here: Option<String>,
    /// The user to log in as.
    pub user: Option<String>,
    /// Commands run by sudo there.
    pub sudo: bool,
    /// Options for ssh, as behind `-o`.
    pub ssh: Vec<String>,
    /// The folder of the sockets of connections that are shared.
    pub control: PathBuf,
    /// The program.
    pub program: ProgramChoice,
    /// The firewalls.
    pub firewall: FirewallChoice,
}

impl DeployOptions {
    fn is_here(&self, host: &Host<'_>) -> bool {
        self.here.as_deref() == Some(host.name().as_str())
    }

    /// Returns what to do about a host's firewall. Here there is no second connection that could confirm one.
    pub(super) fn firewall_of(&self, host: &Host<'_>) -> FirewallChoice {
        if self.is_here(host) { FirewallChoice::Leave } else { self.firewall }
    }
}

/// A host with its commands.
#[derive(Debug)]
pub(super) struct HostPlan<'t> {
    host: Host<'t>,
    pub way: Way,
    /// Its folder here.
    folder: PathBuf,
    pub look: LocalCommand,
    /// The steps up to the last but the doctor's.
    pub steps: Vec<(Step, LocalCommand)>,
    pub undo: Option<LocalCommand>,
    pub doctor: LocalCommand,
}

/// The hosts, in the order of setting them up.
#[derive(Debug)]
pub struct Plan<'t> {
    topology: &'t Topology,
    pub(super) options: &'t DeployOptions,
    pub(super) hosts: Vec<HostPlan<'t>>,
}

impl<'t> Plan<'t> {
    /// Plans the deployment of the folder `out`.
    ///
    /// # Errors
    /// Says which host is not in the topology, or cannot be reached, with the remedy.
    pub fn new(topology: &'t Topology, out: &Path, options: &'t DeployOptions) -> Result<Self, String> {
        let all = Host::in_order(topology);
        let known = |name: &str| all.iter().any(|host| host.name().as_str() == name);
        if let Some(name) = options.selection.edges.iter().chain(&options.here).find(|name| !known(name)) {
            let names: Vec<_> = all.iter().map(|host| format!("`{}`", host.name())).collect();
            return Err(format!(
                "there is no host `{name}` in the topology, or it is revoked; there are {}",
                names.join(", ")
            ));
        }
        let chosen = all.into_iter().filter(|host| options.selection.has(host));
        let hosts = chosen.map(|host| HostPlan::new(topology, host, out, options)).collect::<Result<_, String>>()?;
        Ok(Self { topology, options, hosts })
    }

    /// Returns the number of hosts.
    #[must_use]
    pub fn hosts(&self) -> usize {
        self.hosts.len()
    }

    /// Reads what a host is to have.
    pub(super) fn wanted(&self, host: &HostPlan<'_>) -> Result<Wanted, DeployError> {
        let wanted = Wanted::read(self.topology, &host.host, &host.folder, self.options);
        wanted.map_err(|obstacle| DeployError::Obstacle { host: host.name(), obstacle })
    }

    /// Returns all commands as a script, with a line about each.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |host: &HostPlan<'_>, does: &str, command: &LocalCommand| {
            let _ = writeln!(text, "# {}: {does}\n{command}", host.name());
        };
        for host in &self.hosts {
            line(host, Step::Look.does(), &host.look);
            host.steps.iter().for_each(|(step, command)| line(host, step.does(), command));
        }
        self.hosts.iter().rev().for_each(|host| line(host, Step::Doctor.does(), &host.doctor));
        for host in &self.hosts {
            if let Some(close) = host.way.close() {
                line(host, "closes the connection", &close);
            }
        }
        let control = quoted(&self.options.control.display().to_string());
        format!("mkdir -m 700 {control}\n{text}rm -r {control}\n")
    }
}

impl<'t> HostPlan<'t> {
    fn new(topology: &Topology, host: Host<'t>, out: &Path, options: &DeployOptions) -> Result<Self, String> {
        let name = host.name().to_string();
        let way = if options.is_here(&host) {
            Way::Here { sudo: options.sudo }
        } else {
            let target = host.target(topology, options.user.as_deref()).ok_or_else(|| {
                format!(
                    "{name}: has no `ssh` and no `address`; write `core: {{ ssh: root@HOST }}` there, run this on that host with \
                     `--local {name}`, or name the edges alone with `--edge`"
                )
            })?;
            let control = Way::control(&options.control);
            Way::Ssh { target, options: options.ssh.clone(), control, sudo: options.sudo }
        };
        let folder = out.join(host.folder());
        let installed = installed(&host);
        let places = installed.iter().map(|file| file.place.as_str());
        let places: Vec<_> = places.chain([script::PROGRAM, script::NEW_PROGRAM, script::RULES_FILE]).collect();
        let look = way.command(&script::look(&unit_name(&host), &places), Input::Nothing);

        let names = std::iter::once(INSTALL.to_owned()).chain(installed.iter().map(|file| file.name.clone()));
        let files = Input::Archive { folder: folder.clone(), files: names.collect() };
        let program = match &options.program {
            ProgramChoice::File { path, sha256, .. } => {
                (Step::Program, way.command(&script::program(sha256), Input::File(path.clone())))
            }
            ProgramChoice::Package { path, sha256, .. } => {
                (Step::Package, way.command(&script::package(sha256), Input::File(path.clone())))
            }
        };
        let mut steps = vec![
            program,
            (Step::Files, way.command(&script::files(), files)),
            (Step::Install, way.command(&script::install(), Input::Nothing)),
        ];
        let mut undo = None;
        if options.firewall_of(&host) != FirewallChoice::Leave
            && let Some(confirm) = way.fresh(&script::confirm())
        {
            steps.push((Step::Load, way.command(&script::load(), Input::File(folder.join(RULES)))));
            steps.push((Step::Confirm, confirm));
            undo = Some(way.command(&script::undo(), Input::Nothing));
        }
        let doctor = way.command(&script::doctor(host.role()), Input::Nothing);
        Ok(Self { host, way, folder, look, steps, undo, doctor })
    }

    pub fn name(&self) -> String {
        self.host.name().to_string()
    }

    pub fn folder(&self) -> String {
        self.folder.display().to_string()
    }

    /// Returns whether nothing is done about its firewall.
    pub fn leaves_firewall(&self) -> bool {
        self.undo.is_none()
    }
}

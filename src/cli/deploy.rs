//! `otproxy deploy`: brings the folder of `otproxy init` up to date, and puts it onto its hosts.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::ValueHint;
use clap::error::ErrorKind;

use super::{init as cli_init, print, runtime, wrong_together};
use crate::deploy::{self, DeployOptions, FirewallChoice, Plan, ProgramChoice, Said, Selection};
use crate::init::{self, TOPOLOGY_FILE};
use otproxy_config as config;
use otproxy_config::{CORE_NAME, ssh_user};
use otproxy_protocol::printable::printable_lines;

#[derive(Debug, clap::Args)]
pub(super) struct Deploy {
    /// The topology, as for `otproxy init` [default: topology.yaml in the folder, or here]
    #[arg(value_name = "TOPOLOGY", value_hint = ValueHint::FilePath)]
    topology: Option<PathBuf>,
    /// The folder of `otproxy init` [default: as for `otproxy init`]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: Option<PathBuf>,
    /// Print the commands, each as it would run, and run none
    #[arg(long)]
    dry_run: bool,
    /// Only this edge, or these with --core [default: all hosts]; once for each
    #[arg(long, value_name = "NAME")]
    edge: Vec<String>,
    /// Only the core, or the core and edges with --edge
    #[arg(long)]
    core: bool,
    /// The host that this is, `core` or an edge's name: it is set up without ssh, and its firewall is left alone
    #[arg(long, value_name = "NAME")]
    local: Option<String>,
    /// The program to copy, as for hosts of another machine [default: the one that runs this]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    program: Option<PathBuf>,
    /// Install this package (.deb) instead
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "program")]
    package: Option<PathBuf>,
    /// Leave the firewalls alone
    #[arg(long)]
    no_firewall: bool,
    /// Load the firewalls even where that takes other rules away, or closes a port at which a program listens
    #[arg(long, conflicts_with = "no_firewall")]
    replace_firewall: bool,
    /// The user to log in as, where the topology's `ssh` has none [default: root]
    #[arg(long, value_name = "USER", value_parser = ssh_user)]
    user: Option<String>,
    /// Run commands by sudo there, which must not ask for a password over ssh
    #[arg(long)]
    sudo: bool,
    /// An option for ssh, as ssh takes it; once for each
    #[arg(short = 'o', long, value_name = "OPTION")]
    ssh_option: Vec<String>,
}

impl Deploy {
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let file = self.topology()?;
        let topology = config::load_topology(&file)?;
        let out = cli_init::folder(self.out.as_deref(), Some(&file));
        let options = self.options()?;
        let plan = Plan::new(&topology, &out, &options)
            .map_err(|message| format!("{}: {message}", file.display()))
            .map_err(|message| wrong_together("deploy", ErrorKind::ValueValidation, &message))?;
        if self.dry_run {
            let init = ["otproxy", "init"].map(str::to_owned).into_iter();
            let shown = |path: &Path| deploy::quoted(&path.display().to_string());
            let init: Vec<_> = init.chain([shown(&file), "--out".to_owned(), shown(&out)]).collect();
            return print(format!("{}\n{}", init.join(" "), plan.text()).as_bytes());
        }
        let report = init::run(&topology, None, &out).context("cannot make the set-up")?;
        print(cli_init::changes(&report, &out).as_bytes())?;

        let (runtime, signals) = runtime()?;
        let ended = runtime.block_on(deploy::run(&plan, &mut say, signals.caught()));
        // A copy that is cut off is no reason to wait.
        runtime.shutdown_background();
        ended?;
        let hosts = plan.hosts();
        print(
            format!("{hosts} {} set up as the topology says\n", if hosts == 1 { "host is" } else { "hosts are" })
                .as_bytes(),
        )
    }

    /// Returns the topology's file: where it is not given, the one in the folder, or here.
    fn topology(&self) -> anyhow::Result<PathBuf> {
        if let Some(file) = &self.topology {
            return Ok(file.clone());
        }
        let out = cli_init::folder(self.out.as_deref(), None);
        let candidates = [out.join(TOPOLOGY_FILE), PathBuf::from(TOPOLOGY_FILE)];
        let found = candidates.iter().find(|file| file.is_file()).cloned();
        found.ok_or_else(|| {
            let message = format!(
                "missing: the topology; there is none in {}. Give its file, or make one: `otproxy init --help`",
                out.display()
            );
            wrong_together("deploy", ErrorKind::MissingRequiredArgument, &message).into()
        })
    }

    fn options(&self) -> anyhow::Result<DeployOptions> {
        if self.local.as_deref() == Some(CORE_NAME) && !self.edge.is_empty() && !self.core {
            let message = "`--local core` needs `--core` where edges are named";
            return Err(wrong_together("deploy", ErrorKind::ArgumentConflict, message).into());
        }
        Ok(DeployOptions {
            selection: Selection { edges: self.edge.clone(), core: self.core },
            here: self.local.clone(),
            user: self.user.clone(),
            sudo: self.sudo,
            ssh: self.ssh_option.clone(),
            control: deploy::socket_folder(&std::env::temp_dir(), std::process::id()),
            program: self.program()?,
            firewall: match (self.no_firewall, self.replace_firewall) {
                (true, _) => FirewallChoice::Leave,
                (false, true) => FirewallChoice::Replace,
                (false, false) => FirewallChoice::Load,
            },
        })
    }

    fn program(&self) -> anyhow::Result<ProgramChoice> {
        let read = |path: &Path, choice: io::Result<ProgramChoice>| {
            choice.map_err(|error| anyhow!("{}: {error}; name a file that can be read", path.display()))
        };
        match (&self.package, &self.program) {
            (Some(path), _) => read(path, ProgramChoice::package(path)),
            (None, Some(path)) => read(path, ProgramChoice::file(path, None)),
            (None, None) => {
                let own = std::env::current_exe().context("cannot find this program; name it with `--program FILE`")?;
                read(&own, ProgramChoice::file(&own, Some(std::env::consts::ARCH)))
            }
        }
    }
}

/// Prints what a deployment says, at once: steps and what hosts print to stdout, complaints to stderr.
fn say(said: Said<'_>) {
    let (text, indent) = match said {
        Said::Step(line) => (line, ""),
        Said::Output(lines) | Said::Complaint(lines) => (lines, "    "),
    };
    // A line of a program that expects a terminal may end in both.
    let lines: String = text.lines().map(|line| format!("{indent}{}\n", line.trim_end_matches('\r'))).collect();
    let bytes = printable_lines(&lines);
    // If nobody reads it any more the deployment goes on: the hosts must not be left half-way.
    let _ = match said {
        Said::Complaint(_) => io::stderr().write_all(bytes.as_bytes()),
        Said::Step(_) | Said::Output(_) => io::stdout().write_all(bytes.as_bytes()).and_then(|()| io::stdout().flush()),
    };
}

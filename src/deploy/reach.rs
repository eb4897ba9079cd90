//! The ways to a host: over ssh, or none if it is this one.

use std::path::{Path, PathBuf};

use otproxy_config::SshTarget;

use super::command::{Input, LocalCommand};
use super::quote::quoted;

/// The options of every connection: each wait for the other end is bounded, and no terminal is asked for there.
const OPTIONS: [&str; 3] = ["ConnectTimeout=10", "ServerAliveInterval=5", "ServerAliveCountMax=3"];
/// The options of the first connection, which those after it share: so a password is asked for once. An end that leaves it open
/// does so for this long.
const SHARED: [&str; 2] = ["ControlMaster=auto", "ControlPersist=10m"];
/// The options of a connection that shares none.
const FRESH: [&str; 2] = ["ControlMaster=no", "ControlPath=none"];
/// Folders with programs of the system that a login without a terminal may not have in its path.
const PROGRAMS: &str = "PATH=$PATH:/usr/local/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// Characters of a folder for sockets, whose paths have 108 at the most: ssh puts 58 behind it.
const MAX_FOLDER: usize = 48;

/// Returns a folder for the sockets of this process, below the one for temporary files: `/tmp` if ssh would misread that.
#[must_use]
pub fn socket_folder(temporary: &Path, process: u32) -> PathBuf {
    let name = format!("otproxy-deploy-{process}");
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let fits =
        |folder: &PathBuf| folder.to_str().is_some_and(|path| path.len() <= MAX_FOLDER && path.chars().all(plain));
    Some(temporary.join(&name)).filter(fits).unwrap_or_else(|| Path::new("/tmp").join(name))
}

/// The way to a host.
#[derive(Debug, Clone)]
pub(super) enum Way {
    /// Over ssh.
    Ssh {
        target: SshTarget,
        /// The operator's own options, as behind `-o`. For ssh the first one of a name counts, so they come before ours.
        options: Vec<String>,
        /// The path of the socket of the connection that is shared, as ssh reads it.
        control: String,
        sudo: bool,
    },
    /// It is this host.
    Here { sudo: bool },
}

impl Way {
    /// Returns the path of sockets in this folder: ssh makes a name of the host, the port and the user.
    pub fn control(folder: &Path) -> String {
        folder.join("%C").display().to_string()
    }

    /// Returns what a person calls the host.
    pub fn shown(&self) -> String {
        match self {
            Self::Ssh { target, .. } => target.to_string(),
            Self::Here { .. } => "this host".to_owned(),
        }
    }

    /// Returns what a person types to log in.
    pub fn login(&self) -> String {
        match self {
            Self::Ssh { target: SshTarget { user, host, port: Some(port) }, .. } => {
                format!("ssh -p {port} {}", SshTarget { user: user.clone(), host: host.clone(), port: None })
            }
            Self::Ssh { target, .. } => format!("ssh {target}"),
            Self::Here { .. } => "sh".to_owned(),
        }
    }

    /// Returns the command that runs a script there.
    pub fn command(&self, script: &str, input: Input) -> LocalCommand {
        match self {
            Self::Ssh { .. } => self.ssh(self.shared(), Some(script), input),
            Self::Here { sudo } => {
                let words = ["sudo", "sh", "-c"].map(str::to_owned).into_iter().chain([with_path(script)]);
                let (program, known) = if *sudo { ("sudo", 1) } else { ("sh", 2) };
                LocalCommand { program, arguments: words.skip(known).collect(), input }
            }
        }
    }

    /// Returns the command that runs a script there over a connection of its own; `None` if there is no connection.
    pub fn fresh(&self, script: &str) -> Option<LocalCommand> {
        let Self::Ssh { .. } = self else { return None };
        Some(self.ssh(FRESH.map(str::to_owned).to_vec(), Some(script), Input::Nothing))
    }

    /// Returns the command that closes the connection that is shared.
    pub fn close(&self) -> Option<LocalCommand> {
        let Self::Ssh { .. } = self else { return None };
        let mut command = self.ssh(self.shared(), None, Input::Nothing);
        command.arguments.splice(0..0, ["-O".to_owned(), "exit".to_owned()]);
        Some(command)
    }

    fn shared(&self) -> Vec<String> {
        let Self::Ssh { control, .. } = self else { return Vec::new() };
        let own = SHARED.map(str::to_owned).into_iter();
        own.chain([format!("ControlPath={control}")]).collect()
    }

    fn ssh(&self, connection: Vec<String>, script: Option<&str>, input: Input) -> LocalCommand {
        let mut arguments = vec!["-T".to_owned()];
        if let Self::Ssh { target, options, sudo, .. } = self {
            let all = connection.into_iter().chain(options.iter().cloned()).chain(OPTIONS.map(str::to_owned));
            arguments.extend(all.flat_map(|option| ["-o".to_owned(), option]));
            if let Some(port) = target.port {
                arguments.extend(["-p".to_owned(), port.to_string()]);
            }
            arguments.push(SshTarget { port: None, ..target.clone() }.to_string());
            // The user's shell there need not be sh.
            let sudo = if *sudo { "sudo -n " } else { "" };
            arguments.extend(script.map(|script| format!("{sudo}sh -c {}", quoted(&with_path(script)))));
        }
        LocalCommand { program: "ssh", arguments, input }
    }
}

fn with_path(script: &str) -> String {
    format!("{PROGRAMS}; {script}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_have_paths_that_ssh_takes() {
        let folder = |temporary: &str| socket_folder(Path::new(temporary), 7).display().to_string();
        assert_eq!(folder("/run/user/1000"), "/run/user/1000/otproxy-deploy-7");
        let long = "/x".repeat(40);
        for odd in ["/tmp/a b", "/tmp/%h", "/tmp/\"", &long] {
            assert_eq!(folder(odd), "/tmp/otproxy-deploy-7");
        }
    }
}

//! The reason why a deployment stopped.

use thiserror::Error;

use super::plan::Step;
use crate::init::RULES;

/// The reason why a deployment stopped: the host, the step, and what to do.
#[derive(Debug, Error)]
pub enum DeployError {
    /// Something stands in the way, before anything was done on the host.
    #[error("{host}: {obstacle}")]
    Obstacle {
        /// The host's name.
        host: String,
        /// The problem, with the remedy.
        obstacle: String,
    },
    /// A command failed.
    #[error("{host}: {step}: {failure}; {remedy}\nThe command: {command}")]
    Failed {
        /// The host's name.
        host: String,
        /// The step.
        step: Step,
        /// How it failed.
        failure: String,
        /// The remedy.
        remedy: String,
        /// The command, as a person types it.
        command: String,
    },
    /// The folder for sockets cannot be made.
    #[error("{folder}: {error}; see what is there, and remove it")]
    Control {
        /// The folder.
        folder: String,
        /// The cause.
        error: std::io::Error,
    },
    /// The operator ended it.
    #[error("was interrupted; run `otproxy deploy` again, which goes on from here")]
    Interrupted,
}

/// How a command ended.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// The program is not here.
    #[error("`{program}` cannot be started: {error}")]
    Start { program: &'static str, error: std::io::Error },
    /// Its input cannot be opened.
    #[error("{path}: {error}")]
    Input { path: String, error: std::io::Error },
    /// It ended with that code.
    #[error("ended with exit code {code}")]
    Code { code: i32, stderr: String },
    /// A signal ended it.
    #[error("was ended by a signal")]
    Signal,
    /// It did not end.
    #[error("did not end within {0} s")]
    Time(u64),
}

/// The exit code of ssh where the connection failed, and not what it ran.
const CONNECTION: i32 = 255;

impl Failure {
    /// Returns whether it is the connection that failed, as far as one can tell: what runs there may have begun.
    pub fn is_of_connection(&self) -> bool {
        match self {
            Self::Code { code, .. } => *code == CONNECTION,
            Self::Time(_) | Self::Signal => true,
            Self::Start { .. } | Self::Input { .. } => false,
        }
    }

    /// Returns what to do about it. `login` is how a person logs in there, `folder` its folder here.
    pub fn remedy(&self, step: Step, login: &str, folder: &str) -> String {
        match self {
            Self::Start { program, .. } => format!("install it, as with `apt install {}`", package_of(program)),
            Self::Input { .. } => "run `otproxy init` again".to_owned(),
            // The host that cannot be reached here was reached a moment ago.
            _ if step == Step::Confirm => of_step(step, folder),
            Self::Code { code: CONNECTION, stderr } => of_connection(stderr, login),
            Self::Code { .. } => of_step(step, folder),
            Self::Signal | Self::Time(_) => {
                "see on the host what holds it up, then run `otproxy deploy` again".to_owned()
            }
        }
    }
}

/// Returns what to do about a step that failed on the host.
fn of_step(step: Step, folder: &str) -> String {
    match step {
        Step::Look | Step::Undo => {
            "see what the host says above; with `--sudo` its sudo must not ask for a password".to_owned()
        }
        Step::Program => {
            "give a program that was built on that host's system or an older one, with `--program FILE`".to_owned()
        }
        Step::Package => "put right what apt-get says above".to_owned(),
        Step::Files => "the host needs `tar` and room in /run".to_owned(),
        Step::Install => format!(
            "put right what it says above; its files are those of {folder}. Then run `otproxy deploy` again, which goes on from here"
        ),
        Step::Load => format!("put right what it says above, in {folder}/{RULES}, or give `--no-firewall`"),
        Step::Confirm => {
            format!(
                "{folder}/{RULES} must let ssh in at the host's own port of ssh, which `ssh` in the topology can name"
            )
        }
        Step::Doctor => {
            "each line that fails has its remedy; then run `otproxy deploy` again, which goes on from here".to_owned()
        }
    }
}

/// Returns what to do about words of ssh.
fn of_connection(stderr: &str, login: &str) -> String {
    let has = |words: &str| stderr.contains(words);
    if has("IDENTIFICATION HAS CHANGED") {
        format!(
            "somebody may sit between you and the host, or it was installed anew: compare its key with what the provider's console \
             shows, then `ssh-keygen -R HOST`, and log in once by `{login}`"
        )
    } else if has("Host key verification failed") {
        format!("log in once by `{login}`, and compare the host's key with what the provider's console shows")
    } else if has("Permission denied") {
        "give the host your key, as with `ssh-copy-id`, or name another user: `ssh` in the topology, or `--user`"
            .to_owned()
    } else if has("Could not resolve") {
        "put the host's address right in the topology".to_owned()
    } else {
        format!("`{login}` must let you in from here")
    }
}

fn package_of(program: &str) -> &str {
    if program == "ssh" { "openssh-client" } else { program }
}

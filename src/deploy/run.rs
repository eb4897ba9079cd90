//! Running a plan.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::command::{Input, LocalCommand, archive};
use super::error::{DeployError, Failure};
use super::found::Found;
use super::plan::{HostPlan, Plan, Step};
use super::script::UNDO_AFTER;
use super::wanted::Wanted;

/// The time that a command may take, a password included.
pub const COMMAND_WITHIN: Duration = Duration::from_secs(600);
/// Bytes of a command's output that are kept and shown; the rest is not.
pub const MAX_OUTPUT: u64 = 256 * 1024;

/// The progress of a deployment, as it is told.
#[derive(Debug, Clone, Copy)]
pub enum Said<'a> {
    /// A step, in one line.
    Step(&'a str),
    /// The lines that a host printed.
    Output(&'a str),
    /// The lines of ssh or a host on stderr.
    Complaint(&'a str),
}

/// Runs a plan, until `stop` ends.
///
/// # Errors
/// Returns the first thing that fails. What was done stays, and the next run goes on from there.
pub async fn run(
    plan: &Plan<'_>,
    say: &mut impl FnMut(Said<'_>),
    stop: impl Future<Output = ()>,
) -> Result<(), DeployError> {
    // Files are read before the first host is touched.
    let wanted =
        plan.hosts.iter().map(|host| Ok((host, plan.wanted(host)?))).collect::<Result<Vec<_>, DeployError>>()?;
    let _sockets = Sockets::new(&plan.options.control)?;
    let ended = tokio::select! {
        ended = deploy(&wanted, say) => ended,
        () = stop => Err(DeployError::Interrupted),
    };
    for host in &plan.hosts {
        if let Some(close) = host.way.close() {
            // One that was never opened cannot be closed.
            let _ = execute(&close).await;
        }
    }
    ended
}

async fn deploy(hosts: &[(&HostPlan<'_>, Wanted)], say: &mut impl FnMut(Said<'_>)) -> Result<(), DeployError> {
    for (host, wanted) in hosts {
        set_up(host, wanted, say).await?;
    }
    // The side that connects is tried first: the other one then has it.
    for (host, _) in hosts.iter().rev() {
        step(host, Step::Doctor, &host.doctor, say).await?;
    }
    Ok(())
}

/// Brings a host to what is wanted of it.
async fn set_up(host: &HostPlan<'_>, wanted: &Wanted, say: &mut impl FnMut(Said<'_>)) -> Result<(), DeployError> {
    let answer = step(host, Step::Look, &host.look, say).await?;
    let missing = wanted.missing(&Found::parse(&answer));
    let missing = missing.map_err(|obstacle| DeployError::Obstacle { host: host.name(), obstacle })?;
    for (kind, command) in &host.steps {
        if missing.contains(kind) {
            step(host, *kind, command, say).await?;
        } else if let Some(what) = kind.in_place() {
            say(Said::Step(&format!("{}: {what} in place", host.name())));
        }
    }
    if host.leaves_firewall() {
        say(Said::Step(&format!(
            "{}: the firewall is left alone; {}/README.md has its steps",
            host.name(),
            host.folder()
        )));
    }
    Ok(())
}

/// Runs a command of a step, shows what it said, and returns what it wrote to stdout.
async fn step(
    host: &HostPlan<'_>,
    step: Step,
    command: &LocalCommand,
    say: &mut impl FnMut(Said<'_>),
) -> Result<String, DeployError> {
    let way = host.way.shown();
    match step {
        Step::Look => say(Said::Step(&format!("{} ({way}): {}", host.name(), step.does()))),
        _ => say(Said::Step(&format!("{}: {}", host.name(), step.does()))),
    }
    let ended = execute(command).await;
    let mut show = |ended: &Ended| {
        if step != Step::Look && !ended.stdout.is_empty() {
            say(Said::Output(&ended.stdout));
        }
        if !ended.stderr.is_empty() {
            say(Said::Complaint(&ended.stderr));
        }
    };
    let failure = match ended {
        Ok(ended) => {
            show(&ended);
            match ended.failure() {
                None => return Ok(ended.stdout),
                Some(failure) => failure,
            }
        }
        Err(failure) => failure,
    };
    let mut said = failure.to_string();
    if let Some(more) = taken_back(host, step, &failure).await {
        said = format!("{said}; {more}");
    }
    let remedy = failure.remedy(step, &host.way.login(), &host.folder());
    Err(DeployError::Failed { host: host.name(), step, failure: said, remedy, command: command.to_string() })
}

/// Takes a firewall back that is not confirmed, and says what became of it; `None` if none can be loaded.
async fn taken_back(host: &HostPlan<'_>, step: Step, failure: &Failure) -> Option<String> {
    let may_be_loaded = step == Step::Confirm || (step == Step::Load && failure.is_of_connection());
    let undo = host.undo.as_ref().filter(|_| may_be_loaded)?;
    let is_undone = execute(undo).await.is_ok_and(|ended| ended.code == Some(0));
    Some(if is_undone {
        "the firewall from before is back".to_owned()
    } else {
        format!(
            "the host brings back the firewall from before within {} s of loading the new one",
            UNDO_AFTER.as_secs()
        )
    })
}

/// How a command ended, and what it said.
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn failure(&self) -> Option<Failure> {
        match self.code {
            Some(0) => None,
            Some(code) => Some(Failure::Code { code, stderr: self.stderr.clone() }),
            None => Some(Failure::Signal),
        }
    }
}

/// Runs a command. Passwords are asked for on the terminal, by ssh itself.
async fn execute(command: &LocalCommand) -> Result<Ended, Failure> {
    let run = async {
        let (input, mut archiver) = open(&command.input)?;
        let mut child = spawn(command.program, &command.arguments, input)?;
        let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
        let (out, err, status) = tokio::join!(beginning(&mut stdout), beginning(&mut stderr), child.wait());
        if let Some(archiver) = &mut archiver {
            let is_whole = archiver.wait().await.is_ok_and(|status| status.success());
            let is_done = status.as_ref().is_ok_and(std::process::ExitStatus::success);
            if is_done && !is_whole {
                let error = std::io::Error::other("not all of its files can be read");
                return Err(Failure::Input { path: command.input.path(), error });
            }
        }
        Ok(Ended { code: status.ok().and_then(|status| status.code()), stdout: out, stderr: err })
    };
    timeout(COMMAND_WITHIN, run).await.unwrap_or(Err(Failure::Time(COMMAND_WITHIN.as_secs())))
}

/// Opens what a command reads; with the program that writes it, if it is one.
fn open(input: &Input) -> Result<(Stdio, Option<Child>), Failure> {
    let failed = |error| Failure::Input { path: input.path(), error };
    match input {
        Input::Nothing => Ok((Stdio::null(), None)),
        Input::File(path) => Ok((File::open(path).map_err(failed)?.into(), None)),
        Input::Archive { folder, files } => {
            let mut tar = spawn("tar", &archive(folder, files), Stdio::null())?;
            // It complains that a file is missing, and files were read before.
            drop(tar.stderr.take());
            let pipe = tar.stdout.take().ok_or_else(|| std::io::Error::other("no pipe")).map_err(failed)?;
            Ok((pipe.into_owned_fd().map_err(failed)?.into(), Some(tar)))
        }
    }
}

fn spawn(program: &'static str, arguments: &[String], input: Stdio) -> Result<Child, Failure> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    // Their words are looked at.
    command.env("LC_ALL", "C").spawn().map_err(|error| Failure::Start { program, error })
}

/// Reads a stream to its end, and keeps its beginning.
async fn beginning(stream: &mut Option<impl AsyncRead + Unpin>) -> String {
    let Some(stream) = stream else { return String::new() };
    let mut kept = Vec::new();
    // A stream that cannot be read any more has ended.
    let _ = (&mut *stream).take(MAX_OUTPUT).read_to_end(&mut kept).await;
    let _ = tokio::io::copy(stream, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&kept).into_owned()
}

/// The folder of sockets, for as long as it is needed.
struct Sockets<'a>(&'a Path);

impl<'a> Sockets<'a> {
    fn new(folder: &'a Path) -> Result<Self, DeployError> {
        let made = DirBuilder::new().mode(0o700).create(folder);
        made.map_err(|error| DeployError::Control { folder: folder.display().to_string(), error })?;
        Ok(Self(folder))
    }
}

impl Drop for Sockets<'_> {
    fn drop(&mut self) {
        // Nothing else is in it, and it is in a folder that the system empties.
        let _ = fs::remove_dir_all(self.0);
    }
}

//! Programs of the system that are asked for what only they know.

use std::process::Stdio;

use tokio::process::Command;
use tokio::time::timeout;

use super::ANSWER;

/// What a program said.
pub(super) struct ToolOutput {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a program for at most [`ANSWER`]; `None` if there is none of that name, or if it does not end.
pub(super) async fn ask(program: &str, arguments: &[&str]) -> Option<ToolOutput> {
    let mut command = Command::new(program);
    // Their words are compared.
    command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(ANSWER, command.output()).await.ok()?.ok()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(ToolOutput { success: output.status.success(), stdout: text(&output.stdout), stderr: text(&output.stderr) })
}

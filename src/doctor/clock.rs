//! The clock, as far as it can be checked from here.
//!
//! Nobody else's clock is queried. The other side's clock matters only for its certificates, and a handshake of the
//! tunnel fails if it is wrong.

use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{ANSWER, DoctorCheck};

/// The time between two looks at whether a program has ended.
const LOOK: Duration = Duration::from_millis(20);

pub(super) async fn examine() -> DoctorCheck {
    let what = ("clock", "");
    match ask().await.as_deref() {
        Some("yes") => {
            DoctorCheck::ok("clock", "", "is kept right by this host (timedatectl); the other hosts' is not compared")
        }
        Some("no") => DoctorCheck::warn(
            what,
            "nothing on this host keeps it right; certificates fail where it is far off",
            "apt install systemd-timesyncd, and see `timedatectl`",
        ),
        _ => DoctorCheck::warn(
            what,
            "cannot be told to be right: there is no timedatectl here, or it does not answer",
            "compare it with another: `date -u`",
        ),
    }
}

/// Returns what the system's own tool says about the kernel's clock: `yes`, `no`.
async fn ask() -> Option<String> {
    let mut command = Command::new("timedatectl");
    command.args(["show", "--property=NTPSynchronized", "--value"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let end = Instant::now() + ANSWER;
    while child.try_wait().ok()?.is_none() {
        if Instant::now() >= end {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        sleep(LOOK).await;
    }
    let output = child.wait_with_output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

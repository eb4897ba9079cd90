//! The clock, as far as it can be checked from here.
//!
//! Nobody else's clock is queried. The other side's clock matters only for its certificates, and a handshake of the
//! tunnel fails if it is wrong.

use super::{DoctorCheck, tool};

pub(super) async fn examine() -> DoctorCheck {
    let what = ("clock", "");
    // What the system's own tool says about the kernel's clock: `yes`, `no`.
    let said = tool::ask("timedatectl", &["show", "--property=NTPSynchronized", "--value"]).await;
    match said.filter(|said| said.success).as_ref().map(|said| said.stdout.trim()) {
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

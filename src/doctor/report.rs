//! The report: a line for each check, for people, or one JSON object for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{CheckStatus, DoctorCheck, passed};
use otproxy_protocol::printable::{Printable, printable_json};

/// Formats lines as `fail  tunnel core: ..; remedy: ..`, with colours for a terminal, and a last line with counts.
#[must_use]
pub fn text(checks: &[DoctorCheck], colours: bool) -> String {
    let mut text = String::new();
    for check in checks {
        let word = check.status.as_str();
        let (on, off) = match (colours, check.status) {
            (false, _) => ("", ""),
            (true, CheckStatus::Ok) => ("\x1b[32m", "\x1b[0m"),
            (true, CheckStatus::Warn) => ("\x1b[33m", "\x1b[0m"),
            (true, CheckStatus::Fail) => ("\x1b[1;31m", "\x1b[0m"),
        };
        let subject = if check.subject.is_empty() { String::new() } else { format!(" {}", Printable(&check.subject)) };
        // Text from a file or another host must stay on its line.
        let message = Printable(&check.message);
        let _ = write!(text, "{on}{word:<4}{off}  {}{subject}: {message}", check.check);
        if let Some(remedy) = &check.remedy {
            let _ = write!(text, "; remedy: {}", Printable(remedy));
        }
        text.push('\n');
    }
    let count = |status| checks.iter().filter(|check| check.status == status).count();
    let _ = writeln!(
        text,
        "{} ok, {} warnings, {} failed",
        count(CheckStatus::Ok),
        count(CheckStatus::Warn),
        count(CheckStatus::Fail)
    );
    text
}

/// Formats one object: `ok`, and `checks` as they are in [`DoctorCheck`].
#[must_use]
pub fn json(checks: &[DoctorCheck]) -> String {
    let list: Vec<Value> = checks
        .iter()
        .map(|check| {
            json!({
                "check": check.check,
                "subject": check.subject,
                "status": check.status.as_str(),
                "message": check.message,
                "remedy": check.remedy,
            })
        })
        .collect();
    let mut text = json!({ "ok": passed(checks), "checks": list }).to_string();
    text.push('\n');
    printable_json(&text).into_owned()
}

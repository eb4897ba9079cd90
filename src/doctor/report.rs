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
    let mut text = json!({ "ok": passed(checks), "checks": list(checks) }).to_string();
    text.push('\n');
    printable_json(&text).into_owned()
}

/// Returns the list `checks`.
pub(super) fn list(checks: &[DoctorCheck]) -> Vec<Value> {
    let one = |check: &DoctorCheck| {
        json!({
            "check": check.check,
            "subject": check.subject,
            "status": check.status.as_str(),
            "message": check.message,
            "remedy": check.remedy,
        })
    };
    checks.iter().map(one).collect()
}

/// Splits an error at its first semicolon outside of backticks: what is wrong, and what to do about it. `None` if there is none.
pub(super) fn parted(error: &str) -> Option<(&str, &str)> {
    let mut quoted = false;
    let at = error.char_indices().find_map(|(at, c)| {
        quoted ^= c == '`';
        (c == ';' && !quoted).then_some(at)
    })?;
    let (message, remedy) = error.split_at_checked(at)?;
    Some((message, remedy.strip_prefix(';')?.trim_start())).filter(|(_, remedy)| !remedy.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_parted_from_its_remedy() {
        assert_eq!(
            parted("a: `x; y` is no port; write one; or two"),
            Some(("a: `x; y` is no port", "write one; or two"))
        );
        for whole in ["", "no remedy", "`;`", "unfinished `;", "none;", "none; "] {
            assert_eq!(parted(whole), None, "{whole}");
        }
    }
}

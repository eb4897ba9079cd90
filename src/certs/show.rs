//! The contents of certificate files, for people and for scripts.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::SystemTime;

use humantime::format_rfc3339_seconds;
use serde_json::{Value, json};

use super::certificate::{Certificate, Validity, hex};
use super::error::{CertError, CertProblem};
use super::files;

/// A certificate in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownCertificate {
    /// The file.
    pub file: PathBuf,
    /// Its contents.
    pub certificate: Certificate,
}

/// The contents of several files.
#[derive(Debug, Default)]
pub struct CertificateReport {
    /// The certificates, in order.
    pub shown: Vec<ShownCertificate>,
    /// Files that hold none.
    pub errors: Vec<CertError>,
}

/// Reads certificate files.
pub fn read(paths: &[PathBuf]) -> CertificateReport {
    let mut report = CertificateReport::default();
    for file in paths {
        let parse = |der| {
            let certificate = Certificate::parse(&der).map_err(|_| CertProblem::Damaged("certificate").of(file))?;
            Ok(ShownCertificate { file: file.clone(), certificate })
        };
        let shown: Result<Vec<_>, _> = files::certificates(file).and_then(|all| all.into_iter().map(parse).collect());
        match shown {
            Ok(shown) => report.shown.extend(shown),
            Err(error) => report.errors.push(error),
        }
    }
    report
}

impl CertificateReport {
    /// Returns the problems that a script should notice, one line each: unreadable files and expired certificates.
    pub fn problems(&self, now: SystemTime) -> Vec<String> {
        let expired = self.shown.iter().filter(|shown| shown.certificate.state(now) == Validity::Expired);
        let expired = expired.map(|ShownCertificate { file, certificate }| {
            let (name, until) = (certificate.title(), format_rfc3339_seconds(certificate.not_after));
            format!("{}: the certificate of `{name}` has expired: it was valid until {until}", file.display())
        });
        self.errors.iter().map(ToString::to_string).chain(expired).collect()
    }

    /// Formats the report for people.
    pub fn text(&self, now: SystemTime) -> String {
        let mut text = String::new();
        for ShownCertificate { file, certificate } in &self.shown {
            if !text.is_empty() {
                text.push('\n');
            }
            let names = match &certificate.names[..] {
                // Safe to print, as the name of an operator is.
                [] => certificate.subject.clone(),
                names => names.join(", ").escape_debug().to_string(),
            };
            let days = match (certificate.state(now), certificate.days_left(now)) {
                (Validity::Valid, days) => days.to_string(),
                (Validity::NotYetValid, days) => format!("{days} (NOT YET VALID)"),
                (Validity::Expired, days) => format!("{days} (EXPIRED)"),
            };
            let lines = [
                ("name", names),
                ("role", certificate.role().unwrap_or("none").to_owned()),
                ("may issue others", if certificate.is_ca { "yes" } else { "no" }.to_owned()),
                ("issuer", certificate.issuer.clone()),
                ("serial", hex(&certificate.serial)),
                ("valid from", format_rfc3339_seconds(certificate.not_before).to_string()),
                ("valid until", format_rfc3339_seconds(certificate.not_after).to_string()),
                ("days left", days),
                ("SHA-256", hex(&certificate.fingerprint)),
            ];
            // Writing to a string never fails.
            let _ = writeln!(text, "{}", file.display());
            for (what, value) in lines {
                let _ = writeln!(text, "  {what:<16}  {value}");
            }
        }
        text
    }

    /// Formats the report for scripts: a JSON array with an object for each certificate and for each unreadable file.
    pub fn json(&self, now: SystemTime) -> Value {
        let shown = self.shown.iter().map(|ShownCertificate { file, certificate }| {
            json!({
                "file": file.to_string_lossy(),
                "names": certificate.names,
                "subject": certificate.subject,
                "role": certificate.role(),
                "ca": certificate.is_ca,
                "issuer": certificate.issuer,
                "serial": hex(&certificate.serial),
                "valid_from": format_rfc3339_seconds(certificate.not_before).to_string(),
                "valid_until": format_rfc3339_seconds(certificate.not_after).to_string(),
                "days_left": certificate.days_left(now),
                "state": certificate.state(now).as_str(),
                "sha256": hex(&certificate.fingerprint),
            })
        });
        let errors = self
            .errors
            .iter()
            .map(|error| json!({ "file": error.file.to_string_lossy(), "error": error.problem.to_string() }));
        shown.chain(errors).collect()
    }
}

impl Certificate {
    /// Returns its name for use in a sentence.
    fn title(&self) -> String {
        self.name().map_or_else(|| self.subject.clone(), |name| name.escape_debug().to_string())
    }
}

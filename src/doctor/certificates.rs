//! The files of the tunnel's identity, and those of `admin`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use rustix::process::geteuid;

use super::{DoctorCheck, unit_name};
use crate::admin::check_tokens;
use crate::certs::certificate::DAYS_LEFT;
use crate::certs::identity::{Identity, IdentityKind};
use crate::certs::operators::{AdminIdentity, DatedCertificate, RevokedOperators};
use crate::unit::UnreadableFile;
use otproxy_config::Config;

/// Loads them as a role does; `None` if there is no tunnel, or if they cannot be used. Some may be known to be closed to the
/// service.
pub(super) fn examine(
    config: &Config,
    unreadable: &[UnreadableFile],
    checks: &mut Vec<DoctorCheck>,
) -> Option<Identity> {
    let (files, own) = match config {
        Config::Edge(edge) => (&edge.tunnel.as_ref()?.tls, IdentityKind::Edge),
        Config::Core(core) => (&core.tunnel.as_ref()?.tls, IdentityKind::Core),
    };
    let file = files.cert.display().to_string();
    let what = ("certificate", file.as_str());
    let identity = match Identity::load(files, own) {
        Ok(identity) => identity,
        Err(error) => {
            let remedy = "see the file that is named; `otproxy cert show` says what is in a certificate";
            checks.push(DoctorCheck::told(what, &error.to_string(), remedy));
            return None;
        }
    };
    let now = SystemTime::now();
    let left = identity.expiry().days_left(now);
    let message = format!("for `{}`, valid for {left} more days", identity.name());
    checks.push(if left < DAYS_LEFT {
        let remedy = "issue it anew with `otproxy init` or `otproxy cert`, and copy it here: no restart is needed";
        DoctorCheck::warn(what, message, remedy)
    } else {
        DoctorCheck::ok("certificate", &file, message)
    });
    if unreadable.iter().all(|unreadable| unreadable.file != files.key) {
        checks.push(key(&files.key, &unit_name(config.role())));
    }
    Some(identity)
}

/// Checks the tokens and certificates of `admin`. Some may be known to be closed to the service.
pub(super) fn admin(config: &Config, checks: &mut Vec<DoctorCheck>) {
    let admin = &config.process().admin;
    if let Err(error) = check_tokens(admin) {
        let file = error.file().display().to_string();
        checks.push(DoctorCheck::fail(("file", file.as_str()), error.problem(), error.remedy()));
    }
    let Some(tls) = &admin.tls else { return };
    let tunnel = config.tunnel_files().map(|files| files.ca.as_path());
    match AdminIdentity::load(tls, tunnel, &RevokedOperators::default()) {
        Ok(identity) => checks.extend(identity.dated().iter().map(|dated| end_of(dated, SystemTime::now()))),
        Err(error) => {
            let file = error.file.display().to_string();
            let remedy = "see the file that is named; `otproxy cert show` says what is in a certificate";
            checks.push(DoctorCheck::fail(("certificate", file.as_str()), error.problem.to_string(), remedy));
        }
    }
}

/// Checks whether a certificate of `admin` is valid, and for how long.
fn end_of(dated: &DatedCertificate, now: SystemTime) -> DoctorCheck {
    let (file, left) = (dated.file.display().to_string(), dated.days_left(now));
    let what = ("certificate", file.as_str());
    match dated.problem(now) {
        Some(error) => DoctorCheck::fail(what, error.problem.to_string(), dated.remedy()),
        None if left < DAYS_LEFT => {
            DoctorCheck::warn(what, format!("of admin.tls, valid for {left} more days"), dated.remedy())
        }
        None => DoctorCheck::ok("certificate", &file, format!("of admin.tls, valid for {left} more days")),
    }
}

/// Checks that the service, and nobody else, may read the key.
fn key(path: &Path, unit: &str) -> DoctorCheck {
    let file = path.display().to_string();
    let what = ("key", file.as_str());
    match fs::metadata(path) {
        Ok(meta) if meta.mode() & 0o007 != 0 => {
            DoctorCheck::warn(what, "every user of this host can read it", format!("chmod 600 {file}"))
        }
        Ok(meta) if meta.mode() & 0o077 == 0 && meta.uid() == 0 && geteuid().is_root() => {
            let message = format!("only root can read it, and {unit}.service does not run as root");
            DoctorCheck::warn(
                what,
                message,
                format!("chown otproxy {file}, with `User=otproxy` in the unit, as `otproxy init` does it"),
            )
        }
        Ok(_) => DoctorCheck::ok("key", &file, "belongs to the certificate, and strangers cannot read it"),
        Err(error) => DoctorCheck::fail(what, error.to_string(), "see why it cannot be looked at"),
    }
}

//! The authorities that clients of HTTPS believe: those of the system, or of a file.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::files::certificates;

/// Bytes of the system's authorities that are read.
const MAX_ROOTS: u64 = 8 << 20;
/// The files of the system's authorities: of Debian and Alpine, Fedora, SUSE, and others.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The authorities whose certificates are believed.
#[derive(Debug, Clone, Default)]
pub struct Roots {
    /// The roots of this file; without one, of the system.
    pub ca: Option<PathBuf>,
}

impl Roots {
    /// Returns the configuration of a client that believes them. `remedy` says how others are given.
    ///
    /// # Errors
    /// Fails if there are none, or if they cannot be read.
    pub fn config(&self, remedy: &str) -> Result<Arc<ClientConfig>, String> {
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(ca) => {
                for authority in certificates(ca).map_err(|error| error.to_string())? {
                    roots.add(authority).map_err(|error| format!("{}: {error}", ca.display()))?;
                }
            }
            None => {
                let known = SYSTEM_ROOTS.iter().map(Path::new).find(|file| file.exists());
                let file = known
                    .ok_or_else(|| format!("this system has no authorities; install ca-certificates, or {remedy}"))?;
                let text = read_roots(file).map_err(|error| format!("{}: {error}", file.display()))?;
                let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
                let all = all.map_err(|error| format!("{}: {error}", file.display()))?;
                // Some of a system are too old for what verifies them.
                if roots.add_parsable_certificates(all).0 == 0 {
                    return Err(format!("{}: it has no authority that can be used; {remedy}", file.display()));
                }
            }
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
    }
}

fn read_roots(file: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(file)?.take(MAX_ROOTS).read_to_end(&mut text)?;
    Ok(text)
}

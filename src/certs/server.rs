//! The identity of a listener for everybody: a certificate that browsers and players' clients know, and nobody shows one in return.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};

use super::certificate::{Certificate, days_between};
use super::error::{CertError, CertProblem};
use super::files;

/// A certificate and its key, for TLS 1.2 and 1.3: players' clients are old.
#[derive(Debug, Clone)]
pub struct ServerIdentity {
    server: Arc<ServerConfig>,
    file: PathBuf,
    not_after: SystemTime,
}

impl ServerIdentity {
    /// Reads the files, and checks that they belong together; not that the certificate is valid now.
    ///
    /// # Errors
    /// The error names the file, its problem and the remedy.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, CertError> {
        let (chain, private) = matching(cert, key)?;
        let unusable = |error| CertProblem::Unusable(error).of(cert);
        let ends = chain.iter().map(|der| Certificate::parse(der).map(|certificate| certificate.not_after));
        let ends: Vec<_> = ends.collect::<Result<_, _>>().map_err(|_| CertProblem::Damaged("certificate").of(cert))?;
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(&[&TLS13, &TLS12]).map_err(unusable)?.with_no_client_auth();
        let mut server = builder.with_single_cert(chain, private).map_err(unusable)?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        server.max_early_data_size = 0;
        let not_after = ends.into_iter().min().unwrap_or(SystemTime::UNIX_EPOCH);
        Ok(Self { server: Arc::new(server), file: cert.to_owned(), not_after })
    }

    /// Returns the TLS configuration of the server.
    pub fn server_config(&self) -> &Arc<ServerConfig> {
        &self.server
    }

    /// Returns the certificate's file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Returns the whole days until the certificate, or one that it comes from, ends; negative once one has.
    pub fn days_left(&self, now: SystemTime) -> i64 {
        days_between(now, self.not_after)
    }

    /// Returns the last moment at which the certificate, and all that it comes from, is valid.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }
}

/// Reads a certificate with those that it comes from, and the private key that belongs to it.
///
/// # Errors
/// Fails if one cannot be read, or if they do not belong together.
pub(super) fn matching(
    cert: &Path,
    key: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), CertError> {
    let (chain, private) = (files::certificates(cert)?, files::key(key)?);
    let signing = ring::default_provider().key_provider.load_private_key(private.clone_key());
    let certified = CertifiedKey::new(chain.clone(), signing.map_err(|_| CertProblem::KeyKind.of(key))?);
    certified.keys_match().map_err(|_| CertProblem::OtherKey(cert.to_owned()).of(key))?;
    Ok((chain, private))
}

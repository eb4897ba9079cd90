//! Operators: the identity that `admin.listen` shows them, and the verification of theirs.
//!
//! An operator's certificate comes from an authority of its own, `admin.tls.client_ca`. That of the tunnel is none: each edge
//! has a certificate of it, and edges are what is broken into first.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use parking_lot::RwLock;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
};
use tracing::warn;

use super::certificate::{Certificate, Validity, days_between, hex};
use super::error::{CertError, CertProblem};
use super::{files, server};
use otproxy_config::AdminTlsConfig;
use otproxy_net::RateLimitedLog;

/// Log lines about refused certificates in each window of the log: anybody can cause them.
const LINES: u16 = 5;

/// The operators whose certificates are refused: their names, or serial numbers. Clones share the list.
#[derive(Debug, Clone, Default)]
pub struct RevokedOperators(Arc<RwLock<Vec<String>>>);

impl RevokedOperators {
    /// Replaces the list, for all handshakes from now on.
    pub fn set(&self, revoked: &[String]) {
        *self.0.write() = revoked.to_vec();
    }

    /// Returns whether a certificate is of an operator on the list.
    fn has(&self, certificate: &Certificate) -> bool {
        let serial = hex(&certificate.serial);
        let names = || certificate.names.iter().chain([&certificate.subject]);
        self.0.read().iter().any(|revoked| {
            revoked.eq_ignore_ascii_case(&serial) || names().any(|name| revoked.eq_ignore_ascii_case(name))
        })
    }
}

/// A certificate, or several, that an identity needs to be valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatedCertificate {
    /// Its label of the metric: `admin`, or `admin_ca` for the authority of the operators.
    pub label: &'static str,
    /// Its file.
    pub file: PathBuf,
    /// The first moment at which it is valid.
    pub not_before: SystemTime,
    /// The last moment at which it is valid.
    pub not_after: SystemTime,
}

impl DatedCertificate {
    /// Returns the whole days left; negative once it has expired.
    pub fn days_left(&self, now: SystemTime) -> i64 {
        days_between(now, self.not_after)
    }

    /// Returns the reason why nobody accepts it at `now`.
    pub fn problem(&self, now: SystemTime) -> Option<CertError> {
        let Self { not_before: from, not_after: until, .. } = *self;
        let problem = match Validity::at(now, from, until) {
            Validity::Valid => return None,
            Validity::NotYetValid => CertProblem::NotYetValid { from, now },
            Validity::Expired => CertProblem::Expired { until, remedy: self.remedy().to_owned() },
        };
        Some(problem.of(&self.file))
    }

    /// Returns how to renew it.
    pub fn remedy(&self) -> &'static str {
        match self.label {
            OWN => "renew it where it was made, and copy it here: no restart is needed",
            _ => {
                "make a new authority with `otproxy cert operator NAME` and another `--dir`, and a certificate for each operator"
            }
        }
    }
}

/// The label of the certificate of `admin.listen`.
const OWN: &str = "admin";
/// The label of its operators' authority.
const CLIENTS: &str = "admin_ca";

/// The identity that `admin.listen` shows, and the authority of its operators.
#[derive(Debug, Clone)]
pub struct AdminIdentity {
    server: Arc<ServerConfig>,
    dated: Vec<DatedCertificate>,
}

impl AdminIdentity {
    /// Reads the files, and checks that they belong together; not that they are valid now. `tunnel_ca` is the file of the
    /// tunnel's authorities, if there is a tunnel.
    ///
    /// # Errors
    /// The error names the file, its problem and the remedy.
    pub fn load(
        files: &AdminTlsConfig,
        tunnel_ca: Option<&Path>,
        revoked: &RevokedOperators,
    ) -> Result<Self, CertError> {
        let AdminTlsConfig { cert, key, client_ca, .. } = files;
        let (chain, private) = server::matching(cert, key)?;
        let unusable = |error| CertProblem::Unusable(error).of(cert);
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_protocol_versions(&[&TLS13]).map_err(unusable)?;
        let own = parsed(cert, &chain)?;
        let end = own.iter().map(|certificate| certificate.not_after).min();
        let begin = own.iter().map(|certificate| certificate.not_before).max();
        let mut dated = Vec::new();
        let mut date = |label, file: &Path, begin: Option<SystemTime>, end: Option<SystemTime>| {
            if let (Some(not_before), Some(not_after)) = (begin, end) {
                dated.push(DatedCertificate { label, file: file.to_owned(), not_before, not_after });
            }
        };
        date(OWN, cert, begin, end);
        let builder = match client_ca {
            Some(file) => {
                let authorities = files::certificates(file)?;
                let facts = parsed(file, &authorities)?;
                refuse_tunnel(file, &facts, tunnel_ca)?;
                // While one replaces another, the old one may end: nobody is shut out before the last one does.
                let last = facts.iter().max_by_key(|authority| authority.not_after);
                date(CLIENTS, file, last.map(|last| last.not_before), last.map(|last| last.not_after));
                let verifier = OperatorVerifier::new(file, authorities, &provider, revoked.clone())?;
                builder.with_client_cert_verifier(Arc::new(verifier))
            }
            None => builder.with_no_client_auth(),
        };
        let mut server = builder.with_single_cert(chain, private).map_err(unusable)?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Every connection proves itself anew: a ticket would outlive the certificate that it was given for.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.max_early_data_size = 0;
        Ok(Self { server: Arc::new(server), dated })
    }

    /// Returns the TLS configuration of the server.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// Returns the certificates that it needs to be valid.
    pub fn dated(&self) -> &[DatedCertificate] {
        &self.dated
    }
}

fn parsed(file: &Path, all: &[CertificateDer<'static>]) -> Result<Vec<Certificate>, CertError> {
    let parse = |der| Certificate::parse(der).map_err(|_| CertProblem::Damaged("certificate").of(file));
    all.iter().map(parse).collect()
}

/// Refuses authorities of the tunnel, and what is no authority.
fn refuse_tunnel(file: &Path, authorities: &[Certificate], tunnel_ca: Option<&Path>) -> Result<(), CertError> {
    if let Some(other) = authorities.iter().find(|authority| !authority.is_ca) {
        return Err(CertProblem::NotAuthority(other.subject.clone()).of(file));
    }
    // A file of the tunnel that cannot be read is an error of the tunnel.
    let tunnel = tunnel_ca.and_then(|ca| Some((ca, files::certificates(ca).and_then(|all| parsed(ca, &all)).ok()?)));
    let Some((ca, tunnel)) = tunnel else { return Ok(()) };
    let shared = |authority: &Certificate| tunnel.iter().any(|other| other.public_key == authority.public_key);
    if authorities.iter().any(shared) { Err(CertProblem::TunnelAuthority(ca.to_owned()).of(file)) } else { Ok(()) }
}

/// A verifier of operators: their certificate comes from their authority, is valid, is no host's, and is not revoked.
#[derive(Debug)]
struct OperatorVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    revoked: RevokedOperators,
    log: RateLimitedLog,
}

impl OperatorVerifier {
    fn new(
        file: &Path,
        authorities: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
        revoked: RevokedOperators,
    ) -> Result<Self, CertError> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority).map_err(|error| CertProblem::Unusable(error).of(file))?;
        }
        let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
        let inner = inner.map_err(|error| CertProblem::Unusable(Error::General(error.to_string())).of(file))?;
        Ok(Self { inner, revoked, log: RateLimitedLog::new(LINES) })
    }

    /// Verifies a certificate; an error comes with the name in it, if its authority says so.
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, (Error, Option<String>)> {
        let verified = self.inner.verify_client_cert(leaf, intermediates, now).map_err(|error| (error, None))?;
        let Ok(facts) = Certificate::parse(leaf) else { return Err((CertificateError::BadEncoding.into(), None)) };
        let refused = |error: CertificateError| Err((error.into(), Some(facts.subject.clone())));
        if self.revoked.has(&facts) {
            refused(CertificateError::Revoked)
        } else if facts.is_server || facts.is_ca {
            // A host's, which an intruder has together with the host.
            refused(CertificateError::InvalidPurpose)
        } else {
            Ok(verified)
        }
    }
}

impl ClientCertVerifier for OperatorVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(leaf, intermediates, now).map_err(|(error, operator)| {
            if let Some(suppressed) = self.log.allow(Instant::now()) {
                warn!(operator, suppressed, "admin.listen refused the certificate of an operator: {error}");
            }
            error
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

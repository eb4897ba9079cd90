//! The identity that one end of the tunnel proves itself with, and the authorities that it trusts.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, Error, RootCertStore, ServerConfig};

use super::certificate::{Certificate, Validity, days_between};
use super::error::{CertError, CertProblem};
use super::files;
use super::name::Name;
use otproxy_config::{CORE_NAME, TlsFiles};
use otproxy_net::tls::ALPN;

/// The kind of an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityKind {
    /// That of the core: its certificate is for `core`.
    Core,
    /// That of an edge: its certificate's name is the edge's.
    Edge,
}

/// An own certificate with its key, and the authorities that must have issued the peer's. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Identity {
    name: String,
    expiry: Expiry,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

/// The times at which an identity expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// The last moment at which the own certificate is valid.
    pub own: SystemTime,
    /// The last moment at which its authority is valid.
    pub ca: SystemTime,
}

impl Expiry {
    /// Returns both with their labels of the metric.
    pub fn labelled(&self) -> [(&'static str, SystemTime); 2] {
        [("own", self.own), ("ca", self.ca)]
    }

    /// Returns the whole days until the first of both; negative once it has passed.
    pub fn days_left(&self, now: SystemTime) -> i64 {
        days_between(now, self.own.min(self.ca))
    }
}

impl Identity {
    /// Reads the files, and checks that they belong together and are valid now.
    ///
    /// # Errors
    /// The error names the file, its problem and the remedy.
    pub fn load(files: &TlsFiles, own: IdentityKind) -> Result<Self, CertError> {
        Self::load_at(files, own, SystemTime::now())
    }

    /// Loads an identity as of a given time.
    pub(super) fn load_at(files: &TlsFiles, own: IdentityKind, now: SystemTime) -> Result<Self, CertError> {
        let authorities = authorities(&files.ca)?;
        let chain = files::certificates(&files.cert)?;
        let facts = chain.first().and_then(|leaf| Certificate::parse(leaf).ok());
        let facts = facts.ok_or_else(|| CertProblem::Damaged("certificate").of(&files.cert))?;
        let name = own_name(&facts, own).map_err(|problem| problem.of(&files.cert))?;
        let remedy =
            format!("run `otproxy cert {}` where the authority's key is, and copy the file here", name.command());
        match facts.state(now) {
            Validity::Valid => {}
            Validity::Expired => return Err(CertProblem::Expired { until: facts.not_after, remedy }.of(&files.cert)),
            Validity::NotYetValid => {
                return Err(CertProblem::NotYetValid { from: facts.not_before, now }.of(&files.cert));
            }
        }
        let verified_by = |(der, _): &&(CertificateDer<'static>, Certificate)| {
            roots([der]).and_then(|roots| verify(&chain, roots, name.as_str(), now)).is_ok()
        };
        let issuer = match authorities.iter().find(verified_by) {
            Some((_, issuer)) => issuer,
            None => {
                let all = roots(authorities.iter().map(|(der, _)| der));
                let error = all.and_then(|all| verify(&chain, all, name.as_str(), now)).err();
                return Err(unverified(error, &facts, &files.ca).of(&files.cert));
            }
        };
        let key = files::key(&files.key)?;
        let unusable = |error| CertProblem::Unusable(error).of(&files.cert);
        let provider = Arc::new(ring::default_provider());
        let signing = provider.key_provider.load_private_key(key.clone_key());
        let certified = CertifiedKey::new(chain.clone(), signing.map_err(|_| CertProblem::KeyKind.of(&files.key))?);
        certified.keys_match().map_err(|_| CertProblem::OtherKey(files.cert.clone()).of(&files.key))?;
        let roots = Arc::new(roots(authorities.iter().map(|(der, _)| der)).map_err(unusable)?);
        let expiry = Expiry { own: facts.not_after, ca: issuer.not_after };
        let client = client_config(provider.clone(), roots.clone(), chain.clone(), key).map_err(unusable)?;
        let server = server_config(provider, roots, name.as_str(), certified).map_err(unusable)?;
        Ok(Self { name: name.as_str().to_owned(), expiry, client: Arc::new(client), server: Arc::new(server) })
    }

    /// Returns the name in the own certificate: `core`, or the edge's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the times at which it expires.
    pub fn expiry(&self) -> Expiry {
        self.expiry
    }

    /// Returns the TLS configuration of a client. The peer's name is given as server name: see [`server_name`].
    pub fn client_config(&self) -> Arc<ClientConfig> {
        self.client.clone()
    }

    /// Returns the TLS configuration of a server.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }
}

/// Returns the name that a client demands of its server; `None` if no certificate can have it.
pub fn server_name(name: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(name.to_owned()).ok()
}

/// The error of a certificate that is not for exactly one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the certificate is not for exactly one name")]
pub struct NotOneName;

/// Returns the one name that a peer's certificate is for, as it is written there. TLS ignores the case of letters, so a
/// caller that compares names must do so too.
///
/// # Errors
/// Fails if it has several names, or none.
pub fn peer_name(leaf: &CertificateDer<'_>) -> Result<String, NotOneName> {
    let facts = Certificate::parse(leaf).map_err(|_| NotOneName)?;
    facts.name().map(str::to_owned).ok_or(NotOneName)
}

/// Reads the authorities' certificates of a file.
fn authorities(file: &Path) -> Result<Vec<(CertificateDer<'static>, Certificate)>, CertError> {
    let read = |der: CertificateDer<'static>| {
        let facts = Certificate::parse(&der).map_err(|_| CertProblem::Damaged("certificate").of(file))?;
        if facts.is_ca { Ok((der, facts)) } else { Err(CertProblem::NotAuthority(facts.subject).of(file)) }
    };
    files::certificates(file)?.into_iter().map(read).collect()
}

fn own_name(facts: &Certificate, own: IdentityKind) -> Result<Name, CertProblem> {
    let found = facts.name().ok_or(CertProblem::Names(facts.names.len() + facts.other_names))?;
    let wrong = |demanded: &str| CertProblem::WrongName {
        found: found.escape_debug().to_string(),
        demanded: demanded.to_owned(),
    };
    match own {
        IdentityKind::Core if found == CORE_NAME => Ok(Name::core()),
        IdentityKind::Core => Err(wrong("the core's must be for `core`; make it with `otproxy cert core`")),
        IdentityKind::Edge => Name::edge(found).map_err(|_| {
            wrong("that is no edge's name; make one with `otproxy cert edge NAME`, NAME as in `edges` of core.yaml")
        }),
    }
}

/// Returns the problem for which TLS would refuse an own certificate.
fn unverified(error: Option<Error>, facts: &Certificate, authorities: &Path) -> CertProblem {
    match error {
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) | None => {
            CertProblem::OtherAuthority { issuer: facts.issuer.clone(), authorities: authorities.to_owned() }
        }
        Some(error) => CertProblem::Unusable(error),
    }
}

/// Verifies a chain as both a client and a server would: its issuer, name, time and permitted use.
pub(super) fn verify(
    chain: &[CertificateDer<'static>],
    roots: RootCertStore,
    name: &str,
    now: SystemTime,
) -> Result<(), Error> {
    let (leaf, rest) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
    let (roots, provider) = (Arc::new(roots), Arc::new(ring::default_provider()));
    let name = server_name(name).ok_or(Error::UnsupportedNameType)?;
    let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO));
    let server = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone()).build();
    server.map_err(no_verifier)?.verify_server_cert(leaf, rest, &name, &[], now)?;
    client_verifier(roots, provider)?.verify_client_cert(leaf, rest, now)?;
    Ok(())
}

fn roots<'a>(authorities: impl IntoIterator<Item = &'a CertificateDer<'static>>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    authorities.into_iter().try_for_each(|der| roots.add(der.clone()))?;
    Ok(roots)
}

fn no_verifier(error: rustls::server::VerifierBuilderError) -> Error {
    Error::General(error.to_string())
}

fn client_verifier(
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    // No hint is sent: it would disclose the authority's name, and an edge has one certificate only.
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider).clear_root_hint_subjects();
    builder.build().map_err(no_verifier)
}

fn client_config(
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])?;
    let mut config = builder.with_root_certificates(roots).with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn server_config(
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    name: &str,
    certified: CertifiedKey,
) -> Result<ServerConfig, Error> {
    let verifier = client_verifier(roots, provider.clone())?;
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])?;
    let resolver = OnlyIfAsked { name: name.to_owned(), certified: Arc::new(certified) };
    let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Every connection proves itself anew, so that a revoked peer does not come back with a ticket.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// A resolver that shows the certificate only to peers that ask for its name and for our protocol. A scanner gets an
/// alert, and no name.
#[derive(Debug)]
struct OnlyIfAsked {
    name: String,
    certified: Arc<CertifiedKey>,
}

impl ResolvesServerCert for OnlyIfAsked {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().is_some_and(|asked| asked.eq_ignore_ascii_case(&self.name));
        let protocol = hello.alpn().is_some_and(|mut offered| offered.any(|offered| offered == ALPN));
        (name && protocol).then(|| self.certified.clone())
    }
}

//! The identity that one end of the tunnel proves itself with, and the authorities that it trusts.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme,
};

use super::certificate::{Certificate, Validity, days_between, hex, sha256};
use super::error::{CertError, CertProblem};
use super::files;
use super::name::Name;
use otproxy_config::{CORE_NAME, TlsFiles};
use otproxy_net::tls::{ALPN, FORMER_ALPN};

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
    /// The authority that has issued the own certificate. The peer knows it, whatever others both know.
    issuer: Arc<Certificate>,
    expiry: Expiry,
    /// The own certificates, and the authorities.
    chain: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
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
        let issuer = Arc::new(issuer.clone());
        let verifier = AskedPeer::new(&roots, &provider, Arc::clone(&issuer)).map_err(unusable)?;
        let client = client_config(provider.clone(), verifier, chain.clone(), key).map_err(unusable)?;
        // Peers ask by the authority of their own certificate, which is any of these while one replaces another.
        let asked = authorities.iter().filter_map(|(_, authority)| asked_name(authority, name.as_str())).collect();
        let server = server_config(provider, Arc::clone(&roots), asked, certified).map_err(unusable)?;
        let name = name.as_str().to_owned();
        Ok(Self { name, issuer, expiry, chain, roots, client: Arc::new(client), server: Arc::new(server) })
    }

    /// Returns the name in the own certificate: `core`, or the edge's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the times at which it expires.
    pub fn expiry(&self) -> Expiry {
        self.expiry
    }

    /// Returns the name by which a peer is asked for in a handshake; `None` if no peer can have that name.
    pub fn server_name(&self, peer: &str) -> Option<ServerName<'static>> {
        server_name(&self.issuer, peer)
    }

    /// Returns whether it has the same certificates and the same authorities as another one.
    pub fn is(&self, other: &Self) -> bool {
        self.chain == other.chain && self.roots.roots == other.roots.roots
    }

    /// Returns whether a peer that proved itself with these certificates, for this name, would be trusted now.
    pub fn trusts(&self, name: &str, chain: &[CertificateDer<'static>]) -> bool {
        verify(chain, RootCertStore::clone(&self.roots), name, SystemTime::now()).is_ok()
    }

    /// Returns the TLS configuration of a client, which asks by the peer's [`server_name`](Self::server_name).
    pub fn client_config(&self) -> Arc<ClientConfig> {
        self.client.clone()
    }

    /// Returns the TLS configuration of a server.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }
}

/// Returns the name by which the peer of this name is asked for in a handshake, if it belongs to this authority; `None` if
/// no certificate can have the name.
///
/// It goes over the wire in clear text, and is made of the authority's key: nobody can tell what it is for, and only who has
/// `ca.pem` knows it, so that a scanner finds no port by it.
pub fn server_name(authority: &Certificate, peer: &str) -> Option<ServerName<'static>> {
    dns_name(peer)?;
    dns_name(&asked_name(authority, peer)?)
}

/// Returns the same as text: a label of 33 characters.
fn asked_name(authority: &Certificate, peer: &str) -> Option<String> {
    // TLS does not tell letters' cases apart.
    let peer = peer.to_ascii_lowercase();
    let hash = sha256(&[b"otproxy tunnel 1", &authority.public_key, peer.as_bytes()])?;
    Some(format!("n{}", hex(hash.get(..16)?).replace(':', "")))
}

fn dns_name(name: &str) -> Option<ServerName<'static>> {
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
    let name = dns_name(name).ok_or(Error::UnsupportedNameType)?;
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
    verifier: AskedPeer,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = builder.with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec(), FORMER_ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn server_config(
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    names: Vec<String>,
    certified: CertifiedKey,
) -> Result<ServerConfig, Error> {
    let verifier = client_verifier(roots, provider.clone())?;
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])?;
    let resolver = OnlyIfAsked { names, certified: Arc::new(certified) };
    let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![ALPN.to_vec(), FORMER_ALPN.to_vec()];
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
    /// The names by which it may be asked for: see [`server_name`].
    names: Vec<String>,
    certified: Arc<CertifiedKey>,
}

impl ResolvesServerCert for OnlyIfAsked {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name();
        let name = asked.is_some_and(|asked| self.names.iter().any(|name| asked.eq_ignore_ascii_case(name)));
        let protocol =
            hello.alpn().is_some_and(|mut offered| offered.any(|offered| offered == ALPN || offered == FORMER_ALPN));
        (name && protocol).then(|| self.certified.clone())
    }
}

/// A verifier of the peer that was asked for by its [`server_name`]: its certificate must be of an authority, valid, and for
/// the one name that this was made of. The name in the certificate is one that people read, and never goes over the wire
/// in clear text.
#[derive(Debug)]
pub(super) struct AskedPeer {
    inner: Arc<WebPkiServerVerifier>,
    issuer: Arc<Certificate>,
}

impl AskedPeer {
    pub(super) fn new(
        roots: &Arc<RootCertStore>,
        provider: &Arc<CryptoProvider>,
        issuer: Arc<Certificate>,
    ) -> Result<Self, Error> {
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider)).build();
        Ok(Self { inner: inner.map_err(no_verifier)?, issuer })
    }
}

impl ServerCertVerifier for AskedPeer {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        asked: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let other = || Error::from(CertificateError::NotValidForName);
        let name = peer_name(leaf).map_err(|_| other())?;
        // First of all it is ours and valid: then its name is of interest.
        let own = dns_name(&name).ok_or_else(other)?;
        let verified = self.inner.verify_server_cert(leaf, intermediates, &own, ocsp, now)?;
        if server_name(&self.issuer, &name).is_some_and(|right| right == *asked) { Ok(verified) } else { Err(other()) }
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

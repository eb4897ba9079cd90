//! The operator's own certificate authority, which issues the certificates of the core and of the edges.
//!
//! It consists of two files in a directory: `ca.pem`, which every host gets, and `ca.key`, which stays in that
//! directory. It issues `NAME.pem` and `NAME.key`, into any directory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use super::certificate::{Certificate, OPERATOR, Validity, days};
use super::error::{CertError, CertProblem};
use super::files;
use super::identity;
use super::name::Name;

/// Years for which an authority is valid by default.
pub const YEARS: u32 = 10;
/// Days for which a certificate is valid by default, though never longer than its authority.
pub const DAYS: u32 = 730;
/// The time by which a certificate's validity begins before it is made, as hosts' clocks differ.
pub const BACKDATED: Duration = Duration::from_secs(60 * 60);
/// Random bytes of a serial number.
pub const SERIAL_LEN: usize = 16;

/// The authority, with its key.
pub struct Authority {
    certificate_file: PathBuf,
    key_file: PathBuf,
    der: CertificateDer<'static>,
    facts: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// The holder of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// An end of the tunnel.
    Host,
    /// A person who uses the admin API.
    Operator,
}

/// The terms of a new certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IssueTerms {
    /// Days for which it is valid.
    pub days: u32,
    /// True if an existing key is replaced by a new one.
    pub new_key: bool,
}

impl Default for IssueTerms {
    fn default() -> Self {
        Self { days: DAYS, new_key: false }
    }
}

/// The outcome for a key file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFile {
    /// The file is new.
    Made,
    /// The existing key was kept.
    Kept,
    /// A new key has replaced the existing one.
    Replaced,
}

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// The file of the certificate.
    pub certificate: PathBuf,
    /// The file of its key.
    pub key: PathBuf,
    /// The outcome for the key file.
    pub key_file: KeyFile,
    /// True if it replaces a certificate of the same authority.
    pub renewed: bool,
    /// The last moment at which it is valid.
    pub not_after: SystemTime,
    /// True if its time was cut short, to end with its authority.
    pub shortened: bool,
}

impl Authority {
    /// Creates an authority in a directory, which is created too.
    ///
    /// # Errors
    /// Fails if there is one already, or if the files cannot be written.
    pub fn create(directory: &Path, years: u32) -> Result<Self, CertError> {
        let (certificate_file, key_file) = Self::files(directory);
        for file in [&certificate_file, &key_file] {
            if file.symlink_metadata().is_ok() {
                return Err(CertProblem::Exists.of(file));
            }
        }
        let not_made = |error| CertProblem::NotMade(error).of(&certificate_file);
        let now = whole_seconds(SystemTime::now());
        let key = KeyPair::generate().map_err(not_made)?;
        // Both people and verifiers must be able to tell two authorities of one operator apart. Nothing in the name says what
        // they are for.
        let tag: [u8; 4] = random().map_err(not_made)?;
        let mut params = params(&format!("CA {:08x}", u32::from_be_bytes(tag)), now).map_err(not_made)?;
        params.not_after = (now + days(years.saturating_mul(1461) / 4)).into();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(not_made)?;
        files::make_directory(directory)?;
        files::create_key(&key_file, &key.serialize_pem())?;
        files::replace_certificates(&certificate_file, &certificate.pem())?;
        Self::open(directory)
    }

    /// Opens the authority in a directory.
    ///
    /// # Errors
    /// Fails if there is none, or if its files cannot be used.
    pub fn open(directory: &Path) -> Result<Self, CertError> {
        let (certificate_file, key_file) = Self::files(directory);
        if !key_file.exists() {
            return Err(CertProblem::NoAuthority.of(&key_file));
        }
        let key = files::key(&key_file)?;
        let key = KeyPair::try_from(key.secret_der()).map_err(|_| CertProblem::KeyKind.of(&key_file))?;
        let public_key = key.subject_public_key_info();
        // The file holds both authorities while one replaces the other.
        for der in files::certificates(&certificate_file)? {
            let damaged = || CertProblem::Damaged("certificate").of(&certificate_file);
            let facts = Certificate::parse(&der).map_err(|_| damaged())?;
            if facts.public_key == public_key {
                if !facts.is_ca {
                    return Err(CertProblem::NotAuthority(facts.subject).of(&certificate_file));
                }
                let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|_| damaged())?;
                return Ok(Self { certificate_file, key_file, der, facts, issuer });
            }
        }
        Err(CertProblem::OtherKey(certificate_file).of(&key_file))
    }

    /// Returns whether a directory has an authority, or a part of one.
    pub fn exists(directory: &Path) -> bool {
        let (certificate, key) = Self::files(directory);
        [certificate, key].iter().any(|file| file.symlink_metadata().is_ok())
    }

    fn files(directory: &Path) -> (PathBuf, PathBuf) {
        (directory.join("ca.pem"), directory.join("ca.key"))
    }

    /// Returns the file of its certificate, which every host gets.
    pub fn certificate_file(&self) -> &Path {
        &self.certificate_file
    }

    /// Returns the file of its key, which nobody else gets.
    pub fn key_file(&self) -> &Path {
        &self.key_file
    }

    /// Returns the contents of its certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.facts
    }

    /// Returns whether other users than the owner may read its key.
    pub fn key_is_exposed(&self) -> bool {
        fs::metadata(&self.key_file).is_ok_and(|file| file.permissions().mode() & 0o077 != 0)
    }

    /// Issues a certificate into a directory, which is created if needed. An existing key is kept, unless the terms say
    /// otherwise.
    ///
    /// # Errors
    /// Fails if files cannot be read or written, or if the authority has expired.
    pub fn issue(&self, name: &Name, directory: &Path, terms: IssueTerms) -> Result<IssuedCertificate, CertError> {
        self.issue_at(name, directory, terms, SystemTime::now())
    }

    /// Issues an operator's certificate as [`issue`](Self::issue) does a host's.
    ///
    /// # Errors
    /// Fails as that does.
    pub fn issue_operator(
        &self,
        name: &Name,
        directory: &Path,
        terms: IssueTerms,
    ) -> Result<IssuedCertificate, CertError> {
        self.issue_for(Holder::Operator, name, directory, terms, SystemTime::now())
    }

    /// Issues a certificate as of a given time.
    pub(super) fn issue_at(
        &self,
        name: &Name,
        directory: &Path,
        terms: IssueTerms,
        now: SystemTime,
    ) -> Result<IssuedCertificate, CertError> {
        self.issue_for(Holder::Host, name, directory, terms, now)
    }

    pub(super) fn issue_for(
        &self,
        holder: Holder,
        name: &Name,
        directory: &Path,
        terms: IssueTerms,
        now: SystemTime,
    ) -> Result<IssuedCertificate, CertError> {
        let now = whole_seconds(now);
        let Certificate { not_after: end, .. } = self.facts;
        if self.facts.state(now) == Validity::Expired {
            let remedy = "make a new authority with `otproxy cert init --dir` and another directory".to_owned();
            return Err(CertProblem::Expired { until: end, remedy }.of(&self.certificate_file));
        }
        let (certificate_file, key_file) = pair(name, directory);
        files::make_directory(directory)?;
        let (key, made) = key_for(&key_file, terms.new_key)?;
        let not_made = |error| CertProblem::NotMade(error).of(&certificate_file);
        let mut params = params(name.as_str(), now).map_err(not_made)?;
        let asked = now + days(terms.days);
        let not_after = asked.min(end);
        params.not_after = not_after.into();
        let (alternative, purposes) = match holder {
            Holder::Host => (
                SanType::DnsName(name.as_str().try_into().map_err(not_made)?),
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            ),
            Holder::Operator => {
                let uri = format!("{OPERATOR}{name}").try_into().map_err(not_made)?;
                (SanType::URI(uri), vec![ExtendedKeyUsagePurpose::ClientAuth])
            }
        };
        params.subject_alt_names = vec![alternative];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = purposes;
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).map_err(not_made)?;
        match made {
            KeyFile::Kept => {}
            KeyFile::Made => files::create_key(&key_file, &key.serialize_pem())?,
            KeyFile::Replaced => files::replace_key(&key_file, &key.serialize_pem())?,
        }
        // A random tag tells authorities' names apart.
        let before = files::certificates(&certificate_file).ok().and_then(|all| Certificate::parse(all.first()?).ok());
        let renewed = before.is_some_and(|before| before.issuer == self.facts.subject);
        files::replace_certificates(&certificate_file, &certificate.pem())?;
        let (certificate, key) = (certificate_file, key_file);
        Ok(IssuedCertificate { certificate, key, key_file: made, renewed, not_after, shortened: asked > end })
    }

    /// Returns whether a directory has a certificate of this authority for that name with its key, valid for at least
    /// `left` more.
    pub fn is_current(&self, name: &Name, directory: &Path, left: Duration) -> bool {
        let now = SystemTime::now();
        let (certificate_file, key_file) = pair(name, directory);
        let current = || {
            let chain = files::certificates(&certificate_file).ok()?;
            let facts = Certificate::parse(chain.first()?).ok()?;
            let key = KeyPair::try_from(files::key(&key_file).ok()?.secret_der()).ok()?;
            let mut roots = RootCertStore::empty();
            roots.add(self.der.clone()).ok()?;
            identity::verify(&chain, roots, name.as_str(), now).ok()?;
            let named = facts.name() == Some(name.as_str());
            Some(named && facts.public_key == key.subject_public_key_info() && now + left <= facts.not_after)
        };
        current() == Some(true)
    }
}

/// Returns the files of a certificate and its key.
fn pair(name: &Name, directory: &Path) -> (PathBuf, PathBuf) {
    (directory.join(format!("{name}.pem")), directory.join(format!("{name}.key")))
}

/// Returns the existing key or a new one, and the outcome for its file.
fn key_for(file: &Path, new_key: bool) -> Result<(KeyPair, KeyFile), CertError> {
    let exists = file.symlink_metadata().is_ok();
    if exists && !new_key {
        let key = files::key(file)?;
        let key = KeyPair::try_from(key.secret_der()).map_err(|_| CertProblem::KeyKind.of(file))?;
        return Ok((key, KeyFile::Kept));
    }
    let key = KeyPair::generate().map_err(|error| CertProblem::NotMade(error).of(file))?;
    Ok((key, if exists { KeyFile::Replaced } else { KeyFile::Made }))
}

/// Returns the parameters that all certificates have in common.
fn params(subject: &str, now: SystemTime) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject);
    params.not_before = (now - BACKDATED).into();
    let mut serial: [u8; SERIAL_LEN] = random()?;
    // The number is positive, and leading zeros do not shorten it.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

fn random<const LEN: usize>() -> Result<[u8; LEN], rcgen::Error> {
    let mut bytes = [0; LEN];
    let filled = rustls::crypto::ring::default_provider().secure_random.fill(&mut bytes);
    filled.map(|()| bytes).map_err(|_| rcgen::Error::RingUnspecified)
}

/// Rounds down to whole seconds, the unit of certificates.
fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

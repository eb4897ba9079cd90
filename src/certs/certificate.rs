//! The contents of a certificate.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

use super::name::Name;
use otproxy_config::CORE_NAME;

/// Formats bytes as pairs of hexadecimal digits separated by colons, as other tools do.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// Returns the SHA-256 hash of these parts, one after the other. The hash comes with the crate that does the cryptography
/// anyway; `None` if it were built without.
pub(super) fn sha256(parts: &[&[u8]]) -> Option<Vec<u8>> {
    let mut hash = TLS13_AES_128_GCM_SHA256.tls13()?.common.hash_provider.start();
    parts.iter().for_each(|part| hash.update(part));
    Some(hash.finish().as_ref().to_vec())
}

/// The beginning of the URI that names an operator in its certificate, which has no other name: no end of a tunnel accepts it.
pub(super) const OPERATOR: &str = "urn:otproxy:operator:";
/// Days before a certificate's end from which on there are warnings.
pub const DAYS_LEFT: i64 = 30;
/// Seconds in a day.
const DAY: u64 = 24 * 60 * 60;

/// The contents of a certificate. Names are taken as they are, and may hold anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Its alternative names that are DNS names.
    pub names: Vec<String>,
    /// Alternative names of other kinds.
    pub other_names: usize,
    /// Its common name, safe to print on a terminal.
    pub subject: String,
    /// The common name of its issuer, safe to print on a terminal.
    pub issuer: String,
    /// Its serial number, which an authority never gives twice.
    pub serial: Vec<u8>,
    /// The first moment at which it is valid.
    pub not_before: SystemTime,
    /// The last moment at which it is valid.
    pub not_after: SystemTime,
    /// True if it may issue certificates.
    pub is_ca: bool,
    /// True if it says that it is for servers, perhaps beside others.
    pub is_server: bool,
    /// The name of the operator that it was issued for.
    pub operator: Option<String>,
    /// The SHA-256 hash of the whole certificate.
    pub fingerprint: Vec<u8>,
    /// The public key that it certifies.
    pub(super) public_key: Vec<u8>,
}

/// The error of bytes that are no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no certificate")]
pub struct MalformedCertificate;

/// The validity of a certificate at a given time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// Its time has not come.
    NotYetValid,
    /// It is valid.
    Valid,
    /// Its time has passed.
    Expired,
}

impl Validity {
    /// Returns the state at `now` of what is valid from one moment to another.
    pub fn at(now: SystemTime, from: SystemTime, until: SystemTime) -> Self {
        if now < from {
            Self::NotYetValid
        } else if now <= until {
            Self::Valid
        } else {
            Self::Expired
        }
    }

    /// Returns the state as one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotYetValid => "not_yet_valid",
            Self::Valid => "valid",
            Self::Expired => "expired",
        }
    }
}

impl Certificate {
    /// Parses a certificate. It verifies neither the issuer nor the signature.
    ///
    /// # Errors
    /// Fails if it is malformed.
    pub fn parse(der: &CertificateDer<'_>) -> Result<Self, MalformedCertificate> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| MalformedCertificate)?;
        let alternative = parsed.subject_alternative_name().map_err(|_| MalformedCertificate)?;
        let alternative = alternative.map(|names| &names.value.general_names[..]).unwrap_or_default();
        let dns =
            |name: &GeneralName<'_>| if let GeneralName::DNSName(dns) = name { Some((*dns).to_owned()) } else { None };
        let names: Vec<_> = alternative.iter().filter_map(dns).collect();
        let operator = |name: &GeneralName<'_>| match name {
            GeneralName::URI(uri) => uri.strip_prefix(OPERATOR).map(str::to_owned),
            _ => None,
        };
        let purposes = parsed.extended_key_usage().map_err(|_| MalformedCertificate)?;
        Ok(Self {
            other_names: alternative.len() - names.len(),
            names,
            subject: common_name(parsed.subject()),
            issuer: common_name(parsed.issuer()),
            serial: parsed.raw_serial().to_vec(),
            not_before: system_time(parsed.validity().not_before),
            not_after: system_time(parsed.validity().not_after),
            is_ca: parsed.is_ca(),
            is_server: purposes.is_some_and(|purposes| purposes.value.server_auth),
            operator: alternative.iter().find_map(operator),
            fingerprint: sha256(&[der]).ok_or(MalformedCertificate)?,
            public_key: parsed.public_key().raw.to_vec(),
        })
    }

    /// Returns its one name; `None` if it has several, or none.
    pub fn name(&self) -> Option<&str> {
        match &self.names[..] {
            [name] if self.other_names == 0 => Some(name),
            _ => None,
        }
    }

    /// Returns `ca`, `core`, `edge` or `operator`; `None` for a certificate that neither the tunnel nor the admin API has a name
    /// for.
    pub fn role(&self) -> Option<&'static str> {
        match self.name() {
            _ if self.is_ca => Some("ca"),
            _ if self.operator.is_some() => Some("operator"),
            Some(CORE_NAME) => Some("core"),
            Some(name) => Name::edge(name).is_ok().then_some("edge"),
            None => None,
        }
    }

    /// Returns whether it is valid at `now`.
    pub fn state(&self, now: SystemTime) -> Validity {
        Validity::at(now, self.not_before, self.not_after)
    }

    /// Returns the whole days left; negative once it has expired.
    pub fn days_left(&self, now: SystemTime) -> i64 {
        days_between(now, self.not_after)
    }
}

/// Returns the whole days from `now` to `end`; negative if `end` has passed.
pub(super) fn days_between(now: SystemTime, end: SystemTime) -> i64 {
    let days = |time: Duration| i64::try_from(time.as_secs() / DAY).unwrap_or(i64::MAX);
    match end.duration_since(now) {
        Ok(left) => days(left),
        Err(passed) => -days(passed.duration()) - 1,
    }
}

/// Returns the length of a number of days.
pub(super) fn days(count: u32) -> Duration {
    Duration::from_secs(u64::from(count) * DAY)
}

fn common_name(name: &x509_parser::x509::X509Name<'_>) -> String {
    let first = name.iter_common_name().next().and_then(|name| name.as_str().ok());
    first.map_or_else(|| name.to_string(), str::to_owned).escape_debug().to_string()
}

/// Converts a time; one before 1970 counts as 1970, as both have passed.
fn system_time(time: ASN1Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}

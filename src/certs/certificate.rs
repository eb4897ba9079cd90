//! What stands in a certificate.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

use super::name::Name;
use crate::config::CORE_NAME;

/// Bytes as pairs of hexadecimal digits with colons between, as other tools have them.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// Seconds of a day.
const DAY: u64 = 24 * 60 * 60;

/// What stands in a certificate. Names are as they stand there, and may hold anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Its alternative names that are DNS names.
    pub names: Vec<String>,
    /// Alternative names of other kinds.
    pub other_names: usize,
    /// Its common name, fit for a terminal.
    pub subject: String,
    /// The common name of who issued it, fit for a terminal.
    pub issuer: String,
    /// Its number, of which each authority gives each once.
    pub serial: Vec<u8>,
    /// The first moment at which it is valid.
    pub not_before: SystemTime,
    /// The last one.
    pub not_after: SystemTime,
    /// Whether it may issue others.
    pub is_ca: bool,
    /// SHA-256 of all of it.
    pub fingerprint: Vec<u8>,
    /// The key that it is for.
    pub(super) public_key: Vec<u8>,
}

/// What is no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no certificate")]
pub struct Malformed;

/// Whether a certificate is valid at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its time has not come.
    NotYetValid,
    /// It is valid.
    Valid,
    /// Its time has passed.
    Expired,
}

impl State {
    /// In one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotYetValid => "not_yet_valid",
            Self::Valid => "valid",
            Self::Expired => "expired",
        }
    }
}

impl Certificate {
    /// Reads a certificate. Who issued it, and whether that is true, it does not check.
    ///
    /// # Errors
    /// Where it is none.
    pub fn parse(der: &CertificateDer<'_>) -> Result<Self, Malformed> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| Malformed)?;
        let alternative = parsed.subject_alternative_name().map_err(|_| Malformed)?;
        let alternative = alternative.map(|names| &names.value.general_names[..]).unwrap_or_default();
        let dns =
            |name: &GeneralName<'_>| if let GeneralName::DNSName(dns) = name { Some((*dns).to_owned()) } else { None };
        let names: Vec<_> = alternative.iter().filter_map(dns).collect();
        // A hash of the crate that does the cryptography anyway.
        let hash = TLS13_AES_128_GCM_SHA256.tls13().ok_or(Malformed)?.common.hash_provider;
        Ok(Self {
            other_names: alternative.len() - names.len(),
            names,
            subject: common_name(parsed.subject()),
            issuer: common_name(parsed.issuer()),
            serial: parsed.raw_serial().to_vec(),
            not_before: system_time(parsed.validity().not_before),
            not_after: system_time(parsed.validity().not_after),
            is_ca: parsed.is_ca(),
            fingerprint: hash.hash(der).as_ref().to_vec(),
            public_key: parsed.public_key().raw.to_vec(),
        })
    }

    /// Its one name; `None` where it has several, or none.
    pub fn name(&self) -> Option<&str> {
        match &self.names[..] {
            [name] if self.other_names == 0 => Some(name),
            _ => None,
        }
    }

    /// `ca`, `core` or `edge`; `None` for a certificate that the tunnel has no use for.
    pub fn role(&self) -> Option<&'static str> {
        match self.name() {
            _ if self.is_ca => Some("ca"),
            Some(CORE_NAME) => Some("core"),
            Some(name) => Name::edge(name).is_ok().then_some("edge"),
            None => None,
        }
    }

    /// Whether it is valid.
    pub fn state(&self, now: SystemTime) -> State {
        if now < self.not_before {
            State::NotYetValid
        } else if now <= self.not_after {
            State::Valid
        } else {
            State::Expired
        }
    }

    /// Whole days left; negative once it has expired.
    pub fn days_left(&self, now: SystemTime) -> i64 {
        days_between(now, self.not_after)
    }
}

/// Whole days from `now` to `end`; negative where it has passed.
pub(super) fn days_between(now: SystemTime, end: SystemTime) -> i64 {
    let days = |time: Duration| i64::try_from(time.as_secs() / DAY).unwrap_or(i64::MAX);
    match end.duration_since(now) {
        Ok(left) => days(left),
        Err(passed) => -days(passed.duration()) - 1,
    }
}

/// A number of days.
pub(super) fn days(count: u32) -> Duration {
    Duration::from_secs(u64::from(count) * DAY)
}

fn common_name(name: &x509_parser::x509::X509Name<'_>) -> String {
    let first = name.iter_common_name().next().and_then(|name| name.as_str().ok());
    first.map_or_else(|| name.to_string(), str::to_owned).escape_debug().to_string()
}

/// A time before 1970 counts as 1970: both have passed.
fn system_time(time: ASN1Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}

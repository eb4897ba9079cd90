//! What can be wrong with certificates and their files.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use humantime::format_rfc3339_seconds;

/// What is wrong with a file, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", file.display())]
pub struct CertError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What can be wrong with a file of certificates or a key.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// It, or the directory, cannot be written.
    #[error("cannot be written: {0}")]
    Write(io::Error),
    /// It is there, and would be lost.
    #[error("is there already, and is never overwritten; name another directory with `--dir`, or move it away")]
    Exists,
    /// There is no authority.
    #[error("there is no authority here; make one with `otproxy cert init`, or name its directory with `--dir`")]
    NoAuthority,
    /// It does not hold what it should.
    #[error("holds no {0} in PEM form, or a damaged one; copy it again from where `otproxy cert` wrote it")]
    Damaged(&'static str),
    /// The key is of a kind that is not used here.
    #[error("holds a private key of a kind that cannot be used; `otproxy cert` makes the right kind: ECDSA P-256")]
    KeyKind,
    /// In the place of an authority's certificate there is another.
    #[error("holds the certificate of `{0}`, which is no authority's; name the ca.pem that `otproxy cert init` wrote")]
    NotAuthority(String),
    /// It has several names, or none.
    #[error("must have exactly one name, a DNS name, and has {0}; make it with `otproxy cert`")]
    Names(usize),
    /// It is a certificate for somebody else.
    #[error("is the certificate of `{found}`, and {demanded}")]
    WrongName {
        /// The name in it.
        found: String,
        /// What is demanded, and the remedy.
        demanded: String,
    },
    /// The key is another's.
    #[error("is not the key of the certificate in {}; copy both from where `otproxy cert` wrote them", .0.display())]
    OtherKey(PathBuf),
    /// It does not come from a known authority.
    #[error(
        "comes from `{issuer}`, and {} does not hold that authority; copy the ca.pem that it was issued with",
        authorities.display()
    )]
    OtherAuthority {
        /// Who issued it.
        issuer: String,
        /// Where the known authorities are.
        authorities: PathBuf,
    },
    /// It was valid.
    #[error("was valid until {}; {remedy}", format_rfc3339_seconds(*until))]
    Expired {
        /// The last moment of it.
        until: SystemTime,
        /// What to do.
        remedy: String,
    },
    /// It will be valid.
    #[error(
        "is valid only from {}, and here it is {}; set this host's clock",
        format_rfc3339_seconds(*from),
        format_rfc3339_seconds(*now)
    )]
    NotYetValid {
        /// The first moment of it.
        from: SystemTime,
        /// The time it was compared with.
        now: SystemTime,
    },
    /// Anything else that TLS does not accept.
    #[error("cannot be used: {0}; make it with `otproxy cert`")]
    Unusable(rustls::Error),
    /// The certificate could not be made.
    #[error("could not be made: {0}")]
    NotMade(rcgen::Error),
}

impl Problem {
    /// The problem of a file.
    pub(super) fn of(self, file: &Path) -> CertError {
        CertError { file: file.to_owned(), problem: self }
    }
}

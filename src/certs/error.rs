//! The errors of certificates and their files.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use humantime::format_rfc3339_seconds;

/// The problem of a file, and its remedy.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", file.display())]
pub struct CertError {
    /// The file.
    pub file: PathBuf,
    /// The problem.
    pub problem: CertProblem,
}

/// A problem of a file of certificates or a key.
#[derive(Debug, thiserror::Error)]
pub enum CertProblem {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// Its mode or owner does not let this process read it.
    #[error("cannot be read: {error}; {remedy}")]
    Denied {
        /// The error.
        error: io::Error,
        /// The remedy.
        remedy: String,
    },
    /// It, or the directory, cannot be written.
    #[error("cannot be written: {0}")]
    Write(io::Error),
    /// It exists, and would be overwritten.
    #[error("is there already, and is never overwritten; name another directory with `--dir`, or move it away")]
    Exists,
    /// There is no authority.
    #[error("there is no authority here; make one with `otproxy cert init`, or name its directory with `--dir`")]
    NoAuthority,
    /// It does not hold what is expected.
    #[error("holds no {0} in PEM form, or a damaged one; copy it again from where it was made")]
    Damaged(&'static str),
    /// The key is of an unsupported kind.
    #[error("holds a private key of a kind that cannot be used; `otproxy cert` makes the right kind: ECDSA P-256")]
    KeyKind,
    /// It holds another certificate than that of an authority.
    #[error("holds the certificate of `{0}`, which is no authority's; name the ca.pem that `otproxy cert init` wrote")]
    NotAuthority(String),
    /// It is an authority of the tunnel, and is to be that of operators.
    #[error(
        "is an authority of the tunnel, as in {}: each edge has a certificate of it, and could act here; make operators' \
         with `otproxy cert operator NAME`, and name the ca.pem that is beside them",
        .0.display()
    )]
    TunnelAuthority(PathBuf),
    /// It has several names, or none.
    #[error("must have exactly one name, a DNS name, and has {0}; make it with `otproxy cert`")]
    Names(usize),
    /// The certificate is for another name.
    #[error("is the certificate of `{found}`, and {demanded}")]
    WrongName {
        /// The name in it.
        found: String,
        /// The name that is demanded, and the remedy.
        demanded: String,
    },
    /// The key belongs to another certificate.
    #[error("is not the key of the certificate in {}; copy both from where they were made", .0.display())]
    OtherKey(PathBuf),
    /// No known authority has issued it.
    #[error(
        "comes from `{issuer}`, and {} does not hold that authority; copy the ca.pem that it was issued with",
        authorities.display()
    )]
    OtherAuthority {
        /// Its issuer.
        issuer: String,
        /// The file of the known authorities.
        authorities: PathBuf,
    },
    /// It has expired.
    #[error("was valid until {}; {remedy}", format_rfc3339_seconds(*until))]
    Expired {
        /// The last moment at which it was valid.
        until: SystemTime,
        /// The remedy.
        remedy: String,
    },
    /// It is not valid yet.
    #[error(
        "is valid only from {}, and here it is {}; set this host's clock",
        format_rfc3339_seconds(*from),
        format_rfc3339_seconds(*now)
    )]
    NotYetValid {
        /// The first moment at which it is valid.
        from: SystemTime,
        /// The present time that it was compared with.
        now: SystemTime,
    },
    /// TLS refuses it for another reason.
    #[error("cannot be used: {0}; make it with `otproxy cert`")]
    Unusable(rustls::Error),
    /// The certificate could not be made.
    #[error("could not be made: {0}")]
    NotMade(rcgen::Error),
}

impl CertProblem {
    /// Returns this problem as that of a file.
    pub(super) fn of(self, file: &Path) -> CertError {
        CertError { file: file.to_owned(), problem: self }
    }
}

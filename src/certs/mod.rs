//! X.509: the operator's own authority, the certificates it issues, and the identities of the tunnel's ends.
//!
//! A certificate's identity is its one DNS name: `core`, or an edge's name. [`authority`] issues such certificates,
//! [`identity`] makes TLS configurations of them, [`operators`] those of `admin.listen`, [`server`] those of listeners for everybody, [`roots`] those of
//! clients of HTTPS, [`watch`] notices that they were renewed, [`certificate`] reads them.

mod error;
mod failure;
mod files;

pub mod authority;
pub mod certificate;
pub mod identity;
pub mod operators;
pub mod roots;
pub mod server;
pub mod show;
pub mod watch;

#[cfg(test)]
mod tests;

pub use error::{CertError, CertProblem};
pub use failure::{HandshakeResult, failure};
pub use files::certificates;
pub use otproxy_config::name;

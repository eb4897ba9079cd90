//! The result that a failed handshake is counted as.

use rustls::{CertificateError, Error};

use crate::reason::HandshakeResult;

/// Returns the result that a TLS error is counted as.
pub fn failure(error: &Error) -> HandshakeResult {
    match error {
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } | Error::PeerSentOversizedRecord => {
            HandshakeResult::NotTls
        }
        Error::PeerIncompatible(_) => HandshakeResult::Incompatible,
        // The error that a server reports if its resolver has no certificate to show.
        Error::General(_) => HandshakeResult::Stranger,
        Error::NoApplicationProtocol => HandshakeResult::NoAlpn,
        Error::NoCertificatesPresented => HandshakeResult::NoCertificate,
        Error::InvalidCertificate(error) => invalid(error),
        Error::AlertReceived(_) => HandshakeResult::Refused,
        _ => HandshakeResult::Error,
    }
}

fn invalid(error: &CertificateError) -> HandshakeResult {
    use CertificateError::*;
    match error {
        Expired | ExpiredContext { .. } => HandshakeResult::Expired,
        NotValidYet | NotValidYetContext { .. } => HandshakeResult::NotYetValid,
        UnknownIssuer | BadSignature => HandshakeResult::UnknownCa,
        NotValidForName | NotValidForNameContext { .. } => HandshakeResult::WrongName,
        Revoked => HandshakeResult::Revoked,
        _ => HandshakeResult::BadCertificate,
    }
}

//! The result that a failed handshake is counted as.

use rustls::{CertificateError, Error};

use otproxy_protocol::words;

words! {
    /// The result of a handshake of the tunnel.
    pub enum HandshakeResult {
        /// Both sides are authenticated.
        Ok = "ok",
        /// It was not through in time.
        Timeout = "timeout",
        /// The other side closed before it was through.
        Closed = "closed",
        /// The bytes are no TLS.
        NotTls = "not_tls",
        /// The other side speaks TLS, and has no version or cipher in common with this one.
        Incompatible = "incompatible",
        /// It asked for another name or protocol, as a scanner does, and was shown no certificate.
        Stranger = "stranger",
        /// The other side did not agree on the protocol in the tunnel.
        NoAlpn = "no_alpn",
        /// The other side agreed on it and did not speak it.
        NoHello = "no_hello",
        /// The other side has no certificate.
        NoCertificate = "no_certificate",
        /// The other side's certificate comes from another authority.
        UnknownCa = "unknown_ca",
        /// The other side's certificate has expired.
        Expired = "expired",
        /// The other side's certificate is not valid yet: one of both clocks is wrong.
        NotYetValid = "not_yet_valid",
        /// The other side's certificate is for another name, or not for exactly one.
        WrongName = "wrong_name",
        /// The other side's certificate is for another use, or damaged.
        BadCertificate = "bad_certificate",
        /// At the core: the edge is to come from `edges[].address`, and this is another address.
        WrongAddress = "wrong_address",
        /// At the core: no edge has the name in the certificate.
        UnknownEdge = "unknown_edge",
        /// At the core: the edge is revoked.
        Revoked = "revoked",
        /// The other side did not accept this one: it said so with an alert, or did not use the connection.
        Refused = "refused",
        /// Too many handshakes were under way.
        Limit = "limit",
        /// Anything else.
        Error = "error",
    }
}

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

//! What may stand in the files, and what is said where it does not.

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;

/// The operator's authority in other hands: for certificates that `otproxy cert` does not issue.
pub(super) fn own_authority(operator: &Operator) -> (String, String) {
    (text(&operator.folder.file("ca.pem")), text(&operator.folder.file("ca.key")))
}

pub(super) fn leaf(names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

pub(super) fn sign(
    params: &CertificateParams,
    authority: &str,
    key: &str,
) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let (certificate, key) = signed(params, authority, key);
    (vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
}

fn signed(params: &CertificateParams, authority: &str, key: &str) -> (rcgen::Certificate, KeyPair) {
    let issuer = Issuer::from_ca_cert_pem(authority, KeyPair::from_pem(key).unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, &issuer).unwrap(), key)
}

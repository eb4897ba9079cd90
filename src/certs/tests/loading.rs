//! Tests of the contents that files may have, and of the errors of others.

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;

/// Opens the operator's authority by hand, for certificates that `otproxy cert` does not issue.
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

/// Puts a certificate and its key into the place of those of `waw1`.
fn place(operator: &Operator, params: &CertificateParams) {
    let (authority, key) = own_authority(operator);
    let (certificate, key) = signed(params, &authority, &key);
    let files = operator.folder.tls("waw1");
    fs::write(files.cert, certificate.pem()).unwrap();
    fs::write(files.key, key.serialize_pem()).unwrap();
}

/// Returns the message, without the directory.
fn said(operator: &Operator, own: IdentityKind) -> String {
    let error = operator.identity(own).map(|_| ()).unwrap_err();
    error.to_string().replace(&format!("{}/", operator.folder.0.display()), "")
}

#[test]
fn an_identity_knows_its_name_and_its_end() {
    let operator = Operator::new();
    let (core, edge) = (operator.identity(IdentityKind::Core).unwrap(), operator.identity(IdentityKind::Edge).unwrap());
    assert_eq!((core.name(), edge.name()), ("core", "waw1"));
    let expiry = edge.expiry();
    let (own, ca) = (facts(&operator.folder.file("waw1.pem")).not_after, operator.authority.certificate().not_after);
    assert_eq!(expiry.labelled(), [("own", own), ("ca", ca)]);
    assert_eq!(expiry.days_left(own), 0);
    assert_eq!(expiry.days_left(own - days(3)), 3);
    assert_eq!(expiry.days_left(own - Duration::from_secs(1)), 0);
    assert_eq!(expiry.days_left(own + Duration::from_secs(1)), -1);
    assert_eq!(expiry.days_left(own + days(1) + Duration::from_secs(1)), -2);
}

#[test]
fn of_several_authorities_the_own_one_counts() {
    let folder = Folder::new();
    let short = Authority::create(&folder.file("short"), 1).unwrap();
    let operator = Operator::new();
    let ca = operator.folder.file("ca.pem");
    fs::write(&ca, text(short.certificate_file()) + &text(&ca)).unwrap();
    let expiry = operator.identity(IdentityKind::Edge).unwrap().expiry();
    assert_eq!(expiry.ca, operator.authority.certificate().not_after);
}

#[test]
fn files_that_are_not_what_they_should_be_are_named() {
    let operator = Operator::new();
    let file = |name: &str| operator.folder.file(name);
    let copy = |from: &str, to: &str| fs::copy(file(from), file(to)).map(|_| ()).unwrap();
    let good = ["ca.pem", "waw1.pem", "waw1.key"].map(|name| (name, text(&file(name))));
    let check = |expected: &str| {
        assert_eq!(said(&operator, IdentityKind::Edge), expected);
        good.iter().for_each(|(name, good)| fs::write(file(name), good).unwrap());
        operator.identity(IdentityKind::Edge).unwrap();
    };
    for name in ["ca.pem", "waw1.pem", "waw1.key"] {
        fs::remove_file(file(name)).unwrap();
        check(&format!("{name}: cannot be read: No such file or directory (os error 2)"));
        let what = if name == "waw1.key" { "private key" } else { "certificate" };
        for damaged in [
            "",
            "text",
            "-----BEGIN CERTIFICATE-----\nAA",
            "-----BEGIN PRIVATE KEY-----\n!!\n-----END PRIVATE KEY-----\n",
        ] {
            fs::write(file(name), damaged).unwrap();
            let copy_again = "or a damaged one; copy it again from where it was made";
            check(&format!("{name}: holds no {what} in PEM form, {copy_again}"));
        }
    }
    fs::write(file("waw1.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    check("waw1.pem: holds no certificate in PEM form, or a damaged one; copy it again from where it was made");
    fs::write(file("waw1.key"), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
    check(
        "waw1.key: holds a private key of a kind that cannot be used; `otproxy cert` makes the right kind: ECDSA P-256",
    );
    copy("core.pem", "ca.pem");
    check(
        "ca.pem: holds the certificate of `core`, which is no authority's; name the ca.pem that `otproxy cert init` wrote",
    );
    copy("core.key", "waw1.key");
    let key = file("waw1.pem");
    check(&format!(
        "waw1.key: is not the key of the certificate in {}; copy both from where they were made",
        key.display().to_string().replace(&format!("{}/", operator.folder.0.display()), "")
    ));
    copy("core.pem", "waw1.pem");
    copy("core.key", "waw1.key");
    check(
        "waw1.pem: is the certificate of `core`, and that is no edge's name; make one with `otproxy cert edge NAME`, NAME as in `edges` of core.yaml",
    );
    let other = Operator::new();
    fs::copy(other.folder.file("ca.pem"), file("ca.pem")).unwrap();
    let issuer = &operator.authority.certificate().subject;
    check(&format!(
        "waw1.pem: comes from `{issuer}`, and ca.pem does not hold that authority; copy the ca.pem that it was issued with"
    ));
}

#[test]
fn the_core_is_not_an_edge() {
    let operator = Operator::new();
    fs::copy(operator.folder.file("waw1.pem"), operator.folder.file("core.pem")).unwrap();
    let expected =
        "core.pem: is the certificate of `waw1`, and the core's must be for `core`; make it with `otproxy cert core`";
    assert_eq!(said(&operator, IdentityKind::Core), expected);
}

#[test]
fn an_identity_has_one_name_for_both_ends_of_tls() {
    let operator = Operator::new();
    let check = |params: &CertificateParams, expected: &str| {
        place(&operator, params);
        let said = said(&operator, IdentityKind::Edge);
        assert!(said.starts_with(&format!("waw1.pem: {expected}")), "{said}");
    };
    place(&operator, &leaf(&["waw1"]));
    operator.identity(IdentityKind::Edge).unwrap();
    check(&leaf(&[]), "must have exactly one name, a DNS name, and has 0; make it with `otproxy cert`");
    check(&leaf(&["waw1", "core"]), "must have exactly one name, a DNS name, and has 2;");
    check(&leaf(&["waw1", "198.51.100.7"]), "must have exactly one name, a DNS name, and has 2;");
    check(&leaf(&["198.51.100.7"]), "must have exactly one name, a DNS name, and has 1;");
    check(&leaf(&["CORE"]), "is the certificate of `CORE`, and that is no edge's name;");
    check(&leaf(&["*"]), "is the certificate of `*`, and that is no edge's name;");
    for purpose in [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth] {
        let mut params = leaf(&["waw1"]);
        params.extended_key_usages = vec![purpose];
        check(&params, "cannot be used: invalid peer certificate: ");
    }
}

#[test]
fn certificates_of_another_time_are_refused_with_the_remedy() {
    let operator = Operator::new();
    let (now, files) = (SystemTime::now(), operator.folder.tls("waw1"));
    operator.identity_at(IdentityKind::Edge, now - days(800));
    let until = humantime::format_rfc3339_seconds(facts(&files.cert).not_after);
    let expected = format!(
        "waw1.pem: was valid until {until}; run `otproxy cert edge waw1` where the authority's key is, and copy the file here"
    );
    assert_eq!(said(&operator, IdentityKind::Edge), expected);
    operator.identity_at(IdentityKind::Edge, now + days(30));
    let from = humantime::format_rfc3339_seconds(facts(&files.cert).not_before);
    let said = said(&operator, IdentityKind::Edge);
    assert!(said.starts_with(&format!("waw1.pem: is valid only from {from}, and here it is 20")), "{said}");
    assert!(said.ends_with("; set this host's clock"), "{said}");
}

//! Tests of the authority's certificates, and of existing files.

use std::os::unix::fs::{PermissionsExt, symlink};

use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;
use crate::certs::CertProblem;
use crate::certs::authority::{BACKDATED, DAYS, SERIAL_LEN, YEARS};
use crate::certs::identity::server_name;

fn mode(file: &Path) -> u32 {
    fs::metadata(file).unwrap().permissions().mode() & 0o7777
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn an_authority_may_issue_leaves_and_nothing_else() {
    let folder = Folder::new();
    let directory = folder.file("deep/down");
    let before = SystemTime::now();
    let authority = Authority::create(&directory, YEARS).unwrap();
    assert_eq!((mode(&folder.file("deep")), mode(&directory)), (0o700, 0o700));
    assert_eq!((mode(authority.certificate_file()), mode(authority.key_file())), (0o644, 0o600));
    assert!(!authority.key_is_exposed());
    let der = certificates(authority.certificate_file()).unwrap().remove(0);
    let (_, parsed) = X509Certificate::from_der(&der).unwrap();
    let constraints = parsed.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(0));
    let usage = parsed.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
    assert!(!usage.value.digital_signature() && !usage.value.key_encipherment());
    let certificate = authority.certificate();
    assert_eq!((certificate.role(), certificate.state(before)), (Some("ca"), Validity::Valid));
    assert_eq!(certificate.subject, certificate.issuer);
    assert!(certificate.subject.starts_with("CA "), "{}", certificate.subject);
    let valid = seconds(certificate.not_after) - seconds(certificate.not_before);
    assert_eq!(valid, BACKDATED.as_secs() + days(3652).as_secs());
}

#[test]
fn two_authorities_can_be_told_apart() {
    let (one, other) = (Operator::new(), Operator::new());
    assert_ne!(one.authority.certificate().subject, other.authority.certificate().subject);
}

#[test]
fn an_authority_is_never_overwritten() {
    let operator = Operator::new();
    let folder = &operator.folder;
    let refused = || {
        assert!(Authority::exists(&folder.0));
        let error = Authority::create(&folder.0, YEARS).map(|_| ()).unwrap_err();
        assert!(matches!(error.problem, CertProblem::Exists), "{error}");
    };
    let (certificate, key) = (text(&folder.file("ca.pem")), text(&folder.file("ca.key")));
    refused();
    assert_eq!((text(&folder.file("ca.pem")), text(&folder.file("ca.key"))), (certificate, key.clone()));
    fs::remove_file(folder.file("ca.pem")).unwrap();
    refused();
    assert_eq!(text(&folder.file("ca.key")), key);
    fs::rename(folder.file("ca.key"), folder.file("ca.pem")).unwrap();
    refused();
    assert_eq!(text(&folder.file("ca.pem")), key);
    // A link that leads nowhere is there, too: what it leads to is not ours to make.
    fs::remove_file(folder.file("ca.pem")).unwrap();
    symlink("elsewhere", folder.file("ca.key")).unwrap();
    refused();
    assert!(!folder.file("elsewhere").exists());
}

#[test]
fn a_certificate_is_for_one_name_and_both_ends_of_tls() {
    let operator = Operator::new();
    for (name, role) in [("core", "core"), ("waw1", "edge")] {
        let files = operator.folder.tls(name);
        assert_eq!((mode(&files.cert), mode(&files.key)), (0o644, 0o600));
        let der = certificates(&files.cert).unwrap().remove(0);
        let (_, parsed) = X509Certificate::from_der(&der).unwrap();
        assert!(!parsed.is_ca());
        let usage = parsed.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.digital_signature() && !usage.value.key_cert_sign());
        let purposes = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(purposes.server_auth && purposes.client_auth && !purposes.any && !purposes.code_signing);
        let certificate = facts(&files.cert);
        assert_eq!((certificate.name(), certificate.role()), (Some(name), Some(role)));
        assert_eq!(certificate.serial.len(), SERIAL_LEN);
        assert_eq!(certificate.issuer, operator.authority.certificate().subject);
        let valid = seconds(certificate.not_after) - seconds(certificate.not_before);
        assert_eq!(valid, BACKDATED.as_secs() + days(DAYS).as_secs());
    }
    assert_ne!(facts(&operator.folder.file("core.pem")).serial, facts(&operator.folder.file("waw1.pem")).serial);
}

#[test]
fn every_name_an_edge_may_have_works_in_tls() {
    let operator = Operator::new();
    let longest = format!("{}.b", "a".repeat(62));
    for name in ["a", "WAW-1", "p1.example", "under_score", "_a_", "1a", "1.a", "core1", &longest] {
        operator.issue(&edge(name));
        let identity = Identity::load(&operator.folder.tls(name), IdentityKind::Edge).unwrap();
        assert_eq!(identity.name(), name);
        assert!(server_name(operator.authority.certificate(), name).is_some());
    }
}

#[test]
fn renewing_keeps_the_key_and_replaces_the_certificate_in_one_step() {
    let operator = Operator::new();
    let files = operator.folder.tls("waw1");
    let (key, old) = (text(&files.key), text(&files.cert));
    let open = fs::File::open(&files.cert).unwrap();
    let issued = operator.authority.issue(&edge("waw1"), &operator.folder.0, IssueTerms::default()).unwrap();
    assert_eq!((issued.key_file, issued.renewed, issued.shortened), (KeyFile::Kept, true, false));
    assert_eq!((&issued.certificate, &issued.key), (&files.cert, &files.key));
    assert_eq!(text(&files.key), key);
    assert_ne!(text(&files.cert), old);
    // A reader that had the old file open still reads the old content: it was never written to.
    assert_eq!(std::io::read_to_string(open).unwrap(), old);
    assert_eq!(operator.identity(IdentityKind::Edge).unwrap().expiry().own, issued.not_after);
    let left: Vec<_> = fs::read_dir(&operator.folder.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 6, "{left:?}");
}

#[test]
fn a_new_key_is_made_when_asked_for_and_where_there_is_none() {
    let operator = Operator::new();
    let files = operator.folder.tls("waw1");
    let old = text(&files.key);
    let terms = IssueTerms { new_key: true, ..IssueTerms::default() };
    let issued = operator.authority.issue(&edge("waw1"), &operator.folder.0, terms).unwrap();
    assert_eq!((issued.key_file, mode(&files.key)), (KeyFile::Replaced, 0o600));
    assert_ne!(text(&files.key), old);
    operator.identity(IdentityKind::Edge).unwrap();
    let elsewhere = operator.folder.file("fra1");
    let issued = operator.authority.issue(&edge("fra1"), &elsewhere, terms).unwrap();
    assert_eq!((issued.key_file, issued.renewed, mode(&elsewhere)), (KeyFile::Made, false, 0o700));
}

#[test]
fn a_key_is_never_overwritten() {
    let operator = Operator::new();
    let files = operator.folder.tls("waw1");
    for broken in ["", "no key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
        fs::write(&files.key, broken).unwrap();
        let issued = operator.authority.issue(&edge("waw1"), &operator.folder.0, IssueTerms::default());
        let error = issued.unwrap_err();
        assert!(matches!(error.problem, CertProblem::Damaged("private key") | CertProblem::KeyKind), "{error}");
        assert_eq!(text(&files.key), broken);
    }
    // A file with both is another program's.
    let both = text(&files.cert) + &text(&operator.folder.file("core.key"));
    fs::remove_file(&files.key).unwrap();
    fs::write(&files.cert, &both).unwrap();
    let error = operator.authority.issue(&edge("waw1"), &operator.folder.0, IssueTerms::default()).unwrap_err();
    assert!(matches!(error.problem, CertProblem::Exists), "{error}");
    assert_eq!(text(&files.cert), both);
}

#[test]
fn no_certificate_outlives_its_authority() {
    let folder = Folder::new();
    let authority = Authority::create(&folder.0, 1).unwrap();
    let end = authority.certificate().not_after;
    let issued = authority.issue(&Name::core(), &folder.0, IssueTerms::default()).unwrap();
    assert_eq!((issued.not_after, issued.shortened), (end, true));
    let late = end + Duration::from_secs(1);
    let error = authority.issue_at(&Name::core(), &folder.0, IssueTerms::default(), late).unwrap_err();
    assert!(matches!(error.problem, CertProblem::Expired { until, .. } if until == end), "{error}");
}

#[test]
fn an_authority_opens_with_its_own_key_only() {
    let (operator, other) = (Operator::new(), Operator::new());
    let (folder, foreign) = (&operator.folder, &other.folder);
    let ours = text(&folder.file("ca.pem"));
    // While one authority follows another.
    fs::write(folder.file("ca.pem"), text(&foreign.file("ca.pem")) + &ours).unwrap();
    assert_eq!(Authority::open(&folder.0).unwrap().certificate(), operator.authority.certificate());
    fs::write(folder.file("ca.pem"), text(&foreign.file("ca.pem"))).unwrap();
    let error = Authority::open(&folder.0).map(|_| ()).unwrap_err();
    assert!(matches!(error.problem, CertProblem::OtherKey(_)), "{error}");
    fs::write(folder.file("ca.pem"), &ours).unwrap();
    fs::set_permissions(folder.file("ca.key"), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(Authority::open(&folder.0).unwrap().key_is_exposed());
    fs::remove_file(folder.file("ca.key")).unwrap();
    let error = Authority::open(&folder.0).map(|_| ()).unwrap_err();
    assert!(matches!(error.problem, CertProblem::NoAuthority), "{error}");
    // Nor with a leaf in the place of its certificate.
    fs::copy(folder.file("core.pem"), folder.file("ca.pem")).unwrap();
    fs::copy(folder.file("core.key"), folder.file("ca.key")).unwrap();
    let error = Authority::open(&folder.0).map(|_| ()).unwrap_err();
    assert!(matches!(&error.problem, CertProblem::NotAuthority(name) if name == "core"), "{error}");
}

#[test]
fn whether_a_certificate_is_due_can_be_asked() {
    let (operator, other) = (Operator::new(), Operator::new());
    let directory = &operator.folder.0;
    let current = |name: &Name, left| operator.authority.is_current(name, directory, days(left));
    assert!(current(&Name::core(), 0) && current(&edge("waw1"), DAYS - 1));
    assert!(!current(&edge("waw1"), DAYS + 1), "due");
    assert!(!current(&edge("fra1"), 0), "not there");
    assert!(!other.authority.is_current(&Name::core(), directory, Duration::ZERO), "another authority's");
    fs::copy(operator.folder.file("core.pem"), operator.folder.file("fra1.pem")).unwrap();
    fs::copy(operator.folder.file("core.key"), operator.folder.file("fra1.key")).unwrap();
    assert!(!current(&edge("fra1"), 0), "another name");
    fs::copy(operator.folder.file("waw1.key"), operator.folder.file("core.key")).unwrap();
    assert!(!current(&Name::core(), 0), "another key");
}

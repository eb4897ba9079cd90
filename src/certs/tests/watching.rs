//! Renewals while a process runs.

use std::os::unix::fs::MetadataExt;

use super::*;
use crate::certs::CertProblem;
use crate::certs::watch::{IdentityWatch, WatchResult};

fn watch(operator: &Operator) -> IdentityWatch {
    IdentityWatch::load(operator.folder.tls("waw1"), IdentityKind::Edge).unwrap()
}

fn renewed(watch: &mut IdentityWatch) -> bool {
    match watch.look() {
        WatchResult::Renewed => true,
        WatchResult::None => false,
        WatchResult::Unusable(error) => panic!("{error}"),
    }
}

fn unusable(watch: &mut IdentityWatch) -> CertProblem {
    match watch.look() {
        WatchResult::Unusable(error) => error.problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_renewed_certificate_is_taken_up_once() {
    let operator = Operator::new();
    let mut watch = watch(&operator);
    assert!(!renewed(&mut watch));
    let terms = IssueTerms { days: 30, ..IssueTerms::default() };
    let issued = operator.authority.issue(&edge("waw1"), &operator.folder.0, terms).unwrap();
    assert_ne!(watch.identity().expiry().own, issued.not_after);
    assert!(renewed(&mut watch));
    assert_eq!(watch.identity().expiry().own, issued.not_after);
    assert!(!renewed(&mut watch));
}

#[test]
fn each_of_the_three_files_is_watched() {
    let operator = Operator::new();
    let mut watch = watch(&operator);
    let TlsFiles { ca, cert, key } = operator.folder.tls("waw1");
    for file in [ca, cert, key] {
        let new = operator.folder.file("new");
        fs::copy(&file, &new).unwrap();
        fs::rename(&new, &file).unwrap();
        assert!(renewed(&mut watch), "{}", file.display());
        assert!(!renewed(&mut watch));
    }
    // Written in place, as a careless copy does: another length.
    let ca = operator.folder.file("ca.pem");
    fs::write(&ca, text(&ca) + "\n").unwrap();
    assert!(renewed(&mut watch));
}

#[test]
fn a_file_that_is_written_in_place_with_the_length_and_the_time_of_before_is_read_again() {
    let operator = Operator::new();
    let mut watch = watch(&operator);
    let ca = operator.folder.file("ca.pem");
    let (content, before) = (text(&ca), fs::metadata(&ca).unwrap());
    let after = loop {
        fs::write(&ca, &content).unwrap();
        let file = fs::File::options().write(true).open(&ca).unwrap();
        file.set_modified(before.modified().unwrap()).unwrap();
        let after = file.metadata().unwrap();
        // The clock of a file system stands still for some milliseconds.
        if (after.ctime(), after.ctime_nsec()) != (before.ctime(), before.ctime_nsec()) {
            break after;
        }
    };
    assert_eq!((after.len(), after.mtime_nsec()), (before.len(), before.mtime_nsec()));
    assert!(renewed(&mut watch));
    assert!(!renewed(&mut watch));
}

#[test]
fn files_that_cannot_be_used_are_told_once_and_change_nothing() {
    let operator = Operator::new();
    let mut watch = watch(&operator);
    let files = operator.folder.tls("waw1");
    let (before, certificate) = (watch.identity().expiry(), text(&files.cert));
    fs::remove_file(&files.cert).unwrap();
    assert!(matches!(unusable(&mut watch), CertProblem::Read(_)));
    assert!(!renewed(&mut watch));
    fs::write(&files.cert, &certificate[..certificate.len() / 2]).unwrap();
    assert!(matches!(unusable(&mut watch), CertProblem::Damaged("certificate")));
    assert!(!renewed(&mut watch));
    // The pair that is copied file by file does not belong together for a moment.
    let terms = IssueTerms { days: 30, new_key: true };
    let elsewhere = operator.folder.file("elsewhere");
    let issued = operator.authority.issue(&edge("waw1"), &elsewhere, terms).unwrap();
    fs::copy(&issued.certificate, &files.cert).unwrap();
    assert!(matches!(unusable(&mut watch), CertProblem::OtherKey(_)));
    assert_eq!((watch.identity().name(), watch.identity().expiry()), ("waw1", before));
    fs::copy(&issued.key, &files.key).unwrap();
    assert!(renewed(&mut watch));
    assert_eq!(watch.identity().expiry().own, issued.not_after);
}

#[test]
fn what_becomes_valid_without_a_change_to_a_file_is_taken_up() {
    let operator = Operator::new();
    let mut watch = watch(&operator);
    let soon = SystemTime::now() + days(30);
    operator.authority.issue_at(&edge("waw1"), &operator.folder.0, IssueTerms::default(), soon).unwrap();
    assert!(matches!(unusable(&mut watch), CertProblem::NotYetValid { .. }));
    assert!(!renewed(&mut watch));
    assert!(matches!(watch.look_at(soon), WatchResult::Renewed));
    assert!(!renewed(&mut watch));
}

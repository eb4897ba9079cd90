//! Files of certificates and keys.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::error::{CertError, CertProblem};
use crate::unit::SecretReader;
use otproxy_config::without_byte_order_mark;

/// Bytes of a file that are read at most. Hundreds of certificates fit; a device or a log given by mistake does not.
const MAX_LEN: u64 = 256 * 1024;

/// Reads the certificates of a PEM file, in order; at least one.
///
/// # Errors
/// Fails if it cannot be read or holds none.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, CertError> {
    let text = read(file, || format!("run `chmod a+r {}`", file.display()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(|| CertProblem::Damaged("certificate").of(file))
}

/// Reads the private key of a PEM file.
pub(super) fn key(file: &Path) -> Result<PrivateKeyDer<'static>, CertError> {
    let text = read(file, || SecretReader::here().give(file))?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| CertProblem::Damaged("private key").of(file))
}

/// Reads a file. `give` says how to give the right to.
fn read(file: &Path, give: impl FnOnce() -> String) -> Result<Vec<u8>, CertError> {
    let mut text = Vec::new();
    let read = File::open(file).and_then(|opened| opened.take(MAX_LEN).read_to_end(&mut text));
    read.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => CertProblem::Denied { error, remedy: give() }.of(file),
        _ => CertProblem::Read(error).of(file),
    })?;
    Ok(without_byte_order_mark(&text).to_vec())
}

/// Creates a directory for keys, if it does not exist.
pub(super) fn make_directory(directory: &Path) -> Result<(), CertError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| CertProblem::Write(error).of(directory))
}

/// Writes a private key into a new file, which nobody else may read at any moment.
pub(super) fn create_key(file: &Path, text: &str) -> Result<(), CertError> {
    match create(file, text, 0o600) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(CertProblem::Exists.of(file)),
        created => created.map_err(|error| CertProblem::Write(error).of(file)),
    }
}

/// Writes a private key in place of another.
pub(super) fn replace_key(file: &Path, text: &str) -> Result<(), CertError> {
    replace(file, text, 0o600)
}

/// Writes certificates atomically: a reader finds either the old ones or the new ones.
pub(super) fn replace_certificates(file: &Path, text: &str) -> Result<(), CertError> {
    // Some programs keep a key in the same file.
    if key(file).is_ok() {
        return Err(CertProblem::Exists.of(file));
    }
    replace(file, text, 0o644)
}

fn replace(file: &Path, text: &str, mode: u32) -> Result<(), CertError> {
    let temporary = temporary(file);
    let written = create(&temporary, text, mode).and_then(|()| fs::rename(&temporary, file));
    written.map_err(|error| {
        let _ = fs::remove_file(&temporary);
        CertProblem::Write(error).of(file)
    })
}

/// Returns the path of a temporary file. It is in the same directory, as a rename stays within one file system.
fn temporary(file: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(file.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    file.with_file_name(name)
}

fn create(file: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut created = OpenOptions::new().write(true).create_new(true).mode(mode).open(file)?;
    // The file was created with this mode, less the bits of the process's umask.
    let written = created
        .set_permissions(Permissions::from_mode(mode))
        .and_then(|()| created.write_all(text.as_bytes()))
        .and_then(|()| created.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(file);
    }
    written
}

//! Files of certificates and keys.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::error::{CertError, Problem};

/// Bytes of a file that are read. Hundreds of certificates fit; a slip, as a device or a log, does not.
const MAX_LEN: u64 = 256 * 1024;

/// The certificates in a PEM file, in order; at least one.
///
/// # Errors
/// Where it cannot be read, or does not hold any.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, CertError> {
    let text = read(file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(|| Problem::Damaged("certificate").of(file))
}

/// The private key in a PEM file.
pub(super) fn key(file: &Path) -> Result<PrivateKeyDer<'static>, CertError> {
    let text = read(file)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| Problem::Damaged("private key").of(file))
}

fn read(file: &Path) -> Result<Vec<u8>, CertError> {
    let mut text = Vec::new();
    let read = File::open(file).and_then(|opened| opened.take(MAX_LEN).read_to_end(&mut text));
    read.map_err(|error| Problem::Read(error).of(file))?;
    Ok(text)
}

/// Makes a directory for keys, if it does not exist.
pub(super) fn make_directory(directory: &Path) -> Result<(), CertError> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|error| Problem::Write(error).of(directory))
}

/// Writes a private key into a file that does not exist yet, and that nobody else may read at any moment.
pub(super) fn create_key(file: &Path, text: &str) -> Result<(), CertError> {
    match create(file, text, 0o600) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Problem::Exists.of(file)),
        created => created.map_err(|error| Problem::Write(error).of(file)),
    }
}

/// Writes a private key in the place of another.
pub(super) fn replace_key(file: &Path, text: &str) -> Result<(), CertError> {
    replace(file, text, 0o600)
}

/// Writes certificates: who reads the file finds those of before or the new ones, never a half of them.
pub(super) fn replace_certificates(file: &Path, text: &str) -> Result<(), CertError> {
    // Some programs keep a key in the same file.
    if key(file).is_ok() {
        return Err(Problem::Exists.of(file));
    }
    replace(file, text, 0o644)
}

fn replace(file: &Path, text: &str, mode: u32) -> Result<(), CertError> {
    let temporary = temporary(file);
    let written = create(&temporary, text, mode).and_then(|()| fs::rename(&temporary, file));
    written.map_err(|error| {
        let _ = fs::remove_file(&temporary);
        Problem::Write(error).of(file)
    })
}

/// In the same directory, as a file is renamed within one file system only.
fn temporary(file: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(file.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    file.with_file_name(name)
}

fn create(file: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut created = OpenOptions::new().write(true).create_new(true).mode(mode).open(file)?;
    // The mode of before was less what the process's mask takes away.
    let written = created
        .set_permissions(Permissions::from_mode(mode))
        .and_then(|()| created.write_all(text.as_bytes()))
        .and_then(|()| created.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(file);
    }
    written
}

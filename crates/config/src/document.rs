//! Reading a file up to its top-level mapping.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::error::{ConfigErrors, Location};
use super::scope::Report;
use super::tree::{self, Entry, NodeId, Value};

/// Bytes of a file; a longer one is not a configuration.
pub const MAX_FILE_LEN: u64 = 1 << 20;
/// The byte order mark that editors of Windows put in front of UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
/// The beginnings of a file that is UTF-16.
const UTF_16: [[u8; 2]; 2] = [[0xFF, 0xFE], [0xFE, 0xFF]];

/// Returns the bytes of a text file without the byte order mark in front, if it has one.
pub fn without_byte_order_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)
}

/// Returns the problem of a file that cannot be read; nothing in it is secret.
pub(super) fn unread(path: &Path, error: &io::Error) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("; run `chmod a+r {}`, and `chmod a+x` on its folder", path.display())
        }
        _ => String::new(),
    };
    format!("cannot be read: {error}{remedy}")
}

/// The beginning of a file.
const START: Location = Location { line: 1, column: 1 };

/// Returns the file's name, as errors call it, and its text.
pub(super) fn text_of(path: &Path) -> Result<(String, String), ConfigErrors> {
    let file = path.display().to_string();
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|opened| opened.take(MAX_FILE_LEN + 1).read_to_end(&mut bytes))
        .map_err(|error| ConfigErrors::one(&file, None, unread(path, &error)))?;
    if too_long(bytes.len()) {
        return Err(file_too_long(&file));
    }
    if UTF_16.iter().any(|mark| bytes.starts_with(mark)) {
        return Err(ConfigErrors::one(&file, Some(START), "is UTF-16; save the file as UTF-8".to_owned()));
    }
    let bytes = without_byte_order_mark(&bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok((file, text.to_owned())),
        Err(error) => {
            let valid = bytes.get(..error.valid_up_to());
            let location =
                Location::end_of(valid.and_then(|valid| std::str::from_utf8(valid).ok()).unwrap_or_default());
            Err(ConfigErrors::one(&file, Some(location), "is not UTF-8 here; save the file as UTF-8".to_owned()))
        }
    }
}

/// Reads the mapping in `text` with `read`, which reports errors and then returns nothing. `smallest` names the keys
/// that an empty file lacks, `begin` the beginning of a file.
pub(super) fn document<T>(
    file: &str,
    text: &str,
    (smallest, begin): (&str, &str),
    read: impl FnOnce(&Report, NodeId, &[Entry]) -> Option<T>,
) -> Result<T, ConfigErrors> {
    if too_long(text.len()) {
        return Err(file_too_long(file));
    }
    let root = tree::build(text).map_err(|error| ConfigErrors::one(file, error.location, error.message))?;
    let entries = match &root.value {
        Value::Map(entries) => entries,
        Value::Null => return Err(ConfigErrors::one(file, Some(START), format!("is empty; {smallest}"))),
        _ => {
            let message = format!("{} is not a mapping; begin with {begin}", root.quoted());
            return Err(ConfigErrors::one(file, tree::locate(text, root.id), message));
        }
    };
    let report = Report::default();
    let read = read(&report, root.id, entries);
    if let Some(errors) = report.into_errors(file, |id| tree::locate(text, id)) {
        return Err(errors);
    }
    read.ok_or_else(|| ConfigErrors::one(file, Some(START), "cannot be read, for an unknown reason".to_owned()))
}

fn too_long(len: usize) -> bool {
    u64::try_from(len).is_ok_and(|len| len > MAX_FILE_LEN)
}

fn file_too_long(file: &str) -> ConfigErrors {
    ConfigErrors::one(file, None, format!("is longer than {MAX_FILE_LEN} bytes, and cannot be a configuration"))
}

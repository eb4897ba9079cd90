//! The errors of a configuration file: all at once, each with its place.

use std::fmt;

/// Errors that are printed for one file; a file with more is no configuration.
const MAX_SHOWN: usize = 100;

/// A place in a file. Both count from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
}

impl Location {
    /// Returns the place after the last character of `text`, by YAML's line ends.
    pub(super) fn end_of(text: &str) -> Self {
        let mut end = Self { line: 1, column: 1 };
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\r' if chars.peek() == Some(&'\n') => {}
                '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}' => end = Self { line: end.line + 1, column: 1 },
                _ => end.column += 1,
            }
        }
        end
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The place in the file; `None` if the file could not be read at all.
    pub location: Option<Location>,
    /// The path of the key, as `listeners[0].limits.connections`; empty if it concerns no key.
    pub key: String,
    /// The error, with the value and the remedy.
    pub message: String,
}

/// Everything that is wrong with one file, in the order of its lines. Never empty.
///
/// Displays as lines of `FILE:LINE:COLUMN: key.path: what is wrong`, without a line feed after
/// the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    file: String,
    errors: Vec<ConfigError>,
    /// Errors beyond those that are kept.
    more: usize,
}

impl ConfigErrors {
    /// Makes a list of one error that concerns no key.
    pub(super) fn one(file: &str, location: Option<Location>, message: String) -> Self {
        Self { file: file.to_owned(), errors: vec![ConfigError { location, key: String::new(), message }], more: 0 }
    }

    /// Makes a list of `findings`, whose places `locate` finds. `None` if there are none.
    pub(super) fn located<T: Copy + Ord>(
        file: &str,
        mut findings: Vec<(T, String, String)>,
        locate: impl Fn(T) -> Option<Location>,
    ) -> Option<Self> {
        if findings.is_empty() {
            return None;
        }
        // Also before anything is cut off, and before the positions are known.
        findings.sort_by_key(|(at, ..)| *at);
        let more = findings.len().saturating_sub(MAX_SHOWN);
        findings.truncate(MAX_SHOWN);
        let mut errors: Vec<_> =
            findings.into_iter().map(|(at, key, message)| ConfigError { location: locate(at), key, message }).collect();
        errors.sort_by_key(|error| error.location);
        Some(Self { file: file.to_owned(), errors, more })
    }

    /// Returns the errors, in the order of the file's lines.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.errors.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&self.file)?;
            if let Some(Location { line, column }) = error.location {
                write!(f, ":{line}:{column}")?;
            }
            if !error.key.is_empty() {
                write!(f, ": {}", error.key)?;
            }
            write!(f, ": {}", error.message)?;
        }
        if self.more > 0 {
            write!(f, "\n{}: and {} more; correct these first", self.file, self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

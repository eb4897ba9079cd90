//! A command that is run here, and how a person types it.

use std::fmt;
use std::path::PathBuf;

use super::quote::quoted;

/// The input of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Input {
    /// Nothing.
    Nothing,
    /// A file.
    File(PathBuf),
    /// The output of another command: `tar`, with files of a folder.
    Archive {
        /// The folder.
        folder: PathBuf,
        /// The names of the files in it.
        files: Vec<String>,
    },
}

impl Input {
    /// Returns the path of what is read.
    pub fn path(&self) -> String {
        match self {
            Self::Nothing => "/dev/null".to_owned(),
            Self::File(path) | Self::Archive { folder: path, .. } => path.display().to_string(),
        }
    }
}

/// A program with its arguments, and what it reads. Nothing secret is in an argument: others see those.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LocalCommand {
    pub program: &'static str,
    pub arguments: Vec<String>,
    pub input: Input,
}

/// Returns the arguments of `tar` that put files of a folder into an archive.
pub(super) fn archive(folder: &std::path::Path, files: &[String]) -> Vec<String> {
    let first = ["-C".to_owned(), folder.display().to_string(), "-cf".to_owned(), "-".to_owned()];
    first.into_iter().chain(files.iter().cloned()).collect()
}

impl fmt::Display for LocalCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Input::Archive { folder, files } = &self.input {
            write!(f, "tar {} | ", words(&archive(folder, files)))?;
        }
        write!(f, "{} {}", self.program, words(&self.arguments))?;
        match &self.input {
            Input::File(path) => write!(f, " < {}", quoted(&path.display().to_string())),
            Input::Nothing | Input::Archive { .. } => Ok(()),
        }
    }
}

fn words(words: &[String]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

//! Tokens: the bearer of one may read, or also act.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use subtle::{Choice, ConstantTimeEq};
use tracing::error;

use crate::certs::watch::{WatchResult, Watched};
use crate::unit::SecretReader;
use otproxy_config as config;

/// Characters of a token, at least.
pub const SHORTEST_TOKEN: usize = 16;
/// Characters of a token, at most.
pub const LONGEST_TOKEN: usize = 1024;

/// A right to use the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Permission {
    /// Permission to see everything.
    Read,
    /// Permission to change things as well.
    Act,
}

impl Permission {
    /// Returns the key of the token that gives it.
    pub fn token_key(self) -> &'static str {
        match self {
            Self::Read => "read_token_file",
            Self::Act => "token_file",
        }
    }
}

/// The tokens of a process.
#[derive(Debug, Default)]
pub struct Tokens {
    act: Option<TokenFile>,
    read: Option<TokenFile>,
}

/// The problem of a token file, and its remedy.
#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", file.display())]
pub struct TokenError {
    file: PathBuf,
    fault: TokenFault,
}

/// A problem and its remedy.
#[derive(Debug, thiserror::Error)]
#[error("{problem}; {remedy}")]
struct TokenFault {
    problem: String,
    remedy: String,
}

impl TokenFault {
    fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { problem: problem.into(), remedy: remedy.into() }
    }
}

impl TokenError {
    fn of(file: &Path, fault: TokenFault) -> Self {
        Self { file: file.to_owned(), fault }
    }

    /// Returns the file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Returns its problem.
    pub fn problem(&self) -> &str {
        &self.fault.problem
    }

    /// Returns the remedy.
    pub fn remedy(&self) -> &str {
        &self.fault.remedy
    }
}

impl Tokens {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// Fails if one cannot be used.
    pub fn load(config: &config::AdminConfig) -> Result<Self, TokenError> {
        let load = |file: &Option<PathBuf>| file.as_deref().map(TokenFile::load).transpose();
        let tokens = Self { act: load(&config.token_file)?, read: load(&config.read_token_file)? };
        if let (Some(act), Some(read)) = (&tokens.act, &tokens.read)
            && bool::from(read.holds(&act.token()))
        {
            let problem = format!("has the token of {} too", act.file.display());
            return Err(TokenError::of(&read.file, TokenFault::new(problem, "give it one of its own")));
        }
        Ok(tokens)
    }

    /// Returns whether any are configured: then every request needs one.
    pub(super) fn any(&self) -> bool {
        self.act.is_some() || self.read.is_some()
    }

    /// Returns the right of the bearer of `token`; `None` if it has none. It compares every token, each in constant
    /// time.
    pub(super) fn right(&self, token: &[u8]) -> Option<Permission> {
        let holds = |file: &Option<TokenFile>| {
            file.as_ref().map_or(Choice::from(0), |file| {
                file.look();
                file.holds(token)
            })
        };
        let (act, read) = (holds(&self.act), holds(&self.read));
        // If a later change has made both tokens the same, a token that many may know must not allow acting.
        match (bool::from(act), bool::from(read)) {
            (_, true) => Some(Permission::Read),
            (true, false) => Some(Permission::Act),
            (false, false) => None,
        }
    }
}

/// A file with a token, which is read again after it changes.
pub struct TokenFile {
    file: PathBuf,
    /// The token; empty if the file cannot be used, which matches nothing.
    token: Mutex<Watched<Vec<u8>>>,
}

impl fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenFile").field("file", &self.file).finish_non_exhaustive()
    }
}

impl TokenFile {
    /// Reads the token of a file.
    ///
    /// # Errors
    /// Fails if it cannot be used.
    pub fn load(file: &Path) -> Result<Self, TokenError> {
        let token = Watched::load(vec![file.to_owned()], || read(file, TokenSide::Server));
        let token = token.map_err(|fault| TokenError::of(file, fault))?;
        Ok(Self { file: file.to_owned(), token: Mutex::new(token) })
    }

    /// Returns whether this is the token, which is compared in constant time. It blocks for as long as the file system does.
    pub fn is(&self, presented: &[u8]) -> bool {
        self.look();
        self.holds(presented).into()
    }

    /// Reads the file again, if it has changed. A file that cannot be used any more lets nobody in.
    fn look(&self) {
        let mut token = self.token.lock();
        if let WatchResult::Unusable(problem) = token.look(|| read(&self.file, TokenSide::Server)) {
            error!(file = %self.file.display(), %problem, "nobody gets in with this token until its file is right");
            token.set(Vec::new());
        }
    }

    fn holds(&self, presented: &[u8]) -> Choice {
        let token = self.token.lock();
        token.value().ct_eq(presented) & Choice::from(u8::from(!token.value().is_empty()))
    }

    fn token(&self) -> Vec<u8> {
        self.token.lock().value().clone()
    }
}

/// Reads the token of a file for its bearer, who sends it for this `purpose`.
///
/// # Errors
/// Fails if the server would not accept the file.
pub fn read_token(file: &Path, purpose: TokenPurpose) -> Result<String, TokenError> {
    let token = read(file, TokenSide::Bearer(purpose)).map_err(|fault| TokenError::of(file, fault))?;
    Ok(String::from_utf8_lossy(&token).into_owned())
}

/// The purpose for which a command sends a token, which decides on the remedies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenPurpose {
    /// Use of the admin API.
    Admin,
    /// Reading reports.
    Report,
}

/// The side that reads a token, which decides on the remedies.
#[derive(Clone, Copy)]
enum TokenSide {
    /// The server, whose own file it is.
    Server,
    /// A command that presents it.
    Bearer(TokenPurpose),
}

impl TokenSide {
    /// Returns how to have a token.
    fn make(self, file: &Path) -> String {
        match self {
            Self::Server => SecretReader::here().make(file),
            Self::Bearer(TokenPurpose::Admin) => {
                "copy it from the file that `admin.token_file` of the server names".to_owned()
            }
            Self::Bearer(TokenPurpose::Report) => {
                "copy it from the file that `report.token_file` of the edges' web listeners names".to_owned()
            }
        }
    }

    /// Returns how to have a right to read this one. Another file like it would not be readable either.
    fn give(self, file: &Path) -> String {
        match self {
            Self::Server => SecretReader::here().give(file),
            Self::Bearer(TokenPurpose::Admin) => "read it as a user who may, as root, or use `admin.socket`".to_owned(),
            Self::Bearer(TokenPurpose::Report) => "read it as a user who may".to_owned(),
        }
    }

    /// Returns how to take that right from everybody else.
    fn close(self, file: &Path) -> String {
        match self {
            Self::Server => SecretReader::here().give(file),
            Self::Bearer(_) => format!("run `chmod o= {}`", file.display()),
        }
    }
}

/// Reads the token of a file.
fn read(file: &Path, side: TokenSide) -> Result<Vec<u8>, TokenFault> {
    let unread = |error: io::Error| {
        let denied = error.kind() == io::ErrorKind::PermissionDenied;
        TokenFault::new(format!("cannot be read: {error}"), if denied { side.give(file) } else { side.make(file) })
    };
    let opened = File::open(file).map_err(unread)?;
    let mode = opened.metadata().map_err(unread)?.permissions().mode();
    if mode & 0o007 != 0 {
        return Err(TokenFault::new("can be read or written by everybody", side.close(file)));
    }
    let mut text = String::new();
    let most = u64::try_from(LONGEST_TOKEN).unwrap_or(u64::MAX).saturating_add(2);
    opened.take(most).read_to_string(&mut text).map_err(unread)?;
    let token = text.trim_start_matches('\u{feff}').trim();
    if !(SHORTEST_TOKEN..=LONGEST_TOKEN).contains(&token.len()) {
        let problem = format!("must hold a token of {SHORTEST_TOKEN} to {LONGEST_TOKEN} characters");
        return Err(TokenFault::new(problem, side.make(file)));
    }
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        let problem = "must hold one token, without spaces and other than ASCII characters";
        return Err(TokenFault::new(problem, side.make(file)));
    }
    Ok(token.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    const ACT: &str = "0123456789abcdef-act";
    const READ: &str = "0123456789abcdef-read";

    /// A directory with two token files, removed when dropped.
    struct Files(PathBuf);

    impl Files {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("otproxy-tokens-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            let files = Self(path);
            files.write("act", &format!("{ACT}\n"), 0o600);
            files.write("read", READ, 0o640);
            files
        }

        /// Writes as an editor does: into a new file, then in place of the old one.
        fn write(&self, name: &str, text: &str, mode: u32) {
            let beside = self.0.join("new");
            fs::write(&beside, text).unwrap();
            fs::set_permissions(&beside, Permissions::from_mode(mode)).unwrap();
            fs::rename(beside, self.0.join(name)).unwrap();
        }

        fn config(&self) -> config::AdminConfig {
            let (act, read) = (self.0.join("act"), self.0.join("read"));
            config::AdminConfig { token_file: Some(act), read_token_file: Some(read), ..config::AdminConfig::default() }
        }

        fn load(&self) -> Result<Tokens, String> {
            Tokens::load(&self.config()).map_err(|error| error.to_string())
        }
    }

    impl Drop for Files {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn each_token_has_its_right() {
        let files = Files::new("rights");
        let tokens = files.load().unwrap();
        assert_eq!(tokens.right(ACT.as_bytes()), Some(Permission::Act));
        assert_eq!(tokens.right(READ.as_bytes()), Some(Permission::Read));
        for wrong in ["", "0123456789abcdef", "0123456789abcdef-acT", &ACT[..ACT.len() - 1], &format!("{ACT}x"), "\n"] {
            assert_eq!(tokens.right(wrong.as_bytes()), None, "{wrong:?}");
        }
        assert!(tokens.any() && !Tokens::default().any());
        assert_eq!(Tokens::default().right(b""), None);
    }

    #[test]
    fn a_file_that_is_no_good_is_said_with_its_remedy() {
        let files = Files::new("wrong");
        for (text, mode, says) in [
            ("0123456789abcde\n", 0o600, "must hold a token of 16 to 1024 characters"),
            ("", 0o600, "must hold a token of 16 to 1024 characters"),
            (&"x".repeat(LONGEST_TOKEN + 1), 0o600, "must hold a token of 16 to 1024 characters"),
            ("0123456789 abcdef", 0o600, "must hold one token"),
            ("0123456789äbcdef", 0o600, "must hold one token"),
            (ACT, 0o604, "can be read or written by everybody; run `chown "),
            (READ, 0o600, "read: has the token of "),
        ] {
            files.write("act", text, mode);
            let error = files.load().unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        let bearer =
            |file: &str| read_token(&files.0.join(file), TokenPurpose::Admin).map_err(|error| error.to_string());
        files.write("act", ACT, 0o604);
        assert!(bearer("act").unwrap_err().contains("can be read or written by everybody; run `chmod o= "));
        fs::remove_file(files.0.join("act")).unwrap();
        // A bearer makes no token, and takes no file from the server.
        assert!(
            bearer("act").unwrap_err().contains("; copy it from the file that `admin.token_file` of the server names")
        );
        assert_eq!(bearer("read").unwrap(), READ);
        let error = files.load().unwrap_err();
        assert!(
            error.contains("/act: cannot be read: No such file") && error.contains("; make one: `install -m 600 -o "),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_changes_is_read_again() {
        let files = Files::new("changes");
        let tokens = files.load().unwrap();
        files.write("act", "another-token-of-the-operator", 0o600);
        assert_eq!(tokens.right(b"another-token-of-the-operator"), Some(Permission::Act));
        assert_eq!(tokens.right(ACT.as_bytes()), None);
        // From now on an invalid file lets nobody in, not even with an empty token.
        files.write("act", "", 0o600);
        assert_eq!(tokens.right(b"another-token-of-the-operator"), None);
        assert_eq!(tokens.right(b""), None);
        // An editor of Windows has put its mark in front.
        files.write("act", &format!("\u{feff}{ACT}\r\n"), 0o600);
        assert_eq!(tokens.right(ACT.as_bytes()), Some(Permission::Act));
        // A repair that leaves the content as it is.
        files.write("act", ACT, 0o604);
        assert_eq!(tokens.right(ACT.as_bytes()), None);
        fs::set_permissions(files.0.join("act"), Permissions::from_mode(0o600)).unwrap();
        assert_eq!(tokens.right(ACT.as_bytes()), Some(Permission::Act));
        // A mode that makes a good file a bad one.
        fs::set_permissions(files.0.join("act"), Permissions::from_mode(0o604)).unwrap();
        assert_eq!(tokens.right(ACT.as_bytes()), None);
        fs::set_permissions(files.0.join("act"), Permissions::from_mode(0o600)).unwrap();
        assert_eq!(tokens.right(ACT.as_bytes()), Some(Permission::Act));
        // The same token for both counts as the weaker one.
        files.write("act", READ, 0o600);
        assert_eq!(tokens.right(READ.as_bytes()), Some(Permission::Read));
        files.write("act", ACT, 0o600);
        assert_eq!(tokens.right(ACT.as_bytes()), Some(Permission::Act));
    }
}

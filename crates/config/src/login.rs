//! `listeners[].login`: what players are told in answers to classic logins.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use otproxy_protocol::login::RsaKey;
use otproxy_protocol::login::Worlds;

use super::declare::section;
use super::formats::SECRET;
use super::takes::{Takes, word};

/// Bytes of the file of a game server's key: several times what such a key takes.
pub const MAX_KEY_LEN: u64 = 16 << 10;

section! {
    /// `listeners[].login`: answers to classic logins that tell players of the edges.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct LoginConfig {
        /// the private key of the login server, in PEM form (core only)
        rsa_key: Arc<RsaKey> =
            key_file().or_else("the key that servers have unless their owner makes another", standard_key).example("key.pem"),
        /// the address of the worlds that players are told: `auto`, 127.0.0.1 with the list of edges for OTCv8, and an edge for others;
        /// `links`, 127.0.0.1 for all, where logins come over links; `edge`, an edge for all, and no list (core only)
        worlds: Worlds = word().or("auto"),
    }
}

/// Declares a key with the name of a key's file. It is the standard key as long as other files are not read.
pub(super) fn key_file() -> Takes<Arc<RsaKey>> {
    Takes::new("path", |scope, name| {
        let path = SECRET.read(scope, name)?;
        if scope.folder().is_none() {
            return Some(standard_key());
        }
        read_key(&path)
            .map(Arc::new)
            .map_err(|message| scope.wrong(name, format!("{}: {message}", path.display())))
            .ok()
    })
}

pub(super) fn standard_key() -> Arc<RsaKey> {
    Arc::new(RsaKey::standard())
}

fn read_key(path: &Path) -> Result<RsaKey, String> {
    let mut pem = zeroize::Zeroizing::new(Vec::new());
    let unread = |error: io::Error| {
        let remedy = match error.kind() {
            io::ErrorKind::PermissionDenied => "; let the user that otproxy runs as read it, and nobody else",
            io::ErrorKind::NotFound => "; copy the login server's key.pem there",
            _ => "",
        };
        format!("cannot be read: {error}{remedy}")
    };
    File::open(path).and_then(|opened| opened.take(MAX_KEY_LEN + 1).read_to_end(&mut pem)).map_err(unread)?;
    if pem.len() as u64 > MAX_KEY_LEN {
        return Err(format!(
            "is longer than {MAX_KEY_LEN} bytes, and cannot be a key; give the login server's key.pem"
        ));
    }
    RsaKey::from_pem(&pem).map_err(|error| format!("{error}; give the login server's key.pem"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::load_core;
    use super::*;

    #[test]
    fn what_is_wrong_with_a_key_is_told_with_the_remedy() {
        let folder = std::env::temp_dir().join(format!("otproxy-key-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/src/login/fixtures");
        assert!(read_key(&fixtures.join("pkcs1.pem")).unwrap() == read_key(&fixtures.join("pkcs8.pem")).unwrap());
        let long = folder.join("long");
        fs::write(&long, vec![b'a'; 1 + MAX_KEY_LEN as usize]).unwrap();
        for (path, says) in [
            (
                folder.join("none"),
                "cannot be read: No such file or directory (os error 2); copy the login server's key.pem there",
            ),
            (long, "is longer than 16384 bytes, and cannot be a key"),
            (fixtures.join("long.pem"), "has a key of 2048 bits, and logins are encrypted with keys of 1024; give"),
            (fixtures.join("logins.txt"), "has no private key in PEM form"),
        ] {
            let error = read_key(&path).unwrap_err();
            assert!(error.starts_with(says), "{error}");
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_key_is_read_beside_the_file_and_an_error_in_it_has_its_place() {
        let folder = std::env::temp_dir().join(format!("otproxy-key-beside-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("core.yaml");
        let text = "role: core\nlisteners: [{ name: a, listen: 127.0.0.1:0, forward_to: a:1, accept_proxy: none, login: { rsa_key: key.pem } }]\n";
        fs::write(&file, text).unwrap();
        let error = load_core(&file).unwrap_err().to_string();
        assert!(error.contains("core.yaml:2:100: listeners[0].login.rsa_key: "), "{error}");
        assert!(error.contains("key.pem: cannot be read: No such file"), "{error}");
        let pem = include_bytes!("../../protocol/src/login/fixtures/pkcs1.pem");
        fs::write(folder.join("key.pem"), pem).unwrap();
        let core = load_core(&file).unwrap();
        let login = core.listeners[0].forward().unwrap().login.as_ref().unwrap();
        assert!(*login.rsa_key == RsaKey::from_pem(pem).unwrap() && login.rsa_key != standard_key());
        assert!(!format!("{login:?}").contains("9b6469"), "{login:?}");
        fs::remove_dir_all(folder).unwrap();
    }
}

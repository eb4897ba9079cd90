//! Reading `admin`.

use std::env;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::scope::Scope;
use super::{Admin, AdminTls, address, formats};

/// Bytes of a unix socket's path, by the kernel: its field has 108, the last of which ends the text.
const MAX_SOCKET: usize = 107;
/// The socket's name in its directory, where the file does not give it.
pub const SOCKET: &str = "admin.sock";

/// Reads `admin`.
pub(super) fn read(root: &Scope<'_>) -> Option<Admin> {
    let admin = root.section("admin");
    let listen = admin.value("listen", address::listen_or_off);
    let socket = admin.optional("socket", socket);
    let token = admin.optional("token_file", formats::path);
    let read_token = admin.optional("read_token_file", formats::path);
    let tls = if admin.has("tls") { tls(&admin.section("tls")).map(Some) } else { Some(None) };
    if let (Some(Some(token)), Some(Some(read_token))) = (&token, &read_token)
        && token == read_token
    {
        admin.wrong("read_token_file", "is the file of `admin.token_file`; who may only read needs a token of its own");
    }
    match listen {
        Some(None) => {
            for key in ["token_file", "read_token_file", "tls"] {
                if admin.has(key) {
                    admin.wrong(key, "is for `admin.listen`, which is `off`; give that an address, or leave this out");
                }
            }
        }
        Some(Some(listen)) if !is_loopback(listen) => {
            // With certificates of clients TLS lets in nobody else.
            let proven = admin.has("token_file") || admin.has("read_token_file");
            let certificates = tls.as_ref().is_none_or(|tls| tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()));
            if !proven && !certificates {
                let message = format!(
                    "`{listen}` can be reached from other hosts; give `token_file`, the file of a token that requests need, or \
                     `tls` with `client_ca`, or listen on `127.0.0.1:{}`",
                    listen.port()
                );
                admin.wrong("listen", message);
            }
        }
        _ => {}
    }
    Some(Admin {
        listen: listen?,
        socket: socket?.unwrap_or_else(default_socket),
        token_file: token?.map(PathBuf::from),
        read_token_file: read_token?.map(PathBuf::from),
        tls: tls?,
    })
}

fn tls(section: &Scope<'_>) -> Option<AdminTls> {
    let path = |key| section.value(key, formats::path).map(PathBuf::from);
    let (cert, key) = (path("cert"), path("key"));
    let client_ca = section.optional("client_ca", formats::path);
    Some(AdminTls { cert: cert?, key: key?, client_ca: client_ca?.map(PathBuf::from) })
}

/// Whether only this host reaches it.
fn is_loopback(listen: SocketAddr) -> bool {
    listen.ip().to_canonical().is_loopback()
}

/// The path of a socket, or the word `off`.
fn socket(node: &super::tree::Node) -> Result<Option<PathBuf>, String> {
    let path = formats::path(node).map_err(|message| format!("{message}; write one, or `off` for none"))?;
    match path.as_str() {
        "off" => Ok(None),
        path if path.len() > MAX_SOCKET => Err(format!(
            "has {} bytes, and the path of a socket at most {MAX_SOCKET}; choose a shorter one, as in \
             `/run/otproxy-edge/{SOCKET}`",
            path.len()
        )),
        path => Ok(Some(path.into())),
    }
}

/// In the directory that systemd makes for the process, where it does.
fn default_socket() -> Option<PathBuf> {
    let directories = env::var_os("RUNTIME_DIRECTORY")?;
    // As systemd lists several: the first is the unit's own.
    let first = env::split_paths(&directories).next().filter(|first| first.is_absolute())?;
    Some(first.join(SOCKET))
}

impl Admin {
    /// The same, with its paths as seen from where the file is.
    pub(super) fn relative_to(&mut self, folder: &Path) {
        let Self { socket, token_file, read_token_file, tls, .. } = self;
        let tls = tls.iter_mut().flat_map(|tls| [Some(&mut tls.cert), Some(&mut tls.key), tls.client_ca.as_mut()]);
        for path in [socket.as_mut(), token_file.as_mut(), read_token_file.as_mut()].into_iter().chain(tls).flatten() {
            *path = folder.join(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, parse};
    use super::*;

    fn admin(text: &str) -> Result<Admin, String> {
        let text =
            format!("role: edge\nadmin: {text}\nlisteners: [{{ name: a, listen: 127.0.0.1:0, forward_to: a:1 }}]\n");
        match parse("edge.yaml", &text).map_err(|errors| errors.to_string())? {
            Config::Edge(edge) => Ok(edge.process.admin),
            Config::Core(_) => panic!("a core"),
        }
    }

    #[test]
    fn beyond_loopback_it_takes_a_proof() {
        for open in ["0.0.0.0:9162", "192.0.2.1:9162", "'[::]:9162'", "'[::ffff:192.0.2.1]:9162'"] {
            let error = admin(&format!("{{ listen: {open} }}")).unwrap_err();
            assert!(error.contains("edge.yaml:2:") && error.contains(" admin.listen: "), "{error}");
            assert!(error.contains("can be reached from other hosts; give `token_file`"), "{error}");
            let tls = "cert: a, key: b";
            let error = admin(&format!("{{ listen: {open}, tls: {{ {tls} }} }}")).unwrap_err();
            assert!(error.contains("can be reached from other hosts"), "TLS alone proves nothing of clients: {error}");
            for proof in ["token_file: t", "read_token_file: t", "tls: { cert: a, key: b, client_ca: c }"] {
                admin(&format!("{{ listen: {open}, {proof} }}")).unwrap();
            }
        }
        for closed in ["127.0.0.1:9162", "127.0.0.77:0", "'[::1]:9162'", "'[::ffff:127.0.0.1]:1'", "off"] {
            admin(&format!("{{ listen: {closed} }}")).unwrap();
        }
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        let long = format!("{{ socket: /{} }}", "a".repeat(MAX_SOCKET));
        for (text, says) in [
            ("{ token_file: t, read_token_file: t }", "admin.read_token_file: is the file of `admin.token_file`"),
            ("{ listen: off, token_file: t }", "admin.token_file: is for `admin.listen`, which is `off`"),
            ("{ listen: off, tls: { cert: a, key: b } }", "admin.tls: is for `admin.listen`, which is `off`"),
            ("{ tls: { cert: a } }", "admin.tls.key: "),
            ("{ socket: 7 }", "admin.socket: `7` is not the path of a file; write one, or `off` for none"),
            (&long, "admin.socket: has 108 bytes, and the path of a socket at most 107"),
        ] {
            let error = admin(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn paths_are_seen_from_the_file() {
        let text = "{ socket: a.sock, token_file: /t, read_token_file: r, tls: { cert: c, key: k, client_ca: ca } }";
        let mut admin = admin(text).unwrap();
        assert_eq!(admin.socket.as_deref(), Some(Path::new("a.sock")));
        admin.relative_to(Path::new("/etc"));
        let tls = admin.tls.unwrap();
        let paths =
            [admin.socket.unwrap(), admin.token_file.unwrap(), admin.read_token_file.unwrap(), tls.cert, tls.key];
        assert_eq!(paths.map(|path| path.display().to_string()), ["/etc/a.sock", "/t", "/etc/r", "/etc/c", "/etc/k"]);
        assert_eq!(tls.client_ca.as_deref(), Some(Path::new("/etc/ca")));
    }
}

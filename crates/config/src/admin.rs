//! `admin`: where metrics, health and the admin API are, and who may use it.

use std::env;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::address::LISTEN_OR_OFF;
use super::declare::{Read, section};
use super::formats::{self, FLAG, PATH, SECRET};
use super::key::RoleKind;
use super::mapping::mapping;
use super::scope::Scope;
use super::takes::{Format, list, value};
use super::tree::{Node, Value};

/// Bytes of a unix socket's path, by the kernel: its field has 108, the last of which ends the text.
const MAX_SOCKET: usize = 107;
/// The socket's name in its directory, if the file does not give it.
pub const SOCKET: &str = "admin.sock";

section! {
    /// `admin`: where metrics, health and the admin API are, and who may use it.
    #[derive(Debug, Clone, Default, PartialEq, Eq)]
    pub struct AdminConfig from AdminKeys {
        /// where `/metrics`, `/live`, `/ready` and the [admin API](admin.md) are served; to act there takes tokens or
        /// certificates of clients, and so does an address beyond loopback
        listen: Option<SocketAddr> = value(LISTEN_OR_OFF)
            .or_by_role("127.0.0.1:9162", "127.0.0.1:9163")
            .example("127.0.0.1:9162")
            .restart(),
        /// the unix socket of the same, for who may write to it: root, and the user and group of the process
        socket: Option<PathBuf> = value(SOCKET_OR_OFF)
            .or_else("`admin.sock` in systemd's RUNTIME_DIRECTORY, elsewhere `off`", default_socket)
            .example("/run/otproxy-edge/admin.sock")
            .restart(),
        /// the file of the token with which the API of `admin.listen` may be read and used to act; reread when it changes
        token_file: Option<PathBuf> = value(SECRET).optional("no token").example("admin.token").restart(),
        /// the file of the token with which it may only be read; reread when it changes
        read_token_file: Option<PathBuf> = value(SECRET).optional("no token").example("read.token").restart(),
        /// at a core, whether `/metrics` has those of all edges of the tunnel too, each with the labels `role="edge"` and `edge`, its
        /// name: then a Prometheus beside the core needs no way to the edges
        edges_metrics: bool = value(FLAG).or("false"),
        /// `tls`: what `admin.listen` speaks, where it is not plain.
        tls: Option<AdminTlsConfig> = mapping().optional(),
    }
}

section! {
    /// `admin.tls`
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct AdminTlsConfig {
        /// with `admin.tls` it is served over TLS alone: the certificate, PEM; reread when it changes
        cert: PathBuf = value(PATH).required("admin.pem").restart(),
        /// the certificate's private key, PEM
        key: PathBuf = value(SECRET).required("admin.key").restart(),
        /// the authority that every operator's certificate must come from, PEM; not the tunnel's. `otproxy cert operator` makes it;
        /// reread when it changes
        client_ca: Option<PathBuf> =
            value(PATH).optional("clients need no certificate").example("operators.pem").restart(),
        /// operators whose certificates are refused, by name or serial number
        revoked: Vec<String> = list(OPERATOR).or("[]").example("[anna]"),
    }
}

const SOCKET_OR_OFF: Format<Option<PathBuf>> =
    Format::new("path, or `off`", socket).seen_from(|path, folder| path.map(|path| folder.join(path)));

/// An operator, or one of its certificates.
const OPERATOR: Format<String> = Format::new("name or serial number", operator);

fn operator(node: &Node) -> Result<String, String> {
    match &node.value {
        Value::Text(text) if !text.is_empty() => Ok(text.clone()),
        _ => Err(format!(
            "{} is neither the name of an operator nor the serial number of a certificate; `otproxy cert show` says both",
            node.quoted()
        )),
    }
}

impl Read for AdminConfig {
    fn read(admin: &Scope<'_>) -> Option<Self> {
        let keys = AdminKeys::read(admin);
        if keys.edges_metrics == Some(true) && admin.role() == RoleKind::Edge {
            admin.wrong("edges_metrics", "is for a core, which asks its edges; an edge knows no others");
        } else if keys.edges_metrics == Some(true) && !admin.file_has("tunnel") {
            admin.wrong(
                "edges_metrics",
                "asks the edges through the `tunnel`, which this file does not have; leave it out",
            );
        }
        if let (Some(Some(token)), Some(Some(read_token))) = (&keys.token_file, &keys.read_token_file)
            && token == read_token
        {
            admin.wrong(
                "read_token_file",
                "is the file of `admin.token_file`; who may only read needs a token of its own",
            );
        }
        match keys.listen {
            Some(None) => {
                for key in ["token_file", "read_token_file", "tls"] {
                    if admin.has(key) {
                        admin.wrong(
                            key,
                            "is for `admin.listen`, which is `off`; give that an address, or leave this out",
                        );
                    }
                }
            }
            Some(Some(listen)) if !is_loopback(listen) => {
                // With certificates of clients TLS lets in nobody else.
                let proven = admin.has("token_file") || admin.has("read_token_file");
                let certificates =
                    keys.tls.as_ref().is_none_or(|tls| tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()));
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
        if let Some(Some(tls)) = &keys.tls
            && tls.client_ca.is_none()
            && !tls.revoked.is_empty()
        {
            admin.wrong(
                "tls",
                "has `revoked` without `client_ca`; give the authority of the operators, or leave it out",
            );
        }
        keys.complete()
    }
}

/// Returns whether only this host can reach it.
fn is_loopback(listen: SocketAddr) -> bool {
    listen.ip().to_canonical().is_loopback()
}

/// Reads the path of a socket, or the word `off`.
fn socket(node: &Node) -> Result<Option<PathBuf>, String> {
    let path = formats::path(node).map_err(|message| format!("{message}; write one, or `off` for none"))?;
    let len = path.as_os_str().len();
    if path.as_os_str() == "off" {
        Ok(None)
    } else if len > MAX_SOCKET {
        Err(format!(
            "has {len} bytes, and the path of a socket at most {MAX_SOCKET}; choose a shorter one, as in \
             `/run/otproxy-edge/{SOCKET}`"
        ))
    } else {
        Ok(Some(path))
    }
}

/// Returns the socket in the directory that systemd makes for the process, where it does.
fn default_socket() -> Option<PathBuf> {
    let directories = env::var_os("RUNTIME_DIRECTORY")?;
    // As systemd lists several: the first is the unit's own.
    let first = env::split_paths(&directories).next().filter(|first| first.is_absolute())?;
    Some(first.join(SOCKET))
}

#[cfg(test)]
mod tests {
    use super::super::{AccessLogFile, Config, load, parse};
    use super::*;

    fn admin(text: &str) -> Result<AdminConfig, String> {
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
        let folder = std::env::temp_dir().join(format!("otproxy-admin-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let text = "role: edge\nadmin: { socket: a.sock, token_file: /t, read_token_file: r, tls: { cert: c, key: k, client_ca: ca } }\n\
             access_log: { file: access.log }\nlisteners: [{ name: a, listen: 127.0.0.1:0, forward_to: a:1 }]\n";
        let file = folder.join("edge.yaml");
        std::fs::write(&file, text).unwrap();
        let loaded = load(&file).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let AdminConfig { socket, token_file, read_token_file, tls, .. } = &loaded.process().admin;
        let tls = tls.as_ref().unwrap();
        let paths =
            [socket, token_file, read_token_file, &Some(tls.cert.clone()), &Some(tls.key.clone()), &tls.client_ca];
        let expected = ["a.sock", "/t", "r", "c", "k", "ca"].map(|path| folder.join(path));
        assert_eq!(paths.map(|path| path.clone().unwrap()), expected);
        assert_eq!(loaded.process().access_log.file, Some(AccessLogFile::Path(folder.join("access.log"))));
        // Without a folder, paths stay as they are written.
        assert_eq!(admin("{ socket: a.sock }").unwrap().socket, Some("a.sock".into()));
    }
}

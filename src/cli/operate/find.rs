//! The choice of the running otproxy, here or elsewhere, that a command is for.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::ValueHint;

use crate::admin::{AdminClient, ClientFiles, TokenPurpose, read_token};
use otproxy_config as config;
use otproxy_config::{ADMIN_PORTS, ADMIN_SOCKET};

/// The directories in which the shipped units have their sockets, by role.
const UNIT_DIRECTORIES: [(&str, &str); 2] = [("edge", "/run/otproxy-edge"), ("core", "/run/otproxy-core")];
/// The time limit for an otproxy on this host to answer that it is there.
const PRESENCE: Duration = Duration::from_secs(5);

/// Which otproxy
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Which otproxy")]
pub(super) struct ApiLocation {
    /// Its unix socket
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    socket: Option<PathBuf>,
    /// Its address, as in http://127.0.0.1:9162
    #[arg(long, value_name = "URL", conflicts_with = "socket", value_hint = ValueHint::Url)]
    url: Option<String>,
    /// Its configuration file, whose `admin` says where it is
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["socket", "url"], value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// The file with the token that it needs
    #[arg(long, value_name = "FILE", conflicts_with = "socket", value_hint = ValueHint::FilePath)]
    token_file: Option<PathBuf>,
    /// With https: the authority that its certificate comes from, PEM
    #[arg(long, value_name = "FILE", requires = "url", value_hint = ValueHint::FilePath)]
    ca: Option<PathBuf>,
    /// With https: the own certificate, PEM
    #[arg(long, value_name = "FILE", requires_all = ["url", "key"], value_hint = ValueHint::FilePath)]
    cert: Option<PathBuf>,
    /// With https: the own certificate's private key, PEM
    #[arg(long, value_name = "FILE", requires = "cert", value_hint = ValueHint::FilePath)]
    key: Option<PathBuf>,
}

impl ApiLocation {
    /// Returns the file of `--config`.
    ///
    /// # Errors
    /// Returns another flag that is there.
    pub fn only_config(&self) -> Result<Option<&Path>, &'static str> {
        let others = [
            ("--socket", self.socket.is_some()),
            ("--url", self.url.is_some()),
            ("--token-file", self.token_file.is_some()),
        ];
        match others.into_iter().find(|(_, there)| *there) {
            Some((flag, _)) => Err(flag),
            None => Ok(self.config.as_deref()),
        }
    }

    /// Finds the way to reach it: by the flags; else by the file; else at the places of the units, of which exactly one
    /// must answer.
    pub async fn client(&self) -> anyhow::Result<AdminClient> {
        let client = if let Some(socket) = &self.socket {
            AdminClient::socket(socket)
        } else if let Some(url) = &self.url {
            let own = self.cert.clone().zip(self.key.clone());
            AdminClient::url(url, &ClientFiles { ca: self.ca.clone(), own }).map_err(anyhow::Error::msg)?
        } else if let Some(file) = &self.config {
            of_file(file)?
        } else {
            here(UNIT_DIRECTORIES, ADMIN_PORTS).await?
        };
        match &self.token_file {
            Some(file) => with_token(client, file),
            None => Ok(client),
        }
    }
}

/// Has a client send the token of a file. Besides root, this user, the file's owner and the users of the units may have it.
fn with_token(client: AdminClient, file: &Path) -> anyhow::Result<AdminClient> {
    let token = read_token(file, TokenPurpose::Admin)?;
    let owned = [file].into_iter().chain(UNIT_DIRECTORIES.iter().map(|(_, directory)| Path::new(*directory)));
    let owners = owned.filter_map(|path| fs::metadata(path).ok()).map(|metadata| metadata.uid());
    Ok(client.with_token(token, owners.chain([rustix::process::geteuid().as_raw()]).collect()))
}

/// Returns a client of the otproxy that has this configuration file.
fn of_file(file: &Path) -> anyhow::Result<AdminClient> {
    let config = config::load(file)?;
    let admin = &config.process().admin;
    let unit = UNIT_DIRECTORIES.iter().find(|(role, _)| *role == config.role().to_string());
    // If the file does not name a socket, systemd has told the process its directory, but not us.
    let unit = unit.map(|(_, directory)| Path::new(directory).join(ADMIN_SOCKET)).filter(|socket| socket.exists());
    if let Some(socket) = admin.socket.clone().or(unit) {
        return Ok(AdminClient::socket(&socket));
    }
    let file = file.display();
    let listen = admin.listen.ok_or_else(|| {
        anyhow!("{file}: there is no `admin.socket` and `admin.listen` is `off`: give one of them, and restart otproxy")
    })?;
    if listen.port() == 0 {
        bail!(
            "{file}: `admin.listen` has port 0, which is another one each time: name it with `--url`, or give `admin.socket`"
        );
    }
    if admin.tls.is_some() {
        bail!(
            "{file}: `admin.listen` speaks TLS: name it with `--url https://HOST:{}` and `--ca`, or give `admin.socket`",
            listen.port()
        );
    }
    let client = AdminClient::tcp(listen);
    match &admin.token_file {
        Some(token) => with_token(client, token),
        None => Ok(client),
    }
}

/// Returns a client of the one otproxy on this host.
async fn here(directories: [(&str, &str); 2], ports: [u16; 2]) -> anyhow::Result<AdminClient> {
    let sockets: Vec<_> = directories.iter().map(|(_, directory)| Path::new(directory).join(ADMIN_SOCKET)).collect();
    let lives = |socket: &&PathBuf| match UnixStream::connect(socket) {
        Ok(_) => true,
        // It is there, and a request will report the missing permission.
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    };
    let found: Vec<_> = sockets.iter().filter(lives).collect();
    match found[..] {
        [] => {}
        [socket] => return Ok(AdminClient::socket(socket)),
        [first, second, ..] => {
            bail!("two run here: choose one with `--socket {}` or `--socket {}`", first.display(), second.display())
        }
    }
    let mut found = Vec::new();
    for port in ports {
        let client = AdminClient::tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        if client.clone().within(PRESENCE).get("/live").await.is_ok_and(|answer| answer.status == 200) {
            found.push(client);
        }
    }
    match &found[..] {
        [client] => Ok(client.clone()),
        [first, second, ..] => {
            bail!("two run here: choose one with `--url {}` or `--url {}`", first.place(), second.place())
        }
        [] => {
            let sockets: Vec<_> = sockets.iter().map(|socket| socket.display().to_string()).collect();
            let ports = ports.map(|port| port.to_string()).join(" or ");
            Err(anyhow!("name its socket, address or file with `--socket`, `--url` or `-c`; or start it")).with_context(
                || format!("no otproxy answers at {}, nor at port {ports} of 127.0.0.1", sockets.join(" or ")),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A directory that is removed when dropped.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("otproxy-find-{name}-{}", std::process::id()));
            fs::create_dir_all(path.join("edge")).unwrap();
            fs::create_dir_all(path.join("core")).unwrap();
            Self(path)
        }

        fn file(&self, admin: &str) -> anyhow::Result<String> {
            let text =
                format!("role: edge\n{admin}\nlisteners: [{{ name: a, listen: 127.0.0.1:0, forward_to: a:1 }}]\n");
            let path = self.0.join("edge.yaml");
            fs::write(&path, text).unwrap();
            of_file(&path).map(|client| client.place())
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_says_where_it_is() {
        let directory = Directory::new("file");
        // If a unit of this host has its socket there, a file that names no socket means that one.
        if Path::new(UNIT_DIRECTORIES[0].1).join(ADMIN_SOCKET).exists() {
            return;
        }
        let socket = directory.0.join("a.sock").display().to_string();
        assert_eq!(directory.file("admin: { socket: a.sock }").unwrap(), socket);
        assert_eq!(directory.file("").unwrap(), "http://127.0.0.1:9162");
        assert_eq!(directory.file("admin: { listen: '[::1]:7' }").unwrap(), "http://[::1]:7");
        let everywhere = "admin: { listen: '0.0.0.0:7', tls: { cert: a, key: b, client_ca: c } }";
        for (text, says) in [
            ("admin: { listen: off }", "`admin.listen` is `off`"),
            ("admin: { listen: '127.0.0.1:0' }", "port 0"),
            (everywhere, "`--url https://HOST:7`"),
            ("admin: { token_file: none }", "cannot be read"),
            ("admin: 7", "must be a mapping"),
        ] {
            let error = format!("{:#}", directory.file(text).unwrap_err());
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[tokio::test]
    async fn the_one_that_runs_here_is_found() {
        let directory = Directory::new("here");
        let (edge, core) = (directory.0.join("edge"), directory.0.join("core"));
        let directories = [("edge", edge.to_str().unwrap()), ("core", core.to_str().unwrap())];
        // Nobody answers at these ports.
        let find =
            async || here(directories, [0, 0]).await.map(|client| client.place()).map_err(|error| format!("{error:#}"));
        let error = find().await.unwrap_err();
        assert!(error.contains("no otproxy answers at") && error.contains("`--socket`, `--url` or `-c`"), "{error}");
        let only = UnixListener::bind(core.join(ADMIN_SOCKET)).unwrap();
        assert_eq!(find().await.unwrap(), core.join(ADMIN_SOCKET).display().to_string());
        let other = UnixListener::bind(edge.join(ADMIN_SOCKET)).unwrap();
        let error = find().await.unwrap_err();
        assert!(error.contains("two run here: choose one with `--socket "), "{error}");
        // The socket of a dead process does not count.
        drop(only);
        assert_eq!(find().await.unwrap(), edge.join(ADMIN_SOCKET).display().to_string());
        drop(other);
    }
}

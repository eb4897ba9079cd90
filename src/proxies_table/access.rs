//! The way to a database: what the configuration says of it, and the files that it names.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;

use super::fault::{Fault, TableError};
use super::url;
use otproxy_config::{HostPort, ProxiesTable};

/// Bytes of the file of a password, or of a URL.
pub const MAX_SECRET: usize = 4096;

/// The place where a database listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A unix socket.
    Socket(PathBuf),
    /// An address.
    Address(HostPort),
}

/// All that it takes to connect to a database. It has no `Debug`, as the password is in it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Access {
    pub place: Place,
    pub user: String,
    pub password: Option<String>,
    pub database: String,
}

impl Access {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// Returns what is wrong with them, without a word of what is in them.
    pub async fn of(config: &ProxiesTable) -> Result<Self, TableError> {
        if let Some(path) = &config.url_file {
            let text = read(path).await?;
            return url::parse(&text).map_err(|source| Fault::Url { path: path.clone(), source }.alone());
        }
        let place = match (&config.socket, &config.address) {
            (Some(socket), _) => Place::Socket(socket.clone()),
            (None, Some(address)) => Place::Address(address.clone()),
            // The reader of the configuration has seen to one of them.
            (None, None) => Place::Address(HostPort { host: "localhost".to_owned(), port: url::PORT }),
        };
        let password = match &config.password_file {
            Some(path) => Some(read(path).await?.trim_end_matches(['\n', '\r']).to_owned()),
            None => None,
        };
        let (user, database) = (config.user.clone().unwrap_or_default(), config.database.clone().unwrap_or_default());
        Ok(Self { place, user, password, database })
    }
}

/// Reads a file of a secret.
async fn read(path: &Path) -> Result<String, TableError> {
    let file = path.to_owned();
    let reading = spawn_blocking(move || {
        let mut bytes = Vec::new();
        File::open(file)?.take(MAX_SECRET as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > MAX_SECRET {
            return Err(io::Error::other(format!("it has more than {MAX_SECRET} bytes")));
        }
        String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8"))
    });
    let text = reading.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    text.map_err(|source| Fault::File { path: path.to_owned(), source }.alone())
}

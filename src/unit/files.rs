//! The files that a configuration names, for its process to read.

use std::path::{Path, PathBuf};

use otproxy_config::{AdminTlsConfig, Config, TlsFiles};

/// A file that a configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// The file.
    pub path: PathBuf,
    /// True if nobody but the process should be able to read it.
    pub secret: bool,
}

/// Returns the certificates, keys and tokens that a configuration names.
pub fn files(config: &Config) -> Vec<NamedFile> {
    let admin = &config.process().admin;
    let mut files = Vec::new();
    let mut name = |path: &Path, secret| files.push(NamedFile { path: path.to_owned(), secret });
    if let Some(TlsFiles { ca, cert, key }) = config.tunnel_files() {
        name(ca, false);
        name(cert, false);
        name(key, true);
    }
    admin.token_file.iter().chain(&admin.read_token_file).for_each(|token| name(token, true));
    if let Some(AdminTlsConfig { cert, key, client_ca, .. }) = &admin.tls {
        name(cert, false);
        name(key, true);
        client_ca.iter().for_each(|authority| name(authority, false));
    }
    if let Config::Core(core) = config {
        let secrets = core.proxies_table.iter().flat_map(|table| table.password_file.iter().chain(&table.url_file));
        secrets.for_each(|secret| name(secret, true));
    }
    files
}

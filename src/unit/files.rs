//! The files that a configuration names, for its process to read.

use std::path::{Path, PathBuf};

use otproxy_config::{AdminTlsConfig, AlertsConfig, Config, ListenerConfig, TlsFiles, WebConfig, WebTlsConfig};

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
    for listener in config.listeners() {
        let ListenerConfig::Web(WebConfig { tls, report, .. }) = listener else { continue };
        if let Some(WebTlsConfig { cert, key }) = tls {
            name(cert, false);
            name(key, true);
        }
        report.iter().flat_map(|report| &report.token_file).for_each(|token| name(token, true));
    }
    if let Some(AlertsConfig { webhook, .. }) = &config.process().alerts {
        name(&webhook.url_file, true);
        webhook.ca.iter().for_each(|authorities| name(authorities, false));
    }
    if let Config::Core(core) = config {
        let secrets = core.proxies_table.iter().flat_map(|table| table.password_file.iter().chain(&table.url_file));
        secrets.for_each(|secret| name(secret, true));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_web_listener_and_alerts_name_files() {
        let text = "role: edge\nreport: { dir: /r }\nlisteners: [{ name: w, kind: web, listen: '127.0.0.1:0', forward_to: 'a:1', \
             tls: { cert: /c, key: /k }, report: { token_file: /t } }]\n\
             alerts: { webhook: { url_file: /u, ca: /a }, format: json }\n";
        let config = otproxy_config::parse("edge.yaml", text).unwrap();
        let named: Vec<_> = files(&config).into_iter().map(|file| (file.path, file.secret)).collect();
        let expected = [("/c", false), ("/k", true), ("/t", true), ("/u", true), ("/a", false)];
        assert_eq!(named, expected.map(|(path, secret)| (path.into(), secret)));
    }
}

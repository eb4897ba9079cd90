//! Certificates for tests, of an authority of their own.

use otproxy::certs::authority::{Authority, IssueTerms};
use otproxy::certs::identity::server_name;
use otproxy::certs::name::Name;

use super::folder::Folder;

/// A folder with an authority, and the certificates of one test.
pub struct Certificates {
    pub folder: Folder,
    pub authority: Authority,
}

impl Certificates {
    /// Makes a new authority.
    pub fn new() -> Self {
        let folder = Folder::new();
        Self { authority: Authority::create(&folder, 1).unwrap(), folder }
    }

    /// Issues a certificate, with a new key or the one that is there.
    pub fn issue(&self, name: &str, terms: IssueTerms) {
        let name = if name == "core" { Name::core() } else { Name::edge(name).unwrap() };
        self.authority.issue(&name, &self.folder, terms).unwrap();
    }

    /// Returns the name by which the peer of this name is asked for in a handshake.
    pub fn asked(&self, name: &str) -> String {
        server_name(self.authority.certificate(), name).unwrap().to_str().into_owned()
    }

    /// Returns the YAML of `tls` for this name, whose certificate is issued if it is not there.
    pub fn tls(&self, name: &str) -> String {
        if !self.folder.join(format!("{name}.pem")).exists() {
            self.issue(name, IssueTerms::default());
        }
        let folder = self.folder.display();
        format!("{{ ca: {folder}/ca.pem, cert: {folder}/{name}.pem, key: {folder}/{name}.key }}")
    }
}

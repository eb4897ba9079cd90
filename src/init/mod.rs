//! `otproxy init`: from one topology to a folder for each host, ready to copy.
//!
//! What is generated is a pure function of the topology ([`set_up`]). [`folder`] writes it where it differs from
//! what is there, and keeps its hands off what people have changed; keys and certificates are made once.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::config::Topology;

mod firewall;
mod folder;
mod game;
mod guide;
mod host;
mod service;
mod yaml;

pub use folder::Outcome;

use folder::Folder;
use host::Host;

/// The topology, where it came from flags: so that the next call needs none.
const TOPOLOGY_FILE: &str = "topology.yaml";

/// Why a folder could not be filled.
#[derive(Debug, Error)]
pub enum InitError {
    /// A file or folder cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// The list of hashes is damaged.
    #[error(
        "{}: is damaged: {error}; remove it, and what differs then counts as edited by hand",
        path.display()
    )]
    Manifest {
        /// The list.
        path: PathBuf,
        /// What is wrong with it.
        error: serde_json::Error,
    },
}

/// A file of the set-up.
struct File {
    /// Below the folder, with `/`.
    path: String,
    text: String,
}

/// What was done.
#[derive(Debug)]
pub struct Report {
    /// Each file with what became of it, in the order of the set-up.
    pub files: Vec<(String, Outcome)>,
    /// What the owner should know: a line each.
    pub notes: Vec<String>,
}

/// Fills the folder `out`. `text` is the topology's text where it came from flags, and is kept in the folder.
///
/// # Errors
/// The first file that cannot be read or written. What was written until then stays, and the next call goes on.
pub fn run(topology: &Topology, text: Option<&str>, out: &Path) -> Result<Report, InitError> {
    let mut folder = Folder::open(out)?;
    let mut files = Vec::new();
    for file in set_up(topology, text) {
        let outcome = folder.put(&file.path, &file.text)?;
        files.push((file.path, outcome));
    }
    let notes = given_up(topology, &folder);
    folder.close()?;
    Ok(Report { files, notes })
}

/// Everything there is to write but keys and certificates.
fn set_up(topology: &Topology, text: Option<&str>) -> Vec<File> {
    let mut files = Vec::new();
    let mut add = |path: String, text: String| files.push(File { path, text });
    add("README.md".to_owned(), guide::whole(topology));
    if let Some(text) = text {
        add(TOPOLOGY_FILE.to_owned(), text.to_owned());
    }
    add("proxies.sql".to_owned(), game::sql(topology));
    add("client.lua".to_owned(), game::client(topology));
    add("config.lua".to_owned(), game::server(topology));
    for host in Host::all(topology) {
        let folder = host.folder();
        let role = host.role();
        add(format!("{folder}/README.md"), guide::of_host(topology, &host));
        add(format!("{folder}/{role}.yaml"), yaml::of_host(topology, &host));
        add(format!("{folder}/nftables.conf"), firewall::of_host(topology, &host));
        add(format!("{folder}/{}", service::unit_name(&host)), service::unit(&host).to_owned());
        add(format!("{folder}/{}", service::DROP_IN), service::drop_in().to_owned());
        add(format!("{folder}/install.sh"), service::install(&host));
    }
    files
}

/// Edges that were in the folder, and are no longer in the topology.
fn given_up(topology: &Topology, folder: &Folder) -> Vec<String> {
    let known: BTreeSet<_> = Host::all(topology).iter().map(Host::folder).collect();
    let folders: BTreeSet<_> =
        folder.paths().filter_map(|path| path.split_once('/')).map(|(folder, _)| folder).collect();
    let gone = folders.into_iter().filter_map(|folder| Some((folder, folder.strip_prefix(host::EDGE_PREFIX)?)));
    gone.filter(|(folder, _)| !known.contains(*folder))
        .map(|(folder, name)| {
            format!(
                "edge {name} is no longer in the topology: the core refuses it once it has its new core.yaml. {folder}/ stays as \
                 it is. Better keep the edge there with `revoked: true`: proxies.sql then disables it too"
            )
        })
        .collect()
}

//! `otproxy init`: makes, from one topology, a folder for each host, ready to copy.
//!
//! Generated files are a pure function of the topology; `folder` writes those that differ from the existing ones, and
//! leaves edited files alone. Keys and certificates are made once (`certificates`).

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::certs::CertError;
use otproxy_config::{Topology, TopologyEdge};

mod certificates;
mod client;
mod firewall;
mod folder;
mod game;
mod guide;
mod host;
mod service;
mod yaml;

pub use certificates::RENEW_DAYS;
pub use folder::{FileOutcome, NEW};
pub use host::Host;
pub use service::{INSTALL, InstalledFile, installed, unit_name, unit_place};

use certificates::Certificates;
use folder::Folder;

/// The file that keeps a topology given by flags, so that the next call needs none.
pub const TOPOLOGY_FILE: &str = "topology.yaml";
/// The file of a host's firewall, in its folder.
pub const RULES: &str = "nftables.conf";
/// The configuration of a Prometheus beside the core: the same for all topologies, as the core has the metrics of its edges.
const PROMETHEUS: &str = include_str!("../../configs/monitoring/prometheus/prometheus.yml");

/// The reason why a folder could not be filled.
#[derive(Debug, Error)]
pub enum InitError {
    /// A file or folder cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// The manifest is damaged.
    #[error(
        "{}: is damaged: {error}; remove it, and what differs then counts as edited by hand",
        path.display()
    )]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// The cause.
        error: serde_json::Error,
    },
    /// The authority's key is missing.
    #[error(
        "{}: is missing, and only it can issue certificates; put it back, or move the folder away for a new authority",
        .0.display()
    )]
    NoKey(PathBuf),
    /// A certificate, a key or the authority.
    #[error(transparent)]
    Certificate(#[from] CertError),
}

fn failed(path: &Path, error: io::Error) -> InitError {
    InitError::File { path: path.to_owned(), error }
}

/// A file of the set-up.
struct File {
    /// Below the folder, with `/`.
    path: String,
    text: String,
}

/// The results of a run.
#[derive(Debug)]
pub struct InitReport {
    /// Each file with its outcome, in the order of the set-up.
    pub files: Vec<(String, FileOutcome)>,
    /// Notes for the owner, a line each.
    pub notes: Vec<String>,
}

/// Fills the folder `out`. `text` is the topology's text if it came from flags, and is kept in the folder.
///
/// # Errors
/// Returns the first file that cannot be read or written. Files written before it stay, and the next call goes on.
pub fn run(topology: &Topology, text: Option<&str>, out: &Path) -> Result<InitReport, InitError> {
    let mut folder = Folder::open(out)?;
    let filled = fill(&mut folder, topology, text);
    // Files written before an error must not count as edited the next time.
    folder.close()?;
    filled
}

fn fill(folder: &mut Folder, topology: &Topology, text: Option<&str>) -> Result<InitReport, InitError> {
    let mut files = Vec::new();
    let mut notes = given_up(topology, folder);
    notes.extend(of_families(topology));
    notes.extend(former(folder));
    for file in set_up(topology, text) {
        let outcome = folder.put(&file.path, &file.text)?;
        files.push((file.path, outcome));
    }
    let certificates = Certificates::open(folder)?;
    files.extend(certificates.own());
    notes.extend(certificates.notes());
    for host in Host::all(topology) {
        for file in of_host(topology, &host, &certificates.ca) {
            let outcome = folder.put(&file.path, &file.text)?;
            files.push((file.path, outcome));
        }
        files.extend(certificates.issue(&host, folder)?);
    }
    for (path, _) in files.iter().filter(|(path, _)| path.ends_with(".key")) {
        notes.extend(certificates::exposed(&folder.path(path))?);
    }
    Ok(InitReport { files, notes })
}

/// Returns the files that belong to no host.
fn set_up(topology: &Topology, text: Option<&str>) -> Vec<File> {
    let file = |path: &str, text| File { path: path.to_owned(), text };
    let mut files = vec![file("README.md", guide::whole(topology))];
    files.extend(text.map(|text| file(TOPOLOGY_FILE, text.to_owned())));
    files.push(file("config.lua", game::server(topology)));
    files.push(file("prometheus.yml", PROMETHEUS.to_owned()));
    files.push(file("proxies.sql", game::sql(topology)));
    let of_client = |name: &str, text| file(&format!("{}/{name}", client::FOLDER), text);
    files.push(of_client("otproxy.otmod", client::description().to_owned()));
    files.push(of_client("otproxy.lua", client::module(topology)));
    files
}

/// Returns the files of one host, except its certificate and key.
fn of_host(topology: &Topology, host: &Host<'_>, ca: &str) -> Vec<File> {
    let (folder, role) = (host.folder(), host.role());
    let file = |name: &str, text: String| File { path: format!("{folder}/{name}"), text };
    vec![
        file("README.md", guide::of_host(topology, host)),
        file(INSTALL, service::install(topology, host)),
        file(&format!("{role}.yaml"), yaml::of_host(topology, host)),
        file(RULES, firewall::of_host(topology, host)),
        file(&service::unit_name(host), service::unit(host).to_owned()),
        file(service::DROP_IN, service::drop_in(topology, host)),
        file("ca.pem", ca.to_owned()),
    ]
}

/// Returns a note for each edge that players without IPv6 cannot use.
fn of_families(topology: &Topology) -> Vec<String> {
    let edges = topology.told().filter(|edge| client::is_left_out(edge));
    let note = |edge: &TopologyEdge| {
        format!(
            "clients are told {} for the edge {}: players without IPv6 get no link to it, so have two edges with IPv4 as well; and \
             {}/ leaves it out, as lists of edges have names and IPv4 addresses alone: give it a name as `public`",
            edge.public,
            edge.name,
            client::FOLDER
        )
    };
    edges.map(note).collect()
}

/// Returns a note where the folder still has what was made for clients before.
fn former(folder: &Folder) -> Option<String> {
    folder.path(client::LINES).exists().then(|| {
        format!(
            "{} is no longer made, as most clients forgot its edges at each login: remove it, and use {}/",
            client::LINES,
            client::FOLDER
        )
    })
}

/// Returns whether this folder has been filled before.
#[must_use]
pub fn is_filled(folder: &Path) -> bool {
    folder.join(folder::MANIFEST).is_file()
}

/// Returns the edges that the folder has and the topology no longer has.
fn given_up(topology: &Topology, folder: &Folder) -> Vec<String> {
    let edges = folder.folders().into_iter().filter_map(|folder| folder.strip_prefix(host::EDGE_PREFIX));
    edges
        .filter(|name| topology.edges.iter().all(|edge| edge.name.as_str() != *name))
        .filter(|name| folder.path(&format!("{}{name}", host::EDGE_PREFIX)).exists())
        .map(|name| {
            format!(
                "the edge {name} is no longer in the topology. Its folder stays. Keep the edge there with `revoked: true`: the core then \
                 refuses it, and proxies.sql disables it; and remove its folder once it is no longer needed"
            )
        })
        .collect()
}

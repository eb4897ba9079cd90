//! The two ends of the tunnel: `core` of an edge, and `tunnel` of the core.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::address::{HostPort, LISTEN, TARGET};
use super::declare::{Read, section};
use super::edges::EdgePeer;
use super::formats::{PATH, SECRET};
use super::mapping::mapping;
use super::scope::Scope;
use super::takes::{list, some, value};

section! {
    /// `core` of an edge: its end of the tunnel. [`EdgeTunnel::reach`] says which side connects.
    #[derive(Debug, Clone, PartialEq)]
    pub struct EdgeTunnel from EdgeTunnelKeys {
        /// the core's `tunnel.accept`, which the edge connects to
        dial: Option<HostPort> = value(TARGET)
            .not_beside("accept")
            .optional("no tunnel, or `core.accept`")
            .example("core.example:7100")
            .restart(),
        /// where the core connects to this edge, as its `edges[].dial` says; then no file here has the core's address
        accept: Vec<SocketAddr> = some(LISTEN)
            .not_beside("dial")
            .or_else("no tunnel, or `core.dial`", Vec::new)
            .example("0.0.0.0:7100")
            .restart(),
        /// `tls`
        tls: TlsFiles = mapping().saying(&[
            ("ca", "the authority that the core's certificate comes from, PEM", "ca.pem"),
            ("cert", "this edge's certificate, PEM; reread when it changes", "waw1.pem"),
            ("key", "the certificate's private key, PEM", "waw1.key"),
        ]),
    }
}

section! {
    /// `tunnel` of the core: its end of the tunnels.
    #[derive(Debug, Clone, PartialEq)]
    pub struct CoreTunnel {
        /// where edges connect with certificates; none where the core dials all of them
        accept: Vec<SocketAddr> = list(LISTEN).or("[]").example("0.0.0.0:7100").restart(),
        /// `tls`
        tls: TlsFiles = mapping().saying(&[
            ("ca", "the authority that the edges' certificates come from, PEM", "ca.pem"),
            ("cert", "the core's certificate, PEM; reread when it changes", "core.pem"),
            ("key", "the certificate's private key, PEM", "core.key"),
        ]),
    }
}

section! {
    /// The files with which one end of the tunnel proves itself, and knows the other.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct TlsFiles {
        /// the authorities that the other side's certificate must come from, PEM
        ca: PathBuf = value(PATH).required("ca.pem"),
        /// the own certificate, PEM
        cert: PathBuf = value(PATH).required("own.pem"),
        /// the certificate's private key, PEM
        key: PathBuf = value(SECRET).required("own.key"),
    }
}

/// The side of the tunnel that connects.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reach<'a> {
    /// The edge connects to the core, as `core.dial` says.
    Dial(&'a HostPort),
    /// `core.accept`: the core connects to the edge, here.
    Accept(&'a [SocketAddr]),
}

impl EdgeTunnel {
    /// Returns the side that connects.
    #[must_use]
    pub fn reach(&self) -> Reach<'_> {
        match &self.dial {
            Some(core) => Reach::Dial(core),
            None => Reach::Accept(&self.accept),
        }
    }
}

impl Read for EdgeTunnel {
    fn read(core: &Scope<'_>) -> Option<Self> {
        let keys = EdgeTunnelKeys::read(core);
        match (core.has("dial"), core.has("accept")) {
            (true, false) | (false, true) => {}
            (true, true) => {
                core.wrong("accept", "is there together with `core.dial`; keep the one that says which side connects");
            }
            (false, false) => {
                core.wrong_here(
                    "needs `dial`, the core's address, as in `dial: \"core.example:7100\"`; or `accept`, where the core \
                     connects, as in `accept: \"0.0.0.0:7100\"`",
                );
            }
        }
        keys.complete()
    }
}

impl CoreTunnel {
    /// Reports a tunnel that no edge of `edges` can use.
    pub(super) fn check_users(&self, root: &Scope<'_>, edges: &[EdgePeer]) {
        if edges.is_empty() && !root.has("edges") {
            root.wrong("tunnel", "has no edges that may use it; give `edges`, as in `- name: waw1`");
        } else if self.accept.is_empty() && edges.iter().all(|edge| edge.dial.is_none()) {
            root.wrong(
                "tunnel",
                "is reached from nowhere; give `accept`, where edges connect, as in `accept: \"0.0.0.0:7100\"`, or \
                 `edges[].dial`",
            );
        }
    }
}

//! Reading the two ends of the tunnel: `core` of an edge, and `tunnel` of the core.

use std::path::PathBuf;

use super::listener::values;
use super::scope::Scope;
use super::{CoreTunnel, EdgePeer, EdgeTunnel, Reach, TlsFiles, address, formats};

/// The name in the core's certificate. No edge has it: roles are told apart by names.
pub const CORE_NAME: &str = "core";

/// Reads `core` of an edge; the inner `None` is an edge without a tunnel.
pub(super) fn of_edge(root: &Scope<'_>) -> Option<Option<EdgeTunnel>> {
    let log_core_address = root.value("log_core_address", formats::flag);
    if !root.has("core") {
        return log_core_address.map(|_| None);
    }
    let core = root.section("core");
    let tls = tls(&core);
    let spare = core.value("spare", formats::spare);
    let reach = match (core.has("dial"), core.has("accept")) {
        (true, false) => {
            core.value("dial", address::target).zip(spare).map(|(core, spare)| Reach::Dial { core, spare })
        }
        (false, true) => {
            if core.has("spare") {
                core.wrong(
                    "spare",
                    "only with `core.dial`; where the core connects, `tunnel.spare` in core.yaml says it",
                );
            }
            core.some("accept", address::listen).map(|addresses| Reach::Accept(values(addresses)))
        }
        (true, true) => {
            core.wrong("accept", "is there together with `core.dial`; keep the one that says which side connects");
            None
        }
        (false, false) => {
            root.wrong(
                "core",
                "needs `dial`, the core's address, as in `dial: \"core.example:7100\"`; or `accept`, where the core \
                 connects, as in `accept: \"0.0.0.0:7100\"`",
            );
            None
        }
    };
    Some(Some(EdgeTunnel { reach: reach?, tls: tls?, log_core_address: log_core_address? }))
}

/// Reads `tunnel` of the core; the inner `None` is a core without one. `edges` are `None` if they were wrong.
pub(super) fn of_core(root: &Scope<'_>, edges: Option<&[EdgePeer]>) -> Option<Option<CoreTunnel>> {
    if !root.has("tunnel") {
        return Some(None);
    }
    let tunnel = root.section("tunnel");
    let tls = tls(&tunnel);
    let spare = tunnel.value("spare", formats::spare);
    let accept = tunnel.list("accept", address::listen).map(values);
    if let (Some(edges), Some(accept)) = (edges, &accept) {
        if edges.is_empty() && !root.has("edges") {
            root.wrong("tunnel", "has no edges that may use it; give `edges`, as in `- name: waw1`");
        } else if accept.is_empty() && edges.iter().all(|edge| edge.dial.is_none()) {
            root.wrong(
                "tunnel",
                "is reached from nowhere; give `accept`, where edges connect, as in `accept: \"0.0.0.0:7100\"`, or \
                 `edges[].dial`",
            );
        }
    }
    Some(Some(CoreTunnel { accept: accept?, tls: tls?, spare: spare? }))
}

fn tls(end: &Scope<'_>) -> Option<TlsFiles> {
    let tls = end.section("tls");
    let path = |key| tls.value(key, formats::path).map(PathBuf::from);
    let (ca, cert, key) = (path("ca"), path("cert"), path("key"));
    Some(TlsFiles { ca: ca?, cert: cert?, key: key? })
}

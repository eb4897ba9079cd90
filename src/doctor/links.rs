//! Links to the listeners of the otproxy that runs here, as a player opens them: through the edge to the core and back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{ANSWER, DoctorCheck, reach, unit_name};
use crate::probe::{self, ProbeLink, Probing};
use otproxy_config::{AcceptProxy, Config, InboundConfig, ListenerConfig, RoleKind};

/// A listener's address that takes links.
pub(super) struct LinkTrial {
    role: RoleKind,
    name: String,
    address: SocketAddr,
    send_proxy: bool,
    /// Whether a list keeps this host out.
    listed: bool,
}

/// Returns the trials of a configuration: those that the listeners let in.
pub(super) fn of(config: &Config) -> Vec<LinkTrial> {
    let takes_links = |listener: &&ListenerConfig| match listener {
        ListenerConfig::Forward(forward) => reach::carries_links(forward),
        ListenerConfig::Relay(_) => true,
        ListenerConfig::Web(_) => false,
    };
    let inbounds = config.listeners().iter().filter(takes_links).map(ListenerConfig::inbound);
    inbounds.flat_map(|inbound| inbound.listen.iter().filter_map(|at| trial(config, inbound, *at))).collect()
}

fn trial(config: &Config, inbound: &InboundConfig, listen: SocketAddr) -> Option<LinkTrial> {
    if listen.port() == 0 {
        return None;
    }
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    // This host connects to its own address from the same one.
    let is_trusted = inbound.trusted_peers.iter().any(|network| network.contains(&ip));
    let send_proxy = match inbound.accept_proxy {
        AcceptProxy::None | AcceptProxy::Optional => false,
        AcceptProxy::Required if is_trusted => true,
        AcceptProxy::Required => return None,
    };
    let process = config.process();
    let denied = process.deny.contains(ip) || inbound.deny.contains(ip);
    let allowed = [&process.allow, &inbound.allow].into_iter().flatten().all(|allow| allow.contains(ip));
    let (role, name) = (config.role(), inbound.name.clone());
    Some(LinkTrial { role, name, address: SocketAddr::new(ip, listen.port()), send_proxy, listed: denied || !allowed })
}

impl LinkTrial {
    pub async fn examine(self) -> DoctorCheck {
        let Self { role, name, address, send_proxy, listed } = self;
        let what = ("links", name.as_str());
        if listed {
            let message = format!("{address} is not pinged: a list of this file keeps this host out");
            return DoctorCheck::warn(what, message, "`otproxy ping HOST` from a host that it lets in");
        }
        let probing = Probing { client: probe::client_id(), within: ANSWER, send_proxy };
        let pinged = async {
            let (mut link, _) = ProbeLink::open(address, probing).await?;
            link.ping().await
        };
        match pinged.await {
            Ok(round_trip) => {
                let way = if role == RoleKind::Edge { ", through the core" } else { "" };
                let message = format!("a ping over {address} is answered{way}, in {} ms", round_trip.as_millis());
                DoctorCheck::ok("links", &name, message)
            }
            Err(error) => {
                let remedy = match role {
                    RoleKind::Edge => {
                        format!(
                            "see `tunnel` and `target` here, and why it ends in `journalctl -u {}`; and run `otproxy doctor` on the \
                             core's host",
                            unit_name(role)
                        )
                    }
                    RoleKind::Core => format!("see why in `journalctl -u {}`", unit_name(role)),
                };
                DoctorCheck::fail(what, format!("players get no pong: {address} {}", error.finding()), remedy)
            }
        }
    }
}

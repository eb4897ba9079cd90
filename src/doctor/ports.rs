//! The addresses of the listeners: free, or held by otproxy itself.

use std::cmp::Reverse;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use super::{DoctorCheck, holder};
use otproxy_config::{Config, ListenerConfig, Reach};

/// The name of otproxy among processes.
const PROGRAM: &str = "otproxy";

/// Returns each address, with the listener's name.
pub(super) fn of(config: &Config) -> Vec<(String, SocketAddr)> {
    let mut found = Vec::new();
    let mut inbounds: Vec<_> = config.listeners().iter().map(ListenerConfig::inbound).collect();
    inbounds.sort_by_key(|inbound| Reverse(inbound.kind));
    for inbound in inbounds {
        found.extend(inbound.listen.iter().map(|address| (inbound.name.clone(), *address)));
    }
    let tunnel = match config {
        Config::Edge(edge) => match edge.tunnel.as_ref().map(|tunnel| tunnel.reach()) {
            Some(Reach::Accept(addresses)) => ("core.accept", addresses),
            _ => ("core.accept", &[][..]),
        },
        Config::Core(core) => ("tunnel.accept", core.tunnel.as_ref().map_or(&[][..], |tunnel| &tunnel.accept)),
    };
    found.extend(tunnel.1.iter().map(|address| (tunnel.0.to_owned(), *address)));
    // Port 0 is chosen at each start.
    found.retain(|(_, address)| address.port() != 0);
    found
}

/// Returns whether otproxy holds one of the addresses; `None` if there are none, or if this user may not see it.
pub(super) fn held(addresses: &[(String, SocketAddr)]) -> Option<bool> {
    let mut known = false;
    for (_, address) in addresses {
        let in_use = try_bind(*address).is_err_and(|error| error.kind() == ErrorKind::AddrInUse);
        match (in_use, in_use.then(|| holder::of(*address)).flatten()) {
            (true, Some(holder)) if holder.program == PROGRAM => return Some(true),
            (true, None) => {}
            _ => known = true,
        }
    }
    known.then_some(false)
}

pub(super) fn examine(addresses: &[(String, SocketAddr)], running: bool) -> Vec<DoctorCheck> {
    addresses.iter().map(|(name, address)| one(name, *address, running)).collect()
}

fn one(name: &str, address: SocketAddr, running: bool) -> DoctorCheck {
    let what = ("listener", name);
    let error = match try_bind(address) {
        Ok(()) if running => {
            let message = format!("{address} is free, though otproxy runs here");
            return DoctorCheck::warn(
                what,
                message,
                "it runs with another file, or this one has changed since: `systemctl reload` has it read again",
            );
        }
        Ok(()) => return DoctorCheck::ok("listener", name, format!("{address} is free")),
        Err(error) => error,
    };
    if address.is_ipv6() && Errno::from_io_error(&error) == Some(Errno::AFNOSUPPORT) {
        let message = format!("{address}: this host has no IPv6");
        return DoctorCheck::warn(what, message, "take this address out, or boot without `ipv6.disable=1`");
    }
    match (error.kind(), holder::of(address)) {
        (ErrorKind::AddrInUse, Some(holder)) if holder.program == PROGRAM => {
            DoctorCheck::ok("listener", name, format!("{address} is held by otproxy (process {})", holder.id))
        }
        (ErrorKind::AddrInUse, Some(holder)) => DoctorCheck::fail(
            what,
            format!("{address} is held by `{}` (process {})", holder.program, holder.id),
            "stop it, or give this listener another port",
        ),
        (ErrorKind::AddrInUse, None) if running => {
            DoctorCheck::ok("listener", name, format!("{address} is held, and otproxy runs here"))
        }
        (ErrorKind::AddrInUse, None) => DoctorCheck::fail(
            what,
            format!("{address} is held by a process that this user may not see"),
            "see as root who it is: `ss -ltnp`",
        ),
        (ErrorKind::AddrNotAvailable, _) => DoctorCheck::fail(
            what,
            format!("this host has no address {}", address.ip()),
            "see `ip address`; or write 0.0.0.0 for all of IPv4",
        ),
        (ErrorKind::PermissionDenied, _) => DoctorCheck::fail(
            what,
            format!("{address} needs a privilege, as all ports below 1024 do"),
            "choose a higher port, or run this as root",
        ),
        _ => DoctorCheck::fail(what, format!("{address}: {error}"), "give this listener another address"),
    }
}

/// Binds the address for a moment, without listening, so that nobody can connect meanwhile.
fn try_bind(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections that ended a moment ago must not be in the way.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

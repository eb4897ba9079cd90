//! The holder of a port, from the kernel's tables and the descriptors of processes.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// The state of a listening socket in the kernel's tables.
const LISTEN: &str = "0A";

/// A process that holds a port.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PortHolder {
    pub program: String,
    pub id: u32,
}

/// Returns the process that listens there and so keeps `address` from being bound; `None` if this user may not see it.
pub(super) fn of(address: SocketAddr) -> Option<PortHolder> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let sockets: HashSet<String> = tables.iter().flat_map(|table| sockets(table, address)).collect();
    let processes =
        fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let holds = |id: &u32| {
        let descriptors = fs::read_dir(format!("/proc/{id}/fd")).into_iter().flatten().flatten();
        let mut targets = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
        targets.any(|target| socket(&target).is_some_and(|inode| sockets.contains(inode)))
    };
    let mut holders = processes.filter(holds);
    let id = holders.next()?;
    let program = fs::read_to_string(format!("/proc/{id}/comm")).ok()?;
    Some(PortHolder { program: program.trim_end().to_owned(), id })
}

/// Returns the number in `socket:[NUMBER]`.
fn socket(target: &Path) -> Option<&str> {
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')
}

/// Returns the numbers of sockets that listen on this address, or on all.
fn sockets(table: &str, address: SocketAddr) -> Vec<String> {
    let listening = |line: &str| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let (local, state, inode) = (columns.get(1)?, columns.get(3)?, columns.get(9)?);
        let (ip, port) = local.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        let ip = ip_of(ip)?;
        let same = ip == address.ip() || ip.is_unspecified() || address.ip().is_unspecified();
        (*state == LISTEN && port == address.port() && same).then(|| (*inode).to_owned())
    };
    table.lines().filter_map(listening).collect()
}

/// Parses an address of 32-bit words in the host's order, in hexadecimal.
fn ip_of(text: &str) -> Option<IpAddr> {
    let word = |index: usize| {
        let word = text.get(index * 8..index * 8 + 8)?;
        u32::from_str_radix(word, 16).ok().map(u32::to_ne_bytes)
    };
    match text.len() {
        8 => word(0).map(|bytes| Ipv4Addr::from(bytes).into()),
        32 => {
            let bytes = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            <[u8; 16]>::try_from(bytes).ok().map(|bytes| Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_holder_of_a_port() {
        for address in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0"] {
            // A machine may be without IPv6.
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let held = listener.local_addr().expect("an address");
            let holder = of(held).expect("a holder");
            assert_eq!(holder.id, std::process::id());
            assert!(!holder.program.is_empty());
            let all =
                SocketAddr::new(if held.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { held.ip() }, held.port());
            assert_eq!(of(all), Some(holder));
        }
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn the_tables_of_the_kernel() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:1C03 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 x 100 0 0 10 0\n   \
            1: 0100007F:1C03 0100007F:8000 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 x 100 0 0 10 0\n   \
            2: 00000000000000000000000001000000:1C03 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 \
            00000000     0        0 4713 1 x 100 0 0 10 0\n";
        assert_eq!(sockets(table, "127.0.0.1:7171".parse().unwrap()), ["4711"]);
        assert_eq!(sockets(table, "[::1]:7171".parse().unwrap()), ["4713"]);
        assert_eq!(sockets(table, "0.0.0.0:7171".parse().unwrap()), ["4711", "4713"]);
        assert!(sockets(table, "127.0.0.1:7172".parse().unwrap()).is_empty());
        assert!(sockets(table, "127.0.0.2:7171".parse().unwrap()).is_empty());
        assert!(sockets("nonsense : x\n\n", "127.0.0.1:1".parse().unwrap()).is_empty());
    }
}

//! The owners of sockets on this host, by the kernel's lists of them.
//!
//! Any account may listen on a port that is free, and would be sent the token of whoever asks there.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The lists of sockets, one for each family.
const LISTS: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];
/// The states of sockets, as the lists have them.
const ESTABLISHED: &str = "01";
const LISTENING: &str = "0A";
/// The user whose processes may read everything anyway. A connection that nobody has accepted yet counts as its own, too.
const ROOT: u32 = 0;

/// A socket in such a list.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    local: SocketAddr,
    remote: SocketAddr,
    state: String,
    uid: u32,
}

/// Returns a user other than root and `trusted` that owns the peer of a connection within this host, or may have accepted it.
///
/// # Errors
/// Fails if the kernel's lists cannot be read, or do not have the listener.
pub(super) fn stranger(own: SocketAddr, peer: SocketAddr, trusted: &[u32]) -> io::Result<Option<u32>> {
    let mut entries = Vec::new();
    for list in LISTS {
        match fs::read_to_string(list) {
            Ok(text) => entries.extend(text.lines().filter_map(Entry::parse)),
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    among(&entries, own, peer, trusted)
}

fn among(entries: &[Entry], own: SocketAddr, peer: SocketAddr, trusted: &[u32]) -> io::Result<Option<u32>> {
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (own, peer) = (canonical(own), canonical(peer));
    let listens = |entry: &&Entry| {
        let local = canonical(entry.local);
        entry.state == LISTENING
            && local.port() == peer.port()
            && (local.ip() == peer.ip() || local.ip().is_unspecified())
    };
    let mut listeners = entries.iter().filter(listens).peekable();
    if listeners.peek().is_none() {
        // It has closed its listener since, or is in another namespace.
        return Err(io::Error::other("nobody listens there any more"));
    }
    // A connection that was accepted belongs to whoever has accepted it, whatever became of its listener; one that was
    // not ends with its listener.
    let accepted = entries
        .iter()
        .filter(|entry| entry.state == ESTABLISHED && canonical(entry.local) == peer && canonical(entry.remote) == own);
    let owners = listeners.chain(accepted).map(|entry| entry.uid);
    Ok(owners.into_iter().find(|uid| *uid != ROOT && !trusted.contains(uid)))
}

impl Entry {
    /// Parses a line as `0: 0100007F:23CA 00000000:0000 0A 00000000:00000000 00:00000000 00000000 1000 ..`.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, remote) = (address(fields.next()?)?, address(fields.next()?)?);
        let state = fields.next()?.to_owned();
        let uid = fields.nth(3)?.parse().ok()?;
        Some(Self { local, remote, state, uid })
    }
}

/// Parses an address as `0100007F:23CA`: words of 32 bits in the order of this machine, and a port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word = |at: usize| Some(u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let ip: IpAddr = match ip.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let bytes = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn lines_of_the_kernel() {
        let text =
            "   0: 0100007F:23CA 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 31337 1 0";
        let entry = Entry::parse(text).unwrap();
        if cfg!(target_endian = "little") {
            assert_eq!(entry.local, "127.0.0.1:9162".parse().unwrap());
            let v6 = address("B80D0120000000000000000001000000:0050").unwrap();
            assert_eq!(v6, "[2001:db8::1]:80".parse().unwrap());
        }
        assert_eq!((entry.remote, entry.uid), ("0.0.0.0:0".parse().unwrap(), 1000));
        for wrong in ["", "  sl  local_address rem_address   st", "0: 0100007F 0:0 0A", "0: 0100007:1 0:0 0A a b c d"] {
            assert_eq!(Entry::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn whoever_may_have_the_connection_must_be_trusted() {
        let (own, peer) = ("127.0.0.1:50000", "127.0.0.1:9162");
        let entry = |state: &str, local: &str, remote: &str, uid| Entry {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            state: state.to_owned(),
            uid,
        };
        let listener = |local: &str, uid| entry(LISTENING, local, "0.0.0.0:0", uid);
        let accepted = |uid| entry(ESTABLISHED, peer, own, uid);
        let find = |entries: &[Entry]| among(entries, own.parse().unwrap(), peer.parse().unwrap(), &[1000]).unwrap();
        assert_eq!(find(&[listener(peer, 0)]), None);
        assert_eq!(find(&[listener(peer, 1000), accepted(0)]), None);
        assert_eq!(find(&[listener(peer, 1001)]), Some(1001));
        assert_eq!(find(&[listener("0.0.0.0:9162", 1001)]), Some(1001));
        assert_eq!(find(&[listener("[::]:9162", 1001)]), Some(1001));
        assert_eq!(find(&[listener("[::ffff:127.0.0.1]:9162", 1001)]), Some(1001));
        assert_eq!(find(&[listener(peer, 1000), accepted(1001)]), Some(1001), "it has accepted, and gone");
        let elsewhere = [listener("127.0.0.1:9163", 1001), listener("127.0.0.2:9162", 1001), listener(peer, 1000)];
        assert_eq!(find(&elsewhere), None);
        assert!(among(&[accepted(0)], own.parse().unwrap(), peer.parse().unwrap(), &[]).is_err());
    }

    #[test]
    fn own_listeners_are_found() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (own, peer) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
            let me = rustix::process::geteuid().as_raw();
            assert_eq!(stranger(own, peer, &[me]).unwrap(), None);
            let expected = (me != ROOT).then_some(me);
            assert_eq!(stranger(own, peer, &[]).unwrap(), expected);
        }
    }
}

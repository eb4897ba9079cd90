//! The sockets of this process, as /proc has them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::lsof::{Process, State};

/// A TCP socket of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnSocket {
    /// The descriptor.
    pub fd: u32,
    /// True if it is of IPv6.
    pub v6: bool,
    /// The inode.
    pub inode: u64,
    /// The own end.
    pub local: SocketAddr,
    /// The other end; all zeros for a listening socket.
    pub remote: SocketAddr,
    /// The state.
    pub state: State,
}

/// Reads the TCP sockets of this process, by descriptor. It reads a line for each socket of the host: workers
/// are not the place for it.
///
/// # Errors
/// Fails if /proc cannot be read.
pub fn own() -> io::Result<Vec<OwnSocket>> {
    let mut descriptors: HashMap<u64, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let path = entry?.path();
        // One that was closed meanwhile is no more.
        let Ok(target) = fs::read_link(&path) else { continue };
        let fd = path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
        let inode = target.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        if let Some((fd, inode)) = fd.zip(inode) {
            descriptors.entry(inode).or_default().push(fd);
        }
    }
    let mut sockets = Vec::with_capacity(descriptors.len());
    for (file, v6) in [("/proc/self/net/tcp", false), ("/proc/self/net/tcp6", true)] {
        let file = match File::open(file) {
            Ok(file) => file,
            // A kernel without IPv6.
            Err(error) if v6 && error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for line in BufReader::with_capacity(64 << 10, file).lines() {
            let Some(read) = parse(&line?, v6) else { continue };
            // The kernel may list one twice if others end meanwhile.
            for fd in descriptors.remove(&read.inode).unwrap_or_default() {
                sockets.push(OwnSocket { fd, ..read });
            }
        }
    }
    sockets.sort_unstable_by_key(|socket| socket.fd);
    Ok(sockets)
}

/// Reads how this process is called, and whose it is.
#[must_use]
pub fn process() -> Process {
    let command = fs::read_to_string("/proc/self/comm").unwrap_or_default();
    let user = rustix::process::geteuid().as_raw().to_string();
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == user).then(|| name.to_owned())
    });
    Process {
        command: command.strip_suffix('\n').unwrap_or(&command).to_owned(),
        pid: std::process::id(),
        user: name.unwrap_or(user),
    }
}

/// Parses a line of /proc/net/tcp or tcp6; `None` for its title.
fn parse(line: &str, v6: bool) -> Option<OwnSocket> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, remote) = (end(fields.next()?, v6)?, end(fields.next()?, v6)?);
    let state = State(u8::from_str_radix(fields.next()?, 16).ok()?);
    let inode = fields.nth(5)?.parse().ok()?;
    Some(OwnSocket { fd: 0, v6, inode, local, remote, state })
}

/// Parses an address: words of 32 bits as they stand in memory, and a port.
fn end(text: &str, v6: bool) -> Option<SocketAddr> {
    let (host, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::to_ne_bytes);
    let ip = if v6 {
        let mut bytes = [0; 16];
        for (index, chunk) in bytes.chunks_exact_mut(4).enumerate() {
            chunk.copy_from_slice(&word(host.get(index * 8..index * 8 + 8)?)?);
        }
        IpAddr::from(Ipv6Addr::from(bytes))
    } else {
        IpAddr::from(Ipv4Addr::from(word(host)?))
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines() {
        let line = "   2: 0000000000000000FFFF00000100007F:ACD3 0000000000000000FFFF00000100007F:E9A2 01 \
                    00000000:00000000 00:00000000 00000000     0        0 52223 2 0000000084ab8d3a 100 0 0 10 0";
        let read = parse(line, true).unwrap();
        assert_eq!(read.local, "[::ffff:127.0.0.1]:44243".parse().unwrap());
        assert_eq!((read.remote.port(), read.state, read.inode), (0xE9A2, State::ESTABLISHED, 52223));
        for wrong in ["", "  sl  local_address rem_address st", "0: 0100007F:1F90", "0: x:1 y:2 0A a b c d e f"] {
            assert_eq!(parse(wrong, false), None, "{wrong}");
        }
    }
}

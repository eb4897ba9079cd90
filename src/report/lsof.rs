//! The form in which lsof(8) prints sockets.
//!
//! It is that of `lsof -nP -i`, version 4.95, byte for byte: each column is as wide as its widest value, and at least as its
//! title.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use super::hidden::Hidden;

/// Characters of a command that lsof prints.
const COMMAND: usize = 9;
/// Characters of a user that lsof prints.
const USER: usize = 8;
/// The first descriptor whose number lsof cuts to its last three digits.
const LONG_FD: u32 = 10_000;

/// The process that has the sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// The name of the program, as the kernel has it.
    pub command: String,
    /// The process id.
    pub pid: u32,
    /// The name of the user, or the number of one without a name.
    pub user: String,
}

/// The state of a socket, as the kernel numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State(pub u8);

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It is shown.
    Shown(SocketAddr),
    /// Its address is not shown, whatever it is.
    Backend(SocketAddr),
}

/// A socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The descriptor.
    pub fd: u32,
    /// True if the socket is of IPv6: it may carry IPv4 all the same.
    pub v6: bool,
    /// The inode.
    pub inode: u64,
    /// The own end.
    pub local: End,
    /// The other end; `None` for a listening socket.
    pub remote: Option<End>,
    /// The state.
    pub state: State,
}

impl State {
    /// The state of a socket that carries a connection.
    pub const ESTABLISHED: Self = Self(1);
    /// The state of a socket that listens.
    pub const LISTEN: Self = Self(10);

    /// Returns its name at lsof.
    fn name(self) -> &'static str {
        match self.0 {
            1 => "ESTABLISHED",
            2 => "SYN_SENT",
            3 | 12 => "SYN_RECV",
            4 => "FIN_WAIT1",
            5 => "FIN_WAIT2",
            6 => "TIME_WAIT",
            7 => "CLOSE",
            8 => "CLOSE_WAIT",
            9 => "LAST_ACK",
            10 => "LISTEN",
            11 => "CLOSING",
            _ => "UNKNOWN",
        }
    }
}

impl End {
    fn write(self, text: &mut String, hidden: &Hidden) {
        let (address, hide) = match self {
            Self::Shown(address) => (address, false),
            Self::Backend(address) => (address, true),
        };
        let ip = address.ip().to_canonical();
        let hide = hide || hidden.hides(ip);
        // Writing to a string cannot fail.
        let _ = match (ip, hide) {
            (ip, false) if ip.is_unspecified() => write!(text, "*:{}", address.port()),
            (IpAddr::V4(_), true) => write!(text, "BACKEND_IP:{}", address.port()),
            (IpAddr::V6(_), true) => write!(text, "[BACKEND_IP]:{}", address.port()),
            (IpAddr::V4(ip), false) => write!(text, "{ip}:{}", address.port()),
            (IpAddr::V6(ip), false) => write!(text, "[{ip}]:{}", address.port()),
        };
    }
}

/// Returns what lsof prints of these sockets: nothing if there are none.
#[must_use]
pub fn print(process: &Process, rows: &[Row], hidden: &Hidden) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let command: String = escaped(&process.command).chars().take(COMMAND).collect();
    let user: String = process.user.chars().take(USER).collect();
    let pid = process.pid.to_string();
    let inodes = rows.iter().map(|row| digits(row.inode)).max().unwrap_or_default();
    let (command_width, pid_width) = (command.len().max("COMMAND".len()), pid.len().max("PID".len()));
    let (user_width, inode_width) = (user.len().max("USER".len()), inodes.max("DEVICE".len()));
    // Some 120 bytes are a row with two addresses of IPv6.
    let mut text = String::with_capacity((rows.len() + 1) * 120);
    let _ = writeln!(
        text,
        "{:command_width$} {:>pid_width$} {:>user_width$}   FD   TYPE {:>inode_width$} SIZE/OFF NODE NAME",
        "COMMAND", "PID", "USER", "DEVICE"
    );
    for row in rows {
        let fd = if row.fd < LONG_FD { row.fd.to_string() } else { format!("*{:03}", row.fd % 1000) };
        let family = if row.v6 { "IPv6" } else { "IPv4" };
        let inode = row.inode;
        let _ = write!(
            text,
            "{command:command_width$} {pid:>pid_width$} {user:>user_width$} {fd:>4}u  {family} {inode:>inode_width$}      0t0  TCP "
        );
        row.local.write(&mut text, hidden);
        if let Some(remote) = row.remote {
            text.push_str("->");
            remote.write(&mut text, hidden);
        }
        let _ = writeln!(text, " ({})", row.state.name());
    }
    text
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |power| power as usize + 1)
}

/// Writes what is not printable as lsof does.
fn escaped(command: &str) -> String {
    let mut text = String::new();
    for byte in command.bytes() {
        match byte {
            b'!'..=b'~' => text.push(char::from(byte)),
            0x01..=0x1f if !matches!(byte, 0x08..=0x0d) => {
                text.push('^');
                text.push(char::from(byte + 0x40));
            }
            0x08 => text.push_str("\\b"),
            b'\t' => text.push_str("\\t"),
            b'\n' => text.push_str("\\n"),
            0x0c => text.push_str("\\f"),
            b'\r' => text.push_str("\\r"),
            _ => {
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn process() -> Process {
        Process { command: "otproxy".to_owned(), pid: 20965, user: "root".to_owned() }
    }

    fn end(text: &str) -> End {
        End::Shown(text.parse().unwrap())
    }

    fn row(fd: u32, local: &str, remote: Option<&str>) -> Row {
        let state = if remote.is_some() { State::ESTABLISHED } else { State::LISTEN };
        let v6 = local.starts_with('[');
        Row { fd, v6, inode: 366_162, local: end(local), remote: remote.map(end), state }
    }

    #[test]
    fn it_is_as_lsof_prints_it() {
        let rows = [
            row(3, "[::]:7162", None),
            row(4, "1.2.3.4:7162", Some("5.6.7.8:51234")),
            row(10_000, "[2001:db8::1]:7162", Some("[2001:db8::9]:4000")),
            row(5, "[::ffff:1.2.3.4]:7162", Some("[::ffff:5.6.7.8]:1")),
        ];
        let expected = "\
COMMAND   PID USER   FD   TYPE DEVICE SIZE/OFF NODE NAME
otproxy 20965 root    3u  IPv6 366162      0t0  TCP *:7162 (LISTEN)
otproxy 20965 root    4u  IPv4 366162      0t0  TCP 1.2.3.4:7162->5.6.7.8:51234 (ESTABLISHED)
otproxy 20965 root *000u  IPv6 366162      0t0  TCP [2001:db8::1]:7162->[2001:db8::9]:4000 (ESTABLISHED)
otproxy 20965 root    5u  IPv6 366162      0t0  TCP 1.2.3.4:7162->5.6.7.8:1 (ESTABLISHED)
";
        assert_eq!(print(&process(), &rows, &Hidden::default()), expected);
        assert_eq!(print(&process(), &[], &Hidden::default()), "");
        let odd = Process { command: "a b\u{1}cdef".to_owned(), ..process() };
        assert!(print(&odd, &rows[..1], &Hidden::default()).contains("\na\\x20b^Ac 20965"));
    }

    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
    }

    /// Returns an address, or the same written as one of IPv6.
    fn either_form(address: IpAddr, mapped: bool) -> IpAddr {
        match address {
            IpAddr::V4(v4) if mapped => IpAddr::V6(v4.to_ipv6_mapped()),
            other => other,
        }
    }

    proptest! {
        #[test]
        fn a_hidden_address_is_never_printed(
            secret in address(),
            forms in any::<(bool, bool, bool)>(),
            others in proptest::collection::vec((address(), any::<u16>()), 0..8),
            port in any::<u16>(),
        ) {
            let secret = secret.to_canonical();
            prop_assume!(!secret.is_unspecified());
            let mut hidden = Hidden::default();
            hidden.add(either_form(secret, forms.0));
            let at = SocketAddr::new(either_form(secret, forms.1), port);
            let mut rows: Vec<_> = others.iter().filter(|(ip, _)| ip.to_canonical() != secret).map(|(ip, other)| {
                let (local, remote) = (End::Shown(SocketAddr::new(*ip, *other)), Some(End::Shown(at)));
                Row { fd: 9, v6: at.is_ipv6(), inode: 7, local, remote, state: State::ESTABLISHED }
            }).collect();
            rows.push(Row { fd: 9, v6: forms.2, inode: 7, local: End::Shown(at), remote: None, state: State::LISTEN });
            let text = print(&process(), &rows, &hidden);
            for line in text.lines().skip(1) {
                let name = line.split("TCP ").nth(1).unwrap().split(" (").next().unwrap();
                for end in name.split("->") {
                    let (host, _) = end.rsplit_once(':').unwrap();
                    let host = host.trim_matches(['[', ']']);
                    prop_assert_ne!(host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical()), Some(secret));
                }
                let hidden_end = name.rsplit("->").next().unwrap();
                let ending = format!("BACKEND_IP{}:{port}", if secret.is_ipv6() { "]" } else { "" });
                prop_assert!(hidden_end.ends_with(&ending), "{}", line);
            }
        }
    }
}

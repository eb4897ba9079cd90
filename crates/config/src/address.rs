//! Formats of addresses: where to listen, where to connect, and whom to trust.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};

use super::formats;
use super::scope::{Scope, Spot};
use super::takes::Format;
use super::tree::{Node, Value, quote};

/// Characters of a host name, by RFC 1035.
const MAX_HOST: usize = 253;
/// The way to write a network, for errors.
const WRITE_NETWORK: &str = "write it as `198.51.100.7`, `10.0.0.0/8` or `2001:db8::/32`";
/// Bits in front of the IPv4 address in an IPv4-mapped IPv6 address.
const MAPPED_PREFIX: u8 = 96;

/// Ports in one range to listen on: each has sockets of its own on each worker.
const MAX_PORTS: u16 = 1000;
/// The addresses of a file to listen on, which must differ.
const LISTENED_ON: &str = "addresses to listen on";
/// The beginning of a destination that is a listener of the core.
const CORE_PREFIX: &str = "core/";

pub(super) const LISTEN: Format<SocketAddr> = Format::new("address with port", listen);
pub(super) const LISTEN_OR_OFF: Format<Option<SocketAddr>> = Format::new("address with port, or `off`", listen_or_off);
pub(super) const TARGET: Format<HostPort> = Format::new("host with port", target);
pub(super) const DESTINATION: Format<Destination> = Format::new("host with port or `core/NAME`", destination);
pub(super) const HOST: Format<String> = Format::new("host", host);
pub(super) const ADDRESS_OR_HOST: Format<String> = Format::new("address or host name", host);
pub(super) const NETWORK: Format<IpNet> = Format::new("address or CIDR", network);

/// A host, by name or address, and a port. An IPv6 host is kept without brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Name or address.
    pub host: String,
    /// Port, not 0.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl HostPort {
    /// Returns the address where the host is one, and no name.
    pub fn literal(&self) -> Option<SocketAddr> {
        self.host.parse().ok().map(|ip| SocketAddr::new(ip, self.port))
    }

    /// Returns whether it is on this host's loopback.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.is_ipv4_loopback() || self.host.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// Returns whether it is on this host's loopback, by IPv4.
    #[must_use]
    pub fn is_ipv4_loopback(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost") || self.host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl From<SocketAddr> for HostPort {
    fn from(addr: SocketAddr) -> Self {
        Self { host: addr.ip().to_string(), port: addr.port() }
    }
}

/// The host that a target is on. All names and addresses of this host's loopback are one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TargetHost {
    /// This host.
    Loopback,
    /// Another one, by its name or address as the file has it.
    Other(String),
}

impl From<&HostPort> for TargetHost {
    fn from(target: &HostPort) -> Self {
        match target.host.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
            Ok(ip) if ip.is_loopback() || ip.is_unspecified() => Self::Loopback,
            Ok(ip) => Self::Other(ip.to_string()),
            Err(_) if target.host.eq_ignore_ascii_case("localhost") => Self::Loopback,
            Err(_) => Self::Other(target.host.trim_end_matches('.').to_ascii_lowercase()),
        }
    }
}

impl fmt::Display for TargetHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback => f.write_str("this host"),
            Self::Other(host) => f.write_str(host),
        }
    }
}

/// The end that a connection of a forward leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Destination {
    /// A host and a port.
    Target(HostPort),
    /// `core/NAME`: a listener of the core, by its name, through the tunnel.
    Core(String),
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target(target) => target.fmt(f),
            Self::Core(listener) => write!(f, "{CORE_PREFIX}{listener}"),
        }
    }
}

/// Takes addresses to listen on for the key of this path, before listeners [claim] theirs; an error where one of them cannot be had
/// beside those taken before. Port 0 is another one each time.
pub(super) fn reserve(root: &Scope<'_>, key: &str, addresses: impl IntoIterator<Item = SocketAddr>) {
    for address in addresses.into_iter().filter(|address| address.port() != 0) {
        if let Some((taken, path)) = root.met(LISTENED_ON, |taken| meets(taken, address)) {
            let (section, name) = key.split_once('.').unwrap_or((key, key));
            root.wrong(section, format!("`{name}`: {}", in_the_way(address, &taken, &path)));
        }
        root.reserve(LISTENED_ON, key, address.to_string());
    }
}

/// Takes an address to listen on for `spot`; an error where another listens there, or at an address that one of them includes.
pub(super) fn claim(scope: &Scope<'_>, spot: &Spot, address: SocketAddr) {
    if address.port() == 0 {
        return;
    }
    let text = address.to_string();
    let is_taken = scope.met(LISTENED_ON, |taken| taken == text).is_some();
    let met = scope.met(LISTENED_ON, |taken| meets(taken, address)).filter(|_| !is_taken);
    if let Some((taken, path)) = met {
        scope.wrong_at(spot, in_the_way(address, &taken, &path));
    }
    scope.claim(LISTENED_ON, spot, text);
}

fn in_the_way(address: SocketAddr, taken: &str, path: &str) -> String {
    format!("`{address}` and `{taken}` of {path} cannot both be listened on; choose another port")
}

/// Returns whether only one of two addresses can be listened on: an unspecified one is all of its family.
fn meets(taken: &str, other: SocketAddr) -> bool {
    let Ok(one) = taken.parse::<SocketAddr>() else { return false };
    let (one_ip, other_ip) = (one.ip(), other.ip());
    let same = one_ip == other_ip || one_ip.is_unspecified() || other_ip.is_unspecified();
    one.port() == other.port() && one.is_ipv4() == other.is_ipv4() && same
}

/// Parses an address to listen on, with a port or a range of ports.
pub(super) fn listen_range(node: &Node) -> Result<Vec<SocketAddr>, String> {
    let Value::Text(text) = &node.value else { return listen(node).map(|address| vec![address]) };
    let range = text.trim().rsplit_once(':').and_then(|(host, ports)| Some((host, ports.split_once('-')?)));
    let Some((host, (first, last))) = range else { return listen(node).map(|address| vec![address]) };
    let (Some(from), Some(to)) = (port_number(first), port_number(last)) else {
        return Err(format!("{} has no valid range of ports; write one as `0.0.0.0:7171-7175`", quote(text)));
    };
    if from == 0 || from > to || to - from >= MAX_PORTS {
        return Err(format!(
            "{} is no range of ports; write the lower one first, from 1, and {MAX_PORTS} of them at the most",
            quote(text)
        ));
    }
    let first = listen(&Node { id: node.id, value: Value::Text(format!("{host}:{first}")) })?;
    Ok((from..=to).map(|port| SocketAddr::new(first.ip(), port)).collect())
}

/// Parses an address to listen on. The port may be 0.
pub(super) fn listen(node: &Node) -> Result<SocketAddr, String> {
    let text = match &node.value {
        Value::Text(text) => text.trim(),
        Value::Int(port) => return Err(no_address(&port.to_string())),
        Value::Bool(false) => return Err("`false` is not an address; write one as `127.0.0.1:9162`".to_owned()),
        _ => return Err(format!("{} is not an address; write one as `0.0.0.0:7171`", node.quoted())),
    };
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Some(message) = no_port(text).or_else(|| leading_zero(text)) {
        return Err(message);
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        return Err(if digits { no_address(text) } else { no_listen(text) });
    };
    if host.is_empty() || host == "*" {
        return Err(no_address(port));
    }
    if port_number(port).is_none() {
        return Err(format!("{} has no valid port; a port is a number up to 65535", quote(text)));
    }
    if looks_like_name(host) {
        return Err(format!(
            "{} begins with a name, and listening needs an address; write it as `0.0.0.0:{port}` or `127.0.0.1:{port}`",
            quote(text)
        ));
    }
    Err(no_listen(text))
}

/// Parses an address to listen on, or the word `off`.
pub(super) fn listen_or_off(node: &Node) -> Result<Option<SocketAddr>, String> {
    match &node.value {
        Value::Text(text) if text == "off" => Ok(None),
        _ => listen(node).map(Some).map_err(|message| format!("{message}, or `off` for none")),
    }
}

/// Returns the error of an address without a port; `None` if it is something else.
fn no_port(text: &str) -> Option<String> {
    let ip: IpAddr = text.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
    let bare = ip.is_ipv6() && !text.starts_with('[');
    // Nobody can say where such an address was meant to end.
    let why = if bare { "has no brackets, and so no port" } else { "has no port" };
    let example = if bare { "\"[2001:db8::9]:7171\"".to_owned() } else { SocketAddr::new(ip, 7171).to_string() };
    Some(format!("{} {why}; write it as `{example}`", quote(text)))
}

fn no_address(port: &str) -> String {
    let port = quote(port).replace('`', "");
    format!("`{port}` has no address; write `0.0.0.0:{port}` for all of IPv4, or `\"[::]:{port}\"`")
}

fn no_listen(text: &str) -> String {
    format!("{} is not an address with a port; write one as `0.0.0.0:7171` or `\"[::]:7171\"`", quote(text))
}

/// Parses a host, by name or address, and a port.
pub(super) fn target(node: &Node) -> Result<HostPort, String> {
    const EXAMPLE: &str = "write it as `203.0.113.9:7171`, `game.example:7171` or `\"[2001:db8::9]:7171\"`";
    let text = match &node.value {
        Value::Text(text) => text.trim(),
        Value::Int(port) => return Err(format!("`{port}` has no host; write it as `127.0.0.1:{port}`")),
        _ => return Err(format!("{} is not a host with a port; {EXAMPLE}", node.quoted())),
    };
    if let Some(message) = no_port(text).or_else(|| leading_zero(text)) {
        return Err(message);
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(format!("{} has no port; {EXAMPLE}", quote(text)));
    };
    let port = match port_number(port) {
        Some(0) => return Err(format!("{} has port 0, where nothing can be reached; give the real one", quote(text))),
        Some(port) => port,
        None => return Err(format!("{} has no valid port; a port is a number from 1 to 65535", quote(text))),
    };
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(HostPort::from(address));
    }
    if host.contains(':') {
        return Err(format!(
            "{} is not an address; put an IPv6 address in brackets: `\"[2001:db8::9]:{port}\"`",
            quote(text)
        ));
    }
    if !looks_like_name(host) {
        return Err(format!("{} has neither a host name nor an address before the port; {EXAMPLE}", quote(text)));
    }
    Ok(HostPort { host: host.to_owned(), port })
}

/// Parses a host, by name or address, without a port. An IPv6 address has no brackets then.
pub(super) fn host(node: &Node) -> Result<String, String> {
    const EXAMPLE: &str = "write it as `198.51.100.7`, `p1.example` or `2001:db8::7`";
    let Value::Text(text) = &node.value else {
        return Err(format!("{} is not a host; {EXAMPLE}", node.quoted()));
    };
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(ip.to_canonical().to_string());
    }
    if let Some(message) = leading_zero(text) {
        return Err(message);
    }
    if let Some((host, port)) = text.rsplit_once(':')
        && port_number(port).is_some()
    {
        return Err(format!("{} has a port, and this is a host alone; write {}", quote(text), quote(host)));
    }
    if looks_like_name(text) { Ok(text.to_owned()) } else { Err(format!("{} is not a host; {EXAMPLE}", quote(text))) }
}

/// Parses an address of one host, without a port.
pub(super) fn ip(node: &Node) -> Result<IpAddr, String> {
    const EXAMPLE: &str = "write it as `198.51.100.7` or `2001:db8::7`";
    let Value::Text(text) = &node.value else {
        return Err(format!("{} is not an address; {EXAMPLE}", node.quoted()));
    };
    let text = text.trim();
    if let Some(message) = leading_zero(text) {
        return Err(message);
    }
    if text.parse::<SocketAddr>().is_ok() {
        return Err(format!("{} has a port; leave it out", quote(text)));
    }
    match text.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() => Err(format!("{} is no address of one host; {EXAMPLE}", quote(text))),
        Ok(ip) => Ok(ip.to_canonical()),
        Err(_) => Err(format!("{} is not an address; {EXAMPLE}", quote(text))),
    }
}

/// Parses the number of a port: digits, and nothing else that Rust takes for a number.
fn port_number(text: &str) -> Option<u16> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

/// Returns the error of an IPv4 address with a zero in front of a number; `None` if it is something else. Some programs
/// read such a number as octal, so nobody can say which address is meant.
fn leading_zero(text: &str) -> Option<String> {
    let (address, rest) = text.split_at(text.find([':', '/']).unwrap_or(text.len()));
    let plain = |number: &'_ str| match number.trim_start_matches('0') {
        "" if !number.is_empty() => "0".to_owned(),
        digits => digits.to_owned(),
    };
    let plain = address.split('.').map(plain).collect::<Vec<_>>().join(".");
    let wrong = plain != address && plain.parse::<Ipv4Addr>().is_ok();
    wrong.then(|| {
        format!("{} has a zero in front of a number; write it as {}", quote(text), quote(&format!("{plain}{rest}")))
    })
}

/// Parses a host and a port, or a listener of the core.
pub(super) fn destination(node: &Node) -> Result<Destination, String> {
    if let Value::Text(text) = &node.value
        && let Some(listener) = text.trim().strip_prefix(CORE_PREFIX)
    {
        return formats::label_text(listener)
            .map(Destination::Core)
            .map_err(|message| format!("after `core/`, the name of a listener of the core: {message}"));
    }
    target(node).map(Destination::Target)
}

/// Returns whether `host` can be a host name. With all digits at its end it is an address, or an attempt at one.
fn looks_like_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    host.len() <= MAX_HOST && host.split('.').all(label) && !last.bytes().all(|b| b.is_ascii_digit())
}

/// Parses a network: a CIDR, or an address as a network of one. IPv4-mapped ones become IPv4.
pub(super) fn network(node: &Node) -> Result<IpNet, String> {
    match &node.value {
        Value::Text(text) => network_text(text),
        _ => Err(format!("{} is not an address or a CIDR; {WRITE_NETWORK}", node.quoted())),
    }
}

/// Parses a network in a text.
///
/// # Errors
/// Says what is wrong with it, and how to write it.
pub fn network_text(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(ip.to_canonical()));
    }
    if let Some(message) = leading_zero(text) {
        return Err(message);
    }
    if text.parse::<SocketAddr>().is_ok() {
        return Err(format!("{} has a port; leave it out: connections come from any port", quote(text)));
    }
    let plain = |prefix: &str| prefix == "0" || !prefix.starts_with('0');
    let network = text.parse::<IpNet>().ok().filter(|_| text.rsplit_once('/').is_some_and(|(_, prefix)| plain(prefix)));
    let Some(network) = network else {
        return Err(format!("{} is not an address or a CIDR; {WRITE_NETWORK}", quote(text)));
    };
    let network = unmapped(network)
        .ok_or_else(|| format!("{} holds IPv4-mapped addresses and others; write it as IPv4", quote(text)))?;
    if network.trunc() != network {
        return Err(format!(
            "{} has bits set behind its prefix; write `{}` for the network, or `{}` for the one address",
            quote(text),
            network.trunc(),
            network.addr()
        ));
    }
    Ok(network)
}

/// Converts an IPv4-mapped network to IPv4. `None` if its prefix ends before the IPv4 part begins.
fn unmapped(network: IpNet) -> Option<IpNet> {
    let IpNet::V6(v6) = network else { return Some(network) };
    let Some(ip) = v6.addr().to_ipv4_mapped() else { return Some(network) };
    let prefix = v6.prefix_len().checked_sub(MAPPED_PREFIX)?;
    Ipv4Net::new(ip, prefix).ok().map(IpNet::from)
}

#[cfg(test)]
mod tests {
    use super::super::tree::fragment;
    use super::*;

    #[test]
    fn where_to_listen() {
        let read = |text: &str| listen(&fragment(&format!("\"{text}\"")));
        for right in ["0.0.0.0:7162", "[::]:7162", "127.0.0.1:0", "[::1]:65535"] {
            assert_eq!(read(right).map(|address| address.to_string()).as_deref(), Ok(right));
        }
        for (wrong, says) in [
            ("7162", "`7162` has no address"),
            (":7162", "`7162` has no address"),
            ("*:7162", "`7162` has no address"),
            ("localhost:7162", "begins with a name"),
            ("0.0.0.0", "has no port; write it as `0.0.0.0:7171`"),
            ("[::1]", "has no port; write it as `[::1]:7171`"),
            ("::1", "has no brackets"),
            ("0.0.0.0:65536", "has no valid port"),
            ("0.0.0.256:1", "is not an address with a port"),
            ("010.0.0.1:7162", "`010.0.0.1:7162` has a zero in front of a number; write it as `10.0.0.1:7162`"),
            ("0.0.0.0:+7162", "has no valid port"),
            ("", "is not an address with a port"),
            ("nonsense", "is not an address with a port"),
        ] {
            let message = read(wrong).expect_err(wrong);
            assert!(message.contains(says), "{wrong}: {message}");
        }
        assert!(listen(&fragment("7162")).is_err());
        assert_eq!(listen_or_off(&fragment("off")), Ok(None));
        for wrong in ["false", "no", "[]"] {
            assert!(listen_or_off(&fragment(wrong)).expect_err(wrong).contains("`off` for none"));
        }
    }

    #[test]
    fn ranges_of_ports() {
        let read = |text: &str| listen_range(&fragment(&format!("\"{text}\"")));
        let ports = |text: &str| read(text).map(|all| all.iter().map(SocketAddr::port).collect::<Vec<_>>());
        assert_eq!(ports("0.0.0.0:7171-7173"), Ok(vec![7171, 7172, 7173]));
        assert_eq!(read("[::1]:7171-7171").map(|all| all[0].to_string()).as_deref(), Ok("[::1]:7171"));
        assert_eq!(ports("0.0.0.0:7171"), Ok(vec![7171]));
        assert_eq!(ports("0.0.0.0:1-1000").map(|all| all.len()), Ok(1000));
        for (wrong, says) in [
            ("0.0.0.0:7175-7171", "the lower one first"),
            ("0.0.0.0:0-5", "from 1"),
            ("0.0.0.0:1-1001", "1000 of them at the most"),
            ("0.0.0.0:7171-", "no valid range"),
            ("0.0.0.0:7171-65536", "no valid range"),
            (":7171-7175", "has no address"),
            ("my-host.example:7171", "begins with a name"),
        ] {
            let message = read(wrong).expect_err(wrong);
            assert!(message.contains(says), "{wrong}: {message}");
        }
    }

    #[test]
    fn what_leads_to_one_host_is_known_by_it() {
        let host = |text: &str| TargetHost::from(&target(&fragment(&format!("\"{text}\""))).unwrap());
        for own in ["127.0.0.1:7171", "127.0.0.2:7172", "localhost:1", "LOCALHOST:1", "[::1]:1", "[::ffff:127.0.0.1]:1"]
        {
            assert_eq!(host(own), TargetHost::Loopback, "{own}");
        }
        assert_eq!(host("Game.example:7171"), host("game.example.:7172"));
        assert_eq!(host("[2001:db8:0::9]:1"), host("[2001:db8::9]:2"));
        assert_ne!(host("10.0.0.1:1"), host("10.0.0.2:1"));
    }

    #[test]
    fn where_to_connect() {
        let read = |text: &str| target(&fragment(&format!("\"{text}\"")));
        for right in ["203.0.113.9:7171", "[2001:db8::9]:7171", "core.example:1", "localhost:7171", "a_b-c.d:7171"] {
            assert_eq!(read(right).map(|target| target.to_string()).as_deref(), Ok(right));
        }
        assert_eq!(read("[::1]:1").map(|target| target.host).as_deref(), Ok("::1"));
        for (wrong, says) in [
            ("core.example", "has no port"),
            ("203.0.113.9", "write it as `203.0.113.9:7171`"),
            ("2001:db8::9:7171", "has no brackets, and so no port; write it as `\"[2001:db8::9]:7171\"`"),
            ("core.example:0", "has port 0"),
            ("core.example:65536", "has no valid port"),
            ("core.example:", "has no valid port"),
            ("core.example:+7171", "has no valid port"),
            (
                "203.000.113.9:7171",
                "`203.000.113.9:7171` has a zero in front of a number; write it as `203.0.113.9:7171`",
            ),
            ("2001:db8::x:7171", "in brackets"),
            ("203.0.113.999:7171", "neither a host name nor an address"),
            ("a b:7171", "neither a host name nor an address"),
            (":7171", "neither a host name nor an address"),
        ] {
            let message = read(wrong).expect_err(wrong);
            assert!(message.contains(says), "{wrong}: {message}");
        }
        assert!(read("127.8.0.1:1").expect("valid").is_ipv4_loopback());
        assert!(!read("[::1]:1").expect("valid").is_ipv4_loopback());
    }

    #[test]
    fn hosts() {
        let read = |text: &str| host(&fragment(&format!("\"{text}\"")));
        for (right, host) in [
            ("198.51.100.7", "198.51.100.7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("2001:DB8:0::7", "2001:db8::7"),
            ("::ffff:198.51.100.7", "198.51.100.7"),
            ("p1.example", "p1.example"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(read(right).as_deref(), Ok(host));
        }
        for (wrong, says) in [
            ("p1.example:7162", "has a port, and this is a host alone; write `p1.example`"),
            ("198.51.100.7:7162", "write `198.51.100.7`"),
            ("[2001:db8::7]:7162", "write `[2001:db8::7]`"),
            ("198.51.100", "is not a host"),
            ("198.051.100.7", "has a zero in front of a number; write it as `198.51.100.7`"),
            ("203.0.113.999", "is not a host"),
            ("a b", "is not a host"),
            ("a\\\"b", "is not a host"),
            ("<a>", "is not a host"),
            ("", "is not a host"),
        ] {
            let message = read(wrong).expect_err(wrong);
            assert!(message.contains(says), "{wrong}: {message}");
        }
        assert!(host(&fragment("7162")).is_err());
    }

    #[test]
    fn networks() {
        let read = |text: &str| network(&fragment(&format!("\"{text}\""))).map(|network| network.to_string());
        assert_eq!(read("198.51.100.7").as_deref(), Ok("198.51.100.7/32"));
        assert_eq!(read("10.0.0.0/8").as_deref(), Ok("10.0.0.0/8"));
        assert_eq!(read("0.0.0.0/0").as_deref(), Ok("0.0.0.0/0"));
        assert_eq!(read("2001:db8::1").as_deref(), Ok("2001:db8::1/128"));
        assert_eq!(read("::ffff:198.51.100.7").as_deref(), Ok("198.51.100.7/32"));
        assert_eq!(read("::ffff:198.51.100.0/120").as_deref(), Ok("198.51.100.0/24"));
        for (wrong, says) in [
            ("10.0.0.1/8", "write `10.0.0.0/8` for the network, or `10.0.0.1` for the one address"),
            ("10.0.0.0/33", "is not an address or a CIDR"),
            ("010.0.0.0/8", "`010.0.0.0/8` has a zero in front of a number; write it as `10.0.0.0/8`"),
            ("010.0.0.1", "`010.0.0.1` has a zero in front of a number; write it as `10.0.0.1`"),
            ("10..0.1", "is not an address or a CIDR"),
            ("10.0.0.0/08", "is not an address or a CIDR"),
            ("2001:db8::/032", "is not an address or a CIDR"),
            ("waw1.example", "is not an address or a CIDR"),
            ("198.51.100.7:7162", "has a port"),
            ("::ffff:1.2.3.4/90", "IPv4-mapped"),
            ("", "is not an address or a CIDR"),
        ] {
            let message = read(wrong).expect_err(wrong);
            assert!(message.contains(says), "{wrong}: {message}");
        }
    }
}

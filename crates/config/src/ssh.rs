//! `ssh` of a host in a topology: where ssh reaches it.

use std::fmt;
use std::net::Ipv6Addr;

use super::address::host;
use super::takes::Format;
use super::tree::{Node, Value, quote};

/// The way to write it, for errors.
const EXAMPLE: &str = "write it as `root@198.51.100.7`, `admin@p1.example:2222` or `\"root@[2001:db8::7]:22\"`";
/// Characters of a user's name, as Linux has them.
const MAX_USER: usize = 32;

pub(super) const SSH: Format<SshTarget> = Format::new("host, with `USER@` in front and a port behind it or not", ssh);

/// The end of a connection of ssh. What is left out is for ssh's own configuration to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshTarget {
    /// The user to log in as.
    pub user: Option<String>,
    /// An address, a host name, or a host of ssh's own configuration. It never begins with a dash.
    pub host: String,
    /// The port.
    pub port: Option<u16>,
}

impl SshTarget {
    /// Returns a host alone.
    #[must_use]
    pub fn of_host(host: &str) -> Self {
        Self { user: None, host: host.to_owned(), port: None }
    }

    /// Returns the same, with a user where it has none.
    #[must_use]
    pub fn or_user(self, user: &str) -> Self {
        Self { user: self.user.or_else(|| Some(user.to_owned())), ..self }
    }
}

impl fmt::Display for SshTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match self.port {
            Some(port) if self.host.parse::<Ipv6Addr>().is_ok() => write!(f, "[{}]:{port}", self.host),
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

/// Parses the name of a user.
///
/// # Errors
/// Says why no user has that name.
pub fn ssh_user(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if text.is_empty() || text.len() > MAX_USER || text.starts_with('-') || !text.bytes().all(fits) {
        return Err(format!(
            "{} is no user's name; write one as `root`: at most {MAX_USER} letters a-z and A-Z, digits, `_`, `-` and `.`",
            quote(text)
        ));
    }
    Ok(text.to_owned())
}

fn ssh(node: &Node) -> Result<SshTarget, String> {
    let Value::Text(text) = &node.value else {
        return Err(format!("{} is no host for ssh; {EXAMPLE}", node.quoted()));
    };
    let text = text.trim();
    let (user, rest) = match text.rsplit_once('@') {
        Some((user, rest)) => (Some(ssh_user(user)?), rest),
        None => (None, text),
    };
    let (name, port) = match rest.rsplit_once(':') {
        // More colons without brackets are those of an IPv6 address.
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, Some(port)),
        _ => (rest, None),
    };
    let port = match port.map(|port| (port, port.parse::<u16>())) {
        None => None,
        Some((digits, Ok(port))) if port != 0 && digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(port),
        Some(_) => return Err(format!("{} has no valid port; a port is a number from 1 to 65535", quote(text))),
    };
    let host = host(&Node { id: node.id, value: Value::Text(name.to_owned()) })
        .map_err(|_| format!("{} is no host for ssh; {EXAMPLE}", quote(text)))?;
    Ok(SshTarget { user, host, port })
}

#[cfg(test)]
mod tests {
    use super::super::tree::fragment;
    use super::*;

    #[test]
    fn targets_are_read_and_shown() {
        let read = |text: &str| ssh(&fragment(&format!("'{text}'"))).map(|target| target.to_string());
        for text in [
            "p1.example",
            "root@198.51.100.7",
            "a_b@p1:2222",
            "root@[2001:db8::7]:22",
            "2001:db8::7",
            "root@2001:db8::7",
        ] {
            assert_eq!(read(text).as_deref(), Ok(text));
        }
        assert_eq!(read("[2001:db8::7]").as_deref(), Ok("2001:db8::7"));
    }

    #[test]
    fn nothing_else_is_a_target() {
        let read = |text: &str| ssh(&fragment(text)).map(|target| target.to_string());
        for text in [
            "''",
            "7",
            "'@p1'",
            "'-oProxyCommand=id'",
            "'root@-oProxyCommand=id'",
            "'-l@p1'",
            "'a b@p1'",
            "'$(id)@p1'",
            "'root@p1;id'",
            "'root@p1 id'",
            "\"root@p1\\nid\"",
            "'root@p1:0'",
            "'root@p1:65536'",
            "'root@p1:+22'",
            "'root@p1:'",
            "'root@'",
            "'p1.example:22:22'",
        ] {
            let said = read(text).expect_err(text);
            assert!(said.contains("; "), "{said}");
        }
    }
}

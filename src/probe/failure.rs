//! The reasons why a ping has no pong, and what to do about each.

use std::io::{self, ErrorKind};
use std::time::Duration;

use rustix::io::Errno;

use otproxy_net::ConnectResult;

/// The words of all reasons, as [`ProbeError::as_str`] has them.
pub const PROBE_ERRORS: [&str; 10] =
    ["resolve", "refused", "timeout", "unreachable", "no_ipv6", "no_address", "error", "closed", "no_pong", "no_link"];

/// The reason why a ping has no pong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeError {
    /// There is no connection.
    Connect(ConnectResult),
    /// This host cannot reach any address of that family, as without IPv6.
    NoFamily,
    /// The connection was closed, before a first pong or after it.
    Closed {
        /// Whether it was closed before the first pong.
        first: bool,
    },
    /// It stands, and there was no pong in this time.
    Silent(Duration),
    /// This came in place of a pong.
    NoLink(String),
}

impl ProbeError {
    /// Returns the error of a connect.
    #[must_use]
    pub fn of_connect(error: &io::Error, is_ipv6: bool) -> Self {
        let no_route = error.kind() == ErrorKind::NetworkUnreachable
            || matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL));
        if is_ipv6 && no_route { Self::NoFamily } else { Self::Connect(ConnectResult::of(error)) }
    }

    /// Returns its word, for programs.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Connect(result) => result.as_str(),
            Self::NoFamily => "no_ipv6",
            Self::Closed { .. } => "closed",
            Self::Silent(_) => "no_pong",
            Self::NoLink(_) => "no_link",
        }
    }

    /// Returns the finding, as the end of a sentence that begins with the address.
    #[must_use]
    pub fn finding(&self) -> String {
        match self {
            Self::Connect(ConnectResult::Resolve) => "does not resolve".to_owned(),
            Self::Connect(ConnectResult::Refused) => "refuses connections".to_owned(),
            Self::Connect(ConnectResult::Timeout) => "does not answer".to_owned(),
            Self::Connect(result) => format!("cannot be reached ({result})"),
            Self::NoFamily => "cannot be tried: this host has no way to IPv6 addresses".to_owned(),
            Self::Closed { first: true } => "closes the connection in place of a pong".to_owned(),
            Self::Closed { first: false } => "closed the link".to_owned(),
            Self::Silent(within) => {
                format!("takes the connection, and sends no pong within {}", humantime::format_duration(*within))
            }
            Self::NoLink(bytes) => format!("answers, and not as a link: {bytes}"),
        }
    }

    /// Returns the remedy, where `who` listens.
    #[must_use]
    pub fn remedy(&self, who: &str) -> String {
        match self {
            Self::Connect(ConnectResult::Resolve) => {
                "correct the name, or see why this host cannot look it up: `getent hosts NAME`".to_owned()
            }
            Self::Connect(ConnectResult::Refused) => {
                format!("see that {who} runs, and listens there: `ss -ltnp` on its host")
            }
            Self::Connect(ConnectResult::Timeout) => {
                format!("see that {who}'s host is up, and that its firewall lets this host in")
            }
            Self::Connect(ConnectResult::NoAddress) => {
                "this host has no local address or port left for it: see `ip address`, `ss -s` and the sysctl \
                 net.ipv4.ip_local_port_range"
                    .to_owned()
            }
            Self::Connect(ConnectResult::Error) => {
                "it is this host that fails: see its firewall (`nft list ruleset`) and `ulimit -n`".to_owned()
            }
            Self::Connect(_) => "see this host's routes and firewall: `ip route get ADDRESS`".to_owned(),
            Self::NoFamily => "try it from a host with IPv6, or leave IPv6 out; see `ip -6 route` here".to_owned(),
            Self::Closed { first: true } => format!(
                "the log of {who} says why, and `otproxy listeners` there counts it: it refuses this host (a ban, a limit, a list, a \
                 drain), its port is for something else than links, or it has no way to the core, or the core does not trust it: \
                 `otproxy doctor` on its host"
            ),
            Self::Closed { first: false } => {
                format!("see whether {who} was restarted or drained: its log and the core's say why the link ended")
            }
            Self::Silent(_) => format!(
                "see that it is otproxy that listens there, and not another program: `ss -ltnp` on the host of {who}; and that its core \
                 runs: `otproxy doctor` there"
            ),
            Self::NoLink(_) => {
                "another program listens there, or another listener: name the port of the links".to_owned()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_ipv6_here_is_no_fault_of_the_other_side() {
        for errno in [Errno::NETUNREACH, Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL] {
            assert_eq!(ProbeError::of_connect(&errno.into(), true), ProbeError::NoFamily, "{errno}");
            assert_ne!(ProbeError::of_connect(&errno.into(), false), ProbeError::NoFamily, "{errno}");
        }
        let refused = ProbeError::of_connect(&Errno::CONNREFUSED.into(), true);
        assert_eq!(refused, ProbeError::Connect(ConnectResult::Refused));
    }

    #[test]
    fn each_has_a_finding_and_a_remedy_of_its_own() {
        let mut errors: Vec<_> = ConnectResult::ALL.iter().map(|result| ProbeError::Connect(*result)).collect();
        // A probe goes through no tunnel of its own, waits for no turn, and comes from no player's address.
        let never = [
            ConnectResult::Ok,
            ConnectResult::Handshake,
            ConnectResult::Queue,
            ConnectResult::BadSource,
            ConnectResult::NoPrivilege,
        ]
        .map(ProbeError::Connect);
        errors.retain(|error| !never.contains(error));
        errors.extend([
            ProbeError::NoFamily,
            ProbeError::Closed { first: true },
            ProbeError::Closed { first: false },
            ProbeError::Silent(Duration::from_secs(1)),
            ProbeError::NoLink("`SSH`".to_owned()),
        ]);
        let mut findings: Vec<_> = errors.iter().map(ProbeError::finding).collect();
        findings.sort();
        findings.dedup();
        assert_eq!(findings.len(), errors.len(), "{findings:?}");
        let mut words: Vec<_> = errors.iter().map(ProbeError::as_str).collect();
        words.dedup();
        let (mut words, mut all) = (words, PROBE_ERRORS);
        words.sort_unstable();
        all.sort_unstable();
        assert_eq!(words, all);
        let local = ProbeError::Connect(ConnectResult::NoAddress).remedy("the edge");
        assert!(local.contains("net.ipv4.ip_local_port_range"), "{local}");
    }
}

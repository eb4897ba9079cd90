//! The places where reports are.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;
use hyper::http::uri::Authority;
use rustls::pki_types::ServerName;

use otproxy_config::Topology;
use otproxy_config::name::Name;

/// The host whose name is not an edge's.
const CORE: &str = "core";

/// A host with a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportSource {
    /// Its name, which is that of its folder too.
    pub name: String,
    /// The place of its listener of `kind: web`.
    pub url: ReportUrl,
}

/// The URL of a listener of `kind: web`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportUrl {
    /// The host and the port, to connect to.
    pub(super) address: String,
    /// The host and, if it was given, the port, as a request names it.
    pub(super) host: String,
    /// The name in its certificate; `None` over plain HTTP.
    pub(super) tls: Option<ServerName<'static>>,
}

impl ReportUrl {
    /// Returns whether it is https.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }
}

impl fmt::Display for ReportUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.host)
    }
}

impl FromStr for ReportUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no URL of an edge; write it as `https://p1.example` or `http://p1.example:8080`");
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let fits = |authority: &&Authority| !authority.as_str().contains('@') && !authority.host().is_empty();
        let authority = uri.authority().filter(fits).ok_or_else(wrong)?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(format!("{}, without a path: that is `/report/` always", wrong()));
        }
        let bare = authority.host().trim_start_matches('[').trim_end_matches(']');
        let (port, tls) = match uri.scheme_str() {
            Some("http") => (80, None),
            Some("https") => (443, Some(ServerName::try_from(bare.to_owned()).map_err(|_| wrong())?)),
            _ => return Err(wrong()),
        };
        let given = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
        if !given.is_empty() && authority.port_u16().is_none_or(|port| port == 0) {
            return Err(wrong());
        }
        let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(port));
        Ok(Self { address, host: authority.as_str().to_owned(), tls })
    }
}

impl FromStr for ReportSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, url) = text.split_once('=').ok_or("write it as NAME=URL, as in `waw1=https://p1.example`")?;
        if name != CORE {
            Name::edge(name).map_err(|error| error.to_string())?;
        }
        Ok(Self { name: name.to_owned(), url: url.parse()? })
    }
}

impl ReportSource {
    /// Returns the edges of a topology that are not revoked, at their public addresses and this port, or without one at that of its `web`.
    ///
    /// # Errors
    /// Fails if there is no port.
    pub fn of_topology(topology: &Topology, port: Option<u16>, https: bool) -> Result<Vec<Self>, String> {
        let own = topology.web.as_ref().map(|web| web.port);
        let port = port.or(own).ok_or("the topology has no `web`, and so its edges no port for HTTP; give --port")?;
        let scheme = if https { "https" } else { "http" };
        let source = |(name, public): (&Name, &str)| {
            let host =
                if public.parse::<std::net::Ipv6Addr>().is_ok() { format!("[{public}]") } else { public.to_owned() };
            Ok(Self { name: name.to_string(), url: format!("{scheme}://{host}:{port}").parse()? })
        };
        topology.live().map(|edge| source((&edge.name, &edge.public))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (text, address, tls) in [
            ("http://p1.example", "p1.example:80", false),
            ("http://p1.example:8080/", "p1.example:8080", false),
            ("https://p1.example", "p1.example:443", true),
            ("https://198.51.100.7:8443", "198.51.100.7:8443", true),
            ("https://[2001:db8::7]", "[2001:db8::7]:443", true),
        ] {
            let url: ReportUrl = text.parse().unwrap();
            assert_eq!((url.address.as_str(), url.tls.is_some()), (address, tls), "{text}");
            assert_eq!(url.to_string(), text.trim_end_matches('/'));
        }
        for wrong in [
            "",
            "p1.example",
            "p1.example:80",
            "ftp://p1.example",
            "http://",
            "http://a/report/",
            "http://a?b",
            "http://u:p@a",
            "http://a:0",
            "http://a:99999",
            "http://a:",
            "https://a b",
        ] {
            assert!(wrong.parse::<ReportUrl>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_folders_and_nothing_else() {
        let source: ReportSource = "waw1=https://p1.example".parse().unwrap();
        assert_eq!((source.name.as_str(), source.url.to_string().as_str()), ("waw1", "https://p1.example"));
        assert!("core=http://127.0.0.1:8080".parse::<ReportSource>().is_ok());
        for wrong in [
            "https://p1.example",
            "=http://a",
            "../a=http://a",
            "a/b=http://a",
            "..=http://a",
            ".a=http://a",
            "ca=http://a",
            "a=",
        ] {
            assert!(wrong.parse::<ReportSource>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_topology_has_edges() {
        let text = "edges:\n- { name: waw1, address: 198.51.100.7, public: p1.example }\n- { name: fra1, address: '2001:db8::7' }\n\
             - { name: old1, address: 198.51.100.8, revoked: true }\ncore: { address: 203.0.113.9 }\n\
             game_servers: [{ port: 7172, address: '127.0.0.1:7172' }]\n";
        let of = |text: &str, port, https| {
            let topology = otproxy_config::parse_topology("t.yaml", text).unwrap();
            let sources = ReportSource::of_topology(&topology, port, https)?;
            Ok::<_, String>(sources.iter().map(|source| format!("{}={}", source.name, source.url)).collect::<Vec<_>>())
        };
        assert_eq!(
            of(text, Some(443), true).unwrap(),
            ["waw1=https://p1.example:443", "fra1=https://[2001:db8::7]:443"]
        );
        assert!(of(text, None, true).unwrap_err().contains("give --port"));
        let web = format!("{text}web: {{ list: myot }}\n");
        assert_eq!(of(&web, None, false).unwrap()[0], "waw1=http://p1.example:8080");
    }
}

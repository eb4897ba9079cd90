//! The keys of a listener of `kind: web` beside those that it shares with forwards.

use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use otproxy_protocol::edge_list::{MAX_WEB_OBJECT, WebObject};
use otproxy_protocol::login::{self, RsaKey, Worlds};

use super::address::NETWORK;
use super::declare::section;
use super::document::{unread, without_byte_order_mark};
use super::formats::{self, LABEL, PATH, SECRET};
use super::forward::ForwardConfig;
use super::inbound::AcceptProxy;
use super::key::RoleKind;
use super::login::{key_file, standard_key};
use super::mapping::{elsewhere, mapping};
use super::scope::Scope;
use super::takes::{Format, Takes, items, list, some, value, word};
use super::tree::{Node, Value};
use super::web_report::{REPORT_PATH, WebReport};

/// The beginning of the paths of lists; the name of one follows.
pub const LISTS_PATH: &str = "/proxies/";
/// The path of the status.
pub const STATUS_PATH: &str = "/status";
/// Lists of one listener. An edge keeps the last answer of each.
pub const MAX_LISTS: usize = 32;
/// Characters of a path or of the name of a header.
const MAX_WORD: usize = 128;

const ROUTE: Format<String> = Format::new("path", route);
const VERSION: Format<u16> = Format::new("version, as 1098", version);
const HEADER: Format<String> = Format::new("name of a header", header);

section! {
    /// A listener of kind `web`.
    #[derive(Debug, Clone, PartialEq)]
    pub struct WebConfig from WebKeys {
        /// The keys that it shares with forwards: its targets are where requests lead that it does not answer itself.
        forward: ForwardConfig = elsewhere(),
        /// `tls`: the certificate, where it is not plain.
        tls: Option<WebTlsConfig> = mapping().optional(),
        /// `report`: this process's own report, to whom it is for.
        report: Option<WebReport> = mapping().optional(),
        /// `routes`: what a core answers.
        routes: WebRoutes = mapping(),
    }
}

section! {
    /// `listeners[].tls`
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct WebTlsConfig {
        /// with `tls` the listener takes TLS alone: the certificate with those that it comes from, PEM; reread when it changes
        cert: PathBuf = value(PATH).required("web.pem"),
        /// the certificate's private key, PEM
        key: PathBuf = value(SECRET).required("web.key"),
    }
}

section! {
    /// `listeners[].real_ip`
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct RealIpConfig {
        /// the header in which a proxy for web sites tells a player's address
        header: String = value(HEADER).required("CF-Connecting-IP"),
        /// the addresses of that proxy; from others the header is not believed
        from: Vec<IpNet> = some(NETWORK).required("203.0.113.0/24"),
    }
}

section! {
    /// `listeners[].routes`: what a core answers to requests; an edge leads them to its core.
    #[derive(Debug, Clone, PartialEq)]
    pub struct WebRoutes {
        /// the lists of edges for clients, each at `/proxies/NAME`
        proxies: Vec<WebList> = items().or("[]").example("[{ name: myot }]"),
        /// the listener of `kind: forward` with `status` that tells who is online, as JSON, at `/status`
        status: Option<String> = value(LABEL).optional("no status").example("login"),
        /// the paths at which clients log in, which lead to `forward_to`: a login service
        login: Vec<String> = list(ROUTE).or("[]").example("[/login, /login.php]"),
        /// which clients the answer to a login tells to play over links, at 127.0.0.1 and with the list of edges, and all others over an
        /// edge, without it
        worlds: Worlds = word().or("auto"),
        /// `classic`: logins over HTTP for a game server that knows none.
        classic: Option<ClassicLogins> = mapping().optional(),
    }
}

section! {
    /// `listeners[].routes.classic`
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ClassicLogins {
        /// with `classic`, `forward_to` is a game server's own login port, and logins over HTTP are put to it as a client of this version
        /// does, as 1098 for 10.98
        version: u16 = value(VERSION).required("1098"),
        /// the private key of that login server, in PEM form
        rsa_key: Arc<RsaKey> =
            key_file().or_else("the key that servers have unless their owner makes another", standard_key).example("key.pem"),
    }
}

section! {
    /// `listeners[].routes.proxies[]`
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct WebList {
        /// the end of its path; unique
        name: String = value(LABEL).unique().required("myot"),
        /// the file of a JSON object, which clients that run in a browser find as `web` in the list
        web: Option<WebObject> = web_object().optional("none").example("myot.json"),
    }
}

impl RealIpConfig {
    /// Returns whether the header is believed from this address.
    #[must_use]
    pub fn believes(&self, peer: IpAddr) -> bool {
        self.from.iter().any(|network| network.contains(&peer))
    }
}

impl WebConfig {
    /// Returns the keys that it has beside those that it shares with forwards.
    pub(super) fn read(item: &Scope<'_>, forward: Option<ForwardConfig>) -> Option<Self> {
        let mut keys = WebKeys::read(item);
        if let Some(routes) = &keys.routes {
            let (logins, targets) = (!routes.login.is_empty(), item.has("forward_to"));
            if item.role() == RoleKind::Core && logins && !targets {
                item.wrong(
                    "routes",
                    "has `login`, and no login service to lead there; give `forward_to`, as `127.0.0.1:80`",
                );
            } else if item.role() == RoleKind::Core && targets && !logins {
                let message =
                    "leads logins to a login service, and there are none; give `routes` with `login`, as `[/login]`";
                item.wrong("forward_to", message);
            } else if item.role() == RoleKind::Core
                && !logins
                && routes.proxies.is_empty()
                && routes.status.is_none()
                && !item.has("report")
            {
                item.wrong_here("answers nothing; give `routes`, as in `routes: { proxies: [{ name: myot }] }`");
            }
            if routes.classic.is_some() && !logins {
                item.wrong(
                    "routes",
                    "has `classic` without `login`, the paths at which clients log in; give it, as `[/login]`",
                );
            }
            let taken = routes.login.iter().find(|path| item.has("report") && path.starts_with(REPORT_PATH));
            if let Some(path) = taken {
                let message =
                    format!("`{path}` in `login` is below `{REPORT_PATH}`, which `report` takes; give another");
                item.wrong("routes", message);
            }
            if routes.proxies.len() > MAX_LISTS {
                item.wrong("routes", format!("has too many lists in `proxies`; {MAX_LISTS} are the most"));
            }
        }
        if item.has("report") && !item.file_has("report") {
            let message = "leads to the files of `report`, and this file has none; give it `report: { dir: /var/lib/otproxy/report }`";
            item.wrong("report", message);
        }
        let accept_proxy = forward.as_ref().map(|forward| forward.inbound.accept_proxy);
        let header = accept_proxy.is_some_and(|accept_proxy| accept_proxy != AcceptProxy::None);
        // Such a listener may have a header by default, which then only comes through the tunnel.
        let listens = item.has("listen");
        if item.has("tls") && header && listens {
            item.wrong(
                "tls",
                "cannot stand beside a PROXY header; set `accept_proxy: none`, or have who sends it end the TLS",
            );
        }
        if item.has("real_ip") && header && listens {
            item.wrong(
                "real_ip",
                "cannot stand beside a PROXY header, which tells the player's address too; set `accept_proxy: none`",
            );
        }
        keys.forward = forward;
        keys.complete()
    }
}

/// Declares the file of an object, which is read where files are.
fn web_object() -> Takes<WebObject> {
    Takes::new("path", |scope, key| {
        let path = scope.value(key, formats::path)?;
        // Files are read only where the file that names them is one.
        let Some(folder) = scope.folder() else { return WebObject::parse(b"{}").ok() };
        let path = folder.join(path);
        let mut text = Vec::new();
        let most = MAX_WEB_OBJECT as u64 + 1;
        let read = File::open(&path).and_then(|opened| opened.take(most).read_to_end(&mut text));
        let problem = match read {
            Err(error) => unread(&path, &error),
            Ok(_) => match WebObject::parse(without_byte_order_mark(&text)) {
                Ok(object) => return Some(object),
                Err(error) => error.to_string(),
            },
        };
        scope.wrong(key, format!("{}: {problem}", path.display()));
        None
    })
}

/// Parses a path at which clients log in.
fn route(node: &Node) -> Result<String, String> {
    let Value::Text(text) = &node.value else {
        return Err(format!("{} is not a path; write it as `/login`", node.quoted()));
    };
    let fits = |c: char| c.is_ascii_graphic() && !"?#\"%\\`".contains(c);
    if !text.starts_with('/') || text.len() > MAX_WORD || !text.chars().all(fits) {
        return Err(format!("{} is not a path; write it as `/login`", node.quoted()));
    }
    if text.starts_with(LISTS_PATH) || text == STATUS_PATH {
        return Err(format!(
            "{} is taken: lists are at `{LISTS_PATH}NAME`, the status at `{STATUS_PATH}`",
            node.quoted()
        ));
    }
    Ok(text.clone())
}

/// Parses the version of a client, as servers write it.
fn version(node: &Node) -> Result<u16, String> {
    match &node.value {
        Value::Int(number) => u16::try_from(*number).ok().filter(|version| login::VERSIONS.contains(version)),
        _ => None,
    }
    .ok_or_else(|| {
        format!("{} is no version of a client; write it without a point, as `1098` for 10.98", node.quoted())
    })
}

/// Parses the name of a header.
fn header(node: &Node) -> Result<String, String> {
    match &node.value {
        Value::Text(text) if is_token(text) => Ok(text.clone()),
        _ => Err(format!("{} is not the name of a header; write it as `CF-Connecting-IP`", node.quoted())),
    }
}

fn is_token(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    !text.is_empty() && text.len() <= MAX_WORD && text.chars().all(fits)
}

#[cfg(test)]
mod tests {
    use super::super::{Config, ListenerConfig, parse};
    use super::*;

    fn web(role: &str, listener: &str) -> Result<WebConfig, String> {
        let more = match role {
            "core" => "edges: [{ name: waw1, address: 198.51.100.7 }]\n",
            _ => "",
        };
        let text =
            format!("role: {role}\n{more}listeners: [{{ name: web, kind: web, listen: '0.0.0.0:80', {listener} }}]\n");
        let config = parse("web.yaml", &text).map_err(|errors| errors.to_string())?;
        let (Config::Edge(config::EdgeConfig { listeners, .. }) | Config::Core(config::CoreConfig { listeners, .. })) =
            config;
        match listeners.into_iter().next() {
            Some(ListenerConfig::Web(web)) => Ok(web),
            other => panic!("{other:?}"),
        }
    }

    use crate as config;

    #[test]
    fn a_core_answers_and_an_edge_leads_to_its_core() {
        let core = web("core", "accept_proxy: none, routes: { proxies: [{ name: myot }, { name: other }] }").unwrap();
        assert_eq!(core.routes.proxies.iter().map(|list| list.name.as_str()).collect::<Vec<_>>(), ["myot", "other"]);
        assert_eq!((core.routes.status.as_deref(), core.forward.forward_to.len()), (None, 0));
        let login =
            web("core", "accept_proxy: none, forward_to: '127.0.0.1:8080', routes: { login: [/login, /login.php] }")
                .unwrap();
        assert_eq!(login.routes.login, ["/login", "/login.php"]);
        assert_eq!(login.forward.send_proxy, config::SendProxy::None, "a login service reads headers of HTTP");
        let classic = "accept_proxy: none, send_proxy: none, forward_to: '127.0.0.1:7171', source: player, \
             routes: { login: [/login], classic: { version: 1098 } }";
        let classic = web("core", classic).unwrap();
        assert_eq!(classic.routes.classic.map(|classic| classic.version), Some(1098));
        assert_eq!(
            classic.forward.source,
            config::SourceAddress::Player,
            "a login port knows players by their addresses"
        );
        let edge =
            web("edge", "forward_to: '203.0.113.9:80', real_ip: { header: CF-Connecting-IP, from: 203.0.113.0/24 }")
                .unwrap();
        assert_eq!(edge.forward.send_proxy, config::SendProxy::V2);
        assert!(edge.forward.inbound.real_ip.unwrap().believes("203.0.113.4".parse().unwrap()));
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for (role, listener, says) in [
            ("core", "accept_proxy: none, routes: { status: nobody }", "routes: `status: nobody` is no listener"),
            ("core", "accept_proxy: none", "answers nothing; give `routes`"),
            ("core", "accept_proxy: none, routes: { login: [/login] }", "routes: has `login`, and no login service"),
            (
                "core",
                "accept_proxy: none, forward_to: 'a:1', routes: { status: a }",
                "forward_to: leads logins to a login service",
            ),
            ("core", "accept_proxy: none, routes: { proxies: [{ name: a }, { name: a }] }", "already used"),
            (
                "core",
                "accept_proxy: none, routes: { login: [login] }, forward_to: 'a:1'",
                "is not a path; write it as `/login`",
            ),
            ("core", "accept_proxy: none, routes: { login: [/status] }, forward_to: 'a:1'", "is taken"),
            ("core", "routes: { status: a }, tls: { cert: a, key: b }", "tls: cannot stand beside a PROXY header"),
            (
                "core",
                "routes: { status: a }, real_ip: { header: A, from: 203.0.113.0/24 }",
                "real_ip: cannot stand beside",
            ),
            ("core", "accept_proxy: none, send_proxy: v2, forward_to: 'a:1', routes: { login: [/a] }", "send_proxy: "),
            ("core", "accept_proxy: none, connects: 1/600ms, forward_to: 'a:1', routes: { login: [/a] }", "connects: "),
            ("core", "accept_proxy: none, routes: { status: a }, expect: links", "only with `kind: forward`"),
            (
                "core",
                "accept_proxy: none, routes: { proxies: [{ name: a }], classic: { version: 1098 } }",
                "has `classic` without `login`",
            ),
            (
                "core",
                "accept_proxy: none, forward_to: 'a:1', routes: { login: [/a], classic: { version: 10.98 } }",
                "is no version of a client",
            ),
            ("edge", "", "forward_to: is required, and missing"),
            ("edge", "forward_to: 'a:1', routes: { status: a }", "only in `role: core`"),
            (
                "edge",
                "forward_to: 'a:1', real_ip: { header: 'A B', from: 203.0.113.0/24 }",
                "is not the name of a header",
            ),
            ("edge", "forward_to: 'a:1', real_ip: { header: A, from: [] }", "is an empty list"),
            ("edge", "forward_to: 'a:1', status: { address: a.example }", "only with `kind: forward`"),
        ] {
            let error = web(role, listener).map(|web| format!("{web:?}")).expect_err(says);
            assert!(error.contains(says), "{listener}: {error}");
        }
    }
}

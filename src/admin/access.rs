//! Access to the API: the right that each request has.
//!
//! The unix socket is open to users whom its mode lets in. At `admin.listen` a token is needed, if any are configured.
//! If none are, every program on loopback may read, and acting takes a certificate of `client_ca`: an address has no
//! owner and no mode, so each account of the host reaches it. A web page in a browser gets nothing: a page can send
//! requests to any address, and can read the answers if its own host name resolves to this one.

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};

use super::caller::Caller;
use super::tokens::{Permission, Tokens};

/// The way by which a request arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    /// By the unix socket.
    Socket,
    /// By `admin.listen`.
    Tcp,
    /// By `admin.listen`, over TLS.
    Tls,
    /// By the tunnel: the core asks its edge.
    Tunnel,
}

impl Transport {
    /// Returns its word in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Tunnel => "tunnel",
        }
    }
}

/// The reason why a request is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AuthError {
    /// It has no token.
    NoToken,
    /// Its token is unknown.
    WrongToken,
    /// Its token is for reading only.
    OnlyReads,
    /// It has neither token nor certificate, and asks to act.
    Unproved,
    /// A web page in a browser sent it.
    WebPage,
    /// Its `Host` is a name, as that of a web page would be that resolves to this host.
    HostName,
    /// The core asks for what it does not decide.
    NotOfTheCore,
    /// It is for the user of the process alone, over the unix socket.
    NotItsUser,
}

impl AuthError {
    /// Returns the error and its remedy.
    pub fn text(self) -> (&'static str, &'static str) {
        match self {
            Self::NoToken => (
                "a token is needed here",
                "send `Authorization: Bearer TOKEN`, with the token in `admin.token_file` or `admin.read_token_file` (commands \
                 have `--token-file`); or use `admin.socket`",
            ),
            Self::WrongToken => (
                "this token is none of those that are known here",
                "send the token in `admin.token_file` or `admin.read_token_file`; or use `admin.socket`",
            ),
            Self::OnlyReads => {
                ("this token may read, and not act", "send the token in `admin.token_file`, or use `admin.socket`")
            }
            Self::Unproved => (
                "without a token this address may be read, and nothing else",
                "act by the unix socket (`admin.socket`, or the one of the unit), or give `admin.token_file` and send its token",
            ),
            Self::WebPage => ("web pages may not use this", "use `otproxy`, curl or a program of your own"),
            Self::NotOfTheCore => ("the core may not do this here", "do it on the edge's own host"),
            Self::NotItsUser => (
                "only the user that it runs as may do this, over its unix socket",
                "use `otproxy upgrade` as that user, on the host itself",
            ),
            Self::HostName => (
                "without a token the host must be an address, `localhost` or the name of this host",
                "ask http://127.0.0.1 and the port, or send a token of `admin.token_file` or `admin.read_token_file`",
            ),
        }
    }
}

/// Checks that a request of `caller`, which came in by `door`, has this right. Returns the right of its token, if it
/// needed one.
///
/// # Errors
/// The reason of the denial.
pub(super) fn check(
    door: Transport,
    caller: &Caller,
    tokens: &Tokens,
    headers: &HeaderMap,
    right: Permission,
) -> Result<Option<Permission>, AuthError> {
    if matches!(door, Transport::Socket | Transport::Tunnel) {
        return Ok(None);
    }
    if headers.contains_key(ORIGIN) {
        return Err(AuthError::WebPage);
    }
    if tokens.any() {
        let has = permission(tokens, headers)?.ok_or(AuthError::NoToken)?;
        return if has >= right { Ok(Some(has)) } else { Err(AuthError::OnlyReads) };
    }
    if door == Transport::Tcp && !host(headers).is_some_and(is_own) {
        return Err(AuthError::HostName);
    }
    if right == Permission::Act && caller.certificate().is_none() { Err(AuthError::Unproved) } else { Ok(None) }
}

/// Checks that a request for a page beside the API, which takes no token, comes from no web page.
///
/// # Errors
/// The reason of the denial.
pub(super) fn check_page(door: Transport, tokens: &Tokens, headers: &HeaderMap) -> Result<(), AuthError> {
    if matches!(door, Transport::Socket | Transport::Tunnel) {
        return Ok(());
    }
    if headers.contains_key(ORIGIN) {
        return Err(AuthError::WebPage);
    }
    // A browser always names a host; checks of load balancers often name none. A page has no token.
    let named = door == Transport::Tcp && host(headers).is_some_and(|host| !is_own(host));
    if named && !matches!(permission(tokens, headers), Ok(Some(_))) { Err(AuthError::HostName) } else { Ok(()) }
}

/// Returns the right of the bearer of the token that a request has; `None` if it has none.
fn permission(tokens: &Tokens, headers: &HeaderMap) -> Result<Option<Permission>, AuthError> {
    let token = headers.get(AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
    token.map(|token| tokens.right(token).ok_or(AuthError::WrongToken)).transpose()
}

/// Returns the host that a request is for; an empty one if it is no text.
fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(HOST).map(|host| host.to_str().unwrap_or_default())
}

/// Returns the token of `Bearer TOKEN`.
pub fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// Returns whether a `Host` is one that no web page can have of its own: an address, `localhost` or the name of this host,
/// with or without a port.
fn is_own(host: &str) -> bool {
    is_of(host, rustix::system::uname().nodename().to_str().unwrap_or_default())
}

/// Returns the same, on the host with this name.
fn is_of(host: &str, own: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, "1"),
    };
    let v6 = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let known = match v6 {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let names = ["localhost", own].into_iter().filter(|own| !own.is_empty());
            names.into_iter().any(|own| name.eq_ignore_ascii_case(own)) || name.parse::<std::net::Ipv4Addr>().is_ok()
        }
    };
    known && port.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn with(headers: &[(axum::http::HeaderName, &str)]) -> HeaderMap {
        headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    const FOREIGN: [&str; 10] = [
        "evil.example",
        "evil.example:9162",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "::1",
        "",
        "a:b:c",
        "127.0.0.1:x",
        "[evil]:1",
        "127.1",
    ];

    #[test]
    fn without_tokens_an_address_may_be_read_and_acting_takes_the_socket_or_a_certificate() {
        let (read, act) = (Permission::Read, Permission::Act);
        let tokens = Tokens::default();
        let anybody = Caller::at("127.0.0.1:1".parse().ok());
        let proved = Caller::default();
        proved.proved("anna".to_owned());
        let local = with(&[(HOST, "127.0.0.1:9162")]);
        for (door, caller, right, expected) in [
            (Transport::Socket, &anybody, act, Ok(None)),
            (Transport::Tcp, &anybody, read, Ok(None)),
            (Transport::Tcp, &anybody, act, Err(AuthError::Unproved)),
            (Transport::Tls, &anybody, read, Ok(None)),
            (Transport::Tls, &anybody, act, Err(AuthError::Unproved)),
            (Transport::Tls, &proved, act, Ok(None)),
        ] {
            assert_eq!(check(door, caller, &tokens, &local, right), expected, "{door:?} {caller:?} {right:?}");
        }
    }

    #[test]
    fn a_web_page_is_refused() {
        let caller = Caller::default();
        caller.proved("anna".to_owned());
        let tokens = Tokens::default();
        let check = |door, headers: &[_]| {
            let headers = with(headers);
            let api = check(door, &caller, &tokens, &headers, Permission::Act);
            // The pages beside the API go by the same.
            assert_eq!(check_page(door, &tokens, &headers), api.map(drop), "{headers:?}");
            api.map(drop)
        };
        for host in ["127.0.0.1:9162", "127.0.0.1", "localhost:1", "LOCALHOST", "[::1]:9162", "[::1]", "192.0.2.1:1"] {
            assert_eq!(check(Transport::Tcp, &[(HOST, host)]), Ok(()), "{host}");
            let page = [(HOST, host), (ORIGIN, "http://evil.example")];
            assert_eq!(check(Transport::Tcp, &page), Err(AuthError::WebPage), "{host}");
            assert_eq!(check(Transport::Tls, &page), Err(AuthError::WebPage), "{host}");
            assert_eq!(check(Transport::Socket, &page), Ok(()));
        }
        for host in FOREIGN {
            assert_eq!(check(Transport::Tcp, &[(HOST, host)]), Err(AuthError::HostName), "{host}");
            // Over TLS the browser has compared the name with that in the certificate.
            assert_eq!(check(Transport::Tls, &[(HOST, host)]), Ok(()), "{host}");
            assert_eq!(check(Transport::Socket, &[(HOST, host)]), Ok(()), "{host}");
        }
        assert_eq!(check(Transport::Tcp, &[(HOST, "127.0.0.1"), (ORIGIN, "null")]), Err(AuthError::WebPage));
        let none = HeaderMap::new();
        assert_eq!(super::check(Transport::Tcp, &caller, &tokens, &none, Permission::Read), Err(AuthError::HostName));
        assert_eq!(check_page(Transport::Tcp, &tokens, &none), Ok(()), "a load balancer's check");
    }

    #[test]
    fn a_host_has_its_own_name() {
        for host in ["edge1", "Edge1:9162", "localhost:9162", "127.0.0.1"] {
            assert!(is_of(host, "edge1"), "{host}");
        }
        for host in FOREIGN.into_iter().chain(["edge", "edge1.evil.example", "edge1.evil.example:9162"]) {
            assert!(!is_of(host, "edge1"), "{host}");
            assert!(!is_of(host, ""), "{host}");
        }
    }

    #[test]
    fn tokens_are_presented_as_bearers() {
        for (value, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Bearer ", Some("")),
            ("Basic abc", None),
            ("abc", None),
            ("", None),
            ("Bearerabc", None),
        ] {
            assert_eq!(bearer(value.as_bytes()), token.map(str::as_bytes), "{value}");
        }
    }
}

//! Access to the API: the right that each request has.
//!
//! The unix socket is open to users whom its mode lets in. At `admin.listen` a token is needed, if any are configured.
//! If none are, every program on loopback may act, except for a web page in a browser there: a page can send requests
//! to any address, and can read the answers if its own host name resolves to this one.

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};

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
}

impl Transport {
    /// Returns its word in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
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
    /// A web page in a browser sent it.
    WebPage,
    /// Its `Host` is a name, as that of a web page would be that resolves to this host.
    HostName,
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
            Self::WebPage => ("web pages may not use this", "use `otproxy`, curl or a program of your own"),
            Self::HostName => (
                "without a token the host must be an address or `localhost`",
                "use http://127.0.0.1 and the port, or set `admin.token_file`",
            ),
        }
    }
}

/// Checks that a request that came in by `door` has this right.
///
/// # Errors
/// The reason of the denial.
pub(super) fn check(door: Transport, tokens: &Tokens, headers: &HeaderMap, right: Permission) -> Result<(), AuthError> {
    if door == Transport::Socket {
        return Ok(());
    }
    if headers.contains_key(ORIGIN) {
        return Err(AuthError::WebPage);
    }
    if tokens.any() {
        let token = headers.get(AUTHORIZATION).and_then(|value| bearer(value.as_bytes())).ok_or(AuthError::NoToken)?;
        let has = tokens.right(token).ok_or(AuthError::WrongToken)?;
        return if has >= right { Ok(()) } else { Err(AuthError::OnlyReads) };
    }
    // Over TLS the browser has compared the name with that in the certificate.
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    if door == Transport::Tcp && !host.is_some_and(is_address) { Err(AuthError::HostName) } else { Ok(()) }
}

/// Returns the token of `Bearer TOKEN`.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// Returns whether a `Host` is an address or `localhost`, with or without a port.
fn is_address(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, "1"),
    };
    let v6 = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let known = match v6 {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::Ipv4Addr>().is_ok(),
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

    #[test]
    fn without_tokens_a_web_page_is_refused_and_all_else_on_loopback_may_act() {
        let check = |door, headers: &[_]| check(door, &Tokens::default(), &with(headers), Permission::Act);
        for host in ["127.0.0.1:9162", "127.0.0.1", "localhost:1", "LOCALHOST", "[::1]:9162", "[::1]", "192.0.2.1:1"] {
            assert_eq!(check(Transport::Tcp, &[(HOST, host)]), Ok(()), "{host}");
            let page = [(HOST, host), (ORIGIN, "http://evil.example")];
            assert_eq!(check(Transport::Tcp, &page), Err(AuthError::WebPage), "{host}");
            assert_eq!(check(Transport::Tls, &page), Err(AuthError::WebPage), "{host}");
            assert_eq!(check(Transport::Socket, &page), Ok(()));
        }
        for host in [
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
        ] {
            assert_eq!(check(Transport::Tcp, &[(HOST, host)]), Err(AuthError::HostName), "{host}");
            assert_eq!(check(Transport::Tls, &[(HOST, host)]), Ok(()), "{host}");
            assert_eq!(check(Transport::Socket, &[(HOST, host)]), Ok(()), "{host}");
        }
        assert_eq!(check(Transport::Tcp, &[]), Err(AuthError::HostName));
        assert_eq!(check(Transport::Tcp, &[(HOST, "127.0.0.1"), (ORIGIN, "null")]), Err(AuthError::WebPage));
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

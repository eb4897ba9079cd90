//! The URL of a database, as web frameworks have it: `mysql://user:password@host:3306/database`.
//!
//! An error in one is said without a word of it: any part may be a piece of the password.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use thiserror::Error;

use super::access::{Access, Place};
use otproxy_config::HostPort;

/// The port without one in the URL.
pub(super) const PORT: u16 = 3306;
/// The names of the protocol.
const SCHEMES: [&str; 2] = ["mysql", "mariadb"];
/// The parameters that name a unix socket.
const SOCKETS: [&str; 2] = ["socket", "unix_socket"];
/// The values of parameters about TLS that do not ask for it.
const NO_TLS: [&str; 6] = ["", "0", "no", "off", "false", "disabled"];

/// A fault of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum UrlError {
    /// It is another one, or none.
    #[error("it does not begin with `mysql://` or `mariadb://`")]
    Scheme,
    /// There is more than one line, or a blank.
    #[error("it has a blank or another character that no URL has")]
    Character,
    /// A `%` without two digits, or what it stands for is no text.
    #[error("a `%` in it is not followed by two digits of a byte, or the bytes are no text")]
    Percent,
    /// A character stands where it ends a part.
    #[error("`@` or `#` stands behind the host, or `/` in the database's name")]
    Misplaced,
    /// There is no user.
    #[error("it names no user")]
    NoUser,
    /// There is no database.
    #[error("it names no database")]
    NoDatabase,
    /// The host is none.
    #[error("what stands behind the user is no host")]
    Host,
    /// The port is none.
    #[error("what stands behind the host is no port from 1 to 65535")]
    Port,
    /// A socket and another host.
    #[error("it names a socket, and a host that is not this one")]
    SocketElsewhere,
    /// The socket is no path.
    #[error("its socket is no path that begins with `/`")]
    Socket,
    /// It asks for encryption.
    #[error("it asks for TLS, which is not spoken to a database")]
    Tls,
}

impl UrlError {
    /// Returns what to do about it.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::SocketElsewhere | Self::Socket => {
                "write it as `mysql://USER:PASSWORD@localhost/DATABASE?socket=/run/mysqld/mysqld.sock`"
            }
            Self::Tls => "take the parameter out, and use a database on this host or in a network of yours",
            Self::NoUser | Self::Percent | Self::Misplaced | Self::Host | Self::Port | Self::Character => {
                "write it as `mysql://USER:PASSWORD@HOST:3306/DATABASE`, with `%40` for `@`, `%2F` for `/`, `%3A` for `:`, `%25` for `%` and so on in user and password"
            }
            Self::Scheme | Self::NoDatabase => "write it as `mysql://USER:PASSWORD@HOST:3306/DATABASE`",
        }
    }
}

/// Parses a URL, with a line's end or without.
///
/// # Errors
/// Returns what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Access, UrlError> {
    let text = text.trim();
    let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
    if !SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err(UrlError::Scheme);
    }
    if rest.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(UrlError::Character);
    }
    let (authority, behind) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // An `@` there means that the authority ended too early: within a password that is not encoded.
    if behind.contains(['@', '#']) {
        return Err(UrlError::Misplaced);
    }
    let (path, query) = behind.split_once('?').unwrap_or((behind, ""));
    let (who, host) = authority.rsplit_once('@').ok_or(UrlError::NoUser)?;
    let (user, password) = who.split_once(':').map_or((who, None), |(user, password)| (user, Some(password)));
    let user = decoded(user)?;
    if user.is_empty() {
        return Err(UrlError::NoUser);
    }
    let password = password.map(decoded).transpose()?.filter(|password| !password.is_empty());
    let name = path.strip_prefix('/').unwrap_or(path);
    if name.contains('/') {
        return Err(UrlError::Misplaced);
    }
    let database = decoded(name)?;
    if database.is_empty() {
        return Err(UrlError::NoDatabase);
    }
    let place = match socket(query)? {
        Some(socket) if host.is_empty() || is_here(host)? => Place::Socket(socket),
        Some(_) => return Err(UrlError::SocketElsewhere),
        None => Place::Address(address(host)?),
    };
    Ok(Access { place, user, password, database })
}

/// Returns the socket that the parameters name. Others say nothing that matters here, but for TLS.
fn socket(query: &str) -> Result<Option<PathBuf>, UrlError> {
    let mut socket = None;
    for parameter in query.split('&') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let name = decoded(name)?.to_ascii_lowercase().replace('-', "_");
        let value = decoded(value)?;
        let is_about_tls = ["ssl", "tls", "require_ssl"].iter().any(|word| name.starts_with(word));
        if is_about_tls && !NO_TLS.contains(&value.to_ascii_lowercase().as_str()) {
            return Err(UrlError::Tls);
        }
        if SOCKETS.contains(&name.as_str()) {
            if !value.starts_with('/') {
                return Err(UrlError::Socket);
            }
            socket = Some(value.into());
        }
    }
    Ok(socket)
}

fn is_here(host: &str) -> Result<bool, UrlError> {
    Ok(address(host)?.is_loopback())
}

/// Parses a host with a port, or without.
fn address(text: &str) -> Result<HostPort, UrlError> {
    let (host, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']').ok_or(UrlError::Host)) {
        Some(bracketed) => {
            let (ip, behind) = bracketed?;
            ip.parse::<Ipv6Addr>().map_err(|_| UrlError::Host)?;
            let port = match behind.strip_prefix(':') {
                Some(port) => Some(port),
                None if behind.is_empty() => None,
                None => return Err(UrlError::Port),
            };
            (ip.to_owned(), port)
        }
        None => {
            let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
            let host = decoded(host)?;
            let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            if host.is_empty() || host.parse::<IpAddr>().is_err() && !host.chars().all(is_name) {
                return Err(UrlError::Host);
            }
            (host, port)
        }
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or(UrlError::Port)?,
        None => PORT,
    };
    Ok(HostPort { host, port })
}

/// Decodes `%40` and its like.
fn decoded(text: &str) -> Result<String, UrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        bytes.push(match byte {
            b'%' => {
                let (high, low) = (digit(rest.next()), digit(rest.next()));
                let value = high.zip(low).map(|(high, low)| high << 4 | low);
                value.and_then(|value| u8::try_from(value).ok()).ok_or(UrlError::Percent)?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| UrlError::Percent)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns place, user, password and database.
    fn read(text: &str) -> Result<(String, String, Option<String>, String), UrlError> {
        parse(text).map(|Access { place, user, password, database }| {
            let place = match place {
                Place::Socket(path) => path.display().to_string(),
                Place::Address(address) => address.to_string(),
            };
            (place, user, password, database)
        })
    }

    #[test]
    fn urls_of_web_frameworks_are_read() {
        for (url, place, password) in [
            ("mysql://me:pw@db.example:3307/myot\n", "db.example:3307", Some("pw")),
            ("MariaDB://me:pw@127.0.0.1/myot", "127.0.0.1:3306", Some("pw")),
            ("mysql://me@[::1]:3306/myot", "[::1]:3306", None),
            ("mysql://me:@localhost/myot", "localhost:3306", None),
            ("mysql://me:p%40%2f%3A%25%C3%A9@h/myot?serverVersion=10.11&charset=utf8mb4", "h:3306", Some("p@/:%é")),
            ("mysql://me:a:b@c@h/myot?ssl-mode=DISABLED", "h:3306", Some("a:b@c")),
            ("mysql://me:pw@localhost/myot?socket=/run/mysqld/mysqld.sock", "/run/mysqld/mysqld.sock", Some("pw")),
            ("mariadb://me@/myot?unix_socket=%2Ftmp%2Fm.sock", "/tmp/m.sock", None),
        ] {
            let wanted = (place.to_owned(), "me".to_owned(), password.map(str::to_owned), "myot".to_owned());
            assert_eq!(read(url), Ok(wanted), "{url}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_a_word_of_it() {
        for (url, error) in [
            ("", UrlError::Scheme),
            ("secret", UrlError::Scheme),
            ("postgres://me:secret@h/myot", UrlError::Scheme),
            ("mysql://me:sec ret@h/myot", UrlError::Character),
            ("mysql://me:secret@h/myot\nmysql://me:secret@h/myot", UrlError::Character),
            ("mysql://me:secret%@h/myot", UrlError::Percent),
            ("mysql://me:secret%4@h/myot", UrlError::Percent),
            ("mysql://me:secret%+1@h/myot", UrlError::Percent),
            ("mysql://me:secret%ff@h/myot", UrlError::Percent),
            ("mysql://me:sec/ret@h/myot", UrlError::Misplaced),
            ("mysql://me:sec?ret@h/myot", UrlError::Misplaced),
            ("mysql://me:s@c/ret@h", UrlError::Misplaced),
            ("mysql://me:sec#ret@h/myot", UrlError::Misplaced),
            ("mysql://me:secret@h/myot/secret", UrlError::Misplaced),
            ("mysql://h/myot", UrlError::NoUser),
            ("mysql://:secret@h/myot", UrlError::NoUser),
            ("mysql://me:secret@h", UrlError::NoDatabase),
            ("mysql://me:secret@h/?charset=utf8", UrlError::NoDatabase),
            ("mysql://me:secret@/myot", UrlError::Host),
            ("mysql://me:secret@[::g]/myot", UrlError::Host),
            ("mysql://me:secret@[::1/myot", UrlError::Host),
            ("mysql://me:secret@a,b/myot", UrlError::Host),
            ("mysql://me:secret@h:0/myot", UrlError::Port),
            ("mysql://me:secret@h:secret/myot", UrlError::Port),
            ("mysql://me:secret@[::1]secret/myot", UrlError::Port),
            ("mysql://me:secret@db.example/myot?socket=/run/s", UrlError::SocketElsewhere),
            ("mysql://me:secret@localhost/myot?socket=s", UrlError::Socket),
            ("mysql://me:secret@h/myot?ssl-mode=REQUIRED", UrlError::Tls),
            ("mysql://me:secret@h/myot?sslmode=verify-full", UrlError::Tls),
            ("mysql://me:secret@h/myot?require_ssl=true", UrlError::Tls),
        ] {
            assert_eq!(read(url), Err(error), "{url}");
            assert!(!format!("{error} {error:?} {}", error.remedy()).contains("secret"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_user_and_password_comes_back_from_its_encoded_form(user in ".{1,20}", password in ".{1,20}") {
            let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
            let url = format!("mysql://{}:{}@h/{}", encoded(&user), encoded(&password), encoded(&user));
            prop_assert_eq!(read(&url), Ok(("h:3306".to_owned(), user.clone(), Some(password), user)));
        }

        #[test]
        fn any_text_is_a_url_or_an_error(text in "(mysql://)?[a-z:@/?#%&=\\[\\]0-9é]{0,40}") {
            let _ = read(&text);
        }
    }
}

//! The URL of a webhook. It is a secret as a whole: who has it can write to the chat. So nothing here shows a word of it.

use std::fmt;
use std::net::IpAddr;

use hyper::Uri;
use rustls::pki_types::ServerName;
use thiserror::Error;

/// Bytes of the file of a URL.
pub const MAX_URL: usize = 4096;

/// A fault of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum UrlError {
    /// The file is empty.
    #[error("it has no URL")]
    Empty,
    /// There is more than one line, or a blank.
    #[error("it has more than one line, or a character that no URL has")]
    Character,
    /// It is another one, or none.
    #[error("it does not begin with `https://`")]
    Scheme,
    /// The host or the port is none.
    #[error("what stands behind `https://` is no host with a port or without")]
    Host,
    /// A user stands before the host, or a fragment behind the path.
    #[error("it has a user before its host, or a `#`")]
    Misplaced,
    /// It has no path.
    #[error("it has no path behind its host, so the webhook is missing")]
    NoPath,
    /// It would go over the Internet in clear.
    #[error(
        "it begins with `http://`, and its host is not on this host or in a private network: anybody on the way could read it"
    )]
    Clear,
}

impl UrlError {
    /// Returns what to do about it.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Clear => "write it with `https://`",
            _ => "put the URL of the webhook there, and nothing else, as the other side shows it",
        }
    }
}

/// The URL of a webhook.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl {
    /// The host, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// The header of that name.
    pub(super) authority: String,
    /// Path and query.
    pub(super) path: String,
    /// The name that the certificate is for; `None` without TLS.
    pub(super) tls: Option<ServerName<'static>>,
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookUrl").finish_non_exhaustive()
    }
}

impl WebhookUrl {
    /// Parses a URL, with a line's end or without.
    ///
    /// # Errors
    /// Returns what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(UrlError::Empty);
        }
        if !text.chars().all(|c| c.is_ascii_graphic()) {
            return Err(UrlError::Character);
        }
        if text.contains('#') {
            return Err(UrlError::Misplaced);
        }
        let (scheme, _) = text.split_once("://").ok_or(UrlError::Scheme)?;
        let is_tls = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(UrlError::Scheme),
        };
        let uri: Uri = text.parse().map_err(|_| UrlError::Host)?;
        let authority = uri.authority().ok_or(UrlError::Host)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::Misplaced);
        }
        let path =
            uri.path_and_query().map(|path| path.as_str()).filter(|path| path.starts_with('/') && path.len() > 1);
        let path = path.ok_or(UrlError::NoPath)?.to_owned();
        let given = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
        if !given.is_empty() && authority.port_u16().is_none_or(|port| port == 0) {
            return Err(UrlError::Host);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| UrlError::Host)?;
        if !is_tls && host.parse().is_ok_and(|address: IpAddr| !is_private(address)) {
            return Err(UrlError::Clear);
        }
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Ok(Self { host, port, authority: authority.as_str().to_owned(), path, tls: is_tls.then_some(name) })
    }

    /// Returns whether it takes TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Returns a text of the other side without the words of this URL.
    pub(super) fn hidden_in(&self, text: &str) -> String {
        let mut text = text.to_owned();
        // The longest first, else pieces of it would stay. Short ones, such as `api`, are no secret.
        let parts = self.path.split(['/', '?', '&', '=']).filter(|part| part.len() >= 8);
        for part in [self.path.as_str()].into_iter().chain(parts) {
            text = text.replace(part, "…");
        }
        text
    }
}

/// Returns whether an address is on this host or in a network of its owner.
pub(super) fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_loopback() || address.is_private() || address.is_link_local(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn urls_of_webhooks_are_read() {
        for (text, host, port, path, tls) in [
            ("https://discord.com/api/webhooks/1/secret\n", "discord.com", 443, "/api/webhooks/1/secret", true),
            ("https://hooks.slack.com/services/T0/B0/x?a=b", "hooks.slack.com", 443, "/services/T0/B0/x?a=b", true),
            ("HTTPS://a.example:8443/x", "a.example", 8443, "/x", true),
            ("http://127.0.0.1:9/x", "127.0.0.1", 9, "/x", false),
            ("http://[::1]/x", "::1", 80, "/x", false),
            ("http://192.168.1.2/x", "192.168.1.2", 80, "/x", false),
            ("http://chat.lan/x", "chat.lan", 80, "/x", false),
        ] {
            let url = WebhookUrl::parse(text).unwrap();
            assert_eq!((url.host.as_str(), url.port, url.path.as_str(), url.tls.is_some()), (host, port, path, tls));
        }
    }

    #[test]
    fn wrong_ones_are_told_without_a_word_of_them() {
        for (text, error) in [
            ("\n", UrlError::Empty),
            ("https://a/secret b", UrlError::Character),
            ("https://a/secret\nhttps://b/secret", UrlError::Character),
            ("secret", UrlError::Scheme),
            ("ftp://a/secret", UrlError::Scheme),
            ("https://", UrlError::Host),
            ("https://a:0/secret", UrlError::Host),
            ("https://a:secret/x", UrlError::Host),
            ("https://secret:secret@a/x", UrlError::Misplaced),
            ("https://a/x#secret", UrlError::Misplaced),
            ("https://secret", UrlError::NoPath),
            ("https://secret/", UrlError::NoPath),
            ("http://198.51.100.7/secret", UrlError::Clear),
            ("http://[2001:db8::1]/secret", UrlError::Clear),
        ] {
            let wrong = WebhookUrl::parse(text).unwrap_err();
            assert_eq!(wrong, error, "{text}");
            assert!(!format!("{error} {error:?} {}", error.remedy()).contains("secret"));
        }
        let url = WebhookUrl::parse("https://secret.example/secret").unwrap();
        assert!(!format!("{url:?}").contains("secret"));
    }

    #[test]
    fn an_answer_that_repeats_it_is_told_without_it() {
        let url = WebhookUrl::parse("https://a.example/api/1234567890/the-token?wait=true").unwrap();
        assert_eq!(url.hidden_in("no /api/1234567890/the-token?wait=true here"), "no … here");
        assert_eq!(url.hidden_in("no the-token in api"), "no … in api");
    }

    proptest! {
        #[test]
        fn any_text_is_a_url_or_an_error(text in "(https?://)?[a-z:@/?#%&=\\[\\]0-9é]{0,40}") {
            let _ = WebhookUrl::parse(&text);
        }
    }
}

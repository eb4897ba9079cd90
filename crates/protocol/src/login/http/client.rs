//! Kinds of clients, as their requests over HTTP tell them apart.
//!
//! | client | `User-Agent` | `Accept-Language` | the body of a login |
//! |---|---|---|---|
//! | OTCv8, OTAcademy | `Mozilla/5.0`; forks change it | no | has `accountpassword`, as no other |
//! | OTClient Redemption | `Mozilla/5.0` | no | `email`, `password`, `stayloggedin`, `type`, perhaps a token |
//! | official client | `Mozilla/5.0` | yes, as everything made with Qt | from 12 on with `clientversion` and more |
//! | browsers | `Mozilla/5.0` with more behind it | yes | |

use super::request::MAX_REQUEST;
use super::text::Object;
use crate::login::Worlds;

/// The `User-Agent` of all clients that are no browsers.
const USER_AGENT: &str = "Mozilla/5.0";
/// The key that only OTCv8 and its forks send.
const OF_OTCV8: &str = "accountpassword";
/// Keys that only the official client sends.
const OF_OFFICIAL: [&str; 4] = ["assetversion", "clienttype", "clientversion", "devicecookie"];

crate::words! {
    /// A kind of client.
    pub enum Client {
        /// OTCv8, OTAcademy and their forks. They have links to the edges that the answer names.
        Otcv8 = "otcv8",
        /// OTClient Redemption and its forks. They have links to edges that a module told them, if they have such a module.
        Redemption = "redemption",
        /// The official client, which has no links.
        Official = "official",
        /// Another one, as a browser.
        Other = "other",
    }
}

/// The headers by which clients differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Headers<'a> {
    /// `User-Agent`.
    pub user_agent: Option<&'a str>,
    /// `Accept-Language`.
    pub accept_language: Option<&'a str>,
}

impl Client {
    /// Returns the kind of the client that sent a login.
    #[must_use]
    pub fn of(body: &[u8], headers: Headers<'_>) -> Self {
        let text = std::str::from_utf8(body).ok().filter(|text| text.len() <= MAX_REQUEST);
        let login = text.and_then(Object::read);
        let has = |key: &str| login.as_ref().is_some_and(|login| login.get(key).is_some());
        let is_plain = headers.user_agent == Some(USER_AGENT);
        let is_qt = is_plain && headers.accept_language.is_some();
        if has(OF_OTCV8) {
            Self::Otcv8
        } else if is_qt || OF_OFFICIAL.iter().any(|key| has(key)) {
            Self::Official
        } else if is_plain {
            Self::Redemption
        } else {
            Self::Other
        }
    }

    /// Returns whether such a client is told to play over its links, where worlds are told so.
    ///
    /// One that has none could not play then. One that has some can always play over an edge. So the latter is what clients
    /// are told of which nothing is known.
    #[must_use]
    pub fn is_sent_over_links(self, worlds: Worlds) -> bool {
        match worlds {
            Worlds::Auto => self == Self::Otcv8,
            Worlds::Links => true,
            Worlds::Edge => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Headers<'_> = Headers { user_agent: Some("Mozilla/5.0"), accept_language: None };
    const QT: Headers<'_> = Headers { user_agent: Some("Mozilla/5.0"), accept_language: Some("en-US,*") };
    const BROWSER: Headers<'_> = Headers {
        user_agent: Some("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        accept_language: Some("en-US,en;q=0.5"),
    };
    const FORK: Headers<'_> = Headers { user_agent: Some("Example OTClient"), accept_language: None };
    const NONE: Headers<'_> = Headers { user_agent: None, accept_language: None };

    #[test]
    fn clients_are_told_apart() {
        let otcv8 = r#"{"type":"login","account":"n","accountname":"n","email":"n","password":"p","accountpassword":"p","token":"","version":3200,"uid":"7f","stayloggedin":true}"#;
        let short = r#"{"email":"n","password":"p","stayloggedin":true,"type":"login"}"#;
        let official = r#"{"clientversion":"13.40","email":"n","password":"p","stayloggedin":true,"type":"login"}"#;
        for (body, headers, client) in [
            (otcv8, PLAIN, Client::Otcv8),
            (otcv8, FORK, Client::Otcv8),
            (otcv8, NONE, Client::Otcv8),
            (short, PLAIN, Client::Redemption),
            (short, QT, Client::Official),
            (official, QT, Client::Official),
            (official, PLAIN, Client::Official),
            (short, BROWSER, Client::Other),
            (short, FORK, Client::Other),
            (short, NONE, Client::Other),
            ("", PLAIN, Client::Redemption),
            ("\"accountpassword\"", NONE, Client::Other),
            ("", NONE, Client::Other),
        ] {
            assert_eq!(Client::of(body.as_bytes(), headers), client, "{body} {headers:?}");
        }
    }

    #[test]
    fn clients_without_known_links_are_not_sent_over_them_unasked() {
        let over_links =
            |worlds| Client::ALL.iter().map(|client| client.is_sent_over_links(worlds)).collect::<Vec<_>>();
        assert_eq!(over_links(Worlds::Auto), [true, false, false, false]);
        assert_eq!(over_links(Worlds::Links), [true; 4]);
        assert_eq!(over_links(Worlds::Edge), [false; 4]);
    }
}

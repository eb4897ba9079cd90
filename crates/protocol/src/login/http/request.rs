//! Requests to a login service.

use std::fmt;

use serde_json::Value;

/// The longest request that is read, in bytes. Clients send a few hundred.
pub const MAX_REQUEST: usize = 16 << 10;

/// A request to a login service, which is one for several things: its `type` says which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A login.
    Login(LoginRequest),
    /// Something else, as news, boosted creatures and the number of players (`cacheinfo`); or a login without a name or a
    /// password, which a login service answers with an error.
    Other,
}

/// A player's login. Its Debug shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct LoginRequest {
    /// The account's name, number or e-mail address, as the player wrote it.
    pub account: String,
    /// The password.
    pub password: String,
    /// The one-time password of a second factor, if the player was asked for one.
    pub token: Option<String>,
}

impl Request {
    /// Reads the body of a request; what is no JSON or longer than [`MAX_REQUEST`] is [`Request::Other`].
    #[must_use]
    pub fn read(body: &[u8]) -> Self {
        let request: Value = match body.len() {
            0..=MAX_REQUEST => serde_json::from_slice(body).unwrap_or_default(),
            _ => Value::Null,
        };
        let text = |key: &str| request.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        // Some clients send the name under several keys. This is the order in which services look for it.
        let account = text("email").or_else(|| text("accountname")).or_else(|| text("account"));
        match (text("type"), account, text("password")) {
            (Some("login"), Some(account), Some(password)) => Self::Login(LoginRequest {
                account: account.to_owned(),
                password: password.to_owned(),
                token: text("token").map(str::to_owned),
            }),
            _ => Self::Other,
        }
    }
}

impl fmt::Debug for LoginRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginRequest").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn login(account: &str, token: Option<&str>) -> Request {
        Request::Login(LoginRequest {
            account: account.to_owned(),
            password: "secret".to_owned(),
            token: token.map(str::to_owned),
        })
    }

    #[test]
    fn logins_of_known_clients() {
        for (client, body, expected) in [
            (
                "OTCv8, OTAcademy",
                r#"{"type":"login","account":"name","accountname":"name","email":"name","password":"secret","accountpassword":"secret","token":"","version":3200,"uid":"7f","stayloggedin":true}"#,
                login("name", None),
            ),
            (
                "Redemption",
                r#"{"authenticatorToken":"123456","email":"a@b.example","password":"secret","stayloggedin":true,"token":"123456","type":"login"}"#,
                login("a@b.example", Some("123456")),
            ),
            (
                "the official client, version 11",
                r#"{"accountname":"name","password":"secret","stayloggedin":true,"type":"login"}"#,
                login("name", None),
            ),
            (
                "the official client, version 13",
                r#"{"assetversion":"","clienttype":1,"clientversion":"13.40","devicecookie":"","email":"a@b.example","password":"secret","stayloggedin":true,"type":"login"}"#,
                login("a@b.example", None),
            ),
        ] {
            assert_eq!(Request::read(body.as_bytes()), expected, "{client}");
        }
    }

    #[test]
    fn whatever_else_is_no_login() {
        for body in [
            "",
            "type=login",
            "[]",
            r#"{"type":"cacheinfo"}"#,
            r#"{"type":"boostedcreature"}"#,
            r#"{"type":"eventschedule"}"#,
            r#"{"type":"news","count":0,"isreturner":true}"#,
            r#"{"email":"a","password":"b"}"#,
            r#"{"type":"LOGIN","email":"a","password":"b"}"#,
            r#"{"type":"login","email":"a"}"#,
            r#"{"type":"login","email":"a","password":""}"#,
            r#"{"type":"login","email":1,"password":"b"}"#,
            r#"{"type":"login","password":"b"}"#,
        ] {
            assert_eq!(Request::read(body.as_bytes()), Request::Other, "{body}");
        }
        let body = |len: usize| format!("{:len$}", r#"{"type":"login","email":"a","password":"secret"}"#);
        assert_eq!(Request::read(body(MAX_REQUEST).as_bytes()), login("a", None));
        assert_eq!(Request::read(body(MAX_REQUEST + 1).as_bytes()), Request::Other);
        assert_eq!(Request::read("[".repeat(MAX_REQUEST).as_bytes()), Request::Other);
    }

    #[test]
    fn debug_shows_no_secret() {
        let login = login("name", Some("123456"));
        assert_eq!(format!("{login:?}"), "Login(LoginRequest { .. })");
    }

    proptest! {
        #[test]
        fn any_bytes_do_no_harm(body in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(Request::read(&body), Request::Other);
        }
    }
}

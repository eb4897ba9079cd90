//! Errors, in the form in which all clients show them.

use serde_json::json;

/// The kind of an error, which clients know by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// The service cannot do it.
    Technical = 1,
    /// The request is none.
    Request = 2,
    /// The account or the password is wrong, or the account may not log in.
    Login = 3,
    /// A one-time password is missing or wrong: OTClient Redemption asks the player for it.
    Token = 6,
}

/// Returns the body that tells a client an error.
///
/// OTCv8 and OTAcademy forget the account and the password that they remember for the player if the message contains
/// `invalid`, `not correct` or `or password`.
#[must_use]
pub fn error_body(code: ErrorCode, message: &str) -> String {
    json!({ "errorCode": code as u8, "errorMessage": message }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_byte_for_byte() {
        assert_eq!(error_body(ErrorCode::Login, "No \"x\"."), r#"{"errorCode":3,"errorMessage":"No \"x\"."}"#);
        let codes =
            [ErrorCode::Technical, ErrorCode::Request, ErrorCode::Login, ErrorCode::Token].map(|code| code as u8);
        assert_eq!(codes, [1, 2, 3, 6]);
    }
}

//! The object beside a list for clients that run in a browser: their business, and passed through.

use std::fmt;

use serde_json::value::RawValue;
use thiserror::Error;

/// The longest object, in bytes.
pub const MAX_WEB_OBJECT: usize = 32 << 10;

/// A JSON object as it was written.
#[derive(Clone)]
pub struct WebObject(Box<RawValue>);

/// The reason for which a text is none.
#[derive(Debug, Error)]
pub enum WebObjectError {
    /// It has more bytes than [`MAX_WEB_OBJECT`].
    #[error("is longer than {MAX_WEB_OBJECT} bytes")]
    TooLong,
    /// It is no JSON; the error says where.
    #[error("is no JSON: {0}")]
    NotJson(serde_json::Error),
    /// It is JSON, and no object.
    #[error("is no JSON object; write it as `{{ \"name\": \"myot\" }}`")]
    NoObject,
}

impl WebObject {
    /// Reads a text.
    ///
    /// # Errors
    /// Fails if it is no JSON object, or too long.
    pub fn parse(text: &[u8]) -> Result<Self, WebObjectError> {
        if text.len() > MAX_WEB_OBJECT {
            return Err(WebObjectError::TooLong);
        }
        let object: Box<RawValue> = serde_json::from_slice(text).map_err(WebObjectError::NotJson)?;
        if object.get().starts_with('{') { Ok(Self(object)) } else { Err(WebObjectError::NoObject) }
    }

    /// Returns it as it was written.
    #[must_use]
    pub fn raw(&self) -> &RawValue {
        &self.0
    }
}

impl PartialEq for WebObject {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Eq for WebObject {}

impl fmt::Debug for WebObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WebObject").field(&self.0.get()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_stays_as_it_was_written() {
        let text = b" {\"b\": 1.10, \"a\":\"\\u0061\"}\n";
        assert_eq!(WebObject::parse(text).unwrap().raw().get(), r#"{"b": 1.10, "a":"\u0061"}"#);
        for (wrong, says) in [
            (&b""[..], "is no JSON: "),
            (b"[]", "is no JSON object"),
            (b"7", "is no JSON object"),
            (b"{} {}", "is no JSON: trailing characters at line 1 column 4"),
            (b"\xFF", "is no JSON: "),
            (&[b' '; MAX_WEB_OBJECT + 1], "is longer than 32768 bytes"),
        ] {
            let error = WebObject::parse(wrong).unwrap_err().to_string();
            assert!(error.starts_with(says), "{error}");
        }
    }
}

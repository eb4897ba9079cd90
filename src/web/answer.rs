//! Answers, as they are made here, come from a target, and are kept.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::response::Parts;
use hyper::{HeaderMap, Response, StatusCode};
use serde_json::json;

use super::body::Pieces;

/// Bytes of an answer from a target that are taken.
pub const MAX_ANSWER: usize = 256 << 10;
/// Headers of one connection, which the other one has its own of.
const OF_CONNECTION: [HeaderName; 6] = [CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
/// The header of that kind which has no name in the library.
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebAnswer {
    /// The status.
    pub status: StatusCode,
    /// The headers, without those of a connection.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl WebAnswer {
    /// Returns an answer in JSON, which others may keep for `fresh`, and web pages of any site may read.
    pub fn public(body: String, fresh: Duration) -> Self {
        let mut answer = Self::json(StatusCode::OK, body);
        // It has nothing but letters and digits in it.
        if let Ok(kept) = HeaderValue::from_str(&format!("public, max-age={}", fresh.as_secs())) {
            answer.headers.insert(CACHE_CONTROL, kept);
        }
        answer.headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        answer
    }

    /// Returns an answer in JSON for one player, which it may keep for `fresh`, and web pages of any site may read.
    pub fn private(body: String, fresh: Duration) -> Self {
        let mut answer = Self::public(body, fresh);
        if let Ok(kept) = HeaderValue::from_str(&format!("private, max-age={}", fresh.as_secs())) {
            answer.headers.insert(CACHE_CONTROL, kept);
        }
        answer
    }

    /// Returns an answer in JSON that nobody keeps.
    pub fn json(status: StatusCode, body: String) -> Self {
        let headers = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ]);
        Self { status, headers, body: body.into() }
    }

    /// Returns an answer that says what is wrong.
    pub fn problem(status: StatusCode, error: &str) -> Self {
        let mut answer = Self::json(status, json!({ "error": error }).to_string());
        answer.headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        answer
    }

    /// Returns an answer that came from a target.
    pub fn of_target(head: Parts, body: Bytes) -> Self {
        let mut headers = head.headers;
        // Headers that `Connection` names are of that connection, too.
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|names| names.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in OF_CONNECTION.into_iter().chain([KEEP_ALIVE]).chain(named) {
            headers.remove(name);
        }
        Self { status: head.status, headers, body }
    }

    /// Returns for how long it may be given to others; `None` if it may not.
    pub fn fresh_for(&self) -> Option<Duration> {
        if self.status != StatusCode::OK {
            return None;
        }
        let words = self.headers.get(CACHE_CONTROL)?.to_str().ok()?.to_ascii_lowercase();
        let mut words = words.split(',').map(str::trim);
        if !words.clone().any(|word| word == "public") {
            return None;
        }
        let seconds = words.find_map(|word| word.strip_prefix("max-age=")?.parse().ok())?;
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }

    /// Returns it as a response; to a HEAD without its body.
    pub fn into_response(self, head_only: bool) -> Response<Body> {
        let len = self.body.len();
        let mut response = Response::new(if head_only { Body::empty() } else { Body::new(Pieces::new(self.body)) });
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        if head_only {
            response.headers_mut().insert(CONTENT_LENGTH, len.into());
        }
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_may_be_kept_as_it_says() {
        let answer = WebAnswer::public("{}".to_owned(), Duration::from_secs(60));
        assert_eq!(answer.fresh_for(), Some(Duration::from_secs(60)));
        let mut error = answer.clone();
        error.status = StatusCode::NOT_FOUND;
        assert_eq!(error.fresh_for(), None);
        for (control, expected) in [
            ("public, max-age=5", Some(5)),
            ("PUBLIC,MAX-AGE=5", Some(5)),
            ("max-age=5", None),
            ("private, max-age=5", None),
            ("public", None),
            ("public, max-age=0", None),
            ("public, max-age=x", None),
            ("public, max-age=99999999999999999999999", None),
            ("no-store", None),
        ] {
            let mut answer = answer.clone();
            answer.headers.insert(CACHE_CONTROL, HeaderValue::from_static(control));
            assert_eq!(answer.fresh_for(), expected.map(Duration::from_secs), "{control}");
        }
        assert_eq!(WebAnswer::json(StatusCode::OK, String::new()).fresh_for(), None);
    }

    #[test]
    fn headers_of_a_connection_stay_with_it() {
        let response = Response::builder()
            .header("Connection", "keep-alive, X-Own")
            .header("X-Own", "1")
            .header("Keep-Alive", "timeout=5")
            .header("Transfer-Encoding", "chunked")
            .header("Content-Type", "application/json")
            .header("Set-Cookie", "a=1")
            .header("Set-Cookie", "b=2")
            .body(())
            .unwrap();
        let answer = WebAnswer::of_target(response.into_parts().0, Bytes::from_static(b"{}"));
        let mut names: Vec<_> = answer.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-type", "set-cookie"]);
        assert_eq!(answer.headers.get_all("set-cookie").iter().count(), 2);
    }
}

//! Answers of the API, all of them JSON.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use super::access::AuthError;
use super::api::{ApiError, ApiErrorKind};

/// The place where requests are described.
const SEE: &str = "see /api/v1/openapi.json for what can be sent here";

/// Bytes of an answer that are passed to HTTP at once.
const PIECE: usize = 64 * 1024;

/// Answers with a list, of which there may be only so many at once: the answer keeps its permit until its last byte is
/// sent.
pub(super) fn list<T: Serialize>(place: Option<OwnedSemaphorePermit>, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => json(StatusCode::OK, Body::new(Held { text: Bytes::from(text), _place: place })),
        Err(error) => failed(&error.to_string()),
    }
}

/// Answers with a value.
pub(super) fn ok<T: Serialize>(value: &T) -> Response {
    list(None, value)
}

/// Answers with a document that has been made already.
pub(super) fn text(text: Bytes) -> Response {
    json(StatusCode::OK, Body::from(text))
}

/// Answers why something was not done.
pub(super) fn refused(refusal: &ApiError) -> Response {
    let status = match refusal.kind {
        ApiErrorKind::NotFound => StatusCode::NOT_FOUND,
        ApiErrorKind::Conflict => StatusCode::CONFLICT,
        ApiErrorKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        ApiErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    with_status(status, refusal)
}

/// Answers that access is denied.
pub(super) fn denied(denied: AuthError) -> Response {
    let (error, remedy) = denied.text();
    let refusal = ApiError::invalid(error, remedy);
    match denied {
        AuthError::NoToken | AuthError::WrongToken => {
            let mut response = with_status(StatusCode::UNAUTHORIZED, &refusal);
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            response
        }
        AuthError::OnlyReads
        | AuthError::Unproved
        | AuthError::WebPage
        | AuthError::HostName
        | AuthError::NotOfTheCore
        | AuthError::NotItsUser => with_status(StatusCode::FORBIDDEN, &refusal),
    }
}

/// Answers that the query is invalid here.
pub(super) fn wrong_query(rejection: &QueryRejection) -> Response {
    with_status(StatusCode::BAD_REQUEST, &ApiError::invalid(rejection.body_text(), SEE))
}

/// Answers that the body is invalid here.
pub(super) fn wrong_body(rejection: &JsonRejection) -> Response {
    let status = rejection.status();
    let remedy = match status {
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "send a JSON object, with `Content-Type: application/json`",
        StatusCode::PAYLOAD_TOO_LARGE => "send a shorter one; nothing that can be done here needs so much",
        _ => SEE,
    };
    with_status(status, &ApiError::invalid(rejection.body_text(), remedy))
}

/// Answers that there is nothing at this path.
pub(super) fn not_found() -> Response {
    with_status(
        StatusCode::NOT_FOUND,
        &ApiError::invalid("there is nothing here", "see /api/v1/openapi.json for what there is"),
    )
}

/// Answers that the path has another method.
pub(super) async fn wrong_method() -> Response {
    let remedy = "read with GET, and act with POST; see /api/v1/openapi.json";
    with_status(StatusCode::METHOD_NOT_ALLOWED, &ApiError::invalid("this method is not for this path", remedy))
}

/// Answers that this program has a defect.
pub(super) fn failed(error: &str) -> Response {
    let remedy = "this is a defect of otproxy: please report it, with the log";
    with_status(StatusCode::INTERNAL_SERVER_ERROR, &ApiError::invalid(error, remedy))
}

fn with_status(status: StatusCode, refusal: &ApiError) -> Response {
    // An object of strings can always be serialised.
    json(status, Body::from(serde_json::to_vec(refusal).unwrap_or_default()))
}

fn json(status: StatusCode, body: Body) -> Response {
    let headers = HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ]);
    (status, headers, body).into_response()
}

/// Bytes and a permit. They go out in pieces, as HTTP copies whatever it is given at once.
struct Held {
    text: Bytes,
    _place: Option<OwnedSemaphorePermit>,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.text.len().min(PIECE);
        let piece = self.text.split_to(next);
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.text.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.text.len() as u64)
    }
}

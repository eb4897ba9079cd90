//! A request that leads to a target: the core's listener, or a login service.

use std::io;
use std::iter::successors;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use hyper::client::conn::http1;
use hyper::header::{
    ACCEPT, ACCEPT_LANGUAGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, CONNECTION, CONTENT_TYPE,
    HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, USER_AGENT,
};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::answer::{MAX_ANSWER, WebAnswer};
use crate::admission::Carrier as _;
use crate::forward::{ConnectFailure, ConnectFor, Connected, Forward, OnBehalf};
use otproxy_net::{ConnectResult, RateLimitedLog, StreamIo};

/// The headers of a request that are passed on. All others are the client's own business, or could be taken for otproxy's word.
const PASSED: [HeaderName; 8] = [
    HOST,
    USER_AGENT,
    CONTENT_TYPE,
    ACCEPT,
    ACCEPT_LANGUAGE,
    ORIGIN,
    // With these a browser asks beforehand.
    ACCESS_CONTROL_REQUEST_METHOD,
    ACCESS_CONTROL_REQUEST_HEADERS,
];
/// The headers by which a login service learns the player's address: login-server reads the first, or else the second, older
/// versions of MyAAC the third.
const PLAYER: [HeaderName; 3] = [
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("cf-connecting-ip"),
];

/// A request with its whole body.
pub(super) struct WebRequest {
    pub method: Method,
    /// The path, with the query of a POST.
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// The player for whom it is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker {
    pub player: SocketAddr,
    pub connect_for: ConnectFor,
    /// The address that the player connected to.
    pub destination: SocketAddr,
    /// True if the target is told the player's address by headers of HTTP.
    pub by_header: bool,
}

/// An answer of a target, and how it was reached.
pub(super) struct Asked {
    pub answer: WebAnswer,
    /// The target's name in logs.
    pub target: String,
    /// Targets that gave none before.
    pub retries: usize,
    /// The time until it was connected.
    pub after: Duration,
}

/// The reason why a target's answer cannot be used.
#[derive(Debug, Error)]
pub(super) enum AnswerError {
    /// The request cannot be written.
    #[error("{0}")]
    Request(#[from] hyper::http::Error),
    /// The connection failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is no HTTP, or ended early.
    #[error("{}", causes(.0))]
    Http(#[from] hyper::Error),
    /// Its body is not whole, or longer than [`MAX_ANSWER`].
    #[error("{}", causes(.0))]
    Body(#[from] axum::Error),
    /// It wants to go on in another protocol.
    #[error("its status is {0}")]
    NoAnswer(StatusCode),
    /// It was not whole in time.
    #[error("it was not whole within the target's share of `timeouts.connect`")]
    Late,
}

/// Returns an error with all that caused it, which says the same again where one wraps another.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut all: Vec<String> = successors(Some(error), |&error| error.source()).map(ToString::to_string).collect();
    all.dedup();
    all.join(": ")
}

impl WebRequest {
    /// Returns what is passed on of a client's request.
    pub fn new(method: Method, path: String, headers: &HeaderMap, body: Bytes) -> Self {
        let passed = |name: HeaderName| headers.get(&name).map(|value| (name, value.clone()));
        Self { method, path, headers: PASSED.into_iter().filter_map(passed).collect(), body }
    }

    fn to_target(&self, asker: &Asker) -> Result<Request<Body>, hyper::http::Error> {
        let mut request =
            Request::builder().method(&self.method).uri(&self.path).body(Body::from(self.body.clone()))?;
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        headers.entry(HOST).or_insert(HeaderValue::from_static("localhost"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        if asker.by_header {
            let player = HeaderValue::from_str(&asker.player.ip().to_string())?;
            PLAYER.into_iter().for_each(|name| drop(headers.insert(name, player.clone())));
        }
        Ok(request)
    }
}

/// Asks the targets of `forward` one after the other by `exchange`, until one answers; each gets an equal share of the time `within` which
/// there has to be an answer. Answers that cannot be used are logged in `unusable`.
///
/// # Errors
/// Returns the last target that gave none.
pub(super) async fn ask(
    forward: &Forward,
    asker: Asker,
    within: Duration,
    exchange: impl AsyncFn(Connected) -> Result<WebAnswer, AnswerError>,
    unusable: &RateLimitedLog,
) -> Result<Asked, ConnectFailure> {
    let (began, mut tried) = (Instant::now(), Vec::new());
    let deadline = began + within;
    let mut last = ConnectFailure { name: None, retries: 0, result: ConnectResult::Error };
    let mut unwell = None;
    loop {
        let left = u32::try_from(forward.targets().saturating_sub(tried.len())).unwrap_or(u32::MAX);
        if left == 0 {
            break;
        }
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        let behalf = OnBehalf { player: asker.player, local: asker.destination, tunnel: forward.tunnel() };
        let until = Instant::now() + share;
        // Half of it is for its turn, where there are turns.
        let next = forward.reach_next(asker.connect_for, behalf, &mut tried, (share / 2, until)).await;
        let connected = match next {
            Ok(connected) => connected,
            Err(missed) => {
                let none_was_ready = missed.name.is_none();
                last = missed;
                if none_was_ready { break } else { continue }
            }
        };
        let on_trial = connected.on_trial();
        let (target, retries, after) = (connected.name.clone(), tried.len().saturating_sub(1), began.elapsed());
        match timeout_at(until, exchange(connected)).await {
            Ok(Ok(answer)) => {
                on_trial.answered();
                let asked = Asked { answer, target, retries, after };
                if !is_unwell(asked.answer.status) {
                    return Ok(asked);
                }
                // It is the answer if no other target has a better one.
                unwell = Some(asked);
            }
            Ok(Err(error)) => {
                warn_of(unusable, forward, &target, &error);
                // A request that cannot be written is the client's fault, not the target's.
                if !matches!(error, AnswerError::Request(_)) {
                    on_trial.unanswered();
                }
                last = ConnectFailure { name: Some(target), retries, result: ConnectResult::Error };
            }
            Err(_) => {
                warn_of(unusable, forward, &target, &AnswerError::Late);
                on_trial.unanswered();
                last = ConnectFailure { name: Some(target), retries, result: ConnectResult::Timeout };
            }
        }
    }
    unwell.ok_or(last)
}

/// Logs that the answer of a target cannot be used, as far as the log's limit goes: an error tells nothing of what it says.
fn warn_of(unusable: &RateLimitedLog, forward: &Forward, target: &str, error: &AnswerError) {
    if let Some(suppressed) = unusable.allow(std::time::Instant::now()) {
        let listener = &forward.inbound().config().name;
        warn!(listener, target, %error, suppressed, "the target was reached, and its answer cannot be used");
    }
}

/// Returns whether it is what a server says in place of another one behind it.
fn is_unwell(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

/// Sends a request over HTTP, and reads the whole answer.
pub(super) async fn exchange(
    connected: Connected,
    request: &WebRequest,
    asker: &Asker,
) -> Result<WebAnswer, AnswerError> {
    let Connected { stream, header, .. } = connected;
    stream.write_all(&header).await?;
    let request = request.to_target(asker)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(StreamIo(stream))).await?;
    let asking = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        if head.status.is_informational() {
            return Err(AnswerError::NoAnswer(head.status));
        }
        let body = to_bytes(Body::new(body), MAX_ANSWER).await?;
        Ok(WebAnswer::of_target(head, body))
    };
    tokio::pin!(asking);
    tokio::select! {
        answer = &mut asking => answer,
        // The answer comes with the connection's end, or never does.
        _ = connection => asking.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_its_cause_in_one_line() {
        let cause = io::Error::from(io::ErrorKind::ConnectionReset);
        assert_eq!(AnswerError::from(axum::Error::new(cause)).to_string(), "connection reset");
    }
}

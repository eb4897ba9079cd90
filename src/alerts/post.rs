//! Bringing a message to a webhook.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use hyper::{HeaderMap, Method, Request};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::url::{MAX_URL, UrlError, WebhookUrl, is_private};
use crate::certs::roots::Roots;
use otproxy_config::WebhookConfig;
use otproxy_protocol::printable::Printable;
use otproxy_protocol::words;

/// The time for one try, from the look-up of the name to the answer.
pub const WITHIN: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read.
pub const MAX_ANSWER: usize = 16 * 1024;
/// Characters of it that are told.
pub const MAX_TOLD: usize = 200;

words! {
    /// The reason why a message did not arrive.
    pub enum AlertFailure {
        /// A file cannot be used: that of the URL, or that of the authorities.
        File = "file",
        /// The other side cannot be reached.
        Connect = "connect",
        /// Its certificate is not believed, or it speaks no TLS.
        Tls = "tls",
        /// There was no answer in time.
        Timeout = "timeout",
        /// The answer is none of HTTP.
        Answer = "answer",
        /// It has too many messages: status 429.
        Busy = "busy",
        /// It has a fault of its own: status 408 or 5xx.
        Server = "server",
        /// It does not take the message, and will not: any other status.
        Refused = "refused",
    }
}

/// An answer that took the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostAnswer {
    /// Its status.
    pub status: u16,
    /// The begin of its text.
    pub told: String,
}

/// The reason why a message did not arrive, without a word of the URL.
#[derive(Debug, Error)]
pub enum PostError {
    /// The file of the URL cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It has another thing in it.
    #[error("{}: {source}; {}", path.display(), source.remedy())]
    Url {
        /// The file.
        path: PathBuf,
        /// The fault.
        source: UrlError,
    },
    /// The authorities cannot be had.
    #[error("{0}")]
    Roots(String),
    /// The host has no address, or no connection can be made.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// The message would go over the Internet in clear.
    #[error("the URL begins with `http://`, and its host has a public address; write it with `https://`")]
    Clear,
    /// No TLS came about.
    #[error("TLS: {0}")]
    Tls(io::Error),
    /// The connection failed later.
    #[error("no answer of HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// The request cannot be written.
    #[error("the URL fits into no request")]
    Request,
    /// It took too long.
    #[error("no answer within {} s", WITHIN.as_secs())]
    Late,
    /// The message was not taken.
    #[error("status {status}{}", if told.is_empty() { String::new() } else { format!(": {told}") })]
    Status {
        /// The status.
        status: u16,
        /// The begin of the answer's text.
        told: String,
        /// The time for which it asks.
        retry_after: Option<Duration>,
    },
}

impl PostError {
    /// Returns the word of it.
    #[must_use]
    pub fn reason(&self) -> AlertFailure {
        match self {
            Self::File { .. } | Self::Url { .. } | Self::Roots(_) | Self::Clear | Self::Request => AlertFailure::File,
            Self::Connect(_) => AlertFailure::Connect,
            Self::Tls(_) => AlertFailure::Tls,
            Self::Http(_) => AlertFailure::Answer,
            Self::Late => AlertFailure::Timeout,
            Self::Status { status: 429, .. } => AlertFailure::Busy,
            Self::Status { status: 408 | 500.., .. } => AlertFailure::Server,
            Self::Status { .. } => AlertFailure::Refused,
        }
    }

    /// Returns the time for which the other side asks before the next try.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        if let Self::Status { retry_after, .. } = self { *retry_after } else { None }
    }
}

/// Reads the URL of a webhook.
///
/// # Errors
/// Returns what is wrong with the file.
pub fn read_url(path: &Path) -> Result<WebhookUrl, PostError> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_URL as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > MAX_URL {
            return Err(io::Error::other(format!("it has more than {MAX_URL} bytes")));
        }
        String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8"))
    };
    let text = read().map_err(|source| PostError::File { path: path.to_owned(), source })?;
    WebhookUrl::parse(&text).map_err(|source| PostError::Url { path: path.to_owned(), source })
}

/// Posts a message, once.
///
/// # Errors
/// Returns the reason why it did not arrive.
pub async fn post(webhook: WebhookConfig, message: String) -> Result<PostAnswer, PostError> {
    timeout(WITHIN, try_post(webhook, message)).await.unwrap_or(Err(PostError::Late))
}

async fn try_post(webhook: WebhookConfig, message: String) -> Result<PostAnswer, PostError> {
    // A file system may hang, and the system's authorities are many.
    let reading = spawn_blocking(move || {
        let url = read_url(&webhook.url_file)?;
        let roots = Roots { ca: webhook.ca };
        let tls = url.tls.is_some().then(|| roots.config("give `ca` beside `url_file`"));
        Ok((url, tls.transpose().map_err(PostError::Roots)?))
    });
    let (url, tls) = reading.await.unwrap_or_else(|error| Err(PostError::Roots(error.to_string())))?;
    let stream = connect(&url).await?;
    match (&url.tls, tls) {
        (Some(name), Some(tls)) => {
            let stream = TlsConnector::from(tls).connect(name.clone(), stream).await.map_err(PostError::Tls)?;
            exchange(stream, &url, message).await
        }
        _ => exchange(stream, &url, message).await,
    }
}

async fn connect(url: &WebhookUrl) -> Result<TcpStream, PostError> {
    let found = lookup_host((url.host.as_str(), url.port)).await.map_err(PostError::Connect)?;
    let all: Vec<SocketAddr> = found.collect();
    // In clear nothing goes where it could be read on the way.
    let fits: Vec<_> = all.iter().filter(|address| url.tls.is_some() || is_private(address.ip())).copied().collect();
    if fits.is_empty() && !all.is_empty() {
        return Err(PostError::Clear);
    }
    TcpStream::connect(fits.as_slice()).await.map_err(PostError::Connect)
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    url: &WebhookUrl,
    message: String,
) -> Result<PostAnswer, PostError> {
    let request = Request::builder().method(Method::POST).uri(&url.path).header(HOST, &url.authority);
    let request = request.header(CONTENT_TYPE, "application/json").header(CONNECTION, "close");
    let request = request.header(USER_AGENT, concat!("otproxy/", env!("CARGO_PKG_VERSION")));
    let request = request.body(Body::from(message)).map_err(|_| PostError::Request)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let asking = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        // The status alone decides.
        let body = to_bytes(Body::new(body), MAX_ANSWER).await.unwrap_or_default();
        let text = url.hidden_in(&String::from_utf8_lossy(&body));
        let told = Printable(text.trim().chars().take(MAX_TOLD).collect::<String>()).to_string();
        let status = head.status.as_u16();
        if head.status.is_success() {
            return Ok(PostAnswer { status, told });
        }
        Err(PostError::Status { status, told, retry_after: retry_after(&head.headers) })
    };
    tokio::pin!(asking);
    tokio::select! {
        answer = &mut asking => answer,
        // The answer arrives with the connection's end, or never does.
        _ = connection => asking.await,
    }
}

/// Returns the time for which an answer asks, in seconds. A date is not read: it needs a clock that both sides share.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: f64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_their_words() {
        for (status, reason) in [
            (301, AlertFailure::Refused),
            (400, AlertFailure::Refused),
            (404, AlertFailure::Refused),
            (408, AlertFailure::Server),
            (429, AlertFailure::Busy),
            (500, AlertFailure::Server),
            (503, AlertFailure::Server),
        ] {
            assert_eq!(
                PostError::Status { status, told: String::new(), retry_after: None }.reason(),
                reason,
                "{status}"
            );
        }
    }

    #[test]
    fn waits_are_read_in_seconds() {
        for (text, wait) in
            [("7", Some(7.0)), ("0.5", Some(0.5)), ("-1", None), ("inf", None), ("Wed, 21 Oct 2015 07:28:00 GMT", None)]
        {
            let headers = [(RETRY_AFTER, text.parse().unwrap())].into_iter().collect();
            assert_eq!(retry_after(&headers).map(|wait| wait.as_secs_f64()), wait, "{text}");
        }
    }
}

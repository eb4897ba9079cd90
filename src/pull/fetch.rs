//! Fetching the files of a report over HTTP.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use axum::body::{Body, to_bytes};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONNECTION, DATE, HOST, HeaderName, HeaderValue, LAST_MODIFIED};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::fmt::rfc2822::DateTimeParser;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::source::ReportUrl;
use super::{AGAIN, PullError};
use crate::certs::roots::Roots;
use crate::report::{self, MAX_FILE, MAX_PLAYERS, md5_hex};
use otproxy_config::REPORT_PATH;

/// The time limit of a connect, and of the handshake of TLS behind it.
const CONNECT: Duration = Duration::from_secs(5);
/// Bytes of a file with an MD5.
const MAX_MD5: usize = 256;
/// Characters of an error that another host tells.
const MAX_TOLD: usize = 200;
/// The reason why a file cannot be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The host cannot be reached.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// It has another certificate, or speaks no TLS.
    #[error("TLS: {0}")]
    Tls(io::Error),
    /// The connection failed later.
    #[error("it does not answer as otproxy does: {0}")]
    Http(#[from] hyper::Error),
    /// The answer broke off, or is too long.
    #[error("{0}: the answer was cut short, or has more than {1} bytes")]
    Cut(&'static str, usize),
    /// It asks for a token, or for another one.
    #[error("{0}: status 401: {1}")]
    Token(&'static str, &'static str),
    /// There is no such file for this host.
    #[error(
        "{0}: status 404: its listener of `kind: web` has no `report`, or this host is not in `report.allow` there"
    )]
    NotFound(&'static str),
    /// It says something else.
    #[error("{0}: status {1}{2}")]
    Status(&'static str, u16, String),
    /// The token would go over the network in clear.
    #[error(
        "the token would be sent in clear to {0}: give https, with `tls` at that listener, or let `report.allow` decide there"
    )]
    Clear(SocketAddr),
    /// The request cannot be written.
    #[error("{0}")]
    Request(#[from] hyper::http::Error),
}

/// A client that reads reports.
#[derive(Debug)]
pub struct Fetcher {
    /// `None` if no URL takes TLS.
    tls: Option<ShownConnector>,
    token: Option<HeaderValue>,
}

/// A connector that can be shown.
struct ShownConnector(TlsConnector);

impl std::fmt::Debug for ShownConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsConnector").finish_non_exhaustive()
    }
}

/// A report, as it was fetched.
pub(super) struct FetchedReport {
    pub sockets: Vec<u8>,
    pub players: Option<Vec<u8>>,
    pub age: Option<Duration>,
}

/// A file, and how old it is.
struct FetchedFile {
    content: Vec<u8>,
    age: Option<Duration>,
}

impl Fetcher {
    /// Makes a client that believes `roots`, if they are given, and sends a token, if there is one.
    ///
    /// # Errors
    /// Fails if the authorities cannot be read.
    pub fn new(roots: Option<&Roots>, token: Option<&str>) -> Result<Self, String> {
        let tls = roots.map(|roots| Ok::<_, String>(ShownConnector(roots.config("give --ca")?.into()))).transpose()?;
        let token = token.map(|token| {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|error| error.to_string())?;
            value.set_sensitive(true);
            Ok::<_, String>(value)
        });
        Ok(Self { tls, token: token.transpose()? })
    }

    /// Fetches the report of a host. Files that do not belong together are fetched a second time.
    ///
    /// # Errors
    /// Fails if they cannot be fetched, or do not belong together then either.
    pub(super) async fn report(&self, url: &ReportUrl) -> Result<FetchedReport, PullError> {
        let mut again = true;
        loop {
            let md5 = self.file(url, report::MD5, MAX_MD5).await?;
            let sockets = self.file(url, report::SOCKETS, MAX_FILE).await?;
            if is_md5_of(&md5.content, &sockets.content) {
                let players = match self.file(url, report::PLAYERS, max_players()).await {
                    Ok(players) => Some(players.content),
                    // The report is there without them.
                    Err(FetchError::NotFound(_) | FetchError::Status(_, 503, _)) => None,
                    Err(error) => return Err(error.into()),
                };
                return Ok(FetchedReport { sockets: sockets.content, players, age: sockets.age });
            }
            // A report is replaced before its MD5 is.
            if !again {
                return Err(PullError::Md5);
            }
            again = false;
            sleep(AGAIN).await;
        }
    }

    async fn file(&self, url: &ReportUrl, name: &'static str, most: usize) -> Result<FetchedFile, FetchError> {
        let stream = within(TcpStream::connect(&url.address)).await.map_err(FetchError::Connect)?;
        let Some(server) = &url.tls else {
            if self.token.is_some() {
                stays_here(&stream)?;
            }
            return self.exchange(stream, url, name, most).await;
        };
        let Some(ShownConnector(connector)) = &self.tls else {
            return Err(FetchError::Tls(io::Error::other("no authorities were read")));
        };
        let stream = within(connector.connect(server.clone(), stream)).await.map_err(FetchError::Tls)?;
        self.exchange(stream, url, name, most).await
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        url: &ReportUrl,
        name: &'static str,
        most: usize,
    ) -> Result<FetchedFile, FetchError> {
        let mut request = Request::builder().uri(format!("{REPORT_PATH}{name}")).header(HOST, &url.host);
        request = request.header(CONNECTION, "close");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request.body(Body::empty())?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let asking = async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = to_bytes(Body::new(body), most).await.map_err(|_| FetchError::Cut(name, most));
            if head.status != StatusCode::OK {
                let told = body.map(|body| told(&body)).unwrap_or_default();
                return Err(self.refused(name, head.status, told));
            }
            Ok(FetchedFile { content: body?.to_vec(), age: age(&head.headers, SystemTime::now()) })
        };
        tokio::pin!(asking);
        tokio::select! {
            answer = &mut asking => answer,
            // The answer arrives with the connection's end, or never does.
            _ = connection => asking.await,
        }
    }

    fn refused(&self, name: &'static str, status: StatusCode, told: String) -> FetchError {
        match status {
            StatusCode::UNAUTHORIZED if self.token.is_some() => {
                FetchError::Token(name, "it takes another token than this one")
            }
            StatusCode::UNAUTHORIZED => FetchError::Token(name, "it asks for a token; give --token-file"),
            StatusCode::NOT_FOUND => FetchError::NotFound(name),
            status => FetchError::Status(name, status.as_u16(), told),
        }
    }
}

fn max_players() -> usize {
    usize::try_from(MAX_PLAYERS).unwrap_or(MAX_FILE)
}

async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(CONNECT, work).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

/// Checks that a plain connection does not leave this host.
fn stays_here(stream: &TcpStream) -> Result<(), FetchError> {
    let ends = stream.peer_addr().and_then(|peer| Ok((peer, stream.local_addr()?)));
    let (peer, own) = ends.map_err(FetchError::Connect)?;
    let here = peer.ip().to_canonical().is_loopback() || peer.ip() == own.ip();
    if here { Ok(()) } else { Err(FetchError::Clear(peer)) }
}

/// Returns whether the line of `md5sum` is that of a content.
fn is_md5_of(line: &[u8], content: &[u8]) -> bool {
    let sum = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    sum.eq_ignore_ascii_case(md5_hex(content).as_bytes())
}

/// Returns what an answer in JSON says is wrong, with what leads to it.
fn told(body: &[u8]) -> String {
    let answer: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let error = answer.as_ref().and_then(|answer| answer.get("error")?.as_str());
    error.map_or_else(String::new, |error| format!(": {}", error.chars().take(MAX_TOLD).collect::<String>()))
}

/// Returns how long ago a file was written, by the clock of the host that says so; `None` if it does not.
fn age(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let time = |name: HeaderName| {
        let text = headers.get(name)?.to_str().ok()?;
        let seconds = DateTimeParser::new().parse_timestamp(text).ok()?.as_second();
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
    };
    let written = time(LAST_MODIFIED)?;
    Some(time(DATE).unwrap_or(now).duration_since(written).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn the_age_is_that_of_the_hosts_own_clock() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        let of = |lines: &[(HeaderName, &'static str)]| {
            let lines = lines.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
            age(&lines.collect(), now).map(|age| age.as_secs())
        };
        let (date, written) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:48:07 GMT");
        assert_eq!(of(&[(DATE, date), (LAST_MODIFIED, written)]), Some(90));
        assert_eq!(of(&[(LAST_MODIFIED, written)]), Some(90), "else that of this host");
        assert_eq!(of(&[(DATE, written), (LAST_MODIFIED, date)]), Some(0));
        assert_eq!(of(&[(DATE, date)]), None);
        assert_eq!(of(&[(DATE, date), (LAST_MODIFIED, "yesterday")]), None);
    }

    #[test]
    fn the_sum_is_the_first_word() {
        for (line, is) in [
            (&b"d41d8cd98f00b204e9800998ecf8427e  report.txt\n"[..], true),
            (b"D41D8CD98F00B204E9800998ECF8427E", true),
            (b"d41d8cd98f00b204e9800998ecf8427", false),
            (b"", false),
            (b"<html>", false),
        ] {
            assert_eq!(is_md5_of(line, b""), is, "{line:?}");
        }
    }

    #[test]
    fn errors_are_told_as_far_as_they_go() {
        assert_eq!(told(br#"{"error":"no report"}"#), ": no report");
        assert_eq!(told(b"<html>"), "");
        assert_eq!(told(format!(r#"{{"error":"{}"}}"#, "a".repeat(9999)).as_bytes()).len(), MAX_TOLD + 2);
    }
}

//! The process's own report, to whom it is for.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, LAST_MODIFIED, WWW_AUTHENTICATE};
use hyper::{HeaderMap, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::error;

use super::answer::WebAnswer;
use super::exchange::not_found;
use super::route::WebResult;
use crate::admin::{TokenError, TokenFile, bearer};
use crate::report;
use otproxy_config::{REPORT_PATH, WebReport};

/// Files of a report that a listener holds at once, for those who read them; others wait.
pub const MAX_REPORTS: usize = 4;

/// The report of one listener, from one reload to the next.
#[derive(Debug)]
pub(super) struct ServedReport {
    config: WebReport,
    /// The token that is asked for.
    token: NeededToken,
    places: Arc<Semaphore>,
}

/// The token that readers need.
#[derive(Debug, Clone)]
enum NeededToken {
    /// None.
    None,
    /// That of this file.
    OfFile(Arc<TokenFile>),
    /// That of a file which could not be read. Nobody has it.
    Unknown,
}

/// A file, as long as somebody reads it.
struct HeldFile {
    content: Vec<u8>,
    _place: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for HeldFile {
    fn as_ref(&self) -> &[u8] {
        &self.content
    }
}

/// Checks that the token of a report can be used.
pub(super) fn check_token(config: &WebReport) -> Result<(), TokenError> {
    config.token_file.as_deref().map(TokenFile::load).transpose().map(drop)
}

impl ServedReport {
    /// Makes it, in place of the one `before` a reload. A token that cannot be used is logged: whoever starts or reloads has checked
    /// it just before.
    pub fn new(listener: &str, config: &WebReport, before: Option<&Self>) -> Self {
        let same = before.filter(|before| before.config.token_file == config.token_file);
        let token = match (same, &config.token_file) {
            (Some(same), _) => same.token.clone(),
            (None, None) => NeededToken::None,
            (None, Some(file)) => match TokenFile::load(file) {
                Ok(token) => NeededToken::OfFile(Arc::new(token)),
                Err(error) => {
                    error!(listener, %error, "nobody may read the report: its token cannot be used");
                    NeededToken::Unknown
                }
            },
        };
        let places = before.map_or_else(|| Arc::new(Semaphore::new(MAX_REPORTS)), |before| Arc::clone(&before.places));
        Self { config: config.clone(), token, places }
    }

    /// Returns the answer to a request for one of its files, which has to be there `within` a time.
    pub async fn answer(
        &self,
        player: IpAddr,
        (path, headers): (&str, &HeaderMap),
        within: Duration,
    ) -> (WebResult, WebAnswer) {
        if !self.config.allows(player) {
            // As if there were none.
            return (WebResult::Refused, not_found().1);
        }
        let token = match &self.token {
            NeededToken::None => None,
            NeededToken::Unknown => return unproved(),
            NeededToken::OfFile(file) => {
                let sent = headers.get(AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
                let Some(sent) = sent else { return unproved() };
                Some((Arc::clone(file), sent.to_vec()))
            }
        };
        let asked = path.strip_prefix(REPORT_PATH);
        let file = report::FILES.into_iter().find(|file| Some(*file) == asked);
        let dir = self.config.dir.clone();
        let read = async {
            // It is closed never.
            let place = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
            // A file system may hang, and a large file takes its time: on a thread of its own.
            let reading = spawn_blocking(move || {
                if token.is_some_and(|(file, sent)| !file.is(&sent)) {
                    return Ok(None);
                }
                let read = file.map(|file| report::read(&dir, file)).transpose()?;
                Ok(Some(read.map(|(content, at)| (HeldFile { content, _place: place }, at))))
            });
            reading.await.unwrap_or_else(|error| Err(io::Error::other(error)))
        };
        match timeout(within, read).await {
            Ok(Ok(None)) => unproved(),
            Ok(Ok(Some(None))) => not_found(),
            Ok(Ok(Some(Some((held, at))))) => (WebResult::Ok, whole(held, at)),
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                failed("there is no such file yet: no report has been written")
            }
            // They are the operator's, and the rest of them is in the log of the one who writes it.
            Ok(Err(error)) => failed(&format!("the report cannot be read: {error}")),
            Err(_) => failed("too many read the report at once; ask again in a moment"),
        }
    }
}

fn unproved() -> (WebResult, WebAnswer) {
    let mut answer = WebAnswer::problem(StatusCode::UNAUTHORIZED, "send `Authorization: Bearer TOKEN`");
    answer.headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    (WebResult::Refused, answer)
}

fn failed(error: &str) -> (WebResult, WebAnswer) {
    (WebResult::Failed, WebAnswer::problem(StatusCode::SERVICE_UNAVAILABLE, error))
}

/// Returns a whole file, written `at` a time.
fn whole(held: HeldFile, at: SystemTime) -> WebAnswer {
    let mut headers = HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ]);
    let text = Timestamp::try_from(at).and_then(|at| DateTimePrinter::new().timestamp_to_rfc9110_string(&at));
    if let Some(at) = text.ok().and_then(|text| HeaderValue::from_str(&text).ok()) {
        headers.insert(LAST_MODIFIED, at);
    }
    WebAnswer { status: StatusCode::OK, headers, body: Bytes::from_owner(held) }
}

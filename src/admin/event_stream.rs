//! The stream of events and figures, as Server-Sent Events.
//!
//! Nothing is kept for a listener but its place in the log. It is told what is new whenever it has taken what came before; one that
//! falls behind finds the newest events, and how many it has missed.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::api::{EventView, EventsQuestion, FiguresView};
use crate::events::EventLog;
use crate::history::History;

/// Streams at once, for `admin.listen` and the socket each; one more is refused.
pub const MAX_STREAMS: usize = 8;
/// The time after which a stream on which nothing happens says that it is there.
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Events that a listener is told at once; of more the newest.
const BATCH: usize = 64;
/// Pieces that wait for a listener.
const WAITING: usize = 2;
/// The header with which a listener that was cut off asks for what it has missed.
const LAST_EVENT_ID: &str = "last-event-id";
const STREAM: &str = "text/event-stream";

/// Returns whether a request asks for a stream.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepts
        .flat_map(|value| value.split(','))
        .any(|kind| kind.split(';').next().is_some_and(|kind| kind.trim() == STREAM))
}

/// The sources of a stream.
pub(super) struct EventFeed {
    pub events: Arc<EventLog>,
    pub history: Arc<History>,
    /// Cancelled when streams are to end.
    pub stop: CancellationToken,
}

impl EventFeed {
    /// Answers with a stream. It begins behind the event that the request names, in a header or in the query, or else with what is new
    /// from now on.
    pub fn answer(self, asked: &EventsQuestion, headers: &HeaderMap, place: OwnedSemaphorePermit) -> Response {
        let seen = headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok()?.parse().ok());
        let newest = self.events.newest();
        let now = *newest.borrow();
        // A number that no event has yet is that of another process whose clock went ahead.
        let after = seen.or(asked.after).map_or(now, |after: u64| if after > now { 0 } else { after });
        let (sender, pieces) = mpsc::channel(WAITING);
        tokio::spawn(self.tell(after, newest, sender));
        let headers =
            [(CONTENT_TYPE, HeaderValue::from_static(STREAM)), (CACHE_CONTROL, HeaderValue::from_static("no-store"))];
        (headers, Body::new(Told { pieces, _place: place })).into_response()
    }

    /// Tells what is new, until the listener is gone or streams are to end.
    async fn tell(self, after: u64, mut newest: watch::Receiver<u64>, listener: mpsc::Sender<Bytes>) {
        let Self { events, history, stop } = self;
        let (mut after, mut pushed) = (after, history.pushed());
        newest.mark_changed();
        pushed.mark_unchanged();
        loop {
            let piece = tokio::select! {
                () = stop.cancelled() => return,
                () = listener.closed() => return,
                // It does not fail: the log and the history are held here.
                Ok(()) = newest.changed() => new_events(&events, &mut after),
                Ok(()) = pushed.changed() => {
                    let columns = history.newest(Instant::now());
                    message(None, "figures", &FiguresView::last(columns, SystemTime::now()))
                }
                () = sleep(KEEP_ALIVE) => ":\n\n".to_owned(),
            };
            if piece.is_empty() {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                sent = listener.send(piece.into()) => if sent.is_err() { return },
            }
        }
    }
}

/// Returns what is new after that number, which becomes that of the newest.
fn new_events(events: &EventLog, after: &mut u64) -> String {
    let new = events.after(*after, BATCH);
    let mut piece = String::new();
    if let Some(first) = new.first() {
        // Numbers follow each other.
        let missed = first.serial.saturating_sub(*after).saturating_sub(1);
        if *after > 0 && missed > 0 {
            let _ = write!(piece, ": {missed} events are no longer there\n\n");
        }
    }
    for event in &new {
        piece.push_str(&message(Some(event.serial), "event", &EventView::from(event)));
        *after = event.serial;
    }
    piece
}

/// Returns a message of a stream. JSON has no line breaks.
fn message<T: Serialize>(id: Option<u64>, kind: &str, data: &T) -> String {
    let Ok(data) = serde_json::to_string(data) else { return String::new() };
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("{id}event: {kind}\ndata: {data}\n\n")
}

/// The body of a stream.
struct Told {
    pieces: mpsc::Receiver<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl HttpBody for Told {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.pieces.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Happening;

    #[test]
    fn a_stream_is_asked_for_by_its_type() {
        let wanted = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            is_wanted(&headers)
        };
        assert!(wanted("text/event-stream") && wanted("application/json;q=0.5, text/event-stream;q=1"));
        assert!(!wanted("application/json") && !wanted("*/*") && !wanted("text/event-streams"));
        assert!(!is_wanted(&HeaderMap::new()));
    }

    #[test]
    fn one_that_fell_behind_is_told_the_newest_and_how_many_it_missed() {
        let log = EventLog::new(SystemTime::UNIX_EPOCH);
        let start = Instant::now();
        for tasks in 0..100 {
            let at = start + Duration::from_secs(10) * tasks;
            log.emit_at(Happening::Defect { tasks: tasks.into() }, at, SystemTime::UNIX_EPOCH);
        }
        let mut after = 1;
        let piece = new_events(&log, &mut after);
        assert!(
            piece.starts_with(": 35 events are no longer there\n\nid: 37\nevent: event\ndata: {\"serial\":37,"),
            "{piece}"
        );
        assert_eq!((piece.matches("id: ").count(), after), (BATCH, 100));
        assert_eq!(new_events(&log, &mut after), "");
    }
}

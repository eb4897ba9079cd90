//! Logins over HTTP: what their clients are told, and how they are counted.

use hyper::header::{ACCEPT_LANGUAGE, HeaderName, USER_AGENT};
use prometheus::IntCounter;

use super::ask::WebRequest;
use crate::metrics::{ByReason, Metrics};
use otproxy_protocol::edge_list::EdgeList;
use otproxy_protocol::login::Worlds;
use otproxy_protocol::login::http::{self, Client, Unchanged, WorldAddress};

/// One worker's counters of logins on a listener.
pub(super) struct LoginMetrics {
    pub rewritten: IntCounter,
    /// Logins for which there was no answer.
    pub unanswered: IntCounter,
    /// Answers that passed as they were.
    pub unchanged: ByReason<Unchanged>,
}

impl LoginMetrics {
    /// Returns those of a listener.
    pub fn new(metrics: &Metrics, listener: &str) -> Self {
        const WAY: &str = "http";
        let counter = |result| metrics.logins.with_label_values(&[listener, WAY, result]);
        let unchanged = ByReason::new(&metrics.logins, &[listener, WAY]);
        Self { rewritten: counter("rewritten"), unanswered: counter("unanswered"), unchanged }
    }
}

/// Returns the address of the worlds that the client of a login is told; `None` if there is no edge to be told of.
pub(super) fn told<'e>(worlds: Worlds, request: &WebRequest, edges: &'e EdgeList) -> Option<WorldAddress<'e>> {
    let header = |name: HeaderName| request.headers.get(name)?.to_str().ok();
    let headers = http::Headers { user_agent: header(USER_AGENT), accept_language: header(ACCEPT_LANGUAGE) };
    let first = edges.first()?;
    Some(match Client::of(&request.body, headers).is_sent_over_links(worlds) {
        true => WorldAddress::Links,
        false => WorldAddress::Edge(&first.host),
    })
}

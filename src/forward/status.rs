//! Status requests on a listener with `status`, which are answered from the target's last answer, so that few of them
//! reach it.

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::timeout;
use tracing::{info, warn};

use super::status_cache::{CachedAnswer, Lookup, StatusCache};
use super::{ConnectFor, Connected, ConnectionLogGuard, Forward, OnBehalf};
use crate::admission::AdmittedConnection;
use crate::connection::{AdmissionError, CloseReason, ConnectionHandle};
use crate::forward::StatusResult;
use crate::metrics::ByReason;
use otproxy_config as config;
use otproxy_net::Stream;
use otproxy_net::worker::Scratch;
use otproxy_protocol::status::{self, FirstPacket, MAX_ANSWER, MAX_REQUEST, PublishedFields, StatusRequest};

/// The part of one listener's status answers that all workers share.
#[derive(Debug)]
pub struct StatusShared {
    config: config::StatusConfig,
    /// Locked briefly, and by status requests only.
    cache: Arc<Mutex<StatusCache>>,
}

impl StatusShared {
    pub(super) fn new(config: config::StatusConfig) -> Self {
        let cache = Arc::new(Mutex::new(StatusCache::new(config.cache, config.stale)));
        Self { config, cache }
    }

    /// Returns the same with a new `config`. Answers stay, except those that show what is no longer published.
    pub(super) fn reloaded(&self, config: config::StatusConfig) -> Self {
        let shown = |config: &config::StatusConfig| (config.address.clone(), config.port, config.players);
        if shown(&config) != shown(&self.config) {
            return Self::new(config);
        }
        self.cache().set(config.cache, config.stale);
        Self { config, cache: Arc::clone(&self.cache) }
    }

    fn cache(&self) -> MutexGuard<'_, StatusCache> {
        // Each change is whole before anything that can panic.
        self.cache.lock()
    }
}

/// Answers the connection if it begins with a status request, or closes it; otherwise lets it go on, with the bytes
/// read so far in `admitted.early`.
///
/// A connection that sends nothing in time is refused. Forwarded, it could still send a status request, past the cache.
pub(super) async fn serve(
    forward: &Forward,
    shared: &StatusShared,
    metrics: &ByReason<StatusResult>,
    admitted: &mut AdmittedConnection,
) -> ControlFlow<()> {
    let patience = forward.inbound.timeout(forward.inbound.config().timeouts.header);
    let handle = Arc::clone(admitted.guard.handle());
    let first = handle.run_until_closed(patience.within(first_packet(admitted, forward.inbound.scratch()))).await;
    let request =
        match first.unwrap_or_else(|closing| Some(Err(closing.into()))).unwrap_or(Err(AdmissionError::HeaderTimeout)) {
            Ok(FirstPacket::Other) => return ControlFlow::Continue(()),
            Ok(FirstPacket::Request(request)) => Some(request),
            Ok(FirstPacket::TooLong) => None,
            Err(reason) => {
                forward.inbound.refuse(&admitted.stream, reason, admitted.peer_info());
                return ControlFlow::Break(());
            }
        };
    let record = ConnectionLogGuard::new(forward, admitted);
    record.early(&admitted.early);
    let answering = async {
        let told = match request {
            Some(request) => {
                ask(forward, shared, (admitted.player.port(), admitted.destination.port()), &request).await
            }
            None => CachedAnswer { result: StatusResult::Refused, answer: Bytes::new() },
        };
        metrics.inc(told.result);
        if !told.answer.is_empty() {
            let deliver = deliver(&admitted.stream, &told.answer, forward, &handle);
            // A client that does not read it has had its time.
            let _ = forward.inbound.idle_timeout().within(deliver).await;
        }
    };
    if let Ok(()) = handle.run_until_closed(answering).await {
        record.end(CloseReason::Status);
    }
    ControlFlow::Break(())
}

/// Reads the first packet of a connection, until its kind is known.
async fn first_packet(admitted: &mut AdmittedConnection, scratch: &Scratch) -> Result<FirstPacket, AdmissionError> {
    loop {
        if let Some(first) = status::first(&admitted.early) {
            return Ok(first);
        }
        match admitted.stream.read_onto(&mut admitted.early, MAX_REQUEST, scratch).await {
            Ok(0) | Err(_) => return Err(AdmissionError::Closed),
            Ok(_) => {}
        }
    }
}

/// Sends the answer, and waits for the client to close: closing with unread bytes would take the answer away from the
/// client.
async fn deliver(stream: &Stream, answer: &[u8], forward: &Forward, handle: &ConnectionHandle) -> io::Result<()> {
    let counter = &forward.inbound.metrics().bytes_out;
    let mut rest = answer;
    while !rest.is_empty() {
        let count = poll_fn(|cx| stream.poll_write(cx, rest)).await?;
        handle.add_out(count as u64);
        counter.inc_by(count as u64);
        rest = rest.get(count..).unwrap_or_default();
    }
    poll_fn(|cx| stream.poll_shutdown(cx)).await?;
    let mut ignored = Vec::new();
    while stream.read_onto(&mut ignored, MAX_REQUEST, forward.inbound.scratch()).await? > 0 {
        ignored.clear();
    }
    Ok(())
}

/// Returns the answer to a request from and to these ports.
pub(super) async fn ask(
    forward: &Forward,
    shared: &StatusShared,
    ports: (u16, u16),
    request: &StatusRequest,
) -> CachedAnswer {
    loop {
        let turn = shared.cache().look_up(request, Instant::now());
        match turn {
            Lookup::Cached(told) => return told,
            Lookup::Wait(mut fetch) => {
                if let Ok(told) = fetch.wait_for(Option::is_some).await
                    && let Some(told) = &*told
                {
                    return told.clone();
                }
            }
            Lookup::Fetch(fetch) => {
                let answer = ask_target(forward, shared, ports, request).await;
                return shared.cache().fetched(fetch, answer, Instant::now());
            }
        }
    }
}

/// Asks the target, and logs the reason if it gives no answer.
async fn ask_target(
    forward: &Forward,
    shared: &StatusShared,
    ports: (u16, u16),
    request: &StatusRequest,
) -> Option<Bytes> {
    // The request is made on behalf of this host: game servers answer others once in some seconds, and always by IPv4.
    let here = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let (player, local) = (here(ports.0), here(ports.1));
    let behalf = OnBehalf { player, local, tunnel: forward.tunnel() };
    let reached = forward.reach(ConnectFor::Status, behalf).await.ok()?;
    let within = forward.inbound.config().timeouts.connect;
    let exchange = exchange(reached, request, forward.inbound.scratch());
    let result = timeout(within, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let config::StatusConfig { address, port, players, .. } = &shared.config;
    let online = match (players, &forward.shared.players) {
        (config::StatusPlayers::Counted, Some(players)) => Some(players.count().await.counted),
        _ => None,
    };
    let online = online.map(|online| u32::try_from(online).unwrap_or(u32::MAX));
    let published = result.and_then(|answer| {
        request.publish(&answer, PublishedFields { address, port: *port, online }).map_err(io::Error::other)
    });
    let (outage, listener) = (&forward.shared.logs.status, &forward.inbound.config().name);
    match published {
        Ok(answer) => {
            if let Some(seconds) = outage.worked(Instant::now()) {
                info!(listener, seconds, "the target tells its status again");
            }
            Some(answer.into())
        }
        Err(error) => {
            if let Some(suppressed) = outage.failed(error.kind(), Instant::now()) {
                warn!(listener, %error, suppressed, "the target tells no status");
            }
            None
        }
    }
}

/// Sends the request, and reads the answer to its end. The own direction stays open until then, as game servers take
/// its end for that of the connection.
async fn exchange(reached: Connected, request: &StatusRequest, scratch: &Scratch) -> io::Result<Vec<u8>> {
    let Connected { stream, mut header, chosen: _chosen, .. } = reached;
    header.extend(request.to_bytes());
    stream.write_all(&header).await?;
    let mut answer = Vec::new();
    while answer.len() <= MAX_ANSWER {
        let room = MAX_ANSWER + 1 - answer.len();
        if stream.read_onto(&mut answer, room, scratch).await? == 0 {
            return Ok(answer);
        }
    }
    Err(io::Error::other("the answer is longer than any status"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn answers_are_kept_over_a_reload_but_not_those_that_show_what_is_published_no_more() {
        let second = Duration::from_secs(1);
        let config = |cache, address: &str| config::StatusConfig {
            cache: cache * second,
            stale: second,
            address: address.to_owned(),
            port: None,
            players: config::StatusPlayers::Told,
        };
        let (shared, now) = (StatusShared::new(config(5, "play.example")), Instant::now());
        let Lookup::Fetch(fetch) = shared.cache().look_up(&StatusRequest::Xml, now) else { panic!("nothing is known") };
        let longer = shared.reloaded(config(60, "play.example"));
        // A fetch that began earlier serves all.
        longer.cache().fetched(fetch, Some(Bytes::from_static(b"answer")), now);
        let told = |shared: &StatusShared| match shared.cache().look_up(&StatusRequest::Xml, now + 50 * second) {
            Lookup::Cached(told) => Some(told.result),
            _ => None,
        };
        assert_eq!(told(&longer), Some(StatusResult::Cached));
        assert_eq!(told(&longer.reloaded(config(60, "other.example"))), None);
        let counted = config::StatusConfig { players: config::StatusPlayers::Counted, ..config(60, "play.example") };
        assert_eq!(told(&longer.reloaded(counted)), None);
    }
}

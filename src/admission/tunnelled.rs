//! A stream of the tunnel, with what belongs to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use tokio_util::sync::CancellationToken;

use otproxy_net::Stream;

use super::Reporter;
use crate::connection::{CloseReason, ConnectionHandle};
use crate::metrics::GaugeGuard;

/// An authenticated edge, which ends all of its trunks once it is no longer trusted.
#[derive(Debug)]
pub struct AuthenticatedEdge {
    name: Arc<str>,
    /// Its number, which no other edge of this process has or had.
    number: u32,
    /// Cancelled once it is no longer trusted.
    revoked: CancellationToken,
    /// Its streams now, in all of its trunks, and the most that it may have.
    streams: AtomicUsize,
    most: usize,
}

impl AuthenticatedEdge {
    /// Makes a trusted edge that may have so many streams.
    pub fn new(name: &str, most: usize) -> Arc<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (revoked, streams) = (CancellationToken::new(), AtomicUsize::new(0));
        Arc::new(Self { name: name.into(), number, revoked, streams, most })
    }

    /// Returns the name in its certificate and in `edges`.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Returns it as the one on whose word addresses rest.
    pub fn reporter(&self) -> Reporter {
        Reporter::Edge(self.number)
    }

    /// Revokes trust: everything that it has open is closed.
    pub fn revoke(&self) {
        self.revoked.cancel();
    }

    /// Returns whether trust was revoked.
    pub fn is_revoked(&self) -> bool {
        self.revoked.is_cancelled()
    }

    /// Runs `task`, which carries a trunk of this edge, as long as it is trusted.
    pub async fn carry(self: Arc<Self>, task: impl Future<Output = ()>) {
        self.revoked.run_until_cancelled(task).await;
    }
}

/// The origin of a stream of the tunnel, held as long as the stream lives.
#[derive(Debug)]
pub struct TunnelOrigin {
    /// The edge.
    pub edge: Arc<AuthenticatedEdge>,
    /// The guard that counts it as a stream.
    _counted: GaugeGuard,
}

impl TunnelOrigin {
    /// Counts one more stream of an edge. `None` if it has as many as it may have.
    pub fn count(edge: &Arc<AuthenticatedEdge>, counted: GaugeGuard) -> Option<Self> {
        let one_more = |streams| (streams < edge.most).then_some(streams + 1);
        // The number guards no other memory.
        edge.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Self { edge: Arc::clone(edge), _counted: counted })
    }
}

impl Drop for TunnelOrigin {
    fn drop(&mut self) {
        self.edge.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream that has begun, for a worker to carry.
#[derive(Debug)]
pub struct TunnelledStream {
    /// The stream.
    pub stream: Stream,
    /// The player, as reported by the edge.
    pub player: SocketAddr,
    /// The address that the player connected to.
    pub destination: SocketAddr,
    /// The origin.
    pub origin: TunnelOrigin,
}

/// Returns why a stream of the tunnel was lost with its trunk, if it was: its edge is no longer trusted, or the way to it has
/// failed.
pub fn lost(stream: &Stream, origin: Option<&TunnelOrigin>) -> Option<CloseReason> {
    stream.lost_trunk().then(|| match origin {
        Some(origin) if origin.edge.is_revoked() => CloseReason::Revoked,
        _ => CloseReason::Tunnel,
    })
}

/// Returns why a connection was dropped before its own end: because of a defect, because it was closed by request,
/// because the `edge` that it came through is no longer trusted, or else because the process ends.
pub fn unfinished(handle: &ConnectionHandle, edge: Option<&AuthenticatedEdge>) -> CloseReason {
    if std::thread::panicking() {
        CloseReason::Panic
    } else if let Some(closing) = handle.closing() {
        closing.into()
    } else if edge.is_some_and(AuthenticatedEdge::is_revoked) {
        CloseReason::Revoked
    } else {
        CloseReason::Shutdown
    }
}

#[cfg(test)]
mod tests {
    use prometheus::IntGauge;

    use super::*;

    #[test]
    fn an_edge_has_no_more_streams_than_it_may() {
        let (edge, other) = (AuthenticatedEdge::new("waw1", 2), AuthenticatedEdge::new("fra1", 2));
        let count = |edge: &Arc<AuthenticatedEdge>| {
            TunnelOrigin::count(edge, GaugeGuard::new(IntGauge::new("streams", "streams").unwrap()))
        };
        let (first, second) = (count(&edge), count(&edge));
        assert!(first.is_some() && second.is_some() && count(&edge).is_none() && count(&other).is_some());
        drop(first);
        let third = count(&edge);
        assert!(third.is_some() && count(&edge).is_none());
    }
}

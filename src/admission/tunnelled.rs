//! What a stream that came through the tunnel brings with it, from the thread of the tunnel to a worker.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use otproxy_net::Detached;

use crate::connection::{CloseReason, Presence};
use crate::metrics::Held;

/// An edge that proved who it is, with all that it has open.
#[derive(Debug)]
pub struct ProvenEdge {
    name: String,
    /// It is trusted no more.
    revoked: CancellationToken,
}

impl ProvenEdge {
    /// A trusted one.
    pub fn new(name: String) -> Arc<Self> {
        Arc::new(Self { name, revoked: CancellationToken::new() })
    }

    /// The name in its certificate and in `edges`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Trusts it no more: all that it has open is closed.
    pub fn revoke(&self) {
        self.revoked.cancel();
    }

    /// Whether it is trusted no more.
    pub fn is_revoked(&self) -> bool {
        self.revoked.is_cancelled()
    }

    /// Runs `task`, which carries something of this edge, as long as it is trusted.
    pub async fn carry(self: Arc<Self>, task: impl Future<Output = ()>) {
        self.revoked.run_until_cancelled(task).await;
    }
}

/// What a stream through the tunnel belongs to, as long as it lives.
#[derive(Debug)]
pub struct Via {
    /// Whose it is.
    pub edge: Arc<ProvenEdge>,
    /// Counts it.
    pub in_use: Held,
}

/// A stream that has begun, for a worker to carry.
#[derive(Debug)]
pub struct Tunnelled {
    /// The stream.
    pub stream: Detached,
    /// The player, as the edge says.
    pub player: SocketAddr,
    /// Where the player connected to.
    pub destination: SocketAddr,
    /// What was read behind the header.
    pub early: Vec<u8>,
    /// The edge that it came from.
    pub via: Via,
}

/// Why a connection was dropped before its own end: because of a defect, or because somebody had it closed, or because the
/// `edge` that it came through is trusted no more, or else because the process ends.
pub fn unfinished(presence: &Presence, edge: Option<&ProvenEdge>) -> CloseReason {
    if std::thread::panicking() {
        CloseReason::Panic
    } else if let Some(closing) = presence.closing() {
        closing.into()
    } else if edge.is_some_and(ProvenEdge::is_revoked) {
        CloseReason::Revoked
    } else {
        CloseReason::Shutdown
    }
}

//! The trunks of the core, over which edges open streams to one of its workers.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::errands::{ERRANDS, EdgeErrands};
use super::metrics::TunnelMetrics;
use super::refusal::TunnelError;
use super::tether::TrunkTether;
use crate::admission::{AuthenticatedEdge, TunnelOrigin, TunnelledStream};
use crate::connection::TrunkPresence;
use crate::metrics::Metrics;
use otproxy_net::worker::{Scratch, Tasks};
use otproxy_net::{DetachedStream, OutageLog, Trunk, TrunkEnd, TrunkOwner, TrunkStream};
use otproxy_protocol::trunk::{Hello, OpenRequest, ResetReason, Side};

/// A trunk on its way to the worker of the core that has it.
#[derive(Debug)]
pub struct NewCoreTrunk {
    pub(super) stream: DetachedStream,
    /// Bytes that came behind the edge's hello.
    pub(super) early: Vec<u8>,
    /// The edge's hello.
    pub(super) peer: Hello,
    pub(super) edge: Arc<AuthenticatedEdge>,
    /// Counts it as one of that edge's.
    pub(super) presence: TrunkPresence,
    /// The limit of lines about streams that are refused.
    pub(super) refusals: Arc<OutageLog<TunnelError>>,
    pub(super) tether: TrunkTether,
}

/// The trunks for one worker.
pub type NewCoreTrunks = mpsc::UnboundedReceiver<NewCoreTrunk>;

/// The side of a core's trunk that takes what the edge opens.
struct Accepting<F> {
    edge: Arc<AuthenticatedEdge>,
    metrics: TunnelMetrics,
    refusals: Arc<OutageLog<TunnelError>>,
    drain: CancellationToken,
    tether: TrunkTether,
    errands: Arc<EdgeErrands>,
    scratch: Rc<Scratch>,
    tasks: Tasks,
    take: F,
}

impl<F: Fn(&str, TunnelledStream) -> Option<TunnelledStream>> TrunkOwner for Accepting<F> {
    fn opened(&self, request: OpenRequest, stream: TrunkStream) {
        // The edge has heard by now that it is to open no more.
        if self.drain.is_cancelled() {
            return;
        }
        let OpenRequest { listener, player, destination } = request;
        if listener == ERRANDS {
            return self.errands.keep(self.edge.name(), stream.into(), Rc::clone(&self.scratch), &self.tasks);
        }
        let Some(origin) = TunnelOrigin::count(&self.edge, self.metrics.stream()) else {
            return self.refuse(TunnelError::TooMany);
        };
        let tunnelled = TunnelledStream { stream: stream.into(), player, destination, origin };
        if let Some(left) = (self.take)(&listener, tunnelled) {
            left.stream.refuse(ResetReason::UnknownListener);
            self.refuse(TunnelError::UnknownListener);
        }
    }

    fn bad_open(&self) {
        self.refuse(TunnelError::BadHeader);
    }

    fn gone_away(&self) {
        self.tether.gone_away();
    }
}

impl<F> Accepting<F> {
    fn refuse(&self, refusal: TunnelError) {
        self.metrics.refused(refusal);
        if let Some(suppressed) = self.refusals.failed(refusal, Instant::now()) {
            warn!(edge = %self.edge.name(), reason = %refusal, suppressed, "refused in the tunnel");
        }
    }
}

/// Carries the trunks that are given to a worker, as tasks of `tasks`, until there are no more. `take` takes a stream to the
/// listener of that name, or returns it if there is none; streams for errands are kept in `errands`. From the `drain` on nothing is
/// opened; from `close` on all end, once what was said on them is out as far as their sockets take it.
pub async fn carry_core_trunks(
    mut new: NewCoreTrunks,
    metrics: &Arc<Metrics>,
    (scratch, tasks): (&Rc<Scratch>, &Tasks),
    (drain, close): (&CancellationToken, &CancellationToken),
    errands: &Arc<EdgeErrands>,
    take: impl Fn(&str, TunnelledStream) -> Option<TunnelledStream> + Clone + 'static,
) {
    while let Some(new) = new.recv().await {
        let NewCoreTrunk { stream, early, peer, edge, presence, refusals, tether } = new;
        let Ok(stream) = stream.attach() else { continue };
        let (all_metrics, until_revoked, close) = (Arc::clone(metrics), Arc::clone(&edge), close.clone());
        let accepting = Accepting {
            metrics: TunnelMetrics::new(metrics, edge.name()),
            edge,
            refusals,
            drain: drain.clone(),
            tether,
            errands: Arc::clone(errands),
            scratch: Rc::clone(scratch),
            tasks: tasks.clone(),
            take: take.clone(),
        };
        let carrying = async move {
            let _counted = accepting.metrics.trunk();
            let trunk = Trunk::new(Side::Core, peer.credit, Arc::clone(presence.stats()));
            let running = trunk.run(stream, early, &accepting.scratch, &accepting);
            let draining = async {
                accepting.drain.cancelled().await;
                trunk.go_away();
                close.cancelled().await;
                trunk.close();
                std::future::pending().await
            };
            let end = tokio::select! {
                end = running => end,
                end = accepting.tether.steer(&trunk, false, ()) => end,
                end = draining => end,
            };
            debug!(edge = %accepting.edge.name(), reason = %end, "a trunk has ended");
            match end {
                TrunkEnd::Protocol(_) => {
                    presence.failed(TunnelError::Protocol.as_str());
                    accepting.refuse(TunnelError::Protocol);
                }
                TrunkEnd::Silent => presence.failed("silent"),
                TrunkEnd::Failed(_) => presence.failed("connection_failed"),
                TrunkEnd::Closed | TrunkEnd::Ours => {}
            }
        };
        tasks.spawn(async move {
            Arc::clone(&until_revoked).carry(carrying).await;
            if until_revoked.is_revoked() {
                TunnelMetrics::forget(&all_metrics, until_revoked.name());
            }
        });
    }
}

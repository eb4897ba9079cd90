//! Forwarding: one connection in, one connection to a target, bytes both ways.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpStream;
use tracing::{info, warn};

use crate::config::{self, Destination, SendProxy};
use crate::limits::{ENDED_LINES, REFUSED_LINES, RateLimitedLog};
use crate::metrics::{Metrics, StatusMetrics};
use crate::net::pump::{PumpCounters, Pumped, carries_link, pump};
use crate::net::{Inbound, InboundShared, Stream, connect_forward};
use crate::reason::{CloseReason, ConnectResult};
use crate::wire::frame::begins_link;
use crate::wire::player_address::{PseudoIpv4, ipv4_of};
use crate::wire::proxy_header;

mod status;
mod status_cache;

use status::StatusShared;

pub use status_cache::MAX_REQUESTS;

/// What a target can make of a PROXY header.
#[derive(Debug, Clone)]
pub enum HeaderFor {
    /// A proxy: any address family.
    Proxy,
    /// A game server: it reads exactly the 28 bytes of an IPv4 header, so an IPv6 player is given
    /// the pseudo-IPv4 address.
    GameServer(PseudoIpv4),
}

/// What all workers share of a forward listener.
#[derive(Debug)]
pub struct ForwardShared {
    inbound: Arc<InboundShared>,
    config: config::Forward,
    header_for: HeaderFor,
    status: Option<StatusShared>,
    log: RateLimitedLog,
    ended_log: RateLimitedLog,
}

impl ForwardShared {
    /// From the listener's configuration.
    pub fn new(config: config::Forward, header_for: HeaderFor) -> Arc<Self> {
        let inbound = InboundShared::new(config.inbound.clone());
        let status = config.status.clone().map(StatusShared::new);
        let (log, ended_log) = (RateLimitedLog::new(REFUSED_LINES), RateLimitedLog::new(ENDED_LINES));
        Arc::new(Self { inbound, config, header_for, status, log, ended_log })
    }

    /// What is counted of status requests on one worker, where they are answered.
    pub fn status_metrics(&self, metrics: &Metrics) -> Option<StatusMetrics> {
        self.status.as_ref().map(|_| metrics.status(&self.inbound.config().name))
    }

    /// The part that admits connections.
    pub fn inbound(&self) -> &Arc<InboundShared> {
        &self.inbound
    }
}

/// One worker's part of a forward listener.
#[derive(Debug)]
pub struct Forward {
    shared: Arc<ForwardShared>,
    inbound: Inbound,
    status: Option<StatusMetrics>,
}

/// A target that is connected.
struct Reached {
    stream: Stream,
    /// Where it is.
    address: SocketAddr,
    /// What to send it first: the PROXY header.
    first: Vec<u8>,
}

impl Forward {
    /// One worker's part, which counts in `metrics`.
    pub fn new(shared: Arc<ForwardShared>, inbound: Inbound, metrics: &Metrics) -> Self {
        let status = shared.status_metrics(metrics);
        Self { shared, inbound, status }
    }

    /// The counters and the configuration of what comes in.
    pub fn inbound(&self) -> &Inbound {
        &self.inbound
    }

    /// Carries one accepted connection to its end.
    pub async fn carry(self: Rc<Self>, stream: TcpStream, peer: SocketAddr) {
        let Some(mut admitted) = self.inbound.admit(stream, peer).await else { return };
        if let (Some(shared), Some(metrics)) = (&self.shared.status, &self.status)
            && Box::pin(status::serve(&self, shared, metrics, &mut admitted)).await.is_break()
        {
            return;
        }
        let mut record = Record::new(&self, admitted.player);
        let Some(reached) = Box::pin(self.reach(admitted.player, admitted.destination)).await else {
            return record.end(CloseReason::ConnectFailed);
        };
        let Reached { stream: target, address, mut first } = reached;
        record.target = Some(address);
        record.early(&admitted.early);
        first.extend_from_slice(&admitted.early);
        if begins_link(&admitted.early) {
            carries_link(&admitted.stream, &target);
        }
        let idle = self.inbound.config().idle_timeout;
        let metrics = self.inbound.metrics();
        let counters = PumpCounters { bytes_in: &metrics.bytes_in, bytes_out: &metrics.bytes_out };
        let Pumped { reason, .. } =
            pump(&admitted.stream, &target, first, idle, self.inbound.scratch(), counters, |bytes_in, bytes_out| {
                (record.bytes_in, record.bytes_out) = (bytes_in, bytes_out);
            })
            .await;
        record.end(reason);
    }

    /// Connects to the first target that answers, in the name of `player` who connected to `local`.
    async fn reach(&self, player: SocketAddr, local: SocketAddr) -> Option<Reached> {
        let metrics = self.inbound.metrics();
        let mut last = ConnectResult::Error;
        for destination in &self.shared.config.forward_to {
            let Destination::Target(target) = destination else { continue };
            match connect_forward(target, self.inbound.config().connect_timeout).await {
                Ok((stream, address)) => {
                    metrics.connect(ConnectResult::Ok);
                    return Some(Reached { stream, address, first: self.header(player, local, address) });
                }
                Err(result) => {
                    metrics.connect(result);
                    last = result;
                }
            }
        }
        if let Some(suppressed) = self.shared.log.allow(Instant::now()) {
            let targets: Vec<String> = self.shared.config.forward_to.iter().map(ToString::to_string).collect();
            let listener = &self.inbound.config().name;
            warn!(listener, targets = targets.join(", "), result = %last, suppressed, "no target can be reached");
        }
        None
    }

    fn header(&self, mut player: SocketAddr, mut destination: SocketAddr, target: SocketAddr) -> Vec<u8> {
        let mut out = Vec::new();
        if let HeaderFor::GameServer(pseudo) = &self.shared.header_for {
            player.set_ip(ipv4_of(player.ip(), pseudo).into());
            if destination.is_ipv6() {
                destination = if target.is_ipv4() { target } else { SocketAddr::from(([127, 0, 0, 1], target.port())) };
            }
        }
        match self.shared.config.send_proxy {
            SendProxy::V2 => proxy_header::write_v2(&mut out, player, destination),
            SendProxy::V1 => proxy_header::write_v1(&mut out, player, destination),
            SendProxy::None => {}
        }
        out
    }
}

/// The account of one connection: it counts and logs the end, however that comes.
struct Record<'a> {
    forward: &'a Forward,
    player: SocketAddr,
    target: Option<SocketAddr>,
    started: Instant,
    /// Bytes that were read before the target was connected.
    early: u64,
    bytes_in: u64,
    bytes_out: u64,
    reason: Option<CloseReason>,
}

impl<'a> Record<'a> {
    fn new(forward: &'a Forward, player: SocketAddr) -> Self {
        forward.inbound.metrics().active.inc();
        let started = Instant::now();
        Self { forward, player, target: None, started, early: 0, bytes_in: 0, bytes_out: 0, reason: None }
    }

    fn early(&mut self, bytes: &[u8]) {
        self.early = bytes.len() as u64;
        self.forward.inbound.metrics().bytes_in.inc_by(self.early);
    }

    fn end(mut self, reason: CloseReason) {
        self.reason = Some(reason);
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let unfinished = if std::thread::panicking() { CloseReason::Panic } else { CloseReason::Shutdown };
        let reason = self.reason.unwrap_or(unfinished);
        let inbound = &self.forward.inbound;
        inbound.metrics().active.dec();
        inbound.metrics().closed(reason);
        let Some(suppressed) = self.forward.shared.ended_log.allow(Instant::now()) else { return };
        info!(
            listener = inbound.config().name,
            player = %self.player,
            target = self.target.map(tracing::field::display),
            seconds = self.started.elapsed().as_secs_f64(),
            bytes_in = self.early + self.bytes_in,
            bytes_out = self.bytes_out,
            %reason,
            suppressed = (suppressed > 0).then_some(suppressed),
            "connection ended",
        );
    }
}

//! The edges of a core as those who do what its operator decides, and tell it what they know.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::admin::api::{ApiError, ApiErrorKind, EdgeAnswer, Network, NewBan, PREFIX};
use crate::admin::{ApiAnswer, ask_over};
use crate::admission::{BanReason, Bans, REFUSED_LINES};
use crate::connection::EdgeRegistry;
use crate::tunnel::EdgeErrands;
use otproxy_net::RateLimitedLog;

/// The time limit of an edge's answer, the wait for its stream included.
const WITHIN: Duration = Duration::from_secs(3);

/// The reason why an edge did not do something.
#[derive(Debug)]
pub enum FleetError {
    /// It did not answer, and may have done it or not.
    Away(ApiError),
    /// It refused.
    Refused(ApiError),
}

impl From<FleetError> for ApiError {
    fn from(error: FleetError) -> Self {
        match error {
            FleetError::Away(error) | FleetError::Refused(error) => error,
        }
    }
}

/// The edges that come through the tunnel.
#[derive(Debug, Clone)]
pub struct Fleet {
    registry: Arc<EdgeRegistry>,
    errands: Arc<EdgeErrands>,
    /// The edges that know all bans, with the time since when they were there as they were told.
    told: Arc<Mutex<HashMap<Arc<str>, SystemTime>>>,
}

impl Fleet {
    /// Returns the edges of `registry`, which are asked over `errands`.
    pub fn new(registry: Arc<EdgeRegistry>, errands: Arc<EdgeErrands>) -> Self {
        Self { registry, errands, told: Arc::default() }
    }

    /// Returns the edges that are there now, with the time since when.
    fn present(&self) -> Vec<(Arc<str>, SystemTime)> {
        let all = self.registry.snapshot().into_iter().filter(|edge| !edge.revoked);
        all.filter_map(|edge| Some((edge.name, edge.since?))).collect()
    }

    /// Has an edge do something, and returns what it answers.
    ///
    /// # Errors
    /// Returns its refusal, or says why it cannot be asked.
    pub async fn act<A: DeserializeOwned>(
        &self,
        edge: &str,
        path: &str,
        body: &impl Serialize,
    ) -> Result<A, FleetError> {
        let body = serde_json::to_string(body).unwrap_or_default();
        self.request(edge, path, Some(body)).await
    }

    /// Reads something of an edge's API.
    ///
    /// # Errors
    /// As [`Fleet::act`].
    pub async fn see<A: DeserializeOwned>(&self, edge: &str, path: &str) -> Result<A, FleetError> {
        self.request(edge, path, None).await
    }

    async fn request<A: DeserializeOwned>(
        &self,
        edge: &str,
        path: &str,
        body: Option<String>,
    ) -> Result<A, FleetError> {
        let ApiAnswer { status, body } = self.ask(edge, &format!("{PREFIX}{path}"), body).await?;
        let strange = |_| ApiError::unavailable(format!("{edge} gave an answer that is none"), "update the edge");
        match serde_json::from_slice::<A>(&body) {
            Ok(done) if status == 200 => Ok(done),
            _ => {
                let refusal: ApiError = serde_json::from_slice(&body).unwrap_or_else(strange);
                Err(FleetError::Refused(ApiError { kind: ApiErrorKind::of(status), ..refusal }))
            }
        }
    }

    /// Asks an edge.
    async fn ask(&self, edge: &str, path: &str, body: Option<String>) -> Result<ApiAnswer, FleetError> {
        let away = || {
            FleetError::Away(ApiError::unavailable(
                format!("{edge} does not answer through the tunnel"),
                "see `otproxy edges`, or do it on that edge's host",
            ))
        };
        let asking = async { ask_over(self.errands.open(edge).await, path, body).await };
        timeout(WITHIN, asking).await.ok().and_then(Result::ok).ok_or_else(away)
    }

    /// Returns the metrics of all edges that answer.
    pub async fn metrics(&self) -> Vec<(String, String)> {
        let text = |fleet: Self, edge: Arc<str>| async move {
            let answer = fleet.ask(&edge, "/metrics", None).await.ok().filter(|answer| answer.status == 200)?;
            Some((edge.to_string(), String::from_utf8(answer.body.to_vec()).ok()?))
        };
        let asked: JoinSet<_> = self.present().into_iter().map(|(edge, _)| text(self.clone(), edge)).collect();
        let mut all: Vec<_> = asked.join_all().await.into_iter().flatten().collect();
        all.sort_unstable();
        all
    }

    /// Has all edges do something that is done here already. Edges that cannot be asked are told all bans when they can.
    pub async fn tell<B: Serialize + Clone + Send + Sync + 'static>(
        &self,
        path: &'static str,
        body: B,
    ) -> Vec<EdgeAnswer> {
        let tell = |fleet: Self, edge: Arc<str>, body: B| async move {
            let done = fleet.act::<serde_json::Value>(&edge, path, &body).await;
            if let Err(FleetError::Away(_)) = &done {
                fleet.told.lock().remove(&edge);
            }
            EdgeAnswer { edge: edge.to_string(), error: done.err().map(|error| ApiError::from(error).error) }
        };
        let told: JoinSet<_> =
            self.present().into_iter().map(|(edge, _)| tell(self.clone(), edge, body.clone())).collect();
        let mut all = told.join_all().await;
        all.sort_by(|one, other| one.edge.cmp(&other.edge));
        all
    }

    /// Tells each edge that comes the bans that the operator has made, for as long as they last; never returns.
    pub async fn keep_bans(self, bans: Arc<Bans>) {
        loop {
            let came = self.errands.came();
            for (edge, since) in self.present() {
                if self.told.lock().insert(Arc::clone(&edge), since) != Some(since) {
                    self.tell_bans(&edge, &bans).await;
                }
            }
            came.await;
        }
    }

    async fn tell_bans(&self, edge: &str, bans: &Bans) {
        static LOG: RateLimitedLog = RateLimitedLog::new(REFUSED_LINES);
        let now = Instant::now();
        let own = bans.list(now).into_iter().filter(|ban| ban.reason == BanReason::Operator && ban.edge.is_none());
        let (mut count, mut refused, mut last) = (0u64, 0u64, None);
        for ban in own {
            let left = ban.until.saturating_duration_since(now).as_secs();
            let Ok(left @ 1..) = u32::try_from(left) else { continue };
            let ban = NewBan { network: Network(ban.network), for_seconds: Some(left), disconnect: false };
            match self.act::<serde_json::Value>(edge, "/ban", &ban).await {
                Ok(_) => count += 1,
                // It is told again when it can be asked.
                Err(FleetError::Away(_)) => {
                    self.told.lock().remove(edge);
                    return;
                }
                Err(FleetError::Refused(error)) => {
                    refused += 1;
                    last = Some((ban.network, error));
                }
            }
        }
        if let (Some((network, error)), Some(suppressed)) = (last, LOG.allow(Instant::now())) {
            warn!(edge, refused, %network, %error, suppressed, "an edge does not ban all that is banned here");
        } else if count > 0 {
            info!(edge, count, "an edge that came back bans what is banned here");
        }
    }
}

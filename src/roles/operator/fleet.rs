//! The edges of a core as those who do what its operator decides, and tell it their metrics.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::admin::api::{ApiError, ApiErrorKind, EdgeAnswer, Network, NewBan, PREFIX};
use crate::admin::ask_over;
use crate::admission::{BanReason, Bans};
use crate::connection::EdgeRegistry;
use crate::tunnel::EdgeErrands;

/// The time limit of an edge's answer, the wait for its stream included.
const WITHIN: Duration = Duration::from_secs(3);

/// The edges that come through the tunnel.
#[derive(Debug, Clone)]
pub(in crate::roles) struct Fleet {
    registry: Arc<EdgeRegistry>,
    errands: Arc<EdgeErrands>,
}

impl Fleet {
    pub fn new(registry: Arc<EdgeRegistry>, errands: Arc<EdgeErrands>) -> Self {
        Self { registry, errands }
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
    pub async fn act<A: DeserializeOwned>(&self, edge: &str, path: &str, body: &impl Serialize) -> Result<A, ApiError> {
        let body = serde_json::to_string(body).unwrap_or_default();
        let answer = self.ask(edge, &format!("{PREFIX}{path}"), Some(body)).await?;
        let strange = |_| ApiError::unavailable(format!("{edge} gave an answer that is none"), "update the edge");
        let (status, body) = answer;
        match serde_json::from_slice::<A>(&body) {
            Ok(done) if status == 200 => Ok(done),
            _ => {
                let refusal: ApiError = serde_json::from_slice(&body).unwrap_or_else(strange);
                Err(ApiError { kind: ApiErrorKind::of(status), ..refusal })
            }
        }
    }

    /// Asks an edge; returns the status and the body.
    async fn ask(&self, edge: &str, path: &str, body: Option<String>) -> Result<(u16, Vec<u8>), ApiError> {
        let away = || {
            ApiError::unavailable(
                format!("{edge} does not answer through the tunnel"),
                "see `otproxy edges`, or do it on that edge's host",
            )
        };
        let asking = async {
            let stream = self.errands.open(edge, WITHIN).await?;
            ask_over(stream, path, body).await.ok()
        };
        let answer = timeout(WITHIN, asking).await.ok().flatten().ok_or_else(away)?;
        Ok((answer.status, answer.body.to_vec()))
    }

    /// Returns the metrics of all edges that answer.
    pub async fn metrics(&self) -> Vec<(String, String)> {
        let text = |fleet: Self, edge: Arc<str>| async move {
            let (status, body) = fleet.ask(&edge, "/metrics", None).await.ok()?;
            Some((edge.to_string(), String::from_utf8(body).ok().filter(|_| status == 200)?))
        };
        let asked: JoinSet<_> = self.present().into_iter().map(|(edge, _)| text(self.clone(), edge)).collect();
        let mut all: Vec<_> = asked.join_all().await.into_iter().flatten().collect();
        all.sort_unstable();
        all
    }

    /// Has all edges do something that is done here already.
    pub async fn tell<B: Serialize + Clone + Send + Sync + 'static>(
        &self,
        path: &'static str,
        body: B,
    ) -> Vec<EdgeAnswer> {
        let tell = |fleet: Self, edge: Arc<str>, body: B| async move {
            let done = fleet.act::<serde_json::Value>(&edge, path, &body).await;
            EdgeAnswer { edge: edge.to_string(), error: done.err().map(|error| error.error) }
        };
        let told: JoinSet<_> =
            self.present().into_iter().map(|(edge, _)| tell(self.clone(), edge, body.clone())).collect();
        let mut all = told.join_all().await;
        all.sort_by(|one, other| one.edge.cmp(&other.edge));
        all
    }

    /// Tells each edge that comes the bans that the operator has made, for as long as they last; never returns.
    pub async fn keep_bans(self, bans: Arc<Bans>) {
        let mut told: HashMap<Arc<str>, SystemTime> = HashMap::new();
        loop {
            let came = self.errands.came();
            for (edge, since) in self.present() {
                if told.insert(Arc::clone(&edge), since) != Some(since) {
                    self.tell_bans(&edge, &bans).await;
                }
            }
            came.await;
        }
    }

    async fn tell_bans(&self, edge: &str, bans: &Bans) {
        let now = Instant::now();
        let own = bans.list(now).into_iter().filter(|ban| ban.reason == BanReason::Operator && ban.edge.is_none());
        let mut count = 0u64;
        for ban in own {
            let left = ban.until.saturating_duration_since(now).as_secs();
            let Ok(left @ 1..) = u32::try_from(left) else { continue };
            let ban = NewBan { network: Network(ban.network), for_seconds: Some(left), disconnect: false };
            if let Err(error) = self.act::<serde_json::Value>(edge, "/ban", &ban).await {
                warn!(edge, network = %ban.network, %error, "an edge does not ban what is banned here");
                return;
            }
            count += 1;
        }
        if count > 0 {
            info!(edge, count, "an edge that came back bans what is banned here");
        }
    }
}

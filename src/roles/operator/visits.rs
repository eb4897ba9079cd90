//! Visits of an edge at others, over their public addresses.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::admin::api::{MAX_VISITS, Probed, Visit, VisitedEdge};
use crate::probe::{ProbeError, ProbeLink, Probing, client_id};
use otproxy_net::{ConnectResult, resolve};

/// The edges that were visited, and what visits are made with.
#[derive(Debug, Default)]
pub(super) struct Visits {
    /// The last round trip to each, in milliseconds, which the next visit tells as a player's does.
    last: Mutex<HashMap<(String, u16), u32>>,
}

impl Visits {
    /// Visits all of these at once.
    pub async fn all(&self, edges: Vec<VisitedEdge>, within: Duration) -> Probed {
        let mut visits = JoinSet::new();
        for (index, VisitedEdge { host, port }) in edges.iter().cloned().enumerate() {
            let told = self.last.lock().get(&(host.clone(), port)).copied().unwrap_or_default();
            visits.spawn(async move {
                let visited = timeout(within, visit(&host, port, told, within)).await;
                (index, visited.unwrap_or(Err(ProbeError::Silent(within))))
            });
        }
        // One that failed by a defect has no result of its own.
        let mut found: HashMap<usize, Result<Duration, ProbeError>> = HashMap::new();
        while let Some(visited) = visits.join_next().await {
            found.extend(visited.ok());
        }
        let mut last = HashMap::new();
        let results = edges.into_iter().enumerate().map(|(index, VisitedEdge { host, port })| {
            let result = found.remove(&index).unwrap_or(Err(ProbeError::Connect(ConnectResult::Error)));
            if let Ok(round_trip) = &result {
                last.insert((host, port), u32::try_from(round_trip.as_millis()).unwrap_or(u32::MAX));
            }
            Visit {
                round_trip_seconds: result.as_ref().ok().map(Duration::as_secs_f64),
                error: result.err().map(|error| error.as_str().to_owned()),
            }
        });
        let results = Probed { edges: results.collect() };
        let mut known = self.last.lock();
        known.extend(last);
        if known.len() > MAX_VISITS {
            known.clear();
        }
        results
    }
}

/// Opens a link as a client does, and pings once.
async fn visit(host: &str, port: u16, told: u32, within: Duration) -> Result<Duration, ProbeError> {
    let addresses = resolve((host, port), within).await.map_err(ProbeError::Connect)?;
    // Clients take one address alone.
    let first = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first()).copied();
    let address: SocketAddr = first.ok_or(ProbeError::Connect(ConnectResult::Resolve))?;
    let probing = Probing { client: client_id(), within, send_proxy: false };
    let (link, _) = ProbeLink::open(address, probing).await?;
    link.telling(told).ping().await
}

//! The keeper of the table: brings it in step with the edges at each change of them, and now and then.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::database::Database;
use super::fault::TableError;
use super::plan::Own;
use crate::connection::EdgeStanding;
use crate::metrics::Metrics;
use otproxy_config::{HostPort, ProxiesTable};
use otproxy_net::OutageLog;

/// The time for one look at the table, with all its changes.
pub const WITHIN: Duration = Duration::from_secs(5);
/// The least time from one look to the next.
pub const PACE: Duration = Duration::from_millis(500);

/// The settings of the table, and each change of them.
pub type TableSettings = watch::Receiver<Option<ProxiesTable>>;

/// Keeps the table in step with the edges, until dropped. Whatever the database does, nothing else waits for it.
pub async fn keep(
    mut settings: TableSettings,
    mut standings: watch::Receiver<Arc<[EdgeStanding]>>,
    metrics: Arc<Metrics>,
) {
    let (outages, mut known) = (OutageLog::<String>::default(), BTreeSet::new());
    let mut shown: Option<String> = None;
    let mut database = None;
    loop {
        let now = settings.borrow_and_update().clone();
        if shown.as_ref() != now.as_ref().map(|config| &config.table)
            && let Some(table) = shown.take()
        {
            // Series that are gone already need no removal.
            let _ = metrics.proxies_table_up.remove_label_values(&[&*table]);
        }
        let Some(config) = now else {
            if settings.changed().await.is_err() {
                return;
            }
            continue;
        };
        shown = Some(config.table.clone());
        let edges = own(&standings.borrow_and_update(), &mut known);
        let looked =
            timeout(WITHIN, look(&mut database, &config, &edges)).await.unwrap_or_else(|_| Err(TableError::late()));
        let up = metrics.proxies_table_up.with_label_values(&[&*config.table]);
        up.set(looked.is_ok().into());
        match looked {
            Ok(changes) => {
                metrics.proxies_table_changes.with_label_values(&[&*config.table]).inc_by(changes as u64);
                if let Some(seconds) = outages.worked(Instant::now()) {
                    info!(table = config.table, seconds, "the table of proxies is in step with the edges again");
                }
                if changes > 0 {
                    info!(table = config.table, changes, "the table of proxies follows the edges");
                }
            }
            Err(error) => {
                database = None;
                if let Some(suppressed) = outages.failed(error.to_string(), Instant::now()) {
                    let (table, remedy) = (config.table.as_str(), error.remedy.as_str());
                    warn!(table, %error, remedy, suppressed, "the table of proxies is not in step with the edges");
                }
            }
        }
        sleep(PACE).await;
        tokio::select! {
            () = sleep(config.every.saturating_sub(PACE)) => {}
            changed = standings.changed() => if changed.is_err() { return },
            changed = settings.changed() => {
                if changed.is_err() {
                    return;
                }
                database = None;
            }
        }
    }
}

async fn look(database: &mut Option<Database>, config: &ProxiesTable, edges: &[Own]) -> Result<usize, TableError> {
    // It is put back only when all went well: what is left of another one may be anywhere in an answer.
    if let Some(mut open) = database.take() {
        match open.keep(edges).await {
            Ok(changes) => {
                *database = Some(open);
                return Ok(changes);
            }
            // It may have ended while nothing was asked.
            Err(error) if error.is_lost() => {}
            Err(error) => return Err(error),
        }
    }
    let mut open = Database::connect(config).await?;
    let changes = open.keep(edges).await?;
    *database = Some(open);
    Ok(changes)
}

/// Returns the edges whose rows are kept: those of now, and those that this process has known and that are gone, which are out.
fn own(standings: &[EdgeStanding], known: &mut BTreeSet<(String, u16)>) -> Vec<Own> {
    let mut edges: Vec<Own> = standings.iter().map(Own::from).collect();
    known.extend(edges.iter().map(|edge| (edge.public.host.clone(), edge.public.port)));
    let gone = known.iter().filter(|(host, port)| {
        !standings.iter().any(|edge| edge.public.port == *port && edge.public.host.eq_ignore_ascii_case(host))
    });
    let gone: Vec<_> =
        gone.map(|(host, port)| Own { public: HostPort { host: host.clone(), port: *port }, listed: None }).collect();
    edges.extend(gone);
    edges
}

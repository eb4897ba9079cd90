//! The reports of many hosts, fetched over HTTP into one folder.
//!
//! `source` says where they are, `fetch` reads files from there, and `keep` puts them into place. A report that is older than it may be
//! is never left there: it would look like one of now.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::report::PlayerCount;

mod fetch;
mod keep;
mod source;

pub use fetch::{FetchError, Fetcher};
pub use keep::{FolderError, FolderLock};
pub use source::{ReportSource, ReportUrl};

/// Hosts that are asked at once.
pub const MAX_AT_ONCE: usize = 16;
/// The time limit of one host, for all of its files.
pub const HOST_TIMEOUT: Duration = Duration::from_secs(20);
/// The time until files are fetched again that do not belong together.
pub const AGAIN: Duration = Duration::from_millis(500);

/// The facts of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PulledReport {
    /// The sockets in it.
    pub rows: usize,
    /// The players of its last line; `None` if it has no such file.
    pub players: Option<PlayerCount>,
    /// The time since it was written, by the clock of its host; `None` if that does not say.
    pub age: Option<Duration>,
}

/// The state of the report that lay in the folder before, where there is no newer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldReport {
    /// There was none.
    None,
    /// It stays, and is so old.
    Kept(Duration),
    /// It was too old, and has been removed.
    Removed,
}

/// The reason why there is no new report of a host.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// It cannot be fetched.
    #[error("{0}")]
    Fetch(#[from] FetchError),
    /// Not in time.
    #[error("no report within {} s", HOST_TIMEOUT.as_secs())]
    Late,
    /// The report and the MD5 do not belong together, not at the second time either.
    #[error(
        "the MD5 is not that of the report, and was not at a second try either: is one process alone writing there?"
    )]
    Md5,
    /// It is not the text of a report.
    #[error("the report is no text")]
    NoText,
    /// It was written too long ago.
    #[error("the report was written {} ago: that host writes none any more, and its log says why", whole(*.0))]
    Old(Duration),
    /// It cannot be written here.
    #[error("{0}")]
    Folder(#[from] FolderError),
}

/// The result of one host.
#[derive(Debug)]
pub struct Pulled {
    /// The host.
    pub source: ReportSource,
    /// Its report; or else why there is none, and what became of the last one.
    pub result: Result<PulledReport, (PullError, OldReport)>,
}

/// Fetches the reports of all `sources` into folders of their names in the locked folder, at most [`MAX_AT_ONCE`] at a time. None may be older
/// than `oldest`. Returns the results in the order of the sources.
pub async fn pull(sources: Vec<ReportSource>, fetcher: Fetcher, folder: &FolderLock, oldest: Duration) -> Vec<Pulled> {
    let (fetcher, turns) = (Arc::new(fetcher), Arc::new(Semaphore::new(MAX_AT_ONCE)));
    let mut asking = JoinSet::new();
    for (place, source) in sources.into_iter().enumerate() {
        let (fetcher, turns, folder) = (Arc::clone(&fetcher), Arc::clone(&turns), folder.of(&source.name));
        asking.spawn(async move {
            // It is closed never.
            let _turn = turns.acquire().await;
            let result = match timeout(HOST_TIMEOUT, one(&source, &fetcher, &folder, oldest)).await {
                Ok(result) => result,
                Err(_) => Err(PullError::Late),
            };
            let result = result.map_err(|error| {
                // A folder that cannot be changed is said already.
                let old = keep::look(&folder, SystemTime::now(), oldest).unwrap_or(OldReport::None);
                (error, old)
            });
            (place, Pulled { source, result })
        });
    }
    let mut all = asking.join_all().await;
    all.sort_by_key(|(place, _)| *place);
    all.into_iter().map(|(_, pulled)| pulled).collect()
}

/// Fetches the report of one host.
async fn one(source: &ReportSource, from: &Fetcher, to: &Path, oldest: Duration) -> Result<PulledReport, PullError> {
    let fetched = from.report(&source.url).await?;
    if let Some(age) = fetched.age.filter(|age| *age > oldest) {
        return Err(PullError::Old(age));
    }
    let text = String::from_utf8(fetched.sockets).map_err(|_| PullError::NoText)?;
    let written = SystemTime::now().checked_sub(fetched.age.unwrap_or_default()).unwrap_or(SystemTime::UNIX_EPOCH);
    keep::put(to, &text, fetched.players.as_deref(), written)?;
    let players = fetched.players.as_deref().and_then(|text| PlayerCount::of_last_line(&String::from_utf8_lossy(text)));
    Ok(PulledReport { rows: text.lines().skip(1).count(), players, age: fetched.age })
}

/// Returns a time as people write it, in whole seconds.
#[must_use]
pub fn whole(time: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(time.as_secs()))
}

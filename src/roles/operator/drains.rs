//! Drains: a drained listener accepts no connections, and its open ones go on, or are closed in time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::{sleep, sleep_until, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::connections::close;
use crate::connection::{Closing, ConnectionRegistry};
use crate::roles::drain::{SPREAD, close_links};

/// The time between two searches for connections that have turned out to be links.
const LOOK: Duration = Duration::from_secs(1);

/// The drains in progress or finished, by listener.
#[derive(Debug, Default)]
pub(super) struct Drains(Mutex<HashMap<String, AbortOnDropHandle<()>>>);

/// The way in which the connections of a drained listener end.
#[derive(Debug, Clone, Copy)]
pub(super) struct DrainPolicy {
    /// True if links are closed, one after the other: their players have others.
    pub links: bool,
    /// The time after which the rest is closed.
    pub deadline: Option<Duration>,
}

impl Drains {
    /// Returns whether a listener is drained.
    pub fn has(&self, listener: &str) -> bool {
        self.list().contains_key(listener)
    }

    /// Ends the connections of a listener, which accepts no new ones any more, on the runtime that it is called in. An
    /// earlier drain of the same listener stops.
    pub fn begin(&self, listener: &str, registry: Arc<ConnectionRegistry>, ending: DrainPolicy) {
        let name = listener.to_owned();
        let task = AbortOnDropHandle::new(tokio::spawn(async move { end(&registry, &name, ending).await }));
        self.list().insert(listener.to_owned(), task);
    }

    /// Closes no more connections of a listener, which stays drained.
    pub fn stop(&self, listener: &str) {
        self.list().get(listener).iter().for_each(|ending| ending.abort());
    }

    /// Ends the drain of a listener. Returns whether it was drained.
    pub fn cancel(&self, listener: &str) -> bool {
        self.list().remove(listener).is_some()
    }

    fn list(&self) -> MutexGuard<'_, HashMap<String, AbortOnDropHandle<()>>> {
        self.0.lock()
    }
}

async fn end(registry: &ConnectionRegistry, listener: &str, DrainPolicy { links, deadline }: DrainPolicy) {
    let deadline = deadline.map(|deadline| (tokio::time::Instant::now() + deadline, deadline));
    let closing = async {
        let over = deadline.map_or(SPREAD, |(_, deadline)| SPREAD.min(deadline));
        loop {
            close_links(registry, over, |handle| handle.listener() == listener).await;
            sleep(LOOK).await;
        }
    };
    match (links, deadline) {
        (true, None) => closing.await,
        (false, None) => {}
        (true, Some((at, _))) => drop(timeout_at(at, closing).await),
        (false, Some((at, _))) => sleep_until(at).await,
    }
    if deadline.is_some() {
        close(registry, Closing::Drained, |handle| handle.listener() == listener);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Registration;

    const DEADLINE: Duration = Duration::from_secs(60);

    fn run<F: Future<Output = ()>>(test: F) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(test);
    }

    fn enter(registry: &Arc<ConnectionRegistry>, listener: &str, link: bool) -> Registration {
        let present = registry.enter(&Arc::from(listener), ([192, 0, 2, 1], 1).into());
        if link {
            present.handle().set_link();
        }
        present
    }

    fn is_closed(present: &Registration) -> bool {
        present.handle().closing() == Some(Closing::Drained)
    }

    #[test]
    fn links_go_first_and_the_deadline_ends_the_rest() {
        run(async {
            let (registry, drains) = (Arc::default(), Drains::default());
            let [link, other, late] =
                [("a", true), ("a", false), ("a", false)].map(|(name, link)| enter(&registry, name, link));
            let elsewhere = enter(&registry, "b", true);
            drains.begin("a", Arc::clone(&registry), DrainPolicy { links: true, deadline: Some(DEADLINE) });
            assert!(drains.has("a") && !drains.has("b"));
            sleep(SPREAD).await;
            assert!(is_closed(&link) && !is_closed(&other));
            late.handle().set_link();
            sleep(SPREAD + 2 * LOOK).await;
            assert!(is_closed(&late), "it said later that it is one");
            sleep(DEADLINE).await;
            assert!(is_closed(&other) && elsewhere.handle().closing().is_none());
            assert!(drains.has("a"), "until it is cancelled");
        });
    }

    #[test]
    fn without_a_deadline_nothing_but_links_is_closed_and_at_a_core_not_even_those() {
        run(async {
            let (registry, drains) = (Arc::default(), Drains::default());
            let all =
                [("edge", true), ("edge", false), ("core", true)].map(|(name, link)| enter(&registry, name, link));
            drains.begin("edge", Arc::clone(&registry), DrainPolicy { links: true, deadline: None });
            drains.begin("core", Arc::clone(&registry), DrainPolicy { links: false, deadline: None });
            sleep(100 * DEADLINE).await;
            assert_eq!(all.each_ref().map(is_closed), [true, false, false]);
        });
    }

    #[test]
    fn one_that_is_stopped_closes_nobody_and_is_still_drained() {
        run(async {
            let (registry, drains) = (Arc::default(), Drains::default());
            let all = [enter(&registry, "a", true), enter(&registry, "a", false)];
            drains.begin("a", Arc::clone(&registry), DrainPolicy { links: true, deadline: Some(DEADLINE) });
            drains.stop("a");
            sleep(2 * DEADLINE).await;
            assert!(all.iter().all(|present| !is_closed(present)) && drains.has("a"));
        });
    }

    #[test]
    fn the_last_word_counts() {
        run(async {
            let (registry, drains) = (Arc::default(), Drains::default());
            let other = enter(&registry, "a", false);
            let begin = |deadline| {
                drains.begin("a", Arc::clone(&registry), DrainPolicy { links: true, deadline: Some(deadline) })
            };
            begin(DEADLINE);
            begin(2 * DEADLINE);
            sleep(DEADLINE * 3 / 2).await;
            assert!(!is_closed(&other));
            assert!(drains.cancel("a") && !drains.cancel("a"));
            sleep(2 * DEADLINE).await;
            assert!(!is_closed(&other) && !drains.has("a"));
        });
    }
}

//! The listeners of a role, as its operator sees them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::admin::api::{Count, ListenerKind, ListenerState, ListenerView};
use crate::admission::ListenerMetrics;
use crate::connection::{AdmissionError, CloseReason, ConnectionRegistry, Route};
use crate::metrics::Metrics;
use crate::roles::listeners::ListenerSnapshot;

/// The facts about a listener that are not in its metrics.
pub(super) struct ListenerFacts {
    pub name: String,
    pub kind: ListenerKind,
    pub addresses: Vec<SocketAddr>,
    pub state: ListenerState,
    /// Connections now, and their limit.
    pub connections: Count,
}

/// Returns listeners that were removed and still have connections.
pub(super) fn gone(registry: &ConnectionRegistry, now: &[ListenerSnapshot]) -> Vec<ListenerFacts> {
    let mut gone: BTreeMap<String, ListenerFacts> = BTreeMap::new();
    registry.select(|handle| {
        let name = handle.listener();
        if !now.iter().any(|listener| listener.name == name) {
            let known = gone.entry(name.to_owned()).or_insert_with(|| ListenerFacts {
                name: name.to_owned(),
                kind: match handle.route() {
                    Some(Route::Client(_)) => ListenerKind::Relay,
                    _ => ListenerKind::Forward,
                },
                addresses: Vec::new(),
                state: ListenerState::Closed,
                connections: Count { open: 0, limit: None },
            });
            known.connections.open += 1;
        }
        false
    });
    gone.into_values().collect()
}

/// Adds the sums of all workers' counters.
pub(super) fn listener(known: ListenerFacts, workers: &[Arc<Metrics>]) -> ListenerView {
    let ListenerFacts { name, kind, addresses, state, connections } = known;
    let counted: Vec<ListenerMetrics> = workers.iter().map(|metrics| ListenerMetrics::new(metrics, &name)).collect();
    let sum = |count: &dyn Fn(&ListenerMetrics) -> u64| counted.iter().map(count).sum::<u64>();
    // Reasons that never occurred are left out.
    let happened = |word: &'static str, count| (count > 0).then(|| (word.to_owned(), count));
    let rejected =
        AdmissionError::ALL.iter().filter_map(|&r| happened(r.as_str(), sum(&|counted| counted.rejections(r))));
    let closed = CloseReason::ALL.iter().filter_map(|&r| happened(r.as_str(), sum(&|counted| counted.closes(r))));
    ListenerView {
        kind,
        addresses,
        state,
        connections,
        accepted: sum(&|counted| counted.accepted.get()),
        rejected: rejected.collect::<BTreeMap<_, _>>(),
        closed: closed.collect::<BTreeMap<_, _>>(),
        bytes_in: sum(&|counted| counted.bytes_in.get()),
        bytes_out: sum(&|counted| counted.bytes_out.get()),
        name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use otproxy_config::ListenerType;

    #[test]
    fn one_that_was_removed_is_shown_while_it_has_connections() {
        let registry = Arc::default();
        let enter = |name: &str| ConnectionRegistry::enter(&registry, &Arc::from(name), ([192, 0, 2, 1], 1).into());
        let _all = ["login", "old", "old", "links"].map(enter);
        let older = enter("older");
        older.handle().set_route(Route::Client(1));
        let now = ["login", "links"].map(|name| ListenerSnapshot {
            name: name.to_owned(),
            kind: ListenerType::Forward,
            addresses: Vec::new(),
            open: 1,
            limit: None,
        });
        let show = |known: &ListenerFacts| (known.name.clone(), known.kind, known.connections.open);
        let found: Vec<_> = gone(&registry, &now).iter().map(show).collect();
        assert_eq!(found, [("old".to_owned(), ListenerKind::Forward, 2), ("older".to_owned(), ListenerKind::Relay, 1)]);
        drop(older);
        assert_eq!(gone(&registry, &now).len(), 1);
    }

    #[test]
    fn counts_of_all_workers_are_summed_and_what_never_happened_is_left_out() {
        let workers = [Arc::new(Metrics::new()), Arc::new(Metrics::new())];
        for (n, metrics) in (1..).zip(&workers) {
            let counted = ListenerMetrics::new(metrics, "login");
            counted.accepted.inc_by(n);
            counted.bytes_out.inc_by(10 * n);
            counted.rejected(AdmissionError::Rate);
            ListenerMetrics::new(metrics, "links").rejected(AdmissionError::Silent);
        }
        ListenerMetrics::new(&workers[0], "login").closed(CloseReason::Idle);
        let known = ListenerFacts {
            name: "login".to_owned(),
            kind: ListenerKind::Forward,
            addresses: Vec::new(),
            state: ListenerState::Open,
            connections: Count { open: 1, limit: None },
        };
        let listener = listener(known, &workers);
        assert_eq!((listener.accepted, listener.bytes_in, listener.bytes_out), (3, 0, 30));
        assert_eq!(listener.rejected, BTreeMap::from([("rate".to_owned(), 2)]));
        assert_eq!(listener.closed, BTreeMap::from([("idle".to_owned(), 1)]));
    }
}

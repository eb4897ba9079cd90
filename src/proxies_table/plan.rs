//! The changes that bring the rows of a table in step with the edges. Pure: rows and edges in, changes out.

use crate::connection::EdgeStanding;
use otproxy_config::HostPort;

/// The number in `disabled` of a row that this core has taken out. Readers take each number but 0 as disabled, and 1 is what
/// an operator writes.
pub const OUT: u64 = 2;

/// The columns by which rows are told apart and judged, as they were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyRow {
    /// `host`, as it stands there.
    pub host: String,
    /// `port`; `None` where it is no port.
    pub port: Option<u16>,
    /// `priority`; `None` where it is no number that fits.
    pub priority: Option<u64>,
    /// `disabled`; `None` where it is no number that fits.
    pub disabled: Option<u64>,
}

/// An edge that rows are kept for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// Its address for clients.
    pub public: HostPort,
    /// Its priority if clients are to use it; else its rows are taken out.
    pub listed: Option<u16>,
}

/// The rows that a change is for: those with exactly these values, of which a table without a key may have several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// `host`, as it stands there.
    pub host: String,
    /// `port`.
    pub port: u16,
    /// `disabled` before the change.
    pub disabled: u64,
}

/// A change of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowChange {
    /// A row for an edge that has none.
    Add {
        /// Its address for clients.
        public: HostPort,
        /// Its priority.
        priority: u16,
    },
    /// Rows take part, with this priority.
    List {
        /// The rows.
        rows: Rows,
        /// Their priority.
        priority: u16,
    },
    /// Rows are taken out.
    Out {
        /// The rows.
        rows: Rows,
    },
}

impl From<&EdgeStanding> for Own {
    fn from(standing: &EdgeStanding) -> Self {
        let listed = standing.decision.listed.then_some(standing.decision.priority);
        Self { public: standing.public.clone(), listed }
    }
}

impl ProxyRow {
    /// Returns whether it is a row of the edge at this address. Letters' cases are the same in names of hosts.
    fn is_of(&self, public: &HostPort) -> bool {
        self.port == Some(public.port) && self.host.trim().eq_ignore_ascii_case(&public.host)
    }
}

/// Returns the changes after which the rows say of each edge what is decided of it. Rows of others are in none of them, and
/// neither are rows that an operator has disabled.
///
/// Rows with the same values are changed as one, so that a table without a key has no row that cannot be named.
#[must_use]
pub fn plan(rows: &[ProxyRow], edges: &[Own]) -> Vec<RowChange> {
    let mut changes: Vec<RowChange> = Vec::new();
    for (index, edge) in edges.iter().enumerate() {
        // Two edges behind one address are one row: the first that is listed speaks for it.
        let same = |other: &&Own| {
            other.public.port == edge.public.port && other.public.host.eq_ignore_ascii_case(&edge.public.host)
        };
        if edges.iter().take(index).any(|other| same(&other)) {
            continue;
        }
        let listed = edges.iter().filter(same).find_map(|edge| edge.listed);
        let mut own = rows.iter().filter(|row| row.is_of(&edge.public)).peekable();
        if own.peek().is_none() {
            changes.extend(listed.map(|priority| RowChange::Add { public: edge.public.clone(), priority }));
            continue;
        }
        for row in own {
            let Some(change) = change(row, edge.public.port, listed) else { continue };
            if !changes.contains(&change) {
                changes.push(change);
            }
        }
    }
    changes
}

/// Returns the change of an own row, if it needs one.
fn change(row: &ProxyRow, port: u16, listed: Option<u16>) -> Option<RowChange> {
    let disabled = row.disabled.filter(|disabled| matches!(*disabled, 0 | OUT))?;
    let rows = Rows { host: row.host.clone(), port, disabled };
    match listed {
        Some(priority) if disabled == OUT || row.priority != Some(priority.into()) => {
            Some(RowChange::List { rows, priority })
        }
        None if disabled == 0 => Some(RowChange::Out { rows }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(host: &str, port: u16) -> HostPort {
        HostPort { host: host.to_owned(), port }
    }

    fn row(host: &str, priority: u64, disabled: u64) -> ProxyRow {
        ProxyRow { host: host.to_owned(), port: Some(7162), priority: Some(priority), disabled: Some(disabled) }
    }

    fn edge(host: &str, listed: Option<u16>) -> Own {
        Own { public: at(host, 7162), listed }
    }

    /// Does to rows what the database does.
    fn apply(rows: &mut Vec<ProxyRow>, changes: &[RowChange]) {
        for change in changes {
            let (of, priority, disabled) = match change {
                RowChange::Add { public, priority } => {
                    rows.push(ProxyRow { port: Some(public.port), ..row(&public.host, (*priority).into(), 0) });
                    continue;
                }
                RowChange::List { rows, priority } => (rows, Some(*priority), 0),
                RowChange::Out { rows } => (rows, None, OUT),
            };
            let is_of = |row: &&mut ProxyRow| {
                row.host == of.host && row.port == Some(of.port) && row.disabled == Some(of.disabled)
            };
            for row in rows.iter_mut().filter(is_of) {
                row.disabled = Some(disabled);
                row.priority = priority.map_or(row.priority, |priority| Some(priority.into()));
            }
        }
    }

    #[test]
    fn an_edge_is_added_taken_out_and_put_back() {
        let mut rows = vec![row("other.example", 7, 0)];
        for (listed, last) in [(Some(20), (20, 0)), (None, (20, OUT)), (Some(30), (30, 0)), (Some(40), (40, 0))] {
            let changes = plan(&rows, &[edge("p1.example", listed)]);
            assert_eq!(changes.len(), 1, "{changes:?}");
            apply(&mut rows, &changes);
            assert_eq!(rows, [row("other.example", 7, 0), row("p1.example", last.0, last.1)]);
            assert_eq!(plan(&rows, &[edge("p1.example", listed)]), []);
        }
    }

    #[test]
    fn an_edge_that_is_out_from_the_start_gets_no_row() {
        assert_eq!(plan(&[], &[edge("p1.example", None)]), []);
    }

    #[test]
    fn what_an_operator_has_disabled_stays_with_its_priority() {
        for disabled in [Some(1), Some(3), Some(255), None] {
            let rows = [ProxyRow { disabled, ..row("p1.example", 7, 0) }];
            for listed in [None, Some(7), Some(20)] {
                assert_eq!(plan(&rows, &[edge("p1.example", listed)]), [], "{disabled:?} {listed:?}");
            }
        }
    }

    #[test]
    fn a_host_is_the_same_in_each_case_and_another_port_is_another_row() {
        let rows = [row("P1.Example", 0, 0), ProxyRow { port: Some(7163), ..row("p1.example", 0, 0) }];
        let out = RowChange::Out { rows: Rows { host: "P1.Example".to_owned(), port: 7162, disabled: 0 } };
        assert_eq!(plan(&rows, &[edge("p1.example", None)]), [out]);
    }

    #[test]
    fn two_edges_behind_one_address_are_one_row() {
        let edges = [edge("p1.example", None), edge("P1.example", Some(5)), edge("p1.example", Some(9))];
        assert_eq!(plan(&[], &edges), [RowChange::Add { public: at("p1.example", 7162), priority: 5 }]);
        assert_eq!(plan(&[row("p1.example", 5, 0)], &edges), []);
    }

    fn some_row() -> impl Strategy<Value = ProxyRow> {
        let host = prop::sample::select(vec!["a", "A", "b", "c", "a "]);
        (host, prop::option::of(1..3u16), prop::option::of(0..3u64), prop::option::of(0..4u64))
            .prop_map(|(host, port, priority, disabled)| ProxyRow { host: host.to_owned(), port, priority, disabled })
    }

    fn some_edge() -> impl Strategy<Value = Own> {
        let host = prop::sample::select(vec!["a", "A", "b"]);
        (host, 1..3u16, prop::option::of(0..3u16))
            .prop_map(|(host, port, listed)| Own { public: at(host, port), listed })
    }

    proptest! {
        #[test]
        fn rows_are_in_step_after_one_plan_and_those_of_others_are_as_they_were(
            before in prop::collection::vec(some_row(), 0..8),
            edges in prop::collection::vec(some_edge(), 0..5),
        ) {
            let mut after = before.clone();
            apply(&mut after, &plan(&before, &edges));
            prop_assert_eq!(plan(&after, &edges), vec![], "nothing is left to do");
            for (was, is) in before.iter().zip(&after) {
                let own = edges.iter().any(|edge| was.is_of(&edge.public));
                if !own || !matches!(was.disabled, Some(0 | OUT)) {
                    prop_assert_eq!(was, is);
                }
                prop_assert_eq!((&was.host, was.port), (&is.host, is.port));
            }
            for edge in edges.iter().filter(|edge| edge.listed.is_some()) {
                prop_assert!(after.iter().any(|row| row.is_of(&edge.public)));
            }
        }
    }
}

//! The table of all figures that have a history.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::figure::{EDGE_FIGURES, EdgeFigure, FIGURES, Figure, WORLD_FIGURES, WorldFigure};
use super::series::{DAY, HOUR, MINUTE, SERIES_BYTES, Series};

/// Edges whose figures are kept; of more, those that are seen first.
pub const MAX_EDGES: usize = 32;
/// Worlds whose figures are kept, likewise.
pub const MAX_WORLDS: usize = 32;
/// Bytes of the whole history at the most.
pub const MAX_BYTES: usize = (FIGURES + MAX_EDGES * EDGE_FIGURES + MAX_WORLDS * WORLD_FIGURES) * SERIES_BYTES;

/// The figures of one second; [`f32::NAN`] stands for one that there is not.
#[derive(Debug, Clone)]
pub struct Row {
    /// Figures of the process.
    pub process: [f32; FIGURES],
    /// Figures of each edge.
    pub edges: Vec<(Arc<str>, [f32; EDGE_FIGURES])>,
    /// Figures of each world, by the port by which clients ask for it.
    pub worlds: Vec<(u16, [f32; WORLD_FIGURES])>,
}

impl Default for Row {
    fn default() -> Self {
        Self { process: [f32::NAN; FIGURES], edges: Vec::new(), worlds: Vec::new() }
    }
}

impl Row {
    /// Sets a figure of the process.
    pub fn set(&mut self, figure: Figure, value: f64) {
        if let Some(place) = self.process.get_mut(figure as usize) {
            *place = value as f32;
        }
    }
}

/// The length of a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Step {
    /// A second; an hour of them is kept.
    #[default]
    Second,
    /// A minute; a day of them is kept.
    Minute,
}

impl Step {
    /// Returns its seconds.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => MINUTE,
        }
    }

    const fn kept(self) -> u64 {
        match self {
            Self::Second => HOUR as u64,
            Self::Minute => DAY as u64,
        }
    }
}

/// Columns of figures, each by its name, with a figure for each row.
pub type Named = BTreeMap<&'static str, Vec<f32>>;

/// A part of the history.
#[derive(Debug, Clone, Default)]
pub struct Columns {
    /// Seconds since the beginning of the first row.
    pub age: Duration,
    /// Rows.
    pub rows: usize,
    /// Columns of the process.
    pub process: Named,
    /// Columns of each edge.
    pub edges: BTreeMap<String, Named>,
    /// Columns of each world.
    pub worlds: BTreeMap<String, Named>,
}

/// The history of a process.
#[derive(Debug)]
pub struct History {
    began: Instant,
    table: Mutex<Table>,
    /// How many rows there have been.
    pushed: watch::Sender<u64>,
}

#[derive(Debug)]
struct Table {
    /// The number of the next row.
    next: u64,
    process: Vec<Series>,
    edges: Group<Arc<str>, EDGE_FIGURES>,
    worlds: Group<u16, WORLD_FIGURES>,
}

/// The figures of several things of one kind.
#[derive(Debug)]
struct Group<K, const N: usize> {
    most: usize,
    members: Vec<Member<K>>,
}

#[derive(Debug)]
struct Member<K> {
    key: K,
    /// The last row that had it.
    seen: u64,
    series: Vec<Series>,
}

impl Default for History {
    fn default() -> Self {
        Self::new(Instant::now())
    }
}

impl History {
    /// Makes an empty history, whose first row begins now.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let process = Figure::ALL.iter().map(|figure| Series::new(figure.fold())).collect();
        let table = Table { next: 0, process, edges: Group::new(MAX_EDGES), worlds: Group::new(MAX_WORLDS) };
        Self { began: now, table: Mutex::new(table), pushed: watch::Sender::new(0) }
    }

    /// Takes the row of the second that ends now. Rows of seconds that had none stay empty; a second one of a second is left out.
    pub fn push(&self, row: &Row, now: Instant) {
        let pushed = {
            let mut table = self.table.lock();
            // It belongs to the second in whose middle it comes.
            let number = (now.saturating_duration_since(self.began) + Duration::from_millis(500)).as_secs();
            let Some(number) = number.checked_sub(1).filter(|number| *number >= table.next) else { return };
            let empty = Row::default();
            // More than a ring has would be overwritten all the same.
            let from = table.next.max(number.saturating_sub(DAY as u64 * MINUTE));
            (from..number).for_each(|missing| table.put(missing, &empty));
            table.put(number, row);
            table.next = number + 1;
            table.next
        };
        self.pushed.send_replace(pushed);
    }

    /// Returns how many rows there have been, and each that follows.
    pub fn pushed(&self) -> watch::Receiver<u64> {
        self.pushed.subscribe()
    }

    /// Returns the columns whose names `wanted` picks, with rows that began no longer ago than `within`, the last of them at the end.
    pub fn columns(
        &self,
        step: Step,
        within: Option<Duration>,
        wanted: impl Fn(&str) -> bool,
        now: Instant,
    ) -> Columns {
        let table = self.table.lock();
        let length = step.seconds();
        let end = table.next / length;
        let passed = now.saturating_duration_since(self.began);
        let oldest = match within {
            // The first that began no earlier.
            Some(within) => passed.saturating_sub(within).as_millis().div_ceil(u128::from(length) * 1000) as u64,
            None => 0,
        };
        let from = end.saturating_sub(step.kept()).max(oldest).min(end);
        table.columns(step, from..end, wanted, passed)
    }

    /// Returns the columns of the newest second alone.
    pub fn newest(&self, now: Instant) -> Columns {
        let table = self.table.lock();
        let rows = table.next.saturating_sub(1)..table.next;
        table.columns(Step::Second, rows, |_| true, now.saturating_duration_since(self.began))
    }
}

impl Table {
    fn columns(&self, step: Step, rows: Range<u64>, wanted: impl Fn(&str) -> bool, passed: Duration) -> Columns {
        let column = |series: &Series| -> Vec<f32> {
            let figure = |row| if step == Step::Second { series.second(row) } else { series.minute(row) };
            rows.clone().map(figure).collect()
        };
        let named = |names: &mut dyn Iterator<Item = &'static str>, all: &[Series]| -> Named {
            let columns = names.zip(all).filter(|(name, _)| wanted(name));
            columns.map(|(name, series)| (name, column(series))).collect()
        };
        let of_process = named(&mut Figure::ALL.iter().map(|figure| figure.as_str()), &self.process);
        let edge = || EdgeFigure::ALL.iter().map(|figure| figure.as_str());
        let world = || WorldFigure::ALL.iter().map(|figure| figure.as_str());
        let edges = self.edges.members.iter().map(|member| (member.name(), named(&mut edge(), &member.series)));
        let worlds = self.worlds.members.iter().map(|member| (member.name(), named(&mut world(), &member.series)));
        let filled = |(_, columns): &(String, Named)| !columns.is_empty();
        Columns {
            age: passed.saturating_sub(Duration::from_secs(rows.start * step.seconds())),
            rows: rows.clone().count(),
            process: of_process,
            edges: edges.filter(filled).collect(),
            worlds: worlds.filter(filled).collect(),
        }
    }

    fn put(&mut self, number: u64, row: &Row) {
        self.process.iter_mut().zip(row.process).for_each(|(series, figure)| series.push(number, figure));
        let edge = || EdgeFigure::ALL.iter().map(|figure| figure.fold());
        let world = || WorldFigure::ALL.iter().map(|figure| figure.fold());
        self.edges.put(number, &row.edges, || edge().map(Series::new).collect());
        self.worlds.put(number, &row.worlds, || world().map(Series::new).collect());
    }
}

impl<K: Clone + PartialEq, const N: usize> Group<K, N> {
    const fn new(most: usize) -> Self {
        Self { most, members: Vec::new() }
    }

    fn put(&mut self, number: u64, row: &[(K, [f32; N])], series: impl Fn() -> Vec<Series>) {
        // One that has been gone for as long as rows are kept has none left.
        self.members.retain(|member| number.saturating_sub(member.seen) < DAY as u64 * MINUTE);
        for (key, _) in row {
            if self.members.iter().any(|member| member.key == *key) {
                continue;
            }
            if self.members.len() >= self.most {
                // One that is gone makes room, the one first that has been gone for the longest.
                let is_gone = |member: &Member<K>| row.iter().all(|(there, _)| *there != member.key);
                let gone = self.members.iter().enumerate().filter(|(_, member)| is_gone(member));
                let Some((index, _)) = gone.min_by_key(|(_, member)| member.seen) else { continue };
                self.members.swap_remove(index);
            }
            self.members.push(Member { key: key.clone(), seen: number, series: series() });
        }
        for member in &mut self.members {
            let figures = row.iter().find(|(key, _)| *key == member.key).map(|(_, figures)| figures);
            if figures.is_some() {
                member.seen = number;
            }
            let figures = figures.copied().unwrap_or([f32::NAN; N]);
            member.series.iter_mut().zip(figures).for_each(|(series, figure)| series.push(number, figure));
        }
    }
}

impl<K: Display> Member<K> {
    fn name(&self) -> String {
        self.key.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn row(sessions: f64) -> Row {
        let mut row = Row::default();
        row.set(Figure::Sessions, sessions);
        row
    }

    fn with_edges(names: impl Iterator<Item = u32>) -> Row {
        Row { edges: names.map(|name| (name.to_string().into(), [1.0; EDGE_FIGURES])).collect(), ..Row::default() }
    }

    fn all(_: &str) -> bool {
        true
    }

    #[test]
    fn rows_are_read_as_columns_and_seconds_without_one_are_empty() {
        let start = Instant::now();
        let (history, at) = (History::new(start), |second: u32| start + SECOND * second);
        for second in [1, 2, 5] {
            history.push(&row(f64::from(second)), at(second));
        }
        history.push(&row(9.0), at(5));
        let columns = history.columns(Step::Second, None, |name| name == "sessions", at(5));
        assert_eq!((columns.rows, columns.age, columns.process.len()), (5, 5 * SECOND, 1));
        let sessions = &columns.process["sessions"];
        assert_eq!((sessions[0], sessions[1], sessions[4]), (1.0, 2.0, 5.0));
        assert!(sessions[2].is_nan() && sessions[3].is_nan());
        let last = history.columns(Step::Second, Some(2 * SECOND), all, at(5));
        assert_eq!((last.rows, last.age), (2, 2 * SECOND));
        let none = history.columns(Step::Second, Some(Duration::ZERO), all, at(5));
        assert_eq!((none.rows, none.process["sessions"].len()), (0, 0));
        assert_eq!(history.columns(Step::Minute, None, all, at(5)).rows, 0);
        assert_eq!(*history.pushed().borrow(), 5);
    }

    #[test]
    fn an_hour_and_a_day_are_kept_and_no_more() {
        let start = Instant::now();
        let history = History::new(start);
        for second in 1..=2 * HOUR as u32 {
            history.push(&row(1.0), start + SECOND * second);
        }
        let end = start + SECOND * 2 * HOUR as u32;
        let seconds = history.columns(Step::Second, None, all, end);
        assert_eq!((seconds.rows, seconds.age), (HOUR, SECOND * HOUR as u32));
        assert_eq!(history.columns(Step::Minute, None, all, end).rows, 120);
        // It stood still for a week.
        let later = end + SECOND * 7 * 86_400;
        history.push(&row(7.0), later);
        let minutes = history.columns(Step::Minute, None, all, later);
        assert_eq!(minutes.rows, DAY);
        let (last, before) = minutes.process["sessions"].split_last().unwrap();
        assert!(*last == 7.0 && before.iter().all(|figure| figure.is_nan()), "it ended a minute");
        assert_eq!(history.columns(Step::Second, None, all, later).process["sessions"].last(), Some(&7.0));
    }

    #[test]
    fn edges_are_bounded_and_one_that_is_gone_makes_room() {
        let start = Instant::now();
        let history = History::new(start);
        let most = MAX_EDGES as u32;
        let names = |second: u32| {
            history.columns(Step::Second, None, all, start + SECOND * second).edges.into_keys().collect::<Vec<_>>()
        };
        history.push(&with_edges(0..most + 5), start + SECOND);
        assert_eq!(names(1).len(), MAX_EDGES);
        assert!(!names(1).contains(&most.to_string()));
        history.push(&with_edges(1..=most), start + 2 * SECOND);
        assert_eq!(names(2).len(), MAX_EDGES);
        assert!(!names(2).contains(&"0".to_owned()) && names(2).contains(&most.to_string()));
        history.push(&Row::default(), start + 3 * SECOND);
        assert_eq!(names(3).len(), MAX_EDGES, "what is gone is still to be read");
        let columns = history.columns(Step::Second, None, |name| name == "links", start + 3 * SECOND);
        let of_one = &columns.edges["1"];
        assert_eq!((of_one.len(), of_one["links"][1]), (1, 1.0));
        assert!(of_one["links"][2].is_nan() && columns.worlds.is_empty());
    }
}

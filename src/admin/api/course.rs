//! Events and history, as the API tells them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::SystemTime;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{PageSize, Time};
use crate::events::{Event, Happening};
use crate::history::{Columns, EdgeFigure, Figure, Step, WorldFigure};

/// A question about events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventsQuestion {
    /// Only those whose numbers are higher.
    pub after: Option<u64>,
    /// At the most: of more the newest.
    #[serde(default)]
    pub limit: PageSize<100>,
}

/// The last events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Events")]
pub struct EventsView {
    /// The number of the newest event there is, asked for or not.
    pub newest: u64,
    /// The newest last.
    pub events: Vec<EventView>,
}

/// Something that has happened. A field that makes no sense for its kind is missing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Event")]
pub struct EventView {
    /// Its number, higher than those of all events before, those of earlier processes included.
    pub serial: u64,
    /// Its time.
    pub time: Time,
    /// Its kind, a word of docs/admin.md.
    pub kind: String,
    /// True if something is not as it should be.
    pub warning: bool,
    /// All of it in a sentence, without the time.
    pub text: String,
    /// Events of its kind that were left out before it, as there were too many.
    pub suppressed: u64,
    /// The edge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge: Option<String>,
    /// The listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// The target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The port by which clients ask for the world.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The certificate, as `otproxy_certificate_expiry_timestamp_seconds` names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// The edge's state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The reason, a word of the metrics or of docs/fleet.md, or the first error of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// True if it goes on, or is so from now on; false if it is over, or is so no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ongoing: Option<bool>,
    /// The time that it lasted, or will last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// The time by which round trips are longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excess_seconds: Option<f64>,
    /// The edge over which more packets came first meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_to: Option<String>,
    /// How many: sessions that go on, connections that were refused, tasks that failed, errors of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Sessions that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<u64>,
    /// Whole days left; below 0 once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<i64>,
    /// The share of the connections that there may be, or of the time of all CPUs that the host gave to others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// The time for which a thread was ready to run and had no CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_queue_seconds: Option<f64>,
    /// The threads; none if all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<Vec<String>>,
}

impl Default for Time {
    fn default() -> Self {
        Self(SystemTime::UNIX_EPOCH)
    }
}

impl From<&Event> for EventView {
    fn from(event: &Event) -> Self {
        let Event { serial, time, suppressed, what } = event;
        let view = Self {
            serial: *serial,
            time: Time(*time),
            kind: what.kind().as_str().to_owned(),
            warning: what.is_warning(),
            text: what.to_string(),
            suppressed: *suppressed,
            ..Self::default()
        };
        view.with(what.clone())
    }
}

impl EventView {
    fn with(self, what: Happening) -> Self {
        match what {
            Happening::EdgeState { edge, state, cause, listed: _ } => Self {
                edge: Some(edge.to_string()),
                state: Some(state.to_owned()),
                reason: Some(cause.to_owned()),
                ..self
            },
            Happening::GameServer { port, up, reason, address: _ } => {
                let reason = (!up).then(|| reason.to_owned());
                Self { port: Some(port), ongoing: Some(!up), reason, ..self }
            }
            Happening::Target { listener, target, up } => {
                Self { listener: Some(listener), target: Some(target), ongoing: Some(!up), ..self }
            }
            Happening::Ban { network, seconds } => Self {
                network: Some(network),
                ongoing: Some(seconds.is_some()),
                seconds: seconds.map(|seconds| seconds as f64),
                ..self
            },
            Happening::Drain { listener, edge, drained } => Self { listener, edge, ongoing: Some(drained), ..self },
            Happening::Revoke { edge, revoked } => Self { edge: Some(edge), ongoing: Some(revoked), ..self },
            Happening::Reload { error, errors, restart: _ } => {
                Self { reason: error, count: Some(errors as u64), ..self }
            }
            Happening::Restart { kept, ended, seconds } => {
                Self { count: Some(kept), ended: Some(ended), seconds: Some(seconds), ..self }
            }
            Happening::Certificate { certificate, days } => {
                Self { certificate: Some(certificate), days: Some(days), ..self }
            }
            Happening::Pressure { listener, share, ongoing } => {
                Self { listener, share: Some(share), ongoing: Some(ongoing), ..self }
            }
            Happening::Attack { refused, reason, seconds } => {
                Self { count: Some(refused), reason: Some(reason), ongoing: Some(seconds.is_none()), seconds, ..self }
            }
            Happening::Defect { tasks } => Self { count: Some(tasks), ..self },
            Happening::GameStall { port, seconds, ongoing } => {
                Self { port: Some(port), seconds: Some(seconds), ongoing: Some(ongoing), ..self }
            }
            Happening::EdgeJitter { edge, excess, seconds, moved_to } => Self {
                edge: Some(edge.to_string()),
                excess_seconds: Some(excess),
                ongoing: Some(seconds.is_none()),
                seconds,
                moved_to: moved_to.map(|to| to.to_string()),
                ..self
            },
            Happening::HostDelay { seconds, threads, steal, run_queue } => Self {
                seconds: Some(seconds),
                threads: Some(threads),
                share: steal,
                run_queue_seconds: run_queue,
                ..self
            },
        }
    }
}

/// The length of a row of the history.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HistoryStep {
    /// A second; the last hour is kept.
    #[default]
    Second,
    /// A minute; the last day is kept.
    Minute,
}

impl From<HistoryStep> for Step {
    fn from(step: HistoryStep) -> Self {
        match step {
            HistoryStep::Second => Self::Second,
            HistoryStep::Minute => Self::Minute,
        }
    }
}

/// Names of figures, with commas between them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FigureNames(Vec<String>);

impl FigureNames {
    /// Returns whether it has a name; without any it has all.
    pub fn has(&self, name: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|one| one == name)
    }

    /// Returns all names that there are, those of edges and worlds included.
    pub fn known() -> impl Iterator<Item = &'static str> {
        let (of_edges, of_worlds) = (EdgeFigure::ALL.iter(), WorldFigure::ALL.iter());
        let process = Figure::ALL.iter().map(|figure| figure.as_str());
        process.chain(of_edges.map(|figure| figure.as_str())).chain(of_worlds.map(|figure| figure.as_str()))
    }
}

impl<'de> Deserialize<'de> for FigureNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let names: Vec<_> = text.split(',').map(str::to_owned).collect();
        match names.iter().find(|name| Self::known().all(|known| known != *name)) {
            None => Ok(Self(names)),
            Some(name) => Err(D::Error::custom(format!("there is no figure `{name}`"))),
        }
    }
}

impl Serialize for FigureNames {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.join(","))
    }
}

impl JsonSchema for FigureNames {
    fn schema_name() -> Cow<'static, str> {
        "FigureNames".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut names: Vec<_> = Self::known().collect();
        names.sort_unstable();
        names.dedup();
        let one = names.join("|");
        json_schema!({ "type": "string", "pattern": format!("^({one})(,({one}))*$"), "examples": ["sessions,links"] })
    }
}

/// A question about the history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HistoryQuestion {
    /// The length of a row.
    #[serde(default)]
    pub step: HistoryStep,
    /// Only rows that began at this time or later; without it all that are kept.
    pub since: Option<Time>,
    /// Only figures of these names; without it all.
    pub figures: Option<FigureNames>,
}

/// A figure; `null` where there is none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FigureValue(pub f32);

impl Serialize for FigureValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            figure if !figure.is_finite() => serializer.serialize_none(),
            // Without `.0`, as most are.
            figure if figure.fract() == 0.0 && figure.abs() < 1e15 => serializer.serialize_i64(figure as i64),
            // To a tenth of a millisecond, as far as these are times: the answer is long enough.
            figure => serializer.serialize_f64((f64::from(figure) * 1e4).round() / 1e4),
        }
    }
}

impl<'de> Deserialize<'de> for FigureValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Option::<f32>::deserialize(deserializer)?.unwrap_or(f32::NAN)))
    }
}

impl JsonSchema for FigureValue {
    fn schema_name() -> Cow<'static, str> {
        "Figure".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["number", "null"] })
    }
}

/// Columns of figures, by name.
pub type FigureColumns = BTreeMap<String, Vec<FigureValue>>;

/// A part of the history, in columns: the nth figure of each belongs to the nth row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "History")]
pub struct HistoryView {
    /// The length of a row.
    pub step_seconds: u64,
    /// The beginning of the first row.
    pub since: Time,
    /// Rows. They follow each other without a gap, the newest last.
    pub rows: u64,
    /// Figures of the process.
    pub figures: FigureColumns,
    /// Figures of each edge, at a core.
    pub edges: BTreeMap<String, FigureColumns>,
    /// Figures of each world, by the port by which clients ask for it, at a core.
    pub worlds: BTreeMap<String, FigureColumns>,
}

impl HistoryView {
    /// Returns the view of columns that were read just now.
    pub fn new(step: Step, columns: Columns, now: SystemTime) -> Self {
        let column = |(name, figures): (&str, Vec<f32>)| {
            (name.to_owned(), figures.into_iter().map(FigureValue).collect::<Vec<_>>())
        };
        Self {
            step_seconds: step.seconds(),
            since: Time(now.checked_sub(columns.age).unwrap_or(SystemTime::UNIX_EPOCH)),
            rows: columns.rows as u64,
            figures: columns.process.into_iter().map(column).collect(),
            edges: columns.edges.into_iter().map(|(edge, all)| (edge, all.into_iter().map(column).collect())).collect(),
            worlds: columns
                .worlds
                .into_iter()
                .map(|(world, all)| (world, all.into_iter().map(column).collect()))
                .collect(),
        }
    }
}

/// Figures of one row, by name.
pub type FigureRow = BTreeMap<String, FigureValue>;

/// The newest row of the history, as the stream of events tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Figures")]
pub struct FiguresView {
    /// The beginning of the row.
    pub time: Time,
    /// Figures of the process.
    pub figures: FigureRow,
    /// Figures of each edge, at a core.
    pub edges: BTreeMap<String, FigureRow>,
    /// Figures of each world, at a core.
    pub worlds: BTreeMap<String, FigureRow>,
}

impl FiguresView {
    /// Returns the last row of columns that were read just now.
    pub fn last(columns: Columns, now: SystemTime) -> Self {
        let history = HistoryView::new(Step::Second, columns, now);
        let last = |columns: FigureColumns| -> FigureRow {
            let figure = |(name, column): (String, Vec<FigureValue>)| (name, column.last().copied());
            columns.into_iter().map(figure).filter_map(|(name, figure)| Some((name, figure?))).collect()
        };
        let of_each = |all: BTreeMap<String, FigureColumns>| {
            all.into_iter().map(|(name, columns)| (name, last(columns))).collect()
        };
        Self {
            time: history.since,
            figures: last(history.figures),
            edges: of_each(history.edges),
            worlds: of_each(history.worlds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let text = |figure| serde_json::to_string(&FigureValue(figure)).unwrap();
        assert_eq!(
            [0.0, 3.0, -2.0, 1e9, 0.006_179_771, 0.031, f32::NAN, f32::INFINITY].map(text),
            ["0", "3", "-2", "1000000000", "0.0062", "0.031", "null", "null"]
        );
        let read: Vec<FigureValue> = serde_json::from_str("[1, 0.5, null]").unwrap();
        assert!(read[0].0 == 1.0 && read[1].0 == 0.5 && read[2].0.is_nan());
    }
}

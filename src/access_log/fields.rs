//! The project's own two formats: the same keys as JSON and as `key=value`.

use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::entry::{AccessLogEntry, Ended};

/// A value of a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LogField<'a> {
    /// A moment, to the millisecond, in UTC.
    Time(SystemTime),
    /// A word or a name.
    Text(&'a str),
    /// An address with a port.
    Address(SocketAddr),
    /// A number.
    Number(u64),
    /// Seconds, to the millisecond.
    Seconds(Duration),
    /// An unknown value.
    None,
}

impl<'a> LogField<'a> {
    fn text(text: Option<&'a str>) -> Self {
        text.map_or(Self::None, Self::Text)
    }
}

impl fmt::Display for LogField<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => humantime::format_rfc3339_millis(*time).fmt(f),
            Self::Text(text) => f.write_str(text),
            Self::Address(address) => address.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Seconds(duration) => write!(f, "{}.{:03}", duration.as_secs(), duration.subsec_millis()),
            Self::None => f.write_str("null"),
        }
    }
}

/// Returns all keys of an entry, in the order of the line. The set of keys depends on the entry's kind alone.
pub fn fields(entry: &AccessLogEntry) -> Vec<(&'static str, LogField<'_>)> {
    use LogField::{Number, Seconds, Text};
    let (kind, event, reason) = match &entry.what {
        Ended::Rejected(reason) => ("connection", "rejected", reason.as_str()),
        Ended::Forwarded(forwarded) => ("connection", "closed", forwarded.reason.as_str()),
        Ended::Link(link) => ("link", "closed", link.reason.as_str()),
        Ended::Session(session) => ("session", "ended", session.reason.as_str()),
    };
    let mut fields = vec![
        ("time", LogField::Time(entry.ended)),
        ("kind", Text(kind)),
        ("event", Text(event)),
        ("listener", Text(&entry.listener)),
        ("player", LogField::Address(entry.player)),
        ("edge", LogField::text(entry.edge.as_deref())),
    ];
    match &entry.what {
        Ended::Rejected(_) => fields.extend([("target", LogField::None), ("connect_seconds", LogField::None)]),
        Ended::Forwarded(forwarded) => fields.extend([
            ("target", LogField::text(forwarded.target.as_deref())),
            ("connect_seconds", forwarded.connected.map_or(LogField::None, Seconds)),
        ]),
        Ended::Link(link) => fields.push(("client", Number(link.client.0.into()))),
        Ended::Session(session) => fields.extend([
            ("client", Number(session.client.0.into())),
            ("session", Number(session.session.0.into())),
            ("port", Number(session.port.into())),
            ("target", Text(&session.target)),
            ("packets_in", Number(session.packets_in.into())),
            ("packets_out", Number(session.packets_out.into())),
        ]),
    }
    fields.extend([
        ("seconds", Seconds(entry.lasted)),
        ("bytes_in", Number(entry.bytes_in)),
        ("bytes_out", Number(entry.bytes_out)),
        ("reason", Text(reason)),
    ]);
    fields
}

/// Appends the entry as one JSON object.
pub(super) fn json(entry: &AccessLogEntry, out: &mut String) {
    let mut before = '{';
    for (key, value) in fields(entry) {
        // Writing to a string never fails.
        let _ = match value {
            LogField::Time(_) | LogField::Address(_) => write!(out, "{before}\"{key}\":\"{value}\""),
            LogField::Text(text) => write!(out, "{before}\"{key}\":{}", serde_json::Value::from(text)),
            LogField::Number(_) | LogField::Seconds(_) | LogField::None => write!(out, "{before}\"{key}\":{value}"),
        };
        before = ',';
    }
    out.push('}');
}

/// Appends the entry in the form for people: time and kind, then the known fields.
pub(super) fn text(entry: &AccessLogEntry, out: &mut String) {
    for (key, value) in fields(entry) {
        // Writing to a string never fails.
        let _ = match (key, value) {
            (_, LogField::None) => Ok(()),
            ("time", value) => write!(out, "{value}"),
            ("kind" | "event", value) => write!(out, " {value}"),
            (key, value) => write!(out, " {key}={value}"),
        };
    }
}

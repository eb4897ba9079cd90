//! HAProxy's format: the line of `option tcplog`, for programs that read it.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::entry::{AccessLogEntry, Ended, Forwarded};
use crate::connection::{AdmissionError, CloseReason};
use otproxy_config::AccessLogFile;
use otproxy_net::ConnectResult;
use otproxy_protocol::core::EndReason;

/// The server of a connection that never had one, in HAProxy's words.
const NO_SERVER: &str = "<NOSRV>";
/// The server of a link, which ends here. HAProxy names its own services in the same way.
const RELAY: &str = "<RELAY>";

/// The formatter of lines in HAProxy's format.
#[derive(Debug)]
pub(super) struct Tcplog {
    /// HAProxy writes no time zone: readers take it for their own.
    zone: TimeZone,
    /// ` HOST otproxy[PID]: `, the prefix that syslog writes into files between its own time and HAProxy's text. On
    /// stderr the journal has that already.
    syslog: Option<String>,
}

impl Tcplog {
    pub(super) fn new(file: &AccessLogFile, name: &str) -> Self {
        let syslog = match file {
            AccessLogFile::Stderr => None,
            AccessLogFile::Path(_) => {
                // Blanks separate fields.
                let host: String = name.chars().map(|c| if c.is_whitespace() { '_' } else { c }).collect();
                Some(format!(" {host} otproxy[{}]: ", std::process::id()))
            }
        };
        Self { zone: TimeZone::system(), syslog }
    }

    #[cfg(test)]
    pub(super) fn in_zone(zone: TimeZone, syslog: Option<&str>) -> Self {
        Self { zone, syslog: syslog.map(str::to_owned) }
    }

    /// Appends the line of an entry, without a line end.
    pub(super) fn line(&self, entry: &AccessLogEntry, out: &mut String) {
        if let Some(syslog) = &self.syslog {
            self.time(entry.ended, "%b %e %H:%M:%S", out);
            out.push_str(syslog);
        }
        let listener = &entry.listener;
        let server = Server::of(entry);
        // Writing into a string never fails.
        let _ = write!(out, "{}:{} [", entry.player.ip(), entry.player.port());
        self.time(entry.began(), "%d/%b/%Y:%H:%M:%S%.3f", out);
        let _ = write!(out, "] {listener} {}/{} ", server.backend, server.name);
        match (server.queued, server.connected) {
            (false, _) => out.push_str("-1/-1"),
            (true, None) => out.push_str("0/-1"),
            (true, Some(connected)) => {
                let _ = write!(out, "0/{}", connected.as_millis());
            }
        }
        let open = entry.open;
        let to_server = if server.name == NO_SERVER { 0 } else { open.carried };
        // A retry here is always with another target, which HAProxy marks.
        let redispatched = if server.retries > 0 { "+" } else { "" };
        let _ = write!(
            out,
            "/{} {} {} {}/{}/{}/{to_server}/{redispatched}{} 0/0",
            entry.lasted.as_millis(),
            entry.bytes_out,
            termination(&entry.what),
            open.process,
            open.listener,
            open.carried,
            server.retries,
        );
    }

    fn time(&self, time: SystemTime, format: &str, out: &mut String) {
        // A time beyond the year 9999 is left out.
        if let Ok(time) = Timestamp::try_from(time) {
            let _ = write!(out, "{}", time.to_zoned_datetime(self.zone.clone()).strftime(format));
        }
    }
}

/// The backend and the server, in HAProxy's terms.
struct Server<'a> {
    backend: Cow<'a, str>,
    name: &'a str,
    /// True if the connection got as far as a server's queue.
    queued: bool,
    connected: Option<Duration>,
    retries: usize,
}

impl<'a> Server<'a> {
    fn of(entry: &'a AccessLogEntry) -> Self {
        let at_once = Some(Duration::ZERO);
        let of = |backend: &'a str, name, queued, connected| Self {
            backend: backend.into(),
            name,
            queued,
            connected,
            retries: 0,
        };
        let listener = entry.listener.as_str();
        match &entry.what {
            Ended::Rejected(_) => of(listener, NO_SERVER, false, None),
            Ended::Link(_) => of(listener, RELAY, true, at_once),
            Ended::Forwarded(Forwarded { target, connected, retries, .. }) => {
                let target = target.as_deref();
                // `core/links` already has the form of a backend and a server.
                let (backend, name) = match target.and_then(|target| target.split_once('/')) {
                    Some(split) => split,
                    None => (listener, target.unwrap_or(NO_SERVER)),
                };
                Self { retries: *retries, ..of(backend, name, target.is_some(), *connected) }
            }
            Ended::Session(session) => {
                let connected = at_once.filter(|_| session.reason != EndReason::GameUnreachable);
                Self { backend: session.port.to_string().into(), ..of(listener, &session.target, true, connected) }
            }
        }
    }
}

/// Returns the two letters for how something ended: the side that ended it, and the state it was in. The tables of
/// `docs/haproxy.md` say the same.
pub fn termination(what: &Ended) -> &'static str {
    match what {
        Ended::Rejected(reason) => rejected(*reason),
        Ended::Forwarded(Forwarded { reason: CloseReason::ConnectFailed, connect, .. }) => unreached(*connect),
        Ended::Forwarded(Forwarded { reason, connected, .. }) => closed(*reason, connected.is_some()),
        Ended::Link(link) => closed(link.reason, true),
        Ended::Session(session) => ended(session.reason),
    }
}

/// Returns the letters of a refused connection.
pub fn rejected(reason: AdmissionError) -> &'static str {
    match reason {
        AdmissionError::Limit
        | AdmissionError::AddressLimit
        | AdmissionError::Rate
        | AdmissionError::ProcessLimit
        | AdmissionError::ProcessAddressLimit
        | AdmissionError::ProcessRate
        | AdmissionError::Denied
        | AdmissionError::NotAllowed
        | AdmissionError::Banned
        | AdmissionError::Untrusted
        | AdmissionError::BadHeader
        | AdmissionError::Unexpected
        | AdmissionError::NoPing
        | AdmissionError::ClientLinks
        | AdmissionError::WrongWorker
        | AdmissionError::Evicted => "PR",
        AdmissionError::Disconnected | AdmissionError::Drained => "KR",
        AdmissionError::HeaderTimeout | AdmissionError::Silent => "cR",
        AdmissionError::Closed => "CR",
    }
}

/// Returns the letters of a connection or link that was closed; `connected` says whether its target had been reached.
pub fn closed(reason: CloseReason, connected: bool) -> &'static str {
    match (reason, connected) {
        (CloseReason::Client | CloseReason::Target, _) => "--",
        (CloseReason::Idle, _) => "cD",
        (CloseReason::ConnectFailed, _) => "SC",
        (CloseReason::Status | CloseReason::Answered, _) => "LR",
        (CloseReason::NoRequest, _) => "cR",
        (CloseReason::ClientError, _) => "CD",
        (CloseReason::TargetError, _) => "SD",
        (CloseReason::ProtocolError | CloseReason::Refused, _) | (CloseReason::Evicted, true) => "PD",
        (CloseReason::Evicted, false) => "PC",
        (
            CloseReason::Shutdown
            | CloseReason::Revoked
            | CloseReason::Tunnel
            | CloseReason::Disconnected
            | CloseReason::Drained
            | CloseReason::Rejoin,
            connected,
        ) => {
            if connected {
                "KD"
            } else {
                "KC"
            }
        }
        (CloseReason::Panic, true) => "ID",
        (CloseReason::Panic, false) => "IC",
    }
}

/// Returns the letters of a connection whose target could not be reached.
pub fn unreached(result: ConnectResult) -> &'static str {
    match result {
        ConnectResult::Timeout => "sC",
        ConnectResult::Queue => "SQ",
        // Too few descriptors or ports.
        ConnectResult::NoAddress | ConnectResult::NoPrivilege | ConnectResult::Error => "RC",
        // As a rule that refuses it.
        ConnectResult::BadSource => "PR",
        ConnectResult::Ok
        | ConnectResult::Refused
        | ConnectResult::Unreachable
        | ConnectResult::Resolve
        | ConnectResult::Handshake => "SC",
    }
}

/// Returns the letters of a session that ended.
pub fn ended(reason: EndReason) -> &'static str {
    match reason {
        EndReason::ClientLeft | EndReason::GameClosed => "--",
        EndReason::LinksLost => "CD",
        EndReason::GameUnreachable => "SC",
        EndReason::ConnectQueue => "SQ",
        EndReason::ProtocolError | EndReason::Limit | EndReason::Memory | EndReason::Evicted => "PD",
        EndReason::Shutdown | EndReason::Disconnected => "KD",
        EndReason::Panic | EndReason::Restart => "ID",
    }
}

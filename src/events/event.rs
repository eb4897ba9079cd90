//! The kinds of events, and their sentences.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use otproxy_protocol::words;

/// Bytes of a text that comes from elsewhere, such as an error of a file; what is longer is cut.
pub const LONGEST_WORDS: usize = 240;

words! {
    /// The kind of an event.
    pub enum EventKind {
        /// An edge has another state, as its core judges it.
        EdgeState = "edge_state",
        /// A game server is down, or up again.
        GameServer = "game_server",
        /// A target of a listener is down, or up again.
        Target = "target",
        /// An operator bans somebody, or no more.
        Ban = "ban",
        /// An operator drains a listener, or no more.
        Drain = "drain",
        /// An operator revokes an edge, or no more.
        Revoke = "revoke",
        /// The file was read again, or could not be.
        Reload = "reload",
        /// The process goes on with what the one before has left.
        Restart = "restart",
        /// A certificate ends soon, or has ended.
        Certificate = "certificate",
        /// So many of the connections that there may be are taken that unauthenticated peers get less time, or no more.
        Pressure = "pressure",
        /// Connections are refused in numbers, or no more.
        Attack = "attack",
        /// A task failed by a defect of this program.
        Defect = "defect",
        /// A world sent nothing to anybody while people played.
        GameStall = "game_stall",
        /// Round trips over an edge are well above what they were.
        EdgeJitter = "edge_jitter",
        /// Threads of this process had no turn in time.
        HostDelay = "host_delay",
    }
}

/// Something that has happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Happening {
    /// See [`EventKind::EdgeState`].
    EdgeState {
        /// Its name.
        edge: Arc<str>,
        /// The word of its state.
        state: &'static str,
        /// The word of the reason.
        cause: &'static str,
        /// True if clients are told of it.
        listed: bool,
    },
    /// See [`EventKind::GameServer`].
    GameServer {
        /// The port by which clients ask for it.
        port: u16,
        /// Its address, as in the file.
        address: String,
        /// True if it is up.
        up: bool,
        /// The result of the last connect.
        reason: &'static str,
    },
    /// See [`EventKind::Target`].
    Target {
        /// The listener.
        listener: String,
        /// The target's name.
        target: String,
        /// True if it is up.
        up: bool,
    },
    /// See [`EventKind::Ban`].
    Ban {
        /// The network.
        network: String,
        /// The time for which it is banned; `None` if it is banned no more.
        seconds: Option<u64>,
    },
    /// See [`EventKind::Drain`].
    Drain {
        /// The listener; `None` for all.
        listener: Option<String>,
        /// The edge that does it; `None` for this process.
        edge: Option<String>,
        /// False if it takes connections again.
        drained: bool,
    },
    /// See [`EventKind::Revoke`].
    Revoke {
        /// Its name.
        edge: String,
        /// False if it is revoked no more.
        revoked: bool,
    },
    /// See [`EventKind::Reload`].
    Reload {
        /// The first error; `None` if the file is used.
        error: Option<String>,
        /// Errors.
        errors: usize,
        /// Keys that take a restart.
        restart: usize,
    },
    /// See [`EventKind::Restart`].
    Restart {
        /// Sessions that go on.
        kept: u64,
        /// Sessions that could not.
        ended: u64,
        /// The time for which they stood still.
        seconds: f64,
    },
    /// See [`EventKind::Certificate`].
    Certificate {
        /// The label that metrics have for it.
        certificate: String,
        /// Whole days until it ends; below 0 once it has.
        days: i64,
    },
    /// See [`EventKind::Pressure`].
    Pressure {
        /// The listener; `None` for the process.
        listener: Option<String>,
        /// The share of the connections that there may be.
        share: f64,
        /// False if it is over.
        ongoing: bool,
    },
    /// See [`EventKind::Attack`].
    Attack {
        /// Connections refused: in the last second if it goes on, else in all.
        refused: u64,
        /// The reason of most of them.
        reason: String,
        /// The time that it lasted; `None` if it goes on.
        seconds: Option<f64>,
    },
    /// See [`EventKind::Defect`].
    Defect {
        /// Tasks.
        tasks: u64,
    },
    /// See [`EventKind::GameStall`].
    GameStall {
        /// The port by which clients ask for the world.
        port: u16,
        /// The time for which it sent nothing so far.
        seconds: f64,
        /// True if it has sent nothing yet.
        ongoing: bool,
    },
    /// See [`EventKind::EdgeJitter`].
    EdgeJitter {
        /// Its name.
        edge: Arc<str>,
        /// The time by which round trips are longer.
        excess: f64,
        /// The time that it lasted; `None` if it goes on.
        seconds: Option<f64>,
        /// The edge over which more packets came first meanwhile, if there was one.
        moved_to: Option<Arc<str>>,
    },
    /// See [`EventKind::HostDelay`].
    HostDelay {
        /// The time for which threads had no turn.
        seconds: f64,
        /// The threads, by name; none if all of them had none.
        threads: Vec<String>,
        /// The share of the time of all CPUs that the host of this virtual machine gave to others, if that is known.
        steal: Option<f64>,
        /// The time for which the thread that waited the longest was ready to run and had no CPU, if that is known.
        run_queue: Option<f64>,
    },
}

impl Happening {
    /// Returns its kind.
    #[must_use]
    pub const fn kind(&self) -> EventKind {
        match self {
            Self::EdgeState { .. } => EventKind::EdgeState,
            Self::GameServer { .. } => EventKind::GameServer,
            Self::Target { .. } => EventKind::Target,
            Self::Ban { .. } => EventKind::Ban,
            Self::Drain { .. } => EventKind::Drain,
            Self::Revoke { .. } => EventKind::Revoke,
            Self::Reload { .. } => EventKind::Reload,
            Self::Restart { .. } => EventKind::Restart,
            Self::Certificate { .. } => EventKind::Certificate,
            Self::Pressure { .. } => EventKind::Pressure,
            Self::Attack { .. } => EventKind::Attack,
            Self::Defect { .. } => EventKind::Defect,
            Self::GameStall { .. } => EventKind::GameStall,
            Self::EdgeJitter { .. } => EventKind::EdgeJitter,
            Self::HostDelay { .. } => EventKind::HostDelay,
        }
    }

    /// Returns whether it tells that something is not as it should be.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        match self {
            Self::EdgeState { state, .. } => *state != "up",
            Self::GameServer { up, .. } | Self::Target { up, .. } => !up,
            Self::Reload { error, .. } => error.is_some(),
            Self::Restart { ended, .. } => *ended > 0,
            Self::Pressure { ongoing, .. } => *ongoing,
            Self::Attack { seconds, .. } => seconds.is_none(),
            Self::Ban { .. } | Self::Drain { .. } | Self::Revoke { .. } => false,
            Self::Certificate { .. }
            | Self::Defect { .. }
            | Self::GameStall { .. }
            | Self::EdgeJitter { .. }
            | Self::HostDelay { .. } => true,
        }
    }

    /// Returns whether it tells that something which went on is over.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        match self {
            Self::EdgeJitter { seconds, .. } | Self::Attack { seconds, .. } => seconds.is_some(),
            Self::GameStall { ongoing, .. } | Self::Pressure { ongoing, .. } => !*ongoing,
            _ => false,
        }
    }

    /// Returns it with no text that is longer than [`LONGEST_WORDS`].
    #[must_use]
    pub(super) fn cut(mut self) -> Self {
        match &mut self {
            Self::Reload { error: Some(text), .. }
            | Self::GameServer { address: text, .. }
            | Self::Attack { reason: text, .. } => cut(text),
            _ => {}
        }
        self
    }
}

fn cut(text: &mut String) {
    if text.len() > LONGEST_WORDS {
        let end = (0..=LONGEST_WORDS).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or_default());
        text.push('…');
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EdgeState { edge, state: "up", listed, .. } => {
                write!(f, "edge {edge} is well again{}", told(*listed))
            }
            Self::EdgeState { edge, state, cause, listed } => {
                write!(f, "edge {edge} is {state} ({cause}){}", told(*listed))
            }
            Self::GameServer { port, address, up: true, .. } => {
                write!(f, "the game server of world {port}, {address}, is up")
            }
            Self::GameServer { port, address, up: false, reason } => {
                write!(f, "the game server of world {port}, {address}, cannot be reached: {reason}")
            }
            Self::Target { listener, target, up: true } => write!(f, "target {target} of {listener} is up"),
            Self::Target { listener, target, up: false } => write!(f, "target {target} of {listener} is down"),
            Self::Ban { network, seconds: Some(seconds) } => {
                write!(f, "an operator bans {network} for {}", Lasting(*seconds as f64))
            }
            Self::Ban { network, seconds: None } => write!(f, "an operator bans {network} no more"),
            Self::Drain { listener, edge, drained } => {
                match listener {
                    Some(listener) => write!(f, "listener {listener}")?,
                    None => f.write_str("all listeners")?,
                }
                if let Some(edge) = edge {
                    write!(f, " of edge {edge}")?;
                }
                let (one, verb) = (listener.is_some(), if *drained { "drained" } else { "open" });
                let rest = if *drained { "" } else { " again" };
                write!(f, " {} {verb}{rest}", if one { "is" } else { "are" })
            }
            Self::Revoke { edge, revoked: true } => write!(f, "an operator revokes edge {edge}"),
            Self::Revoke { edge, revoked: false } => write!(f, "an operator revokes edge {edge} no more"),
            Self::Reload { error: Some(error), errors: 0 | 1, .. } => {
                write!(f, "the file was not taken, it goes on as it was: {error}")
            }
            Self::Reload { error: Some(error), errors, .. } => {
                write!(f, "the file was not taken, it goes on as it was: {error} (and {} more)", errors - 1)
            }
            Self::Reload { error: None, restart: 0, .. } => f.write_str("the file was read again"),
            Self::Reload { error: None, restart, .. } => {
                write!(f, "the file was read again, but for {restart} of its keys, which take a restart")
            }
            Self::Restart { kept, ended, seconds } => {
                write!(f, "{kept} sessions of the process before go on after {}", Lasting(*seconds))?;
                if *ended > 0 { write!(f, ", {ended} have ended") } else { Ok(()) }
            }
            Self::Certificate { certificate, days } if *days < 0 => {
                write!(f, "the certificate {certificate} has ended: issue it anew")
            }
            Self::Certificate { certificate, days } => {
                write!(f, "the certificate {certificate} ends in {days} days: issue it anew")
            }
            Self::Pressure { listener, share, ongoing } => {
                match listener {
                    Some(listener) => write!(f, "listener {listener}")?,
                    None => f.write_str("the process")?,
                }
                let percent = share * 100.0;
                if *ongoing {
                    write!(f, " has {percent:.0} % of the connections that it may have: peers get less time")
                } else {
                    write!(f, " has {percent:.0} % of the connections that it may have: peers get their time again")
                }
            }
            Self::Attack { refused, reason, seconds: None } => {
                write!(f, "connections are refused in numbers: {refused} in a second, most of them {reason}")
            }
            Self::Attack { refused, reason, seconds: Some(seconds) } => {
                write!(
                    f,
                    "it is over: {refused} connections were refused in {}, most of them {reason}",
                    Lasting(*seconds)
                )
            }
            Self::Defect { tasks: 1 } => {
                f.write_str("a defect of this program cost one connection or session: the log has its report")
            }
            Self::Defect { tasks } => {
                write!(f, "defects of this program cost {tasks} connections or sessions: the log has their reports")
            }
            Self::GameStall { port, seconds, ongoing: true } => {
                write!(f, "world {port} has been standing still for {}", Lasting(*seconds))
            }
            Self::GameStall { port, seconds, ongoing: false } => {
                write!(f, "world {port} stood still for {}", Lasting(*seconds))
            }
            Self::EdgeJitter { edge, excess, seconds, moved_to } => {
                write!(f, "edge {edge}: +{:.0} ms", excess * 1e3)?;
                match seconds {
                    Some(seconds) => write!(f, " for {}", Lasting(*seconds))?,
                    None => f.write_str(" since a moment ago")?,
                }
                moved_to.iter().try_for_each(|to| write!(f, ", players moved to {to}"))
            }
            Self::HostDelay { seconds, threads, steal, run_queue } => {
                match threads.as_slice() {
                    [] => f.write_str("this host was")?,
                    [one] => write!(f, "the thread {one} was")?,
                    several => write!(f, "the threads {} were", several.join(", "))?,
                }
                write!(f, " held up for {}", Lasting(*seconds))?;
                let mut more = Vec::new();
                more.extend(steal.map(|steal| format!("steal {:.0} %", steal * 100.0)));
                more.extend(run_queue.map(|waited| format!("waited for a CPU: {}", Lasting(waited))));
                if more.is_empty() { Ok(()) } else { write!(f, " ({})", more.join(", ")) }
            }
        }
    }
}

fn told(listed: bool) -> &'static str {
    if listed { ", and clients are told of it" } else { ", and clients are not told of it" }
}

/// A number of seconds, in words.
struct Lasting(f64);

impl fmt::Display for Lasting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            seconds if seconds < 0.0995 => write!(f, "{:.0} ms", seconds * 1e3),
            seconds if seconds < 9.95 => write!(f, "{seconds:.1} s"),
            seconds if seconds < 120.0 => write!(f, "{seconds:.0} s"),
            seconds if seconds < 2.0 * 3600.0 => write!(f, "{:.0} min", seconds / 60.0),
            seconds => write!(f, "{:.0} h", seconds / 3600.0),
        }
    }
}

/// An event, as the log has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its number. It grows by one from event to event, and a later process has higher ones.
    pub serial: u64,
    /// Its time.
    pub time: SystemTime,
    /// Events of its kind that were left out before it.
    pub suppressed: u64,
    /// That which has happened.
    pub what: Happening,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_says_in_a_sentence_what_has_happened() {
        let waw1: Arc<str> = "waw1".into();
        let none = || None;
        for (what, sentence) in [
            (
                Happening::EdgeState { edge: waw1.clone(), state: "out", cause: "no_trunk", listed: false },
                "edge waw1 is out (no_trunk), and clients are not told of it",
            ),
            (
                Happening::EdgeState { edge: waw1.clone(), state: "up", cause: "fine", listed: true },
                "edge waw1 is well again, and clients are told of it",
            ),
            (Happening::GameStall { port: 7172, seconds: 1.83, ongoing: false }, "world 7172 stood still for 1.8 s"),
            (
                Happening::GameStall { port: 7172, seconds: 5.0, ongoing: true },
                "world 7172 has been standing still for 5.0 s",
            ),
            (
                Happening::EdgeJitter {
                    edge: waw1.clone(),
                    excess: 0.08,
                    seconds: Some(40.0),
                    moved_to: Some("fra1".into()),
                },
                "edge waw1: +80 ms for 40 s, players moved to fra1",
            ),
            (
                Happening::EdgeJitter { edge: waw1, excess: 0.08, seconds: none(), moved_to: None },
                "edge waw1: +80 ms since a moment ago",
            ),
            (
                Happening::HostDelay { seconds: 0.9, threads: vec![], steal: Some(0.4), run_queue: None },
                "this host was held up for 0.9 s (steal 40 %)",
            ),
            (
                Happening::HostDelay {
                    seconds: 0.9,
                    threads: vec!["worker-1".to_owned()],
                    steal: None,
                    run_queue: Some(0.9),
                },
                "the thread worker-1 was held up for 0.9 s (waited for a CPU: 0.9 s)",
            ),
            (
                Happening::Ban { network: "192.0.2.0/24".to_owned(), seconds: Some(1800) },
                "an operator bans 192.0.2.0/24 for 30 min",
            ),
            (
                Happening::Drain { listener: None, edge: Some("waw1".to_owned()), drained: false },
                "all listeners of edge waw1 are open again",
            ),
            (
                Happening::Drain { listener: Some("login".to_owned()), edge: None, drained: true },
                "listener login is drained",
            ),
            (
                Happening::Reload { error: Some("edge.yaml:3: no".to_owned()), errors: 3, restart: 0 },
                "the file was not taken, it goes on as it was: edge.yaml:3: no (and 2 more)",
            ),
            (
                Happening::Restart { kept: 300, ended: 2, seconds: 2.64 },
                "300 sessions of the process before go on after 2.6 s, 2 have ended",
            ),
            (
                Happening::Certificate { certificate: "own".to_owned(), days: -1 },
                "the certificate own has ended: issue it anew",
            ),
            (
                Happening::Attack { refused: 90_000, reason: "banned".to_owned(), seconds: Some(8000.0) },
                "it is over: 90000 connections were refused in 2 h, most of them banned",
            ),
        ] {
            assert_eq!(what.to_string(), sentence);
        }
    }

    #[test]
    fn long_texts_of_others_are_cut_between_characters() {
        let error = Some("ż".repeat(LONGEST_WORDS));
        let Happening::Reload { error: Some(cut), .. } = (Happening::Reload { error, errors: 1, restart: 0 }).cut()
        else {
            panic!("it stays what it is")
        };
        assert_eq!(cut.chars().count(), LONGEST_WORDS / 2 + 1);
    }
}

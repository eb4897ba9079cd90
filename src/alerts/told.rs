//! The events that owners are told of.

use std::collections::HashSet;
use std::time::Duration;

use crate::events::{EventKind, Happening};

/// The time for which a world stands still before it is told.
pub const LEAST_STANDSTILL: Duration = crate::lag::ONGOING;

/// Returns what of a kind of event is told; `None` if nothing is. The table of docs/operations.md is this one.
pub const fn told(kind: EventKind) -> Option<&'static str> {
    match kind {
        EventKind::EdgeState => Some("an edge that is out or hit, and its next state after that"),
        EventKind::GameServer => Some("a world that cannot be reached, and that it can be again"),
        EventKind::Target => Some("a target that is down, as the core is for an edge, and that it is up again"),
        EventKind::Restart => Some("a restart that has ended sessions"),
        EventKind::Certificate => Some("each day of a certificate that ends soon, or has ended"),
        EventKind::Attack => Some("the begin of an attack, and its end with all that was refused"),
        EventKind::Defect => Some("each defect of this program"),
        EventKind::GameStall => Some("a world that stands still for 5 s or more, then and at its end"),
        EventKind::Ban
        | EventKind::Drain
        | EventKind::Revoke
        | EventKind::Reload
        | EventKind::Pressure
        | EventKind::EdgeJitter
        | EventKind::HostDelay => None,
    }
}

/// The sieve of events, which knows of what is down that owners were told so.
#[derive(Debug, Default)]
pub struct ToldEvents {
    down: HashSet<String>,
}

impl ToldEvents {
    /// Returns whether owners are told of an event. Each is asked for once, in their order.
    pub fn tells(&mut self, what: &Happening) -> bool {
        if told(what.kind()).is_none() {
            return false;
        }
        match what {
            Happening::EdgeState { edge, state, .. } => {
                let name = format!("edge {edge}");
                if matches!(*state, "out" | "hit") { self.begins(name) } else { self.down.remove(&name) }
            }
            Happening::GameServer { port, up, .. } => self.changes(format!("world {port}"), *up),
            Happening::Target { listener, target, up } => self.changes(format!("target {listener} {target}"), *up),
            Happening::Restart { ended, .. } => *ended > 0,
            Happening::GameStall { seconds, .. } => *seconds >= LEAST_STANDSTILL.as_secs_f64(),
            _ => true,
        }
    }

    fn changes(&mut self, name: String, up: bool) -> bool {
        if up { self.down.remove(&name) } else { self.begins(name) }
    }

    /// Returns true: from out to hit is news as well.
    fn begins(&mut self, name: String) -> bool {
        self.down.insert(name);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_table_is_this_one() {
        let documented = include_str!("../../docs/operations.md");
        for kind in EventKind::ALL {
            let row = told(*kind).map_or_else(|| format!("| `{kind}` | - |"), |says| format!("| `{kind}` | {says} |"));
            assert!(documented.lines().any(|line| line == row), "no line {row}");
        }
        assert!(told(EventKind::GameStall).unwrap().contains(&format!(" {} s ", LEAST_STANDSTILL.as_secs())));
    }

    #[test]
    fn the_end_is_told_of_what_was_told() {
        let mut sieve = ToldEvents::default();
        let edge = |state| Happening::EdgeState { edge: "waw1".into(), state, cause: "silent", listed: false };
        let states = ["up", "slow", "out", "hit", "slow", "up", "out", "up"].map(|state| sieve.tells(&edge(state)));
        assert_eq!(states, [false, false, true, true, true, false, true, true]);
        let world = |up| Happening::GameServer { port: 7172, address: "a".to_owned(), up, reason: "refused" };
        assert_eq!([true, false, true, true].map(|up| sieve.tells(&world(up))), [false, true, true, false]);
    }

    #[test]
    fn small_things_are_not_told() {
        let mut sieve = ToldEvents::default();
        let stall = |seconds, ongoing| Happening::GameStall { port: 7172, seconds, ongoing };
        for (what, tells) in [
            (stall(4.9, false), false),
            (stall(5.0, true), true),
            (stall(8.0, false), true),
            (Happening::Restart { kept: 9, ended: 0, seconds: 1.0 }, false),
            (Happening::Restart { kept: 9, ended: 1, seconds: 1.0 }, true),
            (Happening::Reload { error: None, errors: 0, restart: 0 }, false),
            (Happening::Defect { tasks: 1 }, true),
            (Happening::Attack { refused: 9, reason: "banned".to_owned(), seconds: None }, true),
            (Happening::Certificate { certificate: "own".to_owned(), days: 3 }, true),
        ] {
            assert_eq!(sieve.tells(&what), tells, "{what}");
        }
    }
}

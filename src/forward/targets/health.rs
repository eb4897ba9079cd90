//! The health of targets, and the choice of the next one. Pure: no I/O, and no clock of its own.
//!
//! A target is *open* if nothing is known against it, and the others are tried only if none is open. With checks, a
//! failure closes it until it passes a check; a number of failures in a row marks it down until it passes a number of
//! checks. Without checks, one failure marks it down: it is tried last for a while, longer each time, and then one
//! connection tests it for all.
//!
//! The state that an operator wants overrides all that: a target that is drained or in maintenance is never tried.

use std::hash::Hasher;
use std::time::{Duration, Instant};

use siphasher::sip::SipHasher24;

use crate::admission::HostKey;
use crate::forward::{CheckResult, TargetState};
use otproxy_config::{CheckConfig, CheckKind, Destination, ForwardTarget, TargetChoice};
use otproxy_net::Backoff;

/// The time for which an unchecked target is tried last after its first failure; it doubles with each further one.
pub const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest time for which it is tried last.
pub const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Used without jitter: the wait decides an order here, and no peer comes back at its end.
const BACKOFF: Backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);

/// A target's change to up or down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthChange {
    /// It has come up.
    Up,
    /// It has gone down.
    Down,
}

/// A target to be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Its number, which no other target of the listener ever has.
    pub target: usize,
    /// Its failures when it was chosen. Of several attempts that fail together only the first counts.
    failures: u32,
}

/// The health of the targets of one listener.
#[derive(Debug)]
pub struct TargetHealth {
    choice: TargetChoice,
    check: CheckConfig,
    targets: Vec<Health>,
    /// The number of the next new target.
    next: usize,
}

/// The last finished check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastCheck {
    /// Its result.
    pub result: CheckResult,
    /// The time of its end.
    pub at: Instant,
    /// The time from a ping to its answer.
    pub round_trip: Option<Duration>,
}

/// A target as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetSnapshot {
    /// Its name, unique in its listener.
    pub name: String,
    /// Its place, as in the file.
    pub destination: Destination,
    /// True if it is up, as far as known.
    pub up: bool,
    /// The state that the operator wants.
    pub state: TargetState,
    /// True if it gets connections only while no other is up.
    pub backup: bool,
    /// Connections now.
    pub connections: usize,
    /// The last check, if there was one.
    pub check: Option<LastCheck>,
}

#[derive(Debug)]
struct Health {
    number: usize,
    name: String,
    destination: Destination,
    backup: bool,
    max_connections: Option<usize>,
    state: TargetState,
    up: bool,
    check: Option<LastCheck>,
    /// Failures in a row until now.
    failures: u32,
    /// Checks passed in a row until now.
    passed: u32,
    /// The time from which a connection may test it again, if no check does.
    again: Option<Instant>,
    /// Connections now.
    connections: usize,
}

impl TargetHealth {
    /// Makes the health of these targets, which are up until they fail.
    pub fn new(choice: TargetChoice, check: CheckConfig, targets: &[ForwardTarget]) -> Self {
        let mut health = Self { choice, check, targets: Vec::new(), next: 0 };
        health.set(choice, check, targets);
        health
    }

    /// Replaces the targets; returns the number of each. Knowledge about a destination stays, even under another name:
    /// names are mostly places in the list. A target with a new destination keeps only the state that the operator
    /// wants for its name.
    pub fn set(&mut self, choice: TargetChoice, check: CheckConfig, targets: &[ForwardTarget]) -> Vec<usize> {
        let mut before = std::mem::take(&mut self.targets);
        for target in targets {
            let same = |standing: &Health| standing.destination == target.destination;
            let place = before.iter().position(|standing| same(standing) && standing.name == target.name);
            let mut standing = match place.or_else(|| before.iter().position(same)) {
                Some(place) => before.remove(place),
                None => Health { state: state_by_name(&before, target, targets), ..Health::new(self.next, target) },
            };
            self.next = self.next.max(standing.number + 1);
            standing.name.clone_from(&target.name);
            standing.backup = target.backup;
            standing.max_connections = target.max_connections;
            // Checks open targets that connections had closed; without checks, a test decides anew about those that
            // checks had closed.
            standing.again = standing.again.filter(|_| check.kind == CheckKind::Off);
            if check.kind == CheckKind::Off && self.is_checked() {
                (standing.up, standing.failures, standing.check) = (true, 0, None);
            }
            self.targets.push(standing);
        }
        (self.choice, self.check) = (choice, check);
        self.targets.iter().map(|standing| standing.number).collect()
    }

    /// Returns whether a target is up; `None` if it was removed.
    pub fn is_up(&self, target: usize) -> Option<bool> {
        self.targets.iter().find(|standing| standing.number == target).map(|standing| standing.up)
    }

    /// Returns the targets, in the order of the file.
    pub fn list(&self) -> Vec<TargetSnapshot> {
        let view = |standing: &Health| TargetSnapshot {
            name: standing.name.clone(),
            destination: standing.destination.clone(),
            up: standing.up,
            state: standing.state,
            backup: standing.backup,
            connections: standing.connections,
            check: standing.check,
        };
        self.targets.iter().map(view).collect()
    }

    /// Returns the state that the operator wants for a target; `None` if it was removed.
    pub fn state(&self, target: usize) -> Option<TargetState> {
        self.targets.iter().find(|standing| standing.number == target).map(|standing| standing.state)
    }

    /// Sets the state that the operator wants for the target of this name; returns its number. A target that leaves
    /// maintenance is up until it fails, as what was known of it is outdated. `None` if none has this name.
    pub fn set_state(&mut self, name: &str, state: TargetState) -> Option<(usize, Option<HealthChange>)> {
        let standing = self.targets.iter_mut().find(|standing| standing.name == name)?;
        let before = std::mem::replace(&mut standing.state, state);
        if before != TargetState::Maint || state == TargetState::Maint {
            return Some((standing.number, None));
        }
        (standing.failures, standing.passed, standing.again) = (0, 0, None);
        Some((standing.number, standing.turn(true)))
    }

    /// Chooses a target for a connection of `player` that has tried those in `tried`; `None` once it has tried all that
    /// are ready. It counts as a connection from now on, until [`TargetHealth::release`].
    pub fn choose(&mut self, player: HostKey, tried: &[usize], now: Instant) -> Option<Attempt> {
        let checked = self.is_checked();
        let choice = self.choice;
        let preferred = |standing: &&mut Health| {
            let fewest = if choice == TargetChoice::Least { standing.connections } else { 0 };
            let score = if choice == TargetChoice::Source { !score(&standing.name, player) } else { 0 };
            let open = standing.is_open(checked, now);
            (!open, !open && !standing.up, standing.backup, fewest, score)
        };
        let has_room = |standing: &Health| standing.max_connections.is_none_or(|most| standing.connections < most);
        let ready =
            self.targets.iter_mut().filter(|standing| standing.state == TargetState::Ready && has_room(standing));
        let left = ready.filter(|standing| !tried.contains(&standing.number));
        // Among equals the first one of the file is chosen.
        let standing = left.min_by_key(preferred)?;
        if !checked && standing.failures > 0 && standing.is_open(checked, now) {
            // This one tests it; all others go on as before.
            standing.again = Some(now + BACKOFF.wait(standing.failures));
        }
        standing.connections += 1;
        Some(Attempt { target: standing.number, failures: standing.failures })
    }

    /// Counts off a connection that has ended, or could not be made.
    pub fn release(&mut self, target: usize) {
        if let Some(standing) = self.standing(target) {
            standing.connections = standing.connections.saturating_sub(1);
        }
    }

    /// Records a successful connect. With checks, only they mark a target as up: one that hangs accepts too.
    pub fn connected(&mut self, tried: Attempt) -> Option<HealthChange> {
        if self.is_checked() {
            return None;
        }
        let standing = self.standing(tried.target)?;
        (standing.failures, standing.again) = (0, None);
        standing.turn(true)
    }

    /// Records a failed connect.
    pub fn failed(&mut self, tried: Attempt, now: Instant) -> Option<HealthChange> {
        let (checked, fall) = (self.is_checked(), self.check.fall);
        let standing = self.standing(tried.target)?;
        if standing.failures != tried.failures {
            return None;
        }
        standing.fail();
        if !checked {
            standing.again = Some(now + BACKOFF.wait(standing.failures));
        }
        let up = checked && standing.up && standing.failures < fall;
        standing.turn(up)
    }

    /// Records a finished check, whatever it says about the target.
    pub fn record_check(&mut self, target: usize, check: LastCheck) {
        if let Some(standing) = self.standing(target) {
            standing.check = Some(check);
        }
    }

    /// Records whether a target passed a check.
    pub fn checked(&mut self, target: usize, passed: bool) -> Option<HealthChange> {
        let CheckConfig { fall, rise, .. } = self.check;
        let standing = self.standing(target)?;
        if passed {
            standing.failures = 0;
            standing.passed = standing.passed.saturating_add(1);
        } else {
            standing.fail();
        }
        let up = if standing.up { standing.failures < fall } else { standing.passed >= rise };
        standing.turn(up)
    }

    /// Returns the health of a target; `None` if it was removed.
    fn standing(&mut self, target: usize) -> Option<&mut Health> {
        self.targets.iter_mut().find(|standing| standing.number == target)
    }

    fn is_checked(&self) -> bool {
        self.check.kind != CheckKind::Off
    }
}

impl Health {
    /// Makes the health of a target, which is up until it fails.
    fn new(number: usize, target: &ForwardTarget) -> Self {
        Self {
            number,
            name: target.name.clone(),
            destination: target.destination.clone(),
            backup: target.backup,
            max_connections: target.max_connections,
            state: TargetState::Ready,
            up: true,
            check: None,
            failures: 0,
            passed: 0,
            again: None,
            connections: 0,
        }
    }

    fn is_open(&self, checked: bool, now: Instant) -> bool {
        if checked { self.up && self.failures == 0 } else { self.again.is_none_or(|again| again <= now) }
    }

    fn fail(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.passed = 0;
    }

    fn turn(&mut self, up: bool) -> Option<HealthChange> {
        let changed = std::mem::replace(&mut self.up, up) != up;
        changed.then_some(if up { HealthChange::Up } else { HealthChange::Down })
    }
}

/// Returns the wanted state of the removed target that had the name of `target`; targets that stay have their own.
fn state_by_name(before: &[Health], target: &ForwardTarget, targets: &[ForwardTarget]) -> TargetState {
    let moved = |standing: &&Health| {
        standing.name == target.name && targets.iter().all(|other| other.destination != standing.destination)
    };
    before.iter().find(moved).map_or(TargetState::Ready, |standing| standing.state)
}

/// Returns the score of a target for a player. Each player has the best one, and the next best if that is down, while
/// all others stay where they are. Scores are the same on every edge, as the links of one player must meet at one core.
fn score(target: &str, player: HostKey) -> u64 {
    let mut hasher = SipHasher24::new();
    hasher.write(target.as_bytes());
    // This byte occurs in no name.
    hasher.write_u8(0);
    match player {
        HostKey::V4(address) => {
            hasher.write_u8(4);
            hasher.write(&address.to_be_bytes());
        }
        HostKey::V6(network) => {
            hasher.write_u8(6);
            hasher.write(&network.to_be_bytes());
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests;

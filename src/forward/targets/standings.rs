//! Which targets are up, and which of them is next. Pure: no I/O, and no clock of its own.
//!
//! A target is *open* where nothing is known against it, and only where none is open are the others tried. With checks, a
//! failure closes it until it passes a check, and so many failures in a row have it down until it passes so many. Without,
//! one failure has it down: it is tried last for a while, longer each time, and then one connection finds out for all.

use std::hash::Hasher;
use std::time::{Duration, Instant};

use siphasher::sip::SipHasher24;

use crate::config::{Check, CheckKind, Choice, ForwardTarget};
use crate::limits::AddressKey;

/// How long a target that nothing checks is tried last after its first failure; it doubles with each further one.
pub const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest that it is tried last.
pub const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A target is up or down from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is up.
    Up,
    /// It is down.
    Down,
}

/// A target to be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Try {
    /// Its place among the targets.
    pub target: usize,
    /// Its failures when it was chosen. Of many who fail together the first one tells.
    failures: u32,
}

/// What is known of the targets of one listener.
#[derive(Debug)]
pub struct Standings {
    choice: Choice,
    check: Check,
    targets: Vec<Standing>,
}

#[derive(Debug)]
struct Standing {
    name: String,
    backup: bool,
    up: bool,
    /// In a row, until now.
    failures: u32,
    /// Checks passed in a row, until now.
    passed: u32,
    /// When a connection may find out whether it is there again, where no check does.
    again: Option<Instant>,
    /// Connections now.
    connections: usize,
}

impl Standings {
    /// All are up until they fail.
    pub fn new(choice: Choice, check: Check, targets: &[ForwardTarget]) -> Self {
        let standing = |target: &ForwardTarget| Standing {
            name: target.name.clone(),
            backup: target.backup,
            up: true,
            failures: 0,
            passed: 0,
            again: None,
            connections: 0,
        };
        Self { choice, check, targets: targets.iter().map(standing).collect() }
    }

    /// The target for a connection of `player` that has tried those in `tried` in vain. `None` where it has tried all. It counts
    /// as a connection from now on, until [`Standings::left`].
    pub fn next(&mut self, player: AddressKey, tried: &[usize], now: Instant) -> Option<Try> {
        let checked = self.is_checked();
        let choice = self.choice;
        let preferred = |(index, standing): &(usize, &mut Standing)| {
            let fewest = if choice == Choice::Least { standing.connections } else { 0 };
            let score = if choice == Choice::Source { !score(&standing.name, player) } else { 0 };
            let open = standing.is_open(checked, now);
            (!open, !open && !standing.up, standing.backup, fewest, score, *index)
        };
        let left = self.targets.iter_mut().enumerate().filter(|(index, _)| !tried.contains(index));
        let (target, standing) = left.min_by_key(preferred)?;
        if !checked && standing.failures > 0 && standing.is_open(checked, now) {
            // This one finds out; all others go on as before.
            standing.again = Some(now + wait_after(standing.failures));
        }
        standing.connections += 1;
        Some(Try { target, failures: standing.failures })
    }

    /// A connection has ended, or could not be made.
    pub fn left(&mut self, target: usize) {
        if let Some(standing) = self.targets.get_mut(target) {
            standing.connections = standing.connections.saturating_sub(1);
        }
    }

    /// A connect succeeded. Where there are checks, only they say that a target is up: one that hangs accepts too.
    pub fn connected(&mut self, tried: Try) -> Option<Change> {
        if self.is_checked() {
            return None;
        }
        let standing = self.targets.get_mut(tried.target)?;
        (standing.failures, standing.again) = (0, None);
        standing.turn(true)
    }

    /// A connect failed.
    pub fn failed(&mut self, tried: Try, now: Instant) -> Option<Change> {
        let (checked, fall) = (self.is_checked(), self.check.fall);
        let standing = self.targets.get_mut(tried.target)?;
        if standing.failures != tried.failures {
            return None;
        }
        standing.fail();
        if !checked {
            standing.again = Some(now + wait_after(standing.failures));
        }
        let up = checked && standing.up && standing.failures < fall;
        standing.turn(up)
    }

    /// A check has ended.
    pub fn checked(&mut self, target: usize, passed: bool) -> Option<Change> {
        let Check { fall, rise, .. } = self.check;
        let standing = self.targets.get_mut(target)?;
        if passed {
            standing.failures = 0;
            standing.passed = standing.passed.saturating_add(1);
        } else {
            standing.fail();
        }
        let up = if standing.up { standing.failures < fall } else { standing.passed >= rise };
        standing.turn(up)
    }

    fn is_checked(&self) -> bool {
        self.check.kind != CheckKind::Off
    }
}

impl Standing {
    fn is_open(&self, checked: bool, now: Instant) -> bool {
        if checked { self.up && self.failures == 0 } else { self.again.is_none_or(|again| again <= now) }
    }

    fn fail(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.passed = 0;
    }

    fn turn(&mut self, up: bool) -> Option<Change> {
        let changed = std::mem::replace(&mut self.up, up) != up;
        changed.then_some(if up { Change::Up } else { Change::Down })
    }
}

/// How long a target is tried last after so many failures in a row.
fn wait_after(failures: u32) -> Duration {
    FIRST_WAIT.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_WAIT)
}

/// How well a target suits a player: each player has the best one, and where that is away the next best, while all others stay
/// where they are. The same on every edge, whose links of one player must meet at one core.
fn score(target: &str, player: AddressKey) -> u64 {
    let mut hasher = SipHasher24::new();
    hasher.write(target.as_bytes());
    // No byte of a name.
    hasher.write_u8(0);
    match player {
        AddressKey::V4(address) => {
            hasher.write_u8(4);
            hasher.write(&address.to_be_bytes());
        }
        AddressKey::V6(network) => {
            hasher.write_u8(6);
            hasher.write(&network.to_be_bytes());
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests;

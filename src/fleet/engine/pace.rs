//! The round trips over an edge beside those that are normal for it: players from afar are no fault.

use std::time::{Duration, Instant};

use super::PRIORITY_STEP;
use crate::fleet::evidence::EdgeEvidence;

/// The time within which longer round trips become normal.
pub const NORMAL_WITHIN: Duration = Duration::from_secs(30 * 60);
/// The least that round trips must be above normal for an edge to be slow.
pub const LEAST_EXCESS: Duration = Duration::from_millis(30);
/// Rounds in a row for which they must be, and must not be for it to be slow no more.
pub const SLOW_ROUNDS: u32 = 5;
/// The share of a new sample in what is held of the present, and of a shorter one in what is normal: one in so many.
const NEW: u32 = 4;

/// The pace of an edge.
#[derive(Debug, Default)]
pub(super) struct Pace {
    players: Course,
    probes: Course,
    /// Rounds in a row that speak against what is held of it.
    against: u32,
    excess: Option<Duration>,
}

/// The round trips of one kind.
#[derive(Debug, Default)]
struct Course {
    last: Option<Instant>,
    normal: Duration,
    present: Duration,
}

impl Course {
    /// Takes a round trip; returns by how much they are above normal.
    fn add(&mut self, sample: Option<Duration>, now: Instant) -> Option<Duration> {
        let sample = sample?;
        let Some(last) = self.last.replace(now) else {
            (self.normal, self.present) = (sample, sample);
            return Some(Duration::ZERO);
        };
        self.present = (self.present * (NEW - 1) + sample) / NEW;
        if self.present < self.normal {
            self.normal = (self.normal * (NEW - 1) + self.present) / NEW;
        } else {
            let share = now.saturating_duration_since(last).as_secs_f64() / NORMAL_WITHIN.as_secs_f64();
            self.normal += self.present.saturating_sub(self.normal).mul_f64(share.min(1.0));
        }
        Some(self.present.saturating_sub(self.normal))
    }
}

impl Pace {
    /// Takes a round's evidence.
    pub fn add(&mut self, seen: &EdgeEvidence, now: Instant) {
        let mut probes: Vec<_> = seen.probes.iter().filter_map(|probe| probe.round_trip).collect();
        probes.sort_unstable();
        let middle = probes.get(probes.len() / 2).copied();
        let excess = (self.players.add(seen.round_trip, now), self.probes.add(middle, now));
        // Players that come from elsewhere change the one, and an edge that is far from others and slow itself the other: an edge that is
        // slow changes both.
        self.excess = match excess {
            (Some(players), Some(probes)) => Some(players.min(probes)),
            (one, other) => one.or(other),
        };
    }

    /// Returns whether it is slow, as it was before or not.
    pub fn is_slow(&mut self, before: bool) -> bool {
        let now = self.excess.map_or(before, |excess| excess >= LEAST_EXCESS);
        self.against = if now == before { 0 } else { self.against.saturating_add(1) };
        if self.against >= SLOW_ROUNDS { now } else { before }
    }

    /// Returns what is to be added to the priority, in ms and steps of 10.
    pub fn steps(&self) -> u16 {
        let steps = self.excess.unwrap_or_default().as_millis() / u128::from(PRIORITY_STEP);
        u16::try_from(steps).unwrap_or(u16::MAX / PRIORITY_STEP).saturating_mul(PRIORITY_STEP)
    }
}

//! A world that stands still. Pure.
//!
//! A game server that is held up, as by a save or a script, sends nothing to anybody, and then all at once to all. A quiet world with
//! a few players who stand about sends little too. So a silence is a stall only if all of this holds: it is long beside the usual gaps
//! of this world; several sessions had bytes together shortly before; players sent something meanwhile; and several sessions go on together
//! at its end.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The time from one look to the next.
pub const LOOK: Duration = Duration::from_millis(50);
/// The least silence that is a stall: players feel it.
pub const LEAST_STALL: Duration = Duration::from_millis(200);
/// A stall is longer than so many times the usual gap, which 95 % of the last gaps did not exceed.
pub const TIMES_USUAL: u32 = 3;
/// The share of gaps that are usual, in percent.
pub const USUAL: usize = 95;
/// The last gaps by which the usual one is known. In a busy world they are some 25 s, in a quiet one minutes.
pub const GAPS: usize = 512;
/// Gaps before which nothing is usual.
pub const LEAST_GAPS: usize = 32;
/// The time before a silence in which several sessions must have had bytes together.
pub const PLAYED_WITHIN: Duration = Duration::from_secs(10);
/// Packets that players must have sent during it.
pub const LEAST_ACTS: u64 = 2;
/// The share of those sessions that must go on together: one of so many, and two at the least.
pub const RESUMED_SHARE: u32 = 4;
/// The time after its end after which a stall is judged: by then all sessions go on, and threads that were held up have said so.
const SETTLED: Duration = Duration::from_millis(250);
/// The silence that is told of while it goes on.
pub const ONGOING: Duration = Duration::from_secs(5);

/// A world since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorldSeen {
    /// Sessions that had bytes from it.
    pub heard: u32,
    /// Packets from players.
    pub acts: u64,
    /// Sessions alive.
    pub sessions: u64,
}

/// A stall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stall {
    /// The look at which the world was last heard before it.
    pub from: Instant,
    /// The look before which it was heard again, or the present one.
    pub until: Instant,
    /// Its length, as well as looks tell.
    pub length: Duration,
    /// True if it goes on.
    pub ongoing: bool,
}

/// The watch over one world.
#[derive(Debug, Default)]
pub struct WorldWatch {
    /// The last look.
    last: Option<Instant>,
    /// The last look at which it was heard.
    heard: Option<Instant>,
    /// Packets from players since then.
    acts: u64,
    /// The last gaps, in ms; 0 for two looks in a row.
    gaps: VecDeque<u16>,
    /// The most sessions that were heard in one look, by second.
    peaks: VecDeque<(Instant, u32)>,
    /// A stall whose end is not settled yet.
    ended: Option<Ended>,
    /// True once the present silence was told of.
    told: bool,
}

#[derive(Debug)]
struct Ended {
    stall: Stall,
    /// Sessions that were heard together before.
    peak: u32,
    /// Sessions that went on together.
    resumed: u32,
    settled: Instant,
}

impl WorldWatch {
    /// Takes a look. Returns a stall that is over, or one that goes on for long, each once.
    pub fn look(&mut self, seen: WorldSeen, now: Instant) -> Option<Stall> {
        let before = self.last.replace(now)?;
        if seen.sessions == 0 {
            // The usual gaps are the only thing that outlives an empty world.
            *self = Self { last: Some(now), gaps: std::mem::take(&mut self.gaps), ..Self::default() };
            return None;
        }
        if let Some(ended) = &mut self.ended {
            ended.resumed = ended.resumed.max(seen.heard);
        }
        let Some(heard) = self.heard else {
            self.heard = (seen.heard > 0).then_some(now);
            return None;
        };
        if seen.heard == 0 {
            self.acts += seen.acts;
            return self.settle(now).or_else(|| self.goes_on(heard, now));
        }
        let quiet = before.saturating_duration_since(heard);
        let judged = self.end(heard, now, quiet, seen.heard);
        self.learn(quiet, seen.heard, now);
        (self.heard, self.acts, self.told) = (Some(now), 0, false);
        judged.or_else(|| self.settle(now))
    }

    /// Takes note of a silence that may have been a stall. Returns one before it whose time to settle that cuts short.
    fn end(&mut self, heard: Instant, now: Instant, quiet: Duration, resumed: u32) -> Option<Stall> {
        // The world fell silent somewhere in the look before, and was heard somewhere in this one.
        let length = quiet + LOOK;
        if quiet.is_zero() || !self.is_stall(length) {
            return None;
        }
        let stall = Stall { from: heard, until: now, length, ongoing: false };
        let ended = Ended { stall, peak: self.peak(), resumed, settled: now + SETTLED };
        self.ended.replace(ended).and_then(|earlier| earlier.verdict())
    }

    fn goes_on(&mut self, heard: Instant, now: Instant) -> Option<Stall> {
        let length = now.saturating_duration_since(heard);
        if self.told || length < ONGOING || !self.is_stall(length) {
            return None;
        }
        self.told = true;
        Some(Stall { from: heard, until: now, length, ongoing: true })
    }

    fn settle(&mut self, now: Instant) -> Option<Stall> {
        self.ended.take_if(|ended| now >= ended.settled)?.verdict()
    }

    /// Returns whether a silence of that length is one while people play.
    fn is_stall(&self, length: Duration) -> bool {
        length >= LEAST_STALL
            && self.acts >= LEAST_ACTS
            && self.peak() >= 2
            && self.usual().is_some_and(|usual| length > usual * TIMES_USUAL)
    }

    /// Returns the gap that most do not exceed, once there are enough.
    fn usual(&self) -> Option<Duration> {
        if self.gaps.len() < LEAST_GAPS {
            return None;
        }
        let mut gaps: Vec<_> = self.gaps.iter().copied().collect();
        gaps.sort_unstable();
        let place = (gaps.len() * USUAL).div_ceil(100).saturating_sub(1);
        gaps.get(place).map(|gap| Duration::from_millis((*gap).into()))
    }

    fn peak(&self) -> u32 {
        self.peaks.iter().map(|(_, heard)| *heard).max().unwrap_or_default()
    }

    fn learn(&mut self, quiet: Duration, heard: u32, now: Instant) {
        if self.gaps.len() >= GAPS {
            self.gaps.pop_front();
        }
        self.gaps.push_back(u16::try_from(quiet.as_millis()).unwrap_or(u16::MAX));
        self.peaks.retain(|(at, _)| now.saturating_duration_since(*at) < PLAYED_WITHIN);
        match self.peaks.back_mut() {
            Some((at, peak)) if now.saturating_duration_since(*at) < Duration::from_secs(1) => *peak = heard.max(*peak),
            _ => self.peaks.push_back((now, heard)),
        }
    }
}

impl Ended {
    fn verdict(self) -> Option<Stall> {
        let is_together = self.resumed >= 2 && self.resumed.saturating_mul(RESUMED_SHARE) >= self.peak;
        is_together.then_some(self.stall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A world that is looked at in made-up time.
    struct World {
        watch: WorldWatch,
        now: Instant,
        found: Vec<Stall>,
    }

    impl World {
        fn new() -> Self {
            Self { watch: WorldWatch::default(), now: Instant::now(), found: Vec::new() }
        }

        /// Looks so many times at a world of which so many sessions hear and whose players send so much, each time.
        fn looks(&mut self, count: u32, heard: u32, acts: u64) {
            for _ in 0..count {
                self.now += LOOK;
                self.found.extend(self.watch.look(WorldSeen { heard, acts, sessions: 100 }, self.now));
            }
        }

        /// Plays for half a minute.
        fn play(heard: u32) -> Self {
            let mut world = Self::new();
            world.looks(600, heard, 5);
            world
        }

        fn lengths(&self) -> Vec<u128> {
            self.found.iter().map(|stall| stall.length.as_millis()).collect()
        }
    }

    #[test]
    fn a_silence_after_which_all_go_on_together_is_a_stall() {
        let mut world = World::play(50);
        world.looks(35, 0, 5);
        world.looks(4, 60, 5);
        assert!(world.found.is_empty(), "it waits for the end to settle");
        world.looks(10, 60, 5);
        assert_eq!(world.lengths(), [1800]);
        assert!(!world.found[0].ongoing);
        world.looks(1000, 60, 5);
        assert_eq!(world.found.len(), 1, "once");
    }

    #[test]
    fn a_silence_is_none_without_players_who_act_or_with_one_alone_or_if_it_is_short() {
        for (heard, quiet, acts, resumed) in
            [(50, 35, 0, 50), (1, 35, 5, 1), (50, 35, 5, 1), (50, 2, 5, 50), (2, 35, 5, 1)]
        {
            let mut world = World::play(heard);
            world.looks(quiet, 0, acts);
            world.looks(100, resumed, 5);
            assert_eq!(world.found, [], "{heard} {quiet} {acts} {resumed}");
        }
        let mut alone = World::play(50);
        alone.looks(35, 0, 5);
        // One goes on, and the others long after.
        alone.looks(10, 1, 5);
        alone.looks(10, 50, 5);
        assert_eq!(alone.found, []);
    }

    #[test]
    fn a_quiet_world_is_judged_by_its_own_gaps() {
        let mut world = World::new();
        for gap in 0..400 {
            world.looks(5 + gap % 10, 0, 1);
            world.looks(1, 3, 1);
        }
        assert_eq!(world.found, [], "half a second is usual here");
        world.looks(60, 0, 1);
        world.looks(10, 3, 1);
        assert_eq!(world.lengths(), [3050]);
        // A world that comes to rest is no stall either: gaps grow as players go to bed.
        let mut evening = World::play(10);
        for gap in 1..60 {
            for _ in 0..20 {
                evening.looks(gap / 4, 0, 1);
                evening.looks(1, 3, 1);
            }
        }
        assert_eq!(evening.found, []);
    }

    #[test]
    fn stalls_that_come_again_and_again_are_all_found() {
        let mut world = World::play(50);
        for _ in 0..20 {
            world.looks(10, 0, 5);
            world.looks(100, 50, 5);
        }
        assert_eq!(world.found.len(), 20);
    }

    #[test]
    fn one_that_goes_on_is_told_of_once_and_then_its_end() {
        let mut world = World::play(50);
        world.looks(200, 0, 5);
        assert_eq!((world.found.len(), world.found[0].ongoing, world.lengths()[0]), (1, true, 5000));
        world.looks(10, 50, 5);
        assert_eq!((world.found.len(), world.found[1].ongoing, world.lengths()[1]), (2, false, 10_050));
        // The server ends, and all players with it.
        world.looks(90, 0, 5);
        world.now += LOOK;
        assert_eq!(world.watch.look(WorldSeen::default(), world.now), None);
        world.looks(100, 0, 5);
        world.looks(100, 50, 5);
        assert_eq!(world.found.len(), 2, "those who log in later wait for nothing");
    }

    #[test]
    fn a_look_that_comes_late_is_no_silence() {
        let mut world = World::play(50);
        for _ in 0..10 {
            world.now += Duration::from_secs(2);
            world.looks(20, 50, 5);
        }
        assert_eq!(world.found, []);
        assert_eq!(world.watch.usual(), Some(Duration::ZERO));
    }
}

//! The measurements of players, and the figures made of them.

use std::time::Duration;

use crate::Direction;
use crate::delivery::{Delivery, DeliveryCheck};
use crate::player::PathStats;

use super::histogram::Histogram;

/// The measurements of one thread's players. Times are in nanoseconds, of packets that were to be sent after the
/// warm-up.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    /// Packets that players have sent, the warm-up included.
    pub sent: u64,
    /// Packets that players have got, the warm-up included.
    pub received: u64,
    /// From when a packet was to be sent to the arrival of its answer.
    pub round_trip: Histogram,
    /// From when a player's packet was to be sent to its arrival at the game server.
    pub up: Histogram,
    /// From when a packet of the game server was to be sent to its arrival at the player.
    pub down: Histogram,
    /// From when a player's packet was to be sent to when it was.
    pub late: Histogram,
}

impl Meter {
    pub(super) fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.received += other.received;
        self.round_trip.add(&other.round_trip);
        self.up.add(&other.up);
        self.down.add(&other.down);
        self.late.add(&other.late);
    }
}

/// The final report of one player.
#[derive(Debug, Default)]
pub(super) struct BenchTally {
    /// Its packets, numbered from 1.
    pub sent: u64,
    /// Answers to them.
    pub answered: u64,
    /// The check of the packets that the game server numbered.
    pub received: DeliveryCheck,
    /// The game server's account: packets that it sent, and what became of the player's. `None` where
    /// it has not come.
    pub verdict: Option<(u64, Delivery)>,
    /// Packets that nobody should send.
    pub strange: u64,
    /// Frames that known clients would have lost or cut wrongly, and impossible acks.
    pub violations: u64,
    /// The line died, and not by the player's will.
    pub ended: bool,
    /// Its paths; none on a plain connection.
    pub paths: Vec<PathStats>,
    /// Losses of each path before the player was in the game: connects that failed.
    pub failed_before: Vec<u64>,
}

/// One address in `--edges`, over all players.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PathReport {
    /// Links that stood at the end.
    pub links: u64,
    /// Packets that it brought first.
    pub first: u64,
    /// Packets that another had brought before.
    pub second: u64,
    /// Connects that failed, or came to nothing, before their player was in the game.
    pub connects_failed: u64,
    /// Links lost afterwards.
    pub links_lost: u64,
}

/// The result of a load test.
#[derive(Debug, Clone, Default)]
pub struct LoadReport {
    /// Players that were in the game.
    pub players: u64,
    /// To the game server, the warm-up included.
    pub to_game: Direction,
    /// To the players, the warm-up included.
    pub to_players: Direction,
    /// From when a player's packet was to be sent to the arrival of its answer.
    pub round_trip: Histogram,
    /// One way to the game server; empty where that has another clock.
    pub up: Histogram,
    /// One way to the player; empty where the game server has another clock.
    pub down: Histogram,
    /// The delay with which players' packets were sent: this process's own part.
    pub late: Histogram,
    /// Sessions that ended although nobody left.
    pub ended: u64,
    /// Sessions without the game server's account at the end.
    pub unanswered: u64,
    /// Frames that known clients would have lost or cut wrongly.
    pub violations: u64,
    /// The addresses in `--edges`, in their order; none for plain connections.
    pub paths: Vec<PathReport>,
    /// The time that was measured.
    pub measured: Duration,
    /// The CPU time of this process meanwhile.
    pub cpu: Duration,
    /// It was ended before its time.
    pub early: bool,
}

impl LoadReport {
    /// Sums what players measured, and what they say of it.
    pub(super) fn of(meter: Meter, tallies: &[BenchTally], paths: usize) -> Self {
        let Meter { round_trip, up, down, late, .. } = meter;
        let paths = vec![PathReport::default(); paths];
        let mut sums = Self { players: tallies.len() as u64, round_trip, up, down, late, paths, ..Self::default() };
        for tally in tallies {
            sums.add(tally);
        }
        sums
    }

    fn add(&mut self, tally: &BenchTally) {
        let (sent, arrived) = tally.verdict.unwrap_or_else(|| {
            // An unanswered packet counts as lost: nobody can say otherwise.
            let lost = tally.sent.saturating_sub(tally.answered);
            let arrived = Delivery { delivered: tally.sent - lost, lost, exact: true, ..Delivery::default() };
            (tally.received.highest(), arrived)
        });
        self.to_game.add(tally.sent, arrived);
        let mut received = tally.received.verdict(sent);
        received.alien += tally.strange;
        self.to_players.add(sent, received);
        self.ended += u64::from(tally.ended);
        self.unanswered += u64::from(tally.verdict.is_none());
        self.violations += tally.violations;
        for (index, path) in tally.paths.iter().enumerate() {
            let failed = tally.failed_before.get(index).copied().unwrap_or(0);
            if let Some(sum) = self.paths.get_mut(index) {
                sum.links += u64::from(path.ready);
                sum.first += path.first;
                sum.second += path.duplicates;
                sum.connects_failed += failed;
                sum.links_lost += path.losses.saturating_sub(failed);
            }
        }
    }

    /// Returns whether packets were sent and all arrived, once and in order, and all sessions lasted.
    pub fn passed(&self) -> bool {
        let faults = (self.ended, self.unanswered, self.violations);
        self.to_players.sent > 0 && self.to_game.perfect() && self.to_players.perfect() && faults == (0, 0, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(sent: u64, received: &[u64], verdict: Option<(u64, Delivery)>) -> BenchTally {
        let mut tally = BenchTally { sent, answered: sent.saturating_sub(1), verdict, ..BenchTally::default() };
        received.iter().for_each(|number| tally.received.see(*number));
        tally
    }

    fn figures(tally: BenchTally) -> LoadReport {
        LoadReport::of(Meter::default(), &[tally], 1)
    }

    const ALL: Delivery = Delivery { delivered: 3, lost: 0, duplicated: 0, reordered: 0, alien: 0, exact: true };

    #[test]
    fn all_that_arrives_once_and_in_order_passes() {
        let figures = figures(tally(3, &[1, 2, 3, 4], Some((4, ALL))));
        assert!(figures.passed(), "{figures:?}");
        assert_eq!((figures.to_game.delivered, figures.to_players.delivered), (3, 4));
    }

    #[test]
    fn every_fault_fails() {
        let lost = Delivery { delivered: 2, lost: 1, ..ALL };
        for (fault, what) in [
            (tally(3, &[1, 2, 3], Some((4, ALL))), "the last one to the player is lost"),
            (tally(3, &[1, 2, 2], Some((2, ALL))), "doubled"),
            (tally(3, &[2, 1], Some((2, ALL))), "out of order"),
            (tally(3, &[1, 2, 3], Some((2, ALL))), "never sent"),
            (tally(3, &[1], Some((1, lost))), "one to the game server is lost"),
            (tally(3, &[1], None), "no account"),
            (BenchTally { ended: true, ..tally(3, &[1], Some((1, ALL))) }, "ended"),
            (BenchTally { strange: 1, ..tally(3, &[1], Some((1, ALL))) }, "strange"),
            (BenchTally { violations: 1, ..tally(3, &[1], Some((1, ALL))) }, "a gap"),
            (tally(0, &[], Some((0, Delivery { delivered: 0, ..ALL }))), "nothing was sent"),
        ] {
            assert!(!figures(fault).passed(), "{what}");
        }
    }

    #[test]
    fn without_an_account_what_is_not_answered_is_lost() {
        let figures = figures(tally(3, &[1, 2], None));
        assert_eq!((figures.to_game.delivered, figures.to_game.lost, figures.unanswered), (2, 1, 1));
    }

    #[test]
    fn a_path_that_failed_at_first_has_lost_no_link() {
        let path = PathStats { ready: true, losses: 3, first: 5, duplicates: 4, ..PathStats::default() };
        let tally = BenchTally { paths: vec![path], failed_before: vec![2], ..tally(3, &[1], Some((1, ALL))) };
        let expected = PathReport { links: 1, first: 5, second: 4, connects_failed: 2, links_lost: 1 };
        assert_eq!(figures(tally).paths, [expected]);
    }
}

//! Sums over all players and both directions, and what they prove.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use crate::Direction;
use crate::delivery::Delivery;
use crate::mock::game_server::ConnectionStats;

use super::seat::DemoTally;

/// The counts of all packets of all players.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DemoReport {
    /// Players that have taken a seat.
    pub players: u64,
    /// To the game server.
    pub to_game: Direction,
    /// To the players.
    pub to_players: Direction,
    /// Sessions that ended although nobody left.
    pub ended: u64,
    /// Connections to the game server beyond one for each player.
    pub extra: u64,
    /// Frames that known clients would have lost or cut wrongly.
    pub violations: u64,
}

impl DemoReport {
    /// Sums `players`' tallies with what the game server received (`arrived`) before they were read,
    /// and what it had sent (`sent`) after they were.
    pub(super) fn of(players: &[(Ipv4Addr, DemoTally)], arrived: &[ConnectionStats], sent: &[ConnectionStats]) -> Self {
        let (arrived, sent) = (by_player(arrived), by_player(sent));
        let mut sums = Self { players: players.len() as u64, ..Self::default() };
        for (address, tally) in players {
            let nothing = ConnectionStats {
                received: Delivery { exact: true, ..Delivery::default() },
                ..ConnectionStats::default()
            };
            let (arrived, _) = arrived.get(address).copied().unwrap_or((nothing, 0));
            let (sent, connections) = sent.get(address).copied().unwrap_or((nothing, 0));
            let mut received = arrived.received;
            // Its check does not know how far the numbers go.
            received.alien += arrived.highest.saturating_sub(tally.sent);
            sums.to_game.add(tally.sent, received);
            sums.to_players.add(sent.pushed, above(tally.pushes.so_far(), tally.pushes.highest(), sent.pushed));
            // A packet that did not reach the game server cannot come back: it is lost once, not twice.
            let mut echoes = above(tally.echoes.so_far(), tally.echoes.highest(), sent.highest);
            echoes.lost = echoes.lost.saturating_sub(arrived.received.lost);
            sums.to_players.add(sent.echoed, echoes);
            sums.ended += u64::from(tally.ended);
            sums.extra += connections.saturating_sub(1);
            sums.violations += tally.violations;
        }
        sums
    }

    /// Returns whether no packet is on its way any more.
    pub fn settled(&self) -> bool {
        self.to_game.under_way() == 0 && self.to_players.under_way() == 0
    }

    /// Returns the counts as they are when nothing more will arrive: packets on their way are lost.
    #[must_use]
    pub fn at_the_end(mut self) -> Self {
        for direction in [&mut self.to_game, &mut self.to_players] {
            direction.lost += direction.under_way();
        }
        self
    }

    /// Returns whether everything arrived, once and in order, and all sessions lasted.
    pub fn perfect(&self) -> bool {
        self.to_game.perfect() && self.to_players.perfect() && (self.ended, self.extra, self.violations) == (0, 0, 0)
    }
}

/// Counts what arrived above `sent` as alien.
fn above(mut proof: Delivery, highest: u64, sent: u64) -> Delivery {
    proof.alien += highest.saturating_sub(sent);
    proof
}

/// Returns the last connection of each player, and the number of its connections.
fn by_player(connections: &[ConnectionStats]) -> HashMap<Ipv4Addr, (ConnectionStats, u64)> {
    let mut players: HashMap<Ipv4Addr, (ConnectionStats, u64)> = HashMap::new();
    for connection in connections {
        if let Some(player) = connection.player {
            let entry = players.entry(player).or_insert((*connection, 0));
            *entry = (*connection, entry.1 + 1);
        }
    }
    players
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::DeliveryCheck;

    const PLAYER: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 1);

    fn check(numbers: &[u64]) -> DeliveryCheck {
        let mut check = DeliveryCheck::new();
        numbers.iter().for_each(|number| check.see(*number));
        check
    }

    fn connection(arrived: &[u64], pushed: u64) -> ConnectionStats {
        let check = check(arrived);
        ConnectionStats {
            player: Some(PLAYER),
            received: check.so_far(),
            highest: check.highest(),
            echoed: arrived.len() as u64,
            pushed,
            ..ConnectionStats::default()
        }
    }

    fn figures(sent: u64, arrived: &[u64], echoes: &[u64], pushed: u64, pushes: &[u64]) -> DemoReport {
        let tally = DemoTally { sent, echoes: check(echoes), pushes: check(pushes), ..DemoTally::default() };
        let connections = [connection(arrived, pushed)];
        DemoReport::of(&[(PLAYER, tally)], &connections, &connections)
    }

    #[test]
    fn all_that_arrives_once_and_in_order_is_perfect() {
        let figures = figures(3, &[1, 2, 3], &[1, 2, 3], 2, &[1, 2]);
        assert!(figures.settled() && figures.perfect() && figures.at_the_end().perfect());
        assert_eq!((figures.to_game.sent, figures.to_players.sent), (3, 5));
    }

    #[test]
    fn what_is_under_way_is_lost_only_at_the_end() {
        let figures = figures(3, &[1, 2], &[1], 2, &[1]);
        assert!(!figures.settled());
        assert_eq!((figures.to_game.lost, figures.to_players.lost), (0, 0));
        assert_eq!((figures.to_game.under_way(), figures.to_players.under_way()), (1, 2));
        let end = figures.at_the_end();
        assert_eq!((end.to_game.lost, end.to_players.lost), (1, 2));
        assert!(!end.perfect());
    }

    #[test]
    fn what_never_reached_the_game_server_is_lost_once() {
        let figures = figures(3, &[1, 3], &[1, 3], 0, &[]);
        assert_eq!((figures.to_game.lost, figures.to_players.lost), (1, 0));
        assert!(figures.settled() && !figures.perfect());
    }

    #[test]
    fn doubles_disorder_and_strangers_are_seen() {
        let doubled = figures(2, &[1, 2], &[1, 2, 2], 0, &[]);
        assert!(!doubled.perfect() && doubled.to_players.duplicated == 1);
        let disorder = figures(2, &[2, 1], &[2, 1], 0, &[]);
        assert!(!disorder.perfect() && disorder.to_game.reordered == 1);
        let alien = figures(1, &[1, 2], &[1], 1, &[1, 2]);
        assert!(alien.to_game.alien == 1 && alien.to_players.alien == 1);
    }

    #[test]
    fn a_session_that_ends_or_is_opened_twice_is_no_success() {
        let tally = DemoTally { ended: true, ..DemoTally::default() };
        let connections = [connection(&[], 0); 2];
        let figures = DemoReport::of(&[(PLAYER, tally)], &connections, &connections);
        assert_eq!((figures.ended, figures.extra), (1, 1));
        assert!(!figures.perfect());
    }

    #[test]
    fn a_player_without_a_connection_has_lost_all_that_it_sent() {
        let tally = DemoTally { sent: 4, ..DemoTally::default() };
        let figures = DemoReport::of(&[(PLAYER, tally)], &[], &[]);
        assert!(!figures.settled());
        assert_eq!(figures.at_the_end().to_game.lost, 4);
    }
}

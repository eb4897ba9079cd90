//! One link as the client sees it: its connects, its pings, its timeouts. Pure.

use std::time::{Duration, Instant};

use super::clocks::{ClientClocks, UNKNOWN_RTT_MS};

/// The id of one of a player's links: the index of its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub usize);

/// The phase of a link's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkPhase {
    /// No connection; the next check starts one.
    Down,
    /// Asked to connect, since then.
    Connecting(Instant),
    /// Connected; the first ping is not answered yet, and nothing may be opened on it.
    FirstPong,
    /// The first ping is answered.
    Ready,
}

/// The action that a link's check asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkNeed {
    /// Nothing.
    Nothing,
    /// A connection.
    Connect,
    /// A ping that reports this many milliseconds.
    Ping(u32),
    /// The end of this connection: a connect or a pong took too long.
    Drop,
}

/// The state of one link.
#[derive(Debug)]
pub struct LinkState {
    phase: LinkPhase,
    /// The time of the ping that is not answered yet.
    pinged: Option<Instant>,
    rtt: Option<Duration>,
    connected_before: bool,
    next_check: Instant,
}

impl LinkState {
    /// Makes a link that connects at the first check, at `now`.
    pub fn new(now: Instant) -> Self {
        Self { phase: LinkPhase::Down, pinged: None, rtt: None, connected_before: false, next_check: now }
    }

    /// Returns the phase of the link.
    pub fn phase(&self) -> LinkPhase {
        self.phase
    }

    /// Returns the last round trip measured on this connection.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Returns the time at which [`LinkState::check`] has something to do next.
    pub fn next_check(&self) -> Instant {
        self.next_check
    }

    /// Looks at the link, where its check is due.
    pub fn check(&mut self, clocks: &ClientClocks, now: Instant) -> LinkNeed {
        if now < self.next_check {
            return LinkNeed::Nothing;
        }
        // From now on, not from when it was due: a client that was held up does not catch up.
        self.next_check = now + clocks.link_check;
        match (self.phase, self.pinged) {
            (LinkPhase::Down, _) => {
                self.phase = LinkPhase::Connecting(now);
                LinkNeed::Connect
            }
            (LinkPhase::Connecting(since), _) if now >= since + clocks.first_pong => LinkNeed::Drop,
            (LinkPhase::FirstPong, Some(sent)) if now >= sent + clocks.first_pong => LinkNeed::Drop,
            (LinkPhase::Ready, Some(sent)) if now >= sent + clocks.later_pong => LinkNeed::Drop,
            (LinkPhase::Ready, None) => {
                self.pinged = Some(now);
                LinkNeed::Ping(self.rtt.map_or(0, millis))
            }
            _ => LinkNeed::Nothing,
        }
    }

    /// Records that the connection stands; returns the milliseconds that the first ping must report. `None` if the link
    /// did not ask for a connection.
    pub fn connected(&mut self, now: Instant) -> Option<u32> {
        let LinkPhase::Connecting(_) = self.phase else { return None };
        self.phase = LinkPhase::FirstPong;
        self.pinged = Some(now);
        let report = if self.connected_before { UNKNOWN_RTT_MS } else { 0 };
        self.connected_before = true;
        Some(report)
    }

    /// Records a pong. One that no ping asked for is ignored.
    pub fn pong(&mut self, now: Instant) {
        if let Some(sent) = self.pinged.take() {
            self.rtt = Some(now.saturating_duration_since(sent));
            if self.phase == LinkPhase::FirstPong {
                self.phase = LinkPhase::Ready;
            }
        }
    }

    /// Records that the connection is gone, or was never made.
    pub fn lost(&mut self) {
        self.phase = LinkPhase::Down;
        self.pinged = None;
        self.rtt = None;
    }
}

/// Returns whole milliseconds, as a ping reports them: never the value that means unknown.
fn millis(rtt: Duration) -> u32 {
    u32::try_from(rtt.as_millis()).unwrap_or(u32::MAX).min(UNKNOWN_RTT_MS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn ready(start: Instant) -> (LinkState, ClientClocks) {
        let clocks = ClientClocks::default();
        let mut link = LinkState::new(start);
        assert_eq!(link.check(&clocks, start), LinkNeed::Connect);
        assert_eq!(link.connected(start), Some(0), "the first ping ever reports 0");
        assert_eq!(link.phase(), LinkPhase::FirstPong);
        link.pong(start + 40 * MS);
        assert_eq!((link.phase(), link.rtt()), (LinkPhase::Ready, Some(40 * MS)));
        (link, clocks)
    }

    #[test]
    fn pings_every_check_and_reports_the_last_round_trip() {
        let start = Instant::now();
        let (mut link, clocks) = ready(start);
        assert_eq!(link.check(&clocks, start + 2499 * MS), LinkNeed::Nothing);
        assert_eq!(link.check(&clocks, start + 2500 * MS), LinkNeed::Ping(40));
        link.pong(start + 2507 * MS);
        assert_eq!(link.check(&clocks, start + 5000 * MS), LinkNeed::Ping(7));
        assert_eq!(link.check(&clocks, start + 7500 * MS), LinkNeed::Nothing, "one ping at a time");
    }

    #[test]
    fn later_pongs_have_7_5_seconds_and_the_next_connection_reports_unknown() {
        let start = Instant::now();
        let (mut link, clocks) = ready(start);
        let mut needs = Vec::new();
        for check in 1..=4 {
            needs.push(link.check(&clocks, start + check * clocks.link_check));
        }
        assert_eq!(needs, [LinkNeed::Ping(40), LinkNeed::Nothing, LinkNeed::Nothing, LinkNeed::Drop]);
        link.lost();
        assert_eq!(link.check(&clocks, start + 5 * clocks.link_check), LinkNeed::Connect);
        assert_eq!(link.connected(start + 5 * clocks.link_check), Some(UNKNOWN_RTT_MS));
    }

    #[test]
    fn connects_and_first_pongs_have_12_5_seconds_each() {
        let start = Instant::now();
        let clocks = ClientClocks::default();
        let mut link = LinkState::new(start);
        assert_eq!(link.check(&clocks, start), LinkNeed::Connect);
        for check in 1..5 {
            assert_eq!(link.check(&clocks, start + check * clocks.link_check), LinkNeed::Nothing);
        }
        assert_eq!(link.check(&clocks, start + clocks.first_pong), LinkNeed::Drop);
        link.lost();
        let again = start + clocks.first_pong + clocks.link_check;
        assert_eq!(link.check(&clocks, again), LinkNeed::Connect);
        link.connected(again);
        for check in 1..5 {
            assert_eq!(link.check(&clocks, again + check * clocks.link_check), LinkNeed::Nothing);
        }
        assert_eq!(link.check(&clocks, again + clocks.first_pong), LinkNeed::Drop);
    }

    #[test]
    fn a_pong_that_nobody_asked_for_means_nothing() {
        let start = Instant::now();
        let (mut link, _) = ready(start);
        link.pong(start + 900 * MS);
        assert_eq!(link.rtt(), Some(40 * MS));
    }
}

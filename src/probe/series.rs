//! Pings of one address, one after the other, and their figures.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::{ProbeError, ProbeLink, Probing};

/// Pings of one address. A link that fails is made anew for the next ping, as clients do it.
#[derive(Debug, Clone, Copy)]
pub struct PingSeries {
    /// The address.
    pub address: SocketAddr,
    /// How each link is opened.
    pub probing: Probing,
    /// The number of pings; `None` for as long as it is polled.
    pub count: Option<u32>,
    /// The time from one ping to the next.
    pub interval: Duration,
}

/// The result of one ping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinged {
    /// Its number, from 1.
    pub number: u32,
    /// The time that the connect took, if the ping was the first on its link.
    pub connect: Option<Duration>,
    /// The round trip, or the reason why there is no pong.
    pub result: Result<Duration, ProbeError>,
}

impl PingSeries {
    /// Sends the pings, and reports each to `pinged`.
    pub async fn run(self, mut pinged: impl FnMut(Pinged)) {
        let mut ticks = interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut link = None;
        let mut number = 0u32;
        while self.count.is_none_or(|count| number < count) {
            ticks.tick().await;
            number = number.saturating_add(1);
            let (connect, result) = self.one(&mut link).await;
            pinged(Pinged { number, connect, result });
        }
    }

    async fn one(&self, link: &mut Option<ProbeLink>) -> (Option<Duration>, Result<Duration, ProbeError>) {
        let (mut open, connect) = match link.take() {
            Some(open) => (open, None),
            None => match ProbeLink::open(self.address, self.probing).await {
                Ok((open, took)) => (open, Some(took)),
                Err(error) => return (None, Err(error)),
            },
        };
        let result = open.ping().await;
        *link = result.is_ok().then_some(open);
        (connect, result)
    }
}

/// The figures of pings: of one size, however many there are.
#[derive(Debug, Clone, Default)]
pub struct PingFigures {
    /// Pings sent, or tried.
    pub pings: u32,
    /// Pings that were answered.
    pub pongs: u32,
    /// The time that the last connect took.
    pub connect: Option<Duration>,
    /// The reasons why others were not, by their words: the last of each, and how many there were.
    pub errors: BTreeMap<&'static str, (ProbeError, u32)>,
    least: Option<Duration>,
    most: Duration,
    sum: Duration,
}

impl PingFigures {
    /// Counts a ping.
    pub fn count(&mut self, pinged: &Pinged) {
        self.pings = self.pings.saturating_add(1);
        self.connect = pinged.connect.or(self.connect);
        match &pinged.result {
            Ok(round_trip) => {
                self.pongs = self.pongs.saturating_add(1);
                self.least = Some(self.least.map_or(*round_trip, |least| least.min(*round_trip)));
                self.most = self.most.max(*round_trip);
                self.sum = self.sum.saturating_add(*round_trip);
            }
            Err(error) => self.fail(error.clone()),
        }
    }

    /// Counts a reason why there was no pong.
    pub fn fail(&mut self, error: ProbeError) {
        let (last, count) = self.errors.entry(error.as_str()).or_insert_with(|| (error.clone(), 0));
        *last = error;
        *count = count.saturating_add(1);
    }

    /// Returns the least, the average and the greatest round trip; `None` without a pong.
    #[must_use]
    pub fn round_trips(&self) -> Option<[Duration; 3]> {
        Some([self.least?, self.sum.checked_div(self.pongs)?, self.most])
    }

    /// Returns the share of pings that were not answered.
    #[must_use]
    pub fn lost(&self) -> f64 {
        if self.pings == 0 { 0.0 } else { f64::from(self.pings - self.pongs) / f64::from(self.pings) }
    }

    /// Returns whether there were pings, and all were answered.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.pings > 0 && self.pongs == self.pings
    }

    /// Returns whether nothing was learnt about the address, as this host cannot reach any of its family.
    #[must_use]
    pub fn untried(&self) -> bool {
        self.pongs == 0 && self.errors.keys().eq([ProbeError::NoFamily.as_str()].iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn of(results: &[Result<Duration, ProbeError>]) -> PingFigures {
        let mut figures = PingFigures::default();
        for (number, result) in (1..).zip(results) {
            figures.count(&Pinged { number, connect: (number == 1).then_some(MS), result: result.clone() });
        }
        figures
    }

    #[test]
    fn figures_are_those_of_the_pings() {
        let figures = of(&[Ok(3 * MS), Ok(MS), Ok(5 * MS)]);
        assert_eq!((figures.pings, figures.pongs, figures.connect), (3, 3, Some(MS)));
        assert_eq!(figures.round_trips(), Some([MS, 3 * MS, 5 * MS]));
        assert!(figures.passed() && figures.lost() == 0.0 && !figures.untried());

        let silent = |seconds| Err(ProbeError::Silent(Duration::from_secs(seconds)));
        let figures = of(&[Ok(MS), silent(1), Err(ProbeError::Closed { first: false }), silent(2)]);
        assert!(!figures.passed() && figures.lost() == 0.75, "{figures:?}");
        assert_eq!(figures.round_trips(), Some([MS, MS, MS]));
        assert_eq!(figures.errors["no_pong"], (ProbeError::Silent(Duration::from_secs(2)), 2));

        let figures = of(&[]);
        assert!(!figures.passed() && figures.round_trips().is_none() && figures.lost() == 0.0);
    }

    #[test]
    fn an_address_of_a_family_that_this_host_lacks_is_not_tried() {
        assert!(of(&[Err(ProbeError::NoFamily), Err(ProbeError::NoFamily)]).untried());
        assert!(!of(&[Err(ProbeError::NoFamily), Ok(MS)]).untried());
        assert!(!of(&[]).untried());
    }
}

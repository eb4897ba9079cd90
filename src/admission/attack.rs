//! Attacks, as far as the numbers of refused connections tell. Pure.

use std::collections::BTreeMap;
use std::time::Instant;

/// Connections refused in a second from which on it counts as one of an attack.
pub const ATTACK_REFUSALS: u64 = 50;
/// Such seconds in a row that begin one.
pub const ATTACK_SECONDS: u32 = 3;
/// Seconds in a row without such numbers that end it.
pub const ATTACK_QUIET: u32 = 60;

/// News of an attack.
#[derive(Debug, Clone, PartialEq)]
pub enum AttackNews {
    /// It has begun.
    Began {
        /// Connections refused in the last second.
        refused: u64,
        /// The reason of most of them.
        reason: String,
    },
    /// It is over.
    Over {
        /// Connections refused in all.
        refused: u64,
        /// The reason of most of them.
        reason: String,
        /// The time that it lasted.
        seconds: f64,
    },
}

/// The watch over refused connections, which it is told of once a second.
#[derive(Debug, Default)]
pub struct AttackWatch {
    /// Seconds in a row that speak against what is held.
    against: u32,
    began: Option<Instant>,
    /// The last second with many.
    last: Option<Instant>,
    /// Refused since it began, by reason.
    refused: BTreeMap<String, u64>,
}

impl AttackWatch {
    /// Takes the connections refused in a second, by reason.
    pub fn second(&mut self, refused: &BTreeMap<String, u64>, now: Instant) -> Option<AttackNews> {
        let total: u64 = refused.values().sum();
        let is_heavy = total >= ATTACK_REFUSALS;
        if is_heavy {
            self.last = Some(now);
        }
        if self.began.is_some() {
            for (reason, count) in refused {
                *self.refused.entry(reason.clone()).or_default() += count;
            }
        }
        self.against = if is_heavy == self.began.is_some() { 0 } else { self.against + 1 };
        match self.began {
            None if self.against >= ATTACK_SECONDS => {
                (self.began, self.against) = (Some(now), 0);
                self.refused.clone_from(refused);
                Some(AttackNews::Began { refused: total, reason: most(refused) })
            }
            Some(began) if self.against >= ATTACK_QUIET => {
                (self.began, self.against) = (None, 0);
                let seconds = self.last.unwrap_or(now).saturating_duration_since(began).as_secs_f64();
                let all = std::mem::take(&mut self.refused);
                Some(AttackNews::Over { refused: all.values().sum(), reason: most(&all), seconds })
            }
            _ => None,
        }
    }
}

fn most(refused: &BTreeMap<String, u64>) -> String {
    refused.iter().max_by_key(|(_, count)| **count).map(|(reason, _)| reason.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_begins_with_numbers_that_last_and_ends_with_quiet_that_does() {
        let (mut watch, mut now) = (AttackWatch::default(), Instant::now());
        let mut second = |rate: u64, silent: u64| {
            now += Duration::from_secs(1);
            watch.second(&[("rate".to_owned(), rate), ("silent".to_owned(), silent)].into(), now)
        };
        assert!((0..1000).all(|_| second(ATTACK_REFUSALS - 1, 0).is_none()));
        for _ in 0..10 {
            assert!(second(1000, 0).is_none() && second(1000, 0).is_none() && second(0, 0).is_none(), "moments");
        }
        assert_eq!((second(1000, 0), second(1000, 0)), (None, None));
        assert_eq!(second(10, 990), Some(AttackNews::Began { refused: 1000, reason: "silent".to_owned() }));
        assert!((0..600).all(|turn| second(if turn % 30 == 0 { 100 } else { 1 }, 0).is_none()), "it comes in waves");
        let end = (0..100).find_map(|_| second(0, 0));
        let seconds = 571.0;
        assert_eq!(end, Some(AttackNews::Over { refused: 1000 + 20 * 100 + 580, reason: "rate".to_owned(), seconds }));
        assert!((0..100).all(|_| second(0, 0).is_none()));
    }
}

//! Events that follow from what is counted: pressure, attacks, targets, defects, certificates and restarts.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use crate::admission::{AttackNews, AttackWatch, PressureWatch};
use crate::certs::certificate::DAYS_LEFT;
use crate::events::{EventLog, Happening};
use crate::metrics::{Metrics, sums, total};

/// Seconds of a day.
const DAY: i64 = 86_400;

/// The state that the last look has left.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// False before the first look: what stands there then is no change.
    has_looked: bool,
    panics: f64,
    refused: BTreeMap<String, f64>,
    attack: AttackWatch,
    pressure: BTreeMap<String, PressureWatch>,
    /// The targets that are down, by listener and name.
    down: HashSet<(String, String)>,
    /// The whole days that were told of each certificate.
    days: BTreeMap<String, i64>,
    restart: bool,
}

impl Changes {
    /// Tells of what has changed. To be called once a second, with the time on both clocks.
    pub fn look(&mut self, all: &[Arc<Metrics>], events: &EventLog, (now, unix): (Instant, i64)) {
        self.look_for_defects(all, events);
        self.look_for_attack(all, events, now);
        self.look_for_pressure(all, events);
        self.look_at_targets(all, events);
        self.look_at_certificates(all, events, unix);
        self.look_for_restart(all, events);
        self.has_looked = true;
    }

    fn look_for_defects(&mut self, all: &[Arc<Metrics>], events: &EventLog) {
        let panics = total(all, |metrics| &metrics.panics);
        let new = panics - std::mem::replace(&mut self.panics, panics);
        if new > 0.0 {
            events.emit(Happening::Defect { tasks: new as u64 });
        }
    }

    fn look_for_attack(&mut self, all: &[Arc<Metrics>], events: &EventLog, now: Instant) {
        let refused = sums(all, |metrics| &metrics.connections_rejected, "reason");
        let before = std::mem::replace(&mut self.refused, refused);
        if !self.has_looked {
            return;
        }
        let new = self.refused.iter().map(|(reason, count)| {
            let before = before.get(reason).copied().unwrap_or_default();
            (reason.clone(), (count - before).max(0.0) as u64)
        });
        let happening = match self.attack.second(&new.filter(|(_, count)| *count > 0).collect(), now) {
            Some(AttackNews::Began { refused, reason }) => Happening::Attack { refused, reason, seconds: None },
            Some(AttackNews::Over { refused, reason, seconds }) => {
                Happening::Attack { refused, reason, seconds: Some(seconds) }
            }
            None => return,
        };
        events.emit(happening);
    }

    fn look_for_pressure(&mut self, all: &[Arc<Metrics>], events: &EventLog) {
        let shares = sums(all, |metrics| &metrics.pressure_ratio, "listener");
        for (name, share) in &shares {
            let watch = self.pressure.entry(name.clone()).or_default();
            if let Some(ongoing) = watch.look(*share) {
                let listener = Some(name.clone()).filter(|name| !name.is_empty());
                events.emit(Happening::Pressure { listener, share: *share, ongoing });
            }
        }
        self.pressure.retain(|name, _| shares.contains_key(name));
    }

    fn look_at_targets(&mut self, all: &[Arc<Metrics>], events: &EventLog) {
        let mut down = HashSet::new();
        let mut known = HashSet::new();
        for metrics in all {
            for (labels, up) in metrics.targets_up() {
                known.insert(labels.clone());
                if !up {
                    down.insert(labels);
                }
            }
        }
        for (listener, target) in down.difference(&self.down).cloned() {
            events.emit(Happening::Target { listener, target, up: false });
        }
        for (listener, target) in self.down.difference(&down).filter(|labels| known.contains(*labels)).cloned() {
            events.emit(Happening::Target { listener, target, up: true });
        }
        self.down = down;
    }

    fn look_at_certificates(&mut self, all: &[Arc<Metrics>], events: &EventLog, unix: i64) {
        let ends = sums(all, |metrics| &metrics.certificate_expiry_timestamp, "certificate");
        self.days.retain(|certificate, _| ends.contains_key(certificate));
        for (certificate, end) in ends {
            let days = (end as i64).saturating_sub(unix).div_euclid(DAY);
            // Once a day.
            if end > 0.0 && days < DAYS_LEFT && self.days.insert(certificate.clone(), days) != Some(days) {
                events.emit(Happening::Certificate { certificate, days });
            }
        }
    }

    fn look_for_restart(&mut self, all: &[Arc<Metrics>], events: &EventLog) {
        let seconds = total(all, |metrics| &metrics.restart_seconds);
        if self.restart || seconds <= 0.0 {
            return;
        }
        self.restart = true;
        let outcomes = sums(all, |metrics| &metrics.restart_sessions, "outcome");
        let of = |outcome| outcomes.get(outcome).copied().unwrap_or_default() as u64;
        events.emit(Happening::Restart { kept: of("kept"), ended: of("ended"), seconds });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIX: i64 = 1_900_000_000;

    #[test]
    fn what_changes_is_told_and_what_stays_is_not() {
        let (metrics, events, mut changes) = (Arc::new(Metrics::new()), EventLog::default(), Changes::default());
        let all = [Arc::clone(&metrics)];
        metrics.target_up.with_label_values(&["login", "1"]).set(1);
        metrics.pressure_ratio.with_label_values(&["links"]).set(0.1);
        let mut after = 0;
        let mut look = |unix| {
            changes.look(&all, &events, (Instant::now(), unix));
            let new = events.after(after, 10);
            after = new.last().map_or(after, |event| event.serial);
            new.iter().map(|event| event.what.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(look(UNIX), [""; 0]);
        metrics.panics.inc_by(2);
        metrics.target_up.with_label_values(&["login", "1"]).set(0);
        metrics.pressure_ratio.with_label_values(&["links"]).set(0.8);
        assert_eq!(
            look(UNIX),
            [
                "defects of this program cost 2 connections or sessions: the log has their reports",
                "listener links has 80 % of the connections that it may have: peers get less time",
                "target 1 of login is down",
            ]
        );
        assert_eq!(look(UNIX), [""; 0]);
        metrics.target_up.with_label_values(&["login", "1"]).set(1);
        metrics.certificate_expiry_timestamp.with_label_values(&["own"]).set(UNIX + 3 * DAY);
        assert_eq!(look(UNIX), ["target 1 of login is up", "the certificate own ends in 3 days: issue it anew"]);
        assert_eq!(look(UNIX), [""; 0]);
        assert_eq!(look(UNIX + DAY), ["the certificate own ends in 2 days: issue it anew"]);
        metrics.certificate_expiry_timestamp.with_label_values(&["own"]).set(UNIX + 300 * DAY);
        metrics.restart_sessions.with_label_values(&["kept"]).inc_by(30);
        metrics.restart_seconds.set(2.6);
        assert_eq!(look(UNIX + DAY), ["30 sessions of the process before go on after 2.6 s"]);
        assert_eq!(look(UNIX + DAY), [""; 0]);
    }
}

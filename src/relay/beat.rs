//! The beat of each world: how many sessions had bytes from it since the last look, on all workers.
//!
//! A look has a number. A session that has bytes notes the number of the present look, and counts if it had noted another one: so
//! what a read costs is a comparison, and a store or two once in a look. Nobody looks at a clock.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge};

use super::PortMetrics;

/// The beat of one world on one worker.
#[derive(Debug, Default)]
pub struct Beat {
    /// Sessions that had bytes in each look, added up, over the end of its numbers too. Its worker alone writes to it.
    heard: AtomicU32,
}

/// A world at a look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorldLook {
    /// Sessions that had bytes from it in each look, added up, over the end of its numbers too.
    pub heard: u32,
    /// Packets from players, since the start.
    pub packets_in: u64,
    /// Sessions alive.
    pub sessions: u64,
}

/// The beats of all worlds.
#[derive(Debug)]
pub struct WorldBeats {
    look: AtomicU32,
    beats: Mutex<Vec<KnownBeat>>,
}

/// A beat that a worker counts, beside its other counters.
#[derive(Debug)]
struct KnownBeat {
    port: u16,
    beat: Arc<Beat>,
    packets_in: IntCounter,
    sessions: IntGauge,
}

impl Default for WorldBeats {
    fn default() -> Self {
        // No session has noted 1 yet.
        Self { look: AtomicU32::new(1), beats: Mutex::default() }
    }
}

impl WorldBeats {
    /// Looks from now on at the counters of a worker.
    pub(super) fn add(&self, port: u16, of: &PortMetrics) {
        let (packets_in, sessions) = (of.packets_in.clone(), of.sessions_active.clone());
        self.beats.lock().push(KnownBeat { port, beat: Arc::clone(&of.beat), packets_in, sessions });
    }

    /// Notes that a session had bytes from its world. `noted` is the look in which it last had some.
    #[inline]
    pub(super) fn hear(&self, noted: &Cell<u32>, beat: &Beat) {
        let look = self.look.load(Ordering::Relaxed);
        if noted.get() != look {
            noted.set(look);
            // Nobody else writes to it.
            beat.heard.store(beat.heard.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// Looks at all worlds, by port, and begins another look. To be called by one task alone.
    pub fn look(&self) -> BTreeMap<u16, WorldLook> {
        let mut worlds: BTreeMap<u16, WorldLook> = BTreeMap::new();
        for KnownBeat { port, beat, packets_in, sessions } in &*self.beats.lock() {
            let world = worlds.entry(*port).or_default();
            world.heard = world.heard.wrapping_add(beat.heard.load(Ordering::Relaxed));
            world.packets_in += packets_in.get();
            world.sessions += u64::try_from(sessions.get()).unwrap_or_default();
        }
        self.look.fetch_add(1, Ordering::Relaxed);
        worlds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn a_session_counts_once_in_a_look_and_workers_are_added_up() {
        let (beats, metrics) = (WorldBeats::default(), [Metrics::new(), Metrics::new()]);
        let ports = metrics.each_ref().map(|metrics| PortMetrics::new(metrics, 7172));
        ports.iter().for_each(|port| beats.add(7172, port));
        let sessions: [Cell<u32>; 3] = Default::default();
        let heard = || beats.look()[&7172].heard;
        assert_eq!(heard(), 0);
        for _ in 0..5 {
            beats.hear(&sessions[0], &ports[0].beat);
            beats.hear(&sessions[1], &ports[0].beat);
            beats.hear(&sessions[2], &ports[1].beat);
        }
        assert_eq!((heard(), heard()), (3, 3));
        beats.hear(&sessions[0], &ports[0].beat);
        ports[1].packets_in.inc_by(2);
        ports[0].sessions_active.set(2);
        assert_eq!(beats.look()[&7172], WorldLook { heard: 4, packets_in: 2, sessions: 2 });
    }
}

//! The readiness of the process.

use std::sync::atomic::{AtomicBool, Ordering};

/// The state behind `/ready`. All listeners are bound before anybody can ask.
#[derive(Debug, Default)]
pub struct Readiness {
    drained: AtomicBool,
    ended: AtomicBool,
}

impl Readiness {
    /// Returns whether the process accepts connections.
    pub fn is_ready(&self) -> bool {
        !self.is_draining()
    }

    /// Returns whether the whole process is drained or ending.
    pub fn is_draining(&self) -> bool {
        self.drained.load(Ordering::Relaxed) || self.ended.load(Ordering::Relaxed)
    }

    /// Sets whether the whole process is drained.
    pub fn set_drained(&self, drained: bool) {
        self.drained.store(drained, Ordering::Relaxed);
    }

    /// Records that the process is ending.
    pub fn set_ending(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

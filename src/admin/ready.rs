//! Whether the process takes connections.

use std::sync::atomic::{AtomicBool, Ordering};

/// What `/ready` says. All listeners are bound before anybody can ask.
#[derive(Debug, Default)]
pub struct Ready {
    drained: AtomicBool,
    ended: AtomicBool,
}

impl Ready {
    /// Whether it takes connections.
    pub fn is_ready(&self) -> bool {
        !self.is_draining()
    }

    /// Whether the whole process is drained, or ends.
    pub fn is_draining(&self) -> bool {
        self.drained.load(Ordering::Relaxed) || self.ended.load(Ordering::Relaxed)
    }

    /// The whole process is drained from now on, or is no more.
    pub fn set_drained(&self, drained: bool) {
        self.drained.store(drained, Ordering::Relaxed);
    }

    /// The process ends.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

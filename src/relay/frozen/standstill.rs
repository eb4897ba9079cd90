//! The standstill of workers whose sessions are frozen.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

/// The standstill of workers whose sessions are frozen: they go on when this is dropped, if the process still runs then.
#[derive(Debug, Default)]
pub struct Standstill(pub(super) Arc<Gate>);

/// The gate at which workers wait.
#[derive(Debug, Default)]
pub struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    /// Blocks the thread until the standstill is over.
    pub fn wait(&self) {
        let mut open = self.open.lock();
        while !*open {
            self.changed.wait(&mut open);
        }
    }
}

impl Drop for Standstill {
    fn drop(&mut self) {
        *self.0.open.lock() = true;
        self.0.changed.notify_all();
    }
}

//! Waking a task whose state other tasks of the same worker change.

use std::cell::RefCell;
use std::task::{Context, Waker};

/// The task that looks after a link or a session.
#[derive(Debug, Default)]
pub struct TaskWaker(RefCell<Option<Waker>>);

impl TaskWaker {
    /// Remembers the task: call it at each poll.
    pub fn keep(&self, cx: &Context<'_>) {
        let mut waker = self.0.borrow_mut();
        if !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Has the task look at what changed.
    pub fn wake(&self) {
        if let Some(waker) = &*self.0.borrow() {
            waker.wake_by_ref();
        }
    }
}

//! Closing links that say nothing any more, without a timer for each.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::link::Link;
use crate::reason::CloseReason;

/// Rounds in the shortest idle limit: a link is closed at most a tenth of it late.
const ROUNDS: u32 = 10;
/// The shortest round, whatever the limit.
const MIN_ROUND: Duration = Duration::from_millis(10);

/// All links of one worker. It looks at them in rounds, and time is counted in rounds: what a link
/// must do for each frame is to note a number, with no look at a clock and no timer to move.
#[derive(Default)]
pub struct IdleWatch {
    links: RefCell<Vec<Rc<Link>>>,
    round: Cell<u32>,
}

impl IdleWatch {
    pub(super) fn add(&self, link: &Rc<Link>) {
        let mut links = self.links.borrow_mut();
        link.watched.set(links.len());
        links.push(Rc::clone(link));
        self.heard(link);
    }

    /// Called as a link's task is dropped, perhaps by a panic: a second one would end the process.
    pub(super) fn remove(&self, link: &Link) {
        let Ok(mut links) = self.links.try_borrow_mut() else { return };
        let index = link.watched.get();
        if links.get(index).is_some_and(|there| std::ptr::eq(Rc::as_ptr(there), link)) {
            links.swap_remove(index);
            if let Some(moved) = links.get(index) {
                moved.watched.set(index);
            }
        }
    }

    /// A whole frame came over `link`.
    pub(super) fn heard(&self, link: &Link) {
        link.heard.set(self.round.get());
    }

    /// Closes links that were not heard for as long as `limits` says for their listener, for ever.
    pub(super) async fn run(&self, limits: &[Duration]) {
        let Some(shortest) = limits.iter().min() else { return };
        let round = (*shortest / ROUNDS).max(MIN_ROUND);
        // One more: the round in which it was heard had begun before.
        let rounds: Vec<u32> = limits.iter().map(|limit| limit.div_duration_f64(round).ceil() as u32 + 1).collect();
        let mut tick = interval(round);
        // A worker that was held up has not heard what waits for it to be read.
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.round.set(self.round.get().wrapping_add(1));
            self.look(&rounds);
        }
    }

    fn look(&self, rounds: &[u32]) {
        for link in self.links.borrow().iter() {
            let silent = self.round.get().wrapping_sub(link.heard.get());
            if rounds.get(link.listener()).is_some_and(|limit| silent >= *limit) {
                link.close(CloseReason::Idle);
            }
        }
    }
}

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
pub struct IdleWatch {
    /// How long a round is.
    round: Duration,
    /// For each listener: the rounds without a frame after which a link of it is closed.
    limits: Vec<u32>,
    now: Cell<u32>,
    /// Side by side, so that a round need not visit each link where it lies.
    links: RefCell<Vec<Watched>>,
}

struct Watched {
    link: Rc<Link>,
    /// The round in which its last whole frame came.
    heard: u32,
    limit: u32,
}

impl IdleWatch {
    /// No links yet; `limits` are those of the listeners.
    pub(super) fn new(limits: &[Duration]) -> Self {
        let round = limits.iter().min().map_or(Duration::MAX, |shortest| (*shortest / ROUNDS).max(MIN_ROUND));
        // One more: the round in which it was heard had begun before.
        let limits = limits.iter().map(|limit| limit.div_duration_f64(round).ceil() as u32 + 1).collect();
        Self { round, limits, now: Cell::new(0), links: RefCell::default() }
    }

    pub(super) fn add(&self, link: &Rc<Link>) {
        let limit = self.limits.get(link.listener()).copied().unwrap_or(u32::MAX);
        let mut links = self.links.borrow_mut();
        link.watched.set(links.len());
        links.push(Watched { link: Rc::clone(link), heard: self.now.get(), limit });
    }

    /// Called as a link's task is dropped, perhaps by a panic: a second one would end the process.
    pub(super) fn remove(&self, link: &Link) {
        let Ok(mut links) = self.links.try_borrow_mut() else { return };
        let index = link.watched.get();
        if links.get(index).is_some_and(|there| std::ptr::eq(Rc::as_ptr(&there.link), link)) {
            links.swap_remove(index);
            if let Some(moved) = links.get(index) {
                moved.link.watched.set(index);
            }
        }
    }

    /// A whole frame came over `link`.
    pub(super) fn heard(&self, link: &Link) {
        if let Some(watched) = self.links.borrow_mut().get_mut(link.watched.get()) {
            watched.heard = self.now.get();
        }
    }

    /// Closes links that were not heard for as long as their listener allows, for ever.
    pub(super) async fn run(&self) {
        if self.limits.is_empty() {
            return;
        }
        let mut tick = interval(self.round);
        // A worker that was held up has not heard what waits for it to be read.
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.next_round();
        }
    }

    fn next_round(&self) {
        let now = self.now.get().wrapping_add(1);
        self.now.set(now);
        for Watched { link, heard, limit } in &*self.links.borrow() {
            if now.wrapping_sub(*heard) >= *limit {
                link.close(CloseReason::Idle);
            }
        }
    }
}

//! Links that say nothing any more: told to the machine, and then closed, without a timer for each.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::link::RelayLink;
use crate::connection::CloseReason;

/// Rounds in the shortest idle limit: a link is closed at most a tenth of it late.
const ROUNDS: u32 = 10;
/// The shortest round, whatever the limit; and the unit in which time is counted.
const UNIT: Duration = Duration::from_millis(10);
/// The longest round: a link that falls silent is noticed half a second late at the most.
const MAX_ROUND: u32 = 50;
/// The silence after which a link may be dead: clients ping every 2.5 seconds.
pub const SILENCE: Duration = Duration::from_secs(3);
/// The longest limit, in units: four months. So the counter may overflow.
const MAX_LIMIT: u32 = 1 << 30;

/// The watch over all links of one worker. It looks at them in rounds, which also measure time: for each frame a link
/// only notes a number, without looking at a clock or moving a timer.
///
/// A round is as long as the shortest limit that there ever was requires. It does not get longer again: otherwise a
/// peer that connects and leaves could make time stand still.
pub struct IdleWatch {
    /// The length of a round, in units.
    round: Cell<u32>,
    shorter: Notify,
    /// In units, from the start until this round began.
    now: Cell<u32>,
    /// Side by side, so that a round need not visit each link where it lies.
    links: RefCell<Vec<Watched>>,
}

struct Watched {
    link: Rc<RelayLink>,
    /// The end of the round in which its last whole frame came.
    heard: u32,
    limit: u32,
    /// It has been reported that nothing comes.
    silent: bool,
}

impl Default for IdleWatch {
    /// Makes a watch without links.
    fn default() -> Self {
        Self { round: Cell::new(MAX_LIMIT), shorter: Notify::new(), now: Cell::new(0), links: RefCell::default() }
    }
}

impl IdleWatch {
    pub(super) fn add(&self, link: &Rc<RelayLink>) {
        let limit = link.inbound.config().timeouts.idle.div_duration_f64(UNIT).ceil();
        // Within the numbers: floats are cut to what fits.
        let limit = (limit as u32).min(MAX_LIMIT);
        let round = (limit / ROUNDS).clamp(1, MAX_ROUND);
        if round < self.round.get() {
            self.round.set(round);
            self.shorter.notify_one();
        }
        let mut links = self.links.borrow_mut();
        link.watched.set(links.len());
        links.push(Watched { link: Rc::clone(link), heard: self.end_of_round(), limit, silent: false });
    }

    /// Removes a link. Called as its task is dropped, perhaps by a panic: a second one would end the process.
    pub(super) fn remove(&self, link: &RelayLink) {
        let Ok(mut links) = self.links.try_borrow_mut() else { return };
        let index = link.watched.get();
        if links.get(index).is_some_and(|there| std::ptr::eq(Rc::as_ptr(&there.link), link)) {
            links.swap_remove(index);
            if let Some(moved) = links.get(index) {
                moved.link.watched.set(index);
            }
        }
    }

    /// Notes that a whole frame came over `link`. Returns whether it had been silent for long.
    pub(super) fn heard(&self, link: &RelayLink) -> bool {
        let mut links = self.links.borrow_mut();
        let Some(watched) = links.get_mut(link.watched.get()) else { return false };
        watched.heard = self.end_of_round();
        std::mem::take(&mut watched.silent)
    }

    /// Closes links that were not heard for as long as their listener allows, for ever.
    pub(super) async fn run(&self) {
        loop {
            let round = self.round.get();
            tokio::select! {
                // Anew for each: a worker that was held up has not heard what waits for it to be read.
                () = sleep(UNIT * round) => self.next_round(round),
                // The time that has passed of the long round counts for no link.
                () = self.shorter.notified() => {}
            }
        }
    }

    fn end_of_round(&self) -> u32 {
        self.now.get().wrapping_add(self.round.get())
    }

    fn next_round(&self, passed: u32) {
        let now = self.now.get().wrapping_add(passed);
        self.now.set(now);
        let silent_after = SILENCE.div_duration_f64(UNIT) as i32;
        for Watched { link, heard, limit, silent } in &mut *self.links.borrow_mut() {
            // Negative where it was heard in a round that was cut short.
            let silence = now.wrapping_sub(*heard).cast_signed();
            if silence >= limit.cast_signed() {
                link.close(CloseReason::Idle);
            } else if silence >= silent_after && !std::mem::replace(silent, true) {
                link.fall_silent();
            }
        }
    }
}

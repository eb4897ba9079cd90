//! The order in which connections that have ended are taken apart: thousands that end in one moment are not to hold up all
//! others of their worker.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::task::{spawn_local, yield_now};

/// Connections of one worker that are taken apart before all others have had their turn again. Each costs about as much as
/// two packets.
pub const CLOSES_PER_TURN: usize = 16;

/// The queue of one worker's connections that have ended.
#[derive(Debug, Default)]
pub struct CloseQueue {
    /// Connections that had their turn in this round.
    taken: Cell<usize>,
    waiting: RefCell<VecDeque<Rc<CloseTurn>>>,
    /// True while a task makes rounds.
    pacing: Cell<bool>,
}

/// The place of a connection in that queue.
#[derive(Debug)]
pub struct CloseTurn {
    granted: Cell<bool>,
    waker: RefCell<Waker>,
}

impl CloseQueue {
    /// Waits for the turn to be taken apart: not at all, unless many end at once.
    pub async fn turn(self: &Rc<Self>) {
        let mut turn = None;
        poll_fn(|cx| self.poll_turn(cx, &mut turn)).await;
    }

    /// Polls for that turn. The place in the queue is kept in `turn`.
    pub fn poll_turn(self: &Rc<Self>, cx: &mut Context<'_>, turn: &mut Option<Rc<CloseTurn>>) -> Poll<()> {
        match turn {
            Some(turn) if turn.granted.get() => return Poll::Ready(()),
            Some(turn) => turn.waker.borrow_mut().clone_from(cx.waker()),
            None if self.waiting.borrow().is_empty() && self.taken.get() < CLOSES_PER_TURN => {
                self.taken.set(self.taken.get() + 1);
                self.pace();
                return Poll::Ready(());
            }
            None => {
                let place = CloseTurn { granted: Cell::new(false), waker: RefCell::new(cx.waker().clone()) };
                self.waiting.borrow_mut().push_back(Rc::clone(turn.insert(Rc::new(place))));
                self.pace();
            }
        }
        Poll::Pending
    }

    /// Makes rounds until one finds nobody. A task that yields comes back once sockets were looked at, behind all tasks
    /// that have something to do.
    fn pace(self: &Rc<Self>) {
        if self.pacing.replace(true) {
            return;
        }
        let queue = Rc::clone(self);
        spawn_local(async move {
            let _pacing = Pacing(&queue);
            loop {
                yield_now().await;
                let granted = queue.grant();
                queue.taken.set(granted);
                if granted == 0 {
                    return;
                }
            }
        });
    }

    /// Grants the turns of one round; returns their number.
    fn grant(&self) -> usize {
        let mut granted = 0;
        while granted < CLOSES_PER_TURN
            && let Some(turn) = { self.waiting.borrow_mut().pop_front() }
        {
            // One that is gone already, as its task was dropped, needs none.
            if Rc::strong_count(&turn) > 1 {
                granted += 1;
                turn.granted.set(true);
                turn.waker.borrow().wake_by_ref();
            }
        }
        granted
    }
}

/// The mark that rounds are made, until they end in whatever way.
struct Pacing<'a>(&'a CloseQueue);

impl Drop for Pacing<'_> {
    fn drop(&mut self) {
        self.0.pacing.set(false);
        self.0.taken.set(0);
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::{Builder, LocalOptions};

    use super::*;

    fn run(test: impl Future<Output = ()>) {
        Builder::new_current_thread().build_local(LocalOptions::default()).unwrap().block_on(test);
    }

    #[test]
    fn thousands_that_end_at_once_leave_others_their_turns_and_end_in_their_order() {
        const MANY: usize = 4000;
        run(async {
            let (queue, closed) = (Rc::new(CloseQueue::default()), Rc::new(RefCell::new(Vec::new())));
            for number in 0..MANY {
                let (queue, closed) = (Rc::clone(&queue), Rc::clone(&closed));
                spawn_local(async move {
                    queue.turn().await;
                    closed.borrow_mut().push(number);
                });
            }
            // Another connection, with something to do in each turn.
            let mut before = 0;
            while before < MANY {
                yield_now().await;
                let now = closed.borrow().len();
                assert!(now - before <= 2 * CLOSES_PER_TURN, "{} in one turn", now - before);
                before = now;
            }
            assert!(closed.borrow().is_sorted());
        });
    }

    #[test]
    fn a_few_do_not_wait_and_nothing_goes_on_behind_them() {
        run(async {
            let queue = Rc::new(CloseQueue::default());
            for _ in 0..10 {
                let mut cx = Context::from_waker(Waker::noop());
                for _ in 0..CLOSES_PER_TURN {
                    assert!(queue.poll_turn(&mut cx, &mut None).is_ready());
                }
                let mut gone = None;
                assert!(queue.poll_turn(&mut cx, &mut gone).is_pending());
                drop(gone);
                while queue.pacing.get() {
                    yield_now().await;
                }
                assert!(queue.waiting.borrow().is_empty());
            }
        });
    }

    #[test]
    fn rounds_that_a_runtime_takes_along_begin_anew_in_the_next() {
        let queue = Rc::new(CloseQueue::default());
        for _ in 0..2 {
            run(async {
                for _ in 0..2 * CLOSES_PER_TURN {
                    let queue = Rc::clone(&queue);
                    spawn_local(async move { queue.turn().await });
                }
                yield_now().await;
            });
        }
        run(queue.turn());
    }
}

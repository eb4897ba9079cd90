//! Worker threads, each with a runtime of its own, which nothing that it carries leaves.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::runtime::{Builder, LocalOptions};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::CloseQueue;

/// The largest read. A game packet and its length fit, so that one read can take a whole one.
pub const SCRATCH: usize = 64 * 1024;

/// Threads that look up names for one worker, if targets have names: a name server that does not answer must not cost a
/// thread for each session that waits for it.
pub const LOOKUP_THREADS: usize = 32;

/// The read buffer that all connections of one worker share. The bytes of one read are used up before the next.
pub type Scratch = RefCell<Box<[u8]>>;

/// Makes a scratch buffer.
pub fn scratch() -> Scratch {
    RefCell::new(vec![0; SCRATCH].into_boxed_slice())
}

pin_project! {
    /// A task whose panic is reported. Not an `async` block, which would hold the task twice.
    struct Reported<F> {
        #[pin]
        task: F,
        _report: PanicReport,
    }
}

/// Reports a panic that unwinds through its holder.
struct PanicReport(OnPanic);

impl Drop for PanicReport {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.0)();
        }
    }
}

type OnPanic = Arc<dyn Fn() + Send + Sync>;

impl<F: Future> Future for Reported<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.project().task.poll(cx)
    }
}

/// The tasks of one worker. Each carries one connection, link or session, and its failure affects no other. Clones are
/// the same set.
#[derive(Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    on_panic: OnPanic,
    closes: Rc<CloseQueue>,
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("tracker", &self.tracker).finish_non_exhaustive()
    }
}

impl Tasks {
    /// Makes a set without tasks; each panic of one calls `on_panic`.
    pub fn new(on_panic: impl Fn() + Send + Sync + 'static) -> Self {
        Self { tracker: TaskTracker::new(), on_panic: Arc::new(on_panic), closes: Rc::default() }
    }

    /// Runs `task` on this worker. A panic ends this task alone, and is reported.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.tracker.spawn_local(Reported { task, _report: PanicReport(Arc::clone(&self.on_panic)) });
    }

    /// Returns the queue in which connections that have ended wait to be taken apart.
    pub fn closes(&self) -> &Rc<CloseQueue> {
        &self.closes
    }

    /// Waits until the last task has ended.
    pub async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// The signals that stop workers.
#[derive(Debug, Clone, Default)]
pub struct StopSignals {
    /// Cancelled to accept no more, and to end when the last connection has ended.
    pub drain: CancellationToken,
    /// Cancelled to end now.
    pub kill: CancellationToken,
}

/// Starts a worker thread that runs `main` on its own runtime.
///
/// # Errors
/// Fails if the system gives no thread or no runtime.
pub fn spawn<F>(name: String, main: impl FnOnce() -> F + Send + 'static) -> io::Result<JoinHandle<io::Result<()>>>
where
    F: Future<Output = io::Result<()>>,
{
    std::thread::Builder::new().name(name).spawn(move || {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(LOOKUP_THREADS)
            .build_local(LocalOptions::default())?;
        let result = runtime.block_on(main());
        // Tasks end here, each with its line in the log; a name look-up may go on without them.
        runtime.shutdown_timeout(Duration::ZERO);
        result
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use parking_lot::Mutex;

    use super::*;

    #[test]
    fn a_panic_ends_its_task_alone_and_leaves_the_scratch_to_others() {
        let panics = Arc::new(AtomicUsize::new(0));
        let runtime = Builder::new_current_thread().build_local(LocalOptions::default()).unwrap();
        let (scratch, done) = (Rc::new(scratch()), Rc::new(std::cell::Cell::new(0)));
        runtime.block_on(async {
            let counted = Arc::clone(&panics);
            let tasks = Tasks::new(move || {
                counted.fetch_add(1, Ordering::Relaxed);
            });
            for n in 0..10 {
                let (scratch, done) = (Rc::clone(&scratch), Rc::clone(&done));
                tasks.spawn(async move {
                    tokio::task::yield_now().await;
                    let mut buffer = scratch.borrow_mut();
                    buffer[0] = n;
                    assert!(n % 3 != 0, "on purpose");
                    done.set(done.get() + 1);
                });
            }
            tasks.ended().await;
        });
        assert_eq!((panics.load(Ordering::Relaxed), done.get()), (4, 6));
    }

    #[test]
    fn look_ups_that_hang_cost_no_more_threads() {
        let ((started, starts), (open, gate)) = (mpsc::channel(), mpsc::channel::<()>());
        let gate = Arc::new(Mutex::new(gate));
        let worker = spawn("lookups".to_owned(), move || async move {
            let look_ups: Vec<_> = (0..2 * LOOKUP_THREADS)
                .map(|_| {
                    let (started, gate) = (started.clone(), Arc::clone(&gate));
                    tokio::task::spawn_blocking(move || {
                        started.send(()).unwrap();
                        // Waits until the sender is dropped.
                        let _ = gate.lock().recv();
                    })
                })
                .collect();
            for look_up in look_ups {
                look_up.await?;
            }
            Ok(())
        });
        (0..LOOKUP_THREADS).for_each(|_| starts.recv().unwrap());
        assert!(starts.recv_timeout(Duration::from_millis(300)).is_err(), "a thread too many");
        drop(open);
        (0..LOOKUP_THREADS).for_each(|_| starts.recv().unwrap());
        worker.unwrap().join().unwrap().unwrap();
    }
}

//! The handle of an open connection: its facts, and a way to close it from any thread.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use atomic_waker::AtomicWaker;
use pin_project_lite::pin_project;

use super::Closing;

/// The handle of an open connection, which all threads share. The task that carries the connection writes; others read,
/// and may close it.
///
/// The counts are written by one thread alone and read now and then: a packet costs a store into memory that is this
/// thread's own.
///
/// The fields that packets need are first, on one line of the cache.
#[derive(Debug)]
#[repr(C)]
pub struct ConnectionHandle {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    /// The waker of the task that carries it.
    waker: AtomicWaker,
    /// 0, or one more than the index of a [`Closing`].
    closing: AtomicU8,
    link: AtomicBool,
    id: u64,
    listener: Arc<str>,
    peer: SocketAddr,
    began: Instant,
    player: OnceLock<SocketAddr>,
    edge: OnceLock<Arc<str>>,
    route: OnceLock<Route>,
}

/// The route of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// It is forwarded to this target.
    Target(Box<str>),
    /// It is a link of this client, and ends here.
    Client(u32),
}

impl ConnectionHandle {
    /// Makes the handle of a connection of `peer` to a listener.
    pub fn new(id: u64, listener: Arc<str>, peer: SocketAddr) -> Self {
        Self {
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            waker: AtomicWaker::new(),
            closing: AtomicU8::new(0),
            link: AtomicBool::new(false),
            id,
            listener,
            peer,
            began: Instant::now(),
            player: OnceLock::new(),
            edge: OnceLock::new(),
            route: OnceLock::new(),
        }
    }

    /// Returns its number, which no other connection of this process has or had.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns the listener's name.
    pub fn listener(&self) -> &str {
        &self.listener
    }

    /// Returns the peer: an edge, or the player.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Returns the time of its accept.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Returns the player; `None` while unknown.
    pub fn player(&self) -> Option<SocketAddr> {
        self.player.get().copied()
    }

    /// Returns the player, or the peer while no player is known.
    pub fn player_or_peer(&self) -> SocketAddr {
        self.player().unwrap_or(self.peer)
    }

    /// Returns the name of the edge that it came through, if known.
    pub fn edge(&self) -> Option<&Arc<str>> {
        self.edge.get()
    }

    /// Returns its route; `None` until decided.
    pub fn route(&self) -> Option<&Route> {
        self.route.get()
    }

    /// Returns whether it is a link of the multi-path protocol, as far as known. Its player has other links.
    pub fn is_link(&self) -> bool {
        self.link.load(Ordering::Relaxed)
    }

    /// Returns the bytes from the player.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed)
    }

    /// Returns the bytes to the player.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Ordering::Relaxed)
    }

    /// Sets the player. Later calls have no effect.
    pub fn set_player(&self, player: SocketAddr) {
        let _ = self.player.set(player);
    }

    /// Sets the edge that it came through. Later calls have no effect.
    pub fn set_edge(&self, edge: Arc<str>) {
        let _ = self.edge.set(edge);
    }

    /// Sets the route. Later calls have no effect.
    pub fn set_route(&self, leads: Route) {
        let _ = self.route.set(leads);
    }

    /// Marks it as a link.
    pub fn set_link(&self) {
        self.link.store(true, Ordering::Relaxed);
    }

    /// Counts bytes from the player. Only the task that carries the connection may call it.
    pub fn add_in(&self, bytes: u64) {
        self.bytes_in.store(self.bytes_in() + bytes, Ordering::Relaxed);
    }

    /// Counts bytes to the player. Only the task that carries the connection may call it.
    pub fn add_out(&self, bytes: u64) {
        self.bytes_out.store(self.bytes_out() + bytes, Ordering::Relaxed);
    }

    /// Asks the task that carries it to close it, as soon as that task runs. Of several reasons the first holds;
    /// returns whether this is the first.
    pub fn close(&self, closing: Closing) -> bool {
        let first = self.closing.compare_exchange(0, closing as u8 + 1, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        self.waker.wake();
        first
    }

    /// Returns the reason for which it must be closed, if any.
    pub fn closing(&self) -> Option<Closing> {
        let index = self.closing.load(Ordering::SeqCst).checked_sub(1)?;
        Closing::ALL.get(usize::from(index)).copied()
    }

    /// Returns the reason for which it must be closed, if any; otherwise registers the task of `cx` to be woken then.
    pub fn poll_closing(&self, cx: &Context<'_>) -> Option<Closing> {
        self.waker.register(cx.waker());
        // Checked after the waker is registered: a call of `close` in between either finds the waker or is found here.
        self.closing()
    }

    /// Runs the task that carries the connection, until the connection must be closed.
    pub fn run_until_closed<F: Future>(&self, task: F) -> RunUntilClosed<'_, F> {
        RunUntilClosed { task, handle: self }
    }
}

pin_project! {
    /// A task that carries a connection, until the connection must be closed: then it is dropped where it stands.
    ///
    /// Not an `async fn`, which would hold the task twice.
    #[derive(Debug)]
    pub struct RunUntilClosed<'a, F> {
        #[pin]
        task: F,
        handle: &'a ConnectionHandle,
    }
}

impl<F: Future> Future for RunUntilClosed<'_, F> {
    type Output = Result<F::Output, Closing>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.handle.poll_closing(cx) {
            Some(closing) => Poll::Ready(Err(closing)),
            None => this.task.poll(cx).map(Ok),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn handle() -> Arc<ConnectionHandle> {
        Arc::new(ConnectionHandle::new(7, "login".into(), SocketAddr::from(([192, 0, 2, 1], 4000))))
    }

    fn block_on<F: Future>(future: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { timeout(Duration::from_secs(60), future).await.expect("it hangs") })
    }

    #[test]
    fn what_is_said_first_holds() {
        let handle = handle();
        assert_eq!((handle.player(), handle.edge(), handle.route()), (None, None, None));
        for (port, edge) in [(1, "waw1"), (2, "fra1")] {
            handle.set_player(SocketAddr::from(([192, 0, 2, 9], port)));
            handle.set_edge(edge.into());
            handle.set_route(Route::Target(edge.into()));
        }
        assert_eq!(handle.player(), Some(SocketAddr::from(([192, 0, 2, 9], 1))));
        assert_eq!((handle.edge(), handle.route()), (Some(&"waw1".into()), Some(&Route::Target("waw1".into()))));
        assert!(handle.close(Closing::Evicted) && !handle.close(Closing::Drained));
        assert_eq!(handle.closing(), Some(Closing::Evicted));
    }

    #[test]
    fn a_task_that_is_not_closed_runs_to_its_end() {
        let handle = handle();
        let ran = block_on(handle.run_until_closed(async {
            tokio::task::yield_now().await;
            5
        }));
        assert_eq!(ran, Ok(5));
    }

    #[test]
    fn a_task_that_waits_is_dropped_when_another_thread_closes_its_connection() {
        for round in 0..200 {
            let (handle, held) = (handle(), Arc::new(()));
            let (closer, hold) = (Arc::clone(&handle), Arc::clone(&held));
            let closer = thread::spawn(move || {
                // The close comes before, while or after the task begins to wait.
                (0..round % 20 * 50).for_each(|_| std::hint::spin_loop());
                closer.close(Closing::Disconnected)
            });
            let ran = block_on(handle.run_until_closed(async move {
                let _hold = hold;
                std::future::pending::<()>().await;
            }));
            assert_eq!(ran, Err(Closing::Disconnected));
            assert_eq!(Arc::strong_count(&held), 1, "it is gone");
            assert!(closer.join().unwrap());
        }
    }

    #[test]
    fn a_task_that_was_closed_before_it_ran_does_not_run() {
        let handle = handle();
        handle.close(Closing::Drained);
        assert_eq!(block_on(handle.run_until_closed(async { unreachable!("it runs") })), Err(Closing::Drained));
    }

    #[test]
    fn who_carries_it_next_is_woken() {
        let handle = handle();
        block_on(async {
            // Polled by one task and then by another, as a link that moves to the worker of its client.
            handle.run_until_closed(tokio::task::yield_now()).await.unwrap();
            let other = Arc::clone(&handle);
            let next = tokio::spawn(async move { other.run_until_closed(std::future::pending::<()>()).await });
            tokio::task::yield_now().await;
            handle.close(Closing::Evicted);
            assert_eq!(next.await.unwrap(), Err(Closing::Evicted));
        });
    }
}

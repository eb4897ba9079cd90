//! The core's errands at its edges: streams that an edge keeps open for the core, over each of which the core asks the edge's admin
//! API once.
//!
//! Only edges open streams. So an edge opens one ahead, which waits for the core's first byte, and then the next one.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncWriteExt, DuplexStream, copy_bidirectional_with_sizes, duplex};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::sleep;

use super::edge_trunks::EdgeTrunks;
use super::{FIRST_WAIT, LONGEST_WAIT};
use otproxy_net::worker::{Scratch, Tasks};
use otproxy_net::{Backoff, Stream, StreamIo};
use otproxy_protocol::trunk::OpenRequest;

/// The name under which an edge opens such a stream; no listener can have it.
pub const ERRANDS: &str = "@admin";
/// Streams of one edge that wait at the core at the most: of more, the one that has waited the longest is closed.
pub const WAITING: usize = 4;
/// Bytes that an errand holds in each direction.
const BUFFER: usize = 8 * 1024;
/// The time that an edge waits for a trunk before it looks again.
const PATIENCE: Duration = Duration::from_secs(60);

/// The errands that come to an edge, each as the stream of one request.
pub type ErrandsTaken = mpsc::Receiver<DuplexStream>;

/// The way of errands to the admin server of an edge.
pub type ErrandsTo = mpsc::Sender<DuplexStream>;

/// Keeps a stream open for the core's next errand, and hands each that is used to the admin server; never returns.
pub async fn take_errands(trunks: Rc<EdgeTrunks>, to: ErrandsTo, scratch: Rc<Scratch>, tasks: Tasks) {
    let nobody = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let request = OpenRequest { listener: ERRANDS.to_owned(), player: nobody, destination: nobody };
    let (backoff, mut failures) = (Backoff::new(FIRST_WAIT, LONGEST_WAIT), 0);
    loop {
        if let Ok(stream) = trunks.open_aside(&request, PATIENCE).await {
            let mut first = Vec::new();
            if stream.read_onto(&mut first, BUFFER, &scratch).await.is_ok_and(|count| count > 0) {
                failures = 0;
                let to = to.clone();
                tasks.spawn(async move {
                    let (near, far) = duplex(BUFFER);
                    // It fails only when the admin server is gone, in a shutdown.
                    if to.send(far).await.is_ok() {
                        let _ = carry(stream, near, &first).await;
                    }
                });
                continue;
            }
        }
        // A trunk that ended took it along, or the core is of a version that knows no errands.
        failures += 1;
        sleep(backoff.wait_with_jitter(failures)).await;
    }
}

/// Moves the bytes of one errand until both directions have ended.
async fn carry(stream: Stream, mut near: DuplexStream, first: &[u8]) -> io::Result<()> {
    near.write_all(first).await?;
    copy_bidirectional_with_sizes(&mut StreamIo(stream), &mut near, BUFFER, BUFFER).await?;
    Ok(())
}

/// The streams that edges keep open for the core's errands.
#[derive(Debug, Default)]
pub struct EdgeErrands {
    waiting: Mutex<HashMap<Arc<str>, VecDeque<oneshot::Sender<DuplexStream>>>>,
    /// Notified when there is one more.
    came: Notify,
}

impl EdgeErrands {
    /// Keeps a stream that the edge of this name has opened, until it is used, as a task of `tasks`.
    pub(super) fn keep(&self, edge: &Arc<str>, mut stream: Stream, scratch: Rc<Scratch>, tasks: &Tasks) {
        stream.set_aside();
        let (wanted, used) = oneshot::channel();
        {
            let mut all = self.waiting.lock();
            let waiting = all.entry(Arc::clone(edge)).or_default();
            waiting.retain(|stream| !stream.is_closed());
            waiting.push_back(wanted);
            if waiting.len() > WAITING {
                waiting.pop_front();
            }
        }
        self.came.notify_waiters();
        tasks.spawn(async move {
            let mut early = Vec::new();
            let errand = tokio::select! {
                errand = used => errand,
                // An edge says nothing before it is asked: that is the end of the stream.
                _ = stream.read_onto(&mut early, BUFFER, &scratch) => return,
            };
            if let Ok(near) = errand {
                let _ = carry(stream, near, &[]).await;
            }
        });
    }

    /// Waits until an edge has opened one more; counts from the call on.
    pub fn came(&self) -> Notified<'_> {
        self.came.notified()
    }

    /// Opens a stream to the admin API of an edge, for one request, as soon as the edge has one open. The caller sets the deadline.
    pub async fn open(&self, edge: &str) -> DuplexStream {
        let (near, mut far) = duplex(BUFFER);
        loop {
            let came = self.came.notified();
            while let Some(next) = self.next(edge) {
                match next.send(far) {
                    Ok(()) => return near,
                    Err(back) => far = back,
                }
            }
            came.await;
        }
    }

    fn next(&self, edge: &str) -> Option<oneshot::Sender<DuplexStream>> {
        self.waiting.lock().get_mut(edge)?.pop_front()
    }
}

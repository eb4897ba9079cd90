//! The end of a process whose successor goes on with what it leaves.

use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::info;

use crate::handover::{DescriptorStore, INHERITANCE, send};
use crate::relay::{FrozenRelay, RelayShared, Standstill};

/// The time within which all workers must stand still. One that does not is busy with something that takes for ever.
const STAND_STILL: Duration = Duration::from_secs(5);
/// The time within which the service manager must have taken all.
const TAKE: Duration = Duration::from_secs(5);

/// Has all sessions of a core stand still, and leaves them to the next process by way of the service manager's store.
///
/// # Errors
/// Fails if a worker does not stand still, or the store does not take what is left. Then the sessions go on here.
pub(super) async fn leave(relay: &RelayShared, store: DescriptorStore) -> io::Result<Standstill> {
    let began = Instant::now();
    let frozen = timeout(STAND_STILL, relay.freeze());
    let (FrozenRelay { state, sockets, sessions }, standstill) =
        frozen.await.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "a worker does not stand still"))?;
    let (bytes, connections) = (state.len(), sockets.len());
    let stored = spawn_blocking(move || {
        let (ours, theirs) = UnixStream::pair()?;
        let sockets: Vec<_> = sockets.iter().map(|socket| socket.as_fd()).collect();
        send(&ours, &state, &[], &sockets)?;
        store.keep(INHERITANCE, theirs.as_fd())?;
        store.barrier(TAKE)?;
        drop(theirs);
        // A store that is full closes what it was given, and says so in its own log alone.
        ours.set_nonblocking(true)?;
        match (&ours).read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            _ => Err(io::Error::other("the store has no room: raise FileDescriptorStoreMax= of the unit")),
        }
    });
    stored.await.map_err(io::Error::other)??;
    let seconds = began.elapsed().as_secs_f64();
    info!(sessions, connections, bytes, seconds, "left the sessions to the next process");
    Ok(standstill)
}

//! The inheritance that a predecessor has left in the service manager's store.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use listenfd::ListenFd;
use rustix::net::{AddressFamily, SocketType};
use tracing::warn;

use super::{DescriptorStore, Inheritance, receive};

/// The name under which the store keeps an inheritance: one end of a stream that holds all of it.
pub const INHERITANCE: &str = "otproxy";

/// Takes the inheritance that the predecessor of this process has left in the service manager's store, which forgets it then.
/// Anything else that the manager hands over is closed, and named in the log.
///
/// It changes variables of the environment, and is called once, before there are other threads.
///
/// # Errors
/// Fails if there is an inheritance that cannot be [received](receive). It is lost then.
pub fn left() -> io::Result<Option<Inheritance>> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut handed = ListenFd::from_env();
    let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
    let mut streams = Vec::new();
    for (index, name) in (0..handed.len()).zip(names) {
        match name == INHERITANCE {
            true => match take(&mut handed, index, AddressFamily::UNIX, SocketType::STREAM) {
                Some(stream) => streams.push(UnixStream::from(stream)),
                None => warn!(name, "the service manager has kept a descriptor that is no unix stream"),
            },
            false => close(&mut handed, index, &name),
        }
    }
    if streams.is_empty() {
        return Ok(None);
    }
    // The one that was kept last is the newest; others are of processes whose successors never came so far.
    let inheritance = streams.pop().map(|stream| receive(&stream)).transpose();
    if let Some(Err(error)) = DescriptorStore::there().map(|store| store.remove(INHERITANCE)) {
        warn!(%error, "the service manager cannot be told to forget what it has kept");
    }
    inheritance
}

/// Takes a socket of this kind, if it is one.
fn take(handed: &mut ListenFd, index: usize, family: AddressFamily, kind: SocketType) -> Option<OwnedFd> {
    let kind = i32::try_from(kind.as_raw()).ok()?;
    handed.take_custom(index, family.as_raw().into(), kind, "socket").ok().flatten()
}

/// Closes a descriptor that nobody asked for. One that is no socket stays open, unused.
fn close(handed: &mut ListenFd, index: usize, name: &str) {
    let kinds = [SocketType::STREAM, SocketType::DGRAM, SocketType::SEQPACKET];
    let mut kinds = kinds.into_iter().flat_map(|kind| [(AddressFamily::UNIX, kind), (AddressFamily::INET, kind)]);
    let closed = kinds.any(|(family, kind)| take(handed, index, family, kind).is_some());
    warn!(name, closed, "the service manager has handed over a descriptor that otproxy knows nothing of");
}

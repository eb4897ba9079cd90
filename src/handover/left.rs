//! The inheritance that a predecessor has left in the service manager's store.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use listenfd::ListenFd;
use rustix::net::{AddressFamily, SocketType};
use tracing::warn;

use super::lifeline::{LIFELINE, Survivors, survive};
use super::{DescriptorStore, Inheritance, receive};

/// The name under which the store keeps an inheritance: one end of a stream that holds all of it.
pub const INHERITANCE: &str = "otproxy";

/// The things that the predecessor of this process has left.
#[derive(Debug, Default)]
pub enum Left {
    /// Nothing: it had nothing, or there was none.
    #[default]
    Nothing,
    /// It was told to end.
    Inheritance(Inheritance),
    /// It was killed.
    Survivors(Survivors),
}

/// Takes what the predecessor of this process has left in the service manager's store, which forgets it then.
/// Anything else that the manager hands over is closed, and named in the log.
///
/// It changes variables of the environment, and is called once, before there are other threads.
///
/// # Errors
/// Fails if something is there that cannot be taken over. It is lost then.
pub fn left() -> io::Result<Left> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut handed = ListenFd::from_env();
    let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
    let (mut streams, mut lifelines) = (Vec::new(), Vec::new());
    for (index, name) in (0..handed.len()).zip(names) {
        let lifeline = name.strip_prefix(LIFELINE).and_then(|number| number.parse().ok());
        match lifeline {
            _ if name == INHERITANCE => match take(&mut handed, index, AddressFamily::UNIX, SocketType::STREAM) {
                Some(stream) => streams.push(UnixStream::from(stream)),
                None => warn!(name, "the service manager has kept a descriptor that is no unix stream"),
            },
            Some(number) => match take(&mut handed, index, AddressFamily::UNIX, SocketType::SEQPACKET) {
                Some(end) => lifelines.push((number, end)),
                None => warn!(name, "the service manager has kept a descriptor that is no unix socket of packets"),
            },
            None => close(&mut handed, index, &name),
        }
    }
    let store = DescriptorStore::there();
    let forget = |name: &str| {
        if let Some(Err(error)) = store.as_ref().map(|store| store.remove(name)) {
            warn!(%error, "the service manager cannot be told to forget what it has kept");
        }
    };
    // The one that was kept last is the newest; others are of processes whose successors never came so far.
    let inheritance = streams.pop().map(|stream| receive(&stream)).transpose();
    if !matches!(inheritance, Ok(None)) {
        forget(INHERITANCE);
    }
    match inheritance {
        Ok(Some(inheritance)) => {
            // It was killed while it left this: all of it stood still then.
            lifelines.iter().for_each(|(number, _)| forget(&format!("{LIFELINE}{number}")));
            Ok(Left::Inheritance(inheritance))
        }
        Ok(None) => Ok(survive(lifelines, store.as_ref())?.map_or(Left::Nothing, Left::Survivors)),
        Err(error) if lifelines.is_empty() => Err(error),
        Err(error) => {
            warn!(%error, "what the last process has left cannot be taken over");
            Ok(survive(lifelines, store.as_ref())?.map_or(Left::Nothing, Left::Survivors))
        }
    }
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

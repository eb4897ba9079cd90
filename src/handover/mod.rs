//! The things that a process leaves to its successor: bytes of state, listening sockets, and open connections.
//!
//! They go over a unix stream, as descriptors and a few bytes beside them. The queue of such a stream holds all of it, so
//! that it can be written whole before anybody reads, and be kept by the service manager meanwhile. A successor that runs
//! already takes over at the other end of the stream: see [`Predecessor`] and [`Successor`].

mod left;
mod lifeline;
mod manager;
mod message;
mod store;
mod takeover;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::sockopt::{set_socket_send_buffer_size, socket_acceptconn};

use self::message::{Announcement, MAX_PER_MESSAGE, receive_message, send_message};

pub use self::left::{INHERITANCE, Left, left};
pub use self::lifeline::{Held, LIFELINE, Lifeline, MOST_TRIES, Survivors, Tail};
pub use self::manager::{ManagerSocket, is_managed};
pub use self::store::DescriptorStore;
pub use self::takeover::{Meeting, Predecessor, Successor, is_own_user};

/// Bytes of state at the most: 4 GiB.
pub const MAX_STATE: u64 = 4 << 30;
/// Descriptors at the most, listening sockets and connections together.
pub const MAX_DESCRIPTORS: u32 = 1_000_000;
/// The time within which the other side, or the service manager, must take a message, or send the next.
pub const WITHIN: Duration = Duration::from_secs(5);
/// The room that is asked for in the queue, in bytes; the kernel cuts it to its own limit.
const QUEUE: usize = 8 << 20;

/// The things that a process leaves to its successor.
#[derive(Debug, Default)]
pub struct Inheritance {
    /// Its state, in a format that its owner knows.
    pub state: Vec<u8>,
    /// Its listening sockets.
    pub listeners: Vec<TcpListener>,
    /// Its open connections, in the order in which the state has them.
    pub sockets: Vec<OwnedFd>,
}

/// Sends an inheritance. Nobody has to read meanwhile, as long as the queue of the stream holds it: some 50,000 descriptors
/// with the kernel's defaults.
///
/// # Errors
/// Fails if it exceeds a limit, if there is no memory for the state, if the queue is full and nobody reads for 5 seconds, or if
/// more descriptors are under way than the process may have open.
pub fn send(to: &UnixStream, state: &[u8], listeners: &[BorrowedFd<'_>], sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let announced = Announcement {
        state: u64::try_from(state.len()).unwrap_or(u64::MAX),
        listeners: u32::try_from(listeners.len()).unwrap_or(u32::MAX),
        sockets: u32::try_from(sockets.len()).unwrap_or(u32::MAX),
    };
    announced.check()?;
    to.set_nonblocking(false)?;
    to.set_write_timeout(Some(WITHIN))?;
    set_socket_send_buffer_size(to, QUEUE)?;
    let memory = memory_of(state).map_err(|error| because(&error, "the state cannot be kept in memory"))?;
    send_message(to, &announced.bytes(), &[memory.as_fd()])?;
    let messages = [listeners, sockets].into_iter().flat_map(|all| all.chunks(MAX_PER_MESSAGE));
    for (number, some) in (0_u32..).zip(messages) {
        send_message(to, &number.to_be_bytes(), some)?;
    }
    Ok(())
}

/// Receives an inheritance.
///
/// # Errors
/// Fails if there is nothing for 5 seconds or the stream ends early, if the other side speaks another format or sends something
/// else, if it exceeds a limit, or if this process may not have so many descriptors. All that was received is closed then.
pub fn receive(from: &UnixStream) -> io::Result<Inheritance> {
    from.set_nonblocking(false)?;
    from.set_read_timeout(Some(WITHIN))?;
    let mut first = [0; Announcement::LENGTH];
    let mut memory = Vec::new();
    receive_message(from, &mut first, &mut memory)?;
    let announced = Announcement::parse(&first)?;
    let [memory] = <[OwnedFd; 1]>::try_from(memory)
        .map_err(|some| strange(&format!("{} descriptors where one holds the state", some.len())))?;
    let state = read_state(memory.into(), announced.state)?;

    let (mut number, mut descriptors) = (0_u32, [Vec::new(), Vec::new()]);
    for (all, count) in descriptors.iter_mut().zip([announced.listeners, announced.sockets]) {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        while all.len() < count {
            let before = all.len();
            let mut bytes = [0; 4];
            receive_message(from, &mut bytes, all)?;
            if u32::from_be_bytes(bytes) != number || all.len() - before != MAX_PER_MESSAGE.min(count - before) {
                return Err(strange(&format!("{} descriptors in message {number}", all.len() - before)));
            }
            number += 1;
        }
    }
    let [listeners, sockets] = descriptors;
    let listeners = listeners.into_iter().map(listening).collect::<io::Result<_>>()?;
    Ok(Inheritance { state, listeners, sockets })
}

/// Returns a file in memory that holds `state`.
fn memory_of(state: &[u8]) -> io::Result<File> {
    let mut memory = File::from(memfd_create("otproxy-state", MemfdFlags::CLOEXEC)?);
    memory.write_all(state)?;
    Ok(memory)
}

/// Returns the `length` bytes of the file that holds a state.
fn read_state(mut memory: File, length: u64) -> io::Result<Vec<u8>> {
    let there = memory.metadata()?;
    if !there.is_file() || there.len() != length {
        return Err(strange(&format!("a state of {} bytes instead of {length}", there.len())));
    }
    // The place is shared with the one that wrote it.
    memory.rewind()?;
    let mut state = Vec::new();
    state.try_reserve_exact(usize::try_from(length).unwrap_or(usize::MAX))?;
    memory.take(length).read_to_end(&mut state)?;
    if u64::try_from(state.len()).ok() != Some(length) {
        return Err(strange(&format!("a state that ends after {} of {length} bytes", state.len())));
    }
    Ok(state)
}

/// Returns a descriptor as the listening socket that it is.
fn listening(descriptor: OwnedFd) -> io::Result<TcpListener> {
    if !socket_acceptconn(&descriptor).unwrap_or(false) {
        return Err(strange("a descriptor that does not listen"));
    }
    let listener = TcpListener::from(descriptor);
    listener.local_addr().map_err(|_| strange("a socket that does not listen on an IP address"))?;
    Ok(listener)
}

/// Returns the error of a peer that sends what no otproxy sends.
fn strange(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("the other process sent {what}"))
}

/// Returns an error with the words in front that say what could not be done.
fn because(error: &io::Error, what: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

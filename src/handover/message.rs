//! Messages of a few bytes and many descriptors on a unix stream. The kernel keeps messages with descriptors apart, on streams
//! as well.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use super::{MAX_DESCRIPTORS, MAX_STATE, because, strange};

/// Descriptors in one message at the most: the kernel's limit, SCM_MAX_FD.
pub(super) const MAX_PER_MESSAGE: usize = 253;
/// The bytes that the kernel's form of them takes.
const SPACE: usize = cmsg_space!(ScmRights(MAX_PER_MESSAGE));
/// The first bytes of all.
const MAGIC: [u8; 8] = *b"otproxy\n";
/// The format of the messages. The state in them has one of its own.
const FORMAT: u32 = 1;

/// The first message: what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Announcement {
    /// Bytes of state, in the file whose descriptor is in the message.
    pub state: u64,
    /// Listening sockets.
    pub listeners: u32,
    /// Open connections.
    pub sockets: u32,
}

impl Announcement {
    /// Its bytes.
    pub const LENGTH: usize = 28;

    /// Returns the bytes of the message.
    pub fn bytes(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        let parts = [
            &MAGIC[..],
            &FORMAT.to_be_bytes(),
            &self.state.to_be_bytes(),
            &self.listeners.to_be_bytes(),
            &self.sockets.to_be_bytes(),
        ];
        bytes.iter_mut().zip(parts.into_iter().flatten()).for_each(|(byte, part)| *byte = *part);
        bytes
    }

    /// Parses a message.
    ///
    /// # Errors
    /// Fails if it is none of this format, or exceeds a limit.
    pub fn parse(mut bytes: &[u8]) -> io::Result<Self> {
        if take(&mut bytes)? != MAGIC {
            return Err(strange("no otproxy's state"));
        }
        let format = u32::from_be_bytes(take(&mut bytes)?);
        if format != FORMAT {
            return Err(strange(&format!("its state in format {format}, and this version knows only format {FORMAT}")));
        }
        let announced = Self {
            state: u64::from_be_bytes(take(&mut bytes)?),
            listeners: u32::from_be_bytes(take(&mut bytes)?),
            sockets: u32::from_be_bytes(take(&mut bytes)?),
        };
        announced.check()?;
        Ok(announced)
    }

    /// Checks the limits.
    ///
    /// # Errors
    /// Says which one is exceeded.
    pub fn check(self) -> io::Result<()> {
        let Self { state, listeners, sockets } = self;
        if state > MAX_STATE {
            return Err(too_much(&format!("a state of {state} bytes is more than {MAX_STATE}")));
        }
        if listeners.checked_add(sockets).is_none_or(|all| all > MAX_DESCRIPTORS) {
            return Err(too_much(&format!(
                "{listeners} listening sockets and {sockets} connections are more than {MAX_DESCRIPTORS}"
            )));
        }
        Ok(())
    }
}

fn too_much(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, what)
}

/// Takes the next bytes of a message.
fn take<const N: usize>(bytes: &mut &[u8]) -> io::Result<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk().ok_or_else(|| strange("a message that is too short"))?;
    *bytes = rest;
    Ok(*first)
}

/// Sends `bytes` with `descriptors`, at most 253, in one message.
///
/// # Errors
/// Fails if the queue stays full or its reader is gone.
pub(super) fn send_message(to: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(too_much(&format!(
            "{} descriptors are more than {MAX_PER_MESSAGE} of one message",
            descriptors.len()
        )));
    }
    let sent = retry_on_intr(|| sendmsg(to.as_fd(), &[IoSlice::new(bytes)], &mut beside, SendFlags::NOSIGNAL));
    let sent = sent.map_err(|error| match error {
        Errno::AGAIN => io::Error::new(ErrorKind::TimedOut, "the queue is full and the other process does not read"),
        Errno::TOOMANYREFS => because(
            &error.into(),
            "more descriptors are under way than a process may have open; raise LimitNOFILE of the service",
        ),
        error => error.into(),
    })?;
    if sent != bytes.len() {
        return Err(io::Error::new(ErrorKind::WriteZero, format!("{sent} of {} bytes were sent", bytes.len())));
    }
    Ok(())
}

/// Receives a message of `bytes`, whole, and adds its descriptors to `descriptors`. They are closed on `exec`.
///
/// # Errors
/// Fails if the stream ends or nothing comes, if the message is shorter, or if not all descriptors could be had.
pub(super) fn receive_message(from: impl AsFd, bytes: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let length = bytes.len();
    let mut parts = [IoSliceMut::new(bytes)];
    let received = retry_on_intr(|| recvmsg(from.as_fd(), &mut parts, &mut beside, RecvFlags::CMSG_CLOEXEC));
    let received = received.map_err(|error| match error {
        Errno::AGAIN => io::Error::new(ErrorKind::TimedOut, "the other process sends nothing"),
        error => error.into(),
    })?;
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            descriptors.extend(some);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::other(
            "not all descriptors of the other process could be had; raise LimitNOFILE of the service",
        ));
    }
    match received.bytes {
        0 => Err(io::Error::new(ErrorKind::UnexpectedEof, "the other process ended before it had sent all")),
        all if all == length => Ok(()),
        some => Err(strange(&format!("a message of {some} bytes instead of {length}"))),
    }
}

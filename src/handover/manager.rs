//! Messages to the service manager: sd_notify(3).

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;

use rustix::cmsg_space;
use rustix::io::retry_on_intr;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg_addr};

/// Returns whether a service manager runs this process, and would take its end for that of the service: the one of
/// `NOTIFY_SOCKET`, or systemd, which tells each process that it starts its own number.
#[must_use]
pub fn is_managed() -> bool {
    let variable = |name| std::env::var_os(name);
    runs(variable("NOTIFY_SOCKET").as_deref(), variable("SYSTEMD_EXEC_PID").as_deref(), std::process::id())
}

/// Returns whether these values of the variables say so of the process with this number.
pub(super) fn runs(socket: Option<&OsStr>, started: Option<&OsStr>, own: u32) -> bool {
    // A shell in a service hands the second one on to all that it starts.
    let started = started.and_then(OsStr::to_str).and_then(|number| number.parse().ok());
    socket.is_some_and(|socket| !socket.is_empty()) || started == Some(own)
}

/// The socket of the service manager, which the variable `NOTIFY_SOCKET` names.
#[derive(Debug, Clone)]
pub struct ManagerSocket {
    address: SocketAddrUnix,
    /// Open from the beginning: there may be no descriptor left when something must be told.
    sender: Arc<UnixDatagram>,
}

impl ManagerSocket {
    /// Returns the socket of this name: a path or, behind `@`, a name of Linux's own for sockets.
    ///
    /// # Errors
    /// Fails if it is too long for the name of a socket, or if there is no descriptor left.
    pub fn named(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddrUnix::new_abstract_name(name)?,
            None => SocketAddrUnix::new(name)?,
        };
        Ok(Self { address, sender: Arc::new(UnixDatagram::unbound()?) })
    }

    /// Sends a message, and a descriptor with it. The manager must take it `within` this time.
    ///
    /// # Errors
    /// Fails if nobody reads there, or not in time.
    pub fn send(&self, message: &str, descriptor: Option<BorrowedFd<'_>>, within: Duration) -> io::Result<()> {
        self.sender.set_write_timeout(Some(within))?;
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        // There is room for one.
        let one = descriptor.as_slice();
        let _ = one.is_empty() || beside.push(SendAncillaryMessage::ScmRights(one));
        let message = [IoSlice::new(message.as_bytes())];
        retry_on_intr(|| sendmsg_addr(&self.sender, &self.address, &message, &mut beside, SendFlags::NOSIGNAL))?;
        Ok(())
    }
}

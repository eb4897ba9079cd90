//! systemd's store of descriptors, which outlives the process: `FDSTORE=1` of sd_notify(3).

use std::ffi::OsStr;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::WITHIN;
use super::manager::ManagerSocket;

/// The store of descriptors that the service manager has for this service.
#[derive(Debug, Clone)]
pub struct DescriptorStore(ManagerSocket);

impl DescriptorStore {
    /// Returns the store of this process, if it has one: its service manager is there, and the variable `FDSTORE` says
    /// how many descriptors it keeps. systemd sets that from version 254 on, and the shipped units for older ones.
    #[must_use]
    pub fn there() -> Option<Self> {
        let variable = |name| std::env::var_os(name);
        Self::of(variable("NOTIFY_SOCKET").as_deref(), variable("FDSTORE").as_deref())
    }

    /// Returns the store that these values of `NOTIFY_SOCKET` and `FDSTORE` tell of.
    pub(super) fn of(socket: Option<&OsStr>, kept: Option<&OsStr>) -> Option<Self> {
        let socket = socket.filter(|socket| !socket.is_empty())?;
        let kept: u64 = kept?.to_str()?.parse().ok()?;
        if kept == 0 {
            return None;
        }
        ManagerSocket::named(socket).ok().map(Self)
    }

    /// Keeps a descriptor under a name, until it is removed. The manager does not look whether its other end is closed.
    ///
    /// A store that is full says nothing of it.
    ///
    /// # Errors
    /// Fails if the manager cannot be reached.
    pub fn keep(&self, name: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        self.0.send(&format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0\n"), Some(descriptor), WITHIN)
    }

    /// Removes all descriptors of a name, each of which is closed unless another process has it.
    ///
    /// # Errors
    /// Fails if the manager cannot be reached.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        self.0.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}\n"), None, WITHIN)
    }

    /// Waits until the manager has done all that it was told.
    ///
    /// # Errors
    /// Fails if the manager cannot be reached or takes longer than `timeout`.
    pub fn barrier(&self, timeout: Duration) -> io::Result<()> {
        let (mut ours, theirs) = UnixStream::pair()?;
        self.0.send("BARRIER=1\n", Some(theirs.as_fd()), timeout)?;
        drop(theirs);
        ours.set_read_timeout(Some(timeout))?;
        // The manager closes its end, unused, when it has come to this message.
        match ours.read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Err(io::Error::new(ErrorKind::TimedOut, "the service manager does not answer"))
            }
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_there_where_both_variables_say_so() {
        let there = |socket: Option<&str>, kept: Option<&str>| {
            DescriptorStore::of(socket.map(OsStr::new), kept.map(OsStr::new)).is_some()
        };
        assert!(there(Some("/run/systemd/notify"), Some("1")) && there(Some("@abstract"), Some("4096")));
        for (socket, kept) in [
            (None, Some("1")),
            (Some(""), Some("1")),
            (Some("/run/systemd/notify"), None),
            (Some("/run/systemd/notify"), Some("0")),
            (Some("/run/systemd/notify"), Some("many")),
            (Some("/run/systemd/notify"), Some("-1")),
        ] {
            assert!(!there(socket, kept), "{socket:?} {kept:?}");
        }
        let long = "/".repeat(200);
        assert!(!there(Some(&long), Some("1")));
    }
}

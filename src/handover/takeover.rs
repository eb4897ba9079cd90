//! The takeover by a process that was started beside the one that runs: both ends of the stream between them.
//!
//! 1. The one that runs offers its listening sockets. The other binds whatever else it needs, and says that it could.
//! 2. The one that runs stands still, and offers its state and its connections. The other reads all of it, is ready to run,
//!    and says so.
//! 3. The one that runs gives up what it offered, and the other one's last word is that it has it.
//!
//! Up to that word the one that runs may go on, and does so if the other says nothing in time or is gone. The other has copies
//! of descriptors until then, and uses none: closing them changes nothing about the connections.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::geteuid;
use tokio::net;

use super::{Inheritance, WITHIN, receive, send, strange};
use otproxy_net::listen_unix;

/// The mode of the socket at which the two meet: for the user of the process that takes over.
const MODE: u32 = 0o600;
/// The word of the one that takes over: it can use what was offered.
const USABLE: u8 = b'+';
/// The word of the one that ran: all that it offered is the other's.
const YOURS: u8 = b'Y';
/// The word of the one that takes over: it has it.
const MINE: u8 = b'M';

/// The place at which a process that takes over waits for the one that runs. It is removed when dropped.
#[derive(Debug)]
pub struct Meeting {
    listener: UnixListener,
    path: PathBuf,
    name: String,
}

impl Meeting {
    /// Listens in the folder of the `socket` of the one that runs.
    ///
    /// # Errors
    /// Fails if no socket can be made there.
    pub fn beside(socket: &Path) -> io::Result<Self> {
        let name = format!(".{}.up", std::process::id());
        let path = socket.with_file_name(&name);
        Ok(Self { listener: listen_unix(&path, MODE)?, path, name })
    }

    /// Returns the name of its own socket in that folder.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the process that has come. It does not wait: that one says elsewhere that it is here. To be called on a runtime.
    ///
    /// # Errors
    /// Fails if nobody has come, or somebody of another user.
    pub fn met(self) -> io::Result<Predecessor> {
        let (stream, _) = self.listener.accept()?;
        stream.set_nonblocking(true)?;
        let stream = net::UnixStream::from_std(stream)?;
        check_user(&stream)?;
        Ok(Predecessor::over(stream.into_std()?, WITHIN))
    }
}

impl Drop for Meeting {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Returns whether a user may take over from this process, or hand over to it: its own, or root.
#[must_use]
pub fn is_own_user(uid: u32) -> bool {
    uid == geteuid().as_raw() || uid == 0
}

/// Checks that the other end of a stream is of a process of this user, or of root. Returns whether it is one that this process sees.
fn check_user(stream: &net::UnixStream) -> io::Result<bool> {
    let peer = stream.peer_cred()?;
    let uid = peer.uid();
    if is_own_user(uid) {
        // One in a container that does not hold this process has the number 0 here.
        return Ok(peer.pid() != Some(0));
    }
    Err(io::Error::new(
        ErrorKind::PermissionDenied,
        format!("a process of user id {uid} is there, which is another user"),
    ))
}

/// The process that is to take over, as the one that runs sees it.
#[derive(Debug)]
pub struct Successor {
    stream: UnixStream,
    within: Duration,
    near: bool,
}

impl Successor {
    /// Goes to the place at which it waits.
    ///
    /// # Errors
    /// Fails if nobody waits there, or somebody of another user.
    pub async fn at(place: &Path) -> io::Result<Self> {
        let stream = net::UnixStream::connect(place).await?;
        let near = check_user(&stream)?;
        Ok(Self { near, ..Self::over(stream.into_std()?, WITHIN) })
    }

    /// Returns whether it would end together with this process, if this is the first one of a container.
    #[must_use]
    pub fn is_near(&self) -> bool {
        self.near
    }

    /// Returns the one at the other end of a stream, which must answer `within` this time.
    pub(super) fn over(stream: UnixStream, within: Duration) -> Self {
        Self { stream, within, near: true }
    }

    /// Offers an inheritance, and waits until it has said that it can use it.
    ///
    /// # Errors
    /// Fails if that cannot be [sent](send), or if it does not say so in time.
    pub fn offer(&self, state: &[u8], listeners: &[BorrowedFd<'_>], sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        send(&self.stream, state, listeners, sockets)?;
        hear(&self.stream, USABLE, Some(self.within))
    }

    /// Gives up all that was offered. If this fails the other one is gone, and has used nothing of it.
    ///
    /// # Errors
    /// Fails if it ends before it has taken over.
    pub fn give_up(&self) -> io::Result<()> {
        say(&self.stream, YOURS)?;
        // Only its word or its end shows who goes on: a limit of time here might leave both running, or nobody.
        hear(&self.stream, MINE, None)
    }
}

/// The process that runs, as the one that takes over sees it.
#[derive(Debug)]
pub struct Predecessor {
    stream: UnixStream,
    within: Duration,
}

impl Predecessor {
    /// Returns the one at the other end of a stream, which must answer `within` this time.
    pub(super) fn over(stream: UnixStream, within: Duration) -> Self {
        Self { stream, within }
    }

    /// Receives what it offers next.
    ///
    /// # Errors
    /// Fails if it cannot be [received](receive).
    pub fn offered(&self) -> io::Result<Inheritance> {
        receive(&self.stream)
    }

    /// Says that what it has offered can be used.
    ///
    /// # Errors
    /// Fails if it is gone.
    pub fn accept(&self) -> io::Result<()> {
        say(&self.stream, USABLE)
    }

    /// Says the same of the last offer, and takes over when that one gives up everything.
    ///
    /// # Errors
    /// Fails if it does not do so in time. It goes on then.
    pub fn take_over(self) -> io::Result<()> {
        self.accept()?;
        hear(&self.stream, YOURS, Some(self.within))?;
        // It may be gone by now. It has given up everything before.
        let _ = say(&self.stream, MINE);
        Ok(())
    }
}

/// Sends a word.
fn say(mut to: &UnixStream, word: u8) -> io::Result<()> {
    to.set_write_timeout(Some(WITHIN))?;
    to.write_all(&[word])
}

/// Waits for that word, for so long.
fn hear(mut from: &UnixStream, word: u8, within: Option<Duration>) -> io::Result<()> {
    from.set_nonblocking(false)?;
    from.set_read_timeout(within)?;
    let mut heard = [0];
    match from.read_exact(&mut heard) {
        Ok(()) if heard == [word] => Ok(()),
        Ok(()) => Err(strange("another word than is its turn")),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Err(io::Error::new(ErrorKind::TimedOut, "the other process does not answer in time"))
        }
        Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
            Err(io::Error::new(ErrorKind::UnexpectedEof, "the other process has given it up, or is gone"))
        }
        Err(error) => Err(error),
    }
}

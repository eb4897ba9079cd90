//! The position of a TCP connection's ends in its streams, by the kernel's count.

use std::io;
use std::mem::size_of_val;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::ioctl_fionread;

/// The positions in `struct tcp_info` of the kernel's interface, which only ever grows at its end: its state, and bytes
/// that the peer has acknowledged and that have come from it (both since Linux 4.1).
const STATE: usize = 0;
const BYTES_ACKED: usize = 120;
const BYTES_RECEIVED: usize = 128;
/// Bytes up to the end of the last of them.
const INFO: usize = BYTES_RECEIVED + 8;
/// The states of a connection whose peer has closed its side: the end counts as a byte that came.
const CLOSED_BY_PEER: [u8; 5] = [6, 7, 8, 9, 11];
/// Looks at the counters of a connection at the most, until two of them agree.
const LOOKS: usize = 100;

/// The bytes that a process has written to and read from a connection that it opened, whoever asks for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamPosition {
    /// Bytes that were written.
    pub written: u64,
    /// Bytes that were read.
    pub read: u64,
}

impl StreamPosition {
    /// Returns those of a TCP connection that this side opened. Nobody may read or write it meanwhile; its peer may.
    ///
    /// # Errors
    /// Fails if it is none, if the kernel does not count, or if the peer never lets the counters stand still.
    pub fn of(socket: impl AsFd) -> io::Result<Self> {
        let mut before = Self::look(&socket)?;
        for _ in 0..LOOKS {
            // Each is the difference of two counters, between which the peer may have sent or acknowledged something.
            let now = Self::look(&socket)?;
            if now == before {
                return Ok(now);
            }
            before = now;
        }
        Err(io::Error::new(io::ErrorKind::WouldBlock, "the counters of the connection never stand still"))
    }

    fn look(socket: &impl AsFd) -> io::Result<Self> {
        let info = tcp_info(socket)?;
        let number =
            |at: usize| info.get(at..).and_then(|rest| rest.first_chunk()).map(|bytes| u64::from_ne_bytes(*bytes));
        let (Some(acked), Some(received), Some(state)) = (number(BYTES_ACKED), number(BYTES_RECEIVED), info.get(STATE))
        else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let unread = ioctl_fionread(socket)?;
        let end = u64::from(CLOSED_BY_PEER.contains(state));
        // The beginning of a connection that this side opened counts as a byte that was acknowledged.
        let written = acked.checked_sub(1).and_then(|acked| acked.checked_add(unsent(socket)?));
        let read = received.checked_sub(end).and_then(|received| received.checked_sub(unread));
        let (Some(written), Some(read)) = (written, read) else { return Err(io::ErrorKind::InvalidData.into()) };
        Ok(Self { written, read })
    }
}

/// Returns the first bytes of the kernel's `struct tcp_info` of a socket.
fn tcp_info(socket: &impl AsFd) -> io::Result<[u8; INFO]> {
    let mut info = [0_u8; INFO];
    let mut len = libc::socklen_t::try_from(size_of_val(&info)).map_err(io::Error::other)?;
    #[expect(
        unsafe_code,
        reason = "the kernel writes at most `len` bytes to `info`, which has as many, and the number of them to `len`; both are there \
                  until it returns. Any bytes are bytes of an array. The descriptor is open, as it is borrowed"
    )]
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    match done {
        0 if len as usize == INFO => Ok(info),
        // A kernel that is too old to count bytes.
        0 => Err(io::ErrorKind::Unsupported.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns the bytes that were written to a socket and that its peer has not acknowledged; `None` if it is none.
fn unsent(socket: &impl AsFd) -> Option<u64> {
    let mut bytes: libc::c_int = 0;
    #[expect(
        unsafe_code,
        reason = "the kernel writes one int to `bytes`, which is one, and is there until it returns. The descriptor is open, as it is borrowed"
    )]
    let done = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if done == 0 { u64::try_from(bytes).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (ours, listener.accept().unwrap().0)
    }

    /// Waits until the kernel has delivered that much to the socket.
    fn arrives(socket: &TcpStream, bytes: u64) {
        while ioctl_fionread(socket).unwrap() < bytes {
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_kernel_counts_what_was_written_and_read() {
        let (mut ours, mut theirs) = pair();
        ours.set_nonblocking(true).unwrap();
        assert_eq!(StreamPosition::of(&ours).unwrap(), StreamPosition { written: 0, read: 0 });
        let (mut written, mut sent, mut read, mut buffer) = (0, 0, 0, vec![7; 1 << 20]);
        for turn in 1..50 {
            // More than the peer takes, so that some of it waits in the kernel.
            written += ours.write(&buffer[..turn * 9770 % 60_000]).unwrap_or(0) as u64;
            sent += theirs.write(&buffer[..turn * 31]).unwrap() as u64;
            arrives(&ours, sent - read);
            read += ours.read(&mut buffer[..turn * 17]).unwrap() as u64;
            assert_eq!(StreamPosition::of(&ours).unwrap(), StreamPosition { written, read }, "turn {turn}");
        }
        assert!(written > 100_000 && read > 20_000 && read < sent);
        // All of it is read, while the peer goes on to read what came.
        while read < sent {
            read += ours.read(&mut buffer).unwrap() as u64;
        }
        theirs.read_exact(&mut vec![0; 50_000]).unwrap();
        assert_eq!(StreamPosition::of(&ours).unwrap(), StreamPosition { written, read });
    }

    #[test]
    fn the_end_of_a_stream_is_no_byte() {
        for unread in [0, 1, 500] {
            let (mut ours, mut theirs) = pair();
            ours.write_all(b"hello").unwrap();
            theirs.read_exact(&mut [0; 5]).unwrap();
            theirs.write_all(&[1; 1000]).unwrap();
            theirs.shutdown(Shutdown::Write).unwrap();
            ours.read_exact(&mut vec![0; 1000 - unread]).unwrap();
            // It has come once there is an end to be read behind the bytes.
            let mut peeked = vec![0; unread + 1];
            while !matches!(ours.peek(&mut peeked), Ok(n) if n == unread) {
                std::thread::yield_now();
            }
            while tcp_info(&ours).unwrap()[STATE] == 1 {
                std::thread::yield_now();
            }
            let read = 1000 - unread as u64;
            assert_eq!(StreamPosition::of(&ours).unwrap(), StreamPosition { written: 5, read }, "{unread} unread");
            let mut rest = Vec::new();
            ours.read_to_end(&mut rest).unwrap();
            assert_eq!(rest.len(), unread);
            assert_eq!(StreamPosition::of(&ours).unwrap(), StreamPosition { written: 5, read: 1000 });
            ours.shutdown(Shutdown::Write).unwrap();
            assert_eq!(StreamPosition::of(&ours).unwrap().read, 1000);
        }
    }

    #[test]
    fn what_is_no_connection_is_an_error() {
        assert!(StreamPosition::of(std::fs::File::open("/dev/null").unwrap()).is_err());
        let (unix, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(StreamPosition::of(&unix).is_err());
    }
}

//! A TCP socket that is read into buffers of its caller, and written at once as far as it takes the bytes.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::task::{Context, Poll, ready};

use rustix::event::{self, PollFd, PollFlags, Timespec};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::options::{self, UNSENT};

/// A non-blocking TCP socket on the runtime of one worker.
#[derive(Debug)]
pub(super) struct Socket {
    io: TcpStream,
    /// Bytes that may still be written before the kernel is asked again how many wait; `None` without a limit.
    room: Cell<Option<usize>>,
}

/// A socket on no runtime.
#[derive(Debug)]
pub(super) struct DetachedSocket {
    io: std::net::TcpStream,
    room: Option<usize>,
}

impl DetachedSocket {
    /// Attaches it to the runtime that this runs on.
    pub(super) fn attach(self) -> io::Result<Socket> {
        Ok(Socket { io: TcpStream::from_std(self.io)?, room: Cell::new(self.room) })
    }
}

impl Socket {
    /// Takes over a connected socket, and turns Nagle's delay off.
    pub(super) fn new(io: TcpStream) -> io::Result<Self> {
        io.set_nodelay(true)?;
        Ok(Self { io, room: Cell::new(None) })
    }

    /// Detaches it from its runtime.
    pub(super) fn detach(self) -> io::Result<DetachedSocket> {
        Ok(DetachedSocket { room: self.room.get(), io: self.io.into_std()? })
    }

    /// Limits the bytes that wait unsent in the kernel: further ones wait here.
    pub(super) fn limit_unsent(&self) {
        options::towards_client(&self.options());
        self.room.set(Some(0));
    }

    /// Returns one more descriptor of it.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.io.as_fd().try_clone_to_owned()
    }

    /// Returns the kernel's options.
    pub(super) fn options(&self) -> SockRef<'_> {
        SockRef::from(&self.io)
    }

    /// Returns the address of this side.
    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    /// Reads available bytes; 0 is the end. Never fails with `WouldBlock`.
    pub(super) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.io.poll_read_ready(cx))?;
            match self.io.try_read(buffer) {
                Ok(n) => {
                    if n > 0 && n < buffer.len() {
                        self.forget_readable();
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    /// Clears the readiness to read. A read that leaves room in its buffer has emptied the socket: the next byte comes
    /// with a new event, and asking again before it would cost a system call for nothing. A known end of stream stays
    /// known.
    fn forget_readable(&self) {
        let _ = self.io.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    }

    /// Polls until it may take more.
    pub(super) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_write_ready(cx)
    }

    /// Writes at once as many bytes as it takes, with one system call; `WouldBlock` if it takes none now.
    pub(super) fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.room.get().is_none() {
            return self.write(slices);
        }
        let room = self.room_for(slices.iter().map(|slice| slice.len()).sum())?;
        match slices.first().and_then(|first| first.get(..UNSENT)) {
            Some(part) => self.write_into(room, &[IoSlice::new(part)]),
            None => self.write_into(room, whole_ones(slices)),
        }
    }

    /// Returns the room for a write of `wanted` bytes, for [`Socket::write_into`]; `WouldBlock` if there is none now.
    pub(super) fn room_for(&self, wanted: usize) -> io::Result<WriteRoom> {
        match self.room.get() {
            Some(room) if wanted > room => {
                if !self.has_room() {
                    // Waiting begins anew, and the kernel notifies when there is room.
                    return self.io.try_io(Interest::WRITABLE, || Err(io::ErrorKind::WouldBlock.into()));
                }
                Ok(WriteRoom(Some(UNSENT)))
            }
            room => Ok(WriteRoom(room)),
        }
    }

    /// Writes at once what it takes of all `slices`, with one system call.
    pub(super) fn write_into(&self, room: WriteRoom, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = self.write(slices)?;
        if let WriteRoom(Some(room)) = room {
            self.room.set(Some(room.saturating_sub(written)));
        }
        Ok(written)
    }

    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            let result = match slices {
                [one] => self.io.try_write(one),
                many => self.io.try_write_vectored(many),
            };
            match result {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// Returns whether few enough bytes wait unsent in the kernel for [`UNSENT`] more to be written. A write alone does
    /// not find out: until the kernel sends the bytes that it took last, it adds up to 64 KiB to them, whatever
    /// `TCP_NOTSENT_LOWAT` says.
    fn has_room(&self) -> bool {
        let mut socket = [PollFd::new(&self.io, PollFlags::OUT)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        // If it cannot be asked, the write itself will tell.
        event::poll(&mut socket, Some(&at_once)).map_or(true, |ready| ready > 0)
    }

    /// Ends this side's direction; the other may go on.
    pub(super) fn shutdown_write(&self) {
        // A socket that is gone already needs no goodbye.
        let _ = self.options().shutdown(Shutdown::Write);
    }
}

/// The room for a write, if the bytes that wait in the kernel are limited.
pub(super) struct WriteRoom(Option<usize>);

/// Returns the slices at the front of `slices` that one write may leave unsent together.
pub(super) fn whole_ones<'a, 'b>(slices: &'a [IoSlice<'b>]) -> &'a [IoSlice<'b>] {
    let mut sum = 0;
    let fitting = slices.iter().take_while(|slice| {
        sum += slice.len();
        sum <= UNSENT
    });
    slices.get(..fitting.count()).unwrap_or(slices)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Read;
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;
    use crate::Stream;

    /// Much more than waits in both kernels together.
    const BYTES: usize = 8 << 20;

    #[test]
    fn what_a_client_does_not_take_waits_here_and_goes_on_once_it_does() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = runtime.block_on(TcpStream::connect(listener.local_addr().unwrap())).unwrap();
        let mut peer = listener.accept().unwrap().0;
        let _inside = runtime.enter();
        let stream = Stream::new(client).unwrap();
        stream.limit_unsent();
        let packet = [7; 10_000];
        let mut sent = 0;
        // An unbounded one takes megabytes before it is full.
        while let Ok(taken) = stream.try_write(&[IoSlice::new(&packet[..100]), IoSlice::new(&packet)]) {
            assert!(taken <= UNSENT, "{taken}");
            sent += taken;
        }
        assert!(sent < 512 * 1024, "{sent} bytes wait in the kernels");
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            peer.read_to_end(&mut all).map(|_| all.len())
        });
        let writing = async {
            while sent < BYTES {
                sent += poll_fn(|cx| stream.poll_write(cx, &packet)).await.unwrap();
            }
        };
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), writing).await.expect("it goes on") });
        drop(stream);
        assert_eq!(reader.join().unwrap().unwrap(), sent);
    }

    #[test]
    fn a_write_takes_whole_slices_as_far_as_they_fit() {
        let lengths = |lengths: &[usize]| {
            let bytes = [0; 2 * UNSENT];
            let slices: Vec<_> = lengths.iter().map(|length| IoSlice::new(&bytes[..*length])).collect();
            whole_ones(&slices).len()
        };
        assert_eq!(lengths(&[]), 0);
        assert_eq!(lengths(&[0, 14, 100]), 3);
        assert_eq!(lengths(&[14, UNSENT - 14, 1]), 2);
        assert_eq!(lengths(&[14, UNSENT, 1]), 1);
    }
}

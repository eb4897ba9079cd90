//! TLS over a socket: records in and out, with buffers that all streams of a thread share.
//!
//! What TLS says is in `Machine`, which knows no socket. A stream keeps bytes only while it cannot go on: half a
//! record that has come, what the reader had no room for, and what the socket did not take.

mod machine;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ServerConfig};
use thiserror::Error;

use self::machine::{Machine, Wish};
use super::options::UNSENT;
use super::socket::{Socket, whole_ones};

/// What both sides must agree on (ALPN): which protocol runs inside.
pub const ALPN: &[u8] = b"otproxy/1";

/// The largest record that rustls takes, with its header. It is also the most that a handshake may have on its way at
/// once, and the most ciphertext that a stream keeps.
pub const MAX_RECORD: usize = 5 + 16 * 1024 + 2048;
/// The most of what is written that one record holds, bytes: TLS allows no more.
pub const MAX_PLAIN: usize = 16 * 1024;
// What `whole_ones` gives fits into a record.
const _: () = assert!(UNSENT <= MAX_PLAIN);

/// Why there is no stream under TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer closed the connection during the handshake.
    #[error("closed during the handshake")]
    Closed,
    /// The peer is none of ours, or does not speak TLS as we do.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// The peer speaks TLS, but not our protocol inside it.
    #[error("no agreement on the protocol `otproxy/1` (ALPN)")]
    Alpn,
}

/// What all streams of a thread share: what is in there is used up before another stream has its turn.
struct Buffers {
    /// A record, as it comes or goes.
    record: Box<[u8]>,
    /// The slices of a write, side by side.
    plain: Box<[u8]>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::new(Buffers {
        record: vec![0; MAX_RECORD].into_boxed_slice(),
        plain: vec![0; MAX_PLAIN].into_boxed_slice(),
    });
}

/// The TLS part of a stream.
#[derive(Debug)]
pub(super) struct Tls {
    machine: RefCell<Machine>,
}

impl Tls {
    /// Shakes hands as the client.
    pub(super) async fn connect(
        socket: &Socket,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Box<Self>, TlsError> {
        Self::shake_hands(socket, Machine::client(config, name)?).await
    }

    /// Shakes hands as the server.
    pub(super) async fn accept(socket: &Socket, config: Arc<ServerConfig>) -> Result<Box<Self>, TlsError> {
        Self::shake_hands(socket, Machine::server(config)?).await
    }

    async fn shake_hands(socket: &Socket, machine: Machine) -> Result<Box<Self>, TlsError> {
        let tls = Box::new(Self { machine: RefCell::new(machine) });
        // The client's first words.
        tls.machine.borrow_mut().take_in(&mut [], &mut []);
        poll_fn(|cx| tls.poll_handshake(socket, cx)).await?;
        Ok(tls)
    }

    fn poll_handshake(&self, socket: &Socket, cx: &mut Context<'_>) -> Poll<Result<(), TlsError>> {
        loop {
            let failure = self.machine.borrow_mut().take_failure();
            if let Some(error) = failure {
                // With the alert, as far as the socket takes it. To leave bytes unread would reset the connection, and
                // the reset might overtake the alert.
                let _ = flush(socket, &mut self.machine.borrow_mut());
                socket.shutdown_write();
                BUFFERS.with_borrow_mut(|buffers| socket.poll_read(cx, &mut buffers.record).is_ready());
                return Poll::Ready(Err(error.into()));
            }
            ready!(self.poll_flush(socket, cx))?;
            let mut machine = self.machine.borrow_mut();
            if !machine.is_handshaking() {
                let agreed = machine.alpn() == Some(ALPN);
                return Poll::Ready(if agreed { Ok(()) } else { Err(TlsError::Alpn) });
            }
            if ready!(fill(socket, &mut machine, cx, &mut []))? == Filled::End {
                return Poll::Ready(Err(TlsError::Closed));
            }
        }
    }

    /// The peer's own certificate.
    pub(super) fn peer_certificate(&self) -> Option<CertificateDer<'static>> {
        self.machine.borrow().peer_certificate().cloned()
    }

    pub(super) fn poll_read(
        &self,
        socket: &Socket,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut machine = self.machine.borrow_mut();
        let mut result = machine.read(buffer);
        while result.is_none() {
            result = match ready!(fill(socket, &mut machine, cx, buffer))? {
                Filled::End => Some(Err(io::ErrorKind::UnexpectedEof.into())),
                Filled::Plain(0) => machine.read(buffer),
                Filled::Plain(n) => Some(Ok(n)),
            };
        }
        if machine.holds_back() {
            // An alert. Whoever reads waits for nothing else, and what is not out now goes with the next write.
            let _ = flush(socket, &mut machine);
        }
        Poll::Ready(result.unwrap_or(Ok(0)))
    }

    pub(super) fn try_write(&self, socket: &Socket, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut machine = self.machine.borrow_mut();
        flush(socket, &mut machine)?;
        BUFFERS.with_borrow_mut(|Buffers { record, plain }| {
            let plain = gather(slices, plain);
            if plain.is_empty() {
                return Ok(0);
            }
            // Asked before anything is encrypted: what is goes out, sooner or later.
            let room = socket.room_for(plain.len())?;
            let sealed = match machine.seal(Wish::Send(plain), record) {
                Ok(sealed) => sealed,
                Err(error) => {
                    // With the alert, where what had come from the peer is why.
                    let _ = flush(socket, &mut machine);
                    return Err(error);
                }
            };
            if machine.holds_back() {
                machine.hold_back(sealed);
                let _ = would_block(flush(socket, &mut machine))?;
            } else {
                let written = would_block(socket.write_into(room, &[IoSlice::new(sealed)]))?.unwrap_or(0);
                machine.hold_back(sealed.get(written..).unwrap_or_default());
            }
            Ok(plain.len())
        })
    }

    pub(super) fn holds_back(&self) -> bool {
        self.machine.borrow().holds_back()
    }

    pub(super) fn poll_flush(&self, socket: &Socket, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut machine = self.machine.borrow_mut();
        while would_block(flush(socket, &mut machine))?.is_none() {
            ready!(socket.poll_writable(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Ready once all that was written is out, and that it was all.
    pub(super) fn poll_goodbye(&self, socket: &Socket, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(socket, cx))?;
        let mut machine = self.machine.borrow_mut();
        if !machine.has_said_goodbye() {
            BUFFERS.with_borrow_mut(|Buffers { record, .. }| {
                let sealed = machine.seal(Wish::Goodbye, record)?;
                machine.hold_back(sealed);
                io::Result::Ok(())
            })?;
            drop(machine);
            ready!(self.poll_flush(socket, cx))?;
        }
        Poll::Ready(Ok(()))
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Filled {
    /// The socket's.
    End,
    /// So many bytes are in the reader's buffer now.
    Plain(usize),
}

/// Reads the socket once, behind what the machine has kept, and has the machine take it in.
fn fill(socket: &Socket, machine: &mut Machine, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<Filled>> {
    BUFFERS.with_borrow_mut(|Buffers { record, .. }| {
        let kept = machine.kept().len();
        let space = record.get_mut(kept..).unwrap_or_default();
        let count = ready!(socket.poll_read(cx, space))?;
        if count == 0 {
            return Poll::Ready(Ok(Filled::End));
        }
        let bytes = record.get_mut(..kept + count).unwrap_or_default();
        if let Some(front) = bytes.get_mut(..kept) {
            front.copy_from_slice(machine.kept());
        }
        Poll::Ready(Ok(Filled::Plain(machine.take_in(bytes, out))))
    })
}

/// Writes what is held back, as far as the socket takes it: all, or `WouldBlock`.
fn flush(socket: &Socket, machine: &mut Machine) -> io::Result<()> {
    loop {
        let rest = machine.held_back();
        if rest.is_empty() {
            return Ok(());
        }
        let room = socket.room_for(rest.len())?;
        let written = socket.write_into(room, &[IoSlice::new(rest)])?;
        machine.is_out(written);
    }
}

/// `None` for what is no error: the socket takes nothing now.
fn would_block<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e),
    }
}

/// What of `slices` goes into one record: whole ones as far as they fit, or a part of the first. Copied into `buffer`
/// where they are not side by side already.
fn gather<'a>(slices: &'a [IoSlice<'_>], buffer: &'a mut [u8]) -> &'a [u8] {
    if let Some(part) = slices.first().and_then(|first| first.get(..MAX_PLAIN)) {
        return part;
    }
    if let [one] = slices {
        return one;
    }
    let mut len = 0;
    for slice in whole_ones(slices) {
        if let Some(part) = buffer.get_mut(len..len + slice.len()) {
            part.copy_from_slice(slice);
            len += slice.len();
        }
    }
    buffer.get(..len).unwrap_or_default()
}

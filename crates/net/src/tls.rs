//! TLS over a socket: records in and out, with buffers that all streams of a thread share.
//!
//! `Machine`, which knows no socket, speaks TLS. A stream keeps bytes only while it cannot go on: half a record that
//! has arrived, plaintext that the reader had no room for, and records that the socket did not take.

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

use self::machine::{RecordContent, TlsMachine};
use super::options::UNSENT;
use super::socket::{Socket, whole_ones};

/// The protocol inside, on which both sides must agree (ALPN).
pub const ALPN: &[u8] = b"otproxy/2";
/// The protocol of versions before trunks. It is offered and taken, so that a handshake with such a side fails for what it
/// is: [`TlsError::Alpn`].
pub const FORMER_ALPN: &[u8] = b"otproxy/1";

/// The largest record that rustls takes, with its header. It also limits the bytes of a handshake that are on their way
/// at once, and the ciphertext that a stream keeps.
pub const MAX_RECORD: usize = 5 + 16 * 1024 + 2048;
/// The most bytes of plaintext in one record, which is TLS's own limit.
pub const MAX_PLAIN: usize = 16 * 1024;
// The slices that `whole_ones` returns fit into a record.
const _: () = assert!(UNSENT <= MAX_PLAIN);

/// The reason for which there is no stream under TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer closed the connection during the handshake.
    #[error("closed during the handshake")]
    Closed,
    /// The peer is not trusted, or does not speak TLS as required.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// The peer speaks TLS, but not the expected protocol inside it.
    #[error("no agreement on the protocol `otproxy/2` (ALPN)")]
    Alpn,
}

/// The buffers that all streams of a thread share: their contents are used up before another stream has its turn.
struct Buffers {
    /// A record on its way in or out.
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
pub(super) struct TlsLayer {
    machine: RefCell<TlsMachine>,
}

impl TlsLayer {
    /// Makes the handshake as the client.
    pub(super) async fn connect(
        socket: &Socket,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Box<Self>, TlsError> {
        Self::shake_hands(socket, TlsMachine::client(config, name)?, Some(ALPN)).await
    }

    /// Makes the handshake as the server. `inside` is the protocol on which both have to agree; with `None` all do that
    /// `config` takes, and clients may name none.
    pub(super) async fn accept(
        socket: &Socket,
        config: Arc<ServerConfig>,
        inside: Option<&[u8]>,
    ) -> Result<Box<Self>, TlsError> {
        Self::shake_hands(socket, TlsMachine::server(config)?, inside).await
    }

    async fn shake_hands(socket: &Socket, machine: TlsMachine, inside: Option<&[u8]>) -> Result<Box<Self>, TlsError> {
        let tls = Box::new(Self { machine: RefCell::new(machine) });
        // The client's first bytes.
        tls.machine.borrow_mut().take_in(&mut [], &mut []);
        poll_fn(|cx| tls.poll_handshake(socket, inside, cx)).await?;
        Ok(tls)
    }

    fn poll_handshake(
        &self,
        socket: &Socket,
        inside: Option<&[u8]>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), TlsError>> {
        loop {
            let failure = self.machine.borrow_mut().take_failure();
            if let Some(error) = failure {
                // The alert is written as far as the socket takes it. Leaving bytes unread would reset the connection,
                // and the reset might overtake the alert.
                let _ = flush(socket, &mut self.machine.borrow_mut());
                socket.shutdown_write();
                BUFFERS.with_borrow_mut(|buffers| socket.poll_read(cx, &mut buffers.record).is_ready());
                return Poll::Ready(Err(error.into()));
            }
            ready!(self.poll_flush(socket, cx))?;
            let mut machine = self.machine.borrow_mut();
            if !machine.is_handshaking() {
                let agreed = inside.is_none_or(|inside| machine.alpn() == Some(inside));
                return Poll::Ready(if agreed { Ok(()) } else { Err(TlsError::Alpn) });
            }
            if ready!(fill(socket, &mut machine, cx, &mut []))? == Filled::End {
                return Poll::Ready(Err(TlsError::Closed));
            }
        }
    }

    /// Returns the peer's certificate, and those that it sent behind it.
    pub(super) fn peer_certificates(&self) -> Vec<CertificateDer<'static>> {
        self.machine.borrow().peer_certificates().to_vec()
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
            // An alert. The reader waits for nothing else, and a part that is not out now goes with the next write.
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
            // Asked before anything is encrypted, as encrypted bytes must go out sooner or later.
            let room = socket.room_for(plain.len())?;
            let sealed = match machine.seal(RecordContent::Send(plain), record) {
                Ok(sealed) => sealed,
                Err(error) => {
                    // With the alert, if bytes from the peer are the cause.
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

    /// Polls until everything written is out, and the close_notify after it.
    pub(super) fn poll_goodbye(&self, socket: &Socket, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(socket, cx))?;
        let mut machine = self.machine.borrow_mut();
        if !machine.has_said_goodbye() {
            BUFFERS.with_borrow_mut(|Buffers { record, .. }| {
                let sealed = machine.seal(RecordContent::Goodbye, record)?;
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
    /// The end of the socket.
    End,
    /// The number of bytes that are in the reader's buffer now.
    Plain(usize),
}

/// Reads the socket once, behind the bytes that the machine has kept, and has the machine take them in.
fn fill(socket: &Socket, machine: &mut TlsMachine, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<Filled>> {
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

/// Writes the bytes that are held back: all, or `WouldBlock`.
fn flush(socket: &Socket, machine: &mut TlsMachine) -> io::Result<()> {
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

/// Converts `WouldBlock` to `None`: the socket takes nothing now, which is no error.
fn would_block<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e),
    }
}

/// Returns the part of `slices` that goes into one record: whole ones as far as they fit, or a part of the first. They
/// are copied into `buffer` unless they are side by side already.
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

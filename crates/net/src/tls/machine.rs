//! The TLS machine: records in, plaintext out, and the reverse. It knows no socket.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, Error, InvalidMessage, ServerConfig};

use super::MAX_RECORD;
use otproxy_protocol::byte_queue::ByteQueue;

enum Connection {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

impl Connection {
    fn common(&self) -> &CommonState {
        match self {
            Self::Client(client) => client,
            Self::Server(server) => server,
        }
    }
}

/// The state of the peer's direction.
enum Incoming {
    Open,
    /// The peer has declared its end.
    Closed,
    /// Nothing more can be read. Holds the reason, until it was reported.
    Failed(Option<Error>),
}

/// The content of a record to be sealed.
pub(super) enum RecordContent<'a> {
    /// These bytes, at most [`super::MAX_PLAIN`].
    Send(&'a [u8]),
    /// The declaration of the end.
    Goodbye,
}

/// The result of one step of rustls.
enum Step {
    /// There is more to do.
    Again,
    /// There is plaintext for the reader.
    Plain,
    /// The peer has declared its end.
    Closed,
    /// No record is whole.
    Idle,
    /// The record is sealed: its length in bytes.
    Sealed(usize),
}

/// The places where a step leaves its results.
struct Sink<'a> {
    /// The free part of the reader's buffer.
    out: &'a mut [u8],
    filled: usize,
    /// Plaintext that the reader's buffer has no room for.
    plain: &'a mut ByteQueue,
    /// Bytes for the peer.
    outgoing: &'a mut ByteQueue,
    /// The content to be sealed, and the buffer for the record.
    wish: Option<(&'a RecordContent<'a>, &'a mut [u8])>,
}

impl Sink<'_> {
    fn deliver(&mut self, payload: &[u8]) {
        let free = self.out.get_mut(self.filled..).unwrap_or_default();
        let (now, later) = payload.split_at(payload.len().min(free.len()));
        if let Some(free) = free.get_mut(..now.len()) {
            free.copy_from_slice(now);
        }
        self.filled += now.len();
        self.plain.push(later);
    }

    /// Carries out one step; also returns the number of bytes at the front that rustls has used up.
    fn step<D>(&mut self, status: UnbufferedStatus<'_, '_, D>) -> (usize, Result<Step, Error>) {
        (status.discard, status.state.and_then(|state| self.on_state(state)))
    }

    fn on_state<D>(&mut self, state: ConnectionState<'_, '_, D>) -> Result<Step, Error> {
        Ok(match state {
            ConnectionState::ReadTraffic(mut records) => {
                while let Some(record) = records.next_record() {
                    self.deliver(record?.payload);
                }
                Step::Plain
            }
            ConnectionState::EncodeTlsData(mut message) => {
                // It reports the size that it needs when it has no room.
                if let Err(EncodeError::InsufficientSize(needed)) = message.encode(&mut []) {
                    let mut bytes = vec![0; needed.required_size];
                    message.encode(&mut bytes).map_err(|e| Error::General(e.to_string()))?;
                    self.outgoing.push(&bytes);
                }
                Step::Again
            }
            ConnectionState::TransmitTlsData(outgoing) => {
                outgoing.done();
                Step::Again
            }
            ConnectionState::WriteTraffic(mut traffic) => match &mut self.wish {
                None => Step::Idle,
                Some((wish, record)) => {
                    let sealed = match wish {
                        RecordContent::Send(bytes) => traffic.encrypt(bytes, record),
                        RecordContent::Goodbye => traffic.queue_close_notify(record),
                    };
                    Step::Sealed(sealed.map_err(|e| Error::General(e.to_string()))?)
                }
            },
            ConnectionState::PeerClosed => Step::Closed,
            ConnectionState::BlockedHandshake | ConnectionState::Closed => Step::Idle,
            // Early data, which no configuration here allows.
            _ => return Err(Error::HandshakeNotComplete),
        })
    }
}

/// One side of a TLS connection.
pub(super) struct TlsMachine {
    connection: Connection,
    incoming: Incoming,
    /// Bytes that have arrived and are not read: at most [`MAX_RECORD`]. rustls works in place, so they are kept as it
    /// leaves them.
    kept: Vec<u8>,
    /// True if there may be a whole record in `kept`.
    unread: bool,
    /// Plaintext that the reader had no room for.
    plain: ByteQueue,
    /// Records that the socket has not taken.
    outgoing: ByteQueue,
    said_goodbye: bool,
}

impl TlsMachine {
    pub(super) fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
        Ok(Self::new(Connection::Client(UnbufferedClientConnection::new(config, name)?)))
    }

    pub(super) fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self::new(Connection::Server(UnbufferedServerConnection::new(config)?)))
    }

    fn new(connection: Connection) -> Self {
        Self {
            connection,
            incoming: Incoming::Open,
            kept: Vec::new(),
            unread: false,
            plain: ByteQueue::default(),
            outgoing: ByteQueue::default(),
            said_goodbye: false,
        }
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.connection.common().is_handshaking()
    }

    /// Returns the protocol that both sides agreed on.
    pub(super) fn alpn(&self) -> Option<&[u8]> {
        self.connection.common().alpn_protocol()
    }

    pub(super) fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.connection.common().peer_certificates().unwrap_or_default()
    }

    /// Returns the bytes that must stand before those that [`TlsMachine::take_in`] is given next.
    pub(super) fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// Takes in `bytes` until `out` is full or no record is whole; returns the number of bytes that are in `out` then.
    /// Unused bytes are kept.
    pub(super) fn take_in(&mut self, bytes: &mut [u8], out: &mut [u8]) -> usize {
        let (mut from, mut filled) = (0, 0);
        if !matches!(self.incoming, Incoming::Open) {
            return 0;
        }
        let whole = loop {
            let free = out.get_mut(filled..).unwrap_or_default();
            let room = free.len();
            let (count, step) = self.step(bytes, &mut from, free, None);
            filled += count;
            match step {
                Ok(Step::Again | Step::Closed) => {}
                Ok(Step::Plain) if count < room => {}
                // There is no reader during a handshake; it gets the bytes behind the handshake afterwards.
                Ok(Step::Plain) => break true,
                Ok(Step::Idle | Step::Sealed(_)) => break false,
                Err(error) => {
                    self.fail(error);
                    break false;
                }
            }
        };
        self.keep(bytes.get(from..).unwrap_or_default().to_vec(), whole);
        filled
    }

    /// Runs one step of rustls with the bytes behind `from`, which it moves; returns the number of bytes that are in
    /// `out` then.
    fn step(
        &mut self,
        bytes: &mut [u8],
        from: &mut usize,
        out: &mut [u8],
        wish: Option<(&RecordContent<'_>, &mut [u8])>,
    ) -> (usize, Result<Step, Error>) {
        let bytes = bytes.get_mut(*from..).unwrap_or_default();
        let mut sink = Sink { out, filled: 0, plain: &mut self.plain, outgoing: &mut self.outgoing, wish };
        let (done, step) = match &mut self.connection {
            Connection::Client(client) => sink.step(client.process_tls_records(bytes)),
            Connection::Server(server) => sink.step(server.process_tls_records(bytes)),
        };
        *from += done;
        if matches!(step, Ok(Step::Closed)) {
            self.incoming = Incoming::Closed;
        }
        (sink.filled, step)
    }

    /// Keeps the unread bytes, as long as there can be more to read.
    fn keep(&mut self, rest: Vec<u8>, whole: bool) {
        let open = matches!(self.incoming, Incoming::Open);
        (self.kept, self.unread) = if open { (rest, whole) } else { Default::default() };
        if self.kept.len() >= MAX_RECORD && !whole {
            // Only a message that continues in the next record can be this large.
            self.fail(InvalidMessage::HandshakePayloadTooLarge.into());
        }
    }

    /// Ends the peer's direction, with an alert for the peer if TLS has one.
    fn fail(&mut self, error: Error) {
        // No more steps than these, as bytes that rustls still counts on may be gone.
        while self.connection.common().wants_write() {
            let (_, Ok(Step::Again)) = self.step(&mut [], &mut 0, &mut [], None) else { break };
        }
        self.incoming = Incoming::Failed(Some(error));
        self.kept = Vec::new();
        self.unread = false;
    }

    /// Returns the reason for which nothing more can be read, once.
    pub(super) fn take_failure(&mut self) -> Option<Error> {
        match &mut self.incoming {
            Incoming::Failed(error) => error.take(),
            Incoming::Open | Incoming::Closed => None,
        }
    }

    /// Reads plaintext that has arrived already; `None` if more bytes are needed first.
    pub(super) fn read(&mut self, out: &mut [u8]) -> Option<io::Result<usize>> {
        let count = self.plain.take_into(out);
        if count > 0 || out.is_empty() {
            return Some(Ok(count));
        }
        if self.unread {
            let mut kept = std::mem::take(&mut self.kept);
            let count = self.take_in(&mut kept, out);
            if count > 0 {
                return Some(Ok(count));
            }
        }
        match &mut self.incoming {
            Incoming::Open => None,
            Incoming::Closed => Some(Ok(0)),
            Incoming::Failed(error) => Some(Err(match error.take() {
                Some(error) => io::Error::new(io::ErrorKind::InvalidData, error),
                None => io::ErrorKind::ConnectionAborted.into(),
            })),
        }
    }

    /// Seals the content into a record, at the front of `record`.
    pub(super) fn seal<'a>(&mut self, wish: RecordContent<'_>, record: &'a mut [u8]) -> io::Result<&'a [u8]> {
        if self.has_said_goodbye() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        // rustls first takes in the bytes that are there; the reader finds them later.
        let (mut kept, mut from) = (std::mem::take(&mut self.kept), 0);
        let sealed = loop {
            match self.step(&mut kept, &mut from, &mut [], Some((&wish, &mut *record))).1 {
                Ok(Step::Again | Step::Plain | Step::Closed) => {}
                Ok(Step::Sealed(count)) => break Some(count),
                Ok(Step::Idle) => break None,
                Err(error) => {
                    self.fail(error);
                    break None;
                }
            }
        };
        kept.drain(..from.min(kept.len()));
        if kept.is_empty() {
            kept = Vec::new();
        }
        self.keep(kept, false);
        self.said_goodbye |= matches!(wish, RecordContent::Goodbye);
        sealed.and_then(|count| record.get(..count)).ok_or(io::ErrorKind::BrokenPipe.into())
    }

    /// Returns whether nothing more can be sealed.
    pub(super) fn has_said_goodbye(&self) -> bool {
        self.said_goodbye || matches!(self.incoming, Incoming::Failed(_))
    }

    /// Keeps bytes that the socket did not take.
    pub(super) fn hold_back(&mut self, bytes: &[u8]) {
        self.outgoing.push(bytes);
    }

    pub(super) fn holds_back(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Returns the bytes that wait for the socket.
    pub(super) fn held_back(&self) -> &[u8] {
        self.outgoing.rest()
    }

    /// Returns the bytes of memory beside those of rustls.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.kept.capacity() + self.plain.memory() + self.outgoing.memory()
    }

    /// Removes `count` waiting bytes, which the socket has taken.
    pub(super) fn is_out(&mut self, count: usize) {
        self.outgoing.take(count);
    }
}

impl fmt::Debug for TlsMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kept, plain, outgoing) = (self.kept.len(), self.plain.rest().len(), self.outgoing.rest().len());
        write!(f, "Machine {{ {kept} kept, {plain} to read, {outgoing} to write }}")
    }
}

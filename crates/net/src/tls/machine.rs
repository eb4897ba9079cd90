//! What TLS makes of bytes: plaintext of records that have come, records of plaintext that goes. Knows no socket.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, Error, InvalidMessage, ServerConfig};

use super::MAX_RECORD;

/// Bytes that wait, and whose front may be gone. Holds no memory when none do.
#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    gone: usize,
}

impl Waiting {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.gone..).unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn take(&mut self, count: usize) {
        self.gone += count;
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

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

/// How the peer's direction stands.
enum Incoming {
    Open,
    /// The peer has said that this was all.
    Closed,
    /// Nothing more can be read. Has why, until that was told.
    Failed(Option<Error>),
}

/// What is to be sealed into a record.
pub(super) enum Wish<'a> {
    /// These bytes, at most [`super::MAX_PLAIN`].
    Send(&'a [u8]),
    /// That this was all.
    Goodbye,
}

/// What one step of rustls came to.
enum Step {
    /// There is more to do.
    Again,
    /// There are bytes for the reader.
    Plain,
    /// The peer has said that this was all.
    Closed,
    /// No record is whole.
    Idle,
    /// The wish is fulfilled: so many bytes.
    Sealed(usize),
}

/// Where a step leaves what it makes.
struct Sink<'a> {
    /// The reader's buffer, as far as it is free.
    out: &'a mut [u8],
    filled: usize,
    /// What that has no room for.
    plain: &'a mut Waiting,
    /// What goes to the peer.
    outgoing: &'a mut Waiting,
    /// What is to be sealed, and where to.
    wish: Option<(&'a Wish<'a>, &'a mut [u8])>,
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

    /// Gives how many bytes in front rustls has done with, too.
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
                // It says how large it is when it has no room.
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
                        Wish::Send(bytes) => traffic.encrypt(bytes, record),
                        Wish::Goodbye => traffic.queue_close_notify(record),
                    };
                    Step::Sealed(sealed.map_err(|e| Error::General(e.to_string()))?)
                }
            },
            ConnectionState::PeerClosed => Step::Closed,
            ConnectionState::BlockedHandshake | ConnectionState::Closed => Step::Idle,
            // Early data, which no configuration of ours allows.
            _ => return Err(Error::HandshakeNotComplete),
        })
    }
}

/// One side of a TLS connection.
pub(super) struct Machine {
    connection: Connection,
    incoming: Incoming,
    /// What has come and is not read: at most [`MAX_RECORD`]. rustls works in it, and so it is kept as that leaves it.
    kept: Vec<u8>,
    /// There may be a whole record in `kept`.
    unread: bool,
    /// Plaintext that the reader had no room for.
    plain: Waiting,
    /// Records that the socket has not taken.
    outgoing: Waiting,
    said_goodbye: bool,
}

impl Machine {
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
            plain: Waiting::default(),
            outgoing: Waiting::default(),
            said_goodbye: false,
        }
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.connection.common().is_handshaking()
    }

    /// The protocol that both sides agreed on.
    pub(super) fn alpn(&self) -> Option<&[u8]> {
        self.connection.common().alpn_protocol()
    }

    pub(super) fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.connection.common().peer_certificates()?.first()
    }

    /// What must stand in front of the bytes that [`Machine::take_in`] is given next.
    pub(super) fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// Takes in `bytes` until `out` is full or no record is whole; gives how many bytes are in `out` then. What it
    /// could not use is kept.
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
                // In a handshake there is no reader yet; he gets what came behind it afterwards.
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

    /// One step of rustls with the bytes behind `from`, which it moves; gives how many bytes are in `out` then.
    fn step(
        &mut self,
        bytes: &mut [u8],
        from: &mut usize,
        out: &mut [u8],
        wish: Option<(&Wish<'_>, &mut [u8])>,
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

    /// Keeps what is not read, where there is still something to read.
    fn keep(&mut self, rest: Vec<u8>, whole: bool) {
        let open = matches!(self.incoming, Incoming::Open);
        (self.kept, self.unread) = if open { (rest, whole) } else { Default::default() };
        if self.kept.len() >= MAX_RECORD && !whole {
            // Only a message that goes on in the next record can be as large.
            self.fail(InvalidMessage::HandshakePayloadTooLarge.into());
        }
    }

    /// Ends the peer's direction, with an alert for the peer where TLS has one.
    fn fail(&mut self, error: Error) {
        // Not more steps than that: there may be no bytes any more that rustls still counts on.
        while self.connection.common().wants_write() {
            let (_, Ok(Step::Again)) = self.step(&mut [], &mut 0, &mut [], None) else { break };
        }
        self.incoming = Incoming::Failed(Some(error));
        self.kept = Vec::new();
        self.unread = false;
    }

    /// Why nothing more can be read: once.
    pub(super) fn take_failure(&mut self) -> Option<Error> {
        match &mut self.incoming {
            Incoming::Failed(error) => error.take(),
            Incoming::Open | Incoming::Closed => None,
        }
    }

    /// Reads of what has come already; `None` where more must come first.
    pub(super) fn read(&mut self, out: &mut [u8]) -> Option<io::Result<usize>> {
        let waiting = self.plain.rest();
        let count = waiting.len().min(out.len());
        if let (Some(out), Some(now)) = (out.get_mut(..count), waiting.get(..count)) {
            out.copy_from_slice(now);
        }
        self.plain.take(count);
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

    /// Seals what is wished into a record, at the front of `record`.
    pub(super) fn seal<'a>(&mut self, wish: Wish<'_>, record: &'a mut [u8]) -> io::Result<&'a [u8]> {
        if self.has_said_goodbye() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        // rustls first takes in what there is; the reader finds it.
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
        self.said_goodbye |= matches!(wish, Wish::Goodbye);
        sealed.and_then(|count| record.get(..count)).ok_or(io::ErrorKind::BrokenPipe.into())
    }

    /// Whether nothing more can be sealed.
    pub(super) fn has_said_goodbye(&self) -> bool {
        self.said_goodbye || matches!(self.incoming, Incoming::Failed(_))
    }

    /// Keeps what the socket did not take.
    pub(super) fn hold_back(&mut self, bytes: &[u8]) {
        self.outgoing.push(bytes);
    }

    pub(super) fn holds_back(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// What waits for the socket.
    pub(super) fn held_back(&self) -> &[u8] {
        self.outgoing.rest()
    }

    /// Bytes of memory beside rustls' own.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.kept.capacity() + self.plain.bytes.capacity() + self.outgoing.bytes.capacity()
    }

    /// The socket has taken `count` bytes of what waited.
    pub(super) fn is_out(&mut self, count: usize) {
        self.outgoing.take(count);
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kept, plain, outgoing) = (self.kept.len(), self.plain.rest().len(), self.outgoing.rest().len());
        write!(f, "Machine {{ {kept} kept, {plain} to read, {outgoing} to write }}")
    }
}

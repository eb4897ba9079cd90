//! Handshakes of the tunnel, made and taken: who the other side is, or why it is nobody.

use std::cell::{Cell, Ref, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::strangers::Strangers;
use super::{CONNECT, HANDSHAKE};
use crate::certs;
use crate::certs::identity::{self, Identity};
use crate::certs::watch::{Change, Watch};
use crate::config::Target;
use crate::limits::{AddressKey, ConnectionLimit, REFUSED_LINES, RateLimitedLog};
use crate::metrics::Metrics;
use crate::net::{Stream, TlsError, connect};
use crate::reason::{ConnectResult, HandshakeResult};

/// Handshakes of strangers at once. Each costs a descriptor and a few kilobytes until its deadline.
pub const STRANGERS: usize = 1024;
/// The same from one address.
pub const STRANGERS_PER_ADDRESS: usize = 64;
/// The same from an address from which somebody proved himself before.
pub const KNOWN_PER_ADDRESS: usize = 256;
/// Addresses that are remembered because somebody proved himself from there: what strangers do at the same time does not
/// keep them out.
pub const KNOWN: usize = 256;

/// Days before the end of a certificate from which on it is warned of.
pub const DAYS_LEFT: i64 = 30;
/// How often it is warned of.
const WARN_EACH: Duration = Duration::from_secs(24 * 60 * 60);

/// What all handshakes of one process share.
pub(super) struct Handshakes {
    certificates: RefCell<Watch>,
    strangers: Strangers,
    strangers_by_address: Arc<ConnectionLimit>,
    /// Who came last is in front.
    known: RefCell<VecDeque<AddressKey>>,
    known_by_address: Arc<ConnectionLimit>,
    metrics: Arc<Metrics>,
    /// One for each result: what strangers can cause does not keep back what only an edge can.
    logs: Vec<RateLimitedLog>,
    connect_log: RateLimitedLog,
    next_warning: Cell<Option<Instant>>,
    /// Whether the other side's address may stand in logs.
    log_addresses: bool,
}

/// Where one end of the tunnel connects.
pub(super) struct Way<'a> {
    /// The address.
    pub target: &'a Target,
    /// The name in the certificate of who is to be there.
    pub name: &'a str,
}

impl Handshakes {
    pub fn new(certificates: Watch, metrics: Arc<Metrics>, log_addresses: bool) -> Self {
        let handshakes = Self {
            certificates: RefCell::new(certificates),
            strangers: Strangers::new(STRANGERS),
            strangers_by_address: ConnectionLimit::new(None, Some(STRANGERS_PER_ADDRESS)),
            known: RefCell::default(),
            known_by_address: ConnectionLimit::new(None, Some(KNOWN_PER_ADDRESS)),
            metrics,
            logs: HandshakeResult::ALL.iter().map(|_| RateLimitedLog::new(REFUSED_LINES)).collect(),
            connect_log: RateLimitedLog::new(REFUSED_LINES),
            next_warning: Cell::new(None),
            log_addresses,
        };
        handshakes.count_expiry();
        handshakes
    }

    fn count_expiry(&self) {
        let expiry = self.identity().expiry();
        for (certificate, until) in expiry.labelled() {
            let seconds = until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            self.metrics.certificate_expiry(certificate).set(i64::try_from(seconds).unwrap_or(i64::MAX));
        }
    }

    /// Says so each day where certificates are about to expire.
    fn warn_of_expiry(&self) {
        let now = Instant::now();
        if self.next_warning.get().is_some_and(|next| now < next) {
            return;
        }
        self.next_warning.set(now.checked_add(WARN_EACH));
        let days = self.identity().expiry().days_left(SystemTime::now());
        if days < DAYS_LEFT {
            warn!(
                days,
                "certificates expire; run `otproxy cert` where the authority's key is, and copy the files here"
            );
        }
    }

    fn identity(&self) -> Ref<'_, Identity> {
        Ref::map(self.certificates.borrow(), Watch::identity)
    }

    /// Uses these certificates for what comes later.
    pub fn replace(&self, certificates: Watch) {
        self.certificates.replace(certificates);
        self.count_expiry();
    }

    /// Looks whether the files of the certificates have changed, and uses what they are now for what comes later.
    pub fn reread(&self) {
        let change = self.certificates.borrow_mut().look();
        match change {
            Change::None => {}
            Change::Renewed => {
                self.count_expiry();
                info!("certificates reread; new connections use them");
            }
            Change::Unusable(error) => warn!(%error, "the files of the certificates have changed, and are not used"),
        }
        self.warn_of_expiry();
    }

    /// Takes the handshake of one accepted connection. Gives the stream, and the name in the other side's certificate where
    /// `trusted` finds what it stands for.
    pub async fn accept<T>(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        trusted: impl FnOnce(&str) -> Result<T, HandshakeResult>,
    ) -> Option<(Stream, T)> {
        // In memory of its own, which is free again before the connection waits to be used. The limits count it alone: what
        // follows is no stranger's.
        match self.admitted(peer, Box::pin(self.try_accept(stream, trusted))).await {
            Ok(accepted) => {
                self.remember(peer);
                self.metrics.handshake(HandshakeResult::Ok);
                Some(accepted)
            }
            Err(HandshakeResult::Closed) => {
                // As port scanners and health checks do.
                self.metrics.handshake(HandshakeResult::Closed);
                debug!("a tunnel handshake was not begun or broken off");
                None
            }
            Err(result) => {
                self.failed(result, &peer, "");
                None
            }
        }
    }

    /// Takes a handshake as far as the limits on such go.
    async fn admitted<T>(
        &self,
        peer: SocketAddr,
        handshake: impl Future<Output = Result<T, HandshakeResult>>,
    ) -> Result<T, HandshakeResult> {
        let address = AddressKey::from(peer.ip());
        let known = self.known.borrow().contains(&address);
        let by_address = if known { &self.known_by_address } else { &self.strangers_by_address };
        let _guard = by_address.try_acquire(address).map_err(|_| HandshakeResult::Limit)?;
        if known { handshake.await } else { self.strangers.run(handshake).await.unwrap_or(Err(HandshakeResult::Limit)) }
    }

    fn remember(&self, peer: SocketAddr) {
        let (address, mut known) = (AddressKey::from(peer.ip()), self.known.borrow_mut());
        known.retain(|other| *other != address);
        known.truncate(KNOWN - 1);
        known.push_front(address);
    }

    async fn try_accept<T>(
        &self,
        stream: TcpStream,
        trusted: impl FnOnce(&str) -> Result<T, HandshakeResult>,
    ) -> Result<(Stream, T), HandshakeResult> {
        let config = self.identity().server_config();
        let stream = Stream::new(stream).map_err(|_| HandshakeResult::Closed)?;
        let stream = within(stream.tls_accept(config)).await?;
        let trusted = trusted(&peer_name(&stream)?)?;
        Ok((stream, trusted))
    }

    /// Connects, and makes the handshake. It has come to something only once the other side has accepted this one too, which
    /// TLS does not tell who connects: see [`Handshakes::proven`].
    ///
    /// # Errors
    /// How it ended, which is counted and logged.
    pub async fn connect(&self, way: &Way<'_>) -> Result<Stream, ConnectResult> {
        let (stream, _) = connect(way.target, None, CONNECT).await.inspect_err(|result| {
            self.warn(&self.connect_log, way.target, &format_args!("cannot connect to `{}`: {result}", way.name));
        })?;
        Box::pin(self.try_connect(stream, way.name)).await.map_err(|result| {
            self.failed(result, way.target, "");
            ConnectResult::Handshake
        })
    }

    /// The other side has shown on a connection that was made to it that it has accepted this one.
    pub fn proven(&self) {
        self.metrics.handshake(HandshakeResult::Ok);
    }

    /// The other side has not: for its own reasons, which it does not tell.
    pub fn not_proven(&self, way: &Way<'_>) {
        self.failed(HandshakeResult::Refused, way.target, "; the other side's log says why");
    }

    async fn try_connect(&self, stream: Stream, name: &str) -> Result<Stream, HandshakeResult> {
        let config = self.identity().client_config();
        let server_name = identity::server_name(name).ok_or(HandshakeResult::WrongName)?;
        let stream = within(stream.tls_connect(config, server_name)).await?;
        // TLS would also take a certificate that has the name among others, or in other letters.
        if peer_name(&stream)? == name { Ok(stream) } else { Err(HandshakeResult::WrongName) }
    }

    fn failed(&self, result: HandshakeResult, peer: &dyn fmt::Display, more: &str) {
        self.metrics.handshake(result);
        if let Some(log) = self.logs.get(result as usize) {
            self.warn(log, peer, &format_args!("tunnel handshake failed: {result}{more}"));
        }
    }

    /// Logs what the other side or a stranger can cause, as far as the log's limit goes.
    fn warn(&self, log: &RateLimitedLog, peer: &dyn fmt::Display, what: &dyn fmt::Display) {
        if let Some(suppressed) = log.allow(Instant::now()) {
            let peer = self.log_addresses.then(|| tracing::field::display(peer));
            warn!(peer, suppressed, "{what}");
        }
    }
}

async fn within(handshake: impl Future<Output = Result<Stream, TlsError>>) -> Result<Stream, HandshakeResult> {
    match timeout(HANDSHAKE, handshake).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(TlsError::Tls(error))) => Err(certs::failure(&error)),
        Ok(Err(TlsError::Alpn)) => Err(HandshakeResult::NoAlpn),
        Ok(Err(TlsError::Closed | TlsError::Io(_))) => Err(HandshakeResult::Closed),
        Err(_) => Err(HandshakeResult::Timeout),
    }
}

fn peer_name(stream: &Stream) -> Result<String, HandshakeResult> {
    let leaf = stream.peer_certificate().ok_or(HandshakeResult::NoCertificate)?;
    identity::peer_name(&leaf).map_err(|_| HandshakeResult::WrongName)
}

//! Handshakes of the tunnel, in both directions, and the peer's identity that they prove.

use std::cell::{Cell, Ref, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::field::{DisplayValue, display};
use tracing::{debug, info, warn};

use super::tether::HeldTrunks;
use super::unauthenticated::UnauthenticatedLimiter;
use super::{CONNECT, HANDSHAKE, LOOKUP};
use crate::admission::{AddressKey, KeyedLimit, REFUSED_LINES};
use crate::certs;
use crate::certs::HandshakeResult;
use crate::certs::certificate::{Certificate, DAYS_LEFT, hex};
use crate::certs::identity::Identity;
use crate::certs::watch::{IdentityWatch, WatchResult};
use crate::connection::EdgeCertificate;
use crate::metrics::{ByReason, Metrics};
use otproxy_config::HostPort;
use otproxy_net::{ConnectResult, OutageLog, RateLimitedLog, Source, Stream, TlsError, connect_any, resolve};

/// Handshakes of unauthenticated peers at once. Each costs a descriptor and a few kilobytes until its deadline.
pub const UNAUTHENTICATED: usize = 1024;
/// The limit for one address.
pub const UNAUTHENTICATED_PER_ADDRESS: usize = 64;
/// The limit for an address from which a peer has authenticated before.
pub const KNOWN_PER_ADDRESS: usize = 256;
/// Addresses that are remembered because a peer has authenticated from there: unauthenticated peers do not keep them
/// out.
pub const KNOWN: usize = 256;
/// Addresses that are remembered because the last handshake with a peer there failed.
const FAILING: usize = 64;

/// The interval of the warning.
const WARN_EACH: Duration = Duration::from_secs(24 * 60 * 60);

/// The part that all handshakes of one process share.
pub(super) struct Handshakes {
    certificates: RefCell<IdentityWatch>,
    unauthenticated: UnauthenticatedLimiter,
    strangers_by_address: Arc<KeyedLimit>,
    /// The most recent address is in front.
    known: RefCell<VecDeque<AddressKey>>,
    known_by_address: Arc<KeyedLimit>,
    metrics: Arc<Metrics>,
    results: ByReason<HandshakeResult>,
    /// One log for each result: lines that anybody can cause do not suppress those that only an edge can cause.
    logs: Vec<RateLimitedLog>,
    /// The peers whose last handshake failed, the latest in front: one that tries again and again has no line each time.
    failing: RefCell<VecDeque<(AddressKey, OutageLog<PeerFailure>)>>,
    next_warning: Cell<Option<Instant>>,
    /// True if the other side's address may appear in logs.
    log_addresses: bool,
}

/// The reason of a peer's failed handshake, and the name that it is known by.
type PeerFailure = (HandshakeResult, Option<String>);

/// The reason for which a connection of the tunnel could not be made.
#[derive(Debug, PartialEq)]
pub(super) enum DialFailure {
    Connect(ConnectResult),
    Handshake(HandshakeResult),
}

/// The destination of a connection of the tunnel.
pub(super) struct DialTarget<'a> {
    /// The address.
    pub target: &'a HostPort,
    /// The name that the peer's certificate must have.
    pub name: &'a str,
    /// Knowledge from earlier connections.
    pub past: &'a DialPast,
}

/// The past of connections to one destination.
#[derive(Debug)]
pub(super) struct DialPast {
    /// The limit of lines about those that cannot be made.
    outage: OutageLog<DialFailure>,
    /// The last good answer of the resolver.
    addresses: RefCell<Vec<SocketAddr>>,
}

impl Default for DialPast {
    fn default() -> Self {
        Self { outage: OutageLog::new(), addresses: RefCell::default() }
    }
}

impl DialTarget<'_> {
    /// Returns the addresses to connect to: a name server that is away does not hold up those who know them already.
    async fn addresses(&self) -> Result<Vec<SocketAddr>, ConnectResult> {
        let known = self.past.addresses.borrow().clone();
        let within = if known.is_empty() { CONNECT } else { LOOKUP };
        match resolve((&self.target.host, self.target.port), within).await {
            Ok(found) => {
                self.past.addresses.borrow_mut().clone_from(&found);
                Ok(found)
            }
            Err(_) if !known.is_empty() => Ok(known),
            Err(result) => Err(result),
        }
    }
}

/// A failed handshake, and the name in the peer's certificate if that comes from the authority.
struct HandshakeFailure(HandshakeResult, Option<String>);

impl From<HandshakeResult> for HandshakeFailure {
    fn from(result: HandshakeResult) -> Self {
        Self(result, None)
    }
}

impl Handshakes {
    pub fn new(certificates: IdentityWatch, metrics: Arc<Metrics>, log_addresses: bool) -> Self {
        let handshakes = Self {
            certificates: RefCell::new(certificates),
            unauthenticated: UnauthenticatedLimiter::new(UNAUTHENTICATED),
            strangers_by_address: KeyedLimit::new(None, Some(UNAUTHENTICATED_PER_ADDRESS)),
            known: RefCell::default(),
            known_by_address: KeyedLimit::new(None, Some(KNOWN_PER_ADDRESS)),
            results: ByReason::new(&metrics.tunnel_handshakes, &[]),
            metrics,
            logs: HandshakeResult::ALL.iter().map(|_| RateLimitedLog::new(REFUSED_LINES)).collect(),
            failing: RefCell::default(),
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
            let gauge = self.metrics.certificate_expiry_timestamp.with_label_values(&[certificate]);
            gauge.set(i64::try_from(seconds).unwrap_or(i64::MAX));
        }
    }

    /// Warns each day if certificates are about to expire.
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
        Ref::map(self.certificates.borrow(), IdentityWatch::identity)
    }

    /// Uses these certificates from now on, and has `trunks` made anew if they are others.
    pub fn replace(&self, certificates: IdentityWatch, trunks: &HeldTrunks) {
        let before = self.certificates.replace(certificates);
        self.count_expiry();
        if !self.identity().is(before.identity()) {
            trunks.renew(&self.identity());
        }
    }

    /// Reads the certificates again if their files have changed, and uses them in the same way.
    pub fn reread(&self, trunks: &HeldTrunks) {
        let before = self.identity().clone();
        let change = self.certificates.borrow_mut().look();
        match change {
            WatchResult::None => {}
            WatchResult::Renewed => {
                self.count_expiry();
                if !self.identity().is(&before) {
                    info!("certificates reread; trunks are made anew with them");
                    trunks.renew(&self.identity());
                }
            }
            WatchResult::Unusable(error) => {
                warn!(%error, "the files of the certificates have changed, and are not used")
            }
        }
        self.warn_of_expiry();
    }

    /// Accepts the handshake of one connection. Returns the stream, what `trusted` finds for the name in the peer's
    /// certificate, and that certificate.
    pub async fn accept<T>(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        trusted: impl FnOnce(&str) -> Result<T, HandshakeResult>,
    ) -> Option<(Stream, T, EdgeCertificate)> {
        // The handshake has memory of its own, which is freed before the connection waits to be used. The limits count
        // the handshake alone: after it the peer is authenticated.
        match self.admitted(peer, Box::pin(self.try_accept(stream, trusted))).await {
            Ok(accepted) => {
                self.remember(peer);
                self.works(peer);
                self.results.inc(HandshakeResult::Ok);
                Some(accepted)
            }
            Err(HandshakeFailure(HandshakeResult::Closed, _)) => {
                // Port scanners and health checks do this.
                self.results.inc(HandshakeResult::Closed);
                debug!("a tunnel handshake was not begun or broken off");
                None
            }
            Err(HandshakeFailure(result, name)) => {
                self.results.inc(result);
                self.warn_of_peer(peer, result, name);
                None
            }
        }
    }

    /// Accepts a handshake within the limits.
    async fn admitted<T>(
        &self,
        peer: SocketAddr,
        handshake: impl Future<Output = Result<T, HandshakeFailure>>,
    ) -> Result<T, HandshakeFailure> {
        let address = AddressKey::from(peer.ip());
        let known = self.known.borrow().contains(&address);
        let by_address = if known { &self.known_by_address } else { &self.strangers_by_address };
        let _guard = by_address.try_acquire(address).map_err(|_| HandshakeResult::Limit)?;
        if known {
            handshake.await
        } else {
            self.unauthenticated.run(handshake).await.unwrap_or(Err(HandshakeResult::Limit.into()))
        }
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
    ) -> Result<(Stream, T, EdgeCertificate), HandshakeFailure> {
        let config = self.identity().server_config();
        let stream = Stream::new(stream).map_err(|_| HandshakeResult::Closed)?;
        let stream = within(stream.tls_accept(config)).await?;
        let (name, certificate) = peer_identity(&stream)?;
        match trusted(&name) {
            Ok(trusted) => Ok((stream, trusted, certificate)),
            Err(result) => Err(HandshakeFailure(result, Some(name))),
        }
    }

    /// Connects and makes the handshake. It has succeeded only once the other side has accepted this one too, which TLS
    /// does not tell its client: see [`Handshakes::proven`].
    ///
    /// # Errors
    /// Returns the result, which is counted and logged.
    pub async fn connect(&self, way: &DialTarget<'_>) -> Result<(Stream, SocketAddr, EdgeCertificate), ConnectResult> {
        let connecting = async { connect_any(way.addresses().await?, Source::Kernel, CONNECT).await };
        let (stream, address) = connecting.await.inspect_err(|result| {
            let what = format_args!("cannot connect to `{}`: {result}", way.name);
            self.warn_of_dial(way, DialFailure::Connect(*result), &what);
        })?;
        let (stream, certificate) = Box::pin(self.try_connect(stream, way.name)).await.map_err(|result| {
            self.failed(way, result, explained(result));
            ConnectResult::Handshake
        })?;
        Ok((stream, address, certificate))
    }

    /// Records that the other side has shown that it accepted a connection from here.
    pub fn proven(&self, way: &DialTarget<'_>) {
        self.results.inc(HandshakeResult::Ok);
        if let Some(seconds) = way.past.outage.worked(Instant::now()) {
            let peer = self.shown(&way.target);
            info!(peer, seconds, "connected to `{}` again", way.name);
        }
    }

    /// Records that it has not, for reasons that it does not tell.
    pub fn not_proven(&self, way: &DialTarget<'_>) {
        self.failed(way, HandshakeResult::Refused, "; the other side's log says why");
    }

    /// Records that a peer that shook hands, of this name, did not say its hello.
    pub fn no_hello(&self, (peer, name): (IpAddr, &str), result: HandshakeResult) {
        self.results.inc(result);
        if result == HandshakeResult::Closed {
            // The doctor of a core does this: an edge's hello is all that it wants to know.
            debug!(%name, "a peer in the tunnel left before its hello");
        } else {
            self.warn_of_peer(SocketAddr::new(peer, 0), result, Some(name.to_owned()));
        }
    }

    async fn try_connect(&self, stream: Stream, name: &str) -> Result<(Stream, EdgeCertificate), HandshakeResult> {
        let (config, server_name) = {
            let identity = self.identity();
            (identity.client_config(), identity.server_name(name).ok_or(HandshakeResult::WrongName)?)
        };
        let stream = within(stream.tls_connect(config, server_name)).await?;
        // TLS would also accept a certificate that has the name among others, or in other case.
        let (found, certificate) = peer_identity(&stream)?;
        if found == name { Ok((stream, certificate)) } else { Err(HandshakeResult::WrongName) }
    }

    fn failed(&self, way: &DialTarget<'_>, result: HandshakeResult, more: &str) {
        self.results.inc(result);
        self.warn_of_dial(
            way,
            DialFailure::Handshake(result),
            &format_args!("tunnel handshake failed: {result}{more}"),
        );
    }

    /// Logs that a connection from here could not be made, up to the log's limit.
    fn warn_of_dial(&self, way: &DialTarget<'_>, failure: DialFailure, what: &dyn fmt::Display) {
        if let Some(suppressed) = way.past.outage.failed(failure, Instant::now()) {
            warn!(peer = self.shown(&way.target), suppressed, "{what}");
        }
    }

    /// Logs that the handshake of a peer failed, which anybody can cause, up to the limits of this peer and of all.
    fn warn_of_peer(&self, peer: SocketAddr, result: HandshakeResult, name: Option<String>) {
        let (address, now, mut failing) = (AddressKey::from(peer.ip()), Instant::now(), self.failing.borrow_mut());
        let (_, outage) = match failing.iter().position(|(other, _)| *other == address) {
            Some(known) => failing.remove(known),
            None => None,
        }
        .unwrap_or_else(|| (address, OutageLog::new()));
        let again = outage.failed((result, name.clone()), now);
        failing.truncate(FAILING - 1);
        failing.push_front((address, outage));
        if let Some(again) = again
            && let Some(suppressed) = self.logs.get(result as usize).and_then(|log| log.allow(now))
        {
            let name = name.map(|name| format!(", with the certificate of `{}`", name.escape_debug()));
            let (peer, suppressed) = (self.shown(&peer), suppressed + again);
            let (name, more) = (name.unwrap_or_default(), explained(result));
            warn!(peer, suppressed, "tunnel handshake failed: {result}{name}{more}");
        }
    }

    /// Logs that the handshakes of a peer succeed again, if a line told that they fail.
    fn works(&self, peer: SocketAddr) {
        let (address, mut failing) = (AddressKey::from(peer.ip()), self.failing.borrow_mut());
        let place = failing.iter().position(|(other, _)| *other == address);
        if let Some((_, outage)) = place.and_then(|place| failing.remove(place))
            && let Some(seconds) = outage.worked(Instant::now())
        {
            info!(peer = self.shown(&peer), seconds, "tunnel handshakes succeed again");
        }
    }

    /// Returns the other side's address for a line, if it may appear there.
    fn shown<'p, T: fmt::Display>(&self, peer: &'p T) -> Option<DisplayValue<&'p T>> {
        self.log_addresses.then(|| display(peer))
    }
}

/// Returns what a line says of a result beyond its word.
fn explained(result: HandshakeResult) -> &'static str {
    match result {
        HandshakeResult::NoAlpn => "; the other side's version is one without trunks: update it",
        _ => "",
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

/// Returns the one name in the peer's certificate, and the facts of it.
fn peer_identity(stream: &Stream) -> Result<(String, EdgeCertificate), HandshakeResult> {
    let chain = stream.peer_certificates();
    let leaf = chain.first().ok_or(HandshakeResult::NoCertificate)?;
    let facts = Certificate::parse(leaf).map_err(|_| HandshakeResult::WrongName)?;
    let name = facts.name().ok_or(HandshakeResult::WrongName)?.to_owned();
    Ok((name, EdgeCertificate { serial: hex(&facts.serial), until: facts.not_after }))
}

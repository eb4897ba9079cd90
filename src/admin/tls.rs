//! TLS on `admin.listen`, with certificates that are read again after they change.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::serve::Listener;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};
use tracing::{error, info, warn};

use super::caller::{Caller, HasCaller};
use crate::certs::CertError;
use crate::certs::certificate::{Certificate, DAYS_LEFT};
use crate::certs::operators::{AdminIdentity, RevokedOperators};
use crate::certs::watch::{WatchResult, Watched};
use crate::metrics::Metrics;
use otproxy_config::AdminTlsConfig;

/// The interval of looks at the files and at the clock, as there may be no connection for weeks.
const ROUND: Duration = Duration::from_secs(60);
/// The interval of the lines about certificates that end, or have ended.
const WARN_EACH: Duration = Duration::from_secs(24 * 60 * 60);

/// The server's identity at `admin.listen`, read again when its files change.
#[derive(Debug)]
pub(super) struct AdminTls {
    files: AdminTlsConfig,
    tunnel_ca: Option<PathBuf>,
    revoked: RevokedOperators,
    identity: Mutex<Watched<AdminIdentity>>,
}

impl AdminTls {
    /// Reads the files. `tunnel_ca` is the file of the tunnel's authorities, if there is a tunnel.
    ///
    /// # Errors
    /// Fails if one cannot be used.
    pub fn load(files: AdminTlsConfig, tunnel_ca: Option<&Path>, revoked: RevokedOperators) -> Result<Self, CertError> {
        revoked.set(&files.revoked);
        let watched = [&files.cert, &files.key].into_iter().chain(&files.client_ca).cloned().collect();
        let identity = Watched::load(watched, || AdminIdentity::load(&files, tunnel_ca, &revoked))?;
        Ok(Self { files, tunnel_ca: tunnel_ca.map(Path::to_owned), revoked, identity: Mutex::new(identity) })
    }

    /// Returns the configuration for a new connection. It reads changed files again; if they cannot be used, the
    /// previous configuration stays.
    fn now(&self) -> Arc<ServerConfig> {
        self.look().0.server_config()
    }

    /// Returns the present identity, and whether it is new.
    fn look(&self) -> (AdminIdentity, bool) {
        let mut identity = self.identity.lock();
        let read = || AdminIdentity::load(&self.files, self.tunnel_ca.as_deref(), &self.revoked);
        let renewed = match identity.look(read) {
            WatchResult::None => false,
            WatchResult::Renewed => {
                info!("the certificate of admin.listen was read again");
                true
            }
            WatchResult::Unusable(error) => {
                error!(%error, "admin.listen goes on with the certificate of before");
                false
            }
        };
        (identity.value().clone(), renewed)
    }

    /// Shows in `metrics` when the certificates end, and logs it in time, until dropped.
    pub async fn keep(&self, metrics: &Metrics) {
        let mut rounds = interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next: Option<Instant> = None;
        loop {
            let now = rounds.tick().await;
            let (identity, renewed) = self.look();
            count(&identity, metrics);
            if renewed || next.is_none_or(|next| next <= now) {
                next = now.checked_add(WARN_EACH);
                warn_of_ends(&identity, SystemTime::now());
            }
        }
    }
}

fn count(identity: &AdminIdentity, metrics: &Metrics) {
    for dated in identity.dated() {
        let seconds = dated.not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let gauge = metrics.certificate_expiry_timestamp.with_label_values(&[dated.label]);
        gauge.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }
}

fn warn_of_ends(identity: &AdminIdentity, now: SystemTime) {
    for dated in identity.dated() {
        let days = dated.days_left(now);
        if let Some(problem) = dated.problem(now) {
            error!(%problem, "nobody gets in at admin.listen by its certificates");
        } else if days < DAYS_LEFT {
            let (file, remedy) = (dated.file.display(), dated.remedy());
            warn!(%file, days, remedy, "a certificate of admin.listen expires");
        }
    }
}

/// A listener whose connections begin TLS with their first read or write, so no handshake delays another.
pub(super) struct TlsListener {
    listener: TcpListener,
    tls: Arc<AdminTls>,
}

impl TlsListener {
    pub(super) fn new(listener: TcpListener, tls: Arc<AdminTls>) -> Self {
        Self { listener, tls }
    }
}

impl Listener for TlsListener {
    type Io = TlsConnection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TlsConnection, SocketAddr) {
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        let accept = TlsAcceptor::from(self.tls.now()).accept(stream);
        (TlsConnection { state: TlsState::Handshake(Box::new(accept)), caller: Caller::at(Some(peer)) }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection in TLS, or still in its handshake.
pub(super) struct TlsConnection {
    state: TlsState,
    caller: Caller,
}

enum TlsState {
    Handshake(Box<Accept<TcpStream>>),
    Open(Box<TlsStream<TcpStream>>),
}

impl TlsConnection {
    /// Polls the handshake; returns the stream once it is done.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Pin<&mut TlsStream<TcpStream>>>> {
        if let TlsState::Handshake(accept) = &mut self.state {
            let stream = ready!(Pin::new(&mut **accept).poll(cx))?;
            if let Some(certificate) = stream.get_ref().1.peer_certificates().and_then(<[_]>::first) {
                self.caller.proved(title(certificate));
            }
            self.state = TlsState::Open(Box::new(stream));
        }
        match &mut self.state {
            TlsState::Open(stream) => Poll::Ready(Ok(Pin::new(&mut **stream))),
            TlsState::Handshake(_) => Poll::Pending,
        }
    }
}

impl HasCaller for TlsConnection {
    fn caller(&self) -> Caller {
        self.caller.clone()
    }
}

/// Returns the name of a certificate's holder, for the log.
fn title(certificate: &CertificateDer<'_>) -> String {
    let parsed = Certificate::parse(certificate);
    parsed.map_or_else(|error| error.to_string(), |parsed| parsed.name().unwrap_or(&parsed.subject).to_owned())
}

impl AsyncRead for TlsConnection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx))?.poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(cx))?.poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx))?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx))?.poll_shutdown(cx)
    }
}

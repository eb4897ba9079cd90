//! The sockets of the admin server.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::serve::Listener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::access::Transport;
use super::bounded::BoundedListener;
use super::caller::{Caller, HasCaller};
use super::errands::ErrandListener;
use super::event_stream::MAX_STREAMS;
use super::routes::{ApiContext, MAX_ANSWERS};
use super::socket::{AdminSocket, SocketError, SocketOwnership};
use super::tls::{AdminTls, TlsListener};
use super::tokens::{TokenError, Tokens};
use super::{AdminState, pages};
use crate::certs::CertError;
use crate::certs::certificate::DAYS_LEFT;
use crate::certs::operators::{AdminIdentity, DatedCertificate, RevokedOperators};
use crate::tunnel::ErrandsTaken;
use otproxy_config as config;
use otproxy_net::{BindError, Inherited, bind_beside};

/// Connections at once; more wait to be accepted. A scraper and a few people need fewer than ten. The socket has as
/// many permits of its own, so a peer that floods `admin.listen` does not lock the operator out.
pub const MAX_CONNECTIONS: usize = 32;
/// The time limit of a connection to `admin.listen`, from accept to the last byte of its answer.
pub const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// The time limit of a connection to the socket, whose users are trusted to wait for a reload of long lists.
pub const SOCKET_TIMEOUT: Duration = Duration::from_secs(60);

/// The reason why the admin server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// It cannot listen at `admin.listen`.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// It cannot create `admin.socket`.
    #[error("admin.socket: {0}")]
    Socket(#[from] SocketError),
    /// A token cannot be used.
    #[error("admin: {0}")]
    Token(#[from] TokenError),
    /// A certificate cannot be used.
    #[error("admin.tls: {0}")]
    Tls(#[from] CertError),
}

/// An admin server whose sockets are bound. Connections wait in the kernel until [`AdminServer::serve`].
#[derive(Debug)]
pub struct AdminServer {
    tcp: Option<(TcpListener, Option<Arc<AdminTls>>)>,
    revoked: RevokedOperators,
    socket: Option<AdminSocket>,
    tokens: Arc<Tokens>,
    /// Cancelled to leave the sockets to a successor.
    closed: CancellationToken,
}

/// The sockets of an admin server, as a successor may have them.
#[derive(Debug)]
pub struct AdminSockets {
    /// The one of `admin.listen`.
    pub tcp: Option<TcpListener>,
    /// The one of `admin.socket`.
    pub unix: Option<UnixListener>,
    /// The path of that.
    pub path: Option<PathBuf>,
    /// The ownership of its place.
    pub ownership: Option<SocketOwnership>,
    /// Has the server take nothing more there.
    pub close: CancellationToken,
}

/// Checks that the files that `config` names can be used, and are valid now. `tunnel_ca` is the file of the tunnel's
/// authorities, if there is a tunnel. Returns the certificates that end soon.
///
/// # Errors
/// The error names the file, its problem and the remedy.
pub fn check_files(
    config: &config::AdminConfig,
    tunnel_ca: Option<&Path>,
) -> Result<Vec<DatedCertificate>, AdminError> {
    check_tokens(config)?;
    let Some(tls) = &config.tls else { return Ok(Vec::new()) };
    let (identity, now) = (AdminIdentity::load(tls, tunnel_ca, &RevokedOperators::default())?, SystemTime::now());
    match identity.dated().iter().find_map(|dated| dated.problem(now)) {
        Some(problem) => Err(problem.into()),
        None => Ok(identity.dated().iter().filter(|dated| dated.days_left(now) < DAYS_LEFT).cloned().collect()),
    }
}

/// Checks that the tokens that `config` names can be used.
///
/// # Errors
/// The error names the file, its problem and the remedy.
pub fn check_tokens(config: &config::AdminConfig) -> Result<(), TokenError> {
    Tokens::load(config).map(drop)
}

impl AdminServer {
    /// Binds the sockets that `config` names, and reads its files. `tunnel_ca` is the file of the tunnel's authorities, if there
    /// is a tunnel.
    ///
    /// # Errors
    /// Fails if a socket cannot be bound or a file cannot be used.
    pub fn bind(config: &config::AdminConfig, tunnel_ca: Option<&Path>) -> Result<Self, AdminError> {
        Self::bind_beside(config, tunnel_ca, &mut Inherited::default(), None)
    }

    /// Does the same beside a process that runs. Its sockets of these addresses are taken in place of new ones; `unix` is the one at
    /// `admin.socket`, which belongs to it until [`AdminSockets::ownership`] is set.
    ///
    /// # Errors
    /// Fails as [`AdminServer::bind`] does.
    pub fn bind_beside(
        config: &config::AdminConfig,
        tunnel_ca: Option<&Path>,
        inherited: &mut Inherited,
        unix: Option<UnixListener>,
    ) -> Result<Self, AdminError> {
        let (tokens, revoked) = (Tokens::load(config)?, RevokedOperators::default());
        // A certificate that has ended is an error of the log: players do not need it.
        let tls =
            config.tls.clone().map(|tls| AdminTls::load(tls, tunnel_ca, revoked.clone())).transpose()?.map(Arc::new);
        let tcp = match config.listen {
            Some(address) => {
                let bound = bind_beside("admin", &[address], 1, &[], inherited)?;
                let listener = bound.sockets.into_iter().flatten().next();
                listener.map(|listener| (listener, tls))
            }
            None => None,
        };
        let socket = config.socket.as_deref().map(|path| match unix {
            Some(unix) => AdminSocket::take_over(path, unix),
            None => AdminSocket::bind(path),
        });
        let closed = CancellationToken::new();
        Ok(Self { tcp, revoked, socket: socket.transpose()?, tokens: Arc::new(tokens), closed })
    }

    /// Returns its sockets once more, for a successor. One for which no descriptor is left is missing.
    pub fn sockets(&self) -> AdminSockets {
        AdminSockets {
            tcp: self.tcp.as_ref().and_then(|(listener, _)| listener.try_clone().ok()),
            unix: self.socket.as_ref().and_then(|socket| socket.copy().ok()),
            path: self.socket().map(Path::to_owned),
            ownership: self.socket.as_ref().map(AdminSocket::ownership),
            close: self.closed.clone(),
        }
    }

    /// Returns the address, with the port that the kernel chose.
    pub fn address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|(listener, _)| listener.local_addr().ok())
    }

    /// Returns the list of operators whose certificates are refused, which may change while it serves.
    pub fn revoked(&self) -> RevokedOperators {
        self.revoked.clone()
    }

    /// Returns the path of the unix socket.
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_ref().map(AdminSocket::path)
    }

    /// Serves, the errands of the core too, until `shutdown`, then until open requests are answered, which takes a limited time. The unix socket is
    /// removed at the end, and also if this is dropped earlier.
    ///
    /// # Errors
    /// Fails if the runtime refuses a socket.
    pub async fn serve(
        self,
        state: AdminState,
        errands: Option<ErrandsTaken>,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let stop = CancellationToken::new();
        let context = |door| {
            let (tokens, operator) = (Arc::clone(&self.tokens), Arc::clone(&state.operator));
            let permits = |most| Arc::new(Semaphore::new(most));
            let (places, streams) = (permits(MAX_ANSWERS), permits(MAX_STREAMS));
            ApiContext { door, tokens, operator, places, streams, stop: stop.clone() }
        };
        let keeping = self.tcp.as_ref().and_then(|(_, tls)| tls.clone());
        let keeping = async {
            if let (Some(tls), Some(metrics)) = (keeping, state.metrics.first()) {
                // Readers find the sum of all workers: it does not matter which one has it.
                stop.run_until_cancelled(tls.keep(metrics)).await;
            }
        };
        let (tcp, tls) = match self.tcp {
            None => (None, None),
            Some((listener, tls)) => {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                match tls {
                    None => (Some(BoundedListener::new(listener, MAX_CONNECTIONS, CONNECTION_TIMEOUT)), None),
                    Some(tls) => {
                        let listener = TlsListener::new(listener, tls);
                        (None, Some(BoundedListener::new(listener, MAX_CONNECTIONS, CONNECTION_TIMEOUT)))
                    }
                }
            }
        };
        let (socket, place) = self.socket.map(AdminSocket::into_parts).transpose()?.unzip();
        let _place = place;
        let socket = socket.map(|listener| BoundedListener::new(listener, MAX_CONNECTIONS, SOCKET_TIMEOUT));
        let errands = errands.map(ErrandListener);
        let errands = errands.map(|errands| BoundedListener::new(errands, MAX_CONNECTIONS, CONNECTION_TIMEOUT));
        let serving = async {
            tokio::join!(
                serve(tcp, &state, context(Transport::Tcp), &self.closed),
                serve(tls, &state, context(Transport::Tls), &self.closed),
                serve(socket, &state, context(Transport::Socket), &self.closed),
                serve(errands, &state, context(Transport::Tunnel), &stop),
            )
        };
        let stopping = async {
            shutdown.await;
            stop.cancel();
            self.closed.cancel();
        };
        tokio::join!(serving, keeping, stopping);
        Ok(())
    }
}

/// Serves on one listener, if there is one, until `stop`.
pub(super) async fn serve<L>(
    listener: Option<BoundedListener<L>>,
    state: &AdminState,
    context: ApiContext,
    stop: &CancellationToken,
) where
    L: Listener,
    L::Io: HasCaller + Unpin,
    L::Addr: std::fmt::Debug,
{
    let Some(listener) = listener else { return };
    let stopped = stop.clone().cancelled_owned();
    let pages = pages::router(state.clone(), context).into_make_service_with_connect_info::<Caller>();
    let served = axum::serve(listener, pages).with_graceful_shutdown(stopped).await;
    if let Err(error) = served {
        // Accept errors are retried, so no known error gets here.
        tracing::error!(%error, "the admin server ended");
    }
}

//! TLS on `admin.listen`, with certificates that are read again after they change.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::serve::Listener;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};
use tracing::{error, info};

use super::caller::{Caller, HasCaller};
use crate::certs::certificate::Certificate;
use crate::certs::watch::{WatchResult, Watched};
use otproxy_config::AdminTlsConfig;

/// The problem of a file that cannot be used for TLS, and its remedy.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", file.display())]
pub struct TlsFileError {
    file: PathBuf,
    problem: String,
}

/// The server's identity at `admin.listen`, and the authorities of its clients.
#[derive(Debug)]
pub struct AdminIdentity {
    files: AdminTlsConfig,
    config: Watched<Arc<ServerConfig>>,
}

impl AdminIdentity {
    /// Reads the files.
    ///
    /// # Errors
    /// Fails if one cannot be used.
    pub fn load(files: AdminTlsConfig) -> Result<Self, TlsFileError> {
        let watched = [&files.cert, &files.key].into_iter().chain(&files.client_ca).cloned().collect();
        let config = Watched::load(watched, || config(&files))?;
        Ok(Self { files, config })
    }

    /// Returns the configuration for a new connection. It reads changed files again; if they cannot be used, the
    /// previous configuration stays.
    fn now(&mut self) -> Arc<ServerConfig> {
        match self.config.look(|| config(&self.files)) {
            WatchResult::None => {}
            WatchResult::Renewed => info!("the certificate of admin.listen was read again"),
            WatchResult::Unusable(error) => error!(%error, "admin.listen goes on with the certificate of before"),
        }
        Arc::clone(self.config.value())
    }
}

fn config(files: &AdminTlsConfig) -> Result<Arc<ServerConfig>, TlsFileError> {
    let AdminTlsConfig { cert, key, client_ca } = files;
    let chain = certificates(cert)?;
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, format!("holds no private key: {error}")))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_protocol_versions(&[&TLS13]).map_err(|error| wrong(cert, error.to_string()))?;
    let builder = match client_ca {
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(file)? {
                roots
                    .add(authority)
                    .map_err(|error| wrong(file, format!("holds a certificate that is no authority's: {error}")))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| wrong(file, error.to_string()))?)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(chain, private)
        .map_err(|error| wrong(cert, format!("cannot be used with the key in {}: {error}", key.display())))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Reads the certificates of a PEM file, at least one.
pub(super) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let found = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(wrong(file, "holds no certificate in PEM form".to_owned())),
        Err(error) => Err(wrong(file, format!("holds no certificate that can be read: {error}"))),
    }
}

fn wrong(file: &Path, problem: String) -> TlsFileError {
    TlsFileError { file: file.to_owned(), problem }
}

/// A listener whose connections begin TLS with their first read or write, so no handshake delays another.
pub(super) struct TlsListener {
    listener: TcpListener,
    identity: AdminIdentity,
}

impl TlsListener {
    pub(super) fn new(listener: TcpListener, identity: AdminIdentity) -> Self {
        Self { listener, identity }
    }
}

impl Listener for TlsListener {
    type Io = TlsConnection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TlsConnection, SocketAddr) {
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        let accept = TlsAcceptor::from(self.identity.now()).accept(stream);
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

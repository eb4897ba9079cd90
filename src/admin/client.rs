//! A client of a running otproxy, over its unix socket or its address.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::http::request;
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::owner;
use crate::certs::certificates;

/// Bytes of an answer that are read at most: more than the longest list, or the metrics of hundreds of edges, has.
const MAX_ANSWER: usize = 16 << 20;
/// The same of an edge that the core asks.
pub const MAX_ERRAND: usize = 4 << 20;
/// The time limit of a connect.
const CONNECT: Duration = Duration::from_secs(5);

/// A client of one otproxy.
#[derive(Debug, Clone)]
pub struct AdminClient {
    way: Way,
    token: Option<Token>,
    within: Duration,
}

/// A token to send.
#[derive(Clone)]
struct Token {
    text: String,
    /// The users that may have it, but for root.
    users: Vec<u32>,
}

/// Shows a token without its text.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("users", &self.users).finish_non_exhaustive()
    }
}

/// The way to reach it.
#[derive(Debug, Clone)]
enum Way {
    Socket(PathBuf),
    Tcp(String),
    Tls(String, ServerName<'static>, Arc<ClientConfig>),
}

/// The files by which a client verifies a server over TLS, and proves itself.
#[derive(Debug, Clone, Default)]
pub struct ClientFiles {
    /// The authority that must have issued the server's certificate.
    pub ca: Option<PathBuf>,
    /// The client's certificate and its key.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// An answer of any status.
#[derive(Debug, Clone)]
pub struct ApiAnswer {
    /// The status.
    pub status: u16,
    /// The whole body.
    pub body: Bytes,
}

/// The reason why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection failed, or was not permitted.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer does not speak HTTP.
    #[error("it does not answer as otproxy does")]
    Http(#[from] hyper::Error),
    /// The answer did not arrive in time.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The answer broke off, or is too long.
    #[error("the answer was cut short, or is too long")]
    Cut,
    /// The token would go to another host, for everybody on the way to read.
    #[error(
        "the token would be sent in clear to {0}; use https with `admin.tls` there, or the unix socket on that host itself"
    )]
    Clear(SocketAddr),
    /// The token would go to a user of this host who has no business with it.
    #[error(
        "the token would be sent to user id {uid}, who listens at {peer}, and is neither root, nor this user, nor the \
         owner of the token's file; stop that process, or use the unix socket"
    )]
    Stranger {
        /// The address.
        peer: SocketAddr,
        /// The user.
        uid: u32,
    },
    /// The listener's user is not known, so no token is sent.
    #[error("the token is not sent: it cannot be told who listens at {peer} ({error}); use the unix socket, or https")]
    Unknown {
        /// The address.
        peer: SocketAddr,
        /// The cause.
        error: io::Error,
    },
}

impl AdminClient {
    /// Makes a client that connects to a unix socket.
    pub fn socket(path: &Path) -> Self {
        Self::new(Way::Socket(path.to_owned()))
    }

    /// Makes a client that speaks plain HTTP. An unspecified address means this host.
    pub fn tcp(address: SocketAddr) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let address = SocketAddr::new(ip, address.port());
        Self::new(Way::Tcp(address.to_string()))
    }

    /// Makes a client for a URL, as in `http://127.0.0.1:9162` or `https://edge.example:9162`.
    ///
    /// # Errors
    /// Fails if it is no such URL, or if the files cannot be used.
    pub fn url(url: &str, files: &ClientFiles) -> Result<Self, String> {
        let wrong = || format!("`{url}` is no URL of otproxy; write it as `http://127.0.0.1:9162`");
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(wrong)?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong());
        }
        let with_port = |port: u16| match authority.port() {
            Some(_) => authority.to_string(),
            None => format!("{authority}:{port}"),
        };
        match uri.scheme_str() {
            Some("http") => Ok(Self::new(Way::Tcp(with_port(80)))),
            Some("https") => {
                let host = authority.host().trim_start_matches('[').trim_end_matches(']');
                let name = ServerName::try_from(host.to_owned()).map_err(|_| wrong())?;
                Ok(Self::new(Way::Tls(with_port(443), name, files.config()?)))
            }
            _ => Err(wrong()),
        }
    }

    fn new(way: Way) -> Self {
        Self { way, token: None, within: super::SOCKET_TIMEOUT }
    }

    /// Sends a token with each request: over the unix socket, over TLS, and else within this host alone, to root and
    /// `users`.
    #[must_use]
    pub fn with_token(self, text: String, users: Vec<u32>) -> Self {
        Self { token: Some(Token { text, users }), ..self }
    }

    /// Sets the time limit of an answer.
    #[must_use]
    pub fn within(self, within: Duration) -> Self {
        Self { within, ..self }
    }

    /// Sends a GET for a path with its query.
    ///
    /// # Errors
    /// Fails if there is no answer.
    pub async fn get(&self, path: &str) -> Result<ApiAnswer, ClientError> {
        self.ask(Method::GET, path, String::new()).await
    }

    /// Sends a POST with a JSON body.
    ///
    /// # Errors
    /// Fails if there is no answer.
    pub async fn post(&self, path: &str, body: String) -> Result<ApiAnswer, ClientError> {
        self.ask(Method::POST, path, body).await
    }

    async fn ask(&self, method: Method, path: &str, body: String) -> Result<ApiAnswer, ClientError> {
        let asked = async {
            match &self.way {
                Way::Socket(socket) => {
                    let stream = within(CONNECT, UnixStream::connect(socket)).await?;
                    self.exchange(stream, "localhost", method, path, body).await
                }
                Way::Tcp(address) => {
                    let stream = within(CONNECT, TcpStream::connect(address)).await?;
                    if let Some(token) = &self.token {
                        token.may_go(&stream)?;
                    }
                    self.exchange(stream, address, method, path, body).await
                }
                Way::Tls(address, name, config) => {
                    let stream = within(CONNECT, TcpStream::connect(address)).await?;
                    let connector = TlsConnector::from(Arc::clone(config));
                    let stream = within(CONNECT, connector.connect(name.clone(), stream)).await?;
                    self.exchange(stream, address, method, path, body).await
                }
            }
        };
        timeout(self.within, asked).await.unwrap_or(Err(ClientError::Timeout(self.within)))
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        host: &str,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<ApiAnswer, ClientError> {
        let mut request = request(method, path, host, &body);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.text));
        }
        exchange(stream, request, (body, MAX_ANSWER)).await
    }

    /// Returns the place that it connects to, for people.
    pub fn place(&self) -> String {
        match &self.way {
            Way::Socket(path) => path.display().to_string(),
            Way::Tcp(address) => format!("http://{address}"),
            Way::Tls(address, ..) => format!("https://{address}"),
        }
    }
}

/// Asks over a stream that leads to the admin server of another process, for one request: a GET, or with a body a POST.
///
/// # Errors
/// Fails if there is no answer.
pub async fn ask_over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    path: &str,
    body: Option<String>,
) -> Result<ApiAnswer, ClientError> {
    let method = if body.is_some() { Method::POST } else { Method::GET };
    let body = body.unwrap_or_default();
    let request = request(method, path, "localhost", &body);
    exchange(stream, request, (body, MAX_ERRAND)).await
}

fn request(method: Method, path: &str, host: &str, body: &str) -> request::Builder {
    let request = Request::builder().method(method).uri(path).header(HOST, host);
    if body.is_empty() { request } else { request.header(CONTENT_TYPE, "application/json") }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: request::Builder,
    (body, most): (String, usize),
) -> Result<ApiAnswer, ClientError> {
    let request = request.body(Body::from(body)).map_err(io::Error::other)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let asking = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = to_bytes(Body::new(body), most).await.map_err(|_| ClientError::Cut)?;
        Ok(ApiAnswer { status: head.status.as_u16(), body })
    };
    tokio::pin!(asking);
    tokio::select! {
        answer = &mut asking => answer,
        // The answer arrives with the connection's end, or never does.
        _ = connection => asking.await,
    }
}

impl Token {
    /// Checks that a plain connection leads to somebody who may have it.
    fn may_go(&self, stream: &TcpStream) -> Result<(), ClientError> {
        let (own, peer) = (stream.local_addr()?, stream.peer_addr()?);
        if !is_within_host(own, peer) {
            return Err(ClientError::Clear(peer));
        }
        match owner::stranger(own, peer, &self.users) {
            Ok(None) => Ok(()),
            Ok(Some(uid)) => Err(ClientError::Stranger { peer, uid }),
            Err(error) => Err(ClientError::Unknown { peer, error }),
        }
    }
}

/// Returns whether a connection between these addresses stays within this host.
fn is_within_host(own: SocketAddr, peer: SocketAddr) -> bool {
    peer.ip().to_canonical().is_loopback() || peer.ip() == own.ip()
}

async fn within<T>(time: Duration, work: impl Future<Output = io::Result<T>>) -> Result<T, ClientError> {
    Ok(timeout(time, work).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))?)
}

impl ClientFiles {
    fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let Some(ca) = &self.ca else {
            return Err("https needs `--ca`, the file of the authority that the certificate of `admin.tls` comes from"
                .to_owned());
        };
        let mut roots = RootCertStore::empty();
        for authority in certificates(ca).map_err(|error| error.to_string())? {
            roots.add(authority).map_err(|error| format!("{}: {error}", ca.display()))?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(&[&TLS13]).map_err(|error| error.to_string())?;
        let builder = builder.with_root_certificates(roots);
        Ok(Arc::new(match &self.own {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let chain = certificates(cert).map_err(|error| error.to_string())?;
                let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", key.display());
                let key = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(&error))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| wrong(&error))?
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let url = |url: &str| AdminClient::url(url, &ClientFiles::default()).map(|client| client.place());
        assert_eq!(url("http://127.0.0.1:9162").as_deref(), Ok("http://127.0.0.1:9162"));
        assert_eq!(url("http://edge.example/").as_deref(), Ok("http://edge.example:80"));
        assert_eq!(url("http://[::1]:1").as_deref(), Ok("http://[::1]:1"));
        for wrong in ["", "127.0.0.1:9162", "ftp://a", "http://", "http://a/b", "http://a?b", "http://u:p@a", "/run/x"]
        {
            let error = url(wrong).expect_err(wrong);
            assert!(error.contains("write it as `http://127.0.0.1:9162`"), "{error}");
        }
        assert!(url("https://a").unwrap_err().contains("`--ca`"));
    }

    #[test]
    fn plain_connections_to_other_hosts_are_known() {
        for (own, peer, expected) in [
            ("127.0.0.1:1", "127.0.0.1:9162", true),
            ("127.0.0.1:1", "127.0.0.9:9162", true),
            ("[::1]:1", "[::1]:9162", true),
            ("[::ffff:127.0.0.1]:1", "[::ffff:127.0.0.1]:9162", true),
            ("192.0.2.10:1", "192.0.2.10:9162", true),
            ("192.0.2.10:1", "192.0.2.11:9162", false),
            ("[2001:db8::1]:1", "[2001:db8::2]:9162", false),
        ] {
            assert_eq!(is_within_host(own.parse().unwrap(), peer.parse().unwrap()), expected, "{own} {peer}");
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        let client = AdminClient::socket(Path::new("/run/x")).with_token("0123456789abcdef".to_owned(), vec![7]);
        let shown = format!("{client:?}");
        assert!(shown.contains("users: [7]") && !shown.contains("0123456789abcdef"), "{shown}");
    }
}

//! Somebody who speaks TLS by rules of his own, with any certificate, name and protocol, and whoever the other side is; and
//! over it the frames of a trunk, whatever they say.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use otproxy::tunnel::ERRANDS;
use otproxy_net::tls::ALPN;
use otproxy_protocol::trunk::{CREDIT, CoreWorkers, FrameKind, HEADER_LEN, Hello, ResetReason, VERSION};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, date_time_ymd};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, Connection, DigitallySignedStruct, Error, ServerConfig, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::tunnel::Certificates;

/// A certificate and its key.
pub struct Papers(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Clone for Papers {
    fn clone(&self) -> Self {
        Self(self.0.clone(), self.1.clone_key())
    }
}

/// The time in which papers are good.
#[derive(Clone, Copy)]
pub enum Time {
    Past,
    Now,
    Future,
}

/// Papers of an authority, for any names and time.
pub fn papers(certificates: &Certificates, names: &[&str], time: Time) -> Papers {
    issue(certificates, names, time, ExtendedKeyUsagePurpose::ClientAuth)
}

/// Makes the same that are good for nothing but signing code.
pub fn papers_of_other_use(certificates: &Certificates, names: &[&str]) -> Papers {
    issue(certificates, names, Time::Now, ExtendedKeyUsagePurpose::CodeSigning)
}

fn issue(certificates: &Certificates, names: &[&str], time: Time, usage: ExtendedKeyUsagePurpose) -> Papers {
    let read = |file: &str| std::fs::read_to_string(certificates.folder.join(file)).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&read("ca.pem"), KeyPair::from_pem(&read("ca.key")).unwrap()).unwrap();
    let mut params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
    params.extended_key_usages = match usage {
        ExtendedKeyUsagePurpose::ClientAuth => vec![ExtendedKeyUsagePurpose::ServerAuth, usage],
        other => vec![other],
    };
    match time {
        Time::Past => (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1)),
        Time::Now => {}
        Time::Future => (params.not_before, params.not_after) = (date_time_ymd(2900, 1, 1), date_time_ymd(2901, 1, 1)),
    }
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    Papers(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
}

/// Takes whatever certificate it is shown.
#[derive(Debug)]
struct Trusting(Arc<CryptoProvider>);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Returns the TLS configuration of a peer that connects; `protocols` are `None` for the right one.
pub fn client(papers: Option<Papers>, protocols: Option<&[&str]>) -> ClientConfig {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[&TLS13]).unwrap();
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Trusting(provider)));
    let mut config = match papers {
        Some(Papers(chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn(protocols);
    config
}

/// Returns the TLS configuration of a peer that is connected to. It shows its papers to all, and asks nobody for any.
pub fn server(Papers(chain, key): Papers, protocols: Option<&[&str]>) -> ServerConfig {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]).unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = alpn(protocols);
    config
}

fn alpn(protocols: Option<&[&str]>) -> Vec<Vec<u8>> {
    protocols.map_or_else(|| vec![ALPN.to_vec()], |names| names.iter().map(|name| name.as_bytes().to_vec()).collect())
}

/// Bytes of plaintext in a record at the most.
const RECORD: usize = 16 * 1024;

/// One side of a connection.
pub struct Peer {
    pub tcp: TcpStream,
    pub tls: Connection,
}

impl Peer {
    /// Connects, and has said nothing yet.
    pub async fn connect(address: SocketAddr, config: ClientConfig, name: &str) -> Self {
        Self::connected(TcpStream::connect(address).await.unwrap(), config, name)
    }

    /// Begins the same over a connection of one's own.
    pub fn connected(tcp: TcpStream, config: ClientConfig, name: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        Self { tcp, tls: ClientConnection::new(Arc::new(config), name).unwrap().into() }
    }

    pub fn accepted(tcp: TcpStream, config: ServerConfig) -> Self {
        Self { tcp, tls: rustls::ServerConnection::new(Arc::new(config)).unwrap().into() }
    }

    /// Shakes hands, as far as this side sees it.
    pub async fn shake(&mut self) -> io::Result<()> {
        while self.tls.is_handshaking() {
            self.push().await?;
            if self.tls.is_handshaking() && self.pull().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.push().await
    }

    /// Sends what TLS has to say.
    pub async fn push(&mut self) -> io::Result<()> {
        let mut bytes = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes).unwrap();
        }
        self.tcp.write_all(&bytes).await
    }

    async fn pull(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 4096];
        let count = self.tcp.read(&mut buffer).await?;
        let mut bytes = &buffer[..count];
        loop {
            // Nothing is the end, which it must be told of too.
            self.tls.read_tls(&mut bytes)?;
            if let Err(error) = self.tls.process_new_packets() {
                // With the alert.
                let _ = self.push().await;
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
            if bytes.is_empty() {
                return Ok(count);
            }
        }
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        // TLS keeps only so much for later.
        for part in bytes.chunks(RECORD) {
            self.tls.writer().write_all(part).unwrap();
            self.push().await?;
        }
        Ok(())
    }

    /// Says that this was all, and ends its direction.
    pub async fn leave(&mut self) -> io::Result<()> {
        self.tls.send_close_notify();
        self.push().await?;
        self.tcp.shutdown().await
    }

    /// Returns what comes next: empty once the other side has said that this was all, an error if it ended otherwise.
    pub async fn read(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let mut bytes = vec![0; 4096];
            match self.tls.reader().read(&mut bytes) {
                Ok(count) => {
                    bytes.truncate(count);
                    return Ok(bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            self.pull().await?;
        }
    }

    /// Reads exactly that.
    pub async fn expect(&mut self, bytes: &[u8]) {
        let mut got = Vec::new();
        while got.len() < bytes.len() {
            let more = self.read().await.unwrap();
            assert!(!more.is_empty(), "it ends after {got:?}");
            got.extend(more);
        }
        assert_eq!(got, bytes);
    }

    /// Expects that the connection ends, and nothing was said on it.
    pub async fn expect_end(&mut self) {
        if let Ok(bytes) = self.read().await {
            assert!(bytes.is_empty(), "it says {bytes:?}");
        }
    }
}

/// Returns the hello of an edge with one worker.
pub fn edge_hello() -> Hello {
    Hello {
        version: VERSION,
        software: "0.0.0".to_owned(),
        credit: CREDIT,
        workers: 1,
        wish: None,
        owner: None,
        links: Vec::new(),
    }
}

/// Returns the hello of a core with one worker.
pub fn core_hello() -> Hello {
    Hello { owner: Some(CoreWorkers { worker: 0, key: [7; 16] }), ..edge_hello() }
}

/// Returns a frame as it goes over a trunk.
pub fn frame(kind: FrameKind, stream: u32, payload: &[u8]) -> Vec<u8> {
    any_frame(kind as u8, stream, payload)
}

/// Returns the same of any kind.
pub fn any_frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u16).to_le_bytes()[..], &[kind], &stream.to_le_bytes(), payload].concat()
}

/// A frame that has come over a trunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got {
    pub kind: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Got {
    /// Makes a reset.
    pub fn reset(stream: u32, reason: ResetReason) -> Self {
        Self { kind: FrameKind::Reset as u8, stream, payload: vec![reason.to_wire()] }
    }

    pub fn is(&self, kind: FrameKind) -> bool {
        self.kind == kind as u8
    }
}

/// One side of a trunk, which answers when it is asked whether it is there, and else does what it is told.
pub struct AnyTrunk {
    pub peer: Peer,
    /// The other side's hello.
    pub told: Hello,
    input: Vec<u8>,
    asked: u64,
    /// The streams that an edge keeps open for what the core asks it, which this side never does.
    errands: HashSet<u32>,
}

impl AnyTrunk {
    /// Says this hello of an edge with `more` behind it, and waits for the core's.
    pub async fn as_edge(mut peer: Peer, hello: &Hello, more: &[u8]) -> io::Result<Self> {
        peer.send(&[&hello.to_frame(), more].concat()).await?;
        Self::hears(peer).await
    }

    /// Waits for the edge's hello, and says this one of a core.
    pub async fn as_core(peer: Peer, hello: &Hello) -> io::Result<Self> {
        let mut trunk = Self::hears(peer).await?;
        trunk.send(&hello.to_frame()).await?;
        Ok(trunk)
    }

    async fn hears(mut peer: Peer) -> io::Result<Self> {
        let mut input = Vec::new();
        loop {
            if let Some((told, len)) = Hello::parse(&input).expect("a hello") {
                input.drain(..len);
                return Ok(Self { peer, told, input, asked: 0, errands: HashSet::new() });
            }
            let more = peer.read().await?;
            if more.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            input.extend(more);
        }
    }

    /// Sends bytes that are frames, or are not.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.peer.send(bytes).await
    }

    /// Returns the next frame that is neither a question whether this side is there, nor of an errand, nor a farewell. `None` once the other side
    /// has said that this was all.
    pub async fn next(&mut self) -> io::Result<Option<Got>> {
        loop {
            while let Some(got) = self.take() {
                if got.is(FrameKind::Ping) {
                    self.send(&frame(FrameKind::Pong, 0, &got.payload)).await?;
                } else if got.is(FrameKind::Open) && got.payload.ends_with(ERRANDS.as_bytes()) {
                    self.errands.insert(got.stream);
                } else if self.errands.contains(&got.stream) {
                    // Of a trunk that ends.
                } else if !got.is(FrameKind::GoAway) {
                    return Ok(Some(got));
                }
            }
            let more = self.peer.read().await?;
            if more.is_empty() {
                return Ok(None);
            }
            self.input.extend(more);
        }
    }

    fn take(&mut self) -> Option<Got> {
        let (&[l0, l1, kind, s0, s1, s2, s3], rest) = self.input.split_first_chunk::<HEADER_LEN>()?;
        let len = usize::from(u16::from_le_bytes([l0, l1]));
        let payload = rest.get(..len)?.to_vec();
        self.input.drain(..HEADER_LEN + len);
        Some(Got { kind, stream: u32::from_le_bytes([s0, s1, s2, s3]), payload })
    }

    /// Asks whether the other side is there, and returns what it had said before it answered.
    pub async fn goes_on(&mut self) -> Vec<Got> {
        self.asked += 1;
        let token = self.asked.to_le_bytes();
        self.send(&frame(FrameKind::Ping, 0, &token)).await.unwrap();
        let mut before = Vec::new();
        loop {
            let got = self.next().await.unwrap().expect("the trunk goes on");
            if got.is(FrameKind::Pong) && got.payload == token {
                return before;
            }
            before.push(got);
        }
    }

    /// Reads up to the end of the trunk.
    pub async fn ends(&mut self) {
        while let Ok(Some(_)) = self.next().await {}
    }

    /// Reads so many bytes of a stream.
    pub async fn bytes(&mut self, stream: u32, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let got = self.next().await.unwrap().expect("the trunk goes on");
            assert!(got.stream == stream && !got.is(FrameKind::Reset) && !got.is(FrameKind::End), "{got:?}");
            if got.is(FrameKind::Data) {
                bytes.extend(got.payload);
            }
        }
        bytes
    }

    /// Keeps the trunk up to its end.
    pub async fn stays(mut self) {
        self.ends().await;
    }
}

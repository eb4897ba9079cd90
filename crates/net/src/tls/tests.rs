//! Streams under TLS, against each other and against rustls as others use it.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{self, IoSlice, Read, Write};
use std::net::{self as std_net, Shutdown};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Error, InvalidMessage, RootCertStore, ServerConfig,
    ServerConnection,
};
use tokio::runtime::Runtime;

use super::machine::{RecordContent, TlsMachine};
use super::*;
use crate::Stream;
use crate::pump::{Observer, PumpEnd, pump};
use crate::worker::scratch;

/// Random numbers that are the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// Returns a number from 1 to `limit`, mostly a small one.
    fn size(&mut self, limit: usize) -> usize {
        let limit = if self.below(4) > 0 { limit.min(200) } else { limit };
        1 + self.below(limit)
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// The configurations of both sides.
pub(crate) struct Configs {
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) server: Arc<ServerConfig>,
}

/// Certificates of one authority for `core`, the server, and `waw1`, the client; `alpn` for both.
fn configs_with(alpn: &[&[u8]]) -> Configs {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let roots = Arc::new(roots);
    let leaf = |name: &str| {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    };
    let ((core, core_key), (edge, edge_key)) = (leaf("core"), leaf("waw1"));
    let verifier = WebPkiClientVerifier::builder(Arc::clone(&roots)).build().unwrap();
    let mut server =
        ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(core, core_key).unwrap();
    server.send_tls13_tickets = 0;
    let mut client =
        ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(edge, edge_key).unwrap();
    let alpn: Vec<Vec<u8>> = alpn.iter().map(|one| one.to_vec()).collect();
    (server.alpn_protocols, client.alpn_protocols) = (alpn.clone(), alpn);
    Configs { client: Arc::new(client), server: Arc::new(server) }
}

pub(crate) fn configs() -> Configs {
    configs_with(&[ALPN])
}

fn core() -> ServerName<'static> {
    ServerName::try_from("core").unwrap()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Runs `test`, which may take long on a busy machine but must not hang.
fn run<T>(test: impl Future<Output = T>) -> T {
    runtime().block_on(unless_it_hangs(test))
}

async fn unless_it_hangs<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(120), test).await.expect("it hangs")
}

/// Makes both ends of a connection, the second one outside of the runtime.
fn sockets() -> (Stream, std_net::TcpStream) {
    let listener = std_net::TcpListener::bind("127.0.0.1:0").unwrap();
    let far = std_net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let near = listener.accept().unwrap().0;
    near.set_nonblocking(true).unwrap();
    (Stream::new(tokio::net::TcpStream::from_std(near).unwrap()).unwrap(), far)
}

fn plain_pair() -> (Stream, Stream) {
    let (near, far) = sockets();
    far.set_nonblocking(true).unwrap();
    (near, Stream::new(tokio::net::TcpStream::from_std(far).unwrap()).unwrap())
}

/// Makes client and server.
async fn pair() -> (Stream, Stream) {
    let (client, server) = plain_pair();
    let configs = configs();
    let (client, server) = tokio::join!(client.tls_connect(configs.client, core()), server.tls_accept(configs.server));
    (client.unwrap(), server.unwrap())
}

/// rustls with its own buffers, blocking, as either side.
#[derive(Debug)]
struct Peer {
    tls: rustls::Connection,
    socket: std_net::TcpStream,
}

impl Peer {
    fn client(configs: &Configs, socket: std_net::TcpStream) -> Self {
        Self { tls: ClientConnection::new(Arc::clone(&configs.client), core()).unwrap().into(), socket }
    }

    fn server(configs: &Configs, socket: std_net::TcpStream) -> Self {
        Self { tls: ServerConnection::new(Arc::clone(&configs.server)).unwrap().into(), socket }
    }

    fn shake_hands(mut self) -> io::Result<Self> {
        while self.tls.is_handshaking() {
            self.tls.complete_io(&mut self.socket)?;
        }
        self.flush()?;
        Ok(self)
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.tls.read_tls(&mut self.socket)?;
                    let done = self.tls.process_new_packets();
                    self.flush()?;
                    done.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
                }
                result => return result,
            }
        }
    }

    fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let (mut all, mut buffer) = (Vec::new(), vec![0; 10_000]);
        loop {
            match self.read(&mut buffer)? {
                0 => return Ok(all),
                n => all.extend_from_slice(&buffer[..n]),
            }
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        for part in bytes.chunks(16_384) {
            self.tls.writer().write_all(part)?;
            self.flush()?;
        }
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        self.tls.send_close_notify();
        self.flush()?;
        self.socket.shutdown(Shutdown::Write)
    }
}

/// Makes a stream and its peer after the handshake, each as client or server.
async fn stream_and_peer(is_client: bool) -> (Stream, Peer) {
    let (near, far) = sockets();
    let configs = configs();
    if is_client {
        let peer = Peer::server(&configs, far);
        let shaking = std::thread::spawn(move || peer.shake_hands().unwrap());
        let stream = near.tls_connect(configs.client, core()).await.unwrap();
        (stream, shaking.join().unwrap())
    } else {
        let peer = Peer::client(&configs, far);
        let shaking = std::thread::spawn(move || peer.shake_hands().unwrap());
        let stream = near.tls_accept(configs.server).await.unwrap();
        (stream, shaking.join().unwrap())
    }
}

async fn read(stream: &Stream, buffer: &mut [u8]) -> io::Result<usize> {
    poll_fn(|cx| stream.poll_read(cx, buffer)).await
}

/// Reads in random pieces; returns the bytes and how they ended.
async fn read_to_end(stream: &Stream, random: &mut Random) -> (Vec<u8>, io::Result<()>) {
    let (mut all, mut buffer) = (Vec::new(), vec![0; 70_000]);
    loop {
        let size = random.size(buffer.len());
        match read(stream, &mut buffer[..size]).await {
            Ok(0) => return (all, Ok(())),
            Ok(n) => all.extend_from_slice(&buffer[..n]),
            Err(error) => return (all, Err(error)),
        }
    }
}

/// Writes in random pieces, one or several at once.
async fn write_all(stream: &Stream, bytes: &[u8], random: &mut Random) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (mut slices, mut behind) = (Vec::new(), rest);
        for _ in 0..random.size(6).min(6) {
            let (piece, next) = behind.split_at(random.size(40_000).min(behind.len()));
            slices.push(IoSlice::new(piece));
            behind = next;
        }
        let taken = match random.below(3) {
            0 => poll_fn(|cx| stream.poll_write(cx, &slices[0])).await?,
            _ => match stream.try_write(&slices) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    poll_fn(|cx| stream.poll_drain(cx, || Ok(false))).await?;
                    0
                }
                result => result?,
            },
        };
        assert!(taken <= MAX_PLAIN || stream.tls().is_none(), "{taken}");
        rest = &rest[taken..];
    }
    poll_fn(|cx| stream.poll_flush(cx)).await
}

async fn shut_down(stream: &Stream) -> io::Result<()> {
    poll_fn(|cx| stream.poll_shutdown(cx)).await
}

/// Writes all and says that it was all, while it reads to the end.
async fn exchange(stream: &Stream, bytes: &[u8], seed: u64) -> io::Result<Vec<u8>> {
    let (mut reads, mut writes) = (Random(seed), Random(!seed));
    let writing = async {
        write_all(stream, bytes, &mut writes).await?;
        shut_down(stream).await
    };
    let (written, (all, end)) = tokio::join!(writing, read_to_end(stream, &mut reads));
    written.and(end)?;
    Ok(all)
}

fn assert_idle_holds_nothing(stream: &Stream) {
    let tls = stream.tls().unwrap();
    assert_eq!(tls.machine.borrow().memory(), 0);
}

#[test]
fn any_bytes_both_ways_with_rustls_as_the_peer() {
    for seed in 0..12 {
        let bytes = Random(seed).bytes(400_000);
        let (echoed, sent) = run(async {
            let (stream, mut peer) = stream_and_peer(seed % 2 == 0).await;
            if seed % 3 == 0 {
                stream.limit_unsent();
            }
            let echo = std::thread::spawn(move || {
                let (mut random, mut buffer) = (Random(seed ^ 1), vec![0; 20_000]);
                let mut sent = 0;
                loop {
                    let size = random.size(buffer.len());
                    let n = peer.read(&mut buffer[..size])?;
                    if n == 0 {
                        break;
                    }
                    if random.below(50) == 0 {
                        peer.tls.refresh_traffic_keys().unwrap();
                    }
                    let cut = random.below(n);
                    peer.write_all(&buffer[..cut])?;
                    peer.write_all(&buffer[cut..n])?;
                    sent += n;
                }
                // This direction goes on after the other has ended.
                peer.write_all(b"and a word behind the end")?;
                peer.close()?;
                io::Result::Ok(sent)
            });
            let all = exchange(&stream, &bytes, seed).await.unwrap();
            assert_idle_holds_nothing(&stream);
            (all, echo.join().unwrap().unwrap())
        });
        assert_eq!(sent, bytes.len());
        let (same, word) = echoed.split_at(bytes.len());
        assert!(same == bytes, "seed {seed}");
        assert_eq!(word, b"and a word behind the end");
    }
}

#[test]
fn any_bytes_both_ways_between_two_streams() {
    for seed in 0..8 {
        let (up, down) = (Random(seed).bytes(500_000), Random(seed + 100).bytes(300_000));
        run(async {
            let (client, server) = pair().await;
            assert!(client.tls().is_some() && server.tls().is_some());
            for stream in [&client, &server] {
                // Small ones, so that records are cut and held back.
                stream.options().unwrap().set_send_buffer_size(16_384).unwrap();
            }
            let both = tokio::join!(exchange(&client, &up, seed), exchange(&server, &down, seed + 1));
            assert!(both.0.unwrap() == down && both.1.unwrap() == up, "seed {seed}");
            assert_idle_holds_nothing(&client);
            assert_idle_holds_nothing(&server);
        });
    }
}

#[test]
fn an_idle_stream_holds_no_buffer() {
    run(async {
        let (client, server) = pair().await;
        let mut buffer = vec![0; 20_000];
        for size in [1, 100, 16_384] {
            assert_eq!(client.try_write(&[IoSlice::new(&buffer[..size])]).unwrap(), size);
            let mut rest = size;
            while rest > 0 {
                rest -= read(&server, &mut buffer).await.unwrap();
            }
            assert_idle_holds_nothing(&client);
            assert_idle_holds_nothing(&server);
        }
    });
}

#[test]
fn what_the_reader_had_no_room_for_comes_next_without_another_event() {
    run(async {
        let (client, server) = pair().await;
        let bytes = Random(5).bytes(3000);
        for part in bytes.chunks(500) {
            assert_eq!(client.try_write(&[IoSlice::new(part)]).unwrap(), part.len());
        }
        let mut all = Vec::new();
        while all.len() < bytes.len() {
            let mut byte = [0];
            assert_eq!(read(&server, &mut byte).await.unwrap(), 1);
            all.push(byte[0]);
            // A write in between takes in what there is, and loses nothing.
            if all.len() == 700 {
                server.try_write(&[IoSlice::new(b"meanwhile")]).unwrap();
            }
        }
        assert_eq!(all, bytes);
    });
}

#[test]
fn slices_go_out_as_one_record() {
    run(async {
        let (stream, mut peer) = stream_and_peer(true).await;
        let parts: Vec<_> = (0..5).map(|n| vec![n; 100]).collect();
        let slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        assert_eq!(stream.try_write(&slices).unwrap(), 500);
        let mut header = [0; 5];
        peer.socket.peek(&mut header).unwrap();
        // With the type of what is in it, and the tag.
        assert_eq!(header, [23, 3, 3, 2, 5]);
        let mut all = vec![0; 1000];
        assert_eq!(peer.read(&mut all).unwrap(), 500);
        assert_eq!(all[..500], parts.concat());
    });
}

#[test]
fn an_end_that_is_not_said_is_an_error() {
    for is_client in [true, false] {
        run(async {
            let (stream, mut peer) = stream_and_peer(is_client).await;
            peer.write_all(b"half a sent").unwrap();
            peer.socket.shutdown(Shutdown::Write).unwrap();
            let (all, end) = read_to_end(&stream, &mut Random(1)).await;
            assert_eq!(all, b"half a sent");
            assert_eq!(end.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            assert_eq!(read(&stream, &mut [0]).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        });
    }
}

#[test]
fn an_end_in_the_middle_of_a_record_is_an_error() {
    run(async {
        let (stream, mut peer) = stream_and_peer(true).await;
        peer.tls.writer().write_all(&[7; 1000]).unwrap();
        let mut record = Vec::new();
        peer.tls.write_tls(&mut record).unwrap();
        peer.socket.write_all(&record[..500]).unwrap();
        peer.socket.shutdown(Shutdown::Write).unwrap();
        let (all, end) = read_to_end(&stream, &mut Random(1)).await;
        assert_eq!((all.len(), end.unwrap_err().kind()), (0, io::ErrorKind::UnexpectedEof));
    });
}

/// Checks that earlier bytes of the peer are read first; then comes the error, once; and the peer is told.
#[test]
fn garbage_behind_the_handshake_ends_the_stream() {
    for is_client in [true, false] {
        run(async {
            let (stream, mut peer) = stream_and_peer(is_client).await;
            peer.write_all(b"all is well").unwrap();
            let mut garbage = vec![23, 3, 3, 0, 100];
            garbage.extend(Random(9).bytes(100));
            peer.socket.write_all(&garbage).unwrap();
            let (all, end) = read_to_end(&stream, &mut Random(1)).await;
            let error = end.unwrap_err();
            assert_eq!((&all[..], error.kind()), (&b"all is well"[..], io::ErrorKind::InvalidData));
            assert!(error.to_string().contains("decrypt"), "{error}");
            assert_eq!(read(&stream, &mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
            let write = stream.try_write(&[IoSlice::new(b"hello")]);
            assert_eq!(write.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
            let told = peer.read(&mut [0; 100]).unwrap_err().to_string();
            assert_eq!(told, Error::AlertReceived(AlertDescription::BadRecordMac).to_string());
            // All that it may still say is that it ends.
            shut_down(&stream).await.unwrap();
        });
    }
}

/// Checks the same with a write before the read: bytes sent before the garbage can still be read.
#[test]
fn a_write_that_meets_garbage_loses_nothing_that_came_before_it() {
    run(async {
        let (stream, mut peer) = stream_and_peer(true).await;
        let mut records = Vec::new();
        for word in [&b"first, "[..], b"second, ", b"third"] {
            peer.tls.writer().write_all(word).unwrap();
            peer.tls.write_tls(&mut records).unwrap();
        }
        records.extend([1; 50]);
        peer.socket.write_all(&records).unwrap();
        let mut all = vec![0];
        assert_eq!(read(&stream, &mut all).await.unwrap(), 1);
        // All has come by now, or comes when the rest is read.
        let _ = stream.try_write(&[IoSlice::new(b"hello")]);
        let (rest, end) = read_to_end(&stream, &mut Random(1)).await;
        all.extend(rest);
        assert_eq!((&all[..], end.unwrap_err().kind()), (&b"first, second, third"[..], io::ErrorKind::InvalidData));
    });
}

#[test]
fn whoever_does_not_speak_tls_is_told_so() {
    for first in [&b"GET / HTTP/1.1\r\nHost: core\r\n\r\n"[..], &[0; 100], &[0xff; 40_000]] {
        run(async {
            let (stream, mut far) = sockets();
            far.write_all(first).unwrap();
            let error = stream.tls_accept(configs().server).await.unwrap_err();
            assert!(matches!(error, TlsError::Tls(Error::InvalidMessage(_))), "{error:?}");
            if first.len() < MAX_RECORD {
                let mut answer = Vec::new();
                far.read_to_end(&mut answer).unwrap();
                assert_eq!(answer[..3], [21, 3, 3], "{answer:?}");
            }
        });
    }
}

#[test]
fn garbage_in_the_middle_of_the_handshake_ends_it() {
    run(async {
        let (stream, mut far) = sockets();
        let configs = configs();
        let mut client = Peer::client(&configs, far.try_clone().unwrap());
        client.flush().unwrap();
        far.write_all(&[22, 3, 3, 0, 4, 99, 99, 99, 99]).unwrap();
        let error = stream.tls_accept(configs.server).await.unwrap_err();
        assert!(matches!(error, TlsError::Tls(_)), "{error:?}");
    });
}

#[test]
fn a_handshake_message_without_end_is_refused_before_it_fills_memory() {
    run(async {
        let (stream, mut far) = sockets();
        // The start of a hello of 65535 bytes.
        let mut hello = vec![22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff];
        hello.resize(5 + 0x4000, 0);
        for _ in 0..3 {
            let _ = far.write_all(&hello);
            hello[5] = 0;
        }
        let error = stream.tls_accept(configs().server).await.unwrap_err();
        let expected = Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge);
        assert!(matches!(&error, TlsError::Tls(error) if *error == expected), "{error:?}");
    });
}

#[test]
fn a_handshake_that_comes_byte_by_byte_succeeds() {
    run(async {
        let (client, far_client) = sockets();
        let (server, far_server) = sockets();
        let by_byte = |mut from: std_net::TcpStream, mut to: std_net::TcpStream| {
            to.set_nodelay(true).unwrap();
            std::thread::spawn(move || {
                let mut byte = [0];
                while from.read(&mut byte).is_ok_and(|n| n > 0) && to.write_all(&byte).is_ok() {}
            })
        };
        let there = by_byte(far_client.try_clone().unwrap(), far_server.try_clone().unwrap());
        let back = by_byte(far_server, far_client);
        let configs = configs();
        let (client, server) =
            tokio::join!(client.tls_connect(configs.client, core()), server.tls_accept(configs.server));
        let (client, server) = (client.unwrap(), server.unwrap());
        let bytes = Random(3).bytes(2000);
        let (one, other) = tokio::join!(exchange(&client, &bytes, 1), exchange(&server, &bytes, 2));
        assert!(one.unwrap() == bytes && other.unwrap() == bytes);
        drop((client, server));
        there.join().unwrap();
        back.join().unwrap();
    });
}

#[test]
fn a_peer_that_closes_in_the_handshake_is_told_apart() {
    run(async {
        let (stream, far) = sockets();
        let mut client = Peer::client(&configs(), far);
        client.flush().unwrap();
        client.socket.shutdown(Shutdown::Write).unwrap();
        let error = stream.tls_accept(configs().server).await.unwrap_err();
        assert!(matches!(error, TlsError::Closed), "{error:?}");
    });
}

#[test]
fn bytes_right_behind_the_handshake_are_kept() {
    run(async {
        let (stream, far) = sockets();
        let configs = configs();
        let mut peer = Peer::client(&configs, far);
        // Until it may write, and then its last words of the handshake go out with the first ones behind it.
        let peer = std::thread::spawn(move || {
            peer.flush()?;
            while peer.tls.is_handshaking() {
                peer.tls.read_tls(&mut peer.socket)?;
                peer.tls.process_new_packets().map_err(io::Error::other)?;
            }
            let mut all = Vec::new();
            for word in ["eager, ", "and more"] {
                peer.tls.writer().write_all(word.as_bytes())?;
            }
            while peer.tls.wants_write() {
                peer.tls.write_tls(&mut all)?;
            }
            peer.socket.write_all(&all)?;
            io::Result::Ok(peer)
        });
        let stream = stream.tls_accept(configs.server).await.unwrap();
        let mut all = [0; 20];
        let mut count = 0;
        while count < 15 {
            count += read(&stream, &mut all[count..]).await.unwrap();
        }
        assert_eq!(all[..15], *b"eager, and more");
        drop(peer.join().unwrap().unwrap());
    });
}

#[test]
fn each_side_knows_the_certificate_of_the_other() {
    run(async {
        let (client, server) = pair().await;
        let name = |stream: &Stream| {
            let certificate = stream.peer_certificates().remove(0);
            let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).unwrap();
            format!("{:?}", parsed.subject_alternative_name().unwrap().unwrap().value.general_names)
        };
        assert!(name(&client).contains("core") && name(&server).contains("waw1"));
        assert!(plain_pair().0.peer_certificates().is_empty());
    });
}

#[test]
fn a_peer_of_another_authority_is_refused_by_either_side() {
    let (ours, theirs) = (configs(), configs());
    run(async {
        let (client, server) = plain_pair();
        let (client, server) = tokio::join!(client.tls_connect(ours.client, core()), server.tls_accept(theirs.server));
        assert!(matches!(client, Err(TlsError::Tls(Error::InvalidCertificate(_)))), "{client:?}");
        assert!(matches!(server, Err(TlsError::Tls(Error::AlertReceived(_)))), "{server:?}");
    });
    run(async {
        // Its own authority's certificate, but it trusts the server.
        let mut stranger = ClientConfig::clone(&theirs.client);
        stranger.dangerous().set_certificate_verifier(Arc::new(danger::AnyServer));
        let (client, server) = plain_pair();
        let (client, server) =
            tokio::join!(client.tls_connect(Arc::new(stranger), core()), server.tls_accept(ours.server));
        assert!(matches!(server, Err(TlsError::Tls(Error::InvalidCertificate(_)))), "{server:?}");
        // In TLS 1.3 the client learns it behind its handshake.
        let error = read(&client.unwrap(), &mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    });
}

mod danger {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::ring;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    #[derive(Debug)]
    pub(super) struct AnyServer;

    impl ServerCertVerifier for AnyServer {
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
            Err(Error::HandshakeNotComplete)
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
            ring::default_provider().signature_verification_algorithms.supported_schemes()
        }
    }
}

#[test]
fn both_must_agree_on_the_protocol_inside() {
    run(async {
        let configs = configs_with(&[]);
        let (client, server) = plain_pair();
        let (client, server) =
            tokio::join!(client.tls_connect(configs.client, core()), server.tls_accept(configs.server));
        assert!(matches!((&client, &server), (Err(TlsError::Alpn), Err(TlsError::Alpn))), "{client:?} {server:?}");
    });
    run(async {
        let mut configs = configs();
        Arc::get_mut(&mut configs.client).unwrap().alpn_protocols = vec![b"h2".to_vec()];
        let (client, server) = plain_pair();
        let (client, server) =
            tokio::join!(client.tls_connect(configs.client, core()), server.tls_accept(configs.server));
        assert!(matches!(server, Err(TlsError::Tls(Error::NoApplicationProtocol))), "{server:?}");
        assert!(matches!(client, Err(TlsError::Tls(Error::AlertReceived(_)))), "{client:?}");
    });
}

/// Writes until the socket takes no more; returns how many bytes the stream took.
fn fill_up(stream: &Stream, bytes: &[u8]) -> usize {
    let mut sent = 0;
    loop {
        match stream.try_write(&[IoSlice::new(&bytes[sent..])]) {
            Ok(taken) => sent += taken,
            Err(e) => {
                assert_eq!(e.kind(), io::ErrorKind::WouldBlock);
                return sent;
            }
        }
    }
}

#[test]
fn what_the_socket_does_not_take_waits_and_goes_on() {
    for bounded in [false, true] {
        run(async {
            let (stream, mut peer) = stream_and_peer(true).await;
            if bounded {
                stream.limit_unsent();
            }
            let bytes = Random(2).bytes(12 << 20);
            let sent = fill_up(&stream, &bytes);
            if bounded {
                assert!(sent < 512 * 1024, "{sent} bytes wait in the kernels");
            } else {
                assert!(stream.holds_back());
            }
            let memory = stream.tls().unwrap().machine.borrow().memory();
            assert!(memory <= 2 * MAX_RECORD, "{memory}");
            // An end now must come behind all that, and one record more that is written before it.
            let reading = std::thread::spawn(move || peer.read_to_end());
            let mut random = Random(3);
            let rest = &bytes[sent..(sent + 100_000)];
            write_all(&stream, rest, &mut random).await.unwrap();
            let _ = stream.try_write(&[IoSlice::new(&[7; 1000])]);
            shut_down(&stream).await.unwrap();
            assert!(!stream.holds_back());
            let all = reading.join().unwrap().unwrap();
            assert!(all[..sent + 100_000] == bytes[..sent + 100_000]);
            assert_idle_holds_nothing(&stream);
        });
    }
}

#[test]
fn an_end_waits_for_what_is_held_back() {
    run(async {
        let (stream, mut peer) = stream_and_peer(false).await;
        let bytes = Random(2).bytes(12 << 20);
        let sent = fill_up(&stream, &bytes);
        assert!(stream.holds_back());
        let early = poll_fn(|cx| Poll::Ready(stream.poll_shutdown(cx).is_pending())).await;
        assert!(early, "it would have said that it was all");
        let reading = std::thread::spawn(move || peer.read_to_end());
        shut_down(&stream).await.unwrap();
        let write = stream.try_write(&[IoSlice::new(b"more")]);
        assert_eq!(write.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert!(reading.join().unwrap().unwrap() == bytes[..sent]);
    });
}

#[test]
fn a_stream_moves_to_another_runtime_with_all_that_waits_in_it() {
    for is_tls in [true, false] {
        let (up, down) = (Random(6).bytes(12 << 20), Random(7).bytes(40_000));
        let (detached, client, mut all, sent) = run(async {
            let (client, server) = if is_tls { pair().await } else { plain_pair() };
            // Half of a record is read, and of another one half has come.
            let mut random = Random(8);
            write_all(&client, &down, &mut random).await.unwrap();
            let mut all = vec![0; 5000];
            let count = read(&server, &mut all).await.unwrap();
            all.truncate(count);
            let sent = fill_up(&server, &up);
            assert_eq!(server.holds_back(), is_tls);
            (server.detach().unwrap(), client.detach().unwrap(), all, sent)
        });
        let other = std::thread::spawn(move || {
            run(async {
                let server = detached.attach().unwrap();
                assert_eq!(server.holds_back(), is_tls);
                let (mut reads, mut writes) = (Random(1), Random(2));
                let writing = async {
                    poll_fn(|cx| server.poll_flush(cx)).await?;
                    write_all(&server, &up[sent..sent + 1000], &mut writes).await?;
                    shut_down(&server).await
                };
                let (written, (rest, end)) = tokio::join!(writing, read_to_end(&server, &mut reads));
                written.and(end).unwrap();
                all.extend(rest);
                (all, up)
            })
        });
        let got = run(async {
            let client = client.attach().unwrap();
            shut_down(&client).await.unwrap();
            let (got, end) = read_to_end(&client, &mut Random(4)).await;
            end.unwrap();
            got
        });
        let (all, up) = other.join().unwrap();
        assert!(all == down && got == up[..sent + 1000]);
    }
}

/// Bytes from the client and to it.
#[derive(Default)]
struct Counts(Cell<u64>, Cell<u64>);

impl Observer for Counts {
    fn begins(&self, _: &[u8]) {}

    fn count_in(&self, bytes: u64) {
        self.0.set(self.0.get() + bytes);
    }

    fn count_out(&self, bytes: u64) {
        self.1.set(self.1.get() + bytes);
    }
}

/// Pumps from plain to TLS and back to plain, as through an edge and a core: each end of a direction arrives by itself.
#[test]
fn pumps_carry_both_directions_to_their_ends_over_tls() {
    for seed in 0..4 {
        run(async {
            let ((player, at_edge), (at_core, game)) = (plain_pair(), plain_pair());
            let (tunnel_edge, tunnel_core) = pair().await;
            for stream in [&tunnel_edge, &tunnel_core] {
                stream.options().unwrap().set_send_buffer_size(16_384).unwrap();
            }
            let (up, down) = (Random(seed).bytes(700_000), Random(seed + 50).bytes(1_500_000));
            let (scratch, idle) = (scratch(), Duration::from_secs(100));
            let (edge, core) = (Counts::default(), Counts::default());
            let (edge_ended, core_ended, at_player, at_game) = tokio::join!(
                pump(&at_edge, &tunnel_edge, b"first, ".to_vec(), idle, &scratch, &edge),
                pump(&tunnel_core, &at_core, Vec::new(), idle, &scratch, &core),
                exchange(&player, &up, seed),
                exchange(&game, &down, seed + 1),
            );
            for reason in [edge_ended, core_ended] {
                assert!(matches!(reason, PumpEnd::Client | PumpEnd::Target), "{reason:?}");
            }
            assert_eq!((edge.0.get(), edge.1.get()), (up.len() as u64, down.len() as u64));
            assert_eq!((core.0.get(), core.1.get()), (up.len() as u64 + 7, down.len() as u64));
            assert!(at_player.unwrap() == down && at_game.unwrap() == [&b"first, "[..], &up].concat());
            assert_idle_holds_nothing(&tunnel_edge);
            assert_idle_holds_nothing(&tunnel_core);
        });
    }
}

/// Checks that the pump itself brings the rest out, as its side has nothing more to write.
#[test]
fn a_pump_brings_out_what_is_held_back() {
    run(async {
        let (stream, mut peer) = stream_and_peer(true).await;
        let (client, _player) = plain_pair();
        let bytes = vec![7; 12 << 20];
        let sent = fill_up(&stream, &bytes);
        assert!(stream.holds_back());
        let (reading, read) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let (mut rest, mut buffer) = (sent, vec![0; 50_000]);
            while rest > 0 {
                rest -= peer.read(&mut buffer).unwrap();
            }
            reading.send(peer).unwrap();
        });
        let scratch = scratch();
        let counts = Counts::default();
        tokio::select! {
            pumped = pump(&client, &stream, Vec::new(), Duration::from_secs(1000), &scratch, &counts) => {
                panic!("{pumped:?}")
            }
            peer = read => drop(peer.unwrap()),
        }
    });
}

/// Checks that a cut does not look like an end behind a pump either.
#[test]
fn a_pump_does_not_end_what_was_cut() {
    run(async {
        let (stream, mut peer) = stream_and_peer(false).await;
        let (target, game) = plain_pair();
        let scratch = scratch();
        let counts = Counts::default();
        peer.write_all(b"half a sent").unwrap();
        peer.socket.shutdown(Shutdown::Write).unwrap();
        let idle = Duration::from_secs(100);
        let reason = pump(&stream, &target, Vec::new(), idle, &scratch, &counts).await;
        assert_eq!((reason, counts.0.get()), (PumpEnd::ClientError, 11));
        // And towards the tunnel: what is not read to its end has none.
        let mut all = [0; 20];
        assert_eq!(read(&game, &mut all).await.unwrap(), 11);
        drop(stream);
        assert_eq!(peer.read(&mut all).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    });
}

/// Checks that any bytes, in any pieces, at any point of a connection, never cause a panic nor more memory than stated.
#[test]
fn a_machine_takes_any_bytes() {
    let configs = configs();
    let (mut handshaken, mut failed) = (0, 0);
    for seed in 0..300 {
        let mut random = Random(seed);
        let mut client = TlsMachine::client(Arc::clone(&configs.client), core()).unwrap();
        let mut server = TlsMachine::server(Arc::clone(&configs.server)).unwrap();
        client.take_in(&mut [], &mut []);
        let damage_at = random.below(40);
        for turn in 0..80 {
            let (from, to) = if turn % 2 == 0 { (&mut client, &mut server) } else { (&mut server, &mut client) };
            if !from.is_handshaking() && random.below(3) == 0 {
                let mut record = vec![0; MAX_RECORD];
                let size = random.size(MAX_PLAIN);
                let bytes = random.bytes(size);
                let wish = if random.below(20) == 0 { RecordContent::Goodbye } else { RecordContent::Send(&bytes) };
                if let Ok(sealed) = from.seal(wish, &mut record) {
                    from.hold_back(sealed);
                }
            }
            let waits = from.held_back().len();
            let whole = turn < damage_at && random.below(4) > 0;
            let mut count = match waits {
                0 => 0,
                _ if whole => waits.min(MAX_RECORD - to.kept().len()),
                _ => random.size(waits).min(MAX_RECORD - to.kept().len()),
            };
            let mut bytes = from.held_back()[..count].to_vec();
            from.is_out(count);
            if turn >= damage_at && random.below(3) == 0 {
                match random.below(3) {
                    0 if !bytes.is_empty() => {
                        let at = random.below(bytes.len());
                        bytes[at] ^= 1 << random.below(8);
                    }
                    1 => {
                        let garbage = random.below(100);
                        bytes.extend(random.bytes(garbage));
                    }
                    _ => bytes.truncate(random.below(bytes.len() + 1)),
                }
                bytes.truncate(MAX_RECORD - to.kept().len());
                count = bytes.len();
            }
            let mut buffer = vec![0; random.size(20_000)];
            // As a stream does it: all that came before is read first.
            while matches!(to.read(&mut buffer), Some(Ok(n)) if n > 0) {}
            let mut record = [to.kept(), &bytes].concat();
            to.take_in(&mut record, &mut buffer);
            assert!(to.kept().len() <= MAX_RECORD && to.memory() <= 8 * MAX_RECORD, "{to:?} after {count}");
            while matches!(to.read(&mut buffer), Some(Ok(n)) if n > 0) {}
        }
        handshaken += u32::from(!server.is_handshaking());
        failed += u32::from(matches!(server.read(&mut [0]), Some(Err(_))));
    }
    assert!(handshaken > 150 && failed > 50, "the test tests little: {handshaken} {failed}");
}

//! Equipment for tests of roles: roles from YAML on ports of the kernel's choice, stand-in targets, and their connections.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

pub use super::http::get;
pub use super::metrics::Metered;
pub use super::role::Role;
pub use super::{eventually, run};

/// Returns a stand-in target; the test accepts and plays it.
pub async fn target() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// Starts a stand-in target that sends back what it gets, each connection until its end.
pub async fn echo_target() -> SocketAddr {
    let (listener, addr) = target().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    addr
}

/// Returns an address that refuses connections for as long as the socket lives: bound, and not listening.
pub fn refusing() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

/// Connects from an address of the test's choice.
pub async fn connect_from(local: &str, to: SocketAddr) -> TcpStream {
    let local: IpAddr = local.parse().unwrap();
    let socket = if local.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
    socket.bind(SocketAddr::new(local, 0)).unwrap();
    let stream = socket.connect(to).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Accepts a connection on a stand-in target.
pub async fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Reads exactly `count` bytes.
pub async fn read(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).await.unwrap();
    bytes
}

/// Reads until the other side closes, however it does that: a reset is the end too where the other
/// side had bytes that it did not read.
pub async fn read_to_close(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => return bytes,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
                return bytes;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Sends `bytes` and expects them back.
pub async fn echoes(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    assert_eq!(read(stream, bytes.len()).await, bytes);
}

/// Returns whether a connection is served: it echoes, rather than being closed.
pub async fn is_served(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    stream.write_all(b"?").await.is_ok() && matches!(stream.read(&mut byte).await, Ok(1))
}

/// Returns a PROXY v2 header as the specification writes it, apart from the code under test.
pub fn v2(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    v2_with(source, destination, &[])
}

/// Returns the same, with TLVs.
pub fn v2_with(source: SocketAddr, destination: SocketAddr, tlvs: &[u8]) -> Vec<u8> {
    let (family, mut payload) = match (source.ip(), destination.ip()) {
        (IpAddr::V4(s), IpAddr::V4(d)) => (0x11, [s.octets(), d.octets()].concat()),
        (s, d) => (0x21, [v6(s).octets(), v6(d).octets()].concat()),
    };
    payload.extend(source.port().to_be_bytes());
    payload.extend(destination.port().to_be_bytes());
    payload.extend(tlvs);
    v2_raw(0x21, family, &payload)
}

/// Returns a PROXY v2 header of any content.
pub fn v2_raw(version_command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u16).to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[version_command, family], &length, payload].concat()
}

fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// Returns a PROXY v1 line.
pub fn v1(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (s, d) = (source.ip(), destination.ip());
    format!("PROXY {family} {s} {d} {} {}\r\n", source.port(), destination.port()).into_bytes()
}

/// Returns bytes that show their place.
pub fn pattern(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(&mut next).take(count.div_ceil(8)).flatten().collect();
    bytes.truncate(count);
    bytes
}

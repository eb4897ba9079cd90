//! Hellos: the first words of both sides of a trunk.

use std::io;

use tokio::time::timeout;

use super::HANDSHAKE;
use crate::certs::HandshakeResult;
use otproxy_net::Stream;
use otproxy_net::worker::Scratch;
use otproxy_protocol::trunk::{CREDIT, Hello, VERSION};

/// Bytes that are read at once.
const READ: usize = 2048;

/// Returns this side's hello, as far as both roles have the same to say.
pub fn hello(workers: usize) -> Hello {
    Hello {
        version: VERSION,
        software: env!("CARGO_PKG_VERSION").to_owned(),
        credit: CREDIT,
        workers: u16::try_from(workers).unwrap_or(u16::MAX),
        wish: None,
        owner: None,
        links: Vec::new(),
    }
}

/// Says this side's hello.
///
/// # Errors
/// Returns the result that it is counted as.
pub(super) async fn say(stream: &Stream, hello: &Hello) -> Result<(), HandshakeResult> {
    let said = timeout(HANDSHAKE, stream.write_all(&hello.to_frame())).await;
    said.map_err(|_| HandshakeResult::Timeout)?.map_err(|_| HandshakeResult::Closed)
}

/// Waits for the other side's hello; returns it, and the bytes that came behind it.
///
/// # Errors
/// Returns the result that it is counted as.
pub(super) async fn hear(stream: &Stream, scratch: &Scratch) -> Result<(Hello, Vec<u8>), HandshakeResult> {
    let hearing = async {
        let mut bytes = Vec::new();
        loop {
            match stream.read_onto(&mut bytes, READ, scratch).await {
                Ok(0) => return Err(HandshakeResult::Closed),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(HandshakeResult::Refused),
                Err(_) => return Err(HandshakeResult::Closed),
                Ok(_) => {}
            }
            match Hello::parse(&bytes) {
                Ok(None) => {}
                Ok(Some((hello, len))) => {
                    bytes.drain(..len);
                    return Ok((hello, bytes));
                }
                Err(_) => return Err(HandshakeResult::NoHello),
            }
        }
    };
    timeout(HANDSHAKE, hearing).await.unwrap_or(Err(HandshakeResult::Timeout))
}

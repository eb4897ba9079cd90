//! One check of one target.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::LazyLock;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::addresses::ResolvedAddresses;
use crate::forward::{CheckResult, TRIES};
use otproxy_config::{CheckKind, SendProxy};
use otproxy_net::Source;
use otproxy_protocol::frame::{self, ClientId, PONG};
use otproxy_protocol::proxy_header;

/// The client that the checks of this process appear as to a relay: one that opens no session.
static CLIENT: LazyLock<ClientId> = LazyLock::new(|| ClientId(RandomState::new().hash_one(0u8) as u32 | 1));

/// Checks a target as a connection would reach it: each of its addresses `within` that time, and an answer as well; from
/// `source`. Returns the round trip of a ping.
///
/// # Errors
/// Returns the problem of the target.
pub async fn check(
    addresses: &ResolvedAddresses,
    kind: CheckKind,
    send_proxy: SendProxy,
    source: Source,
    within: Duration,
) -> Result<Option<Duration>, CheckResult> {
    let connected =
        timeout(within * TRIES, addresses.connect(source, within)).await.map_err(|_| CheckResult::Timeout)?;
    let (mut stream, _) = connected?;
    let asking = async {
        match kind {
            CheckKind::Off | CheckKind::Tcp => Ok(None),
            CheckKind::Proxy => stream.write_all(proxy_header::LOCAL).await.map(|()| None),
            CheckKind::Ping => ping(&mut stream, send_proxy).await.map(Some),
        }
    };
    match timeout(within, asking).await {
        Ok(Ok(rtt)) => Ok(rtt),
        Ok(Err(_)) if kind == CheckKind::Ping => Err(CheckResult::NoPong),
        Ok(Err(_)) => Err(CheckResult::Error),
        Err(_) => Err(CheckResult::Timeout),
    }
}

/// Pings a relay and waits for its answer.
async fn ping(stream: &mut TcpStream, send_proxy: SendProxy) -> io::Result<Duration> {
    stream.set_nodelay(true)?;
    let mut bytes = match send_proxy {
        SendProxy::V2 | SendProxy::V2Reversed => proxy_header::LOCAL.to_vec(),
        SendProxy::V1 => proxy_header::UNKNOWN.to_vec(),
        SendProxy::None => Vec::new(),
    };
    // The check reports no round trip of its own: a relay counts those of players.
    bytes.extend_from_slice(&frame::ping(*CLIENT, 0));
    let sent = Instant::now();
    stream.write_all(&bytes).await?;
    let mut answer = [0; PONG.len()];
    stream.read_exact(&mut answer).await?;
    if answer == PONG { Ok(sent.elapsed()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

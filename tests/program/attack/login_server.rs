//! A login server in place of a real one: it answers what is asked, and counts.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

/// What a status request for XML is, in whole.
pub const STATUS: &[u8] = b"\x06\0\xFF\xFFinfo";
/// What it is answered with.
const ANSWER: &[u8] = b"<tsqp><serverinfo ip=\"127.0.0.1\" port=\"7171\"/><players online=\"3\"/></tsqp>";

/// Ends with it.
pub struct LoginServer {
    pub addr: SocketAddr,
    task: AbortHandle,
}

impl LoginServer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let serve = async move {
            let mut all = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                while all.try_join_next().is_some() {}
                // It answers the first packet, whatever that is, and closes. Who sends none has its time from the edge.
                all.spawn(async move {
                    if stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {
                        let _ = stream.write_all(ANSWER).await;
                    }
                });
            }
        };
        Self { addr, task: tokio::spawn(serve).abort_handle() }
    }
}

impl Drop for LoginServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

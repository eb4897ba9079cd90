//! The observer of the bytes that a forward moves.

use otproxy_net::Stream;
use otproxy_net::pump::{Observer, keep_queues_small};
use otproxy_protocol::frame::begins_link;

use crate::admission::ListenerMetrics;
use crate::connection::ConnectionHandle;

/// An observer that counts the bytes of one connection, and notices links.
pub(super) struct ForwardObserver<'a> {
    pub(super) client: &'a Stream,
    pub(super) target: &'a Stream,
    pub(super) handle: &'a ConnectionHandle,
    pub(super) metrics: &'a ListenerMetrics,
}

impl Observer for ForwardObserver<'_> {
    fn begins(&self, first: &[u8]) {
        if begins_link(first) {
            self.handle.set_link();
            keep_queues_small(self.client, self.target);
        }
    }

    fn count_in(&self, bytes: u64) {
        self.metrics.bytes_in.inc_by(bytes);
        self.handle.add_in(bytes);
    }

    fn count_out(&self, bytes: u64) {
        self.metrics.bytes_out.inc_by(bytes);
        self.handle.add_out(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use otproxy_net::UNSENT;
    use otproxy_net::pump::pump;
    use otproxy_net::worker::scratch;
    use otproxy_protocol::frame::{ClientId, ping};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::metrics::Metrics;

    /// Makes both ends of a connection.
    async fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Stream::new(listener.accept().await.unwrap().0).unwrap(), far)
    }

    /// Returns the kernel's options of both sides once the client has sent `first`: the bytes that may wait unsent for
    /// the client, and the receive buffer towards the target.
    async fn queues_behind(first: &[u8]) -> (u32, usize) {
        let ((client, mut player), (target, mut core)) = (pair().await, pair().await);
        let (metrics, scratch) = (ListenerMetrics::new(&Metrics::new(), "test"), scratch());
        let handle = ConnectionHandle::new(1, "test".into(), ([127, 0, 0, 1], 1).into());
        let moved = ForwardObserver { client: &client, target: &target, handle: &handle, metrics: &metrics };
        let pumping = pump(&client, &target, Vec::new(), Duration::from_secs(60), &scratch, &moved);
        let exchange = async {
            player.write_all(first).await.unwrap();
            core.read_exact(&mut vec![0; first.len()]).await.unwrap();
        };
        tokio::select! {
            pumped = pumping => panic!("{pumped:?}"),
            () = exchange => {}
        }
        (client.options().unwrap().tcp_notsent_lowat().unwrap(), target.options().unwrap().recv_buffer_size().unwrap())
    }

    #[test]
    fn only_a_connection_that_begins_with_a_ping_has_small_queues() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let test =
            async { (queues_behind(b"GET / HTTP/1.1\r\n\r\n").await, queues_behind(&ping(ClientId(1), 0)).await) };
        let bounded = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), test).await });
        let (other, link) = bounded.expect("it hangs");
        // Zero is the kernel's default: no mark.
        assert_eq!((other.0, link.0), (0, UNSENT as u32));
        assert!(link.1 < other.1, "{link:?} and {other:?}");
    }
}

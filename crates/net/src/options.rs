//! What the kernel is told about each kind of socket. What else was tried, and all the figures:
//! docs/network.md.
//!
//! All have `TCP_NODELAY`: a packet of the game is small, and waits for nothing. A game connection has
//! nothing else. An option that a kernel does not know is left out: it saves time, not correctness.

use std::time::Duration;

use socket2::SockRef;

/// Bytes that may wait unsent in the kernel on the way to a client. What waits there can no longer be
/// skipped when it is acknowledged elsewhere, and no pong can overtake it. A quarter of it makes pongs on
/// a slow path a tenth quicker, and packets on a good one later: p99 37 to 62 ms instead of 36 to 50.
pub const UNSENT: usize = 16 * 1024;

/// Bytes of links that a forward takes in ahead of a client that is slow. The kernel's own limit grows to
/// megabytes, and all that waits here delays a pong: on a path of 256 kbit/s with 100 kB/s for it by 7 s, when
/// clients give the link up; with this and [`UNSENT`] by 2 s. It also limits a forward to so much in each round
/// trip to its target, so other connections, which may be downloads, keep the kernel's own.
const AHEAD: usize = 16 * 1024;

/// How long what a forward has sent to its target may stay unacknowledged. Clients give a link up
/// after 7.5 s and a connect after 12.5 s. Where the network to the core is gone, the descriptors of such a
/// link are free after 21 s instead of 58.
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);

/// A link towards its client: at the core, and at an edge the half to the client.
pub(super) fn towards_client(socket: &SockRef<'_>) {
    let _ = socket.set_tcp_notsent_lowat(UNSENT as u32);
}

/// A connection of a forward to its target.
pub(super) fn towards_target(socket: &SockRef<'_>) {
    let _ = socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
}

/// The same, once it is known to carry a link.
pub(super) fn link_towards_target(socket: &SockRef<'_>) {
    let _ = socket.set_recv_buffer_size(AHEAD);
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Socket, Type};

    use super::*;

    #[test]
    fn the_kernel_takes_the_options() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        towards_client(&SockRef::from(&socket));
        assert_eq!(socket.tcp_notsent_lowat().unwrap() as usize, UNSENT);
        assert_eq!(socket.tcp_user_timeout().unwrap(), None, "a client may stop reading for longer");
        towards_target(&SockRef::from(&socket));
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED));
        link_towards_target(&SockRef::from(&socket));
        // It books twice as much as it is asked for.
        assert_eq!(socket.recv_buffer_size().unwrap(), 2 * AHEAD);
    }
}

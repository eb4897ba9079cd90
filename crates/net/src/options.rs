//! The kernel's options of each kind of socket. Other options that were tried, and all figures: docs/network.md.
//!
//! All have `TCP_NODELAY`: a packet of the game is small, and must not wait. A game connection has no other option. An
//! option that a kernel does not know is left out: it saves time, but is not needed for correctness.

use std::time::Duration;

use socket2::SockRef;

/// Bytes that may wait unsent in the kernel on the way to a client. Bytes that wait there can no longer be skipped when
/// they are acknowledged elsewhere, and no pong can overtake them. A quarter of this makes pongs on a slow path a tenth
/// quicker, and packets on a good one later: p99 37 to 62 ms instead of 36 to 50.
pub const UNSENT: usize = 16 * 1024;

/// Bytes of links that a forward takes in ahead of a slow client. The kernel's own limit grows to megabytes, and all
/// bytes that wait here delay pongs: on a path of 256 kbit/s with 100 kB/s for it by 7 s, at which clients give up the
/// link; with this and [`UNSENT`] by 2 s. It also limits a forward to this much in each round trip to its target, so
/// other connections, which may be downloads, keep the kernel's own.
const AHEAD: usize = 16 * 1024;

/// The time for which bytes that a forward has sent to its target may stay unacknowledged. Clients give up a link after
/// 7.5 s and a connect after 12.5 s. If the network to the core is gone, the descriptors of such a link are free after
/// 21 s instead of 58.
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);

/// Sets the options of a link towards its client: at the core, and at an edge for the half to the client.
pub(super) fn towards_client(socket: &SockRef<'_>) {
    let _ = socket.set_tcp_notsent_lowat(UNSENT as u32);
}

/// Sets the options of a forward's connection to its target.
pub(super) fn towards_target(socket: &SockRef<'_>) {
    let _ = socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
}

/// Sets the options of such a connection once it is known to carry a link.
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
        // The kernel books twice the amount that it is asked for.
        assert_eq!(socket.recv_buffer_size().unwrap(), 2 * AHEAD);
    }
}

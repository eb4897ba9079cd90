//! Listening sockets: one for each worker and address.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use thiserror::Error;
use tokio::net::TcpStream;
use tracing::warn;

use crate::connect::is_without_family;
use crate::descriptors;
use crate::{Inherited, OutageLog};

/// Connections that the kernel may complete ahead of an accept; it cuts this to its own limit.
const BACKLOG: u16 = 4096;
/// The wait of an accept loop when the process or the system has no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// The error of an address that cannot be listened on.
#[derive(Debug, Error)]
#[error("listener `{listener}`: cannot listen on {address}: {error}{}", remedy(*address, error))]
pub struct BindError {
    listener: String,
    address: SocketAddr,
    // Not called `source`: the message has it, and a printed chain of errors would have it twice.
    error: io::Error,
}

impl BindError {
    /// Returns the error of a listener at this address.
    pub fn new(listener: &str, address: SocketAddr, error: io::Error) -> Self {
        Self { listener: listener.to_owned(), address, error }
    }
}

fn remedy(address: SocketAddr, error: &io::Error) -> &'static str {
    match error.kind() {
        _ if is_without_family(error) && address.is_ipv6() => {
            " (this host has no IPv6: take this address out, or boot without `ipv6.disable=1`)"
        }
        io::ErrorKind::AddrInUse => " (another process listens there: see `ss -ltnp`)",
        io::ErrorKind::AddrNotAvailable if address.is_ipv6() => {
            " (this host has no such address: see `ip -6 address`, and `sysctl net.ipv6.conf.all.disable_ipv6`, which turns \
             IPv6 off)"
        }
        io::ErrorKind::AddrNotAvailable => " (this host has no such address: see `ip address`)",
        io::ErrorKind::PermissionDenied => " (ports below 1024 need a privilege: choose a higher one)",
        _ => "",
    }
}

/// The sockets of one listener: one for each worker and address.
#[derive(Debug)]
pub struct BoundListener {
    /// The addresses, with the ports that the kernel chose in place of 0.
    pub addresses: Vec<SocketAddr>,
    /// `sockets[worker]`
    pub sockets: Vec<Vec<TcpListener>>,
    /// Sockets of the predecessor beyond one for each worker. Connections may wait there, and new ones come, until they are closed.
    pub beyond: Vec<TcpListener>,
}

/// Listens on all `addresses`, with a socket of its own for each of `workers`, so that the kernel
/// spreads connections over them.
///
/// # Errors
/// Returns the first address that cannot be bound.
pub fn bind(name: &str, addresses: &[SocketAddr], workers: usize) -> Result<BoundListener, BindError> {
    bind_beside(name, addresses, workers, &[], &mut Inherited::default())
}

/// Listens in the same way on ports that this process listens on already: one of `own` sockets, for any address or for
/// a certain one, may be there until the new ones are. Sockets of these addresses that are `inherited` are taken in place of new ones;
/// where they are too few, the ones beside them listen once somebody [accepts](accept_until).
///
/// # Errors
/// Returns the first address that cannot be bound.
pub fn bind_beside(
    name: &str,
    addresses: &[SocketAddr],
    workers: usize,
    own: &[SocketAddr],
    inherited: &mut Inherited,
) -> Result<BoundListener, BindError> {
    let sockets = (0..workers).map(|_| Vec::new()).collect();
    let mut bound = BoundListener { addresses: Vec::new(), sockets, beyond: Vec::new() };
    for &address in addresses {
        if is_left_out(name, address, addresses) {
            continue;
        }
        let fail = |error| BindError::new(name, address, error);
        let is_ours = inherited.overlaps(address) || own.iter().any(|own| own.port() == address.port());
        if address.port() != 0 && !is_ours {
            // Sockets that share a port would also share it with another process, without notice. So the port is first
            // bound without sharing, which fails unless it is free. The kernel chooses only free ports itself.
            socket(address, false).map_err(fail)?;
        }
        let mut there = inherited.take(address).into_iter();
        // The kernel would lead connections to one that listens beside them, and nobody is there if its process does not come so far.
        let waits = there.len() > 0;
        let mut address = address;
        for sockets in &mut bound.sockets {
            if let Some(listener) = there.next() {
                sockets.push(listener);
                continue;
            }
            let listener = socket(address, true).map_err(fail)?;
            if !waits {
                listener.listen(BACKLOG.into()).map_err(fail)?;
            }
            let listener = TcpListener::from(listener);
            // All others share the port of the first socket, if the kernel chose it.
            address = listener.local_addr().map_err(fail)?;
            sockets.push(listener);
        }
        bound.beyond.extend(there);
        bound.addresses.push(address);
    }
    Ok(bound)
}

/// Returns whether a listener of these `addresses` does without this one, as the kernel has no IPv6; and logs it.
pub fn is_left_out(listener: &str, address: SocketAddr, addresses: &[SocketAddr]) -> bool {
    let family = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP));
    let is_left_out = family.is_err_and(|error| may_be_left_out(address, addresses, &error));
    if is_left_out {
        warn!(listener, %address, "this host has no IPv6, so this listener is without it");
    }
    is_left_out
}

/// Returns whether a listener is whole without this address: all of IPv6, where the kernel has none, beside one of IPv4.
fn may_be_left_out(address: SocketAddr, addresses: &[SocketAddr], error: &io::Error) -> bool {
    let unspecified = address.is_ipv6() && address.ip().is_unspecified();
    unspecified && is_without_family(error) && addresses.iter().any(SocketAddr::is_ipv4)
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `[::]` beside `0.0.0.0` on one port must work, as in the example configurations.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Accepts until `closing`, and hands each connection to `accepted`. Connections that wait in the kernel at that time
/// are the last ones. Errors never end it: it reports to `failed`, waits if descriptors are [short](descriptors), and goes on.
///
/// # Errors
/// Fails only if the socket cannot listen, or the runtime cannot watch it.
pub async fn accept_until<T>(
    closing: impl Future<Output = T>,
    listener: TcpListener,
    mut accepted: impl FnMut(TcpStream, SocketAddr),
    mut failed: impl FnMut(&io::Error),
) -> io::Result<T> {
    // Most do so already, and go on.
    SockRef::from(&listener).listen(BACKLOG.into())?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    // One that was accepted with a descriptor that is held back, and waits.
    let mut waits = None;
    let accepting = async {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    if descriptors::is_held_back(&stream) {
                        waits = Some((stream, peer));
                        while !descriptors::is_one_left(&listener) {
                            failed(&descriptors::none_left());
                            tokio::time::sleep(PAUSE).await;
                        }
                        waits.take().into_iter().for_each(|(stream, peer)| accepted(stream, peer));
                    } else {
                        accepted(stream, peer);
                    }
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    failed(&error);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    };
    let closing = tokio::select! {
        closing = closing => closing,
        never = accepting => never,
    };
    waits.into_iter().for_each(|(stream, peer)| accepted(stream, peer));
    // The kernel itself is asked: the runtime may not have heard yet of connections that have just arrived.
    let listener = listener.into_std()?;
    for _ in 0..BACKLOG {
        match listener.accept() {
            Ok((stream, peer)) => {
                let taken = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
                taken.map_or_else(|error| failed(&error), |stream| accepted(stream, peer));
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(_) => break,
        }
    }
    Ok(closing)
}

/// Logs that an accept of this listener failed, up to the log's limit. With few descriptors left the next one may well work.
pub fn warn_of_accept(listener: &str, error: &io::Error) {
    static LOG: OutageLog<Option<i32>> = OutageLog::new();
    if let Some(suppressed) = LOG.failed(error.raw_os_error(), Instant::now()) {
        warn!(listener, %error, suppressed, "cannot accept; raise LimitNOFILE if descriptors are short");
    }
}

/// Returns whether a failed accept has used up the connection that it failed for, so that the next one may be tried at
/// once: Linux reports errors of a connection that occurred before its accept. Every other error, such as `EMFILE` (the
/// process has no descriptor left), `ENFILE` (the system has none), `ENOBUFS` and `ENOMEM`, would occur again at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    use rustix::io::Errno;
    const OF_ONE: &[Errno] = &[
        Errno::CONNABORTED,
        Errno::INTR,
        Errno::NETDOWN,
        Errno::PROTO,
        Errno::NOPROTOOPT,
        Errno::HOSTDOWN,
        Errno::NONET,
        Errno::HOSTUNREACH,
        Errno::OPNOTSUPP,
        Errno::NETUNREACH,
    ];
    Errno::from_io_error(error).is_some_and(|errno| OF_ONE.contains(&errno))
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn want_of_descriptors_or_memory_is_waited_out() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::PERM, Errno::INVAL] {
            assert!(!is_of_one_connection(&errno.into()), "{errno:?}");
        }
        for errno in [Errno::CONNABORTED, Errno::PROTO, Errno::HOSTUNREACH] {
            assert!(is_of_one_connection(&errno.into()), "{errno:?}");
        }
        assert!(!is_of_one_connection(&io::Error::other("of no system call")));
    }

    #[test]
    fn an_address_that_cannot_be_had_comes_with_its_remedy() {
        let (v4, v6) = ("0.0.0.0:7162".parse().unwrap(), "[::]:7162".parse().unwrap());
        for (address, errno, says) in [
            (v6, Errno::AFNOSUPPORT, "this host has no IPv6: take this address out"),
            (v6, Errno::ADDRNOTAVAIL, "see `ip -6 address`, and `sysctl net.ipv6.conf.all.disable_ipv6`"),
            (v4, Errno::ADDRNOTAVAIL, "this host has no such address: see `ip address`"),
            (v4, Errno::ACCESS, "ports below 1024 need a privilege"),
        ] {
            let error = BindError { listener: "links".to_owned(), address, error: errno.into() }.to_string();
            assert!(error.starts_with(&format!("listener `links`: cannot listen on {address}: ")), "{error}");
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_kernel_without_ipv6_leaves_out_all_of_ipv6_and_nothing_else() {
        let [v4, all6, one6] = ["0.0.0.0:1", "[::]:1", "[2001:db8::1]:1"].map(|address| address.parse().unwrap());
        let (none, other) = (io::Error::from(Errno::AFNOSUPPORT), io::Error::from(Errno::MFILE));
        assert!(may_be_left_out(all6, &[v4, all6], &none));
        assert!(!may_be_left_out(all6, &[v4, all6], &other));
        assert!(!may_be_left_out(all6, &[all6], &none));
        assert!(!may_be_left_out(one6, &[v4, one6], &none));
        assert!(!may_be_left_out(v4, &[v4, all6], &none));
    }

    #[test]
    fn who_waits_when_a_socket_closes_is_the_last_to_be_accepted() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bound = bind("a", &["127.0.0.1:0".parse().unwrap()], 1).unwrap();
            let (address, socket) = (bound.addresses[0], bound.sockets.into_iter().flatten().next().unwrap());
            // The runtime hears of none of them before it must close.
            let waiting: Vec<_> = (0..20).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
            let mut peers = Vec::new();
            let closed = accept_until(async { 7 }, socket, |_, peer| peers.push(peer), |error| panic!("{error}")).await;
            assert_eq!(closed.unwrap(), 7);
            let expected: Vec<_> = waiting.iter().map(|stream| stream.local_addr().unwrap()).collect();
            assert_eq!(peers, expected);
            let refused = std::net::TcpStream::connect(address).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        });
    }

    #[test]
    fn an_own_port_can_be_had_for_another_address_and_nobody_elses() {
        let bound = bind("a", &["0.0.0.0:0".parse().unwrap()], 2).unwrap();
        let here = [SocketAddr::from(([127, 0, 0, 1], bound.addresses[0].port()))];
        assert!(bind("a", &here, 2).is_err());
        assert_eq!(bind_beside("a", &here, 2, &bound.addresses, &mut Inherited::default()).unwrap().addresses, here);
    }

    #[test]
    fn workers_share_one_port_and_nobody_else_does() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let bound = bind("a", &[any, any], 3).unwrap();
        assert_eq!((bound.addresses.len(), bound.sockets.len()), (2, 3));
        for sockets in &bound.sockets {
            let ports: Vec<_> = sockets.iter().map(|s| s.local_addr().unwrap()).collect();
            assert_eq!(ports, bound.addresses);
        }
        assert_ne!(bound.addresses[0], bound.addresses[1]);
        let error = bind("b", &bound.addresses, 1).unwrap_err().to_string();
        assert!(error.starts_with("listener `b`: cannot listen on 127.0.0.1:"), "{error}");
        assert!(error.ends_with("(another process listens there: see `ss -ltnp`)"), "{error}");
    }

    #[test]
    fn inherited_sockets_come_first_and_what_is_beyond_the_workers_is_given_back() {
        let bound = bind("a", &["127.0.0.1:0".parse().unwrap()], 3).unwrap();
        let address = bound.addresses[0];
        let mut inherited = Inherited::new(bound.sockets.into_iter().flatten());
        let one = bind_beside("a", &[address], 1, &[], &mut inherited).unwrap();
        assert_eq!((one.sockets[0].len(), one.beyond.len(), inherited.len()), (1, 2, 0));
        // More workers than sockets: others are bound beside them, which no other process may.
        let mut inherited = Inherited::new(one.sockets.into_iter().flatten());
        let three = bind_beside("a", &[address], 3, &[], &mut inherited).unwrap();
        assert!(three.sockets.iter().all(|sockets| sockets.len() == 1) && three.beyond.is_empty());
        assert!(inherited.is_empty());
        assert!(bind("a", &[address], 1).is_err());
        // Nothing comes to these until somebody accepts there.
        let listening = |sockets: &Vec<TcpListener>| SockRef::from(&sockets[0]).is_listener().unwrap();
        assert_eq!(three.sockets.iter().map(listening).collect::<Vec<_>>(), [true, false, false]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let last = three.sockets.into_iter().flatten().next_back().unwrap();
            let looks = last.try_clone().unwrap();
            let closing = async { assert!(SockRef::from(&looks).is_listener().unwrap()) };
            accept_until(closing, last, |_, _| {}, |error| panic!("{error}")).await.unwrap();
        });
    }
}

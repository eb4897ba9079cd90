//! Listening sockets that a process has from its predecessor, by their addresses.

use std::net::{SocketAddr, TcpListener};

/// Listening sockets of the predecessor that nobody has taken yet.
#[derive(Debug, Default)]
pub struct Inherited(Vec<(SocketAddr, TcpListener)>);

impl Inherited {
    /// Takes over these sockets. One whose address cannot be had is closed.
    pub fn new(sockets: impl IntoIterator<Item = TcpListener>) -> Self {
        let with_address = |socket: TcpListener| {
            // The runtime watches only such, and the predecessor's are.
            socket.set_nonblocking(true).ok()?;
            Some((socket.local_addr().ok()?, socket))
        };
        Self(sockets.into_iter().filter_map(with_address).collect())
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes all sockets of an address.
    pub fn take(&mut self, address: SocketAddr) -> Vec<TcpListener> {
        self.0.extract_if(.., |(of, _)| *of == address).map(|(_, socket)| socket).collect()
    }

    /// Closes all sockets of other addresses; returns these addresses.
    pub fn close_all_but(&mut self, wanted: &[SocketAddr]) -> Vec<SocketAddr> {
        let mut closed: Vec<_> = self.0.extract_if(.., |(of, _)| !wanted.contains(of)).map(|(of, _)| of).collect();
        closed.sort_unstable();
        closed.dedup();
        closed
    }

    /// Returns whether one of these sockets keeps others from an address that is bound without sharing.
    pub fn overlaps(&self, address: SocketAddr) -> bool {
        self.0.iter().any(|(of, _)| {
            let (one, other) = (of.ip(), address.ip());
            let same = one == other || one.is_unspecified() || other.is_unspecified();
            of.port() == address.port() && one.is_ipv4() == other.is_ipv4() && same
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(address: &str) -> (SocketAddr, TcpListener) {
        let listener = TcpListener::bind(address).unwrap();
        (listener.local_addr().unwrap(), listener)
    }

    #[test]
    fn sockets_are_taken_by_address_and_others_are_closed() {
        let (one, first) = listening("127.0.0.1:0");
        let (other, second) = listening("127.0.0.1:0");
        let again = first.try_clone().unwrap();
        let mut inherited = Inherited::new([first, second, again]);
        assert_eq!(inherited.len(), 3);
        assert!(inherited.overlaps(one) && inherited.overlaps(SocketAddr::from(([0, 0, 0, 0], one.port()))));
        assert!(!inherited.overlaps(SocketAddr::from(([127, 0, 0, 2], one.port()))));
        assert!(!inherited.overlaps(SocketAddr::from(([0; 8], one.port()))));
        assert_eq!(inherited.close_all_but(&[one]), [other]);
        assert!(std::net::TcpStream::connect(other).is_err());
        assert_eq!(inherited.take(one).len(), 2);
        assert!(inherited.is_empty() && inherited.take(one).is_empty());
    }
}

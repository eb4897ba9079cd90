//! The edges of the configuration, and what is known of each.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use parking_lot::RwLock;
use tracing::info;

use otproxy_config::EdgePeer;
use otproxy_net::{OutageLog, RateLimitedLog};

/// Lines about edges that come and go, in each window of a rate-limited log.
pub const EDGE_LINES: u16 = 20;
/// The addresses of an edge that are remembered: one that comes from any of them is no news.
const KNOWN_ADDRESSES: usize = 16;

/// The edges of the configuration; an edge itself knows none. It is locked for a look by each new connection, and for a
/// change by each connection of a tunnel that begins or ends.
#[derive(Debug)]
pub struct EdgeRegistry {
    edges: RwLock<Vec<KnownEdge>>,
    log: RateLimitedLog,
}

impl Default for EdgeRegistry {
    fn default() -> Self {
        Self { edges: RwLock::default(), log: RateLimitedLog::new(EDGE_LINES) }
    }
}

/// An edge of the configuration.
#[derive(Debug)]
struct KnownEdge {
    name: Arc<str>,
    peer: EdgePeer,
    presence: Presence,
}

/// What is known of an edge from its connections of the tunnel.
#[derive(Debug, Default)]
struct Presence {
    /// The number of connections from each address.
    addresses: BTreeMap<IpAddr, usize>,
    /// Those of them that carry nothing.
    spare: usize,
    /// The addresses that it came from, the latest in front.
    known: VecDeque<IpAddr>,
    since: Option<SystemTime>,
    certificate: Option<EdgeCertificate>,
    error: Option<EdgeError>,
    away: OutageLog<()>,
}

/// The certificate that an edge proved itself with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeCertificate {
    /// Its serial number, in pairs of hexadecimal digits.
    pub serial: String,
    /// The last moment at which it is valid.
    pub until: SystemTime,
}

/// The reason for which a connection of an edge came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeError {
    /// The time of it.
    pub time: SystemTime,
    /// The word of the metric that counted it.
    pub reason: &'static str,
    /// The address of the peer, which is perhaps not the edge.
    pub address: Option<IpAddr>,
}

/// An edge at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeSnapshot {
    /// Its name.
    pub name: Arc<str>,
    /// True if it is refused.
    pub revoked: bool,
    /// The addresses of its connections of the tunnel; without one, the last address.
    pub addresses: Vec<IpAddr>,
    /// Connections of the tunnel that carry nothing.
    pub spare: usize,
    /// The time from which on it has had connections of the tunnel.
    pub since: Option<SystemTime>,
    /// The last certificate that it proved itself with.
    pub certificate: Option<EdgeCertificate>,
    /// The last error.
    pub error: Option<EdgeError>,
}

impl EdgeRegistry {
    /// Knows exactly these edges from now on. Knowledge of edges that stay is kept.
    pub fn set(&self, peers: &[EdgePeer]) {
        let mut edges = self.edges.write();
        let mut before = std::mem::take(&mut *edges);
        *edges = peers
            .iter()
            .map(|peer| match before.iter().position(|edge| *edge.name == *peer.name) {
                Some(index) => KnownEdge { peer: peer.clone(), ..before.swap_remove(index) },
                None => {
                    KnownEdge { name: peer.name.as_str().into(), peer: peer.clone(), presence: Presence::default() }
                }
            })
            .collect();
    }

    /// Returns the name of the edge that connects from this address, as `edges[].address` says.
    pub fn at(&self, peer: IpAddr) -> Option<Arc<str>> {
        let peer = peer.to_canonical();
        let edges = self.edges.read();
        let at = |edge: &&KnownEdge| edge.peer.addresses.iter().any(|network| network.contains(&peer));
        edges.iter().find(at).map(|edge| Arc::clone(&edge.name))
    }

    /// Counts a connection of the tunnel with the edge of this name, until the guard is dropped.
    pub fn connected(self: &Arc<Self>, name: &Arc<str>, address: IpAddr, by: EdgeCertificate) -> EdgePresence {
        let address = address.to_canonical();
        self.with(name, |presence| presence.connected(address, by, Instant::now()).map(|news| (news, address)));
        EdgePresence { edges: Arc::clone(self), name: Arc::clone(name), address, spare: true }
    }

    /// Records why a connection of this edge, or in its name, came to nothing.
    pub fn failed(&self, name: &str, reason: &'static str, address: Option<IpAddr>) {
        let address = address.map(|address| address.to_canonical());
        let error = EdgeError { time: SystemTime::now(), reason, address };
        if let Some(edge) = self.edges.write().iter_mut().find(|edge| *edge.name == *name) {
            edge.presence.error = Some(error);
        }
    }

    /// Returns all edges, in the order of the file.
    pub fn snapshot(&self) -> Vec<EdgeSnapshot> {
        self.edges.read().iter().map(KnownEdge::snapshot).collect()
    }

    /// Changes what is known of an edge, and logs what is new about it.
    fn with(&self, name: &str, change: impl FnOnce(&mut Presence) -> Option<(News, IpAddr)>) {
        let (news, certificate) = {
            let mut edges = self.edges.write();
            let Some(edge) = edges.iter_mut().find(|edge| *edge.name == *name) else { return };
            (change(&mut edge.presence), edge.presence.certificate.clone())
        };
        let Some((news, address)) = news else { return };
        let Some(suppressed) = self.log.allow(Instant::now()) else { return };
        let suppressed = suppressed + if let News::Gone { suppressed, .. } = news { suppressed } else { 0 };
        let suppressed = (suppressed > 0).then_some(suppressed);
        let serial = certificate.map(|certificate| certificate.serial);
        match news {
            News::Up { before } => {
                let before = before.map(tracing::field::display);
                info!(edge = name, %address, before, serial, suppressed, "edge is up");
            }
            News::Elsewhere => {
                info!(edge = name, %address, serial, suppressed, "edge comes from a new address");
            }
            News::Gone { seconds, .. } => info!(edge = name, %address, seconds, suppressed, "edge is gone"),
        }
    }
}

/// What is new about an edge.
#[derive(Debug, PartialEq)]
enum News {
    /// It has its first connection. `before` is the address that it came from the last time, if that is another one.
    Up { before: Option<IpAddr> },
    /// It has a connection from an address that it is not known to come from.
    Elsewhere,
    /// Its last connection has ended, after so long; as it has so many times since the last time that is told.
    Gone { seconds: f64, suppressed: u64 },
}

impl Presence {
    fn connected(&mut self, address: IpAddr, by: EdgeCertificate, now: Instant) -> Option<News> {
        let (first, before) = (self.addresses.is_empty(), self.known.front().copied());
        let is_known = self.known.contains(&address);
        *self.addresses.entry(address).or_insert(0) += 1;
        self.spare += 1;
        self.known.retain(|known| *known != address);
        self.known.truncate(KNOWN_ADDRESSES - 1);
        self.known.push_front(address);
        self.certificate = Some(by);
        if first {
            self.since = Some(SystemTime::now());
            // One that comes and goes is told of now and then; that it comes from elsewhere, each time.
            let is_back = before == Some(address) && self.away.worked(now).is_none();
            return (!is_back).then_some(News::Up { before: before.filter(|before| *before != address) });
        }
        (!is_known).then_some(News::Elsewhere)
    }

    fn ended(&mut self, address: IpAddr, spare: bool, now: Instant) -> Option<News> {
        self.spare = self.spare.saturating_sub(spare.into());
        let count = self.addresses.get_mut(&address)?;
        *count -= 1;
        if *count == 0 {
            self.addresses.remove(&address);
        }
        if !self.addresses.is_empty() {
            return None;
        }
        let lasted = self.since.take().and_then(|since| since.elapsed().ok()).unwrap_or_default();
        let suppressed = self.away.failed((), now)?;
        Some(News::Gone { seconds: lasted.as_secs_f64(), suppressed })
    }
}

impl KnownEdge {
    fn snapshot(&self) -> EdgeSnapshot {
        let Self { name, peer, presence } = self;
        let mut addresses: Vec<_> = presence.addresses.keys().copied().collect();
        if addresses.is_empty() {
            addresses.extend(presence.known.front());
        }
        EdgeSnapshot {
            name: Arc::clone(name),
            revoked: peer.revoked,
            addresses,
            spare: presence.spare,
            since: presence.since,
            certificate: presence.certificate.clone(),
            error: presence.error.clone(),
        }
    }
}

/// The guard of a connection of the tunnel with an edge. Dropping it counts it off.
#[derive(Debug)]
pub struct EdgePresence {
    edges: Arc<EdgeRegistry>,
    name: Arc<str>,
    address: IpAddr,
    spare: bool,
}

impl EdgePresence {
    /// Counts it as one that carries something from now on.
    pub fn take(&mut self) {
        if std::mem::take(&mut self.spare) {
            self.edges.with(&self.name, |presence| {
                presence.spare = presence.spare.saturating_sub(1);
                None
            });
        }
    }
}

impl Drop for EdgePresence {
    fn drop(&mut self) {
        let (address, spare) = (self.address, self.spare);
        self.edges
            .with(&self.name, |presence| presence.ended(address, spare, Instant::now()).map(|news| (news, address)));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn peer(name: &str) -> EdgePeer {
        EdgePeer { name: name.to_owned(), addresses: Vec::new(), dial: None, revoked: false }
    }

    fn certificate() -> EdgeCertificate {
        EdgeCertificate { serial: "40:01".to_owned(), until: SystemTime::UNIX_EPOCH }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_new_is_that_it_comes_and_goes_and_from_where() {
        let (mut presence, one, other) = (Presence::default(), ip("192.0.2.1"), ip("2001:db8::1"));
        let now = Instant::now();
        assert_eq!(presence.connected(one, certificate(), now), Some(News::Up { before: None }));
        assert_eq!(presence.connected(one, certificate(), now), None);
        assert_eq!(presence.connected(other, certificate(), now), Some(News::Elsewhere));
        assert_eq!(presence.ended(other, true, now), None);
        assert_eq!(presence.connected(other, certificate(), now), None, "it is known from there");
        for _ in 0..2 {
            assert_eq!(presence.ended(one, true, now), None);
        }
        assert!(matches!(presence.ended(other, true, now), Some(News::Gone { .. })));
        assert_eq!(presence.connected(one, certificate(), now), Some(News::Up { before: Some(other) }));
        for n in 0..100 {
            presence.connected(IpAddr::from([10, 0, 0, n]), certificate(), now);
        }
        assert_eq!(presence.known.len(), KNOWN_ADDRESSES);
    }

    #[test]
    fn one_that_comes_and_goes_all_day_is_told_of_now_and_then() {
        let (mut presence, start) = (Presence::default(), Instant::now());
        let (mut told, mut times) = (0, 0);
        for second in (0..24 * 3600).step_by(2) {
            let now = start + Duration::from_secs(second);
            told += usize::from(presence.connected(ip("192.0.2.1"), certificate(), now).is_some());
            if let Some(News::Gone { suppressed, .. }) = presence.ended(ip("192.0.2.1"), true, now) {
                (told, times) = (told + 1, times + 1 + suppressed);
            }
        }
        assert!((100..2000).contains(&told), "{told}");
        assert!((43_000 - 300..=43_200).contains(&times), "{times}");
        let elsewhere = presence.connected(ip("192.0.2.2"), certificate(), start + Duration::from_secs(24 * 3600));
        assert_eq!(elsewhere, Some(News::Up { before: Some(ip("192.0.2.1")) }), "that is told in any case");
    }

    #[test]
    fn an_edge_is_seen_with_its_connections_and_its_last_error_as_long_as_it_is_configured() {
        let edges = Arc::new(EdgeRegistry::default());
        edges.set(&[peer("waw1"), peer("fra1")]);
        let name = Arc::from("waw1");
        let mut first = edges.connected(&name, ip("::ffff:192.0.2.1"), certificate());
        let second = edges.connected(&name, ip("192.0.2.1"), certificate());
        first.take();
        edges.failed("waw1", "expired", None);
        edges.set(&[peer("fra1"), EdgePeer { revoked: true, ..peer("waw1") }]);
        let [fra1, waw1] = &edges.snapshot()[..] else { panic!("two") };
        assert_eq!((fra1.addresses.len(), fra1.since, &fra1.error), (0, None, &None));
        assert_eq!((&waw1.addresses[..], waw1.spare, waw1.revoked), (&[ip("192.0.2.1")][..], 1, true));
        assert_eq!((waw1.since.is_some(), waw1.certificate.clone()), (true, Some(certificate())));
        assert_eq!(waw1.error.as_ref().map(|error| error.reason), Some("expired"));
        drop((first, second));
        let gone = &edges.snapshot()[1];
        assert_eq!((&gone.addresses[..], gone.spare, gone.since), (&[ip("192.0.2.1")][..], 0, None));
        let late = edges.connected(&name, ip("192.0.2.1"), certificate());
        edges.set(&[]);
        drop(late);
        assert!(edges.snapshot().is_empty());
    }
}

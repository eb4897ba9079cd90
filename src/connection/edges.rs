//! The edges of the configuration, and what is known of each.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::RwLock;
use tokio::sync::watch;
use tracing::info;

use otproxy_config::{EdgePeer, HostPort};
use otproxy_net::{OutageLog, RateLimitedLog, TrunkStats};
use otproxy_protocol::edge_list::{EdgeList, ListedEdge};

/// Lines about edges that come and go, in each window of a rate-limited log.
pub const EDGE_LINES: u16 = 20;
/// The addresses of an edge that are remembered: one that comes from any of them is no news.
const KNOWN_ADDRESSES: usize = 16;

/// The edges of the configuration; an edge itself knows none. It is locked for a look by each new connection, and for a
/// change by each connection of a tunnel that begins or ends.
#[derive(Debug)]
pub struct EdgeRegistry {
    edges: RwLock<Vec<KnownEdge>>,
    /// The word for clients on each of them, and its changes.
    standings: watch::Sender<Arc<[EdgeStanding]>>,
    /// The list for clients that follows from it.
    list: RwLock<Arc<EdgeList>>,
    /// The number of the next trunk.
    next: AtomicU64,
    log: RateLimitedLog,
}

impl Default for EdgeRegistry {
    fn default() -> Self {
        let (edges, list, next) = (RwLock::default(), RwLock::default(), AtomicU64::new(0));
        let standings = watch::Sender::new(Arc::from([]));
        Self { edges, standings, list, next, log: RateLimitedLog::new(EDGE_LINES) }
    }
}

/// An edge of the configuration.
#[derive(Debug)]
struct KnownEdge {
    name: Arc<str>,
    peer: EdgePeer,
    presence: Presence,
    decision: Option<EdgeDecision>,
}

/// The decision about what clients are told of an edge, beside what the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EdgeDecision {
    /// True if clients are to use it.
    pub listed: bool,
    /// Milliseconds that clients add to the round trip over it.
    pub priority: u16,
}

/// An edge that clients can be told of, and whether they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeStanding {
    /// Its name.
    pub name: Arc<str>,
    /// Its address for clients.
    pub public: HostPort,
    /// The place that it shares with others which fail together.
    pub datacenter: Option<Arc<str>>,
    /// The decision about it.
    pub decision: EdgeDecision,
}

/// Knowledge of an edge from its trunks.
#[derive(Debug, Default)]
struct Presence {
    /// The number of trunks from each address.
    addresses: BTreeMap<IpAddr, usize>,
    /// The trunks, in the order in which they came.
    trunks: BTreeMap<u64, KnownTrunk>,
    /// The addresses that it came from, the latest in front.
    known: VecDeque<IpAddr>,
    since: Option<SystemTime>,
    certificate: Option<EdgeCertificate>,
    error: Option<EdgeError>,
    away: OutageLog<()>,
}

/// A trunk of an edge.
#[derive(Debug)]
struct KnownTrunk {
    address: IpAddr,
    since: SystemTime,
    certificate: EdgeCertificate,
    /// The version of the edge's program.
    software: String,
    stats: Arc<TrunkStats>,
}

/// A trunk of an edge at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrunkSnapshot {
    /// The edge's address.
    pub address: IpAddr,
    /// The time from which on it is there.
    pub since: SystemTime,
    /// The certificate that the edge proved itself with.
    pub certificate: EdgeCertificate,
    /// The version of the edge's program.
    pub software: String,
    /// Streams now.
    pub streams: u64,
    /// Bytes from the edge.
    pub bytes_in: u64,
    /// Bytes to the edge.
    pub bytes_out: u64,
    /// The last round trip, if there was one.
    pub round_trip: Option<Duration>,
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
    /// Its address for clients, if they are told of it.
    pub public: Option<HostPort>,
    /// True if it is refused.
    pub revoked: bool,
    /// The addresses of its trunks; without one, the last address.
    pub addresses: Vec<IpAddr>,
    /// Its trunks, the oldest first.
    pub trunks: Vec<TrunkSnapshot>,
    /// The time from which on it has had trunks.
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
                    let (name, presence) = (peer.name.as_str().into(), Presence::default());
                    KnownEdge { name, peer: peer.clone(), presence, decision: None }
                }
            })
            .collect();
        self.tell(&edges);
    }

    /// Has clients told what is decided of these edges, each by its name, and of all others what the file says.
    pub fn decide(&self, decided: &HashMap<Arc<str>, EdgeDecision>) {
        let mut edges = self.edges.write();
        edges.iter_mut().for_each(|edge| edge.decision = decided.get(&edge.name).copied());
        self.tell(&edges);
    }

    fn tell(&self, edges: &[KnownEdge]) {
        let standings: Arc<[_]> = edges.iter().filter_map(KnownEdge::standing).collect();
        let listed = standings.iter().filter(|edge| edge.decision.listed).map(|edge| {
            let HostPort { host, port } = edge.public.clone();
            ListedEdge { host, port, priority: edge.decision.priority, datacenter: edge.datacenter.clone() }
        });
        *self.list.write() = Arc::new(EdgeList(listed.collect()));
        self.standings.send_if_modified(|before| {
            let changed = *before != standings;
            *before = standings;
            changed
        });
    }

    /// Returns the edges that clients can be told of, in the order of the file, and each change of them.
    pub fn standings(&self) -> watch::Receiver<Arc<[EdgeStanding]>> {
        self.standings.subscribe()
    }

    /// Returns what clients are to be told of the edges now, before it is [put in order](EdgeList::for_player) for one of them.
    pub fn list(&self) -> Arc<EdgeList> {
        Arc::clone(&self.list.read())
    }

    /// Returns the name of the edge that connects from this address, as `edges[].address` says.
    pub fn at(&self, peer: IpAddr) -> Option<Arc<str>> {
        let peer = peer.to_canonical();
        let edges = self.edges.read();
        let at = |edge: &&KnownEdge| edge.peer.addresses.iter().any(|network| network.contains(&peer));
        edges.iter().find(at).map(|edge| Arc::clone(&edge.name))
    }

    /// Counts a trunk of the edge of this name, until the guard is dropped. `software` is the version of its program.
    pub fn connected(
        self: &Arc<Self>,
        name: &Arc<str>,
        address: IpAddr,
        by: EdgeCertificate,
        software: &str,
    ) -> TrunkPresence {
        let address = address.to_canonical();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let stats: Arc<TrunkStats> = Arc::default();
        let trunk = KnownTrunk {
            address,
            since: SystemTime::now(),
            certificate: by,
            software: software.to_owned(),
            stats: Arc::clone(&stats),
        };
        self.with(name, |presence| presence.connected(number, trunk, Instant::now()).map(|news| (news, address)));
        TrunkPresence { edges: Arc::clone(self), name: Arc::clone(name), number, stats }
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
    fn connected(&mut self, number: u64, trunk: KnownTrunk, now: Instant) -> Option<News> {
        let address = trunk.address;
        let (first, before) = (self.addresses.is_empty(), self.known.front().copied());
        let is_known = self.known.contains(&address);
        *self.addresses.entry(address).or_insert(0) += 1;
        self.known.retain(|known| *known != address);
        self.known.truncate(KNOWN_ADDRESSES - 1);
        self.known.push_front(address);
        self.certificate = Some(trunk.certificate.clone());
        self.trunks.insert(number, trunk);
        if first {
            self.since = Some(SystemTime::now());
            // One that comes and goes is told of now and then; that it comes from elsewhere, each time.
            let is_back = before == Some(address) && self.away.worked(now).is_none();
            return (!is_back).then_some(News::Up { before: before.filter(|before| *before != address) });
        }
        (!is_known).then_some(News::Elsewhere)
    }

    fn ended(&mut self, number: u64, now: Instant) -> Option<(News, IpAddr)> {
        let address = self.trunks.remove(&number)?.address;
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
        Some((News::Gone { seconds: lasted.as_secs_f64(), suppressed }, address))
    }
}

impl KnownTrunk {
    fn snapshot(&self) -> TrunkSnapshot {
        let Self { address, since, certificate, software, stats } = self;
        let figure = |of: &AtomicU64| of.load(Ordering::Relaxed);
        TrunkSnapshot {
            address: *address,
            since: *since,
            certificate: certificate.clone(),
            software: software.clone(),
            streams: figure(&stats.streams),
            bytes_in: figure(&stats.bytes_in),
            bytes_out: figure(&stats.bytes_out),
            round_trip: Some(Duration::from_micros(figure(&stats.round_trip))).filter(|trip| !trip.is_zero()),
        }
    }
}

impl KnownEdge {
    fn standing(&self) -> Option<EdgeStanding> {
        let EdgePeer { public, priority, datacenter, disabled, revoked, .. } = &self.peer;
        let datacenter = datacenter.as_deref().map(Into::into);
        let decision = self.decision.unwrap_or(EdgeDecision { listed: true, priority: *priority });
        let decision = EdgeDecision { listed: decision.listed && !disabled && !revoked, ..decision };
        Some(EdgeStanding { name: Arc::clone(&self.name), public: public.clone()?, datacenter, decision })
    }

    fn snapshot(&self) -> EdgeSnapshot {
        let Self { name, peer, presence, decision: _ } = self;
        let mut addresses: Vec<_> = presence.addresses.keys().copied().collect();
        if addresses.is_empty() {
            addresses.extend(presence.known.front());
        }
        EdgeSnapshot {
            name: Arc::clone(name),
            public: peer.public.clone(),
            revoked: peer.revoked,
            addresses,
            trunks: presence.trunks.values().map(KnownTrunk::snapshot).collect(),
            since: presence.since,
            certificate: presence.certificate.clone(),
            error: presence.error.clone(),
        }
    }
}

/// The guard of a trunk of an edge. Dropping it counts it off.
#[derive(Debug)]
pub struct TrunkPresence {
    edges: Arc<EdgeRegistry>,
    name: Arc<str>,
    number: u64,
    stats: Arc<TrunkStats>,
}

impl TrunkPresence {
    /// Returns the figures that are shown of it.
    pub fn stats(&self) -> &Arc<TrunkStats> {
        &self.stats
    }

    /// Records the reason for which it ended.
    pub fn failed(&self, reason: &'static str) {
        self.edges.failed(&self.name, reason, None);
    }
}

impl Drop for TrunkPresence {
    fn drop(&mut self) {
        self.edges.with(&self.name, |presence| presence.ended(self.number, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str) -> EdgePeer {
        EdgePeer {
            name: name.to_owned(),
            addresses: Vec::new(),
            dial: None,
            public: None,
            priority: 0,
            priority_under_attack: None,
            reserve: false,
            datacenter: None,
            traffic: None,
            disabled: false,
            revoked: false,
        }
    }

    fn certificate() -> EdgeCertificate {
        EdgeCertificate { serial: "40:01".to_owned(), until: SystemTime::UNIX_EPOCH }
    }

    /// A trunk from that address.
    fn from(address: IpAddr) -> KnownTrunk {
        let (since, software) = (SystemTime::UNIX_EPOCH, String::new());
        KnownTrunk { address, since, certificate: certificate(), software, stats: Arc::default() }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_new_is_that_it_comes_and_goes_and_from_where() {
        let (mut presence, one, other) = (Presence::default(), ip("192.0.2.1"), ip("2001:db8::1"));
        let now = Instant::now();
        assert_eq!(presence.connected(0, from(one), now), Some(News::Up { before: None }));
        assert_eq!(presence.connected(1, from(one), now), None);
        assert_eq!(presence.connected(2, from(other), now), Some(News::Elsewhere));
        assert_eq!(presence.ended(2, now), None);
        assert_eq!(presence.connected(3, from(other), now), None, "it is known from there");
        for number in 0..2 {
            assert_eq!(presence.ended(number, now), None);
        }
        assert!(matches!(presence.ended(3, now), Some((News::Gone { .. }, address)) if address == other));
        assert_eq!(presence.connected(4, from(one), now), Some(News::Up { before: Some(other) }));
        for n in 0..100 {
            presence.connected(5 + u64::from(n), from(IpAddr::from([10, 0, 0, n])), now);
        }
        assert_eq!(presence.known.len(), KNOWN_ADDRESSES);
    }

    #[test]
    fn one_that_comes_and_goes_all_day_is_told_of_now_and_then() {
        let (mut presence, start) = (Presence::default(), Instant::now());
        let (mut told, mut times) = (0, 0);
        for second in (0..24 * 3600).step_by(2) {
            let now = start + Duration::from_secs(second);
            told += usize::from(presence.connected(second, from(ip("192.0.2.1")), now).is_some());
            if let Some((News::Gone { suppressed, .. }, _)) = presence.ended(second, now) {
                (told, times) = (told + 1, times + 1 + suppressed);
            }
        }
        assert!((100..2000).contains(&told), "{told}");
        assert!((43_000 - 300..=43_200).contains(&times), "{times}");
        let elsewhere = presence.connected(0, from(ip("192.0.2.2")), start + Duration::from_secs(24 * 3600));
        assert_eq!(elsewhere, Some(News::Up { before: Some(ip("192.0.2.1")) }), "that is told in any case");
    }

    #[test]
    fn an_edge_is_seen_with_its_connections_and_its_last_error_as_long_as_it_is_configured() {
        let edges = Arc::new(EdgeRegistry::default());
        edges.set(&[peer("waw1"), peer("fra1")]);
        let name = Arc::from("waw1");
        let first = edges.connected(&name, ip("::ffff:192.0.2.1"), certificate(), "1.2.3");
        let second = edges.connected(&name, ip("192.0.2.1"), certificate(), "1.2.3");
        first.stats().streams.store(7, Ordering::Relaxed);
        first.stats().round_trip.store(1500, Ordering::Relaxed);
        edges.failed("waw1", "expired", None);
        edges.set(&[peer("fra1"), EdgePeer { revoked: true, ..peer("waw1") }]);
        let [fra1, waw1] = &edges.snapshot()[..] else { panic!("two") };
        assert_eq!((fra1.addresses.len(), fra1.since, &fra1.error), (0, None, &None));
        assert_eq!((&waw1.addresses[..], waw1.revoked), (&[ip("192.0.2.1")][..], true));
        let [trunk, quiet] = &waw1.trunks[..] else { panic!("two") };
        assert_eq!((trunk.streams, trunk.round_trip), (7, Some(Duration::from_micros(1500))));
        assert_eq!((quiet.streams, quiet.round_trip, quiet.software.as_str()), (0, None, "1.2.3"));
        assert_eq!((waw1.since.is_some(), waw1.certificate.clone()), (true, Some(certificate())));
        assert_eq!(waw1.error.as_ref().map(|error| error.reason), Some("expired"));
        drop((first, second));
        let gone = &edges.snapshot()[1];
        assert_eq!((&gone.addresses[..], gone.trunks.len(), gone.since), (&[ip("192.0.2.1")][..], 0, None));
        let late = edges.connected(&name, ip("192.0.2.1"), certificate(), "1.2.3");
        edges.set(&[]);
        drop(late);
        assert!(edges.snapshot().is_empty());
    }
}
